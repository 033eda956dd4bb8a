# SPDX-License-Identifier: Apache-2.0
"""What the cases of this suite begin with: an issuer, a KAS, certificates of every kind, and kas-tool to ask with."""
import datetime, ipaddress, json, os, subprocess, sys, tempfile, time

sys.dont_write_bytecode = True
try:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.x509.oid import NameOID
except ImportError:
    print("needs python3-cryptography")
    sys.exit(77)

import stub
from issuer import Issuer

if not os.environ.get("TDFS_HOST"):  # run by hand: let the runner prepare everything
    here = os.path.dirname(os.path.abspath(sys.argv[0]))
    os.execvp("bash", ["bash", os.path.join(here, "../run"), "kas/" + os.path.basename(sys.argv[0])])
LONG = os.environ.get("TDFS_BUDGET") == "long"
DIR = os.environ["TDFS_HOST"]
TOOL = os.environ["TDFS_BUILD"] + "/tests/kas/kas-tool"
for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS"):
    os.environ.setdefault(name, "halt_on_error=1:exitcode=99")


def check(condition, *what):
    if not condition:
        raise AssertionError(" ".join(map(str, what)))


def equal(got, want, *what):
    check(got == want, *what, "\n  got   ", got, "\n  wanted", want)


class Authority:
    issued = 0

    def __init__(self, name="Test CA"):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.cert = self.build(self.name, self.key.public_key(), self.key, ca=True)
        Authority.issued += 1
        self.file = self.write(f"ca{Authority.issued}.pem", self.cert.public_bytes(serialization.Encoding.PEM))

    @staticmethod
    def write(name, data):
        path = os.path.join(DIR, name)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as f:
            f.write(data)
        return path

    def build(self, subject, public, signer, ca=False, names=(), days=(-1, 30), digest=None, issuer=None):
        now = datetime.datetime.utcnow()
        b = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer or self.name).public_key(public).serial_number(x509.random_serial_number())
        b = b.not_valid_before(now + datetime.timedelta(days[0])).not_valid_after(now + datetime.timedelta(days[1]))
        b = b.add_extension(x509.BasicConstraints(ca, None), True)
        if names:
            b = b.add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(n)) if n[0].isdigit() else x509.DNSName(n) for n in names]), False)
        return b.sign(signer, digest or hashes.SHA256())

    def issue(self, names=("localhost",), days=(-1, 30), key=None, self_signed=False, weak=False):
        key = key or (rsa.generate_private_key(65537, 1024) if weak else ec.generate_private_key(ec.SECP256R1()))
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stub")])
        cert = self.build(subject, key.public_key(), key if self_signed else self.key, names=names, days=days, issuer=subject if self_signed else None)
        Authority.issued += 1
        n = Authority.issued
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return {"cert": self.write(f"{n}.crt", cert.public_bytes(serialization.Encoding.PEM)), "key": self.write(f"{n}.key", pem), "weak": weak, "private": key}


class World:
    """An issuer and a KAS that belong together."""

    def __init__(self, tls=True, clients=None, **kas):
        self.ca = Authority() if tls else None
        cert = self.ca.issue() if tls else None
        self.issuer = Issuer({"clients": clients or {"app": {"secret": "s3cret &+%"}}, "tls": cert})
        self.kas = stub.Kas(self.issuer, cert, **kas)
        self.dir = tempfile.mkdtemp(dir=DIR)
        self.secret = Authority.write(self.dir + "/secret", b"s3cret &+%\n")
        for name, key in (("ec", self.kas.ec), ("rsa", self.kas.rsa)):
            Authority.write(f"{self.dir}/{name}.pem", stub.pem(key.public_key()).encode())

    def tool(self, **options):
        base = {"url": self.kas.url, "issuer": self.issuer.url, "client": "app", "secret": self.secret, "audience": "tdfs", "kas-key": self.dir}
        if self.ca:
            base["ca"] = self.ca.file
        base.update({k.replace("_", "-"): v for k, v in options.items()})
        return Tool({k: v for k, v in base.items() if v is not None})


class Tool:
    def __init__(self, options):
        self.p = subprocess.Popen([TOOL] + [f"{k}={v}" for k, v in options.items()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.begun = self.answer()

    def answer(self):
        line = self.p.stdout.readline()
        if not line:
            raise AssertionError(f"kas-tool ended with {self.p.wait(5)}")
        return json.loads(line)

    def __call__(self, line):
        self.p.stdin.write(line + "\n")
        self.p.stdin.flush()
        return self.answer()

    def __enter__(self):
        check(self.begun["err"] == "ok", self.begun)
        return self

    def __exit__(self, kind, *rest):
        self.p.stdin.close()
        code = self.p.wait(20)
        if kind is None:
            equal(code, 0, "kas-tool's exit code (a sanitizer's is 99)")


def settle(t):
    """Wait until the breaker lets a call through."""
    s = t("stats")
    time.sleep((s["retry_in_ms"] + 50) / 1000 if s["state"] != "closed" else 0)


def outcome(answer):
    """{"p": {"ok": 3}, ...} of a rewrap"""
    check("untold" not in answer, "an error without a text", answer)
    return {k: v for k, v in answer.items() if k not in ("ms", "text")}


def main(cases):
    only = sys.argv[1:]
    for name, case in cases:
        if only and name not in only:
            continue
        t = time.monotonic()
        stub.Kas.made = 0
        try:
            case()
        except BaseException:
            print(f"FAIL: {name}", flush=True)
            raise
        print(f"{name}: {time.monotonic() - t:.1f} s", flush=True)
