# SPDX-License-Identifier: Apache-2.0
"""ledger.py work DIR LOGS SEED PROCESSES [bear]

Each process changes its things below DIR, one at a time, and tells LOGS/ledger-<process>, outside the mount, what it is about to make
("I thing generation") and what was acknowledged by fsync ("A thing generation").  It ends at the first error of a mount that dies; with
"bear" a disk that is full or read-only is borne: the step counts as never acknowledged, and what it broke is made anew.

ledger.py check DIR LOGS PROCESSES

Each thing must be of its last acknowledged generation or one intended since, whole.  Then the logs begin anew with what was found.
Prints what was checked; ends 1 if anything is lost.

What kill-tool does not do: names (directories exchanged, hard links, symlinks), appended records, shared mappings, attributes."""
import errno, mmap, os, random, shutil, stat, struct, sys, time

from t import EXCHANGE, fsync_dir, rename2, write

DYING = (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO, errno.ENODEV, errno.ESHUTDOWN)
BORNE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
PAGES, MAP = 40, 40 * 4096


class Lost(Exception):
    pass


def read(path):
    """Linux 6.18 tells whoever closes a file of FUSE next, once, EIO if a process was killed while it wrote that file back."""
    try:
        with open(path, "rb") as f:
            return f.read()
    except OSError as e:
        if e.errno != errno.EIO:
            raise
        with open(path, "rb") as f:
            return f.read()


def need(cond, text):
    if not cond:
        raise Lost(text)


def bytes_of(path, gen):
    name = os.path.basename(path)
    r = random.Random(f"{name}/{gen}")
    return b"%s %d\n" % (name.encode(), gen) + r.randbytes(r.choice([10, 3000, 40000, 70000, 300000]))


def save(path, data):
    """as an editor does: nobody ever sees a part of it"""
    write(path + "~", data, sync=True)
    os.rename(path + "~", path)
    fsync_dir(os.path.dirname(path) or ".")


def gen_of(data):
    try:
        return int(data.split(b"\n", 1)[0].split()[1])
    except (IndexError, ValueError):
        raise Lost(f"begins with {data[:20]!r}") from None


class Saved:
    def make(self, p, gen):
        save(p, bytes_of(p, gen))
    anew = make

    def found(self, p, low, high):
        gen = gen_of(read(p))
        need(read(p) == bytes_of(p, gen), f"torn: begins as generation {gen}")
        return gen


class Tree:
    def make(self, p, gen):
        if os.path.lexists(p + "~"):
            shutil.rmtree(p + "~")
        os.mkdir(p + "~")
        for k in range(gen % 5 + 1):
            write(f"{p}~/{k}", b"%s %d\n" % (b"tree", gen) + b"x" * (gen * 7919 % 9000), sync=True)
        fsync_dir(p + "~")
        if os.path.lexists(p):
            rename2(p + "~", p, EXCHANGE)
        else:
            os.rename(p + "~", p)
        fsync_dir(os.path.dirname(p) or ".")
    anew = make

    def found(self, p, low, high):
        names = sorted(os.listdir(p))
        need(names, "an empty directory")
        gens = {gen_of(read(f"{p}/{n}")) for n in names}
        need(len(gens) == 1, f"files of generations {gens}")
        gen = gens.pop()
        need(names == [str(k) for k in range(gen % 5 + 1)], f"generation {gen} holds {names}")
        for n in names:
            need(os.path.getsize(f"{p}/{n}") == len("tree %d\n" % gen) + gen * 7919 % 9000, f"{n} of generation {gen} is cut")
        return gen


class Records:
    """records up to the generation; the file begins anew every 200"""
    def record(self, gen):
        return b"%08d" % gen + b"." * (gen * 31 % 2000) + b"\n"

    def anew(self, p, gen):
        save(p, b"".join(self.record(k) for k in range((gen - 1) // 200 * 200 + 1, gen + 1)))

    def make(self, p, gen):
        if gen % 200 == 1 or not os.path.lexists(p):
            return self.anew(p, gen)
        fd = os.open(p, os.O_WRONLY | os.O_APPEND)
        try:
            rec = memoryview(self.record(gen))
            while rec:
                rec = rec[os.write(fd, rec):]
            os.fdatasync(fd)
        finally:
            os.close(fd)

    def found(self, p, low, high):
        data, at = read(p), 0
        gen = int(data[:8]) - 1
        need(gen % 200 == 0, f"begins with record {gen + 1}")
        while data.startswith(self.record(gen + 1), at):
            gen += 1
            at += len(self.record(gen))
        need(self.record(gen + 1).startswith(data[at:]), f"after record {gen} follow {len(data) - at} bytes that are none")
        if at < len(data):
            need(gen < high, f"a part of record {gen + 1}, which nobody wrote")
            os.truncate(p, at)
        return gen


class Mapped:
    def anew(self, p, gen):
        save(p, struct.pack("<Q", gen) * (MAP // 8))

    def make(self, p, gen):
        if not os.path.lexists(p):
            return self.anew(p, gen)
        fd = os.open(p, os.O_RDWR)
        try:
            with mmap.mmap(fd, MAP) as mp:
                for k in random.Random(gen).sample(range(PAGES), PAGES):
                    mp[k * 4096:(k + 1) * 4096] = struct.pack("<Q", gen) * 512
                mp.flush()
        finally:
            os.close(fd)

    def found(self, p, low, high):
        data = read(p)
        need(len(data) == MAP, f"{len(data)} bytes")
        words = set(struct.unpack(f"<{MAP // 8}Q", data))
        need(all(low <= w <= high for w in words), f"words of generations {sorted(words)[:5]}, from {low} to {high} are possible")
        if len(words) > 1:
            self.anew(p, max(words))
        return max(words)


class Attributes:
    def make(self, p, gen):
        fd = os.open(p, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            os.setxattr(fd, "user.gen", b"%d" % gen)
            os.fchmod(fd, 0o400 | gen & 0o377)
            os.utime(fd, ns=(gen, gen * 1000000007))
            os.fsync(fd)
        finally:
            os.close(fd)
        fsync_dir(os.path.dirname(p) or ".")
    anew = make

    def found(self, p, low, high):
        if not low:  # its first generation may be there in part
            return 0
        gen, st = int(os.getxattr(p, "user.gen")), os.stat(p)
        modes, times = {0o400 | g & 0o377 for g in range(low, high + 1)}, {g * 1000000007 for g in range(low, high + 1)}
        need(stat.S_IMODE(st.st_mode) in modes, f"mode {st.st_mode:o} with generation {gen}")
        need(st.st_mtime_ns in times, f"mtime {st.st_mtime_ns} with generation {gen}")
        if st.st_mtime_ns != gen * 1000000007 or stat.S_IMODE(st.st_mode) != 0o400 | gen & 0o377:
            self.make(p, gen)
        return gen


class Link:
    def make(self, p, gen):
        write(f"{p}.{gen}", b"link %d\n" % gen, sync=True)  # a file for each, whose name goes after the next one was linked
        if os.path.lexists(p + "~"):
            os.unlink(p + "~")
        os.link(f"{p}.{gen}", p + "~")
        os.rename(p + "~", p)
        fsync_dir(os.path.dirname(p) or ".")
        for k in range(max(1, gen - 3), gen):
            if os.path.lexists(f"{p}.{k}"):
                os.unlink(f"{p}.{k}")
    anew = make

    def found(self, p, low, high):
        gen = gen_of(read(p))
        need(low < high or not os.path.lexists(f"{p}.{gen}") or os.path.samefile(p, f"{p}.{gen}"), "its two names are two files")
        return gen


class Symlink:
    def make(self, p, gen):
        if os.path.lexists(p + "~"):
            os.unlink(p + "~")
        os.symlink(f"generation {gen}", p + "~")
        os.rename(p + "~", p)
        fsync_dir(os.path.dirname(p) or ".")
    anew = make

    def found(self, p, low, high):
        return int(os.readlink(p).split()[1])


THINGS = {**{f"saved{k}": Saved() for k in range(6)}, "tree0": Tree(), "tree1": Tree(), "records0": Records(), "records1": Records(),
          "mapped": Mapped(), "attributes": Attributes(), "link": Link(), "symlink": Symlink()}


def last_gens(log):
    """thing -> [acknowledged, last intended]; an error that no dying mount gives ends it"""
    gens = {t: [0, 0] for t in THINGS}
    with open(log, encoding="ascii") as f:
        for line in f:
            w = line.split()
            if w[0] == "E":
                raise SystemExit(f"FAIL: {log}: {line.strip()}")
            gens[w[1]][0 if w[0] == "A" else 1] = int(w[2])
    return gens


def work(d, log, seed, bear):
    gens, rnd, broken = last_gens(log), random.Random(seed), set()
    out = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.chdir(d)  # by a path one would soon stand in the directory below the mount
    while True:
        thing = rnd.choice(list(THINGS))
        gen = gens[thing][1] + 1
        os.write(out, b"I %s %d\n" % (thing.encode(), gen))
        gens[thing][1] = gen
        try:
            kind = THINGS[thing]
            (kind.anew if thing in broken else kind.make)(thing, gen)
            broken.discard(thing)
            os.write(out, b"A %s %d\n" % (thing.encode(), gen))
        except OSError as e:
            if bear and e.errno in BORNE:
                broken.add(thing)
                time.sleep(0.02)
                continue
            if e.errno not in DYING:
                os.write(out, b"E %s %s %s\n" % (thing.encode(), errno.errorcode[e.errno].encode(), str(e.filename).encode()))
            return


def check(d, log):
    lost = n = 0
    gens = last_gens(log)
    for thing, (low, high) in gens.items():
        if not high:
            continue
        n += 1
        p = f"{d}/{thing}"
        try:
            if not os.path.lexists(p):
                need(not low, "absent")
                gen = 0
            else:
                gen = THINGS[thing].found(p, low, high)
                need(low <= gen <= high, f"generation {gen}")
        except (Lost, OSError, ValueError) as e:
            print(f"LOST: {p}: {e}; acknowledged was {low}, intended {high}")
            lost, gen = lost + 1, 0
        if gen:  # what is found is what was acknowledged, as far as the next round is concerned
            if os.path.isfile(p) and not os.path.islink(p):
                fd = os.open(p, os.O_RDONLY)
                os.fsync(fd)
                os.close(fd)
        gens[thing] = [gen, gen]
    if os.path.isdir(d):
        fsync_dir(d)
    if not lost:
        with open(log, "w", encoding="ascii") as f:
            f.writelines(f"I {t} {gen}\nA {t} {gen}\n" for t, (gen, _) in gens.items() if gen)
    return n, lost


def begin(base, d, bear):
    """base was made in the mount: never below it, where the daemon is gone before this begins (False)"""
    while True:
        try:
            if not os.path.isdir(d):
                os.mkdir(d)
            fsync_dir(base)
            return True
        except OSError as e:
            if bear and e.errno in BORNE:  # full before all have begun
                time.sleep(0.05)
            elif e.errno in DYING + (errno.ENOENT,):
                return False
            else:
                raise


def main():
    how, base, logs, procs = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[5 if sys.argv[1] == "work" else 4])
    each = [(f"{base}/l{k}", f"{logs}/ledger-{k}") for k in range(procs)]
    if how == "check":
        sums = [check(*e) for e in each]
        print(f"{sum(n for n, _ in sums)} things of {procs} processes, {sum(x for _, x in sums)} lost")
        sys.exit(1 if any(x for _, x in sums) else 0)
    started, bear = 0, sys.argv[6:] == ["bear"]
    for k, (d, log) in enumerate(each):
        if not begin(base, d, bear):
            break
        if os.fork() == 0:
            work(d, log, f"{sys.argv[4]}/{k}", bear)
            os._exit(0)
        started += 1
    for _ in range(started):
        os.wait()


main()
