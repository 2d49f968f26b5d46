//! The broker's own signing keys. Those of others are in `jwk.rs`.

use std::fmt;

use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{self, EcdsaKeyPair, KeyPair as _, RsaSubjectPublicKey};
use jsonwebtoken::{Algorithm as LibraryAlgorithm, EncodingKey};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::oauth::jose::JoseError;
use crate::oauth::jwk::{Algorithm, PublicKey, RawKey};
use crate::secret::{SecretError, b64u};

/// What the broker signs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SigningAlgorithm {
    /// The default: small and fast.
    Es256,
    /// For resources that can do nothing else; RFC 9068 section 2.1 wants it to be on offer.
    Rs256,
}

impl SigningAlgorithm {
    /// Both, for tables.
    pub const ALL: [Self; 2] = [Self::Es256, Self::Rs256];

    /// The name, as in headers and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
        }
    }

    /// From the name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == name)
    }
}

enum Secret {
    Ec(EncodingKey),
    Rsa(RsaKeyPair),
}

/// One signing key.
pub struct SigningKey {
    secret: Secret,
    public: PublicKey,
    kid: String,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SigningKey({})", self.kid)
    }
}

impl SigningKey {
    /// A new key as PKCS#8.
    ///
    /// # Errors
    /// If the generator fails.
    pub fn generate(algorithm: SigningAlgorithm) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
        match algorithm {
            SigningAlgorithm::Es256 => {
                let random = aws_lc_rs::rand::SystemRandom::new();
                EcdsaKeyPair::generate_pkcs8(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, &random)
                    .map(|document| Zeroizing::new(document.as_ref().to_vec()))
                    .map_err(|_| SecretError::Random)
            }
            SigningAlgorithm::Rs256 => {
                let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| SecretError::Random)?;
                let der: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| SecretError::Random)?;
                Ok(Zeroizing::new(der.as_ref().to_vec()))
            }
        }
    }

    /// From PKCS#8.
    ///
    /// # Errors
    /// If it is neither a P-256 nor an RSA key.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, JoseError> {
        let (secret, public) = match EcdsaKeyPair::from_pkcs8(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8) {
            Ok(pair) => {
                let public = PublicKey::from_raw(RawKey::P256(pair.public_key().as_ref()))?;
                (Secret::Ec(EncodingKey::from_ec_der(pkcs8)), public)
            }
            Err(_) => {
                let wrong = JoseError("The signing key is neither a P-256 nor an RSA key in PKCS#8.");
                let pair = RsaKeyPair::from_pkcs8(pkcs8).map_err(|_| wrong)?;
                let public = rsa_public(pair.public_key())?;
                (Secret::Rsa(pair), public)
            }
        };
        let kid = b64u(&public.jkt());
        Ok(Self { secret, public, kid })
    }

    /// The public half.
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Key id: the thumbprint.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// What it signs with.
    pub const fn algorithm(&self) -> SigningAlgorithm {
        match self.public.algorithm() {
            Algorithm::Rs256 => SigningAlgorithm::Rs256,
            Algorithm::Es256 | Algorithm::EdDsa => SigningAlgorithm::Es256,
        }
    }

    /// Signs claims under `typ`. With `with_jwk` the header carries the public key, for those who have not pinned it yet.
    ///
    /// # Errors
    /// If the library can't sign.
    pub fn sign<C: Serialize>(&self, typ: &str, claims: &C, with_jwk: bool) -> Result<String, JoseError> {
        let failed = JoseError("Signing failed.");
        let mut header = serde_json::json!({"typ": typ, "alg": self.algorithm().as_str(), "kid": self.kid});
        if with_jwk {
            header["jwk"] = self.public.to_json();
        }
        let claims = serde_json::to_vec(claims).map_err(|_| failed)?;
        let mut jwt = format!("{}.{}", b64u(header.to_string().as_bytes()), b64u(&claims));
        let signature = self.sign_bytes(jwt.as_bytes()).ok_or(failed)?;
        jwt.push('.');
        jwt.push_str(&signature);
        Ok(jwt)
    }

    pub(super) fn sign_bytes(&self, message: &[u8]) -> Option<String> {
        match &self.secret {
            Secret::Ec(key) => jsonwebtoken::crypto::sign(message, key, LibraryAlgorithm::ES256).ok(),
            // The library would parse and check the whole key for each token.
            Secret::Rsa(pair) => {
                let random = aws_lc_rs::rand::SystemRandom::new();
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&signature::RSA_PKCS1_SHA256, &random, message, &mut signature).ok()?;
                Some(b64u(&signature))
            }
        }
    }

    /// The key as it stands in the JWK Set (RFC 7517 section 4).
    pub fn jwk_set_entry(&self) -> serde_json::Value {
        let mut jwk = self.public.to_json();
        jwk["kid"] = self.kid.clone().into();
        jwk["alg"] = self.algorithm().as_str().into();
        jwk["use"] = "sig".into();
        jwk
    }
}

fn rsa_public(key: &RsaSubjectPublicKey) -> Result<PublicKey, JoseError> {
    let (modulus, exponent) = (key.modulus(), key.exponent());
    PublicKey::from_raw(RawKey::Rsa(
        modulus.big_endian_without_leading_zero(),
        exponent.big_endian_without_leading_zero(),
    ))
}
