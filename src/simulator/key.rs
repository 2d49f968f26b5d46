//! The key that makes a device that device: ES256, Ed25519, or RS256 on old hardware, made on the device, never shown.
//!
//! Keeping it is in `flash.rs`; thumbprints and checking are in `jose.rs`.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256};
use serde_json::{Value, json};

use super::error::SimulatorError;
use super::jose::{b64u, from_b64u, thumbprint};

enum Pair {
    Es256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rs256(RsaKeyPair),
}

/// A device's key pair. Cloning shares it.
#[derive(Clone)]
pub struct DeviceKey {
    pair: Arc<Pair>,
    jwk: Value,
    jkt: [u8; 32],
}

impl fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceKey({} {})", self.alg(), self.short())
    }
}

impl DeviceKey {
    /// A new P-256 key, signing ES256.
    pub fn generate_es256() -> Result<Self, SimulatorError> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|_| NO_KEY)?;
        Self::from_pair(Pair::Es256(pair))
    }

    /// A new Ed25519 key, signing EdDSA.
    pub fn generate_ed25519() -> Result<Self, SimulatorError> {
        let pair = Ed25519KeyPair::generate().map_err(|_| NO_KEY)?;
        Self::from_pair(Pair::Ed25519(pair))
    }

    /// A new RSA key of 2048 bits, signing RS256: old hardware.
    pub fn generate_rs256() -> Result<Self, SimulatorError> {
        Self::from_pair(Pair::Rs256(RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| NO_KEY)?))
    }

    /// A key from its algorithm (`ES256`, `EdDSA` or `RS256`) and the base64url text of its PKCS#8 form.
    pub fn from_pkcs8_b64u(alg: &str, text: &str) -> Result<Self, SimulatorError> {
        const UNUSABLE: SimulatorError = SimulatorError::Crypto("the stored key is not usable");
        let pkcs8 = from_b64u(text).ok_or(UNUSABLE)?;
        let pair = match alg {
            "ES256" => EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8).map(Pair::Es256),
            "EdDSA" => Ed25519KeyPair::from_pkcs8(&pkcs8).map(Pair::Ed25519),
            "RS256" => RsaKeyPair::from_pkcs8(&pkcs8).map(Pair::Rs256),
            _ => return Err(UNUSABLE),
        };
        Self::from_pair(pair.map_err(|_| UNUSABLE)?)
    }

    /// The base64url text of the PKCS#8 form: the secret itself.
    pub fn to_pkcs8_b64u(&self) -> Result<String, SimulatorError> {
        let document = match self.pair.as_ref() {
            Pair::Es256(pair) => pair.to_pkcs8v1(),
            Pair::Ed25519(pair) => pair.to_pkcs8(),
            Pair::Rs256(pair) => {
                let der: aws_lc_rs::encoding::Pkcs8V1Der<'_> =
                    pair.as_der().map_err(|_| SimulatorError::Crypto("the key cannot be exported"))?;
                return Ok(b64u(der.as_ref()));
            }
        };
        Ok(b64u(document.map_err(|_| SimulatorError::Crypto("the key cannot be exported"))?.as_ref()))
    }

    fn from_pair(pair: Pair) -> Result<Self, SimulatorError> {
        let jwk = match &pair {
            Pair::Es256(pair) => match pair.public_key().as_ref() {
                [4, point @ ..] if point.len() == 64 => {
                    let (x, y) = point.split_at(32);
                    json!({"kty": "EC", "crv": "P-256", "x": b64u(x), "y": b64u(y)})
                }
                _ => return Err(NO_KEY),
            },
            Pair::Ed25519(pair) => json!({"kty": "OKP", "crv": "Ed25519", "x": b64u(pair.public_key().as_ref())}),
            Pair::Rs256(pair) => {
                let (n, e) = (pair.public_key().modulus(), pair.public_key().exponent());
                let text = |number: &[u8]| b64u(number.strip_prefix(&[0]).unwrap_or(number));
                let (n, e) = (n.big_endian_without_leading_zero(), e.big_endian_without_leading_zero());
                json!({"kty": "RSA", "n": text(n), "e": text(e)})
            }
        };
        let jkt = thumbprint(&jwk).ok_or(NO_KEY)?;
        Ok(Self { pair: Arc::new(pair), jwk, jkt })
    }

    /// The JOSE algorithm name.
    pub fn alg(&self) -> &'static str {
        match self.pair.as_ref() {
            Pair::Es256(_) => "ES256",
            Pair::Ed25519(_) => "EdDSA",
            Pair::Rs256(_) => "RS256",
        }
    }

    /// The public key as a JWK.
    pub fn jwk(&self) -> &Value {
        &self.jwk
    }

    /// The RFC 7638 thumbprint, raw.
    pub fn thumbprint(&self) -> &[u8; 32] {
        &self.jkt
    }

    /// The thumbprint as text.
    pub fn jkt(&self) -> String {
        b64u(&self.jkt)
    }

    /// The thumbprint as people see it, `3f9c…a1`.
    pub fn short(&self) -> String {
        short_key(&self.jkt)
    }

    /// The header that a device normally sends: `typ`, `alg`, `jwk`.
    pub fn header(&self, typ: &str) -> Value {
        json!({"typ": typ, "alg": self.alg(), "jwk": self.jwk})
    }

    /// Signs any header and any claims, however wrong: a compact JWT. Tests forge with it.
    pub fn sign_raw(&self, header: &Value, claims: &Value) -> Result<String, SimulatorError> {
        let signed = format!("{}.{}", b64u(header.to_string().as_bytes()), b64u(claims.to_string().as_bytes()));
        const FAILED: SimulatorError = SimulatorError::Crypto("signing failed");
        let (random, message) = (SystemRandom::new(), signed.as_bytes());
        let signature = match self.pair.as_ref() {
            Pair::Es256(pair) => pair.sign(&random, message).map_err(|_| FAILED)?.as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.try_sign(message).map_err(|_| FAILED)?.as_ref().to_vec(),
            Pair::Rs256(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).map_err(|_| FAILED)?;
                signature
            }
        };
        Ok(format!("{signed}.{}", b64u(&signature)))
    }
}

const NO_KEY: SimulatorError = SimulatorError::Crypto("no key could be made");

/// A thumbprint as the broker's pages write it: the first four letters and the last two of its base64url text.
pub fn short_key(jkt: &[u8; 32]) -> String {
    let text = b64u(jkt);
    match (text.get(..4), text.get(text.len() - 2..)) {
        (Some(first), Some(last)) => format!("{first}…{last}"),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::jose;

    #[test]
    fn what_an_es256_key_signs_its_public_key_confirms() {
        let key = DeviceKey::generate_es256().unwrap();
        let jwt = key.sign_raw(&key.header("test+jwt"), &json!({"iss": "lobby-printer-01"})).unwrap();
        assert_eq!(jose::check(&jwt, key.jwk()).unwrap().text("iss").unwrap(), "lobby-printer-01");
        let other = DeviceKey::generate_es256().unwrap();
        assert!(matches!(jose::check(&jwt, other.jwk()), Err(SimulatorError::NotAuthentic(_))));
    }

    #[test]
    fn a_key_survives_being_stored() {
        let all = [DeviceKey::generate_es256, DeviceKey::generate_ed25519, DeviceKey::generate_rs256];
        for key in all.map(|generate| generate().unwrap()) {
            let again = DeviceKey::from_pkcs8_b64u(key.alg(), &key.to_pkcs8_b64u().unwrap()).unwrap();
            assert_eq!(again.jwk(), key.jwk());
            assert_eq!(again.jkt().len(), 43);
        }
    }
}
