//! What the overview counts, in SQLite.

use async_trait::async_trait;
use rusqlite::params;

use super::devices::{DEVICE, device};
use super::{SqliteStore, all, first, json, unsigned};
use crate::clock::Timestamp;
use crate::model::device::Device;
use crate::model::operator::Reach;
use crate::store::{AuditBucket, OverviewStore, Result};

/// No series has more spans than this.
const MAX_BUCKETS: i64 = 1000;

#[async_trait]
impl OverviewStore for SqliteStore {
    async fn audit_series(&self, since: Timestamp, bucket_ms: i64, reach: &Reach) -> Result<Vec<AuditBucket>> {
        let (since, bucket_ms, sites) = (since.millis(), bucket_ms.max(1), json(reach));
        // Each condition is word for word that of an index, which holds all that is asked for. Devices of a site are a list that is made once; the plus
        // keeps the search by time, where each device would be searched for all that was ever recorded of it.
        let of_sites = match sites {
            Some(_) => "+device IN (SELECT id FROM devices WHERE site IN (SELECT value FROM json_each(?3)))",
            None => "?3 IS NULL",
        };
        self.read(|connection| {
            let newest = first(connection, "SELECT at FROM audit ORDER BY id DESC LIMIT 1", [], |row| row.get(0))?;
            let last = newest.map_or(-1, |newest: i64| (newest - since).div_euclid(bucket_ms));
            // A search for each span, instead of one with GROUP BY: that would sort all that it finds.
            let count = |condition: &str, from: i64| {
                let sql =
                    format!("SELECT count(*) FROM audit WHERE {condition} AND at >= ?1 AND at < ?2 AND {of_sites}");
                let found = first(connection, &sql, params![from, from + bucket_ms, sites], |row| row.get(0))?;
                Ok::<_, rusqlite::Error>(unsigned(found.unwrap_or(0)))
            };
            let mut buckets = Vec::new();
            for bucket in 0..=last.min(MAX_BUCKETS - 1) {
                let from = since + bucket * bucket_ms;
                let (signed_in, refused) = (count("event = 'token.issued'", from)?, count("severity <> 'info'", from)?);
                if signed_in + refused > 0 {
                    buckets.push(AuditBucket { from: Timestamp::from_millis(from), signed_in, refused });
                }
            }
            Ok(buckets)
        })
    }

    async fn devices_in_need(&self, unseen_since: Timestamp, limit: u32, reach: &Reach) -> Result<(Vec<Device>, u64)> {
        const NEED: &str = "(d.state = 'suspended' OR (d.state = 'active' AND coalesce(d.seen_at, d.paired_at, d.registered_at) < ?1)) \
             AND (?2 IS NULL OR d.site IN (SELECT value FROM json_each(?2)))";
        let (since, reach) = (unseen_since.millis(), json(reach));
        self.read(|connection| {
            let sql = format!("SELECT {DEVICE} FROM devices d WHERE {NEED} ORDER BY d.id LIMIT ?3");
            let rows = all(connection, &sql, params![since, reach, limit], |row| device(row, 0))?;
            let sql = format!("SELECT count(*) FROM devices d WHERE {NEED}");
            let total = first(connection, &sql, params![since, reach], |row| row.get(0))?;
            Ok((rows, unsigned(total.unwrap_or(0))))
        })
    }
}
