//! What the first run leaves behind: the risk assessment's versions, and small settings.

use async_trait::async_trait;

use crate::model::audit::Context;
use crate::model::risk::RiskRecord;
use crate::store::Result;

/// Risk records and settings.
#[async_trait]
pub trait SetupStore: Send + Sync {
    /// All versions, newest first.
    async fn risk_records(&self) -> Result<Vec<RiskRecord>>;
    /// Adds a version. `false` if that number is taken: somebody else signed at the same moment.
    async fn add_risk_record(&self, record: &RiskRecord, context: &Context) -> Result<bool>;
    /// A setting.
    async fn setting(&self, name: &str) -> Result<Option<String>>;
    /// Sets it.
    async fn set_setting(&self, name: &str, value: &str, context: &Context) -> Result<()>;
}
