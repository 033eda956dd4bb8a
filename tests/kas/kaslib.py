# SPDX-License-Identifier: Apache-2.0
"""What a client of a KAS needs, written from the protocol's text alone: tokens, request tokens, DPoP proofs, key access objects, protobuf.  Only `cryptography` is used."""
import base64, gzip, hashlib, hmac, http.client, json, os, socket, time, uuid

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


def b64u(b):
    return base64.urlsafe_b64encode(b).rstrip(b"=").decode()


def b64(b):
    return base64.b64encode(b).decode()


def num(i, n=None):
    return b64u(i.to_bytes(n or (i.bit_length() + 7) // 8, "big"))


class Key:
    """A signing key: ES256, ES384, RS256 or PS256."""

    def __init__(self, alg="ES256", kid=None):
        self.alg, self.kid = alg, kid
        self.key = ec.generate_private_key(ec.SECP256R1() if alg == "ES256" else ec.SECP384R1()) if alg[0] == "E" else rsa.generate_private_key(65537, 2048)

    def jwk(self):
        p = self.key.public_key().public_numbers()
        if self.alg[0] == "E":
            n = 32 if self.alg == "ES256" else 48
            j = {"crv": "P-256" if n == 32 else "P-384", "kty": "EC", "x": num(p.x, n), "y": num(p.y, n)}
        else:
            j = {"e": num(p.e), "kty": "RSA", "n": num(p.n)}
        return {**j, "kid": self.kid} if self.kid else j

    def thumbprint(self):
        j = {k: v for k, v in self.jwk().items() if k != "kid"}
        return b64u(hashlib.sha256(json.dumps(j, sort_keys=True, separators=(",", ":")).encode()).digest())

    def sign(self, data):
        h = hashes.SHA384() if self.alg == "ES384" else hashes.SHA256()
        if self.alg[0] == "E":
            n = 32 if self.alg == "ES256" else 48
            r, s = decode_dss_signature(self.key.sign(data, ec.ECDSA(h)))
            return r.to_bytes(n, "big") + s.to_bytes(n, "big")
        if self.alg == "PS256":
            return self.key.sign(data, padding.PSS(padding.MGF1(h), 32), h)
        return self.key.sign(data, padding.PKCS1v15(), h)

    def jws(self, claims, header=None, **more):
        h = {"alg": self.alg, **({"kid": self.kid} if self.kid else {}), **(header or {}), **more}
        text = b64u(json.dumps({k: v for k, v in h.items() if v is not None}).encode()) + "." + b64u(claims if isinstance(claims, bytes) else json.dumps(claims).encode())
        return text + "." + b64u(self.sign(text.encode()))

    def pem(self):
        return public_pem(self.key)

    def private_pem(self):
        return self.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()


def public_pem(key):
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


def access_token(issuer_key, iss, aud, sub="alice", exp=300, **claims):
    now = int(time.time())
    c = {"iss": iss, "aud": aud, "sub": sub, "iat": now, "exp": now + exp if exp is not None else None, **claims}
    return issuer_key.jws({k: v for k, v in c.items() if v is not None})


def proof(key, method, url, token, **change):
    c = {"jti": str(uuid.uuid4()), "iat": int(time.time()), "htm": method, "htu": url, "ath": b64u(hashlib.sha256(token.encode()).digest()), **change}
    return key.jws({k: v for k, v in c.items() if v is not None}, {"typ": "dpop+jwt", "jwk": key.jwk(), "kid": None})


def srt(key, body, exp=60, iat=0, **claims):
    now = int(time.time())
    return key.jws({"requestBody": body if isinstance(body, str) else json.dumps(body), "iat": now + iat, "exp": now + exp, **claims})


# --- key access objects ---

def kek(private, public):
    return HKDF(hashes.SHA256(), 32, hashlib.sha256(b"TDF").digest(), b"").derive(private.exchange(ec.ECDH(), public))


def oaep():
    return padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)


def policy(attributes=(), dissem=(), **more):
    return {"uuid": str(uuid.uuid4()), "body": {"dataAttributes": [{"attribute": a} for a in attributes], "dissem": list(dissem)}, **more}


def policy_text(p):
    return b64(json.dumps(p).encode())


def key_access(dek, text, pem, kid, url="http://localhost", eph=None):
    """The object of a file with the policy @text, wrapped for a KAS's public key."""
    public = serialization.load_pem_public_key(pem.encode())
    o = {"url": url, "protocol": "kas", "kid": kid, "schemaVersion": "1.0",
         "policyBinding": {"alg": "HS256", "hash": b64(hmac.new(dek, text.encode(), "sha256").hexdigest().encode())}}
    if isinstance(public, ec.EllipticCurvePublicKey):
        eph = eph or ec.generate_private_key(public.curve)
        iv = os.urandom(12)
        return {**o, "type": "ec-wrapped", "wrappedKey": b64(iv + AESGCM(kek(eph, public)).encrypt(iv, dek, None)), "ephemeralPublicKey": public_pem(eph)}
    return {**o, "type": "wrapped", "wrappedKey": b64(public.encrypt(dek, oaep()))}


def item(n, text, *objects):
    return {"policy": {"id": f"policy-{n}", "body": text}, "keyAccessObjects": [{"keyAccessObjectId": f"kao-{i}", "keyAccessObject": o} for i, o in enumerate(objects)]}


class Session:
    """The client's key of one call."""

    def __init__(self, kind="ec"):
        self.key = ec.generate_private_key(ec.SECP256R1()) if kind == "ec" else rsa.generate_private_key(65537, 2048)
        self.pem = public_pem(self.key)

    def open(self, wrapped, session_pem):
        wrapped = base64.b64decode(wrapped) if isinstance(wrapped, str) else wrapped
        if isinstance(self.key, rsa.RSAPrivateKey):
            return self.key.decrypt(wrapped, oaep())
        return AESGCM(kek(self.key, serialization.load_pem_public_key(session_pem.encode()))).decrypt(wrapped[:12], wrapped[12:], None)


# --- protobuf ---

def varint(n):
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def field(n, value):
    """bytes or text: length-delimited; int: varint"""
    if isinstance(value, int):
        return varint(n << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(n << 3 | 2) + varint(len(value)) + value


def fields(b):
    """[(number, value)]"""
    out, at = [], 0

    def get():
        nonlocal at
        v = shift = 0
        while True:
            c = b[at]
            at += 1
            v |= (c & 127) << shift
            shift += 7
            if c < 128:
                return v
    while at < len(b):
        tag = get()
        if tag & 7 == 0:
            out.append((tag >> 3, get()))
        elif tag & 7 == 1:
            out.append((tag >> 3, b[at:at + 8]))
            at += 8
        else:
            assert tag & 7 == 2, tag
            n = get()
            out.append((tag >> 3, b[at:at + n]))
            at += n
            assert at <= len(b)
    return out


def one(b, n, default=b""):
    return next((v for k, v in fields(b) if k == n), default)


def rewrap_response(b):
    """The protobuf answer as the JSON one has it."""
    r = {"sessionPublicKey": one(b, 3).decode(), "responses": []}
    if one(b, 2):
        r["entityWrappedKey"] = b64(one(b, 2))
    for k, v in fields(b):
        if k == 5:
            results = []
            for k2, v2 in fields(v):
                if k2 == 2:
                    x = {"keyAccessObjectId": one(v2, 2).decode(), "status": one(v2, 3).decode()}
                    x.update({"kasWrappedKey": b64(one(v2, 4))} if one(v2, 4) else {"error": one(v2, 5).decode()})
                    results.append(x)
            r["responses"].append({"policyId": one(v, 1).decode(), "results": results})
    return r


# --- HTTP ---

class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=20)
        self.unix = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(self.unix)


REWRAP = "/kas.AccessService/Rewrap"


class Client:
    """One connection to a KAS."""

    def __init__(self, port=None, unix=None, context=None, host="127.0.0.1"):
        self.c = UnixConnection(unix) if unix else http.client.HTTPSConnection("localhost", port, context=context, timeout=20) if context else http.client.HTTPConnection(host, port, timeout=20)
        self.url = f"http://localhost:{port}" if port else "http://localhost"

    def call(self, path, body=None, token=None, headers=None, method=None, scheme="Bearer", kind="application/json"):
        """(status, headers, body)"""
        h = {"Authorization": f"{scheme} {token}"} if token else {}
        if body is not None:
            h["Content-Type"] = kind
        h.update(headers or {})
        self.c.request(method or ("GET" if body is None else "POST"), path, body, {k: v for k, v in h.items() if v is not None})
        r = self.c.getresponse()
        return r.status, {k.lower(): v for k, v in r.getheaders()}, r.read()

    def json(self, path, message, **more):
        status, _, body = self.call(path, json.dumps(message).encode(), **more)
        return status, json.loads(body or b"{}")

    def rewrap(self, items, token=None, session=None, signer=None, codec="json", gzipped=False, extra=None, path=REWRAP, **more):
        """(status, answer as JSON, session)"""
        session = session or Session()
        body = {"clientPublicKey": session.pem, **({"requests": items} if items is not None else {}), **(extra or {})}
        text = srt(signer or Key(), body)
        if codec == "json":
            data, kind = json.dumps({"signedRequestToken": text}).encode(), "application/json"
        else:
            data, kind = field(1, text), "application/" + codec
        if codec == "grpc":
            data = b"\0" + len(data).to_bytes(4, "big") + data
        headers = more.pop("headers", {}) or {}
        if gzipped:
            data, headers = gzip.compress(data), {**headers, "Content-Encoding": "gzip"}
        status, h, out = self.call(path, data, token=token, kind=kind, headers=headers, **more)
        if status == 200 and codec == "grpc" and out:
            assert out[0] == 0 and int.from_bytes(out[1:5], "big") == len(out) - 5, out[:5]
            out = out[5:]
        answer = rewrap_response(out) if status == 200 and codec != "json" else json.loads(out or b"{}")
        if codec == "grpc":
            answer["headers"] = h
        return status, answer, session
