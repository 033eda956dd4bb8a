# SPDX-License-Identifier: Apache-2.0
"""A `tdfs kas serve` of its own for a test: keys, configuration, audit log, start and stop."""
import atexit, http.client, json, os, re, signal, socket, subprocess, sys, tempfile, time

from kaslib import *

ISSUER, AUDIENCE = "http://localhost:1/issuer", "https://kas.example.org"
TDFS = os.environ["TDFS_BIN"]
WORK = os.environ.get("TDFS_HOST") or tempfile.mkdtemp()
n_checks = 0


def check(what, cond, *shown):
    global n_checks
    n_checks += 1
    if not cond:
        print(f"FAIL: {what}:", *(repr(s)[:600] for s in shown))
        sys.exit(1)


def equal(what, got, want):
    check(what, got == want, got, "wanted", want)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """With two signing keys of the issuer (k1 ES256, k2 RS256) and two KAS keys (e1 EC, r1 RSA) unless told otherwise."""
    count, all = 0, []

    def __init__(self, rules=None, config=None, args=(), keys=None, start=True, port=None, env=None, store=None, url=None):
        Server.count += 1
        Server.all.append(self)
        self.dir = os.path.join(WORK, f"server{Server.count}")
        os.makedirs(self.dir)
        self.k1, self.k2 = Key("ES256", "k1"), Key("RS256", "k2")
        self.port = port or free_port()
        self.url = url or f"http://localhost:{self.port}"
        self.audit_path = self.path("audit.log")
        self.write("jwks.json", {"keys": [k.jwk() for k in (self.k1, self.k2)]})
        ks = keys or [("e1", Key("ES256")), ("r1", Key("RS256"))]
        self.kas = {kid: k.pem() for kid, k in ks}
        self.write("keys.json", [{"kid": kid, "privateKey": k.private_pem()} for kid, k in ks], 0o600)
        self.config = {"issuer": ISSUER, "audience": AUDIENCE, "url": self.url, "jwks_file": self.path("jwks.json"), "unrestricted": "allow", **(rules or {}), **(config or {})}
        self.write("config.json", self.config)
        self.args = [TDFS, "kas", "serve", "--config", self.path("config.json"), "--listen", f"127.0.0.1:{self.port}", "--audit", self.audit_path,
                     *(store or ["--kas-key", self.path("keys.json")]), *(["--user", "root"] if os.geteuid() == 0 else []), *args]
        self.env, self.p = env, None
        if start:
            self.start()

    def path(self, name):
        return os.path.join(self.dir, name)

    def write(self, name, what, mode=0o644):
        with open(os.open(self.path(name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as f:
            f.write(what if isinstance(what, str) else json.dumps(what))

    def start(self):
        self.err = open(self.path("stderr"), "ab")
        said = self.err.tell()  # of an earlier start
        self.p = subprocess.Popen(self.args, stdin=subprocess.DEVNULL, stdout=self.err, stderr=self.err, env={**os.environ, **(self.env or {})})
        for _ in range(1200):
            if b"is being served" in open(self.path("stderr"), "rb").read()[said:]:
                return
            if self.p.poll() is not None:
                check("the server starts", False, self.p.returncode, self.said())
            time.sleep(0.05)
        check("the server starts within a minute", False, self.said())

    def said(self):
        return open(self.path("stderr"), "rb").read().decode("utf-8", "replace")

    def stop(self, sig=signal.SIGTERM):
        self.p.send_signal(sig)
        rc = self.p.wait(30)
        check("no sanitizer report", not re.search(r"Sanitizer|runtime error:", self.said()), self.said()[-3000:])
        equal("the server ends with 0 " + self.said()[-300:], rc, 0)
        self.p = None

    def client(self, **more):
        return Client(self.port, **more)

    def token(self, sub="alice", key=None, **claims):
        return access_token(key or self.k1, claims.pop("iss", ISSUER), claims.pop("aud", AUDIENCE), sub, **claims)

    def audit(self):
        return [json.loads(l) for l in open(self.audit_path, encoding="utf-8")]

    def rss(self):
        return int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{self.p.pid}/status").read()).group(1))


def kill_all():
    for s in Server.all:
        if s.p and s.p.poll() is None:
            s.p.kill()
            s.p.wait()


atexit.register(kill_all)


def done():
    print(f"{n_checks} checks")
