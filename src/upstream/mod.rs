//! What Pairgate asks of servers of others: an HTTP client that goes only where it was sent. Who is asked for what is in [`oidc`].
//!
//! Every answer is bounded in time and size, no redirect is followed, and a host with a private address is not asked unless configuration allows it:
//! a provider's metadata must not make the broker knock at doors inside the house.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use crate::config::is_loopback;

pub mod oidc;

/// No honest answer is longer, in bytes.
const MAX_ANSWER: usize = 1024 * 1024;
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why nothing came. For the log; people are told to try again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UpstreamError(pub String);

/// HTTPS; plain HTTP on loopback, if private addresses are allowed.
#[derive(Clone, Debug)]
pub struct HttpClient {
    client: reqwest::Client,
    allows_private: bool,
}

impl HttpClient {
    /// Trusts what this machine trusts, or only the authorities in `ca_pem`.
    ///
    /// # Errors
    /// If there is no certificate in it, or the client can't be set up.
    pub fn new(ca_pem: Option<&[u8]>, allows_private: bool) -> Result<Self, UpstreamError> {
        // Err only says that a provider is there already.
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        let mut builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(TIMEOUT)
            .user_agent("pairgate");
        if !allows_private {
            builder = builder.dns_resolver(Arc::new(PublicAddresses));
        }
        if let Some(pem) = ca_pem {
            let roots = reqwest::Certificate::from_pem_bundle(pem).ok().filter(|roots| !roots.is_empty());
            let roots = roots.ok_or_else(|| UpstreamError("there is no PEM certificate to trust".into()))?;
            builder = builder.tls_certs_only(roots);
        }
        let client = builder.build().map_err(|error| UpstreamError(error.to_string()))?;
        Ok(Self { client, allows_private })
    }

    /// Sends a request; the answer, whatever its status.
    ///
    /// # Errors
    /// If the address may not be asked, nothing comes within 10 seconds, or more than 1 MiB.
    pub async fn send(&self, request: http::Request<Vec<u8>>) -> Result<http::Response<Vec<u8>>, UpstreamError> {
        let failed = |error: reqwest::Error| UpstreamError(format!("{:#}", error.without_url()));
        let request = reqwest::Request::try_from(request).map_err(failed)?;
        let origin = request.url().origin().ascii_serialization();
        self.check(request.url()).map_err(|why| UpstreamError(format!("{origin} {why}")))?;
        let mut answer = self.client.execute(request).await.map_err(failed)?;
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(UpstreamError(format!("the answer of {origin} is too long")));
            }
            body.extend_from_slice(&chunk);
        }
        let mut response = http::Response::new(body);
        *response.status_mut() = answer.status();
        *response.headers_mut() = answer.headers().clone();
        Ok(response)
    }

    /// May this address be asked, or a browser be sent there?
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, url: &Url) -> Result<(), &'static str> {
        let is_protected =
            url.scheme() == "https" || (url.scheme() == "http" && self.allows_private && is_loopback(url));
        if !is_protected {
            return Err("is not https");
        }
        let address = match url.host() {
            Some(Host::Ipv4(address)) => Some(IpAddr::from(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::from(address)),
            _ => None,
        };
        if address.is_some_and(|address| !self.allows_private && !is_public(address)) {
            return Err("is a private address; allow_private_network would allow it");
        }
        Ok(())
    }
}

/// Looks names up, and forgets private addresses: checked where the connection is made, so that no second look-up can say something else.
struct PublicAddresses;

impl Resolve for PublicAddresses {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let public: Vec<SocketAddr> = found.filter(|address| is_public(address.ip())).collect();
            if public.is_empty() {
                let why = format!("{} has only private addresses; allow_private_network would allow it", name.as_str());
                return Err(why.into());
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}

/// Is this an address of the internet, not of this machine, a private network or a special purpose (RFC 6890)?
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => {
            let parts = address.segments();
            // 2000::/3 is what is routed, less documentation and those that hold an IPv4 address.
            (parts[0] & 0xE000) == 0x2000
                && parts[0] != 0x2002
                && !(parts[0] == 0x2001 && (parts[1] == 0 || parts[1] == 0xDB8))
        }
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [first, second, third, _] = address.octets();
    let is_special = first == 0
        || first >= 240
        || (first == 100 && (64..128).contains(&second))
        || (first == 192 && second == 0 && third == 0)
        || (first == 198 && (18..20).contains(&second));
    !(is_special
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_and_special_addresses_are_not_public() {
        for private in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "192.0.0.8",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "203.0.113.1",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "fc00::1",
            "::ffff:10.0.0.1",
            "2002:a00:1::1",
            "2001:db8::1",
            "2001:0:1::1",
            "64:ff9b::a00:1",
            "ff02::1",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
        for public in ["1.1.1.1", "20.190.128.1", "100.128.0.1", "172.32.0.1", "2a00:1450::1", "2603:1036::1"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }

    #[tokio::test]
    async fn private_networks_and_plain_http_are_asked_only_if_allowed() {
        let (strict, lax) = (HttpClient::new(None, false).unwrap(), HttpClient::new(None, true).unwrap());
        for (url, is_strict, is_lax) in [
            ("https://id.example.org/", true, true),
            ("https://10.0.0.1/", false, true),
            ("https://[::1]/", false, true),
            ("https://169.254.169.254/latest", false, true),
            ("http://127.0.0.1:1/", false, true),
            ("http://localhost/", false, true),
            ("http://10.0.0.1/", false, false),
            ("http://id.example.org/", false, false),
            ("file:///etc/passwd", false, false),
            ("javascript:alert(1)", false, false),
        ] {
            let url = url.parse().unwrap();
            assert_eq!((strict.check(&url).is_ok(), lax.check(&url).is_ok()), (is_strict, is_lax), "{url}");
        }
        // A name is looked up, and what is found is looked at: nobody even knocks at the door.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let door = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
        let get = || http::Request::get(&door).body(Vec::new()).unwrap();
        assert!(strict.send(get()).await.is_err());
        let knock = tokio::time::timeout(Duration::from_millis(200), listener.accept()).await;
        assert!(knock.is_err(), "somebody came");
        let (answer, knock) = tokio::join!(lax.send(get()), async {
            tokio::time::timeout(Duration::from_secs(5), listener.accept()).await.map(drop)
        });
        assert!(answer.is_err() && knock.is_ok(), "with leave, the same door is knocked at");
    }

    #[test]
    fn a_file_without_a_certificate_is_refused() {
        assert!(HttpClient::new(Some(b"no certificate"), true).is_err());
    }
}
