# SPDX-License-Identifier: Apache-2.0
"""A volume whose keys come from the stub KAS, mounted; and what cases do with it."""
import errno, json, os, shutil, signal, subprocess, time

import stub
from setup import *

TDFS = os.environ["TDFS_BIN"]
STORE, MNT, PASS, KEY = DIR + "/store", DIR + "/mnt", DIR + "/pass", DIR + "/key"
UNLOCK = ("--keyfile", KEY)  # a passphrase costs scrypt at every mount
TTL = 3


def run(*args, code=0, **kw):
    p = subprocess.run([TDFS, *map(str, args)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, **kw)
    check(p.returncode == code if code is not None else p.returncode > 0, args, "ended with", p.returncode, p.stdout, p.stderr)
    return p.stdout + p.stderr


class Volume:
    def __init__(self, w, *more, kas=True):
        self.w, self.daemon = w, None
        shutil.rmtree(STORE, ignore_errors=True)
        os.makedirs(MNT, exist_ok=True)
        for path in (PASS, KEY):
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as f:
                f.write("correct horse battery staple\n")
        self.login = ("--issuer", w.issuer.url, "--client-id", "app", "--client-secret", w.secret, "--audience", "tdfs", "--kas-ca", w.ca.file)
        opts = ("--kas", w.kas.url, *self.login) if kas else ()
        self.said = run("init", STORE, *UNLOCK, "--log-size", "16M", *opts, *more)
        run("key", "add", STORE, *UNLOCK, "--new-passfile", PASS, "--scrypt-logn", 15)

    def mount(self, options=f"key_ttl={TTL}s"):
        self.log = open(DIR + "/daemon.log", "a")
        self.daemon = subprocess.Popen([TDFS, "mount", STORE, MNT, *UNLOCK, "-f", "-o", options], stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        end = time.monotonic() + 60
        while not os.path.ismount(MNT):
            check(self.daemon.poll() is None, "the daemon ended:", open(DIR + "/daemon.log").read()[-2000:])
            check(time.monotonic() < end, "not mounted")
            time.sleep(0.02)
        return self

    def umount(self):
        run("umount", MNT)
        equal(self.daemon.wait(60), 0, "the daemon's exit code: " + open(DIR + "/daemon.log").read()[-2000:])
        self.daemon = None

    def remount(self, *options):
        self.umount()
        return self.mount(*options)

    def __enter__(self):
        return self

    def __exit__(self, kind, *rest):
        if not self.daemon:
            return
        if kind:
            print(open(DIR + "/daemon.log").read()[-3000:])
            self.daemon.kill()
            subprocess.run(["umount", "-l", MNT])
        else:
            self.umount()

    def status(self):
        return json.loads(run("status", MNT, "--json"))["volumes"][0]["daemon"]["kas"]


def m(name):
    return MNT + "/" + name


def write(name, data):
    with open(m(name), "wb") as f:
        f.write(data)


def read(name):
    with open(m(name), "rb") as f:
        return f.read()


def fails(codes, fn, *args):
    codes = codes if isinstance(codes, tuple) else (codes,)
    t = time.monotonic()
    try:
        got = fn(*args)
    except OSError as e:
        check(e.errno in codes, "wanted", [errno.errorcode[c] for c in codes], "got", errno.errorcode[e.errno])
        check(time.monotonic() - t < 15, "took", time.monotonic() - t)
        return
    raise AssertionError(f"no error, but {str(got)[:80]}")


def rewraps(w):
    return w.kas.counts["rewraps"]


class Saying:
    """The KAS says this about every key, until the end of the block."""

    def __init__(self, w, text):
        self.w, self.text = w, text

    def __enter__(self):
        self.w.kas.unwrap = lambda ka, policy: self.text

    def __exit__(self, *rest):
        del self.w.kas.unwrap


def until(fn, limit, what):
    t = time.monotonic()
    while not fn():
        check(time.monotonic() - t < limit, what, "not after", limit, "s")
        time.sleep(0.05)
    return time.monotonic() - t


def raises(code, fn, *args):
    try:
        fn(*args)
    except OSError as e:
        return e.errno == code
    return False
