//! Compact JWTs that arrive: proofs (`dpop`), client assertions (`assertion`), requests to be paired (`UnverifiedJwt`), tokens (`KeylessJwt`).
//!
//! An input is one byte of flags, then either a JWT as text, or three lines: header, claims, and who signs: `e` and `d` sign with the keys of this
//! target, anything else is the signature itself. In header and claims `$E` and `$D` stand for the public JWKs, `$N` and `$M` for a good nonce of each.

#![no_main]

use std::borrow::Cow;
use std::sync::LazyLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
    RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use libfuzzer_sys::fuzz_target;
use pairgate::clock::Timestamp;
use pairgate::device_auth::dpop::{self, FreshProof, ProofError};
use pairgate::device_auth::{Proofs, assertion};
use pairgate::oauth::jose::{KeylessJwt, MAX_JWT, UnverifiedJwt};
use pairgate::oauth::jwk::{Algorithm, PublicKey};
use pairgate::secret::{Bytes32, Random, b64u, from_b64u, sha256};
use pairgate_fuzz::Json;
use serde::Deserialize;
use url::Url;

/// Flags. A signature costs thirty times what parsing does, so that most inputs are only parsed.
const IS_VERIFIED: u8 = 1;
const IS_RAW: u8 = 2;

const ISSUER: &str = "https://pairgate.example";
const ENDPOINT: &str = "https://pairgate.example/token";
const PAIRING: &str = "pairing-request+jwt";
/// 2027-01-15T08:00:00Z.
const NOW: i64 = 1_800_000_000;

static KEYS: LazyLock<Keys> = LazyLock::new(Keys::new);

struct Keys {
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
    public: [PublicKey; 2],
    jwks: [String; 2],
    nonces: [String; 2],
    proofs: Proofs,
}

impl Keys {
    fn new() -> Self {
        let pkcs8 = include_bytes!("../fixtures/ec.pkcs8");
        let ec = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8).expect("the fixed key");
        let ed = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("the fixed key");
        let (x, y) = ec.public_key().as_ref()[1..].split_at(32);
        let jwks = [
            format!(r#"{{"kty":"EC","crv":"P-256","x":"{}","y":"{}"}}"#, b64u(x), b64u(y)),
            format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{}"}}"#, b64u(ed.public_key().as_ref())),
        ];
        let public = [0, 1].map(|index: usize| PublicKey::from_json(&jwks[index]).expect("a good key"));
        let proofs = proofs();
        let nonces = [0, 1].map(|index: usize| proofs.nonces.issue(&public[index].jkt(), now()));
        Self { ec, ed, public, jwks, nonces, proofs }
    }
}

fn now() -> Timestamp {
    Timestamp::from_millis(NOW * 1000)
}

/// The same nonce key each time, and no proof seen yet.
fn proofs() -> Proofs {
    Proofs::new(&Random::seeded("fuzz")).expect("a seeded generator never fails")
}

/// A JWT out of three lines; and whether it carries a good signature, by which key.
fn built(data: &[u8], is_verified: bool) -> (String, Option<Bytes32>) {
    let keys = &*KEYS;
    let mut lines = data.splitn(3, |&byte| byte == b'\n');
    let mut part = || {
        let line = lines.next().unwrap_or_default();
        let Ok(text) = std::str::from_utf8(line) else { return Cow::Borrowed(line) };
        if !text.contains('$') {
            return Cow::Borrowed(line);
        }
        let text = text.replace("$E", &keys.jwks[0]).replace("$D", &keys.jwks[1]);
        Cow::Owned(text.replace("$N", &keys.nonces[0]).replace("$M", &keys.nonces[1]).into_bytes())
    };
    let input = format!("{}.{}", b64u(&part()), b64u(&part()));
    let (signature, by) = match lines.next().unwrap_or_default() {
        b"e" if is_verified => {
            let signature = keys.ec.sign(&SystemRandom::new(), input.as_bytes()).expect("it can sign");
            (b64u(signature.as_ref()), Some(keys.public[0].jkt()))
        }
        b"d" if is_verified => (b64u(keys.ed.sign(input.as_bytes()).as_ref()), Some(keys.public[1].jkt())),
        other => (b64u(other), None),
    };
    (format!("{input}.{signature}"), by)
}

/// The same question, asked of the library of cryptography directly.
fn is_signed(text: &str, key: &PublicKey) -> bool {
    let (input, signature) = text.rsplit_once('.').expect("three parts");
    let Some(signature) = from_b64u(signature) else { return false };
    let jwk = Json::read(key.to_json().to_string().as_bytes()).expect("JSON");
    let member = |name: &str| from_b64u(jwk.text(name).expect("a member")).expect("base64url");
    let input = input.as_bytes();
    match key.algorithm() {
        Algorithm::Es256 => {
            let point = [vec![4], member("x"), member("y")].concat();
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(input, &signature).is_ok()
        }
        Algorithm::EdDsa => UnparsedPublicKey::new(&ED25519, member("x")).verify(input, &signature).is_ok(),
        Algorithm::Rs256 => RsaPublicKeyComponents { n: member("n"), e: member("e") }
            .verify(&RSA_PKCS1_2048_8192_SHA256, input, &signature)
            .is_ok(),
    }
}

/// Header and claims of a JWT that the library took; `None` if a part that it ignores is no JSON.
fn taken(text: &str) -> Option<(Json, Json)> {
    assert!(text.len() <= MAX_JWT, "too long");
    let parts: Vec<&str> = text.split('.').collect();
    let [header, claims, _] = parts.as_slice() else { panic!("a compact JWT has three parts") };
    let part = |text: &str| Json::read(&from_b64u(text).expect("base64url"));
    let (header, claims) = (part(header)?, part(claims)?);
    let algorithm = header.text("alg").expect("a header without alg was taken");
    assert!(["ES256", "EdDSA", "Ed25519", "RS256"].contains(&algorithm), "the alg {algorithm} was taken (A-026)");
    assert_eq!(header.member("crit"), None, "critical extensions were taken");
    Some((header, claims))
}

/// A header with a key, and the key that the library read from it.
fn carries(header: &Json, typ: &str, key: &PublicKey) {
    assert!(header.text("typ").is_some_and(|value| value.eq_ignore_ascii_case(typ)), "a JWT for another use");
    let jwk = header.member("jwk").expect("a header without a key");
    for private in ["d", "k", "p", "q", "dp", "dq", "qi", "oth"] {
        assert_eq!(jwk.member(private), None, "a key with the private member {private} was taken");
    }
    let text = |name: &str| jwk.text(name).expect("a member");
    let (algorithms, canonical): (&[_], _) = match text("kty") {
        "EC" => (&["ES256"], format!(r#"{{"crv":"P-256","kty":"EC","x":"{}","y":"{}"}}"#, text("x"), text("y"))),
        "OKP" => (&["EdDSA", "Ed25519"], format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, text("x"))),
        "RSA" => (&["RS256"], format!(r#"{{"e":"AQAB","kty":"RSA","n":"{}"}}"#, text("n"))),
        other => panic!("a key of type {other} was taken"),
    };
    assert!(algorithms.contains(&header.text("alg").expect("an alg")), "the alg of another key");
    assert_eq!(sha256(&[canonical.as_bytes()]), key.jkt(), "not the thumbprint of RFC 7638");
    assert_eq!(PublicKey::from_json(&key.to_json().to_string()).map(|key| key.jkt()), Ok(key.jkt()));
}

#[derive(Debug, Deserialize)]
struct AnyClaims {
    #[serde(rename = "jti")]
    _jti: Option<String>,
}

/// A request to be paired: any JWT that carries its own key.
fn self_signed(text: &str, by: Option<Bytes32>, is_verified: bool) {
    let Ok(unverified) = UnverifiedJwt::<AnyClaims>::parse(text, PAIRING) else { return };
    let Some((header, claims)) = taken(text) else { return };
    carries(&header, PAIRING, unverified.claimed_key());
    claims.text("jti");
    if is_verified {
        let key = unverified.claimed_key().clone();
        let is_good = unverified.verify().is_ok();
        assert_eq!(is_good, is_signed(text, &key));
        assert!(is_good || by != Some(key.jkt()), "a good signature was refused");
        assert!(!is_good || by.is_some() || KEYS.public.iter().all(|ours| ours.jkt() != key.jkt()), "a forgery");
    }
}

fn proof(text: &str, by: Option<Bytes32>, is_verified: bool) {
    let inspect = || dpop::inspect(&KEYS.proofs, text, "POST", ENDPOINT, now());
    let outcome = inspect();
    if matches!(outcome, Err(ProofError::Invalid(_))) {
        return;
    }
    let key = UnverifiedJwt::<AnyClaims>::parse(text, "dpop+jwt").expect("it was taken").claimed_key().clone();
    let Some((header, claims)) = taken(text) else { return };
    carries(&header, "dpop+jwt", &key);
    assert_eq!(claims.text("htm"), Some("POST"));
    assert!(claims.text("jti").is_some_and(|jti| (16..=128).contains(&jti.len())));
    assert!(claims.number("iat").is_some());
    let htu = claims.text("htu").expect("an address");
    let url = Url::parse(htu).expect("an address");
    assert_eq!(url.origin(), Url::parse(ENDPOINT).expect("an address").origin(), "a proof for another host: {htu}");
    assert!(url.username().is_empty() && url.password().is_none() && !htu.contains(['\\', '\n', '\t']), "{htu}");
    assert_eq!(decoded(url.path()), "/token", "a proof for another endpoint: {htu}");
    let path = htu.split(['?', '#']).next().and_then(|address| address.get("https://".len()..)).unwrap_or_default();
    let path = path.split_once('/').expect("a path").1.to_ascii_lowercase();
    assert!(!path.contains('.') && !path.contains("%2e"), "dot segments: {htu}");
    assert!(htu.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://")), "no address: {htu}");

    let nonce = claims.text("nonce");
    match outcome {
        Err(ProofError::Nonce { claimed }) => {
            assert_eq!(claimed, key.jkt());
            let is_good = |index: usize| nonce == Some(&KEYS.nonces[index]) && claimed == KEYS.public[index].jkt();
            assert!(!is_good(0) && !is_good(1), "a good nonce was refused");
        }
        Ok(fresh) => {
            let made_at = from_b64u(nonce.expect("a nonce")).expect("base64url");
            let made_at = i64::from_be_bytes(made_at[..8].try_into().expect("eight bytes"));
            let made_at = Timestamp::from_millis(made_at);
            assert_eq!(Some(KEYS.proofs.nonces.issue(&key.jkt(), made_at).as_str()), nonce, "not our nonce (A-025)");
            assert!(made_at <= now() && now().since(made_at).as_secs() < 120, "an old nonce (A-024)");
            if is_verified {
                let proofs = proofs();
                let use_up = |fresh: FreshProof<'_>| {
                    let proven = fresh.verify()?;
                    proven.use_up(&proofs, now()).map(|()| proven.jkt)
                };
                let verified = use_up(fresh);
                assert_eq!(verified.is_ok(), is_signed(text, &key));
                assert!(verified.is_ok() || by != Some(key.jkt()), "a good proof was refused");
                if verified.is_ok() {
                    assert_eq!(verified, Ok(key.jkt()));
                    assert_eq!(by, Some(key.jkt()), "a forgery: only our keys have nonces");
                    let again = use_up(inspect().expect("nothing has changed"));
                    assert!(matches!(again, Err(ProofError::Invalid(_))), "a replay (A-021)");
                }
            }
        }
        Err(other) => panic!("an answer that no inspection has: {other:?}"),
    }
}

fn keyless(text: &str, by: Option<Bytes32>, is_verified: bool) {
    let parsed = KeylessJwt::<AnyClaims>::parse(text);
    let timely = assertion::inspect(text, ISSUER, now());
    let Ok(parsed) = parsed else {
        // `AnyClaims` wants nothing that an assertion does not.
        assert!(timely.is_err());
        return;
    };
    let Some((header, claims)) = taken(text) else { return };
    for key in ["jwk", "jku", "x5u"] {
        assert_eq!(header.member(key), None, "a header that brings a key was taken (A-030)");
    }
    assert_eq!(parsed.kid(), header.text("kid"));
    assert!(!header.text("kid").is_some_and(|kid| kid.contains(['/', '\\', '\'', '"', ' ', '\0'])), "a path for a kid");
    assert_eq!(parsed.typ(), header.text("typ"));
    if is_verified {
        let keys = &KEYS.public;
        let verified = keys
            .each_ref()
            .map(|key| KeylessJwt::<AnyClaims>::parse(text).is_ok_and(|jwt| jwt.verify_with(key).is_ok()));
        for (key, is_good) in keys.iter().zip(verified) {
            assert!(!is_good || by == Some(key.jkt()), "a forgery");
            let names: &[_] = if key.algorithm() == Algorithm::Es256 { &["ES256"] } else { &["EdDSA", "Ed25519"] };
            let is_for_key = names.contains(&header.text("alg").expect("an alg"));
            assert_eq!(
                is_good,
                by == Some(key.jkt()) && is_for_key,
                "a good signature was refused, or a wrong alg taken"
            );
        }
    }

    let Ok(timely) = timely else { return };
    let typ = header.text("typ").map(str::to_ascii_lowercase);
    assert!(matches!(typ.as_deref(), None | Some("jwt" | "client-authentication+jwt")), "a JWT for another use");
    let audience = match claims.member("aud").expect("an audience") {
        Json::Array(several) => match several.as_slice() {
            [one] => one,
            several => panic!("{} audiences were taken", several.len()),
        },
        one => one,
    };
    assert_eq!(audience, &Json::Text(ISSUER.to_owned()), "an assertion for somebody else (A-029)");
    let subject = claims.text("sub").expect("a client");
    assert_eq!((claims.text("iss"), timely.client_id()), (Some(subject), subject));
    assert!(claims.text("jti").is_some_and(|jti| (8..=256).contains(&jti.len())));
    #[allow(clippy::cast_precision_loss)]
    let ahead = |name: &str| claims.number(name).map(|time| time - NOW as f64);
    assert!(ahead("exp").is_some_and(|ahead| ahead > -60.0 && ahead < 3661.0), "an assertion out of its time");
    assert!(["nbf", "iat"].iter().filter_map(|name| ahead(name)).all(|ahead| ahead < 61.0), "from the future");
    if is_verified {
        let used = timely.verify(&KEYS.public[0]);
        assert!(used.is_err() || by == Some(KEYS.public[0].jkt()), "a forgery");
    }
}

/// A path without percent-encodings.
fn decoded(path: &str) -> String {
    let query = path.replace('+', "%2B").replace('&', "%26").replace('=', "%3D");
    url::form_urlencoded::parse(query.as_bytes()).map(|(name, _)| name.into_owned()).collect()
}

fuzz_target!(|data: &[u8]| {
    let Some((&flags, rest)) = data.split_first() else { return };
    let is_verified = flags & IS_VERIFIED != 0;
    let (text, by) = if flags & IS_RAW == 0 {
        built(rest, is_verified)
    } else {
        let Ok(text) = std::str::from_utf8(rest) else { return };
        (text.to_owned(), None)
    };
    proof(&text, by, is_verified);
    self_signed(&text, by, is_verified);
    keyless(&text, by, is_verified);
});
