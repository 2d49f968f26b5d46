//! What the overview counts, in SQLite.

use std::collections::BTreeMap;

use async_trait::async_trait;
use rusqlite::params;

use super::devices::{DEVICE, device};
use super::{SqliteStore, all, first, json, unsigned};
use crate::clock::Timestamp;
use crate::model::device::Device;
use crate::model::operator::Reach;
use crate::store::{AuditBucket, OverviewStore, Result};

#[async_trait]
impl OverviewStore for SqliteStore {
    async fn audit_series(&self, since: Timestamp, bucket_ms: i64, reach: &Reach) -> Result<Vec<AuditBucket>> {
        let (since, bucket_ms, sites) = (since.millis(), bucket_ms.max(1), json(reach));
        // Each condition is word for word that of an index, which holds all that is asked for. Devices of a site are a list that is made once.
        let of_sites = match sites {
            Some(_) => "device IN (SELECT id FROM devices WHERE site IN (SELECT value FROM json_each(?3)))",
            None => "?3 IS NULL",
        };
        self.read(|connection| {
            let counted = |condition: &str| {
                let sql = format!(
                    "SELECT (at - ?1) / ?2, count(*) FROM audit WHERE {condition} AND at >= ?1 AND {of_sites} GROUP BY 1"
                );
                all(connection, &sql, params![since, bucket_ms, sites], |row| {
                    Ok((row.get::<_, i64>(0)?, unsigned(row.get(1)?)))
                })
            };
            let mut buckets = BTreeMap::<i64, (u64, u64)>::new();
            for (bucket, count) in counted("event = 'token.issued'")? {
                buckets.entry(bucket).or_default().0 = count;
            }
            for (bucket, count) in counted("severity <> 'info'")? {
                buckets.entry(bucket).or_default().1 = count;
            }
            let bucket = |(bucket, (signed_in, refused))| AuditBucket {
                from: Timestamp::from_millis(since + bucket * bucket_ms),
                signed_in,
                refused,
            };
            Ok(buckets.into_iter().map(bucket).collect())
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
