//! Topics (`docs/mqtt.md`), and who may do what with them.
//!
//! A topic is built only from a prefix that configuration has checked and from a [`DeviceId`], so that nothing that somebody sends becomes a wildcard or another
//! level. What is received is compared with what would be built: there is no parsing that could read a text in two ways.

use crate::broker::connections::Connected;
use crate::id::DeviceId;
use crate::secret::{Bytes32, b64u};

/// The version of the topics.
const VERSION: &str = "v1";

/// The topics of one prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics {
    base: String,
}

/// What a topic that somebody publishes to is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A pairing message of this device.
    PairingRequest(DeviceId),
    /// A command of an operator.
    Command,
}

impl Topics {
    /// Under a prefix, as configuration has checked it.
    pub fn new(prefix: &str) -> Self {
        Self { base: format!("{prefix}/{VERSION}") }
    }

    /// Where a device sends its pairing messages.
    pub fn pairing_request(&self, device: &DeviceId) -> String {
        format!("{}/{device}/pairing/request", self.base)
    }

    /// Where it is answered.
    pub fn pairing_response(&self, device: &DeviceId) -> String {
        format!("{}/{device}/pairing/response", self.base)
    }

    /// What it is told.
    pub fn event(&self, device: &DeviceId) -> String {
        format!("{}/{device}/event", self.base)
    }

    /// What waits.
    pub fn pending(&self) -> String {
        format!("{}/operations/pending", self.base)
    }

    /// Where operators command.
    pub fn commands(&self) -> String {
        format!("{}/operations/commands", self.base)
    }

    /// What became of commands that this key signed. A topic for each key: of things at other sites, nobody hears.
    pub fn results(&self, key: &Bytes32) -> String {
        format!("{}/operations/results/{}", self.base, b64u(key))
    }

    /// Whether Pairgate is there.
    pub fn status(&self) -> String {
        format!("{}/operations/status", self.base)
    }

    /// What Pairgate itself subscribes to, at an outside broker.
    pub fn subscriptions(&self) -> [String; 2] {
        [format!("{}/+/pairing/request", self.base), self.commands()]
    }

    /// Something below all of them, for brokers' rules: never made of what anybody sent.
    pub fn below(&self, rest: &str) -> String {
        format!("{}/{rest}", self.base)
    }

    /// Is this one of these topics, or could be?
    pub fn is_below(&self, topic: &str) -> bool {
        topic.strip_prefix(&self.base).is_some_and(|rest| rest.starts_with('/'))
    }

    /// Does this filter or topic reach any of these topics, by whatever detour? For who may not reach them: `#` and `+/v1/…` are not below the prefix, and
    /// would get everything from there.
    pub fn is_reached_by(&self, filter: &str) -> bool {
        if let Some(shared) = filter.strip_prefix("$share/") {
            return shared.split_once('/').is_some_and(|(_, filter)| overlaps(filter, &self.base));
        }
        if !filter.starts_with('$') {
            return overlaps(filter, &self.base);
        }
        // What brokers have added (`$queue/…`, `$delayed/5/…`): the topic that counts stands somewhere behind it.
        filter.match_indices('/').any(|(at, _)| overlaps(filter.get(at + 1..).unwrap_or_default(), &self.base))
    }

    /// Which device one of these topics is for; none, if it is for people.
    pub fn device_of<'t>(&self, topic: &'t str) -> Option<&'t str> {
        let device = topic.strip_prefix(&self.base)?.strip_prefix('/')?.split('/').next()?;
        (device != "operations").then_some(device)
    }

    /// What was published to, if it is anything that Pairgate takes.
    pub fn incoming(&self, topic: &str) -> Option<Incoming> {
        if topic == self.commands() {
            return Some(Incoming::Command);
        }
        let name = topic.strip_prefix(&self.base)?.strip_prefix('/')?.strip_suffix("/pairing/request")?;
        DeviceId::new(name).ok().map(Incoming::PairingRequest)
    }

    /// May whoever is connected publish to this topic? Only to the very own ones.
    pub fn may_publish(&self, connected: &Connected, topic: &str) -> bool {
        match connected {
            Connected::Device { id, .. } | Connected::Unpaired { id, .. } => topic == self.pairing_request(id),
            Connected::Operator { .. } => topic == self.commands(),
        }
    }

    /// May whoever is connected subscribe to this filter? No wildcards: none of them is equal to any of these (A-057, D-14).
    pub fn may_subscribe(&self, connected: &Connected, filter: &str) -> bool {
        match connected {
            Connected::Device { id, .. } => filter == self.pairing_response(id) || filter == self.event(id),
            Connected::Unpaired { id, .. } => filter == self.pairing_response(id),
            Connected::Operator { sees_all, keys, .. } => {
                let is_own = keys.iter().any(|key| filter == self.results(key));
                is_own || filter == self.status() || (*sees_all && filter == self.pending())
            }
        }
    }
}

/// Can this filter match a topic below `base`?
fn overlaps(filter: &str, base: &str) -> bool {
    let mut levels = filter.split('/');
    for wanted in base.split('/') {
        match levels.next() {
            Some("#") => return true,
            Some(level) if level == "+" || level == wanted => {}
            _ => return false,
        }
    }
    levels.next().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> DeviceId {
        DeviceId::new(text).unwrap()
    }

    #[test]
    fn each_may_reach_its_own_topics_and_nothing_else_a_057_d_14() {
        let topics = Topics::new("acme/pairgate");
        let paired = Connected::Device { id: id("tv-1"), jkt: [1; 32] };
        let unpaired = Connected::Unpaired { id: id("tv-1"), jkt: [2; 32] };
        let person = |sees_all| Connected::Operator { name: "dana".into(), sees_all, keys: vec![[3; 32]] };
        let base = "acme/pairgate/v1";
        let (own, others) = ([[3; 32], [4; 32]].map(|key| format!("operations/results/{}", b64u(&key)))).into();
        let rows = [
            ("tv-1/pairing/request", "ppn", "nn"),
            ("tv-1/pairing/response", "ssn", "nn"),
            ("tv-1/event", "snn", "nn"),
            ("tv-2/pairing/request", "nnn", "nn"),
            ("tv-2/pairing/response", "nnn", "nn"),
            ("tv-2/event", "nnn", "nn"),
            ("operations/commands", "nnn", "pp"),
            ("operations/results", "nnn", "nn"),
            (own.as_str(), "nnn", "ss"),
            (others.as_str(), "nnn", "nn"),
            ("operations/results/+", "nnn", "nn"),
            ("operations/status", "nnn", "ss"),
            ("operations/pending", "nnn", "ns"),
            ("+/event", "nnn", "nn"),
            ("tv-1/#", "nnn", "nn"),
            ("tv-1/+", "nnn", "nn"),
            ("tv-1/pairing/+", "nnn", "nn"),
            ("tv-1/event/", "nnn", "nn"),
            ("tv-1//event", "nnn", "nn"),
            ("TV-1/event", "nnn", "nn"),
            ("operations/#", "nnn", "nn"),
        ];
        for (topic, devices, people) in rows {
            let topic = format!("{base}/{topic}");
            let everybody = [&paired, &unpaired].into_iter().zip(devices.chars());
            let people_asked = [person(false), person(true)];
            for (connected, may) in everybody.chain(people_asked.iter().zip(people.chars())) {
                assert_eq!(topics.may_publish(connected, &topic), may == 'p', "{connected:?} publishes {topic}");
                assert_eq!(topics.may_subscribe(connected, &topic), may == 's', "{connected:?} subscribes {topic}");
            }
        }
        for filter in ["#", "+/v1/tv-1/event", "$SYS/#", "$share/all/acme/pairgate/v1/tv-1/event", "", "v1/tv-1/event"]
        {
            assert!(!topics.may_subscribe(&paired, filter) && !topics.may_subscribe(&person(true), filter), "{filter}");
        }
    }

    #[test]
    fn only_topics_of_device_ids_are_taken_a_056() {
        let topics = Topics::new("pairgate");
        assert_eq!(topics.incoming("pairgate/v1/tv-1/pairing/request"), Some(Incoming::PairingRequest(id("tv-1"))));
        assert_eq!(topics.incoming("pairgate/v1/operations/commands"), Some(Incoming::Command));
        for name in ["#", "+", "a/b", "", "tv-1/x", "tv\u{0}1", "TV-1", "operations", &"x".repeat(65)] {
            assert_eq!(topics.incoming(&format!("pairgate/v1/{name}/pairing/request")), None, "{name:?}");
        }
        for topic in
            ["pairgate/v1tv-1/pairing/request", "pairgate/v1/pairing/request", "x", "", "pairgate/v1/tv-1/event"]
        {
            assert_eq!(topics.incoming(topic), None, "{topic}");
        }
        assert!(
            topics.is_below("pairgate/v1/x") && !topics.is_below("pairgate/v10/x") && !topics.is_below("pairgate/v1")
        );
    }

    #[test]
    fn no_wildcard_reaches_them_unseen_a_057_d_14() {
        let topics = Topics::new("acme/pairgate");
        for filter in [
            "#",
            "acme/#",
            "+/#",
            "acme/pairgate/#",
            "acme/pairgate/v1/#",
            "acme/pairgate/v1/tv-1/event",
            "acme/pairgate/v1/",
            "+/+/+/tv-1/event",
            "+/+/+/+/event",
            "acme/+/v1/#",
            "$share/group/#",
            "$share/group/acme/pairgate/v1/tv-1/event",
            "$queue/acme/pairgate/v1/#",
            "$delayed/5/acme/pairgate/v1/tv-1/event",
            "$SYS/#",
        ] {
            assert!(topics.is_reached_by(filter), "{filter}");
        }
        for filter in [
            "",
            "acme",
            "acme/pairgate",
            "acme/pairgate/v1",
            "acme/pairgate/v10/x",
            "acme/pairgate/v2/#",
            "ACME/pairgate/v1/x",
            "/acme/pairgate/v1/x",
            "sensors/#",
            "+",
            "+/+",
            "+/+/+",
            "acme/pairgate/+",
            "$SYS/broker/uptime",
            "$share/group/sensors/#",
            "$share/acme/pairgate/v1/tv-1/event",
            "$share/#",
            "$",
        ] {
            assert!(!topics.is_reached_by(filter), "{filter}");
        }
    }
}
