//! What one node at a time does: what a backend must do.

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::store::Result;

/// Leases. Neither method writes an audit record: who speaks to a broker decides nothing.
#[async_trait]
pub trait LeaseStore: Send + Sync {
    /// Takes a lease that is free or over at `now`, or renews one's own, until `until`. `false` if another holder has it.
    async fn take_lease(&self, name: &str, holder: &str, until: Timestamp, now: Timestamp) -> Result<bool>;
    /// Gives a lease up before its time; nothing if it is another's.
    async fn drop_lease(&self, name: &str, holder: &str) -> Result<()>;
}
