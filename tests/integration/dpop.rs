//! Proof of possession (RFC 9449) at both endpoints: one mutation a row, and each leaves everything as it was.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use pairgate::model::operator::Role;
use pairgate::simulator::{CodeShown, DeviceKey, RawAnswer, SimulatedDevice, jose};
use serde_json::{Value, json};

use crate::support::TestBroker;
use crate::support::probe::{CODE, TOKEN, is_error, jti, poll_of};

const ENDPOINTS: [&str; 2] = [CODE, TOKEN];
const TEN_YEARS_S: i64 = 315_360_000;

/// A broker, a paired device with a pending code, and what it would send.
struct Bench {
    test: TestBroker,
    device: SimulatedDevice,
    code: CodeShown,
}

impl Bench {
    async fn new() -> Self {
        let test = TestBroker::start().await;
        let mut device = test.paired("lobby-printer-01", "printer").await;
        let code = device.request_code(None, None).await.unwrap();
        Self { test, device, code }
    }

    async fn send(&self, path: &str, headers: &[(&str, &str)]) -> RawAnswer {
        match path {
            CODE => self.device.post_form(path, &[("client_id", &self.device.id)], headers).await.unwrap(),
            _ => self.device.post_form(path, &poll_of(&self.code.device_code, &self.device.id), headers).await.unwrap(),
        }
    }

    /// Header and claims of a flawless proof.
    async fn parts(&self, path: &str) -> (Value, Value) {
        let nonce = self.test.nonce(&self.device).await;
        let claims = json!({
            "jti": jti(), "htm": "POST", "htu": self.test.url(path), "iat": self.device.now_s(), "nonce": nonce,
        });
        (self.device.key.header("dpop+jwt"), claims)
    }

    /// These headers are refused with this error, change nothing, and are recorded if they are an attack.
    async fn refused(&self, what: &str, path: &str, headers: &[(&str, &str)], error: &str) {
        let what = format!("{what} at {path}");
        let mark = self.test.mark().await;
        let answer = self.send(path, headers).await;
        is_error(&answer, 400, error, &what);
        let events: &[&str] = if error == "invalid_dpop_proof" { &["code.refused"] } else { &[] };
        let records = self.test.untouched(&mark, events, &what).await;
        assert!(records.iter().all(|record| record.detail.starts_with("'lobby-printer-01': ")), "{records:?}");
        assert_eq!(answer.header("dpop-nonce").is_some(), error == "use_dpop_nonce", "{what}");
        self.test.advance(5);
    }

    /// The control of every table: the same proof without a mutation gets through.
    async fn accepted(&self, path: &str, headers: &[(&str, &str)]) {
        let answer = self.send(path, headers).await;
        let outcome = answer.oauth_error().map(|(error, _)| error);
        match path {
            CODE => assert_eq!((answer.status, outcome), (200, None), "{}", answer.body),
            // The code request before it may have ended this code; the device is authenticated all the same.
            _ => assert!(["authorization_pending", "invalid_grant"].contains(&outcome.as_deref().unwrap()), "{path}"),
        }
        assert!(answer.header("dpop-nonce").is_some(), "an authentic proof gets the next nonce");
    }
}

type Mutation = fn(&mut Value, &mut Value);

async fn table(rows: &[(&str, &str, Mutation)]) {
    let bench = Bench::new().await;
    for path in ENDPOINTS {
        for (what, error, mutate) in rows {
            // A code lives five minutes; the audit log takes twenty refusals of an address a minute.
            bench.test.advance(5);
            let (mut header, mut claims) = bench.parts(path).await;
            mutate(&mut header, &mut claims);
            let proof = bench.device.key.sign_raw(&header, &claims).unwrap();
            bench.refused(what, path, &[("dpop", &proof)], error).await;
        }
    }
    for path in ENDPOINTS {
        let (header, claims) = bench.parts(path).await;
        let proof = bench.device.key.sign_raw(&header, &claims).unwrap();
        bench.accepted(path, &[("dpop", &proof)]).await;
    }
}

/// Replaces a part of `htu`.
fn htu(claims: &mut Value, from: &str, to: &str) {
    let changed = claims["htu"].as_str().unwrap().replacen(from, to, 1);
    assert_ne!(claims["htu"], changed.as_str(), "the row changes something");
    claims["htu"] = changed.into();
}

#[tokio::test]
async fn a_proof_for_another_method_or_address_is_refused_a_022() {
    const INVALID: &str = "invalid_dpop_proof";
    table(&[
        ("GET", INVALID, |_, claims| claims["htm"] = "GET".into()),
        ("lower case method", INVALID, |_, claims| claims["htm"] = "post".into()),
        ("no method", INVALID, |_, claims| claims["htm"] = Value::Null),
        ("other scheme", INVALID, |_, claims| htu(claims, "http://", "https://")),
        ("other host", INVALID, |_, claims| htu(claims, "127.0.0.1", "127.0.0.2")),
        ("host by name", INVALID, |_, claims| htu(claims, "127.0.0.1", "localhost")),
        ("other port", INVALID, |_, claims| htu(claims, "127.0.0.1:", "127.0.0.1:1")),
        ("no port", INVALID, |_, claims| {
            let path = claims["htu"].as_str().unwrap().rsplit_once('/').unwrap().1.to_owned();
            claims["htu"] = format!("http://127.0.0.1/{path}").into();
        }),
        ("user info", INVALID, |_, claims| htu(claims, "http://", "http://x@")),
        ("host as user info", INVALID, |_, claims| htu(claims, "127.0.0.1:", "127.0.0.1:x@evil.example:")),
        ("longer path", INVALID, |_, claims| claims["htu"] = format!("{}/", claims["htu"].as_str().unwrap()).into()),
        ("matrix parameter", INVALID, |_, claims| {
            claims["htu"] = format!("{};x", claims["htu"].as_str().unwrap()).into();
        }),
    ])
    .await;
}

#[tokio::test]
async fn a_proof_with_path_tricks_in_its_address_is_refused_a_022() {
    const INVALID: &str = "invalid_dpop_proof";
    fn prefixed(claims: &mut Value, prefix: &str) {
        let (base, path) = claims["htu"].as_str().unwrap().rsplit_once('/').unwrap();
        claims["htu"] = format!("{base}/{prefix}{path}").into();
    }
    table(&[
        ("upper case path", INVALID, |_, claims| {
            let (base, path) = claims["htu"].as_str().unwrap().rsplit_once('/').unwrap();
            claims["htu"] = format!("{base}/{}", path.to_uppercase()).into();
        }),
        ("dot", INVALID, |_, claims| prefixed(claims, "./")),
        ("dots", INVALID, |_, claims| prefixed(claims, "a/../")),
        ("encoded dots", INVALID, |_, claims| prefixed(claims, "a/%2e%2E/")),
        ("double slash", INVALID, |_, claims| prefixed(claims, "/")),
        ("encoded slash", INVALID, |_, claims| prefixed(claims, "%2F")),
        ("space", INVALID, |_, claims| prefixed(claims, " ")),
        ("backslash", INVALID, |_, claims| {
            let (base, path) = claims["htu"].as_str().unwrap().rsplit_once('/').unwrap();
            claims["htu"] = format!("{base}\\{path}").into();
        }),
        ("path only", INVALID, |_, claims| claims["htu"] = "/token".into()),
        ("the issuer", INVALID, |_, claims| {
            claims["htu"] = claims["htu"].as_str().unwrap().rsplit_once('/').unwrap().0.into();
        }),
        ("no htu", INVALID, |_, claims| claims["htu"] = Value::Null),
        ("two addresses", INVALID, |_, claims| claims["htu"] = json!([claims["htu"], "https://evil.example/token"])),
    ])
    .await;
}

#[tokio::test]
async fn honest_spellings_of_the_address_are_the_address_a_022() {
    let bench = Bench::new().await;
    let spellings: [fn(&str) -> String; 5] = [
        |url| url.replace("http://", "HTTP://"),
        |url| format!("{url}?x=1"),
        |url| format!("{url}#x"),
        |url| url.replace("/token", "/%74oken").replace("/device_", "/%64evice_"),
        |url| url.replace("/token", "/tok%65n").replace("/device_", "/device%5f"),
    ];
    for path in ENDPOINTS {
        for spelling in spellings {
            let (header, mut claims) = bench.parts(path).await;
            claims["htu"] = spelling(&bench.test.url(path)).into();
            let proof = bench.device.key.sign_raw(&header, &claims).unwrap();
            bench.test.advance(5);
            bench.accepted(path, &[("dpop", &proof)]).await;
        }
    }
}

#[tokio::test]
async fn a_forged_host_changes_nothing_that_a_proof_is_compared_with_a_023() {
    let bench = Bench::new().await;
    let host = bench.test.issuer.strip_prefix("http://").unwrap().to_owned();
    for path in ENDPOINTS {
        let evil_htu = format!("http://evil.example{path}");
        for forged_host in ["evil.example", "localhost", "127.0.0.1", &format!("{host}.evil.example"), "evil.example@x"]
        {
            let (header, mut claims) = bench.parts(path).await;
            claims["htu"] = evil_htu.clone().into();
            let proof = bench.device.key.sign_raw(&header, &claims).unwrap();
            let mark = bench.test.mark().await;
            let answer = bench.send(path, &[("dpop", &proof), ("host", forged_host)]).await;
            assert_eq!(answer.status, 421, "{forged_host}");
            assert_eq!(answer.oauth_error(), None);
            assert!(answer.header("dpop-nonce").is_none());
            bench.test.untouched(&mark, &[], forged_host).await;
        }
        for forwarded in [
            ("x-forwarded-host", "evil.example"),
            ("forwarded", "host=evil.example;proto=http"),
            ("x-original-url", "/token"),
            ("x-forwarded-proto", "https"),
        ] {
            let (header, mut claims) = bench.parts(path).await;
            claims["htu"] = evil_htu.clone().into();
            let proof = bench.device.key.sign_raw(&header, &claims).unwrap();
            bench.refused(forwarded.0, path, &[("dpop", &proof), forwarded], "invalid_dpop_proof").await;
            let proof = bench.test.proof(&bench.device, path).await;
            bench.accepted(path, &[("dpop", &proof), forwarded]).await;
        }
    }
}

#[tokio::test]
async fn a_proof_made_ahead_of_its_time_is_refused_a_024() {
    let bench = Bench::new().await;
    for path in ENDPOINTS {
        for (age, is_good) in [(119, true), (120, false), (121, false), (7 * 24 * 3600, false)] {
            let proof = bench.test.proof(&bench.device, path).await;
            bench.test.advance(age);
            if is_good {
                bench.accepted(path, &[("dpop", &proof)]).await;
            } else {
                bench.refused("an old nonce", path, &[("dpop", &proof)], "use_dpop_nonce").await;
            }
        }
    }
}

#[tokio::test]
async fn a_missing_invented_or_foreign_nonce_is_refused_a_025() {
    let bench = Bench::new().await;
    let neighbour = bench.test.paired("attic-printer-02", "printer").await;
    for path in ENDPOINTS {
        let good = bench.test.nonce(&bench.device).await;
        let foreign = bench.test.nonce(&neighbour).await;
        let flipped = format!("{}{}", &good[..30], if good.ends_with("AA") { "BB" } else { "AA" });
        let nonces: [(&str, Option<&str>); 7] = [
            ("none", None),
            ("empty", Some("")),
            ("invented", Some("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")),
            ("of another device", Some(&foreign)),
            ("with a bit flipped", Some(&flipped)),
            ("cut short", Some(&good[..31])),
            ("no base64", Some("***")),
        ];
        for (what, nonce) in nonces {
            let proof = bench.device.proof("POST", &bench.test.url(path), nonce, &jti()).unwrap();
            bench.refused(what, path, &[("dpop", &proof)], "use_dpop_nonce").await;
        }
        let proof = bench.device.proof("POST", &bench.test.url(path), Some(&good), &jti()).unwrap();
        bench.accepted(path, &[("dpop", &proof)]).await;
    }
}

#[tokio::test]
async fn proofs_and_nonces_of_a_former_process_are_worth_nothing_a_021_a_025_a_088() {
    let Bench { test, device, code } = Bench::new().await;
    let old_nonce = test.nonce(&device).await;
    let mut used = Vec::new();
    for path in [TOKEN, CODE] {
        let proof = test.proof(&device, path).await;
        device.post_form(path, &poll_of(&code.device_code, &device.id), &[("dpop", &proof)]).await.unwrap();
        used.push((path, proof));
    }
    let test = test.restart().await;
    let bench = Bench { test, device, code };
    for (path, proof) in &used {
        bench.refused("a proof used before the restart", path, &[("dpop", proof)], "use_dpop_nonce").await;
        let proof = bench.device.proof("POST", &bench.test.url(path), Some(&old_nonce), &jti()).unwrap();
        bench.refused("a nonce from before the restart", path, &[("dpop", &proof)], "use_dpop_nonce").await;
        let proof = bench.test.proof(&bench.device, path).await;
        bench.accepted(path, &[("dpop", &proof)]).await;
    }
}

#[tokio::test]
async fn a_proof_counts_once_wherever_it_is_shown_again_a_021() {
    let bench = Bench::new().await;
    for (path, other) in [(TOKEN, CODE), (CODE, TOKEN)] {
        let nonce = bench.test.nonce(&bench.device).await;
        let id = jti();
        let proof = bench.device.proof("POST", &bench.test.url(path), Some(&nonce), &id).unwrap();
        bench.refused("not yet used, at the other endpoint", other, &[("dpop", &proof)], "invalid_dpop_proof").await;
        bench.accepted(path, &[("dpop", &proof)]).await;
        for what in ["again", "and again"] {
            bench.refused(what, path, &[("dpop", &proof)], "invalid_dpop_proof").await;
        }
        bench.refused("at the other endpoint", other, &[("dpop", &proof)], "invalid_dpop_proof").await;
        for again in [path, other] {
            let proof = bench.device.proof("POST", &bench.test.url(again), Some(&nonce), &id).unwrap();
            bench.refused("a new proof with a used jti", again, &[("dpop", &proof)], "invalid_dpop_proof").await;
        }
        bench.test.advance(60);
    }
}

#[tokio::test]
async fn weak_algorithms_and_keys_are_refused_a_026() {
    const INVALID: &str = "invalid_dpop_proof";
    table(&[
        ("typ JWT", INVALID, |header, _| header["typ"] = "JWT".into()),
        ("typ at+jwt", INVALID, |header, _| header["typ"] = "at+jwt".into()),
        ("no typ", INVALID, |header, _| header["typ"] = Value::Null),
        ("alg none", INVALID, |header, _| header["alg"] = "none".into()),
        ("alg HS256", INVALID, |header, _| header["alg"] = "HS256".into()),
        ("alg RS256", INVALID, |header, _| header["alg"] = "RS256".into()),
        ("alg ES384", INVALID, |header, _| header["alg"] = "ES384".into()),
        ("alg EdDSA for an EC key", INVALID, |header, _| header["alg"] = "EdDSA".into()),
        ("no alg", INVALID, |header, _| header["alg"] = Value::Null),
        ("private member", INVALID, |header, _| header["jwk"]["d"] = "AAAA".into()),
        ("empty private member", INVALID, |header, _| {
            header["jwk"]["d"] = json!("");
        }),
        ("symmetric key", INVALID, |header, _| {
            header["alg"] = "HS256".into();
            header["jwk"] = json!({"kty": "oct", "k": "AAAA"});
        }),
        ("RSA key", INVALID, |header, _| header["jwk"] = json!({"kty": "RSA", "e": "AQAB", "n": "AQAB"})),
        ("other curve", INVALID, |header, _| header["jwk"]["crv"] = "secp256k1".into()),
        ("P-384", INVALID, |header, _| header["jwk"]["crv"] = "P-384".into()),
        ("coordinate with padding", INVALID, |header, _| {
            header["jwk"]["x"] = format!("{}=", header["jwk"]["x"].as_str().unwrap()).into();
        }),
        ("no jwk", INVALID, |header, _| header["jwk"] = Value::Null),
        ("kid and jku instead", INVALID, |header, _| {
            *header =
                json!({"typ": "dpop+jwt", "alg": "ES256", "kid": "../../etc/passwd", "jku": "http://evil.example"});
        }),
        ("critical extension", INVALID, |header, _| header["crit"] = json!(["exp"])),
    ])
    .await;
}

#[tokio::test]
async fn points_that_are_on_no_curve_are_refused_also_with_a_nonce_of_their_own_a_026() {
    let bench = Bench::new().await;
    let x = bench.device.key.jwk()["x"].clone();
    let zero = json!("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    for path in ENDPOINTS {
        for (what, x, y) in [("x twice", &x, &x), ("zero", &zero, &zero)] {
            let (mut header, mut claims) = bench.parts(path).await;
            (header["jwk"]["x"], header["jwk"]["y"]) = (x.clone(), y.clone());
            let proof = bench.device.key.sign_raw(&header, &claims).unwrap();
            let answer = bench.send(path, &[("dpop", &proof)]).await;
            is_error(&answer, 400, "use_dpop_nonce", what);
            claims["nonce"] = answer.header("dpop-nonce").unwrap().into();
            let proof = bench.device.key.sign_raw(&header, &claims).unwrap();
            bench.refused(what, path, &[("dpop", &proof)], "invalid_dpop_proof").await;
        }
    }
}

#[tokio::test]
async fn claims_of_the_wrong_shape_are_refused_a_026() {
    const INVALID: &str = "invalid_dpop_proof";
    table(&[
        ("no jti", INVALID, |_, claims| claims["jti"] = Value::Null),
        ("short jti", INVALID, |_, claims| claims["jti"] = "short".into()),
        ("huge jti", INVALID, |_, claims| claims["jti"] = "x".repeat(129).into()),
        ("jti as number", INVALID, |_, claims| claims["jti"] = 1_234_567_890_123_456_i64.into()),
        ("no iat", INVALID, |_, claims| claims["iat"] = Value::Null),
        ("iat as text", INVALID, |_, claims| claims["iat"] = "1".into()),
        ("nonce as list", INVALID, |_, claims| claims["nonce"] = json!([claims["nonce"]])),
        ("claims as list", INVALID, |_, claims| *claims = json!([claims.clone()])),
        ("4 KiB", INVALID, |_, claims| claims["padding"] = "x".repeat(4096).into()),
    ])
    .await;
}

/// A compact JWT over any two texts, also such as no JSON library writes.
fn sign_text(key: &DeviceKey, header: &str, claims: &str) -> String {
    let pkcs8 = jose::from_b64u(&key.to_pkcs8_b64u().unwrap()).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8).unwrap();
    let signed = format!("{}.{}", jose::b64u(header.as_bytes()), jose::b64u(claims.as_bytes()));
    let signature = pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
    format!("{signed}.{}", jose::b64u(signature.as_ref()))
}

#[tokio::test]
async fn broken_signatures_and_texts_that_are_no_jwt_are_refused_a_026() {
    let bench = Bench::new().await;
    let other = DeviceKey::generate_es256().unwrap();
    for path in ENDPOINTS {
        let (header, claims) = bench.parts(path).await;
        let good = bench.device.key.sign_raw(&header, &claims).unwrap();
        let (signed, signature) = good.rsplit_once('.').unwrap();
        let (head, _) = signed.split_once('.').unwrap();
        let zeros = jose::b64u(&[0; 64]);
        let (bare, plain) = (header.to_string(), claims.to_string());
        let twice = format!("{{\"htm\":\"GET\",{}", &plain[1..]);
        let twice_alg = format!("{{\"alg\":\"none\",{}", &bare[1..]);
        let broken = [
            ("no signature", format!("{signed}.")),
            ("signature of zeros", format!("{signed}.{zeros}")),
            ("half a signature", format!("{signed}.{}", &signature[..43])),
            ("padded signature", format!("{signed}.{signature}==")),
            ("other claims", format!("{head}.{}.{signature}", jose::b64u(plain.replace("jti-", "JTI-").as_bytes()))),
            ("signed by another key", other.sign_raw(&header, &claims).unwrap()),
            ("four parts", format!("{good}.AAAA")),
            ("two parts", signed.to_owned()),
            ("spaces", format!("{signed} .{signature}")),
            ("no JWT", "x".to_owned()),
            ("empty", String::new()),
            ("JSON serialization", format!("{{\"payload\":\"{head}\"}}")),
            ("a claim twice", sign_text(&bench.device.key, &bare, &twice)),
            ("a header member twice", sign_text(&bench.device.key, &twice_alg, &plain)),
            ("trailing text", sign_text(&bench.device.key, &bare, &format!("{plain}x"))),
        ];
        bench.test.advance(60);
        for (what, proof) in &broken {
            bench.refused(what, path, &[("dpop", proof)], "invalid_dpop_proof").await;
        }
        bench.test.advance(5);
        let fresh = bench.test.proof(&bench.device, path).await;
        bench.accepted(path, &[("dpop", &fresh)]).await;
    }
}

#[tokio::test]
async fn two_proofs_in_one_request_are_refused_a_026() {
    let bench = Bench::new().await;
    for path in ENDPOINTS {
        let (one, two) = (bench.test.proof(&bench.device, path).await, bench.test.proof(&bench.device, path).await);
        for headers in [[("dpop", one.as_str()), ("dpop", two.as_str())], [("dpop", one.as_str()), ("dpop", "x")]] {
            let mark = bench.test.mark().await;
            let answer = bench.send(path, &headers).await;
            is_error(&answer, 400, "invalid_dpop_proof", path);
            bench.test.untouched(&mark, &[], path).await;
        }
        let joined = format!("{one}, {two}");
        bench.refused("two in one header", path, &[("dpop", &joined)], "invalid_dpop_proof").await;
        bench.accepted(path, &[("dpop", &one)]).await;
        bench.accepted(path, &[("dpop", &two)]).await;
    }
}

#[tokio::test]
async fn a_flawless_proof_of_another_key_is_not_the_device_a_027() {
    let bench = Bench::new().await;
    let neighbour = bench.test.paired("attic-printer-02", "printer").await;
    let unknown = bench.test.stranger("lobby-printer-01");
    for path in ENDPOINTS {
        for other in [&neighbour, &unknown] {
            let proof = bench.test.proof(other, path).await;
            let mark = bench.test.mark().await;
            let answer = bench.send(path, &[("dpop", &proof)]).await;
            is_error(&answer, 401, "invalid_client", path);
            assert!(answer.header("dpop-nonce").is_some(), "an authentic proof gets the next nonce");
            let records = bench.test.untouched(&mark, &["key.mismatch"], path).await;
            assert_eq!(records[0].device.as_deref(), Some("lobby-printer-01"));
            assert_eq!(records[0].severity, "alert");
            assert!(records[0].detail.contains(&other.key.short()));
        }
    }
}

#[tokio::test]
async fn a_device_whose_clock_is_ten_years_off_signs_in_a_089() {
    let test = TestBroker::start().await;
    let ida = test.operator("ida", Role::Admin).await;
    for (id, offset) in [("past-printer", -TEN_YEARS_S), ("future-printer", TEN_YEARS_S), ("late-printer", -600)] {
        test.register(id, "printer").await;
        let mut device = test.stranger(id);
        device.clock_offset_s = offset;
        test.pair(&mut device).await;
        let tokens = test.signed_in(&ida, &mut device).await;
        let claims = device.claims_of(&tokens).unwrap();
        assert_eq!(claims["iat"], test.broker.now().seconds(), "{id}: the broker's time, not the device's");
        assert!(device.refresh().await.is_ok());
    }
    assert_eq!(test.count("token.issued").await, 3);
}

#[tokio::test]
async fn every_answer_to_an_authentic_proof_carries_the_next_nonce() {
    let bench = Bench::new().await;
    let (id, device) = (bench.device.id.clone(), &bench.device);
    let id = id.as_str();
    let rows = [
        (CODE, 400, vec![("client_id", id), ("scope", "Mail.Read")]),
        (CODE, 400, vec![("client_id", id), ("resource", "urn:x")]),
        (CODE, 200, vec![("client_id", id)]),
        (CODE, 401, vec![("client_id", "nobody")]),
        (TOKEN, 400, vec![("client_id", id)]),
        (TOKEN, 400, vec![("client_id", id), ("grant_type", "password")]),
        (TOKEN, 400, poll_of("x", id).to_vec()),
        (TOKEN, 400, poll_of(&bench.code.device_code, id).to_vec()),
        (TOKEN, 400, vec![("client_id", id), ("grant_type", "refresh_token")]),
    ];
    let mut nonce = bench.test.nonce(device).await;
    for (path, status, params) in rows {
        // Each answer's nonce is good for the next request.
        bench.test.advance(30);
        let proof = device.proof("POST", &bench.test.url(path), Some(&nonce), &jti()).unwrap();
        let answer = device.post_form(path, &params, &[("dpop", &proof)]).await.unwrap();
        assert_eq!(answer.status, status, "{path} {params:?}: {}", answer.body);
        nonce = answer.header("dpop-nonce").expect("a nonce").to_owned();
    }
}

#[tokio::test]
async fn ed25519_keys_work_under_both_names_of_their_algorithm() {
    let test = TestBroker::start().await;
    let ida = test.operator("ida", Role::Admin).await;
    test.register("lobby-tv-01", "tv").await;
    let mut device = test.twin("lobby-tv-01", &DeviceKey::generate_ed25519().unwrap());
    test.pair(&mut device).await;
    let tokens = test.signed_in(&ida, &mut device).await;
    device.bound_key(&tokens).await.unwrap();
    for (alg, error) in [("EdDSA", "invalid_grant"), ("Ed25519", "invalid_grant"), ("ES256", "invalid_dpop_proof")] {
        let mut header = device.key.header("dpop+jwt");
        header["alg"] = alg.into();
        let nonce = test.nonce(&device).await;
        let claims = json!({"jti": jti(), "htm": "POST", "htu": test.url(TOKEN), "iat": 1, "nonce": nonce});
        let proof = device.key.sign_raw(&header, &claims).unwrap();
        let mark = test.mark().await;
        let answer = device.post_form(TOKEN, &poll_of("x", &device.id), &[("dpop", &proof)]).await.unwrap();
        is_error(&answer, 400, error, alg);
        let event = if error == "invalid_grant" { "token.refused" } else { "code.refused" };
        test.untouched(&mark, &[event], alg).await;
    }
}

/// Who has no key of ours can't fill the memory of used proofs: then honest devices would be told to come back later. So a stranger's proof is not
/// even remembered.
#[tokio::test]
async fn proofs_of_strangers_take_no_room_in_the_memory_of_used_ones_a_091() {
    let test = TestBroker::start().await;
    test.register("lobby-printer-01", "printer").await;
    for id in ["lobby-printer-01", "unheard-of-01"] {
        let stranger = test.stranger(id);
        let nonce = test.nonce(&stranger).await;
        let proof = stranger.proof("POST", &test.url(CODE), Some(&nonce), &jti()).unwrap();
        for time in ["first", "second"] {
            let answer = stranger.post_form(CODE, &[("client_id", id)], &[("dpop", &proof)]).await.unwrap();
            is_error(&answer, 401, "invalid_client", &format!("{id}: the {time} time"));
        }
    }
}
