//! What a device is told over MQTT without asking (`docs/mqtt.md`, section "Events").

/// An event, by what the device is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// Show this number: somebody has opened its sign-in.
    ConfirmationNumber(String),
    /// Make the token request now.
    PollNow,
    /// The same; the answer will be no.
    Denied,
    /// Stop: what it holds is dead.
    Suspended,
    /// Show itself.
    Identify,
}

impl Told {
    /// The word, as in the message.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::ConfirmationNumber(_) => "confirmation_number",
            Self::PollNow => "poll_now",
            Self::Denied => "denied",
            Self::Suspended => "suspended",
            Self::Identify => "identify",
        }
    }
}
