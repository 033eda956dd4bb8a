# SPDX-License-Identifier: Apache-2.0
"""An OIDC issuer for tests: discovery, JWKS, client credentials, device flow, refresh tokens, revocation, DPoP.

    python3 issuer.py CONFIG.json      prints {"issuer": URL} and serves until its standard input ends

CONFIG: {"clients": {ID: {"secret"?, "audience"?: [...], "claims"?: {...}, "life"?: seconds, "bind"?: false}}, "tls"?: {"cert", "key"}, "port"?, "host"?: name in URLs}
A client without a secret is public: device flow and refresh tokens.  "bind": false: Bearer tokens even for a proof.
"""
import base64, json, secrets, sys, urllib.parse

from cryptography.hazmat.primitives.asymmetric import ec, rsa

import jose
from web import Answer, Server


class Issuer:
    def __init__(self, config):
        self.config, self.clients = config, config["clients"]
        self.key, self.kid = ec.generate_private_key(ec.SECP256R1()), "i1"
        self.old = []  # [(kid, key)] still in the JWKS
        self.nonce = None  # a string: demanded of every proof
        self.need_proof = False
        self.sessions, self.devices, self.revoked, self.seen = {}, {}, [], set()
        self.tokens = 0
        self.document = {}  # members that replace those of the discovery document
        self.server = Server(self.answer, config.get("tls"), config.get("port", 0), ahead=config.get("ahead", 0))
        self.url = config.get("url") or f"{'https' if config.get('tls') else 'http'}://{config.get('host', 'localhost')}:{self.server.port}/realms/test"

    def rotate(self, algorithm="ES256", keep=True):
        if keep:
            self.old.append((self.kid, self.key))
        self.kid = "i" + secrets.token_hex(4)
        self.key = rsa.generate_private_key(65537, 2048) if algorithm == "RS256" else ec.generate_private_key(ec.SECP256R1())

    def jwks(self):
        return {"keys": [{**jose.jwk_of(k), "kid": kid, "use": "sig"} for kid, k in [(self.kid, self.key)] + self.old]}

    def token(self, client, jkt=None, **more):
        """An access token; `more` replaces claims, None removes one."""
        c, now = self.clients.get(client, {}), self.server.now()
        claims = {"iss": self.url, "sub": client, "azp": client, "aud": c.get("audience", ["tdfs"]), "iat": now, "exp": now + c.get("life", 300), "jti": secrets.token_hex(8)}
        claims.update(c.get("claims", {}))
        if jkt:
            claims["cnf"] = {"jkt": jkt}
        claims.update(more)
        self.tokens += 1
        return jose.sign(self.key, {"typ": "at+jwt", "kid": self.kid}, {k: v for k, v in claims.items() if v is not None})

    # --- endpoints ---

    def answer(self, q):
        base = urllib.parse.urlsplit(self.url).path
        name = q.path[len(base):] if q.path.startswith(base) else ""
        if name == "/.well-known/openid-configuration":
            return Answer(200, {"issuer": self.url, "jwks_uri": self.url + "/jwks", "token_endpoint": self.url + "/token", "authorization_endpoint": self.url + "/auth",
                                "device_authorization_endpoint": self.url + "/device", "revocation_endpoint": self.url + "/revoke", "subject_types_supported": ["public"],
                                "response_types_supported": ["code"], "id_token_signing_alg_values_supported": ["ES256"], "dpop_signing_alg_values_supported": ["ES256", "RS256"],
                                **self.document})
        if name == "/jwks":
            return Answer(200, self.jwks())
        if q.method == "POST" and name in ("/token", "/protocol/openid-connect/token"):  # some clients know Keycloak's path and look at no document
            return self.answer_token(q)
        if q.method == "POST" and name == "/device":
            return self.answer_device(q)
        if q.method == "POST" and name == "/revoke":
            self.revoked.append(q.form().get("token"))
            self.sessions.pop(q.form().get("token"), None)
            return Answer(200, b"")
        return Answer(404, "no such thing", "text/plain")

    @staticmethod
    def error(code, status=400, **headers):
        return Answer(status, {"error": code, "error_description": "of the test issuer"}, headers={k.replace("_", "-"): v for k, v in headers.items()})

    def client_of(self, q, form):
        auth = q.headers.get("authorization", "")
        if auth.startswith("Basic "):
            pair = base64.b64decode(auth[6:]).decode().split(":", 1)
            name, secret = (urllib.parse.unquote_plus(x) for x in pair)
        else:
            name, secret = form.get("client_id"), form.get("client_secret")
        c = self.clients.get(name)
        return name if c is not None and c.get("secret") == secret else None

    def answer_token(self, q):
        form = q.form()
        client, jkt = self.client_of(q, form), None
        if client is None:
            return self.error("invalid_client", 401)
        if "dpop" in q.headers:
            try:
                proof = jose.parse(q.headers["dpop"])[1]
                if self.nonce and proof.get("nonce") != self.nonce:
                    return self.error("use_dpop_nonce", 400, DPoP_Nonce=self.nonce)
                jkt = jose.check_proof(q.headers["dpop"], "POST", self.url + "/token", self.nonce, now=self.server.now(), seen=self.seen)
            except (ValueError, KeyError) as e:
                return self.error("invalid_dpop_proof", error=str(e))
        elif self.need_proof:
            return self.error("invalid_dpop_proof")
        if self.clients[client].get("bind") is False:
            jkt = None
        return self.grant(client, form, jkt)

    def grant(self, client, form, jkt):
        kind, life = form.get("grant_type"), self.clients[client].get("life", 300)
        answer = {"token_type": "DPoP" if jkt else "Bearer", "expires_in": life}
        if kind == "client_credentials":
            if not self.clients[client].get("secret"):
                return self.error("unauthorized_client")
            return Answer(200, {**answer, "access_token": self.token(client, jkt)})
        if kind == "urn:ietf:params:oauth:grant-type:device_code":
            state = self.devices.get(form.get("device_code"))
            if state is None:
                return self.error("expired_token")
            if state in ("authorization_pending", "slow_down", "access_denied"):
                return self.error(state)
            del self.devices[form["device_code"]]
            who = state
        elif kind == "refresh_token":
            session = self.sessions.pop(form.get("refresh_token"), None)
            if session is None or session["jkt"] != jkt:
                return self.error("invalid_grant")
            who = session["who"]
        else:
            return self.error("unsupported_grant_type")
        fresh = secrets.token_urlsafe(24)  # every refresh token is good for one use
        self.sessions[fresh] = {"who": who, "jkt": jkt}
        return Answer(200, {**answer, "access_token": self.token(client, jkt, sub=who, preferred_username=who), "refresh_token": fresh})

    def answer_device(self, q):
        form, code = q.form(), secrets.token_urlsafe(16)
        if form.get("client_id") not in self.clients:
            return self.error("invalid_client", 401)
        self.devices[code] = self.config.get("device_starts", "authorization_pending")
        return Answer(200, {"device_code": code, "user_code": "WDJB-MJHT", "verification_uri": self.url + "/go", "verification_uri_complete": self.url + "/go?user_code=WDJB-MJHT",
                            "expires_in": self.config.get("device_life", 60), "interval": 1})

    def decide(self, state):
        """All waiting devices: a user's name, or an error code."""
        for code in self.devices:
            self.devices[code] = state


if __name__ == "__main__":
    issuer = Issuer(json.load(open(sys.argv[1])))
    print(json.dumps({"issuer": issuer.url}), flush=True)
    sys.stdin.read()
