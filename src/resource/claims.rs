//! The claims of an access token (RFC 9068 section 2.2), or of an introspection answer (RFC 7662 section 2.2), held against what is expected.

use std::time::Duration;

use serde::Deserialize;

use crate::clock::Timestamp;
use crate::id::DeviceId;
use crate::oauth::scope::Scope;
use crate::resource::credentials::Scheme;
use crate::resource::device::{Binding, Device, KeyAssurance};
use crate::secret::bytes32_from_b64u;

/// How far the broker's clock may be ahead of ours.
const LEEWAY: Duration = Duration::from_secs(60);

/// Claims as received. What is missing here is refused while parsing, and so is what stands twice.
#[derive(Clone, Debug, Deserialize)]
pub struct Claims {
    pub(super) iss: String,
    pub(super) sub: String,
    pub(super) aud: Audience,
    pub(super) client_id: String,
    #[serde(default)]
    pub(super) scope: String,
    pub(super) iat: i64,
    pub(super) exp: i64,
    pub(super) nbf: Option<i64>,
    pub(super) jti: String,
    pub(super) sid: Option<String>,
    pub(super) cnf: Option<Confirmation>,
    pub(super) key_assurance: Option<String>,
    pub(super) auth_time: Option<i64>,
}

/// One audience, or a list (RFC 7519 section 4.1.3).
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Audience {
    One(String),
    Many(Vec<String>),
}

/// `cnf` (RFC 7800 section 3.1).
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Confirmation {
    jkt: Option<String>,
    #[serde(rename = "x5t#S256")]
    x5t: Option<String>,
}

impl Claims {
    /// The `token_type` that goes with the binding (RFC 9449 section 5, RFC 8705 section 3).
    pub(super) fn token_type(&self) -> &'static str {
        let is_for_key = self.cnf.as_ref().is_some_and(|confirmation| confirmation.jkt.is_some());
        if is_for_key { Scheme::Dpop.as_str() } else { Scheme::Bearer.as_str() }
    }
}

/// What a token must be: from the broker, for us.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The broker, exactly.
    pub issuer: &'a str,
    /// Our identifier, exactly.
    pub resource: &'a str,
}

/// Holds claims against what is expected (R-9068-04). The device is *named* by that, not yet proved: see `possession`.
///
/// # Errors
/// What is wrong and what to do, for the error description.
pub fn check_claims(claims: &Claims, expected: Expected<'_>, now: Timestamp) -> Result<Device, &'static str> {
    if claims.iss != expected.issuer {
        return Err("The token is from another broker.");
    }
    // A token for us and others could be carried from us to them, or from them to us (A-076).
    let is_ours = match &claims.aud {
        Audience::One(one) => one == expected.resource,
        Audience::Many(many) => many.iter().map(String::as_str).eq([expected.resource]),
    };
    if !is_ours {
        return Err("The token is for another resource. Ask for one with this resource's identifier.");
    }
    if now.seconds() >= claims.exp {
        return Err("The token has expired. Refresh it.");
    }
    let soon = now.plus(LEEWAY).seconds();
    if claims.iat > soon || claims.nbf.is_some_and(|nbf| nbf > soon) {
        return Err("The token is from the future.");
    }
    // Without this, the token of a person or an application of the same broker would pass for a device of that name (A-076).
    let id = DeviceId::new(&claims.client_id)
        .ok()
        .filter(|id| claims.sub.strip_prefix("device:") == Some(id.as_str()) && !claims.jti.is_empty())
        .ok_or("The token is not a device's.")?;
    let scope = Scope::parse(&claims.scope).ok_or("The token's scope is malformed.")?;
    Ok(Device {
        id,
        scope,
        resource: expected.resource.to_owned(),
        sign_in: claims.sid.clone(),
        key_assurance: KeyAssurance::from_claim(claims.key_assurance.as_deref()),
        bound_to: binding(claims.cnf.as_ref())?,
        expires_at: instant(claims.exp),
        approver_signed_in_at: claims.auth_time.map(instant),
    })
}

/// Exactly one binding that we can check. Without one it would be a bearer token; with two, one of them would go unchecked.
fn binding(confirmation: Option<&Confirmation>) -> Result<Binding, &'static str> {
    const UNBOUND: &str = "The token is not bound to a key or certificate. Bearer tokens are not accepted.";
    let confirmation = confirmation.ok_or(UNBOUND)?;
    let hash = |text: &str| bytes32_from_b64u(text).ok_or("The token's cnf is malformed.");
    match (&confirmation.jkt, &confirmation.x5t) {
        (Some(jkt), None) => Ok(Binding::Key(hash(jkt)?)),
        (None, Some(x5t)) => Ok(Binding::Certificate(hash(x5t)?)),
        (None, None) => Err(UNBOUND),
        (Some(_), Some(_)) => Err("The token is bound twice."),
    }
}

const fn instant(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds.saturating_mul(1000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    const EXPECTED: Expected<'_> = Expected { issuer: "https://pairgate.example", resource: "https://scan.example/" };
    const NOW: Timestamp = Timestamp::from_millis(1_000_000_000);

    fn good() -> Value {
        json!({
            "iss": EXPECTED.issuer, "sub": "device:lobby-printer-01", "aud": EXPECTED.resource,
            "client_id": "lobby-printer-01", "scope": "scan.write", "iat": 1_000_000, "exp": 1_000_600, "jti": "one",
            "sid": "7", "cnf": {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}, "key_assurance": "software",
        })
    }

    fn outcome(claims: &Value) -> Result<Device, String> {
        let claims: Claims = serde_json::from_value(claims.clone()).map_err(|error| error.to_string())?;
        check_claims(&claims, EXPECTED, NOW).map_err(str::to_owned)
    }

    #[test]
    fn good_claims_name_the_device() {
        let device = outcome(&good()).unwrap();
        assert_eq!((device.id.as_str(), device.sign_in.as_deref()), ("lobby-printer-01", Some("7")));
        assert_eq!((device.expires_at.seconds(), device.key_assurance), (1_000_600, KeyAssurance::Software));
        assert!(matches!(device.bound_to, Binding::Key(_)));
    }

    /// One mutation a row (R-9068-02, R-9068-04, R-9068-05).
    #[test]
    fn tokens_of_others_for_others_or_of_another_time_are_refused_a_076() {
        let hash = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";
        let mut rows = vec![
            ("iss", json!("https://pairgate.example/"), false),
            ("iss", json!("https://PAIRGATE.example"), false),
            ("aud", json!([EXPECTED.resource]), true),
            ("aud", json!([EXPECTED.resource, "https://other.example/"]), false),
            ("aud", json!([EXPECTED.resource, EXPECTED.resource]), false),
            ("aud", json!([]), false),
            ("aud", json!("https://scan.example"), false),
            ("aud", json!("https://scan.example/deeper"), false),
            ("aud", json!(EXPECTED.issuer), false),
            ("exp", json!(1_000_000), false),
            ("exp", json!(1_000_001), true),
            ("exp", json!(-1), false),
            ("exp", json!("1000600"), false),
            ("exp", json!(1e300), false),
            ("iat", json!(1_000_060), true),
            ("iat", json!(1_000_061), false),
            ("nbf", json!(1_000_000), true),
            ("nbf", json!(1_000_061), false),
            ("sub", json!("lobby-printer-01"), false),
            ("sub", json!("device:attic-printer-02"), false),
            ("sub", json!("device:device:lobby-printer-01"), false),
            ("sub", json!("Device:lobby-printer-01"), false),
            ("sub", json!("user:ida"), false),
            ("client_id", json!("attic-printer-02"), false),
            ("client_id", json!("../etc"), false),
            ("jti", json!(""), false),
            ("scope", json!("a\"b"), false),
            ("scope", json!(["scan.write"]), false),
            ("scope", json!(""), true),
            ("cnf", json!({}), false),
            ("cnf", json!({"kid": "x"}), false),
            ("cnf", json!({"jkt": "short"}), false),
            ("cnf", json!({"jkt": format!("{hash}=")}), false),
            ("cnf", json!({"x5t#S256": hash}), true),
            ("cnf", json!({"x5t#S256": "short"}), false),
            ("cnf", json!({"x5t#S256": hash, "jkt": hash}), false),
            ("cnf", json!({"x5t": hash}), false),
            ("key_assurance", json!("certified by me"), true),
            ("sid", json!(null), true),
            ("auth_time", json!(5), true),
        ];
        for name in ["iss", "sub", "aud", "client_id", "iat", "exp", "jti", "cnf"] {
            rows.push((name, Value::Null, false));
        }
        for (name, value, is_good) in rows {
            let mut claims = good();
            claims[name] = value.clone();
            assert_eq!(outcome(&claims).is_ok(), is_good, "{name}: {value}");
        }
        // A person of the same broker whose name looks like a device's.
        let mut person = good();
        (person["sub"], person["client_id"]) = (json!("device:ida@corp.example"), json!("ida@corp.example"));
        assert!(outcome(&person).is_err());
        let twice = good().to_string().replacen('{', r#"{"aud":"https://other.example/","#, 1);
        assert!(serde_json::from_str::<Claims>(&twice).is_err(), "aud twice");
    }

    proptest! {
        #[test]
        fn no_number_in_a_claim_is_trouble(iat: i64, exp: i64, nbf: Option<i64>, auth_time: Option<i64>, now: i64) {
            let mut claims: Claims = serde_json::from_value(good()).unwrap();
            (claims.iat, claims.exp, claims.nbf, claims.auth_time) = (iat, exp, nbf, auth_time);
            if check_claims(&claims, EXPECTED, Timestamp::from_millis(now)).is_ok() {
                prop_assert!(now.div_euclid(1000) < exp);
            }
        }
    }
}
