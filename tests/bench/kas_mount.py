# SPDX-License-Identifier: Apache-2.0
"""What a KAS costs a mount: the same files on two volumes of one disk, the keys of one in itself, those of the other at a `tdfs kas serve` on this machine."""
import contextlib, json, os, re, shutil, statistics, subprocess, time

import setup
from servelib import AUDIENCE, TDFS, WORK, Server

IO = os.path.join(os.environ["TDFS_BUILD"], "tests/mount/bench-io")
ATTRIBUTE = "https://example.org/attr/group"
PASS, DISK = os.path.join(WORK, "pass"), os.path.join(WORK, "disk")
POLICIES = 10


def run(*args, **kw):
    p = subprocess.run([str(a) for a in args], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=900, **kw)
    if p.returncode:
        raise SystemExit(f"bench-kas: {' '.join(map(str, args))} ended with {p.returncode}: {(p.stderr or p.stdout)[-800:]}")
    return p.stdout


@contextlib.contextmanager
def disk():
    """A fresh ext4 on a loop device, as the other benchmarks have it."""
    os.mkdir(DISK)
    image = os.path.join(WORK, "image")
    run("truncate", "-s", "8G", image)
    run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", image)
    loop = run("losetup", "-f", "--show", image).strip()
    try:
        run("mount", loop, DISK)
        yield
    finally:
        subprocess.run(["umount", DISK])
        subprocess.run(["losetup", "-d", loop])
        os.unlink(image)


class Volume:
    all = []

    def __init__(self, name, *init):
        self.name, self.store, self.mnt, self.p = name, f"{DISK}/{name}", f"{WORK}/mnt-{name}", None
        os.mkdir(self.mnt)
        run(TDFS, "init", self.store, "--passfile", PASS, "--scrypt-logn", "15", *init)
        Volume.all.append(self)

    def mount(self):
        self.log = open(f"{WORK}/{self.name}.log", "ab")
        self.p = subprocess.Popen([TDFS, "mount", self.store, self.mnt, "--passfile", PASS, "-f", "-o", "key_ttl=3600s"], stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        end = time.monotonic() + 60
        while not os.path.ismount(self.mnt):
            if self.p.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"bench-kas: {self.store} did not mount: {open(self.log.name).read()[-800:]}")
            time.sleep(0.005)

    def umount(self):
        run(TDFS, "umount", self.mnt)
        if self.p.wait(120):
            raise SystemExit(f"bench-kas: the daemon of {self.store} ended with {self.p.returncode}")
        self.p = None

    def kill(self):
        if self.p and self.p.poll() is None:
            self.p.kill()
            self.p.wait()
            subprocess.run(["umount", "-l", self.mnt])

    def cold(self):
        """Nothing is known of any file, the store's pages are gone."""
        self.umount()
        drop()
        self.mount()

    def status(self):
        return json.loads(run(TDFS, "status", self.mnt, "--json"))["volumes"][0]["daemon"]

    def requests(self):
        return sum(r["requests"] for r in self.status().get("kas", {}).get("remotes", []))

    def rss(self):
        return int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{self.p.pid}/status").read()).group(1)) / 1024


def drop():
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as f:
        f.write("3")


def fill(dir, n, per):
    """The seconds that n files of 4 KiB take"""
    data = os.urandom(4096)
    t = time.monotonic()
    for i in range(n):
        if i % per == 0:
            os.mkdir(f"{dir}/{i // per}")
        fd = os.open(f"{dir}/{i // per}/{i}", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        os.write(fd, data)
        os.close(fd)
    return time.monotonic() - t


def read_all(dir):
    return float(run(IO, "readall", dir))


class Rows:
    def __init__(self):
        self.short = 0

    def row(self, what, text, wanted, good):
        self.short += not good
        print(f"{what:58} {text:34} wanted {wanted}" + ("" if good else "  MISSED"), flush=True)

    def ratio(self, what, own, kas, least):
        """of the two volumes' seconds, round by round"""
        r = statistics.median(a / b for a, b in zip(own, kas))
        self.row(what, f"{r:.2f} x  ({statistics.median(own):.2f} s, {statistics.median(kas):.2f} s)", f"{least} x", r >= least)


def opening(rows, own, kas, n, count, per, cached):
    """Every file read once, by turns; the same files each time."""
    dir, cold, warm, asked = f"in{per}", ([], []), ([], []), 0
    for v in (own, kas):
        v.mount()
        os.mkdir(f"{v.mnt}/{dir}")
        fill(f"{v.mnt}/{dir}", n, per)
    for i in range(count):
        pair = [(0, own), (1, kas)]
        for k, v in pair if i % 2 else pair[::-1]:
            v.cold()
            before = v.requests()
            cold[k].append(read_all(f"{v.mnt}/{dir}"))
            after = v.requests()
            if cached:
                drop()
                warm[k].append(read_all(f"{v.mnt}/{dir}"))
                if v.requests() != after:
                    raise SystemExit("bench-kas: cached keys were asked for")
            asked = after - before if k else asked
    what = f"open + read of {n} small files, {per} in a directory"
    rows.ratio(what + ", cold", *cold, 0.7)
    if cached:
        rows.ratio("the same, keys cached", *warm, 0.95)
    rows.row("requests of the cold ones", f"{asked}, one per {n / asked:.0f} keys", "one per 200", asked * 200 <= n)
    for v in (own, kas):
        v.umount()


def making(rows, own, kas, n, count):
    made = [], []
    for i in range(count):
        pair = [(0, own), (1, kas)]
        for k, v in pair if i % 2 else pair[::-1]:
            v.mount()
            drop()
            asked = v.requests()
            os.mkdir(f"{v.mnt}/made{i}")
            made[k].append(fill(f"{v.mnt}/made{i}", n, 1000))
            if v.requests() != asked:
                raise SystemExit("bench-kas: making files asked the KAS")
            v.umount()
    rows.ratio(f"making {n} files, no request", *made, 0.95)


def find_exec(rows, kas, n):
    for i in range(POLICIES):
        os.mkdir(f"{kas.store}/p{i}")  # not mounted
        run(TDFS, "policy", "set", f"{kas.store}/p{i}", "--attribute", f"{ATTRIBUTE}/value/g{i}", "--passfile", PASS)
    kas.mount()
    for i in range(POLICIES):
        for k in range(n // POLICIES):
            with open(f"{kas.mnt}/p{i}/{k}", "wb") as f:
                f.write(b"%d" % k)
    kas.cold()
    before = kas.requests()
    out = run("find", kas.mnt, "-type", "f", "-exec", "cat", "{}", ";")
    asked = kas.requests() - before
    if len(out) != sum(len(str(k)) for k in range(n // POLICIES)) * POLICIES:
        raise SystemExit("bench-kas: find did not read everything")
    rows.row(f"requests for find -exec cat over {n} files, {POLICIES} policies", f"{asked}, one per {n / asked:.0f} keys", "one per 200", asked * 200 <= n)
    kas.umount()


def memory(rows, own, kas, n):
    """Of the mounts that have just made as many files: the keys of one are in its cache."""
    size = []
    for v in (own, kas):
        v.mount()
        os.mkdir(f"{v.mnt}/many")
        fill(f"{v.mnt}/many", n, 1000)
        run(TDFS, "sync", v.mnt)
        drop()
        size.append(v.rss())
    keys = kas.status()["kas"]["keys"]
    more = size[1] - size[0]
    rows.row(f"memory of a mount with {keys} cached keys", f"{more:+.1f} MiB  ({size[0]:.0f}, {size[1]:.0f} MiB)", "+ 32 MiB", more <= 32 and keys >= n)
    own.umount()
    kas.umount()


def far(rows):
    """One file of a KAS whose every answer takes 50 ms longer, TLS, token and connection warm"""
    w = setup.World()
    login = ("--issuer", w.issuer.url, "--client-id", "app", "--client-secret", w.secret, "--audience", "tdfs", "--kas-ca", w.ca.file)
    v = Volume("far", "--kas", w.kas.url, *login)
    v.mount()
    for i in range(12):
        os.mkdir(f"{v.mnt}/{i}")
        with open(f"{v.mnt}/{i}/f", "wb") as f:
            f.write(b"x" * 100)
    v.cold()
    w.kas.server.faults = [{"do": "late", "after": 0.05}]
    took = []
    for i in range(12):
        os.stat(f"{v.mnt}/{i}/f")
        before, t = len(w.kas.server.seen), time.monotonic()
        with open(f"{v.mnt}/{i}/f", "rb") as f:
            f.read(1)
        took.append(time.monotonic() - t)
        if i and len(w.kas.server.seen) != before + 1:  # the first one fetches the token
            raise SystemExit(f"bench-kas: {len(w.kas.server.seen) - before} requests for a file")
    t = statistics.median(took[1:]) * 1000
    rows.row("the first byte of a cold file over a KAS 50 ms away", f"1 request, {t:.0f} ms", "one round trip", t < 100)
    v.umount()


def measure(quick, only):
    rows = Rows()
    n, count = (2000, 3) if quick else (10000, 5)
    parts = {
        "large": lambda: opening(rows, own, kas, n, count, 1000, True),
        "small": lambda: opening(rows, own, kas, n, count, 10, False),
        "make": lambda: making(rows, own, kas, n, count),
        "find": lambda: find_exec(rows, kas, n),
        "memory": lambda: memory(rows, own, kas, 10 * n),
        "far": lambda: far(rows),
    }
    with open(os.open(PASS, os.O_WRONLY | os.O_CREAT, 0o600), "w") as f:
        f.write("correct horse\n")
    groups = [f"g{i}" for i in range(POLICIES)]
    s = Server({"attributes": {ATTRIBUTE: {"rule": "anyOf", "claim": "groups", "values": groups}}}, {"limits": {"keys": 1e9}})
    s.write("token", s.token(exp=7200, groups=groups), 0o600)
    try:
        with disk():
            try:
                own = Volume("own")
                kas = Volume("kas", "--kas", s.url, "--token-file", s.path("token"), "--audience", AUDIENCE)
                for name, part in parts.items():
                    if not only or name in only:
                        part()
            finally:
                for v in Volume.all:
                    v.kill()
    finally:
        s.stop()
    return rows.short
