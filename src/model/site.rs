//! A site: a place with networks.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::clock::Timestamp;

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

    /// Until when nobody is called for what waits here: the end of the quiet hours, if `now` is in them.
    pub fn quiet_until(&self, now: Timestamp) -> Option<Timestamp> {
        const DAY: i64 = 86_400_000;
        let (from, to) = self.quiet_hours.split_once('-')?;
        let (from, to) = (minutes(from)? * 60_000, minutes(to)? * 60_000);
        let of_day = now.millis().rem_euclid(DAY);
        // Hours that end before they begin go over midnight; hours that end when they begin are none.
        let is_quiet = if from <= to { (from..to).contains(&of_day) } else { of_day >= from || of_day < to };
        let left = (to - of_day).rem_euclid(DAY);
        is_quiet.then(|| Timestamp::from_millis(now.millis() + left))
    }

    /// Is `now` in the quiet hours?
    pub fn is_quiet(&self, now: Timestamp) -> bool {
        self.quiet_until(now).is_some()
    }

    /// Is the address one of this site's? `None` if nobody has said which networks it has.
    pub fn has_address(&self, address: IpAddr) -> Option<bool> {
        (!self.networks.is_empty())
            .then(|| self.networks.iter().any(|network| network.contains(&address.to_canonical())))
    }
}

/// `22:00-06:00`, or nothing.
pub fn is_hours(text: &str) -> bool {
    let is_time = |time: &str| minutes(time).is_some();
    text.is_empty() || text.split_once('-').is_some_and(|(from, to)| is_time(from) && is_time(to))
}

/// Minutes since midnight of `22:00`.
fn minutes(time: &str) -> Option<i64> {
    let digits = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
    let (hour, minute) = time.split_once(':').filter(|(hour, minute)| digits(hour) && digits(minute))?;
    let (hour, minute): (i64, i64) = (hour.parse().ok()?, minute.parse().ok()?);
    (hour < 24 && minute < 60).then_some(hour * 60 + minute)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quiet_hours_are_two_times() {
        for good in ["", "22:00-06:00", "00:00-23:59"] {
            assert!(is_hours(good), "{good}");
        }
        for bad in ["+2:00-06:00", "22-6", "24:00-06:00", "22:60-06:00", "22:00", "22:00-06:00-", "2é:00-06:00"] {
            assert!(!is_hours(bad), "{bad}");
        }
    }

    #[test]
    fn quiet_hours_hold_to_the_minute_and_over_midnight_a_092() {
        let at = |hour: i64, minute: i64| Timestamp::from_millis(((20_000 * 24 + hour) * 60 + minute) * 60_000);
        for (hours, hour, minute, until) in [
            ("", 3, 0, None),
            ("22:00-06:00", 21, 59, None),
            ("22:00-06:00", 22, 0, Some((30, 0))),
            ("22:00-06:00", 23, 59, Some((30, 0))),
            ("22:00-06:00", 0, 0, Some((6, 0))),
            ("22:00-06:00", 5, 59, Some((6, 0))),
            ("22:00-06:00", 6, 0, None),
            ("12:30-13:15", 12, 29, None),
            ("12:30-13:15", 12, 30, Some((13, 15))),
            ("12:30-13:15", 13, 14, Some((13, 15))),
            ("12:30-13:15", 13, 15, None),
            ("00:00-00:00", 0, 0, None),
            ("nonsense", 3, 0, None),
        ] {
            let site = Site { quiet_hours: hours.into(), ..Site::plain("default", "HQ") };
            let until = until.map(|(hour, minute)| at(hour, minute));
            assert_eq!(site.quiet_until(at(hour, minute)), until, "{hours} at {hour}:{minute}");
            assert_eq!(site.is_quiet(at(hour, minute)), until.is_some());
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
