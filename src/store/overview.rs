//! What the overview counts: what a backend must do.

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::model::device::Device;
use crate::model::operator::Reach;
use crate::store::Result;

/// What happened in a span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditBucket {
    /// When it begins.
    pub from: Timestamp,
    /// Sign-ins.
    pub signed_in: u64,
    /// Refusals and alerts.
    pub refused: u64,
}

/// Counts over time and devices that need a hand.
#[async_trait]
pub trait OverviewStore: Send + Sync {
    /// Sign-ins and refusals from `since` on, in spans of so many milliseconds that begin at `since`; oldest first, without those in which nothing happened;
    /// at most the first 1,000 spans.
    async fn audit_series(&self, since: Timestamp, bucket_ms: i64, reach: &Reach) -> Result<Vec<AuditBucket>>;
    /// Suspended devices, and active ones that were not heard of since `unseen_since`: by id, at most `limit`, and how many there are.
    async fn devices_in_need(&self, unseen_since: Timestamp, limit: u32, reach: &Reach) -> Result<(Vec<Device>, u64)>;
}
