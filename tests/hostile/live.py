# SPDX-License-Identifier: Apache-2.0
"""The steps of the case `live`.  Every file has five segments; segment 1 gets new content that is durable in the log and not in place."""
import shutil
from hostile import *
from t import M, S, TMP, blob, write

KEYS = ("--volume", S, "--keyfile", TMP + "/key")
SIZE = 4 * SEG + 700
A = lambda i: at(i, SIZE)
RECORD = 63  # where the native record stands, its state 2 bytes into it
MOUNTED = ("good", "flip", "zero", "swap", "old-of-new", "twin", "other", "cut")
# after a kill also: what may be right, old as a whole, or an error, but nothing else
ANY = ("state", "mark-undone", "older-file", "no-tail", "no-head", "other-head", "tail-flip", "twice", "cut")
KILLED = MOUNTED[:-1] + ANY  # cut: the tail, which only memory had
NAMES = ["m-" + n for n in MOUNTED] + ["k-" + n for n in KILLED]


def read(path):
    with open(path, "rb") as f:
        return f.read()


def v(name, n):
    """content 0: made first; 1: sealed after that, all segments changed; 2: 1 with a new segment 1"""
    plain = blob(SIZE, f"{name}-{min(n, 1)}")
    return plain[:SEG] + blob(SEG, name + "-new") + plain[2 * SEG:] if n == 2 else plain


def make():
    for n in NAMES + ["other"]:
        write(f"{M}/{n}", v(n, 0))


def twin():
    os.mkdir(TMP + "/old")
    for n in NAMES:
        shutil.copy2(f"{S}/{n}.tdf", TMP + "/old")


def rewrite(name, plain, lo, hi, keep=False):
    fd = os.open(f"{M}/{name}", os.O_RDWR)
    os.pwrite(fd, plain[lo:hi], lo)
    os.fsync(fd)
    if keep:
        return fd
    os.close(fd)


def damage_of(what, name, raw):
    """the store file's bytes with the damage, and the bad segments"""
    old, other = read(f"{TMP}/old/{name}.tdf"), read(f"{S}/other.tdf")
    tail = A(5)
    seg = lambda r, i: r[A(i):A(i + 1)]
    out, bad = {
        "good": lambda: (raw, set()), "flip": lambda: (flip(raw, A(3) + 100), {3}), "zero": lambda: (put(raw, A(3), bytes(SEG + 28)), {3}),
        "swap": lambda: (put(put(raw, A(0), seg(raw, 3)), A(3), seg(raw, 0)), {0, 3}), "old-of-new": lambda: (put(raw, A(1), seg(old, 1)), set()),
        "twin": lambda: (put(raw, A(2), seg(old, 2)), {2}), "other": lambda: (put(raw, A(4), seg(other, 4)), {4}), "cut": lambda: (raw[:A(3)], {3, 4}),
        "state": lambda: (put(raw, RECORD + 2, b"\2"), None), "mark-undone": lambda: (read(f"{TMP}/before/{name}.tdf"), None), "older-file": lambda: (old, None), "no-tail": lambda: (raw[:tail], None),
        "no-head": lambda: (put(raw, 0, bytes(512)), None), "other-head": lambda: (other[:512] + raw[512:], None), "tail-flip": lambda: (flip(raw, tail + 700), None), "twice": lambda: (put(raw, A(3), seg(raw, 0)), {3}),
    }[what]()
    assert (out != raw) == (what != "good"), name
    return out, bad


def store_damage(name, out):
    with open(f"{S}/{name}.tdf", "r+b") as f:  # the same inode
        f.write(out)
        f.truncate(len(out))


def mounted():
    for n in NAMES + ["other"]:
        rewrite(n, v(n, 1), 0, SIZE)
    assert run("sync", M).returncode == 0
    fds, bads = [], []
    for what in MOUNTED:
        n = "m-" + what
        fds.append(rewrite(n, v(n, 2), SEG, 2 * SEG, keep=True))
        raw = read(f"{S}/{n}.tdf")
        assert raw[RECORD + 2] == 3, f"{n} is live"
        out, bad = damage_of(what, n, raw)
        store_damage(n, out)
        bads.append(Bad(n, out, v(n, 2), bad))
    open("/proc/sys/vm/drop_caches", "w").write("1")
    wrong = [f"live, {b.name}: {p}" for b in bads if (p := mount_reads(M, b))]
    for fd in fds:
        os.close(fd)
    assert run("sync", M).returncode == 0
    for b in bads:
        if read(f"{S}/{b.name}.tdf")[RECORD + 2] != 2:
            wrong.append(f"{b.name} was not sealed")
    open("/proc/sys/vm/drop_caches", "w").write("1")
    complain(wrong + [f"sealed, {b.name}: {p}" for b in bads if (p := mount_reads(M, b))])


def check_verify(names, why):
    said, wrong = verify_says(KEYS, S), []
    for n in names:
        what = n[2:]
        want = {"flip": {3}, "zero": {3}, "swap": {0, 3}, "twin": {2}, "other": {4}, "cut": {3, 4}}.get(what, set())
        got = said.get(f"{S}/{n}.tdf", set())
        if what not in ANY and got != want:
            wrong.append(f"{why}: {n}: verify says {got}, it is {want}")
    complain(wrong)


def mounted_verify():
    check_verify(["m-" + n for n in MOUNTED], "mounted")


def change():
    shutil.copytree(S, TMP + "/before", ignore=lambda d, names: [n for n in names if not n.startswith("k-")])
    for what in KILLED:
        rewrite("k-" + what, v("k-" + what, 2), SEG, 2 * SEG, keep=True)  # open until this ends: a closed one is sealed after a second


def damage():
    for what in KILLED:
        n = "k-" + what
        raw = read(f"{S}/{n}.tdf")
        assert raw[RECORD + 2] == 3, f"{n} is live"
        store_damage(n, damage_of(what, n, raw)[0])


def whole_or_nothing(n):
    """the newest state or an older one, whole or its good segments; what was not synced by tdfs as such may be missing, nothing may be mixed"""
    try:
        size = os.stat(f"{M}/{n}").st_size
        fd = os.open(f"{M}/{n}", os.O_RDONLY)
    except OSError as e:
        return None if e.errno == 5 else f"errno {e.errno}"
    seen = set()
    for i in range(5):
        lo, hi = i * SEG, min((i + 1) * SEG, SIZE)
        try:
            got = os.pread(fd, hi - lo, lo)
        except OSError:
            continue
        fits = {k for k in (0, 1, 2) if got == v(n, k)[lo:hi]}
        if not fits and size:
            return f"segment {i}: WRONG BYTES"
        seen = seen & fits if seen else fits
        if size and not seen:
            return f"segment {i} is of another state than those before it"
    os.close(fd)
    return None


def look():
    wrong = []
    for what in KILLED:
        n = "k-" + what
        if what in ANY:
            p = whole_or_nothing(n)
        else:
            bad = {"flip": {3}, "zero": {3}, "swap": {0, 3}, "twin": {2}, "other": {4}}.get(what, set())
            p = mount_reads(M, Bad(n, b"", v(n, 2), bad))
        if p:
            wrong.append(f"after the kill, {n}: {p}")
    if mount_reads(M, Bad("k-mark-undone", b"", v("k-mark-undone", 2), set())):
        wrong.append("without the mark the log does not count")
    complain(wrong)


def killed_verify():
    check_verify(["k-" + n for n in KILLED], "killed")


globals()[os.sys.argv[1]]()
