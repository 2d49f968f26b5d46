//! How many refusals of strangers are written to the audit log. A flood must not fill the disk, and its size must still show.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Timestamp;

/// Records per address and minute.
const PER_ADDRESS: u32 = 20;
/// Records per minute in all.
const IN_ALL: u32 = 300;
/// Addresses that are told apart in one minute; the rest share one place.
const ADDRESSES: usize = 10_000;

/// Counts of the present minute.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<Minute>);

#[derive(Debug, Default)]
struct Minute {
    began_at: Option<Timestamp>,
    by_address: HashMap<Option<IpAddr>, u32>,
    recorded: u32,
    suppressed: u64,
}

impl Refusals {
    /// Counts one; whether it is to be recorded, and how many of the last minute were not, once, after that minute.
    pub fn admit(&self, peer: Option<IpAddr>, now: Timestamp) -> (bool, Option<(&'static str, u64)>) {
        let mut minute = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = minute.began_at.is_none_or(|began_at| now.since(began_at) >= Duration::from_secs(60));
        let mut suppressed = None;
        if is_over {
            suppressed = (minute.suppressed > 0).then_some(("various addresses within a minute", minute.suppressed));
            *minute = Minute { began_at: Some(now), ..Minute::default() };
        }
        // IPv6 by /64: one customer has as many addresses as he likes.
        let place = peer.map(network_of);
        let place =
            if minute.by_address.len() < ADDRESSES || minute.by_address.contains_key(&place) { place } else { None };
        let count = minute.by_address.entry(place).or_insert(0);
        *count += 1;
        let is_recorded = *count <= PER_ADDRESS && minute.recorded < IN_ALL;
        if is_recorded {
            minute.recorded += 1;
        } else {
            minute.suppressed += 1;
        }
        (is_recorded, suppressed)
    }
}

/// The address that is counted: IPv4 as it is, IPv6 by its /64.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) >> 64 << 64).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_not_recorded_a_091() {
        let refusals = Refusals::default();
        let peer = Some("203.0.113.9".parse().unwrap());
        let start = Timestamp::from_millis(1_000_000);
        let recorded = (0..1_000).filter(|_| refusals.admit(peer, start).0).count();
        assert_eq!(recorded, 20);
        assert!(refusals.admit(Some("203.0.113.10".parse().unwrap()), start).0, "others still show");
        let (is_recorded, suppressed) = refusals.admit(peer, start.plus(Duration::from_secs(60)));
        assert!(is_recorded);
        assert_eq!(suppressed.map(|(_, count)| count), Some(980));
    }

    #[test]
    fn ipv6_is_counted_by_network() {
        assert_eq!(network_of("2001:db8::1".parse().unwrap()), network_of("2001:db8::ffff:2".parse().unwrap()));
        assert_ne!(network_of("2001:db8:0:1::1".parse().unwrap()), network_of("2001:db8::1".parse().unwrap()));
    }
}
