//! The crate `oauth2`, version 5. It knows neither discovery nor proofs nor certificates: its HTTP client is a function, and that is the place for them.
//!
//! Its polling loop hides the body of `authorization_pending`, so the device has no number to show: its kind wants the site's network instead.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use oauth2::basic::{BasicClient, BasicTokenResponse};
use oauth2::{
    AuthType, ClientId, DeviceAuthorizationUrl, DeviceCodeErrorResponseType, HttpRequest, HttpResponse, RefreshToken,
    RequestTokenError, RevocationUrl, StandardDeviceAuthorizationResponse, StandardRevocableToken, TokenResponse as _,
    TokenUrl,
};
use pairgate::simulator::{SimulatorError, Wire};

use super::*;

/// The function that is its HTTP client: shows the certificate, or proves the key.
#[derive(Clone)]
struct Http {
    wire: Wire,
    /// For proofs; none with a certificate.
    device: Option<Arc<SimulatedDevice>>,
    nonce: Arc<Mutex<Option<String>>>,
}

impl Http {
    fn of(bench: &Bench, is_mtls: bool) -> Self {
        let identity = format!("{}{}", bench.file("device.crt"), bench.file("device.key"));
        let wire = Wire::with_tls(&bench.file("ca.pem"), is_mtls.then_some(&identity)).unwrap();
        let device = (!is_mtls).then(|| {
            let key = bench.device.key.clone();
            Arc::new(SimulatedDevice::new(DEVICE, &bench.test.issuer, key, wire.clone()))
        });
        Self { wire, device, nonce: Arc::default() }
    }

    async fn send(self, request: HttpRequest) -> Result<HttpResponse, SimulatorError> {
        let answer = self.send_once(&request).await?;
        match answer.body() {
            body if String::from_utf8_lossy(body).contains("use_dpop_nonce") => self.send_once(&request).await,
            _ => Ok(answer),
        }
    }

    async fn send_once(&self, request: &HttpRequest) -> Result<HttpResponse, SimulatorError> {
        let address = request.uri().to_string();
        let mut sending = self.wire.post(&address).headers(request.headers().clone()).body(request.body().clone());
        if let Some(device) = &self.device {
            let nonce = self.nonce.lock().unwrap().clone();
            let proof = device.proof("POST", &address, nonce.as_deref(), &crate::support::probe::jti())?;
            sending = sending.header("dpop", proof);
        }
        let answer = self.wire.send(sending).await?;
        if let Some(nonce) = answer.header("dpop-nonce") {
            *self.nonce.lock().unwrap() = Some(nonce.to_owned());
        }
        let mut response = HttpResponse::new(answer.body.clone().into_bytes());
        *response.status_mut() = answer.status.try_into().unwrap();
        *response.headers_mut() = answer.headers;
        Ok(response)
    }
}

async fn complete_flow(is_mtls: bool) {
    let clock = Clock::manual(Clock::system().now());
    let change = |kind: &mut Kind| (kind.confirmation_number, kind.site_network) = (false, true);
    let bench = Bench::by_clock(clock.clone(), change).await;
    bench.test.set_networks(&["127.0.0.0/8"]).await;
    let address = bench.test.url("/.well-known/oauth-authorization-server");
    let metadata = bench.test.wire.send(bench.test.wire.get(&address)).await.unwrap().json().unwrap();
    let endpoints = if is_mtls { &metadata["mtls_endpoint_aliases"] } else { &metadata };
    let endpoint = |name: &str| endpoints[name].as_str().unwrap().to_owned();
    let client = BasicClient::new(ClientId::new(DEVICE.into()))
        .set_auth_type(AuthType::RequestBody)
        .set_device_authorization_url(DeviceAuthorizationUrl::new(endpoint("device_authorization_endpoint")).unwrap())
        .set_token_uri(TokenUrl::new(endpoint("token_endpoint")).unwrap())
        .set_revocation_url(RevocationUrl::new(endpoint("revocation_endpoint")).unwrap());
    let http = Http::of(&bench, is_mtls);
    let call = |request| http.clone().send(request);
    let claim = async |code: &StandardDeviceAuthorizationResponse| {
        let uri = code.verification_uri_complete().unwrap().secret();
        bench.operator.claim(uri).await.unwrap()
    };

    let code: StandardDeviceAuthorizationResponse = client.exchange_device_code().request_async(&call).await.unwrap();
    let page = claim(&code).await;
    let waits = Mutex::new(Vec::new());
    // The crate polls, then waits by this function: the first time it does not wait, which is too fast. Then somebody approves.
    let wait = |interval: Duration| {
        let nth = {
            let mut waits = waits.lock().unwrap();
            waits.push(interval.as_secs());
            waits.len()
        };
        let (operator, page, clock) = (&bench.operator, &page, &clock);
        async move {
            if nth == 2 {
                operator.approve(page, "").await.unwrap();
            }
            if nth > 1 {
                clock.advance(interval);
            }
        }
    };
    let tokens: BasicTokenResponse =
        client.exchange_device_access_token(&code).request_async(&call, wait, None).await.unwrap();
    assert_eq!(*waits.lock().unwrap(), [5, 10], "slowed down once, and then obeyed");

    let refresh = async |tokens: &BasicTokenResponse| {
        let token = RefreshToken::new(tokens.refresh_token().unwrap().secret().clone());
        client.exchange_refresh_token(&token).request_async(&call).await
    };
    let renewed = refresh(&tokens).await.unwrap();
    for tokens in [&tokens, &renewed] {
        let claims = jose::peek(tokens.access_token().secret()).unwrap().claims;
        assert_eq!(claims["cnf"], bench.confirmation(is_mtls));
    }
    assert_ne!(tokens.refresh_token().unwrap().secret(), renewed.refresh_token().unwrap().secret(), "rotated");
    let given_back = StandardRevocableToken::RefreshToken(renewed.refresh_token().unwrap().clone());
    client.revoke_token(given_back).unwrap().request_async(&call).await.unwrap();
    let dead = refresh(&renewed).await.unwrap_err();
    assert!(
        matches!(&dead, RequestTokenError::ServerResponse(error)
        if error.error() == &oauth2::basic::BasicErrorResponseType::InvalidGrant),
        "{dead:?}"
    );

    let code: StandardDeviceAuthorizationResponse = client.exchange_device_code().request_async(&call).await.unwrap();
    bench.operator.deny(&claim(&code).await).await.unwrap();
    let wait = async |interval| clock.advance(interval);
    let polled = client.exchange_device_access_token(&code).request_async(&call, wait, None).await;
    assert!(
        matches!(&polled, Err(RequestTokenError::ServerResponse(error))
        if error.error() == &DeviceCodeErrorResponseType::AccessDenied),
        "{polled:?}"
    );
    bench.is_recorded().await;
}

#[tokio::test]
async fn the_crate_oauth2_signs_in_by_dpop_alone_and_by_certificate() {
    in_time(async { tokio::join!(complete_flow(false), complete_flow(true)) }).await;
}
