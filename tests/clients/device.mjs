// What the two JavaScript clients have in common: the device (its id, key and certificate come from the environment), its connections, and what it tells
// the test: one JSON line for each event.
import { createPrivateKey, createPublicKey, webcrypto } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { Agent, fetch } from 'undici';

const setting = (name) => {
  const value = process.env[`PAIRGATE_TEST_${name}`];
  if (!value) throw new Error(`PAIRGATE_TEST_${name} is not set`);
  return value;
};

export const method = process.argv[2];
export const issuer = new URL(setting('ISSUER'));
export const clientId = setting('CLIENT_ID');

export const tell = (event, more = {}) => console.log(JSON.stringify({ event, ...more }));
export const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

// The device's key, as WebCrypto wants it.
export async function deviceKeyPair() {
  const privateKey = createPrivateKey(readFileSync(setting('KEY')));
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256' };
  const imported = (key, type, extractable, usages) =>
    webcrypto.subtle.importKey(type, key.export({ format: 'der', type }), algorithm, extractable, usages);
  return {
    privateKey: await imported(privateKey, 'pkcs8', false, ['sign']),
    publicKey: await imported(createPublicKey(privateKey), 'spki', true, ['verify']),
  };
}

// `fetch` that trusts the organisation's CA and, for mTLS, shows the device's certificate.
export function connection({ withCertificate }) {
  const connect = { ca: readFileSync(setting('CA')) };
  if (withCertificate) {
    connect.cert = readFileSync(setting('CERT'));
    connect.key = readFileSync(setting('KEY'));
  }
  const dispatcher = new Agent({ connect });
  return async (url, options) => {
    const answer = await fetch(url, { ...options, dispatcher });
    // The libraries want the Response of this node, not that of the package.
    return new Response([204, 304].includes(answer.status) ? null : await answer.arrayBuffer(), answer);
  };
}
