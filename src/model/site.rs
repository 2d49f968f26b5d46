//! A site: a place with networks.

use std::net::IpAddr;

use ipnet::IpNet;

/// Every installation has this one.
pub const DEFAULT_SITE: &str = "default";

/// A place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Its id.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Its networks; none means that nobody has said.
    pub networks: Vec<IpNet>,
    /// May who registered or paired a device not alone approve its first sign-in?
    pub two_persons: bool,
    /// When nobody is called for what waits: `22:00-06:00`, UTC; empty for never.
    pub quiet_hours: String,
}

impl Site {
    /// A site of which only the name is known.
    pub fn plain(id: &str, name: &str) -> Self {
        Self { id: id.into(), name: name.into(), networks: Vec::new(), two_persons: false, quiet_hours: String::new() }
    }

    /// For the record: all of it.
    pub fn words(&self) -> String {
        let networks: Vec<String> = self.networks.iter().map(ToString::to_string).collect();
        let mut words = format!("{}: '{}', networks [{}]", self.id, self.name, networks.join(" "));
        if self.two_persons {
            words.push_str(", two persons");
        }
        if !self.quiet_hours.is_empty() {
            words.push_str(&format!(", quiet {}", self.quiet_hours));
        }
        words
    }

    /// Is the address one of this site's? `None` if nobody has said which networks it has.
    pub fn has_address(&self, address: IpAddr) -> Option<bool> {
        (!self.networks.is_empty())
            .then(|| self.networks.iter().any(|network| network.contains(&address.to_canonical())))
    }
}

/// `22:00-06:00`, or nothing.
pub fn is_hours(text: &str) -> bool {
    let is_time = |time: &str| {
        let bytes = time.as_bytes();
        let number = |at: usize| time.get(at..at + 2).and_then(|digits| digits.parse::<u8>().ok());
        bytes.len() == 5
            && bytes[2] == b':'
            && number(0).is_some_and(|hour| hour < 24)
            && number(3).is_some_and(|minute| minute < 60)
    };
    text.is_empty() || text.split_once('-').is_some_and(|(from, to)| is_time(from) && is_time(to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quiet_hours_are_two_times() {
        for good in ["", "22:00-06:00", "00:00-23:59"] {
            assert!(is_hours(good), "{good}");
        }
        for bad in ["22-6", "24:00-06:00", "22:60-06:00", "22:00", "22:00-06:00-", "2é:00-06:00"] {
            assert!(!is_hours(bad), "{bad}");
        }
    }

    #[test]
    fn addresses_belong_to_a_site_by_its_networks() {
        let site = Site {
            networks: vec!["10.2.0.0/16".parse().unwrap(), "fd00::/8".parse().unwrap()],
            ..Site::plain("default", "HQ")
        };
        assert_eq!(site.has_address("10.2.14.31".parse().unwrap()), Some(true));
        assert_eq!(site.has_address("::ffff:10.2.14.31".parse().unwrap()), Some(true), "IPv4 in IPv6 clothing");
        assert_eq!(site.has_address("203.0.113.9".parse().unwrap()), Some(false));
        assert_eq!(site.has_address("fd12::1".parse().unwrap()), Some(true));
        let silent = Site { networks: vec![], ..site };
        assert_eq!(silent.has_address("10.2.14.31".parse().unwrap()), None);
    }
}
