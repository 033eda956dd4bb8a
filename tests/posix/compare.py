# SPDX-License-Identifier: Apache-2.0
"""compare.py DIR REFERENCE [--seed N] [--ops N] [--shrink] [--not OP,...]

The same generated system calls over two directories, the second on ext4: result or errno, stat before and after, which times moved, extended
attributes, ACLs, names and content must be the same.  As root the calls are made by several users.  The same seed makes the same calls;
--shrink looks for the shortest list of them that still differs.  Ends 1 at a difference.

What is not compared (tests/posix/exceptions says why): atime, st_blocks, size of directories, inode and device numbers, SEEK_DATA and
SEEK_HOLE, RENAME_EXCHANGE of a regular file with something else, names of 252 to 255 bytes, chown(-1, -1),
truncate(2) to the size that the file has.
"""
import argparse, ctypes, errno, os, random, shutil, socket, stat, struct, sys, time

libc = ctypes.CDLL(None, use_errno=True)
ROOT = os.geteuid() == 0
USERS = [(0, 0, [])] * 3 + [(1001, 1001, []), (1001, 1001, [2000]), (1002, 1002, [2000]), (1003, 1001, [])] if ROOT else [(os.geteuid(), os.getegid(), os.getgroups())]
NAMES = ["a", "b", "c.tdf", "d.tdf_", "e" * 251, "-f", "g h\n", "\u00e4\udcff", "sub", "sub/a", "sub/b", "sub/c.tdf", "sub/dir", "sub/dir/a", "sub/dir/b", "dir2", "dir2/a", "dir2/b", "dir2/sub"]
ODD = ["", ".", "..", "a/", "a/b", "sub/", "sub/.", "sub/..", "sub/../a", "dir2//a", "none/a", "x" * 256, "sub/" + "y" * 300, "y/" * 2100, "a.tdf", "b.tdf", "sub/a.tdf", "sub.tdf"]
MODES = [0o644, 0o600, 0o666, 0o755, 0o777, 0o444, 0o000, 0o4755, 0o2755, 0o6711, 0o2644, 0o1777, 0o2770, 0o700, 0o070, 0o007]
SIZES = [0, 0, 1, 100, 4096, 16384, 32767, 32768, 32769, 65536, 131072, 200001, 1100000]
STRICT = "--strict" in sys.argv  # the mount has cache=strict: ctime is not the kernel's
MOVES = 0.03  # of the calls are looked at for the times that they move; ext4's clock has ticks of up to 10 ms


def c_call(name, *args):
    if getattr(libc, name)(*args) < 0:
        raise OSError(ctypes.get_errno(), name)
    return 0


def acl(entries):
    """entries: (tag, perm, id); 1 owner, 2 user, 4 group of the file, 8 group, 16 mask, 32 other"""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", t, p, i & 0xFFFFFFFF) for t, p, i in entries)


ACLS = [acl([(1, 7, -1), (2, 6, 1001), (4, 5, -1), (16, 6, -1), (32, 0, -1)]), acl([(1, 6, -1), (4, 4, -1), (8, 7, 2000), (16, 7, -1), (32, 4, -1)]), acl([(1, 7, -1), (4, 7, -1), (32, 5, -1)]),
        acl([(1, 7, -1), (2, 7, 1002), (2, 0, 1003), (4, 0, -1), (8, 5, 2000), (16, 5, -1), (32, 0, -1)]), acl([(1, 7, -1), (2, 7, 1002), (4, 0, -1), (32, 0, -1)]), b"", b"junk"]
XATTRS = ["user.a", "user.b", "user.tdfs_", "trusted.t", "security.s", "nonsense", "user.", "system.posix_acl_access", "system.posix_acl_default", "security.capability"]
CAP = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)


class Side:
    def __init__(self, base):
        self.base, self.fds = base, {}

    def path(self, name):
        return os.path.join(os.fsencode(self.base), name.encode("utf-8", "surrogateescape")) if name else b""

    def fd(self, slot):
        if slot not in self.fds:
            raise OSError(errno.EBADF, "slot")
        return self.fds[slot]

    def close(self):
        for fd in self.fds.values():
            os.close(fd)
        self.fds = {}


# --- the calls: op_NAME(side, arguments) returns what is compared; gen_NAME(random) makes the arguments.  Slots stand for descriptors. ---

def name(r):
    return r.choice(ODD) if r.random() < 0.06 else r.choice(NAMES)


def slot(r):
    return r.randrange(5)


GEN, WEIGHT = {}, {}


def call(weight, gen):
    def wrap(fn):
        GEN[fn.__name__[3:]], WEIGHT[fn.__name__[3:]] = gen, weight
        return fn
    return wrap


def flags_of(r):
    f = r.choice([os.O_RDONLY, os.O_RDWR, os.O_RDWR, os.O_WRONLY]) | r.choice([0, os.O_CREAT, os.O_CREAT, os.O_CREAT, os.O_CREAT | os.O_EXCL])
    for bit, p in ((os.O_TRUNC, 0.15), (os.O_APPEND, 0.15), (os.O_NOFOLLOW, 0.05), (os.O_DIRECTORY, 0.05), (os.O_SYNC, 0.03), (os.O_DSYNC, 0.03), (os.O_PATH, 0.03), (os.O_NOATIME, 0.03)):
        f |= bit if r.random() < p else 0
    return f | os.O_NONBLOCK


@call(14, lambda r: (slot(r), name(r), flags_of(r), r.choice(MODES)))
def op_open(s, k, n, flags, mode):
    fd = os.open(s.path(n), flags, mode)
    if k in s.fds:
        os.close(s.fds[k])
    s.fds[k] = fd
    return stat.S_IFMT(os.fstat(fd).st_mode)


@call(4, lambda r: (slot(r),))
def op_close(s, k):
    os.close(s.fd(k))
    del s.fds[k]


@call(8, lambda r: (slot(r), r.choice(SIZES) + r.choice([0, 0, 1, 4095]), r.choice([0, 1, 100, 4096, 40000, 140000]), r.randrange(256)))
def op_pwrite(s, k, off, n, byte):
    return os.pwrite(s.fd(k), bytes([byte]) * n, off)


@call(4, lambda r: (slot(r), r.choice([1, 100, 5000, 70000]), r.randrange(256)))
def op_write(s, k, n, byte):
    return os.write(s.fd(k), bytes([byte]) * n), os.lseek(s.fd(k), 0, os.SEEK_CUR)


@call(5, lambda r: (slot(r), r.choice(SIZES), r.choice([1, 4096, 100000, 300000])))
def op_pread(s, k, off, n):
    return os.pread(s.fd(k), n, off)


@call(2, lambda r: (slot(r), r.choice([1, 5000])))
def op_read(s, k, n):
    return os.read(s.fd(k), n)


@call(2, lambda r: (slot(r), r.choice([-1, 0, 7, 100000]), r.choice([os.SEEK_SET, os.SEEK_CUR, os.SEEK_END])))
def op_lseek(s, k, off, how):
    return os.lseek(s.fd(k), off, how) if stat.S_ISREG(os.fstat(s.fd(k)).st_mode) else None


@call(4, lambda r: (name(r), r.choice(SIZES + [-1])))
def op_truncate(s, n, size):
    return "left out" if os.stat(s.path(n)).st_size == size else os.truncate(s.path(n), size)


@call(4, lambda r: (slot(r), r.choice(SIZES + [-1])))
def op_ftruncate(s, k, size):
    return os.ftruncate(s.fd(k), size)


@call(4, lambda r: (slot(r), r.choice([0, 1, 3, 16, 17, 2]), r.choice(SIZES), r.choice([0, 1, 4096, 65536, 100001])))
def op_fallocate(s, k, mode, off, n):
    if mode == 3 and off >= os.fstat(s.fd(k)).st_size:
        return "left out"  # moves times on ext4 although there is nothing to punch
    return c_call("fallocate64", s.fd(k), mode, ctypes.c_int64(off), ctypes.c_int64(n))


@call(10, lambda r: (name(r), name(r), r.choice([0, 0, 0, 0, 1, 2, 3])))
def op_rename(s, a, b, flags):
    if flags == 2 and os.path.lexists(s.path(a)) and os.path.lexists(s.path(b)) and stat.S_ISREG(os.lstat(s.path(a)).st_mode) != stat.S_ISREG(os.lstat(s.path(b)).st_mode):
        return "left out"
    return c_call("renameat2", -100, s.path(a), -100, s.path(b), flags)


@call(5, lambda r: (name(r), name(r), r.random() < 0.3))
def op_link(s, a, b, follow):
    return c_call("linkat", -100, s.path(a), -100, s.path(b), 0x400 if follow else 0)


@call(2, lambda r: (slot(r), name(r)))
def op_flink(s, k, b):
    return c_call("linkat", -100, b"/proc/self/fd/%d" % s.fd(k), -100, s.path(b), 0x400)


@call(4, lambda r: (r.choice(["a", "sub", "../a", "none", "dir2/a", "z" * 4095, "z" * 4096, ""]), name(r)))
def op_symlink(s, target, b):
    return os.symlink(target, s.path(b))


@call(1, lambda r: (name(r),))
def op_readlink(s, n):
    return os.readlink(s.path(n))


@call(6, lambda r: (name(r),))
def op_unlink(s, n):
    return os.unlink(s.path(n))


@call(7, lambda r: (name(r), r.choice(MODES)))
def op_mkdir(s, n, mode):
    return os.mkdir(s.path(n), mode)


@call(3, lambda r: (name(r),))
def op_rmdir(s, n):
    return os.rmdir(s.path(n))


@call(4, lambda r: (name(r), r.choice([stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFREG, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFDIR, 0]) | r.choice(MODES), os.makedev(1, r.choice([3, 5, 300]))))
def op_mknod(s, n, mode, dev):
    return os.mknod(s.path(n), mode, dev)


@call(8, lambda r: (name(r), r.choice(MODES)))
def op_chmod(s, n, mode):
    return os.chmod(s.path(n), mode)


@call(3, lambda r: (slot(r), r.choice(MODES)))
def op_fchmod(s, k, mode):
    return os.fchmod(s.fd(k), mode)


OWNERS = [(0, -1), (1001, -1), (1002, -1), (-1, 0), (-1, 1001), (-1, 2000), (1001, 1001), (1002, 2000), (0, 0)]


@call(6, lambda r: (name(r), *r.choice(OWNERS), r.random() < 0.5))
def op_chown(s, n, uid, gid, follow):
    return os.chown(s.path(n), uid, gid, follow_symlinks=follow)


@call(2, lambda r: (slot(r), *r.choice(OWNERS)))
def op_fchown(s, k, uid, gid):
    return os.fchown(s.fd(k), uid, gid)


@call(5, lambda r: (name(r), r.choice([0, 1, 5 * 10**9 + 7, 2**31 * 10**9 + 5, -10**9, 10**18 + 123456789]), r.random() < 0.5))
def op_utime(s, n, ns, follow):
    os.utime(s.path(n), ns=(ns + 1, ns), follow_symlinks=follow)
    st = os.stat(s.path(n), follow_symlinks=follow)
    return st.st_atime_ns, st.st_mtime_ns


@call(2, lambda r: (slot(r), r.choice([1, 7 * 10**17 + 3])))
def op_futime(s, k, ns):
    os.utime(s.fd(k), ns=(ns + 1, ns))
    return os.fstat(s.fd(k)).st_mtime_ns


@call(2, lambda r: (name(r),))
def op_utime_now(s, n):
    return os.utime(s.path(n))


@call(4, lambda r: (name(r), r.choice([os.F_OK, os.R_OK, os.W_OK, os.X_OK, os.R_OK | os.W_OK])))
def op_access(s, n, mode):
    return os.access(s.path(n), mode, effective_ids=True)


@call(3, lambda r: (name(r),))
def op_list(s, n):
    return sorted((e.name, stat.S_IFMT(e.stat(follow_symlinks=False).st_mode)) for e in os.scandir(s.path(n)))


def xattr_args(r):
    key = r.choice(XATTRS)
    val = r.choice(ACLS) if "acl" in key else CAP if "cap" in key else r.choice([b"", b"v", b"\0\xff" * 40, b"l" * 3000, b"h" * 70000])
    return key, val


@call(8, lambda r: (name(r), *xattr_args(r), r.choice([0, 0, 0, 1, 2]), r.random() < 0.8))
def op_setxattr(s, n, key, val, flags, follow):
    return os.setxattr(s.path(n), key, val, flags, follow_symlinks=follow)


@call(4, lambda r: (name(r), r.choice(XATTRS), r.random() < 0.8))
def op_getxattr(s, n, key, follow):
    return os.getxattr(s.path(n), key, follow_symlinks=follow)


@call(3, lambda r: (name(r), r.choice(XATTRS)))
def op_removexattr(s, n, key):
    return os.removexattr(s.path(n), key)


@call(2, lambda r: (slot(r), slot(r), r.choice(SIZES), r.choice(SIZES), r.choice([1, 5000, 100000])))
def op_copy_file_range(s, a, b, off, to, n):
    return os.copy_file_range(s.fd(a), s.fd(b), n, off, to)


@call(1, lambda r: (slot(r),))
def op_fsync(s, k):
    return os.fsync(s.fd(k))


@call(1, lambda r: (slot(r),))
def op_fdatasync(s, k):
    return os.fdatasync(s.fd(k))


@call(1, lambda r: (name(r),))
def op_bind(s, n):
    with socket.socket(socket.AF_UNIX) as sock:
        fd = os.open(os.path.dirname(s.path(n)) or b".", os.O_PATH)  # the address has room for 107 bytes
        try:
            sock.bind(b"/proc/self/fd/%d/%s" % (fd, os.path.basename(s.path(n))[:60]))
        finally:
            os.close(fd)


# --- running ---

def seen(path, follow=False):
    """What must be the same of an object"""
    try:
        st = os.stat(path, follow_symlinks=follow)
    except OSError as e:
        return errno.errorcode[e.errno]
    size = 0 if stat.S_ISDIR(st.st_mode) else st.st_size
    return stat.filemode(st.st_mode), oct(st.st_mode & 0o7777), st.st_nlink, st.st_uid, st.st_gid, size, st.st_rdev


def times(path):
    try:
        st = os.lstat(path)
        return st.st_mtime_ns, st.st_ctime_ns, st.st_ino
    except OSError:
        return None


def moved(before, after):
    return None if not before or not after else [b != a for b, a in zip(before[:2], after[:2])] if before[2] == after[2] else "another"


def become(user):
    if not ROOT:
        return
    os.setegid(user[1])
    os.setgroups(user[2])
    os.seteuid(user[0])


def root_again():
    if ROOT:
        os.seteuid(0)
        os.setgroups([])
        os.setegid(0)


def run_one(side, step):
    op, args, user, umask, look = step
    paths = [side.path(a) for a in args if isinstance(a, str) and a in NAMES]
    paths += [os.path.dirname(p) for p in paths] + [os.readlink(f"/proc/self/fd/{side.fds[a]}") for a in args[:1] if isinstance(a, int) and a in side.fds]
    before = [times(p) for p in paths] if look else []
    if look:
        time.sleep(0.012)
    os.umask(umask)
    become(user)
    try:
        res = globals()["op_" + op](side, *args)
    except OSError as e:
        res = errno.errorcode.get(e.errno, e.errno)
    except ValueError as e:
        res = str(e)
    finally:
        root_again()
    out = [res, [seen(p) for p in paths]]
    if look:
        out.append([moved(b, times(p)) for b, p in zip(before, paths)])
    return out


def make_steps(seed, n, leave):
    r = random.Random(seed)
    ops = [o for o in GEN if o not in leave]
    weights = [WEIGHT[o] for o in ops]
    steps, user, umask = [], USERS[0], 0o022
    for _ in range(n):
        if r.random() < 0.2:
            user, umask = r.choice(USERS), r.choice([0o022, 0o077, 0, 0o027])
        op = r.choices(ops, weights)[0]
        steps.append((op, GEN[op](r), user, umask, r.random() < MOVES))
    return steps


def tree(base):
    """Everything below, by visible name"""
    out = {}
    for d, dirs, files in os.walk(os.fsencode(base)):
        for n in [b"."] + dirs + files:
            p = os.path.join(d, n)
            row = [seen(p)]
            st = os.lstat(p)
            if stat.S_ISREG(st.st_mode):
                with open(p, "rb") as f:
                    row.append(f.read())
            elif stat.S_ISLNK(st.st_mode):
                row.append(os.readlink(p))
            row.append([(k, os.getxattr(p, k, follow_symlinks=False)) for k in sorted(os.listxattr(p, follow_symlinks=False))])
            out[os.path.relpath(p, os.fsencode(base))] = row
    return out


def brief(v):
    t = repr(v)
    return t if len(t) < 700 else t[:600] + f"... ({len(t)} characters)"


def text(step):
    op, args, user, umask, look = step
    return f"{op}({', '.join(brief(a)[:120] for a in args)}) as {user[0]}:{user[1]}{user[2]} umask {umask:03o}{' times' if look else ''}"


def differ(bases, steps, quiet):
    """The index of the first step that differs, or len(steps) if the trees do at the end, or None; both directories are empty again"""
    sides = [Side(os.path.join(b, "compare/in")) for b in bases]
    for s in sides:
        os.makedirs(s.base)  # ".." is a fresh directory too
        os.chmod(s.base, 0o777)
    bad = None
    for i, step in enumerate(steps):
        a, b = (run_one(s, step) for s in sides)
        for m, n in zip(a[2], b[2]) if step[4] else ():
            if isinstance(m, list) and isinstance(n, list) and (STRICT or m[1]):  # changes right after a seal (DESIGN, Limits)
                m[1] = n[1] = None
        if a != b:
            bad = i
            break
        if i % 500 == 499 or i == len(steps) - 1:
            ta, tb = (tree(s.base) for s in sides)
            if ta != tb:
                bad, step = i, ("tree", (), (0, 0, []), 0, False)
                a, b = ({k: v for k, v in x.items() if v != y.get(k)} for x, y in ((ta, tb), (tb, ta)))
                break
    if bad is not None and not quiet:
        print("\n".join(f"  {i}: {text(steps[i])}" for i in range(max(0, bad - 25), bad + 1)))
        print(f"FAIL: {text(step)}:\n  {bases[0]}: {brief(a)}\n  {bases[1]}: {brief(b)}")
    for s in sides:
        s.close()
        shutil.rmtree(os.path.dirname(s.base))
    return bad


def shrink(bases, steps):
    n = max(len(steps) // 2, 1)
    while n:
        at = 0
        while at < len(steps):
            fewer = steps[:at] + steps[at + n:]
            bad = differ(bases, fewer, True) if fewer else None
            if bad is not None:
                steps = fewer[:bad + 1]
            else:
                at += n
        n //= 2
    return steps


def main():
    p = argparse.ArgumentParser(usage=__doc__)
    p.add_argument("dirs", nargs=2)
    p.add_argument("--seed", default="1")
    p.add_argument("--ops", type=int, default=5000)
    p.add_argument("--seconds", type=float, default=0, help="new seeds (N, N/1, ...) until then")
    p.add_argument("--strict", action="store_true")
    p.add_argument("--shrink", action="store_true")
    p.add_argument("--not", dest="leave", default="")
    a = p.parse_args()
    end, done, k = time.monotonic() + a.seconds, 0, 0
    while True:
        seed = a.seed if not k else f"{a.seed}/{k}"
        steps = make_steps(seed, a.ops, a.leave.split(","))
        bad = differ(a.dirs, steps, False)
        if bad is not None:
            print(f"the same again: compare.py {' '.join(a.dirs)} --seed {seed} --ops {a.ops}")
            if a.shrink:
                print("--- shortest:")
                differ(a.dirs, shrink(a.dirs, steps[:bad + 1]), False)
            sys.exit(1)
        done, k = done + len(steps), k + 1
        if time.monotonic() >= end:
            break
    print(f"{done} calls the same, from seed {a.seed}")


main()
