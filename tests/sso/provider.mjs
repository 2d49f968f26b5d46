// A real OpenID provider for the tests, on a free loopback port. It prints its port; then it takes one JSON value a line:
//   {"redirect_uri": "…"}           the client's address: from then on it serves, and says "ready"
//   {"groups": {"dana": ["it"]}}    who is in which groups from now on, and says "ready"
import { generateKeyPairSync, randomBytes } from "node:crypto";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { Provider } from "oidc-provider";

// Standard output is for the test alone; what the provider has to remark goes elsewhere.
const say = (line) => process.stdout.write(`${line}\n`);
console.log = console.info = console.warn = console.error;

const people = {
  dana: { preferred_username: "dana", email: "dana@contoso.example" },
  emil: { preferred_username: "Emil Müller", email: "dana@contoso.example" },
};
let groups = {};
let provider;
let serve;

const key = generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey.export({ format: "jwk" });

function configuration(redirect_uri) {
  return {
    clients: [{ client_id: "pairgate", client_secret: "a secret & more", redirect_uris: [redirect_uri] }],
    jwks: { keys: [{ ...key, kid: "one", use: "sig", alg: "RS256" }] },
    cookies: { keys: [randomBytes(16).toString("hex")] },
    scopes: ["openid", "profile", "email", "groups"],
    claims: { openid: ["sub"], profile: ["preferred_username"], email: ["email"], groups: ["groups"] },
    conformIdTokenClaims: false,
    features: { devInteractions: { enabled: false } },
    interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
    findAccount: (_, id) => ({
      accountId: id,
      claims: () => ({ sub: `subject-of-${id}`, ...people[id], groups: groups[id] ?? [] }),
    }),
    async loadExistingGrant(context) {
      const { client, session, provider } = context.oidc;
      const grant = new provider.Grant({ clientId: client.clientId, accountId: session.accountId });
      grant.addOIDCScope("openid profile email groups");
      await grant.save();
      return grant;
    },
  };
}

async function interaction(request, response) {
  if (request.method === "GET") {
    const buttons = Object.keys(people).map((id) => `<button name="who" value="${id}">${id}</button>`);
    response.setHeader("content-type", "text/html");
    response.end(`<!doctype html><title>Contoso</title><h1>Who are you?</h1><form method="post">${buttons.join("")}
      <button name="who" value="">Cancel</button></form>`);
    return;
  }
  let body = "";
  for await (const chunk of request) body += chunk;
  const who = new URLSearchParams(body).get("who");
  const result = who
    ? { login: { accountId: who } }
    : { error: "access_denied", error_description: "<script>document.title = 'owned'</script> You pressed Cancel." };
  await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: false });
}

const server = createServer((request, response) => {
  if (request.url === "/favicon.ico") {
    response.statusCode = 204;
    response.end();
    return;
  }
  const answer = request.url.startsWith("/interaction/") ? interaction(request, response) : serve(request, response);
  Promise.resolve(answer).catch((error) => {
    console.error(error);
    response.statusCode = 500;
    response.end();
  });
});
server.listen(0, "127.0.0.1", () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  say(server.address().port);
  createInterface({ input: process.stdin }).on("line", (line) => {
    const told = JSON.parse(line);
    if (told.groups) groups = told.groups;
    if (told.redirect_uri) {
      provider = new Provider(issuer, configuration(told.redirect_uri));
      serve = provider.callback();
    }
    say("ready");
  }).on("close", () => process.exit());
});
