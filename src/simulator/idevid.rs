//! The identity that a maker gives a device in the factory (IEEE 802.1AR, IDevID), and the statement that it signs about another key of the device
//! (docs/api.md section 1.3).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::error::SimulatorError;
use super::key::DeviceKey;

/// A key with its certificates.
#[derive(Debug, Clone)]
pub struct Idevid {
    /// The key that the first certificate names.
    pub key: DeviceKey,
    /// DER, leaf first.
    pub chain: Vec<Vec<u8>>,
}

impl Idevid {
    /// The header of a statement: `typ`, `alg`, `x5c`.
    pub fn header(&self) -> Value {
        let x5c: Vec<String> = self.chain.iter().map(|der| STANDARD.encode(der)).collect();
        json!({"typ": "pairing-attestation+jwt", "alg": self.key.alg(), "x5c": x5c})
    }

    /// Signs a statement.
    pub fn attest(&self, claims: &Value) -> Result<String, SimulatorError> {
        self.key.sign_raw(&self.header(), claims)
    }
}
