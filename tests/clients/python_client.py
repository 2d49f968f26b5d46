"""The complete flow by `requests_oauth2client`. Methods: `dpop` (private_key_jwt says who it is, the proof binds the tokens) and `mtls`.

The device (its id, key and certificate) comes from the environment; each event is told as one JSON line.
"""

import json
import os
import sys

import requests
from jwskate import Jwk
from requests_oauth2client import (
    AccessDenied,
    AuthorizationPending,
    DeviceAuthorizationPollingJob,
    DPoPKey,
    InvalidGrant,
    OAuth2Client,
    PrivateKeyJwt,
    PublicApp,
    SlowDown,
)


def setting(name):
    return os.environ[f"PAIRGATE_TEST_{name}"]


def tell(event, **more):
    print(json.dumps({"event": event, **more}), flush=True)


IS_MTLS = sys.argv[1] == "mtls"
ISSUER, CLIENT_ID = setting("ISSUER"), setting("CLIENT_ID")

session = requests.Session()
session.trust_env = False
session.verify = setting("CA")
if IS_MTLS:
    session.cert = (setting("CERT"), setting("KEY"))
with open(setting("KEY"), "rb") as pem:
    key = Jwk.from_pem(pem.read()).with_kid_thumbprint()

# The library looks for OpenID Connect's document by itself, and knows neither device_authorization_endpoint nor mtls_endpoint_aliases of a document:
# they are handed to it.
document = session.get(f"{ISSUER}/.well-known/oauth-authorization-server").json()
if IS_MTLS:
    document |= document["mtls_endpoint_aliases"]
client = OAuth2Client.from_discovery_document(
    document,
    issuer=ISSUER,
    device_authorization_endpoint=document["device_authorization_endpoint"],
    # Without `aud` the library names the endpoint.
    auth=PublicApp(CLIENT_ID) if IS_MTLS else PrivateKeyJwt(CLIENT_ID, key, alg="ES256", aud=ISSUER),
    session=session,
)
proving = {} if IS_MTLS else {"dpop": True, "dpop_key": DPoPKey(key, alg="ES256")}


def start():
    code = client.authorize_device()
    tell("code", user_code=code.user_code, verification_uri_complete=code.verification_uri_complete, interval=code.interval)
    return code


def poll(code):
    """One poll by hand. The library's own loop hides the body of authorization_pending, and with it the number to show."""
    try:
        client.device_code(code, **proving)
    except AuthorizationPending as pending:
        tell("pending", confirmation_number=pending.response.json().get("confirmation_number"))
    except SlowDown:
        tell("slow_down")


class ShowsTheNumber(DeviceAuthorizationPollingJob):
    """The library's loop; only what comes beside authorization_pending is read by hand."""

    def token_request(self):
        try:
            return super().token_request()
        except AuthorizationPending as pending:
            tell("pending", confirmation_number=pending.response.json().get("confirmation_number"))
            raise


def described(token):
    return {"access_token": token.access_token, "refresh_token": token.refresh_token, "token_type": token.token_type}


def wait_for(job):
    token = None
    while token is None:
        token = job()
    return token


code = start()
poll(code)
poll(code)  # at once: too fast
token = wait_for(ShowsTheNumber(client, code, interval=code.interval + 5, **proving))
tell("tokens", **described(token))
renewed = client.refresh_token(token)
tell("refreshed", **described(renewed))
assert client.revoke_refresh_token(renewed)
tell("revoked")
try:
    client.refresh_token(renewed)
except InvalidGrant as refused:
    tell("dead", error=refused.error)

try:
    wait_for(DeviceAuthorizationPollingJob(client, start(), **proving))
except AccessDenied as refused:
    tell("denied", error=refused.error)
