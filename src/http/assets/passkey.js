// Passkeys: between the forms marked data-passkey and navigator.credentials. Without this file, or in a browser without passkeys, those forms stay hidden.
"use strict";

const toBytes = (text) => Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (letter) => letter.charCodeAt(0));
const toText = (buffer) => btoa(String.fromCharCode(...new Uint8Array(buffer))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");

// The answer of an endpoint of ours; a refusal is thrown as the sentence to show.
async function ask(path, body) {
  const answer = await fetch(path, {
    method: "POST", credentials: "same-origin", cache: "no-store", redirect: "error",
    headers: { "content-type": "application/json" }, body: JSON.stringify(body),
  });
  const told = await answer.json();
  if (answer.ok) return told;
  if (told.to) location.assign(told.to);
  throw Object.assign(new Error(told.error), { isTold: true });
}

async function create(options) {
  const wanted = options.publicKey;
  wanted.challenge = toBytes(wanted.challenge);
  wanted.user.id = toBytes(wanted.user.id);
  for (const known of wanted.excludeCredentials ?? []) known.id = toBytes(known.id);
  const made = await navigator.credentials.create({ publicKey: wanted });
  return {
    id: made.id, rawId: toText(made.rawId), type: made.type, extensions: made.getClientExtensionResults(),
    response: {
      attestationObject: toText(made.response.attestationObject), clientDataJSON: toText(made.response.clientDataJSON),
    },
  };
}

async function get(options) {
  const wanted = options.publicKey;
  wanted.challenge = toBytes(wanted.challenge);
  const found = await navigator.credentials.get({ publicKey: wanted });
  const { authenticatorData, clientDataJSON, signature, userHandle } = found.response;
  return {
    id: found.id, rawId: toText(found.rawId), type: found.type, extensions: found.getClientExtensionResults(),
    response: {
      authenticatorData: toText(authenticatorData), clientDataJSON: toText(clientDataJSON), signature: toText(signature),
      userHandle: userHandle ? toText(userHandle) : null,
    },
  };
}

async function run(form) {
  const button = form.querySelector("button");
  const said = form.querySelector("[role=alert]");
  const fields = Object.fromEntries(new FormData(form));
  const path = form.dataset.passkey;
  button.disabled = true;
  said.hidden = true;
  try {
    const options = await ask(path + "/begin", fields);
    const credential = await (options.publicKey.user ? create(options) : get(options));
    location.assign((await ask(path + "/finish", { ...fields, credential })).to);
  } catch (error) {
    const known = error.name === "InvalidStateError" ? form.dataset.known : error.name === "NotAllowedError" ? form.dataset.cancelled : undefined;
    said.textContent = error.isTold ? error.message : known ?? form.dataset.failed;
    said.hidden = false;
    button.disabled = false;
  }
}

if (window.PublicKeyCredential) {
  for (const form of document.querySelectorAll("form[data-passkey]")) {
    form.hidden = false;
    form.addEventListener("submit", (event) => { event.preventDefault(); run(form); });
  }
  for (const advice of document.querySelectorAll("[data-without-passkeys]")) advice.hidden = true;
}
