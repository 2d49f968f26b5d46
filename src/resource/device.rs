//! Who called: what the service behind the guard gets to know.

use crate::clock::Timestamp;
use crate::id::DeviceId;
use crate::oauth::scope::Scope;
use crate::secret::Bytes32;

/// An enrolled device that showed a good token *and* the key that it is bound to. The guard puts it into the request's extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its id in the broker's registry.
    pub id: DeviceId,
    /// What its token allows.
    pub scope: Scope,
    /// The resource that the token is for: always your own identifier.
    pub resource: String,
    /// The sign-in that the token is of (`sid`): the same in the broker's audit log.
    pub sign_in: Option<String>,
    /// How well its key is kept, as the broker knows it.
    pub key_assurance: KeyAssurance,
    /// What the token is bound to, and what the device proved.
    pub bound_to: Binding,
    /// When the token ends.
    pub expires_at: Timestamp,
    /// When the approver signed in (`auth_time`), if the token says so.
    pub approver_signed_in_at: Option<Timestamp>,
}

/// What a token is bound to (RFC 7800 `cnf`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// The key with this thumbprint (`jkt`, RFC 9449 section 6.1).
    Key(Bytes32),
    /// The certificate with this SHA-256 (`x5t#S256`, RFC 8705 section 3.1).
    Certificate(Bytes32),
}

/// How well a device's key is kept. Ordered: the last is the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyAssurance {
    /// In a file, as far as anybody knows.
    Software,
    /// In hardware, says whoever registered it.
    HardwareClaimed,
    /// In hardware, proved by an attestation.
    Attested,
}

impl KeyAssurance {
    /// The claim's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Software => "software",
            Self::HardwareClaimed => "hardware-claimed",
            Self::Attested => "attested",
        }
    }

    /// From the claim. What is not known is worth no more than the least.
    pub fn from_claim(value: Option<&str>) -> Self {
        [Self::Attested, Self::HardwareClaimed]
            .into_iter()
            .find(|known| value == Some(known.as_str()))
            .unwrap_or(Self::Software)
    }
}

/// The certificate that the client showed in the TLS handshake, as DER. Whoever terminates TLS puts it into the request's extensions; never take it
/// from a header that a client could send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate(pub Vec<u8>);
