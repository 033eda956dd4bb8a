# SPDX-License-Identifier: Apache-2.0
"""A KAS for tests, in the manner of a real platform and its faults; it shares no code with tdfs.

Attributes decide: .../value/deny = forbidden, .../value/oblige = forbidden for want of an obligation, .../value/spoil = the decision fails for the whole request (pdp-denied), as does any
malformed one; anything else = permitted.  Equal policy ids crash the handler, a member of a wrong type is 400 for all.  See the knobs in __init__.
"""
import base64, collections, hashlib, hmac, json, re

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

import jose
from web import Answer, Closed, Server

FORBIDDEN = "permission_denied: request error\nrpc error: code = PermissionDenied desc = forbidden"
PDP_DENIED = "permission_denied: request error\nrpc error: code = PermissionDenied desc = forbidden: pdp-denied"
BAD_REQUEST = "invalid_argument: request error\nrpc error: code = InvalidArgument desc = bad request"
INVALID = "invalid_argument: request error\nrpc error: code = InvalidArgument desc = invalid request"
FQN = re.compile(r"https?://[\w.:-]+/attr/[\w-]+/value/[\w-]+$", re.I)


def pem(public):
    return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


def kek(private, public):
    return HKDF(hashes.SHA256(), 32, hashlib.sha256(b"TDF").digest(), b"").derive(private.exchange(ec.ECDH(), public))


class Refused(Exception):
    def __init__(self, status, code, message="", **headers):
        self.status, self.code, self.message, self.headers = status, code, message, {k.replace("_", "-"): v for k, v in headers.items()}


class Kas:
    made, rsa_keys = 0, []  # one takes longer than most of what is done with it: the next case has the same ones

    @classmethod
    def rsa_key(cls):
        cls.made += 1
        if cls.made > len(cls.rsa_keys):
            cls.rsa_keys.append(rsa.generate_private_key(65537, 2048))
        return cls.rsa_keys[cls.made - 1]

    def __init__(self, issuer, tls=None, port=0, host="localhost", prefix="/kas", ahead=0, audience="tdfs"):
        self.issuer, self.audience = issuer, audience
        self.ec, self.rsa = ec.generate_private_key(ec.SECP256R1()), self.rsa_key()
        self.connect = self.rest = True  # protocols spoken
        self.ec_session = True           # EC client keys work
        self.bulk = True                 # `requests` is understood
        self.dpop_required, self.nonce = False, None
        self.pdp_down = False            # no decision about attributes
        self.wrong_key = False           # answers with other keys than asked for
        self.refuse_tokens = False       # 401 for every token
        self.forget = set()              # numbers of policies that are left out of the answer
        self.known = None                # attributes that the platform has; None: it cannot be asked
        self.values = {}                 # FQN: what GetAttributeValuesByFqns says of it, instead of nothing
        self.mappings = None             # FQN: (rule, [mapped keys]), of GetKeyMappingsByFqns; None: an older platform has no such call
        self.registry = None             # URLs of ListKeyAccessServers, in pages of two; None: no such service
        self.lacks = (404, "404 page not found")  # what is said of paths that there are not
        self.base_key = {}               # of the configuration
        self.names = None                # its issuer, if not the right one
        self.double = False              # every result twice, the second one a lie
        self.counts, self.errors, self.tokens, self.seen = collections.Counter(), [], set(), set()
        self.server = Server(self.answer, tls, port, ahead=ahead)
        self.prefix = prefix
        self.url = f"{'https' if tls else 'http'}://{host}:{self.server.port}{prefix}"

    def origin(self):
        return self.url[: len(self.url) - len(self.prefix)]

    # --- who asks ---

    def authenticate(self, q):
        scheme, _, token = q.headers.get("authorization", "").partition(" ")
        self.tokens.add(token)
        try:
            head, claims = jose.parse(token)
            keys = {k["kid"]: k for k in self.issuer.jwks()["keys"]}
            jose.verify(token, keys[head["kid"]])
        except (ValueError, KeyError):
            raise Refused(401, "unauthenticated", "unauthenticated") from None
        now, aud = self.server.now(), claims.get("aud")
        if self.refuse_tokens or claims.get("iss") != self.issuer.url or claims.get("exp", 0) < now - 60 or self.audience not in (aud if isinstance(aud, list) else [aud]):
            raise Refused(401, "unauthenticated", "unauthenticated")
        jkt = claims.get("cnf", {}).get("jkt")
        if self.dpop_required and not jkt:
            raise Refused(401, "unauthenticated", "unbound", WWW_Authenticate='DPoP error="invalid_token"')
        if not jkt:
            if scheme != "Bearer":
                raise Refused(401, "unauthenticated", "scheme")
            return None
        if scheme != "DPoP":
            raise Refused(401, "unauthenticated", "scheme")
        proof = q.headers.get("dpop", "")
        try:
            if self.nonce and jose.parse(proof)[1].get("nonce") != self.nonce:
                raise Refused(401, "unauthenticated", "nonce", WWW_Authenticate='DPoP error="use_dpop_nonce"', DPoP_Nonce=self.nonce)
            if jose.check_proof(proof, "POST", self.origin() + q.path, self.nonce, token, now, self.seen) != jkt:
                raise ValueError("another key")
        except (ValueError, KeyError) as e:
            self.errors.append(f"proof: {e}")
            raise Refused(401, "unauthenticated", str(e), WWW_Authenticate='DPoP error="invalid_dpop_proof"') from None
        return jose.parse(proof)[0]["jwk"]

    def request_body(self, q, jwk):
        srt = q.json()["signedRequestToken"]
        try:
            claims = jose.verify(srt, jwk)[1] if jwk else jose.parse(srt)[1]
            now = self.server.now()
            if claims["exp"] < now - 60 or claims["iat"] > now + 60:
                raise ValueError("times")
        except (ValueError, KeyError) as e:
            self.errors.append(f"request token: {e}")
            raise Refused(401, "unauthenticated", f"request token: {e}") from None
        return json.loads(claims["requestBody"])

    # --- what is asked ---

    def unwrap(self, ka, policy):
        """bytes, or an error text"""
        try:
            wrapped = base64.b64decode(ka["wrappedKey"], validate=True)
            if ka["type"] == "ec-wrapped":
                if ka["kid"] != "e1":
                    return BAD_REQUEST
                key = AESGCM(kek(self.ec, serialization.load_pem_public_key(ka["ephemeralPublicKey"].encode()))).decrypt(wrapped[:12], wrapped[12:], None)
            else:
                if ka["kid"] != "r1":
                    return BAD_REQUEST
                key = self.rsa.decrypt(wrapped, padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None))
        except (ValueError, InvalidTag):
            return BAD_REQUEST
        want = base64.b64encode(hmac.new(key, policy.encode(), hashlib.sha256).hexdigest().encode()).decode()
        return key if hmac.compare_digest(want, ka["policyBinding"]["hash"]) else BAD_REQUEST

    @staticmethod
    def attributes(policy):
        try:
            return [a["attribute"] for a in json.loads(base64.b64decode(policy))["body"].get("dataAttributes") or []]
        except (ValueError, KeyError, TypeError):
            return None

    def check_types(self, requests):
        for r in requests:
            for k in r["keyAccessObjects"]:
                o = k["keyAccessObject"]
                if not isinstance(o.get("policyBinding"), dict) or not all(isinstance(o.get(m), str) for m in ("wrappedKey", "kid", "type")):
                    raise Refused(400, "invalid_argument", "invalid request body")
                try:
                    base64.b64decode(o["wrappedKey"], validate=True)
                except ValueError:
                    raise Refused(400, "invalid_argument", "invalid request body") from None
        ids = [r["policy"]["id"] for r in requests]
        if len(set(ids)) != len(ids):
            raise Closed
        for r in requests:
            if any("/value/garble" in a for a in self.attributes(r["policy"]["body"]) or []):
                raise Refused(400, "invalid_argument", "invalid request body")

    def results(self, requests, client):
        """[(policy id, KAO id, key or error, obligations)]"""
        lists = {r["policy"]["id"]: self.attributes(r["policy"]["body"]) for r in requests}
        all_attributes = [a for v in lists.values() for a in v or []]
        spoilt = (self.pdp_down and all_attributes) or any(len(v or []) > 20 for v in lists.values()) or any(not FQN.match(a) or a.endswith("/spoil") for a in all_attributes)
        for r in requests:
            for k in r["keyAccessObjects"]:
                names, policy, duties = lists[r["policy"]["id"]], r["policy"]["body"], []
                if isinstance(client, ec.EllipticCurvePublicKey) and not self.ec_session:
                    got = INVALID
                elif spoilt:
                    got = PDP_DENIED
                elif names is None:
                    got = BAD_REQUEST
                else:
                    got = self.unwrap(k["keyAccessObject"], policy)
                    if isinstance(got, bytes) and any(a.endswith(("/deny", "/oblige")) for a in names):
                        got = FORBIDDEN
                        duties = ["https://example.com/obl/watermark/value/x"] if any(a.endswith("/oblige") for a in names) else []
                yield r["policy"]["id"], k["keyAccessObjectId"], got, duties

    def rewrap(self, q):
        body = self.request_body(q, self.authenticate(q))
        self.counts["rewraps"] += 1
        v1 = not self.bulk or not body.get("requests")
        if v1:
            if "keyAccess" not in body:
                raise Refused(400, "invalid_argument", "invalid request body")
            body["requests"] = [{"policy": {"id": "policy", "body": body["policy"]}, "keyAccessObjects": [{"keyAccessObjectId": "kao-0", "keyAccessObject": body["keyAccess"]}]}]
        client = serialization.load_pem_public_key(body["clientPublicKey"].encode())
        self.check_types(body["requests"])
        self.counts["keys"] += len(body["requests"])
        self.counts["largest"] = max(self.counts["largest"], len(body["requests"]))
        session = ec.generate_private_key(client.curve) if isinstance(client, ec.EllipticCurvePublicKey) else None
        box = AESGCM(kek(session, client)) if session else None
        answers, first = collections.OrderedDict(), None
        for i, (policy, kao, got, duties) in enumerate(self.results(body["requests"], client)):
            if i in self.forget:
                continue
            if isinstance(got, bytes):
                self.counts["permits"] += 1
                if self.wrong_key:
                    got = hashlib.sha256(got).digest()
                iv = hashlib.sha256(str(i).encode()).digest()[:12]
                sealed = iv + box.encrypt(iv, got, None) if session else client.encrypt(got, padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None))
                result = {"keyAccessObjectId": kao, "status": "permit", "kasWrappedKey": base64.b64encode(sealed).decode(), "metadata": {}}
                first = first or result["kasWrappedKey"]
            else:
                if v1:
                    raise Refused(403 if "forbidden" in got else 400, "permission_denied" if "forbidden" in got else "invalid_argument", got.split("desc = ")[1])
                result = {"keyAccessObjectId": kao, "status": "fail", "error": got, "metadata": {"X-Required-Obligations": duties} if duties else {}}
            answers.setdefault(policy, []).append(result)
            if self.double:
                answers[policy].append({**result, "status": "fail", "error": FORBIDDEN})
        answer = {"responses": [{"policyId": p, "results": r} for p, r in reversed(answers.items())]} if not v1 else {"entityWrappedKey": first}
        if session:
            answer["sessionPublicKey"] = pem(session.public_key())
        return answer

    def mapped(self, which, **instead):
        """A key of ours as a platform's mapping has it."""
        algorithm, key = {"e1": ("ALGORITHM_EC_P256", self.ec), "r1": ("ALGORITHM_RSA_2048", self.rsa)}[which]
        return {"kasUri": self.url, "publicKey": {"algorithm": algorithm, "kid": which, "pem": pem(key.public_key()), **instead}, "kasId": "0"}

    def public_key(self, algorithm):
        self.counts["public"] += 1
        keys = {"": ("r1", self.rsa), "rsa:2048": ("r1", self.rsa), "ec:secp256r1": ("e1", self.ec)}
        if algorithm not in keys:
            raise Refused(404, "not_found", "no such key")
        kid, key = keys[algorithm]
        return {"publicKey": pem(key.public_key()), "kid": kid}

    def route(self, q):
        if q.path == "/.well-known/opentdf-configuration":
            return {"platform_issuer": self.names or self.issuer.url, "base_key": self.base_key}
        if self.connect and q.path == "/kas.AccessService/PublicKey" and q.method == "POST":
            return self.public_key(q.json().get("algorithm", ""))
        if self.connect and q.path == "/kas.AccessService/Rewrap" and q.method == "POST":
            return self.rewrap(q)
        if self.known is not None and q.path == "/policy.attributes.AttributesService/GetAttributeValuesByFqns" and q.method == "POST":
            self.authenticate(q)
            fqns = [f.lower() for f in q.json()["fqns"]]
            if "withValue" not in q.json():  # of platforms before 2025
                raise Refused(400, "invalid_argument", "one or more FQNs and a WithValue selector must be provided")
            if not set(fqns) <= self.known:
                raise Refused(404, "not_found", "resource not found")
            return {"fqnAttributeValues": {f: self.values.get(f, {"attribute": {}, "value": {}}) for f in fqns}}
        if self.mappings is not None and q.path == "/policy.attributes.AttributesService/GetKeyMappingsByFqns" and q.method == "POST":
            self.authenticate(q)
            made = {f.lower(): self.mappings.get(f.lower()) for f in q.json()["fqns"]}
            return {"fqnKeyMappings": {f: {"rule": "ATTRIBUTE_RULE_TYPE_ENUM_" + m[0], **({"keys": m[1]} if m[1] else {})} for f, m in made.items() if m}}
        if self.registry is not None and q.path == "/policy.kasregistry.KeyAccessServerRegistryService/ListKeyAccessServers" and q.method == "POST":
            self.authenticate(q)
            at = q.json()["pagination"]["offset"]
            more = {"nextOffset": at + 2} if at + 2 < len(self.registry) else {}
            return {"keyAccessServers": [{"id": u, "uri": u, "kasKeys": [self.mapped("e1")] if u == self.url else []} for u in self.registry[at:at + 2]], "pagination": {"currentOffset": at, "total": len(self.registry), **more}}
        if self.rest and q.path == self.prefix + "/v2/kas_public_key":
            return self.public_key(q.query.get("algorithm", ""))
        if self.rest and q.path == self.prefix + "/v2/rewrap" and q.method == "POST":
            return self.rewrap(q)
        return None

    def answer(self, q):
        nonce = {"DPoP-Nonce": self.nonce} if self.nonce else {}
        try:
            body = self.route(q)
        except Refused as e:
            return Answer(e.status, {"code": e.code, "message": e.message}, headers={**nonce, **e.headers})
        return Answer(*self.lacks, "text/plain") if body is None else Answer(200, body, headers=nonce)
