//! Who has how many connections. One address must not take them all: the others would wait for as long as it likes.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::IpNet;

use crate::broker::refusals::network_of;

/// Connections of one address, or of one /64 of IPv6. A site behind one address has a few hundred devices.
const PER_ADDRESS: usize = 500;

/// The count.
#[derive(Clone, Debug)]
pub struct Places {
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
    /// Proxies speak for many.
    proxies: Arc<[IpNet]>,
}

/// One connection's place, given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
    /// None: not counted.
    address: Option<IpAddr>,
}

impl Places {
    /// All free. Proxies, and programs of this machine, are not counted.
    pub fn new(proxies: &[IpNet]) -> Self {
        Self { taken: Arc::default(), proxies: Arc::from(proxies) }
    }

    /// A place for one more connection; none if this address has too many.
    pub fn take(&self, peer: IpAddr) -> Option<Place> {
        let peer = peer.to_canonical();
        let taken = Arc::clone(&self.taken);
        if peer.is_loopback() || self.proxies.iter().any(|proxy| proxy.contains(&peer)) {
            return Some(Place { taken, address: None });
        }
        let address = network_of(peer);
        let mut counts = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= PER_ADDRESS {
            return None;
        }
        *count += 1;
        Some(Place { taken, address: Some(address) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(address) = self.address else { return };
        let mut counts = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_does_not_get_all_places_a_091() {
        let places = Places::new(&["10.0.0.7/32".parse().unwrap()]);
        let take = |address: &str| places.take(address.parse().unwrap());
        let mut held: Vec<Place> = (0..PER_ADDRESS).map(|_| take("203.0.113.9").unwrap()).collect();
        assert!(take("203.0.113.9").is_none() && take("::ffff:203.0.113.9").is_none());
        assert!(take("203.0.113.10").is_some(), "others come in");
        held.pop();
        assert!(take("203.0.113.9").is_some(), "a place was given back");
        let _network: Vec<Place> = (0..PER_ADDRESS).map(|host| take(&format!("2001:db8::{host:x}")).unwrap()).collect();
        assert!(take("2001:db8::ffff").is_none(), "one /64 is one address");
        for uncounted in ["127.0.0.1", "::1", "10.0.0.7"] {
            let many: Vec<_> = (0..=PER_ADDRESS).map(|_| take(uncounted)).collect();
            assert!(many.iter().all(Option::is_some), "{uncounted}");
        }
        drop((held, _network));
        assert!(places.taken.lock().unwrap().is_empty(), "nothing is remembered of who has left");
    }
}
