//! A maker of devices: a certificate authority that gives each box an identity in the factory (IEEE 802.1AR).

use pairgate::oauth::roots::Roots;
use pairgate::simulator::{DeviceKey, Idevid, jose};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// A maker, or a factory of his.
pub struct Maker {
    ca: CertifiedIssuer<'static, KeyPair>,
    /// Certificates of those above, nearest first; without the root.
    above: Vec<Vec<u8>>,
}

impl Maker {
    pub fn new(name: &str) -> Self {
        let ca = CertifiedIssuer::self_signed(ca_params(name), KeyPair::generate().unwrap()).unwrap();
        Self { ca, above: Vec::new() }
    }

    /// An authority below this one.
    pub fn factory(&self, name: &str) -> Self {
        let ca = CertifiedIssuer::signed_by(ca_params(name), KeyPair::generate().unwrap(), &self.ca).unwrap();
        let above = [vec![ca.der().to_vec()], self.above.clone()].concat();
        Self { ca, above }
    }

    /// The identity of a box, as the maker makes it: it never expires, and says nothing of what it is for.
    pub fn idevid(&self, serial: &str) -> Idevid {
        self.idevid_with(serial, |_| {})
    }

    /// The same, made a little differently.
    pub fn idevid_with(&self, serial: &str, change: impl FnOnce(&mut CertificateParams)) -> Idevid {
        let pair = KeyPair::generate().unwrap();
        let certificate = leaf_params(serial, change).signed_by(&pair, &self.ca).unwrap();
        let chain = [vec![certificate.der().to_vec()], self.above.clone()].concat();
        Idevid { key: device_key(&pair), chain }
    }

    pub fn root(&self) -> Vec<u8> {
        self.ca.der().to_vec()
    }

    pub fn pem(&self) -> String {
        self.ca.pem()
    }

    /// What a broker is configured with that believes him.
    pub fn roots(&self) -> Roots {
        let mut roots = Roots::default();
        roots.add_pem(self.pem().as_bytes()).unwrap();
        roots
    }
}

/// A box that vouches for itself.
pub fn self_signed(serial: &str) -> Idevid {
    let pair = KeyPair::generate().unwrap();
    let certificate = leaf_params(serial, |_| {}).self_signed(&pair).unwrap();
    Idevid { key: device_key(&pair), chain: vec![certificate.der().to_vec()] }
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

fn leaf_params(serial: &str, change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "M480f");
    if !serial.is_empty() {
        params.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 5]), serial);
    }
    params.not_after = rcgen::date_time_ymd(9999, 12, 31);
    change(&mut params);
    params
}

fn device_key(pair: &KeyPair) -> DeviceKey {
    DeviceKey::from_pkcs8_b64u("ES256", &jose::b64u(&pair.serialize_der())).unwrap()
}
