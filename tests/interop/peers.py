# SPDX-License-Identifier: Apache-2.0
"""tests/interop/peers (PEERS="tdfs cryfs", ROWS=TEXT: some of it): each peer has an ext4 image of its own, so that a power cut is a copy of that image."""
import fcntl, shutil, sys, traceback
from t import *

HOST = sys.argv[1]
SECRET = "correct horse battery staple"
SIZE = 1 << 20  # of the file that is damaged
sh = lambda *a, **kw: subprocess.run(a, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", **kw)


def run(*a):
    p = sh(*a)
    if p.returncode:
        raise RuntimeError(f"{' '.join(a)} ended with {p.returncode}: {p.stdout[-300:]}")
    return p.stdout


def mounted(path):
    return f" {path} " in open("/proc/self/mounts").read()


class Peer:
    block = None  # (offset of the first encrypted block of a store file, its length at rest)
    mkfs = ()

    def __init__(self):
        self.name = type(self).__name__.lower()
        self.image, self.disk, self.mnt, self.daemon = (f"{HOST}/{self.name}{x}" for x in (".img", ".disk", ".mnt", ""))
        self.daemon, self.store = None, f"{self.disk}/store"
        os.mkdir(self.disk)
        os.mkdir(self.mnt)
        with open(self.image, "wb") as f:
            f.truncate(300 << 20)
        run("mkfs.ext4", "-q", "-F", "-m0", "-b4096", *self.mkfs, self.image)
        self.attach()
        os.mkdir(self.store)
        self.init()

    def attach(self, image=None):
        run("mount", "-o", "loop", image or self.image, self.disk)

    def detach(self):
        run("umount", self.disk)

    def spawn(self, *args):
        self.daemon = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=open(f"{HOST}/{self.name}.log", "ab"), stderr=subprocess.STDOUT)
        self.await_mount()

    def await_mount(self):
        for _ in range(1200):
            if mounted(self.mnt):
                return
            if self.daemon.poll() is not None:
                break
            time.sleep(0.05)
        raise RuntimeError(f"{self.name} did not mount: " + open(f"{HOST}/{self.name}.log").read()[-300:])

    def umount(self):
        for _ in range(100):
            if not mounted(self.mnt) or not sh("umount", self.mnt).returncode:
                break
            time.sleep(0.1)
        if self.daemon:
            self.daemon.wait(60)
            self.daemon = None

    def kill(self):
        if self.daemon:
            self.daemon.kill()
            self.daemon.wait()
            self.daemon = None
        sh("umount", "-l", self.mnt)

    def end(self):
        self.kill()
        sh("umount", "-l", self.disk)

    def files(self):  # by inode number: fscrypt shows other names without its key
        paths = (os.path.join(d, n) for d, _, names in os.walk(self.store) for n in names if "/.tdfs" not in d)
        return {os.stat(p, follow_symlinks=False).st_ino: p for p in paths}

    def new(self, before):
        return sorted(p for ino, p in self.files().items() if ino not in before)

    # what an enemy does to the file at rest, while it is not mounted; @old: the store as it was before
    def at_rest(self, name, before):
        return max(self.new(before), key=os.path.getsize)

    def flip(self, path):
        with open(path, "r+b") as f:
            f.seek(os.path.getsize(path) // 2)
            b = f.read(1)
            f.seek(-1, 1)
            f.write(bytes([b[0] ^ 1]))

    def zeros(self, path):
        off, n = self.block
        with open(path, "r+b") as f:
            f.seek(off + 3 * n)
            f.write(bytes(n))

    def cut(self, path):
        off, n = self.block
        os.truncate(path, off + 5 * n)

    def save(self, path):
        return read(path)

    def restore(self, path, old):
        with open(path, "r+b") as f:
            f.write(old)
            f.truncate()


class Tdfs(Peer):
    block = (512, 32768 + 28)
    bin = os.environ["TDFS_BIN"]

    def init(self):
        os.rmdir(self.store)
        run(self.bin, "init", self.store, "--keyfile", f"{HOST}/key", "--log-size", "16M")

    def mount(self):
        self.spawn(self.bin, "mount", self.store, self.mnt, "--keyfile", f"{HOST}/key", "-f", "-o", "allow_other,nonempty")

    def umount(self):
        run(self.bin, "umount", self.mnt)
        super().umount()


class Gocryptfs(Peer):
    block = (18, 4096 + 32)

    def init(self):
        run("gocryptfs", "-init", "-q", "-scryptn", "15", "-passfile", f"{HOST}/pass", self.store)

    def mount(self):
        self.spawn("gocryptfs", "-fg", "-q", "-acl", "-allow_other", "-nosyslog", "-passfile", f"{HOST}/pass", self.store, self.mnt)


class Securefs(Peer):
    block = (16, 4096 + 28)

    def init(self):
        run("securefs", "create", "--pbkdf", "pkcs5-pbkdf2-hmac-sha256", "--rounds", "1000", "--pass", SECRET, self.store)  # quickly

    def mount(self):
        self.spawn("securefs", "mount", "-o", "allow_other", "--pass", SECRET, self.store, self.mnt)


class Cryfs(Peer):
    def init(self):
        self.ask("cryfs", "--blocksize", "16384", "-c", f"{HOST}/cryfs.config", self.store, self.mnt, "--create-missing-basedir")
        self.umount()

    def ask(self, *args):  # the passphrase comes from stdin
        self.daemon = subprocess.Popen([*args, "-f", "-o", "allow_other"], stdin=subprocess.PIPE, stdout=open(f"{HOST}/cryfs.log", "ab"), stderr=subprocess.STDOUT)
        self.daemon.stdin.write(f"{SECRET}\n{SECRET}\n".encode())
        self.daemon.stdin.close()
        self.await_mount()

    def mount(self):
        self.ask("cryfs", "-c", f"{HOST}/cryfs.config", self.store, self.mnt)

    def at_rest(self, name, before):  # many blocks: that of the middle
        return self.new(before)

    def flip(self, paths):
        for p in paths[:5]:
            super().flip(p)

    def zeros(self, paths):
        for p in paths[:5]:
            with open(p, "r+b") as f:
                f.write(bytes(os.path.getsize(p)))

    def cut(self, paths):  # blocks that are away
        for p in paths[:5]:
            os.unlink(p)

    def save(self, paths):
        return {p: read(p) for p in self.files().values()}

    def restore(self, paths, old):
        for p, data in old.items():
            write(p, data)
        for p in set(self.files().values()) - set(old):
            os.unlink(p)


class Fscrypt(Peer):
    mkfs = ("-O", "encrypt")

    def key(self):
        arg = bytearray(struct.pack("<II32sII32s", 2, 0, b"", 64, 0, b"") + hashlib.sha512(SECRET.encode()).digest())
        fd = os.open(self.disk, os.O_RDONLY)
        fcntl.ioctl(fd, 0xC0506617, arg)  # FS_IOC_ADD_ENCRYPTION_KEY
        os.close(fd)
        return bytes(arg[8:24])

    def init(self):
        ident = self.key()
        fd = os.open(self.store, os.O_RDONLY)
        fcntl.ioctl(fd, 0x800C6613, struct.pack("BBBBB3x16s", 2, 1, 4, 3, 0, ident))  # FS_IOC_SET_ENCRYPTION_POLICY: AES-256-XTS, CTS
        os.close(fd)

    def mount(self):
        self.key()
        run("mount", "--bind", self.store, self.mnt)

    def umount(self):
        run("umount", self.mnt)
        run("umount", self.disk)
        self.attach()  # without the key

    def at_rest(self, name, before):
        return os.stat(super().at_rest(name, before)).st_ino

    def on_image(self, ino, fn):
        run("umount", self.disk)
        blocks = [int(b) for b in run("debugfs", "-R", f"blocks <{ino}>", self.image).split() if b.isdigit()]
        with open(self.image, "r+b") as f:
            fn(f, blocks)
        self.attach()

    def flip(self, ino):
        def do(f, blocks):
            f.seek(blocks[100] * 4096)
            b = f.read(1)
            f.seek(-1, 1)
            f.write(bytes([b[0] ^ 1]))
        self.on_image(ino, do)

    def zeros(self, ino):
        def do(f, blocks):
            f.seek(blocks[100] * 4096)
            f.write(bytes(4096))
        self.on_image(ino, do)

    def cut(self, ino):
        run("umount", self.disk)
        run("debugfs", "-w", "-R", f"set_inode_field <{ino}> size {5 * 4096}", self.image)
        self.attach()

    def save(self, ino):
        got = []
        def do(f, blocks):
            for b in blocks:
                f.seek(b * 4096)
                got.append(f.read(4096))
        self.on_image(ino, do)
        return got

    def restore(self, ino, old):
        def do(f, blocks):
            for b, data in zip(blocks, old):
                f.seek(b * 4096)
                f.write(data)
        self.on_image(ino, do)


def seen(path, want, old=None):
    """How a file reads after what was done to it"""
    try:
        got = read(path)
    except OSError as e:
        part = 0  # is the rest still there?
        for off in range(0, len(want), 4096):
            try:
                with open(path, "rb", 0) as f:
                    part += os.pread(f.fileno(), 4096, off) == want[off : off + 4096]
            except OSError:
                pass
        return f"error ({errno.errorcode[e.errno]}, {part * 100 // (len(want) // 4096)} % left)" if e.errno != errno.ENOENT else "gone"
    if got == want:
        return "not seen"
    if got == old:
        return "read as old"
    if len(got) < len(want) and want.startswith(got):
        return "read shorter"
    if len(got) == len(want):
        other = [k for k in range(0, len(want), 4096) if got[k : k + 4096] != want[k : k + 4096]]
        zero = all(not any(got[k : k + 4096]) for k in other)
        if old and all(got[k : k + 4096] in (old[k : k + 4096], want[k : k + 4096]) for k in range(0, len(want), 4096)):
            return "torn"
        return "read as zeros" if zero else "wrong bytes"
    return f"{len(got)} bytes, others"


def damaged(p, how):
    p.mount()
    before = p.files()
    data, old = blob(SIZE, how), None
    write(f"{p.mnt}/{how}", data, sync=True)
    p.umount()
    os.sync()
    rest = p.at_rest(how, before)
    if how == "old":
        saved, old = p.save(rest), data
        p.mount()
        data = blob(SIZE, "newer")
        with open(f"{p.mnt}/{how}", "r+b") as f:
            f.write(data)
            os.fsync(f.fileno())
        p.umount()
        os.sync()
        p.restore(rest, saved)
    else:
        getattr(p, how)(rest)
    try:
        p.mount()
    except RuntimeError as e:
        return "the mount is refused"
    got = seen(f"{p.mnt}/{how}", data, old)
    p.umount()
    return got


def names(p):
    p.mount()
    os.mkdir(f"{p.mnt}/folder-of-names")
    write(f"{p.mnt}/folder-of-names/the-name-of-a-file", b"x", sync=True)
    p.umount()
    all_names = "\n".join("/".join((d, *names)) for d, _, names in os.walk(p.store))
    return "seen" if "the-name-of-a-file" in all_names else "hidden"


def sizes(p):
    """The stored bytes of files of 20,000 and 20,001 bytes"""
    total = []
    for n in (20000, 20001):
        p.mount()
        before = p.files()
        write(f"{p.mnt}/size-{n}", blob(n, 1), sync=True)
        p.umount()
        os.sync()
        total.append(sum(os.path.getsize(f) for f in p.new(before)))
    return "seen" if total[1] == total[0] + 1 else "hidden" if total[0] == total[1] else f"differ by {total[1] - total[0]}"


OLD, NEW = (blob(4 << 20, k) for k in ("old", "new"))


def overwrite(p, cut, mode):
    """Overwriting 4 MiB in place (or by truncation) while the daemon, or the power, goes: what is there after it, of several times"""
    got = {}
    r = random.Random(1)
    for k in range(8):
        p.mount()
        path = f"{p.mnt}/over-{mode}{k}"
        write(path, OLD, sync=True)
        pid = os.fork()
        if not pid:
            try:
                fd = os.open(path, os.O_WRONLY | (os.O_TRUNC if mode == "anew" else 0))
                for off in range(0, len(NEW), 65536):
                    os.pwrite(fd, NEW[off : off + 65536], off)
                    time.sleep(0.001)
                os.close(fd)
            except OSError:
                pass
            os._exit(0)
        time.sleep(r.random() * 0.08)
        if cut is power:  # as the kernel writes back at any moment
            sh("sync", "-f", p.disk)
            time.sleep(r.random() * 0.03)
        cut(p)
        os.waitpid(pid, 0)
        try:
            p.mount()
            how = seen(path, NEW, OLD).replace("not seen", "new").replace("read as old", "old").split(" (")[0]
        except RuntimeError as e:
            how = "no mount"
        got[how] = got.get(how, 0) + 1
        p.kill() if how == "no mount" else p.umount()
    return ", ".join(f"{n} {how}" for how, n in sorted(got.items()))


def power(p):
    """The image as the disk has it at this moment, and nothing of what is in memory"""
    run("cp", "--sparse=always", p.image, p.image + ".cut")
    p.kill()
    run("umount", p.disk)
    os.rename(p.image + ".cut", p.image)
    p.attach()


def acknowledged(p, cut):
    """After a successful fsync of a new, an appended and an overwritten file"""
    bad = []
    for k in range(4):
        p.mount()
        path = f"{p.mnt}/ack{k}"
        want = blob(300000, k)
        write(path, want[:200000], sync=True)
        dfd = os.open(p.mnt, os.O_RDONLY)
        try:
            os.fsync(dfd)
        except OSError:
            pass
        os.close(dfd)
        with open(path, "r+b", 0) as f:
            f.write(want[:5000])
            f.seek(200000)
            f.write(want[200000:])
            os.fsync(f.fileno())
        cut(p)
        p.mount()
        got = seen(path, want)
        if got != "not seen":
            bad.append(got)
        p.umount()
    return f"lost: {', '.join(bad)}" if bad else "kept"


def can(p):
    """What a local disk can do"""
    p.mount()
    d = f"{p.mnt}/can"
    os.mkdir(d)
    f = f"{d}/f"
    write(f, b"x" * 10000)

    def big():
        with open(f"{d}/hole", "wb") as h:
            h.truncate(64 << 20)
            os.fsync(h.fileno())
        os.sync()
        assert os.stat(f"{d}/hole").st_blocks < 4096 and os.statvfs(p.store).f_bfree >= free - 8192

    def acl():
        run("setfacl", "-m", "u:65534:r", f)
        assert "nobody:r--" in run("getfacl", "-p", f) or "65534:r--" in run("getfacl", "-p", f)

    def other():
        os.chmod(p.mnt, 0o777), os.chmod(d, 0o777)
        run("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "touch", f"{d}/of-nobody")
        assert os.stat(f"{d}/of-nobody").st_uid == 65534
        assert sh("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", f"echo >>{f}").returncode  # 0644 of root

    def twice():
        os.makedirs(p.mnt + "2", exist_ok=True)
        first, p.mnt = (p.mnt, p.daemon), p.mnt + "2"
        try:
            p.mount()
            p.umount()
        finally:
            p.mnt, p.daemon = first

    def exchange():
        write(f"{d}/g", b"g")
        rename2(f, f"{d}/g", EXCHANGE)

    free = os.statvfs(p.store).f_bfree
    tried = {"hard links": lambda: os.link(f, f"{d}/l"), "names of 255 bytes": lambda: write(f"{d}/{'n' * 255}", b""), "names of 251 bytes": lambda: write(f"{d}/{'n' * 251}", b""), "holes": big, "user xattrs": lambda: os.setxattr(f, "user.x", b"1"),
             "POSIX ACLs": acl, "owners of many users": other, "FIFOs": lambda: os.mkfifo(f"{d}/p"), "exchange": exchange, "a second mount": twice}
    out = {}
    for what, fn in tried.items():
        try:
            fn()
            out[what] = "yes"
        except OSError as e:
            out[what] = f"no ({errno.errorcode.get(e.errno, e.errno)})"
        except (RuntimeError, AssertionError) as e:
            out[what] = "no"
    p.umount()
    return out


ROWS = {
    "a changed byte": lambda p: damaged(p, "flip"), "a block of zeros": lambda p: damaged(p, "zeros"), "cut at a block": lambda p: damaged(p, "cut"),
    "names": names, "exact sizes": sizes,
    "kill -9 after fsync": lambda p: acknowledged(p, Peer.kill), "power cut after fsync": lambda p: acknowledged(p, power),
    "kill -9 while overwriting": lambda p: overwrite(p, Peer.kill, ""), "power cut while overwriting": lambda p: overwrite(p, power, ""),
    "power cut while written anew": lambda p: overwrite(p, power, "anew"),
    "an older one put back": lambda p: damaged(p, "old"),  # the last: CryFS mounts no more after it
}
# what README states; a prefix of what is found
STATED = {
    "tdfs": {"a changed byte": "error", "a block of zeros": "error", "cut at a block": "error", "an older one put back": "read as old", "names": "seen", "exact sizes": "seen", "kill -9 after fsync": "kept", "power cut after fsync": "kept"},
}

only = os.environ.get("PEERS", "").split() or ["tdfs", "gocryptfs", "securefs", "cryfs", "fscrypt"]
table, failed = {}, 0
for cls in (Tdfs, Gocryptfs, Securefs, Cryfs, Fscrypt):
    name = cls.__name__.lower()
    if name not in only or (name not in ("tdfs", "fscrypt") and not shutil.which(name)):
        continue
    col, p = {}, None
    try:
        p = cls()
        if not os.environ.get("ROWS"):
            col |= can(p)
        for row, fn in ROWS.items():
            if os.environ.get("ROWS", "") not in row:
                continue
            if name == "fscrypt" and row.startswith("kill"):
                col[row] = "-"
                continue
            began = time.monotonic()
            try:
                col[row] = fn(p)
                print(f"{name}, {row}: {col[row]} ({time.monotonic() - began:.1f} s)", flush=True)
            except Exception as e:  # the next row begins from nothing
                traceback.print_exc()
                col[row] = f"broke: {e}"[:60]
                p.kill()
    except Exception as e:
        traceback.print_exc()
        print(f"{name}: {e}")
        failed += name == "tdfs"
    finally:
        if p:
            p.end()
    table[name] = col
rows = list(ROWS) + ["hard links", "names of 255 bytes", "names of 251 bytes", "holes", "user xattrs", "POSIX ACLs", "owners of many users", "FIFOs", "exchange", "a second mount"]
for row in rows:
    print(f"{row:30}" + " | ".join(f"{name}: {col.get(row, '?')}" for name, col in table.items()))
for name, stated in STATED.items():
    for row, want in stated.items():
        got = table.get(name, {}).get(row, want)
        if not got.startswith(want):
            print(f"FAIL: {name}, {row}: README says {want}, found {got}")
            failed += 1
sys.exit(1 if failed else 0)
