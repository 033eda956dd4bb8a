# SPDX-License-Identifier: Apache-2.0
"""randomops.py MOUNT MODEL SEED PROCESSES SECONDS: the same random system calls on both directories; the first difference is printed with the calls before it."""
import errno, os, random, stat, sys, time

from t import EXCHANGE, KEEP_SIZE, NOREPLACE, PUNCH, ZERO, fallocate, rename2

NAMES = ["a", "b", "c.tdf", "d.tdf_", "e", "sub", "sub/a", "sub/b", "sub/x.tdf", "sub2", "sub2/a", "sub2/deep"]
SIZES = [0, 1, 100, 4096, 16384, 65535, 65536, 65537, 131072, 200000]


class Process:
    def __init__(self, dirs, rnd):
        self.dirs, self.rnd, self.fds, self.log = dirs, rnd, [], []

    def both(self, text, fn):
        """run fn(side) for both sides, compare what came out"""
        out = []
        for side in (0, 1):
            try:
                out.append(fn(side))
            except OSError as e:
                out.append(errno.errorcode[e.errno])
        self.log = self.log[-40:] + [f"{text} -> {str(out[1])[:60]}"]
        if out[0] != out[1]:
            short = [v if len(repr(v)) < 200 else f"{len(v)} bytes" for v in out]
            where = ""
            if all(isinstance(v, bytes) for v in out):
                at = next((i for i, (x, y) in enumerate(zip(*out)) if x != y), min(map(len, out)))
                where = f", first at byte {at}"
            print("\n".join(self.log[-25:]), f"\nFAIL: {text}: the mount says {short[0]}, the plain directory {short[1]}{where}", flush=True)
            os._exit(1)
        return out

    def path(self, side, name):
        return os.path.join(self.dirs[side], name)

    def look(self, what, get):
        def one(side):
            s = get(side)
            reg = not stat.S_ISDIR(s.st_mode)
            return stat.filemode(s.st_mode), s.st_uid, s.st_nlink if reg else 0, s.st_size if reg else 0
        self.both(f"stat {what}", one)

    def step(self):
        r = self.rnd
        name, other = r.choice(NAMES), r.choice(NAMES)
        op = r.choices(["open", "close", "write", "append", "read", "truncate", "ftruncate", "rename", "unlink", "mkdir", "rmdir", "link", "symlink", "list", "stat", "fsync", "fallocate",
                        "chmod", "utime", "whole", "xattr"], [8, 6, 14, 5, 12, 3, 4, 6, 4, 3, 2, 3, 1, 2, 5, 4, 4, 2, 2, 4, 2])[0]
        if op == "open" and len(self.fds) < 12:
            flags = r.choice([os.O_RDONLY, os.O_RDWR, os.O_WRONLY]) | r.choice([0, os.O_CREAT, os.O_CREAT, os.O_CREAT | os.O_EXCL]) | r.choice([0, 0, 0, os.O_TRUNC]) | r.choice([0, 0, os.O_APPEND])
            mode = r.choice([0o644, 0o600, 0o444])
            made = {}
            def fn(side):
                made[side] = os.open(self.path(side, name), flags, mode)
                if stat.S_ISDIR(os.fstat(made[side]).st_mode):
                    os.close(made.pop(side))
                    return "directory"
                return "ok"
            self.both(f"open {name} {flags:o}", fn)
            if len(made) == 2:
                self.fds.append((made, name))
        elif op == "close" and self.fds:
            fd, n = self.fds.pop(r.randrange(len(self.fds)))
            self.both(f"close {n}", lambda s: os.close(fd[s]))
        elif op in ("write", "append") and self.fds:
            fd, n = r.choice(self.fds)
            off, data = r.choice(SIZES) + r.choice([0, 0, -3, 5000]), r.randbytes(r.choice([1, 10, 512, 4096, 30000, 65536, 150000]))
            off = max(off, 0)
            self.both(f"pwrite {n} {len(data)} at {off}", lambda s: os.pwrite(fd[s], data, off))
            self.look(n, lambda s: os.fstat(fd[s]))
        elif op == "read" and self.fds:
            fd, n = r.choice(self.fds)
            off, k = r.choice(SIZES + [0, 0, 0]), r.choice([1, 4096, 70000, 400000])
            self.both(f"pread {n} {k} at {off}", lambda s: os.pread(fd[s], k, off))
        elif op == "whole":
            def fn(side):
                with open(self.path(side, name), "rb") as f:
                    return f.read()
            self.both(f"read all of {name}", fn)
        elif op == "truncate":
            n = r.choice(SIZES) + r.choice([0, 7])
            self.both(f"truncate {name} {n}", lambda s: os.truncate(self.path(s, name), n))
            self.look(name, lambda s: os.stat(self.path(s, name)))
        elif op == "ftruncate" and self.fds:
            fd, n = r.choice(self.fds)
            k = r.choice(SIZES) + r.choice([0, 7])
            self.both(f"ftruncate {n} {k}", lambda s: os.ftruncate(fd[s], k))
            self.look(n, lambda s: os.fstat(fd[s]))
        elif op == "rename":
            flags = r.choice([0, 0, 0, NOREPLACE, EXCHANGE])
            if flags == EXCHANGE:  # of a file with a directory it may be refused
                kinds = [stat.S_ISREG(os.lstat(self.path(1, n)).st_mode) for n in (name, other) if os.path.lexists(self.path(1, n))]
                if len(kinds) == 2 and kinds[0] != kinds[1]:
                    return
            self.both(f"rename {name} {other} {flags}", lambda s: rename2(self.path(s, name), self.path(s, other), flags))
        elif op == "unlink":
            self.both(f"unlink {name}", lambda s: os.unlink(self.path(s, name)))
        elif op == "mkdir":
            self.both(f"mkdir {name}", lambda s: os.mkdir(self.path(s, name)))
        elif op == "rmdir":
            self.both(f"rmdir {name}", lambda s: os.rmdir(self.path(s, name)))
        elif op == "link":
            self.both(f"link {name} {other}", lambda s: os.link(self.path(s, name), self.path(s, other), follow_symlinks=False))
        elif op == "symlink":
            self.both(f"symlink {name} {other}", lambda s: os.symlink(os.path.basename(name), self.path(s, other)))
        elif op == "list":
            d = r.choice(["", "sub", "sub2"])
            self.both(f"list {d}", lambda s: sorted((e.name, e.is_dir(follow_symlinks=False), e.is_symlink()) for e in os.scandir(self.path(s, d))))
        elif op == "stat":
            self.look(name, lambda s: os.lstat(self.path(s, name)))
        elif op == "fsync" and self.fds:
            fd, n = r.choice(self.fds)
            self.both(f"fsync {n}", lambda s: os.fsync(fd[s]))
        elif op == "fallocate" and self.fds:
            fd, n = r.choice(self.fds)
            mode, off, k = r.choice([0, KEEP_SIZE, PUNCH | KEEP_SIZE, ZERO, ZERO | KEEP_SIZE]), r.choice(SIZES), r.choice([1, 4096, 65536, 100001])
            self.both(f"fallocate {n} {mode} {k} at {off}", lambda s: fallocate(fd[s], mode, off, k))
            self.look(n, lambda s: os.fstat(fd[s]))
        elif op == "chmod":
            mode = r.choice([0o644, 0o600, 0o755, 0o444, 0])
            self.both(f"chmod {name} {mode:o}", lambda s: os.chmod(self.path(s, name), mode))
        elif op == "utime":
            ns = (r.randrange(10**18), r.randrange(10**18))
            self.both(f"utime {name}", lambda s: os.utime(self.path(s, name), ns=ns))
            if not self.fds:
                self.both(f"mtime {name}", lambda s: os.stat(self.path(s, name)).st_mtime_ns)
        elif op == "xattr":
            key, val = r.choice(["user.a", "user.b"]), r.randbytes(r.randrange(50))
            if r.random() < 0.6:
                self.both(f"setxattr {name} {key}", lambda s: os.setxattr(self.path(s, name), key, val))
            else:
                self.both(f"getxattr {name} {key}", lambda s: os.getxattr(self.path(s, name), key))


def work(dirs, seed, end):
    p, n = Process(dirs, random.Random(seed)), 0
    os.umask(0o022)
    while time.time() < end:
        p.step()
        n += 1
    for fd, name in p.fds:
        p.both(f"close {name}", lambda s: os.close(fd[s]))
    return n


def main():
    mount, model, seed, procs, secs = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5])
    end, pids = time.time() + secs, []
    for k in range(procs):
        dirs = [os.path.join(d, f"p{k}") for d in (mount, model)]
        for d in dirs:
            os.mkdir(d)
        pid = os.fork()
        if pid == 0:
            try:
                n = work(dirs, f"{seed}/{k}", end)
                print(f"process {k}: {n} calls the same", flush=True)
                os._exit(0)
            except BaseException as e:  # noqa: B902
                import traceback
                traceback.print_exc()
                os._exit(2)
        pids.append(pid)
    sys.exit(1 if any([os.waitpid(p, 0)[1] for p in pids]) else 0)


main()
