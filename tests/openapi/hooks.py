"""What a generator can't invent: half of its requests get a client assertion that is genuine, so that they come further than the door."""

import base64
import json
import os
import uuid

import schemathesis
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import load_der_private_key

ISSUER = os.environ["OPENAPI_ISSUER"]
NOW = int(os.environ["OPENAPI_NOW"])
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def unpadded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def padded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def assertion(client_id: str, key: str) -> str:
    """private_key_jwt (RFC 7523), ES256."""
    header = {"alg": "ES256", "typ": "client-authentication+jwt"}
    claims = {"iss": client_id, "sub": client_id, "aud": ISSUER, "iat": NOW, "exp": NOW + 3000, "jti": uuid.uuid4().hex}
    signed = ".".join(unpadded(json.dumps(part).encode()) for part in (header, claims))
    secret = load_der_private_key(padded(key), None)
    r, s = utils.decode_dss_signature(secret.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{signed}.{unpadded(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


calls = 0


@schemathesis.hook
def before_call(context, case, kwargs):
    global calls
    calls += 1
    if not isinstance(case.body, dict) or calls % 2:
        return
    is_resource = case.operation.path == "/introspect"
    client_id = os.environ["OPENAPI_RESOURCE" if is_resource else "OPENAPI_DEVICE"]
    key = os.environ["OPENAPI_RESOURCE_KEY" if is_resource else "OPENAPI_DEVICE_KEY"]
    case.body.pop("client_id", None)
    case.body["client_assertion_type"] = ASSERTION_TYPE
    case.body["client_assertion"] = assertion(client_id, key)
    if is_resource and calls % 4 == 0:
        case.body["token"] = os.environ["OPENAPI_TOKEN"]
