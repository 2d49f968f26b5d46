//! Who is it that connects over MQTT? By a password that is a JWT, signed for this one connection, or by a client certificate with the pinned key.

use rustls::pki_types::CertificateDer;
use serde::Deserialize;

use crate::clock::Timestamp;
use crate::device_auth::assertion::{AssertionUse, LEEWAY, seconds};
use crate::device_auth::replay::Seen;
use crate::device_auth::{AuthenticatedDevice, Authenticator, Refused, Said};
use crate::model::device::Device;
use crate::oauth::jose::UnverifiedJwt;
use crate::secret::{Bytes32, sha256};
use crate::store::Store;

/// `typ` of the password. A proof, an assertion or a token must not pass for one, nor it for one of those (RFC 8725 section 3.11).
const PASSWORD: &str = "mqtt+jwt";
/// A password may live this long, in seconds.
const MAX_LIFETIME: i64 = 300;

#[derive(Debug, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    iat: f64,
    exp: f64,
    jti: String,
}

/// A password whose signature fits the key that it carries. What that key is worth is the registry's to say.
#[derive(Debug)]
pub struct Password {
    /// Device id or operator's name, by its own word.
    pub who: String,
    /// Thumbprint of the key that signed.
    pub jkt: Bytes32,
    used: AssertionUse,
}

impl Password {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong, for the record.
    pub fn read(text: &str, issuer: &str, now: Timestamp) -> Result<Self, &'static str> {
        let unverified = UnverifiedJwt::<Claims>::parse(text, PASSWORD).map_err(|error| error.0)?;
        let claims = unverified.peek();
        if claims.aud != issuer {
            return Err("the password's aud is not the issuer");
        }
        if !(16..=64).contains(&claims.jti.len()) {
            return Err("the password's jti must have 16 to 64 characters");
        }
        let (Some(iat), Some(exp)) = (seconds(claims.iat), seconds(claims.exp)) else {
            return Err("the password's iat or exp is no time");
        };
        if exp - iat > MAX_LIFETIME || exp < iat {
            return Err("the password lives too long: exp may be 300 seconds after iat");
        }
        if now.seconds() >= exp + LEEWAY || iat > now.seconds() + LEEWAY {
            return Err("the password has expired, or is from the future; check the clock");
        }
        let verified = unverified.verify().map_err(|error| error.0)?;
        let jkt = verified.key.jkt();
        let hash = sha256(&[b"mqtt password", &jkt, verified.claims.jti.as_bytes()]);
        Ok(Self { who: verified.claims.iss, jkt, used: AssertionUse { client: jkt, hash, exp } })
    }
}

impl Authenticator {
    /// Uses a password up. To be asked only of keys that are known: strangers must not fill the memory of it.
    ///
    /// # Errors
    /// Why not, for the record; `None` if there is no more room to remember.
    pub fn use_password(&self, password: &Password, now: Timestamp) -> Result<(), Option<&'static str>> {
        match self.assertions.note(&password.used, LEEWAY, now) {
            Seen::New => Ok(()),
            Seen::Before => Err(Some("a password that was used before")),
            Seen::Full => Err(None),
        }
    }

    /// May this device connect by its key alone, without a certificate?
    ///
    /// # Errors
    /// If its kind wants one.
    pub fn by_key_alone(&self, device: &Device) -> Result<(), Refused> {
        self.needs_no_certificate(device, &Said { client_id: Some(device.id.as_str()) })
    }

    /// The device of this id, by a client certificate with its pinned key.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn by_connection_certificate(
        &self,
        store: &dyn Store,
        chain: &[CertificateDer<'static>],
        id: &str,
        now: Timestamp,
    ) -> Result<AuthenticatedDevice, Refused> {
        self.by_certificate(store, chain, id, None, &Said { client_id: Some(id) }, now).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::signing_key::{SigningAlgorithm, SigningKey};
    use serde_json::{Value, json};

    const ISSUER: &str = "https://pairgate.example";
    const NOW: i64 = 1_800_000_000;

    fn read(typ: &str, claims: &Value) -> Result<Password, &'static str> {
        let key = SigningKey::from_pkcs8(&SigningKey::generate(SigningAlgorithm::Es256).unwrap()).unwrap();
        let text = key.sign(typ, claims, true).unwrap();
        Password::read(&text, ISSUER, Timestamp::from_millis(NOW * 1000))
    }

    /// One mutation a row.
    #[test]
    fn only_a_fresh_password_for_this_issuer_is_read_a_058() {
        let good = json!({"iss": "tv-1", "aud": ISSUER, "iat": NOW, "exp": NOW + 300, "jti": "0123456789abcdef"});
        let password = read("mqtt+jwt", &good).unwrap();
        assert_eq!(password.who, "tv-1");
        for change in [
            json!({"aud": "https://other.example"}),
            json!({"aud": [ISSUER]}),
            json!({"jti": "short"}),
            json!({"jti": "x".repeat(65)}),
            json!({"exp": NOW + 301}),
            json!({"exp": NOW - 1, "iat": NOW}),
            json!({"iat": NOW - 400, "exp": NOW - 100}),
            json!({"iat": NOW + 61, "exp": NOW + 100}),
            json!({"iat": null}),
            json!({"exp": 1e300}),
            json!({"iss": 7}),
        ] {
            let mut claims = good.clone();
            for (name, value) in change.as_object().unwrap() {
                claims[name] = value.clone();
            }
            assert!(read("mqtt+jwt", &claims).is_err(), "{change}");
        }
        for typ in ["JWT", "dpop+jwt", "pairing-request+jwt", "client-authentication+jwt", "at+jwt"] {
            assert!(read(typ, &good).is_err(), "{typ}");
        }
        let key = SigningKey::from_pkcs8(&SigningKey::generate(SigningAlgorithm::Es256).unwrap()).unwrap();
        let mut text = key.sign("mqtt+jwt", &good, true).unwrap();
        let last = text.pop().unwrap();
        text.insert(text.len() - 4, if last == 'A' { 'B' } else { 'A' });
        assert!(Password::read(&text, ISSUER, Timestamp::from_millis(NOW * 1000)).is_err(), "another signature");
    }
}
