# SPDX-License-Identifier: Apache-2.0
"""What the python parts of the mount cases share.  `from t import *`; every helper raises on the first difference."""
import ctypes, errno, fcntl, hashlib, mmap, os, random, stat, struct, subprocess, sys, time  # noqa: F401 (for the cases)

M, S, TMP = os.environ["MNT"], os.environ["STORE"], os.environ["TMP"]
PLAIN = os.environ.get("TDFS_TEST_PLAIN") == "1"
LONG = os.environ.get("TDFS_BUDGET") == "long"
libc = ctypes.CDLL(None, use_errno=True)
NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4
KEEP_SIZE, PUNCH, COLLAPSE, ZERO, INSERT = 1, 2, 8, 16, 32


def m(name):
    return os.path.join(M, name)


def eq(what, want, got):
    if want != got:
        short = lambda v: repr(v) if len(repr(v)) < 200 else repr(v)[:90] + "..." + hashlib.sha256(repr(v).encode()).hexdigest()[:8]
        raise SystemExit(f"FAIL: {what}: wanted {short(want)}, got {short(got)}")


def ok(what, cond):
    if not cond:
        raise SystemExit(f"FAIL: {what}")


def fails(what, codes, fn, *a, **kw):
    """fn must raise OSError with one of these errno values"""
    codes = codes if isinstance(codes, (tuple, list, set)) else (codes,)
    try:
        fn(*a, **kw)
    except OSError as e:
        if e.errno not in codes:
            raise SystemExit(f"FAIL: {what}: wanted {[errno.errorcode[c] for c in codes]}, got {errno.errorcode.get(e.errno, e.errno)}")
        return e.errno
    raise SystemExit(f"FAIL: {what}: went well, wanted {[errno.errorcode[c] for c in codes]}")


def _call(name, *args):
    if getattr(libc, name)(*args) < 0:
        e = ctypes.get_errno()
        raise OSError(e, os.strerror(e))


def rename2(a, b, flags=0):
    _call("renameat2", -100, os.fsencode(a), -100, os.fsencode(b), flags)


def fallocate(fd, mode, off, length):
    _call("fallocate64", fd, mode, ctypes.c_int64(off), ctypes.c_int64(length))


def read(path):
    with open(path, "rb") as f:
        return f.read()


def write(path, data, flags=os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode=0o644, sync=False):
    fd = os.open(path, flags, mode)
    try:
        view = memoryview(data)
        while len(view):
            view = view[os.write(fd, view):]
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)


def fsync_dir(path):
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(fd)
    os.close(fd)


def blob(n, seed=0):
    """n bytes that look random, the same for the same seed"""
    return random.Random(f"{n}/{seed}").randbytes(n)


def segment_size():
    return 65536 if PLAIN else int(os.environ.get("TDFS_SEGMENT", "32768"))
