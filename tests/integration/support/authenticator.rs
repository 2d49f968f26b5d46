//! An authenticator in software (WebAuthn Level 3, section 6), which does as it is told: also what no honest one does.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use pairgate::secret::{Random, b64u, from_b64u, sha256};
use serde_json::{Value, json};

/// User present, user verified.
pub const PRESENT: u8 = 0x01;
pub const VERIFIED: u8 = 0x04;
/// Attested credential data included.
const ATTESTED: u8 = 0x40;

/// What a browser and its authenticator say; honest unless changed.
#[derive(Clone)]
pub struct Says {
    pub origin: String,
    pub rp_id: String,
    pub kind: &'static str,
    pub flags: u8,
    pub counter: u32,
    pub challenge: String,
    pub handle: Option<String>,
    pub cross_origin: bool,
    pub resident: bool,
}

/// One passkey.
pub struct Authenticator {
    key: EcdsaKeyPair,
    pub credential: Vec<u8>,
    pub handle: String,
}

impl Authenticator {
    pub fn new() -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let credential = Random::system().bytes32().unwrap().to_vec();
        Self { key, credential, handle: String::new() }
    }

    /// What an honest browser at this origin would say to these options.
    pub fn honest(&self, origin: &str, options: &Value) -> Says {
        let options = &options["publicKey"];
        let is_new = options.get("user").is_some();
        let rp_id = if is_new { &options["rp"]["id"] } else { &options["rpId"] };
        Says {
            origin: origin.to_owned(),
            rp_id: rp_id.as_str().unwrap().to_owned(),
            kind: if is_new { "webauthn.create" } else { "webauthn.get" },
            flags: PRESENT | VERIFIED,
            counter: 0,
            challenge: options["challenge"].as_str().unwrap().to_owned(),
            handle: Some(if is_new { options["user"]["id"].as_str().unwrap().to_owned() } else { self.handle.clone() }),
            cross_origin: false,
            resident: true,
        }
    }

    fn client_data(says: &Says) -> String {
        json!({"type": says.kind, "challenge": says.challenge, "origin": says.origin, "crossOrigin": says.cross_origin})
            .to_string()
    }

    /// The answer of `navigator.credentials.create`.
    pub fn create(&mut self, says: &Says) -> Value {
        self.handle = says.handle.clone().unwrap_or_default();
        let mut data = authenticator_data(says, ATTESTED);
        data.extend([0; 16]);
        data.extend(u16::try_from(self.credential.len()).unwrap().to_be_bytes());
        data.extend(&self.credential);
        // COSE_Key: EC2, ES256, P-256, x, y.
        let point = self.key.public_key().as_ref();
        data.extend([0xa5, 0x01, 0x02, 0x03, 0x26, 0x20, 0x01, 0x21, 0x58, 0x20]);
        data.extend(&point[1..33]);
        data.extend([0x22, 0x58, 0x20]);
        data.extend(&point[33..]);
        let mut object = vec![0xa3];
        object.extend(b"\x63fmt\x64none\x67attStmt\xa0\x68authData\x58");
        object.push(u8::try_from(data.len()).unwrap());
        object.extend(data);
        json!({
            "id": b64u(&self.credential), "rawId": b64u(&self.credential), "type": "public-key",
            "extensions": {"credProps": {"rk": says.resident}},
            "response": {"attestationObject": b64u(&object), "clientDataJSON": b64u(Self::client_data(says).as_bytes())},
        })
    }

    /// The answer of `navigator.credentials.get`.
    pub fn get(&self, says: &Says) -> Value {
        let (data, client) = (authenticator_data(says, 0), Self::client_data(says));
        let signed = [data.as_slice(), &sha256(&[client.as_bytes()])].concat();
        let signature = self.key.sign(&aws_lc_rs::rand::SystemRandom::new(), &signed).unwrap();
        json!({
            "id": b64u(&self.credential), "rawId": b64u(&self.credential), "type": "public-key", "extensions": {},
            "response": {
                "authenticatorData": b64u(&data), "clientDataJSON": b64u(client.as_bytes()),
                "signature": b64u(signature.as_ref()), "userHandle": says.handle,
            },
        })
    }
}

fn authenticator_data(says: &Says, more: u8) -> Vec<u8> {
    let mut data = sha256(&[says.rp_id.as_bytes()]).to_vec();
    data.push(says.flags | more);
    data.extend(says.counter.to_be_bytes());
    data
}

/// The same base64url text with one bit of its last byte but one turned.
pub fn turned(text: &str) -> String {
    let mut bytes = from_b64u(text).unwrap();
    let place = bytes.len() - 2;
    bytes[place] ^= 1;
    b64u(&bytes)
}
