//! X.509 certificates as clients show them (RFC 5280, RFC 8705): parsed by a library, reduced to what matters here. Whether one is to be believed is
//! decided in `device_auth/`.

use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_PKCS1_RSAENCRYPTION, OID_SIG_ED25519, OID_X509_SERIALNUMBER,
};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::public_key::PublicKey as ParsedKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::oauth::jose::JoseError;
use crate::oauth::jwk::{PublicKey, RawKey};
use crate::secret::{Bytes32, sha256};

/// No honest device certificate is larger, in bytes of DER.
pub const MAX_CERTIFICATE: usize = 8192;

/// What matters of a certificate. Nothing of it is believed for standing here: a signature over it has yet to be checked.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The key that it names; an algorithm that devices may use.
    pub key: PublicKey,
    /// SHA-256 of the DER (RFC 8705 section 3.1, `x5t#S256`).
    pub x5t: Bytes32,
    /// Valid from then on, seconds since 1970.
    pub not_before: i64,
    /// Valid until then (inclusive), seconds since 1970.
    pub not_after: i64,
    /// Issuer and subject are the same name.
    pub is_self_issued: bool,
    /// The `serialNumber` attribute of the subject: of the device, not of the certificate (IEEE 802.1AR section 8.6).
    pub device_serial: Option<String>,
}

impl Certificate {
    /// Parses one certificate.
    ///
    /// # Errors
    /// If the DER is no certificate, has something behind it, is larger than [`MAX_CERTIFICATE`], or its key is none that devices may use.
    pub fn from_der(der: &[u8]) -> Result<Self, JoseError> {
        const WRONG: JoseError = JoseError("This is no X.509 certificate.");
        if der.len() > MAX_CERTIFICATE {
            return Err(WRONG);
        }
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| WRONG)?;
        if !rest.is_empty() {
            return Err(WRONG);
        }
        // Two of them would be two devices.
        let mut serials = certificate.subject().iter_by_oid(&OID_X509_SERIALNUMBER);
        let device_serial = match (serials.next(), serials.next()) {
            (Some(serial), None) => serial.as_str().ok().map(str::to_owned),
            _ => None,
        };
        let validity = certificate.validity();
        Ok(Self {
            key: public_key(certificate.public_key())?,
            x5t: sha256(&[der]),
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
            is_self_issued: certificate.issuer().as_raw() == certificate.subject().as_raw(),
            device_serial,
        })
    }
}

/// The first critical extension that nobody here understands, by its OID (RFC 5280 section 4.2). `None` also for what is no certificate.
pub fn unknown_critical_extension(der: &[u8]) -> Option<String> {
    // What `webpki` understands: key usage, subject alternative name, basic constraints, name constraints, CRL distribution points, extended key usage.
    const KNOWN: [&str; 6] = ["2.5.29.15", "2.5.29.17", "2.5.29.19", "2.5.29.30", "2.5.29.31", "2.5.29.37"];
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let critical = certificate.extensions().iter().filter(|extension| extension.critical);
    critical.map(|extension| extension.oid.to_id_string()).find(|oid| !KNOWN.contains(&oid.as_str()))
}

impl Certificate {
    /// Host names and addresses that a certificate is for (RFC 5280 section 4.2.1.6); none if it can't be read.
    pub fn names(der: &[u8]) -> Vec<String> {
        let Ok((_, certificate)) = X509Certificate::from_der(der) else { return Vec::new() };
        let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
        let text = |name: &GeneralName<'_>| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => match bytes.len() {
                4 => <[u8; 4]>::try_from(*bytes).ok().map(|bytes| std::net::IpAddr::from(bytes).to_string()),
                _ => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| std::net::IpAddr::from(bytes).to_string()),
            },
            _ => None,
        };
        names.value.general_names.iter().filter_map(text).collect()
    }

    /// The subject's common name, if there is exactly one.
    pub fn common_name(der: &[u8]) -> Option<String> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let mut names = certificate.subject().iter_common_name();
        let name = names.next()?.as_str().ok()?.to_owned();
        names.next().is_none().then_some(name)
    }
}

/// A public key as `openssl pkey -pubout` writes it: PEM, `PUBLIC KEY` (RFC 7468 section 13).
///
/// # Errors
/// If it is anything else, or as [`PublicKey::from_jwk`].
pub fn public_key_from_pem(pem: &str) -> Result<PublicKey, JoseError> {
    const WRONG: JoseError = JoseError("This is no public key in PEM (-----BEGIN PUBLIC KEY-----).");
    let der = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes()).map_err(|_| WRONG)?;
    let (rest, info) = SubjectPublicKeyInfo::from_der(&der).map_err(|_| WRONG)?;
    if rest.is_empty() { public_key(&info) } else { Err(WRONG) }
}

/// The key of a SubjectPublicKeyInfo, by its algorithm identifier (RFC 3279, RFC 5480, RFC 8410).
fn public_key(info: &SubjectPublicKeyInfo<'_>) -> Result<PublicKey, JoseError> {
    const WRONG: JoseError = JoseError("The certificate's key is none that devices may use.");
    let algorithm = &info.algorithm.algorithm;
    if *algorithm == OID_SIG_ED25519 {
        return PublicKey::from_raw(RawKey::Ed25519(&info.subject_public_key.data));
    }
    if *algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
        let curve = info.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
        if curve != Some(OID_EC_P256) {
            return Err(WRONG);
        }
        return PublicKey::from_raw(RawKey::P256(&info.subject_public_key.data));
    }
    match (*algorithm == OID_PKCS1_RSAENCRYPTION, info.parsed()) {
        (true, Ok(ParsedKey::RSA(key))) => PublicKey::from_raw(RawKey::Rsa(key.modulus, key.exponent)),
        _ => Err(WRONG),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::jwk::Algorithm;
    use rcgen::{CertificateParams, DnType, KeyPair};

    fn self_signed(key: &KeyPair, serial: Option<&str>) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "a printer");
        if let Some(serial) = serial {
            params.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 5]), serial);
        }
        params.self_signed(key).unwrap().der().to_vec()
    }

    #[test]
    fn the_key_of_a_certificate_is_the_key_of_the_jwk() {
        for (algorithm, expected) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, Algorithm::Es256),
            (&rcgen::PKCS_ED25519, Algorithm::EdDsa),
            (&rcgen::PKCS_RSA_SHA256, Algorithm::Rs256),
        ] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let certificate = Certificate::from_der(&self_signed(&key, Some("VNB3K12345"))).unwrap();
            assert_eq!(certificate.key.algorithm(), expected);
            assert_eq!(certificate.device_serial.as_deref(), Some("VNB3K12345"));
            assert!(certificate.is_self_issued);
            // Another certificate, the same key: what pinning relies on.
            let renewed = Certificate::from_der(&self_signed(&key, None)).unwrap();
            assert_eq!(renewed.key.jkt(), certificate.key.jkt());
            assert_ne!(renewed.x5t, certificate.x5t);
        }
        let other = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        assert!(Certificate::from_der(&self_signed(&other, None)).is_err(), "a curve that devices may not use");
    }

    #[test]
    fn a_public_key_in_pem_is_the_key_of_the_jwk() {
        for (algorithm, expected) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, Algorithm::Es256),
            (&rcgen::PKCS_ED25519, Algorithm::EdDsa),
            (&rcgen::PKCS_RSA_SHA256, Algorithm::Rs256),
        ] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let read = public_key_from_pem(&key.public_key_pem()).unwrap();
            let certificate = Certificate::from_der(&self_signed(&key, None)).unwrap();
            assert_eq!((read.algorithm(), read.jkt()), (expected, certificate.key.jkt()));
            assert!(public_key_from_pem(&key.serialize_pem()).is_err(), "a private key is no public one");
        }
        let other = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        for wrong in
            [other.public_key_pem().as_str(), "", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"]
        {
            assert!(public_key_from_pem(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        let der = self_signed(&KeyPair::generate().unwrap(), None);
        let mut longer = der.clone();
        longer.push(0);
        let huge = [der.clone(), vec![0; MAX_CERTIFICATE]].concat();
        for wrong in [&[][..], &der[..der.len() - 1], &longer, &huge, b"-----BEGIN CERTIFICATE-----"] {
            assert!(Certificate::from_der(wrong).is_err());
        }
    }
}
