// The complete flow by `oauth4webapi`. Methods: `dpop` (private_key_jwt says who it is, the proof binds the tokens), `dpop-alone` (at the token endpoint the
// proof is the client authentication; elsewhere the library sends no proof, so there it is private_key_jwt) and `mtls`.
import * as oauth from 'oauth4webapi';
import { clientId, connection, deviceKeyPair, issuer, method, pause, tell } from './device.mjs';

const isMtls = method === 'mtls';
const keys = await deviceKeyPair();
const client = { client_id: clientId, use_mtls_endpoint_aliases: isMtls };
const authentication = isMtls ? oauth.TlsClientAuth() : oauth.PrivateKeyJwt(keys.privateKey);
const atToken = method === 'dpop-alone' ? oauth.None() : authentication;
const http = { [oauth.customFetch]: connection({ withCertificate: isMtls }) };
const proving = isMtls ? http : { ...http, DPoP: oauth.DPoP(client, keys) };

const found = await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...http });
const server = await oauth.processDiscoveryResponse(issuer, found);

// Once more if the proof needs the server's nonce: the library has kept it.
async function withNonce(request) {
  try {
    return await request();
  } catch (error) {
    if (!oauth.isDPoPNonceError(error)) throw error;
    return request();
  }
}

async function start() {
  const answer = await oauth.deviceAuthorizationRequest(server, client, authentication, {}, http);
  const code = await oauth.processDeviceAuthorizationResponse(server, client, answer);
  const { user_code, verification_uri_complete, expires_in, interval } = code;
  tell('code', { user_code, verification_uri_complete, expires_in, interval });
  return code;
}

const poll = (code) =>
  withNonce(async () => {
    const answer = await oauth.deviceCodeGrantRequest(server, client, atToken, code.device_code, proving);
    return oauth.processDeviceCodeResponse(server, client, answer);
  });

const refresh = (token) =>
  withNonce(async () => {
    const answer = await oauth.refreshTokenGrantRequest(server, client, atToken, token, proving);
    return oauth.processRefreshTokenResponse(server, client, answer);
  });

// The library has no loop of its own: RFC 8628 section 3.5 by hand. `hasty`: the second poll follows at once.
async function signIn({ hasty }) {
  const code = await start();
  let interval = code.interval ?? 5;
  for (let polls = 0; ; polls += 1) {
    if (!hasty || polls > 1) await pause(interval);
    try {
      return await poll(code);
    } catch (error) {
      if (error.error === 'authorization_pending') {
        tell('pending', { confirmation_number: error.cause.confirmation_number });
      } else if (error.error === 'slow_down') {
        interval += 5;
        tell('slow_down');
      } else {
        throw error;
      }
    }
  }
}

async function refused(event, request) {
  try {
    await request;
  } catch (error) {
    if (error instanceof oauth.ResponseBodyError) return tell(event, { error: error.error });
    throw error;
  }
  throw new Error(`no ${event}`);
}

const tokens = await signIn({ hasty: true });
tell('tokens', tokens);
const renewed = await refresh(tokens.refresh_token);
tell('refreshed', renewed);
await oauth.processRevocationResponse(
  await oauth.revocationRequest(server, client, authentication, renewed.refresh_token, http),
);
tell('revoked');
await refused('dead', refresh(renewed.refresh_token));

await refused('denied', signIn({ hasty: false }));
