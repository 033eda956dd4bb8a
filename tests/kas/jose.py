# SPDX-License-Identifier: Apache-2.0
"""Just enough JOSE for the test servers, over python3-cryptography; it shares no code with tdfs."""
import base64, hashlib, json

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def number(n, size=None):
    return b64(n.to_bytes(size or (n.bit_length() + 7) // 8, "big"))


def jwk_of(key):
    """The public JWK of a private or public key."""
    public = key.public_key() if hasattr(key, "public_key") else key
    n = public.public_numbers()
    if isinstance(public, rsa.RSAPublicKey):
        return {"kty": "RSA", "n": number(n.n), "e": number(n.e)}
    size = (public.key_size + 7) // 8
    return {"kty": "EC", "crv": {256: "P-256", 384: "P-384"}[public.key_size], "x": number(n.x, size), "y": number(n.y, size)}


def key_of(jwk):
    take = lambda name: int.from_bytes(unb64(jwk[name]), "big")
    if jwk["kty"] == "RSA":
        return rsa.RSAPublicNumbers(take("e"), take("n")).public_key()
    return ec.EllipticCurvePublicNumbers(take("x"), take("y"), {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1()}[jwk["crv"]]).public_key()


def thumbprint(jwk):
    names = ("e", "kty", "n") if jwk["kty"] == "RSA" else ("crv", "kty", "x", "y")
    return b64(hashlib.sha256(json.dumps({n: jwk[n] for n in names}, separators=(",", ":"), sort_keys=True).encode()).digest())


def sign(key, header, claims):
    """Compact JWS: ES256 or RS256 by the key's type."""
    is_rsa = isinstance(key, rsa.RSAPrivateKey)
    head = {**header, "alg": header.get("alg") or ("RS256" if is_rsa else "ES256")}
    text = b64(json.dumps(head).encode()) + "." + b64(json.dumps(claims).encode())
    if is_rsa:
        sig = key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
    else:
        r, s = utils.decode_dss_signature(key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
        sig = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    return text + "." + b64(sig)


def parse(token):
    """(header, claims), unverified."""
    head, body, _ = token.split(".")
    return json.loads(unb64(head)), json.loads(unb64(body))


def verify(token, jwk):
    """(header, claims); ValueError if the signature is bad."""
    head, body, sig = token.split(".")
    header, key, raw = json.loads(unb64(head)), key_of(jwk), unb64(sig)
    text = (head + "." + body).encode()
    try:
        if header["alg"] == "RS256":
            key.verify(raw, text, padding.PKCS1v15(), hashes.SHA256())
        elif header["alg"] == "PS256":
            key.verify(raw, text, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
        elif header["alg"] in ("ES256", "ES384"):
            half = len(raw) // 2
            der = utils.encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))
            key.verify(der, text, ec.ECDSA(hashes.SHA256() if header["alg"] == "ES256" else hashes.SHA384()))
        else:
            raise ValueError("algorithm " + header["alg"])
    except InvalidSignature:
        raise ValueError("signature") from None
    return header, json.loads(unb64(body))


def check_proof(proof, method, url, nonce=None, token=None, now=0, seen=None, skew=(300, 2)):
    """A DPoP proof (RFC 9449): the thumbprint of its key, or ValueError."""
    header, _ = parse(proof)
    if header.get("typ") != "dpop+jwt" or "d" in header["jwk"]:
        raise ValueError("typ or jwk")
    _, claims = verify(proof, header["jwk"])
    if claims["htm"] != method or claims["htu"] != url:
        raise ValueError(f"htm {claims['htm']} htu {claims['htu']}, wanted {method} {url}")
    if not now - skew[0] <= claims["iat"] <= now + skew[1]:
        raise ValueError(f"iat is {claims['iat'] - now} s off")
    if nonce is not None and claims.get("nonce") != nonce:
        raise ValueError("nonce")
    if token is not None and claims.get("ath") != b64(hashlib.sha256(token.encode()).digest()):
        raise ValueError("ath")
    if seen is not None:
        if claims["jti"] in seen:
            raise ValueError("jti seen before")
        seen.add(claims["jti"])
    return thumbprint(header["jwk"])
