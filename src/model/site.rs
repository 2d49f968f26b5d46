//! A site: a place with networks.

use std::net::IpAddr;

use ipnet::IpNet;

/// Every installation has this one.
pub const DEFAULT_SITE: &str = "default";

/// A place.
#[derive(Clone, Debug)]
pub struct Site {
    /// Its id.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Its networks; none means that nobody has said.
    pub networks: Vec<IpNet>,
}

impl Site {
    /// Is the address one of this site's? `None` if nobody has said which networks it has.
    pub fn has_address(&self, address: IpAddr) -> Option<bool> {
        (!self.networks.is_empty())
            .then(|| self.networks.iter().any(|network| network.contains(&address.to_canonical())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_belong_to_a_site_by_its_networks() {
        let site = Site {
            id: "default".into(),
            name: "HQ".into(),
            networks: vec!["10.2.0.0/16".parse().unwrap(), "fd00::/8".parse().unwrap()],
        };
        assert_eq!(site.has_address("10.2.14.31".parse().unwrap()), Some(true));
        assert_eq!(site.has_address("::ffff:10.2.14.31".parse().unwrap()), Some(true), "IPv4 in IPv6 clothing");
        assert_eq!(site.has_address("203.0.113.9".parse().unwrap()), Some(false));
        assert_eq!(site.has_address("fd12::1".parse().unwrap()), Some(true));
        let silent = Site { networks: vec![], ..site };
        assert_eq!(silent.has_address("10.2.14.31".parse().unwrap()), None);
    }
}
