# SPDX-License-Identifier: Apache-2.0
"""Published OpenTDF SDKs, each behind the same three verbs.  Making one installs it from its registry into TDFS_INTEROP, or raises Missing with the reason.

enc(t, IN, OUT, how, attribute, id), dec(t, IN, OUT, id), both with the finished process; t: a Target.  `writes`: ways of writing; `kinds`: what it opens: EC, RSA (4.3), hex (4.2.x, RSA)."""
import json, os, shutil, socket, subprocess, sys, time

here = os.path.dirname(os.path.abspath(__file__))
TOOLS = os.environ.get("TDFS_INTEROP", os.path.join(here, "../../build-interop"))


class Missing(Exception):
    pass


class Target:
    """A KAS: its address, that of a proxy that speaks HTTP/2 with prior knowledge (or None), files with the secrets of OIDC clients by their id, a CA file or None"""

    def __init__(self, url, secrets, h2=None, ca=None):
        self.url, self.secrets, self.h2, self.ca = url, secrets, h2, ca
        self.env = {**os.environ, **({"SSL_CERT_FILE": ca} if ca else {})}


def run(*args, timeout=600, **more):
    return subprocess.run([str(a) for a in args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout, **more)


def install(dir, source, *commands, needs=(), **more):
    """Once: @commands in @dir, with a copy of @source"""
    if os.path.exists(os.path.join(dir, "done")):
        return
    for name in needs:
        if not shutil.which(name):
            raise Missing(f"there is no {name}")
    shutil.rmtree(dir, ignore_errors=True)
    if source:
        shutil.copytree(os.path.join(here, source), dir)
    else:
        os.makedirs(dir)
    for c in commands:
        p = run(*c, cwd=dir, timeout=1200, **more)
        if p.returncode:
            raise Missing(f"{' '.join(c[:3])}: {p.stdout.decode(errors='replace')[-300:]}")
    open(os.path.join(dir, "done"), "w").close()


class Go:
    most, attributes, tampering, bound = 1 << 40, True, True, True
    kinds = {"EC", "RSA", "hex"}

    def __init__(self, version="0.35.0"):
        self.new = version == "0.35.0"
        self.name, dir = f"Go sdk v{version}", os.path.join(TOOLS, "go" if self.new else f"go-{version}")
        self.bin = os.path.join(dir, "interop")
        # both versions build from one program
        more = [] if self.new else [["cp", os.path.join(here, "go/main.go"), "."]]
        install(dir, os.path.basename(dir), *more, ["go", "mod", "tidy"], ["go", "build", "-o", "interop", "."], needs=["go"], env={**os.environ, "GOFLAGS": "-mod=mod"})
        self.writes = {"EC": ["-wrap", "ec:secp256r1"], "RSA": ["-wrap", "rsa:2048"], "default key": [], "16 KiB segments": ["-segment", "16384"], "4.2.2 form": ["-mode", "v4.2.2", "-wrap", "rsa:2048"]}

    def do(self, verb, t, *args, id="alice"):
        return run(self.bin, verb, "-platform", t.url, "-id", id, "-secret", t.secrets[id], "-kas", t.url, *args, env=t.env)

    def dec(self, t, a, b, id="alice", more=()):
        return self.do("dec", t, *more, a, b, id=id)

    def enc(self, t, a, b, how, attribute=None, id="alice"):
        return self.do("enc", t, *self.writes[how], *(["-attr", attribute] if attribute else []), a, b, id=id)


class Python:
    name, most = "otdf-python 0.11.0", 5 << 20  # it is quadratic
    attributes, tampering, bound = True, False, False  # it looks at no hash, and cannot do DPoP
    kinds = {"EC", "RSA", "hex"}
    writes = {"RSA": []}

    def __init__(self):
        dir = os.path.join(TOOLS, "python")
        self.py = os.path.join(dir, "bin/python")
        install(dir, None, [sys.executable, "-m", "venv", "."], [self.py, "-m", "pip", "install", "-q", "otdf-python==0.11.0"])

    def do(self, verb, t, attribute, a, b, id):
        if t.ca:
            raise Missing("it knows no private CA")
        return run(self.py, os.path.join(here, "partner.py"), verb, t.url, id, t.secrets[id], attribute or "-", a, b)

    def dec(self, t, a, b, id="alice", more=()):
        return self.do("dec", t, None, a, b, id)

    def enc(self, t, a, b, how, attribute=None, id="alice"):
        return self.do("enc", t, attribute, a, b, id)


class Java:
    name, most = "Java sdk 0.7.3", 5 << 20
    attributes, tampering, bound = False, False, True
    kinds = {"hex"}
    writes = {"RSA": 0, "16 KiB segments": 16384}

    def __init__(self):
        dir = os.path.join(TOOLS, "java")
        self.java = ["java", "-cp", f"{dir}/lib/*:{dir}", "Partner"]
        install(dir, "java", ["mvn", "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=lib"], ["javac", "-nowarn", "-cp", "lib/*", "-d", ".", "Partner.java"], needs=["java", "javac", "mvn"])

    def do(self, verb, t, attribute, segment, a, b, id):
        if not t.h2:
            raise Missing("it speaks HTTP/2 alone: apt-get install nghttp2-proxy")
        return run(*self.java, verb, t.h2, id, t.secrets[id], os.path.dirname(t.ca) if t.ca else "-", attribute or "-", segment, a, b)

    def dec(self, t, a, b, id="alice", more=()):
        return self.do("dec", t, None, 0, a, b, id)

    def enc(self, t, a, b, how, attribute=None, id="alice"):
        return self.do("enc", t, attribute, self.writes[how], a, b, id)


class Web:
    """The client of web pages, under node, which is made to ask for what a browser would ask: web/partner.mjs.  An old one: it knows the 4.2.x form alone, and takes a string for a policy binding."""
    name, most = "@opentdf/client 1.3.0", 5 << 20
    attributes, tampering, bound = True, False, False  # it signs its request with another key than its proof
    kinds = {"hex"}
    writes = {"RSA": 0, "16 KiB segments": 16384}

    def __init__(self):
        self.dir = os.path.join(TOOLS, "web")
        install(self.dir, "web", ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"], needs=["node", "npm"])

    def do(self, verb, t, attribute, segment, a, b, id):
        return run("node", os.path.join(self.dir, "partner.mjs"), verb, t.url, id, t.secrets[id], attribute or "-", segment, a, b, env={**t.env, **({"NODE_EXTRA_CA_CERTS": t.ca} if t.ca else {})})

    def dec(self, t, a, b, id="alice", more=()):
        return self.do("dec", t, None, 0, a, b, id)

    def enc(self, t, a, b, how, attribute=None, id="alice"):
        return self.do("enc", t, attribute, self.writes[how], a, b, id)


class Model:
    """A model of the platform, model/main.go: three KASes, attributes with keys mapped to them.  `state(...)` says what it knows from now on."""

    def __init__(self, issuer):
        dir = os.path.join(TOOLS, "model")
        install(dir, "model", ["go", "mod", "tidy"], ["go", "build", "-o", "model", "."], needs=["go"], env={**os.environ, "GOFLAGS": "-mod=mod"})
        self.p = subprocess.Popen([os.path.join(dir, "model"), issuer], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        said = json.loads(self.p.stdout.readline())
        self.urls = said["urls"]
        self.keys = [{"ec": k[0], "rsa": k[1]} for k in said["keys"]]

    def state(self, **what):
        self.p.stdin.write(json.dumps(what) + "\n")
        self.p.stdin.flush()
        if self.p.stdout.readline() != "ok\n":
            raise OSError(f"the model ended with {self.p.wait(10)}")

    def stop(self):
        self.p.stdin.close()
        self.p.wait(10)


def proxy(back, front, dir):
    """nghttpx before a KAS in clear text: (process, address); (None, None) if there is none.  @back, @front: ports here"""
    if not shutil.which("nghttpx"):
        return None, None
    p = subprocess.Popen(["nghttpx", f"-f127.0.0.1,{front};no-tls", f"-b127.0.0.1,{back}", f"--errorlog-file={dir}/nghttpx.log", "--accesslog-file=/dev/null", "-n1", "--conf=/dev/null"],
                         stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", front), 1).close()
            return p, f"http://localhost:{front}"
        except OSError:
            time.sleep(0.05)
    p.kill()
    p.wait()
    with open(f"{dir}/nghttpx.log") as f:
        raise OSError("nghttpx does not start: " + f.read()[-300:])


def all_partners(tell, names=None):
    """Those that can be had"""
    got = []
    for name, make in (("go", Go), ("go-0.4.7", lambda: Go("0.4.7")), ("python", Python), ("java", Java), ("web", Web)):
        if names and name not in names:
            continue
        try:
            got.append(make())
        except (Missing, OSError, subprocess.SubprocessError) as e:
            tell(f"{name:22} left out: {e}")
    return got
