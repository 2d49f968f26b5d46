// The complete flow by `openid-client`. Methods: `dpop` (private_key_jwt says who it is, the proof binds the tokens) and `mtls`.
import * as client from 'openid-client';
import { clientId, connection, deviceKeyPair, issuer, method, pause, tell } from './device.mjs';

const DEVICE_CODE = 'urn:ietf:params:oauth:grant-type:device_code';
const isMtls = method === 'mtls';

const keys = await deviceKeyPair();
const config = await client.discovery(
  issuer,
  clientId,
  // Where the certificate is asked for is another address.
  isMtls ? { use_mtls_endpoint_aliases: true } : {},
  isMtls ? client.TlsClientAuth() : client.PrivateKeyJwt(keys.privateKey),
  { algorithm: 'oauth2', [client.customFetch]: connection({ withCertificate: isMtls }) },
);
const options = isMtls ? {} : { DPoP: client.getDPoPHandle(config, keys) };

async function start() {
  const code = await client.initiateDeviceAuthorization(config, {});
  const { user_code, verification_uri_complete, expires_in, interval } = code;
  tell('code', { user_code, verification_uri_complete, expires_in, interval });
  return code;
}

// One poll by hand. The library's own loop hides the body of authorization_pending, and with it the number to show.
async function poll(code) {
  try {
    await client.genericGrantRequest(config, DEVICE_CODE, { device_code: code.device_code }, options);
    throw new Error('tokens before anybody approved');
  } catch (error) {
    if (!(error instanceof client.ResponseBodyError)) throw error;
    if (error.error === 'authorization_pending') tell('pending', { confirmation_number: error.cause.confirmation_number });
    else if (error.error === 'slow_down') tell('slow_down');
    else throw error;
  }
}

async function refused(event, request) {
  try {
    await request;
  } catch (error) {
    if (error instanceof client.ResponseBodyError) return tell(event, { error: error.error });
    throw error;
  }
  throw new Error(`no ${event}`);
}

const code = await start();
await poll(code);
await poll(code); // at once: too fast
const slower = { ...code, interval: code.interval + 5 };
await pause(slower.interval);
await poll(code); // now with the number
const tokens = await client.pollDeviceAuthorizationGrant(config, slower, {}, options);
tell('tokens', tokens);
const renewed = await client.refreshTokenGrant(config, tokens.refresh_token, {}, options);
tell('refreshed', renewed);
await client.tokenRevocation(config, renewed.refresh_token);
tell('revoked');
await refused('dead', client.refreshTokenGrant(config, renewed.refresh_token, {}, options));

await refused('denied', client.pollDeviceAuthorizationGrant(config, await start(), {}, options));
