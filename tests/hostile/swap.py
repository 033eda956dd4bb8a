# SPDX-License-Identifier: Apache-2.0
"""The steps of the case `swap`.  STORE/d0..d39 are folders; swapper processes exchange them with symlinks to a folder outside that has the same names in it."""
import errno, select, signal, sys, time
from hostile import *
from t import M, S, TMP, LONG, libc, rename2, EXCHANGE, write

KEYS = ("--volume", S, "--keyfile", TMP + "/key")
DIRS = [f"d{i}" for i in range(40)]
OUT = os.path.dirname(S) + "/outside"
INSIDE, OUTSIDE = b"what lies in the store\n", b"what lies outside\n"
ALL = 0xFFF & ~0x18  # every event but the closings


def make():
    for d in DIRS:
        os.mkdir(f"{M}/{d}")
        for n in "abc":
            write(f"{M}/{d}/{n}", INSIDE)
    os.mkdir(M + "/outside")
    for n in "abc":
        write(f"{M}/outside/{n}", OUTSIDE)


def outside():
    """files of the volume, so that they would open; and some that are none"""
    os.rename(S + "/outside", OUT)
    for n in ("plain", "new.tdf", "log.0"):
        write(f"{OUT}/{n}", OUTSIDE)
    os.mkdir(OUT + "/sub")
    for d in DIRS:
        os.symlink("../outside", f"{S}/.{d}")  # seen through the mount it leads nowhere


def state():
    out = []
    for p in (OUT, *(f"{OUT}/{n}" for n in sorted(os.listdir(OUT)))):
        st = os.lstat(p)
        out.append((p, st.st_mode, st.st_uid, st.st_size, st.st_mtime_ns, st.st_ctime_ns, st.st_nlink, open(p, "rb").read() if os.path.isfile(p) else sorted(os.listdir(p)), sorted(os.listxattr(p))))
    return out


class Watch:
    """every opening and change of what lies outside"""

    def __init__(self):
        self.fd = libc.inotify_init1(os.O_NONBLOCK)
        for p in (OUT, *(f"{OUT}/{n}" for n in os.listdir(OUT))):
            assert libc.inotify_add_watch(self.fd, os.fsencode(p), ALL) >= 0

    def seen(self):
        n = 0
        while select.select([self.fd], [], [], 0)[0]:
            data = os.read(self.fd, 65536)
            while data:
                mask, _, length = struct.unpack_from("<III", data, 4)
                n, data = n + 1, data[16 + length:]
        return n


def swapper(report):
    """until it is killed; each folder ends as one"""
    go = [True]
    signal.signal(signal.SIGTERM, lambda *a: go.clear())
    rng, n = random.Random(os.environ["TDFS_SEED"]), 0
    while go:
        for d in rng.sample(DIRS, len(DIRS)):
            for _ in range(2 * rng.randrange(1, 4)):
                rename2(f"{S}/{d}", f"{S}/.{d}", EXCHANGE)
                n += 1
                if rng.random() < 0.1:
                    time.sleep(0.0003)
    os.write(report, str(n).encode())
    os._exit(0)


def work_naive(rng):
    d, n = rng.choice(DIRS), rng.choice("abc")
    try:
        with open(f"{S}/{d}/{n}.tdf", "rb") as f:
            f.read()
    except OSError:
        pass


def work_mount(rng):
    """anything that a program may do; errors are fine, what lies outside is not"""
    d, n = f"{M}/{rng.choice(DIRS)}", rng.choice("abc")
    p, q = f"{d}/{n}", f"{M}/{rng.choice(DIRS)}/{rng.choice('abcx')}"
    def wr(flags):
        fd = os.open(p, flags, 0o644)
        try:
            os.write(fd, INSIDE)
            if rng.random() < 0.2:
                os.fsync(fd)
        finally:
            os.close(fd)
    def rd():
        with open(p, "rb") as f:
            got = f.read()
        assert OUTSIDE not in got, "what lies outside was read through the mount"
    what = rng.choice([rd, rd, rd, lambda: wr(os.O_WRONLY), lambda: wr(os.O_WRONLY | os.O_TRUNC | os.O_CREAT), lambda: os.listdir(d), lambda: os.stat(p), lambda: os.chmod(p, rng.choice((0o600, 0o644))), lambda: os.utime(p), lambda: os.setxattr(p, "user.x", b"1"),
                       lambda: os.truncate(p, 5), lambda: os.rename(p, q), lambda: os.link(p, q), lambda: os.unlink(q), lambda: os.mkdir(d + "/sub2"), lambda: os.rmdir(d + "/sub2"), lambda: os.symlink("t", d + "/link"), lambda: os.unlink(d + "/link"), lambda: os.chmod(d, 0o755), lambda: os.chown(p, 0, 0)])
    try:
        what()
    except OSError as e:
        assert e.errno in (errno.ENOENT, errno.ESTALE, errno.EIO, errno.EEXIST, errno.ENOTDIR, errno.EBUSY, errno.EXDEV, errno.ENODATA, errno.ELOOP, errno.EMFILE), e


def work_tools(rng):
    rng.choice([lambda: run("verify", "-q", *KEYS, S), lambda: run("check", S, "--keyfile", TMP + "/key")])()


def work_recover(rng):
    r = run("recover", S, "--keyfile", TMP + "/key")
    assert r.returncode in (0, 3, 6), r.stderr


def run_(kind):
    before, watch, rng = state(), Watch(), random.Random(os.environ["TDFS_SEED"] + kind)
    watch.seen()
    r, w = os.pipe()
    pid = os.fork()
    if not pid:
        swapper(w)
    n, t0, work = 0, time.time(), globals()["work_" + kind]
    secs = 30 if LONG else {"naive": 0.3, "mount": 2, "tools": 0.8, "recover": 0.4}[kind]
    try:
        while time.time() - t0 < secs:
            work(rng)
            n += 1
            if kind == "mount" and n % 200 == 0:
                open("/proc/sys/vm/drop_caches", "w").write("2")  # the kernel forgets names, and so does the daemon
    finally:
        os.kill(pid, signal.SIGTERM)
        flips = int(os.read(r, 20))
        os.waitpid(pid, 0)
    seen = watch.seen()
    print(f"{kind}: {flips} flips, {n} times at work, {seen} times outside")
    assert flips >= (100000 if LONG else 1000 if kind != "naive" else 100)
    if kind == "naive":
        assert seen > 20, "the swapper does not catch a naive program"
        return
    assert not seen, f"{kind}: what lies outside was opened or changed {seen} times"
    assert state() == before, f"{kind}: what lies outside is changed"


def kill():
    for d in DIRS:
        for n in "abc":
            with open(f"{M}/{d}/{n}", "ab") as f:
                f.write(INSIDE)
                f.flush()
                if n == "a":
                    os.fsync(f.fileno())


def end():
    for d in DIRS:
        assert os.path.isdir(f"{S}/{d}") and not os.path.islink(f"{S}/{d}")
        for n in os.listdir(f"{M}/{d}"):
            if not os.path.isfile(f"{M}/{d}/{n}"):
                continue
            try:
                with open(f"{M}/{d}/{n}", "rb") as f:
                    assert OUTSIDE not in f.read()
            except OSError as e:  # hidden from recovery by the swapper: "needs its log"
                assert e.errno == errno.EIO, e


if sys.argv[1] == "run":
    run_(sys.argv[2])
else:
    globals()[sys.argv[1]]()
