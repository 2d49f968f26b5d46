//! Client certificates: `Certificate::from_der`, `mtls::leaf`, and what our authorities vouch for.
//!
//! An input is one byte that says what is done with the certificate, then its DER. The fixed certificates are made by `fixtures/make`; their keys are
//! gone, so nothing else that is signed by the authority can exist.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use pairgate::clock::Timestamp;
use pairgate::device_auth::mtls::{self, ClientTrust};
use pairgate::oauth::certificate::{Certificate, MAX_CERTIFICATE};
use pairgate::oauth::jwk::PublicKey;
use pairgate::secret::sha256;
use rustls_pki_types::CertificateDer;

/// Bits of the first byte: a signature costs a hundred times what parsing does, so that most inputs are only parsed.
const IS_CHAIN_CHECKED: u8 = 1;
const HAS_INTERMEDIATE: u8 = 2;
const IS_INTERMEDIATE: u8 = 4;

/// 2030-01-01T00:00:00Z: all fixed certificates but one are valid then.
const NOW: Timestamp = Timestamp::from_millis(1_893_456_000_000);

static TRUST: LazyLock<ClientTrust> = LazyLock::new(|| {
    let (authority, revoked) = (include_bytes!("../fixtures/ca.pem"), include_bytes!("../fixtures/revoked.pem"));
    let mut trust = ClientTrust::default();
    trust.add_authorities(authority).expect("the fixed authority");
    trust.add_revoked(revoked).expect("its list");
    trust
});
/// What the authority has signed and neither revoked nor let expire, to be shown as a leaf.
static VOUCHED: [&[u8]; 5] = [
    include_bytes!("../fixtures/ec.der"),
    include_bytes!("../fixtures/ed25519.der"),
    include_bytes!("../fixtures/rsa.der"),
    include_bytes!("../fixtures/p384.der"),
    include_bytes!("../fixtures/below.der"),
];
static INTERMEDIATE: &[u8] = include_bytes!("../fixtures/intermediate.der");
static BELOW: &[u8] = include_bytes!("../fixtures/below.der");
static REVOKED: &[u8] = include_bytes!("../fixtures/revoked.der");

/// The signed part of a certificate over 255 bytes: what stands behind its first length.
fn signed(der: &[u8]) -> &[u8] {
    let length = usize::from(u16::from_be_bytes([der[6], der[7]]));
    &der[4..8 + length]
}

/// Is it the same signed part?
fn says_the_same(der: &[u8], known: &[u8]) -> bool {
    der.get(4..).is_some_and(|inner| inner.starts_with(signed(known)))
}

fn parsed(der: &[u8]) -> Option<Certificate> {
    let certificate = Certificate::from_der(der).ok()?;
    assert!(der.len() <= MAX_CERTIFICATE, "too large");
    assert!(Certificate::from_der(&[der, b"\0"].concat()).is_err(), "something behind it");
    assert_eq!(certificate.x5t, sha256(&[der]), "the hash of another certificate");
    let jwk = certificate.key.to_json();
    let key = PublicKey::from_json(&jwk.to_string()).expect("a key of a certificate is a good JWK");
    assert_eq!((key.jkt(), key.algorithm()), (certificate.key.jkt(), certificate.key.algorithm()));
    Some(certificate)
}

fuzz_target!(|data: &[u8]| {
    let Some((&how, der)) = data.split_first() else { return };
    let certificate = parsed(der);

    let shown = CertificateDer::from(der);
    let leaf = mtls::leaf(std::slice::from_ref(&shown), NOW);
    let is_timely = |known: &Certificate| (known.not_before..=known.not_after).contains(&NOW.seconds());
    assert_eq!(leaf.is_ok(), certificate.as_ref().is_some_and(is_timely), "out of its time");
    assert!(mtls::leaf(&[], NOW).is_err());

    if how & IS_CHAIN_CHECKED == 0 {
        return;
    }
    if how & IS_INTERMEDIATE != 0 {
        // A fixed device below an authority in between that is not fixed.
        let chain = [CertificateDer::from(BELOW), shown];
        if TRUST.vouches_for(&chain, NOW).is_ok() {
            assert!(says_the_same(der, INTERMEDIATE), "an authority that ours never signed");
        }
        return;
    }
    let mut chain = vec![shown];
    if how & HAS_INTERMEDIATE != 0 {
        chain.push(CertificateDer::from(INTERMEDIATE));
    }
    let is_revoked = TRUST.has_revoked(&chain, NOW);
    assert!(!is_revoked || says_the_same(der, REVOKED), "revoked, and never was");
    assert!(der != REVOKED || is_revoked, "a revoked certificate passes (A-013)");
    if TRUST.vouches_for(&chain, NOW).is_err() {
        assert!(!VOUCHED[..4].contains(&der), "our own authority's certificate is refused");
        return;
    }
    // Two libraries read the certificate: one checks the signature, the other takes the key. They must have read the same.
    let known = VOUCHED.into_iter().find(|known| says_the_same(der, known));
    let known = known.expect("a certificate that the authority never signed (A-011)");
    assert!(known != BELOW || chain.len() == 2, "without the authority in between");
    if let Some(certificate) = certificate {
        let genuine = Certificate::from_der(known).expect("a fixed certificate");
        assert_eq!(certificate.key.jkt(), genuine.key.jkt(), "signed for one key, taken for another");
        assert_eq!(certificate.device_serial, genuine.device_serial);
    }
});
