# SPDX-License-Identifier: Apache-2.0
"""The steps of the case `files`, which mounts and unmounts between them."""
import functools, pickle, shutil
from hostile import *
from t import M, S, TMP, LONG, blob, write

GOOD, V1 = TMP + "/good", TMP + "/v1"
SIZES = {"z0": 0, "z1": 1, "s1": SEG, "s3": 3 * SEG, "s35": 3 * SEG + SEG // 2, "s1000": 1000 * SEG}
KEYS = ("--volume", S, "--keyfile", TMP + "/key")


def read(path):
    with open(path, "rb") as f:
        return f.read()


def changed(size, what):
    """segments that get new content in the second version"""
    n = n_segs(size)
    return [i for i in (range(n) if n < 10 else (0, n // 2, n - 1)) if size]


def version(name, what):
    """v1 is how it was written first; v2 and twin are changes of it, under the same data key"""
    size = SIZES[name]
    plain = bytearray(blob(size, name))
    for i in changed(size, what) if what != "v1" else ():
        plain[i * SEG:(i + 1) * SEG] = blob(len(plain[i * SEG:(i + 1) * SEG]), f"{name}-{what}-{i}")
    return bytes(plain)


@functools.cache
def plain_of(name, what):
    return blob(SIZES[name], name + "-other") if what == "other" else version(name, what)


def make():
    for name, size in SIZES.items():
        write(f"{M}/{name}", version(name, "v1"))
        write(f"{M}/{name}-other", blob(size, name + "-other"))


def copy():
    os.mkdir(V1)
    for name in SIZES:
        shutil.copy(f"{S}/{name}.tdf", V1)
        shutil.copy(f"{S}/{name}.tdf", f"{S}/{name}-twin.tdf")


def change():
    for name, size in SIZES.items():
        for path, what in ((name, "v2"), (name + "-twin", "twin")):
            fd = os.open(f"{M}/{path}", os.O_RDWR)
            for i in changed(size, what):
                os.pwrite(fd, version(name, what)[i * SEG:(i + 1) * SEG], i * SEG)
            os.close(fd)


# --- the damage ---

def payload_damage(rng, name, raw, plain, donors):
    """(what, bytes, bad segments); donors: other files of the same size whose segments are no good here"""
    n, size = n_segs(len(plain)), len(plain)
    A = lambda i: at(i, size)
    if n > 100:
        some = {0, n // 2, n - 1, rng.randrange(n)}
        out = raw
        for i in some:
            out = flip(out, rng.randrange(A(i), A(i + 1)), rng.randrange(8))
        yield "flips", out, some
        i = rng.randrange(2, n - 2)
        yield "zero", put(raw, A(i), bytes(A(i + 1) - A(i))), {i}
        yield "swap", put(put(raw, A(i), raw[A(i + 1):A(i + 2)]), A(i + 1), raw[A(i):A(i + 1)]), {i, i + 1}
        for what, donor in donors.items():
            if what == "sealed":
                continue
            yield what, put(raw, A(n // 2), donor[A(n // 2):A(n // 2 + 1)]), {n // 2}
        return
    for i in range(n):
        lo, hi = A(i), A(i + 1)
        spots = [rng.randrange(lo, lo + 12), rng.randrange(hi - 16, hi)]
        if LONG and n < 4:
            spots = [*range(lo, lo + 12), *range(hi - 16, hi)]
        if hi - lo > 28:
            spots += rng.sample(range(lo + 12, hi - 16), min(256 if LONG else 2, hi - lo - 28))
        for off in spots:
            yield f"flip-{off}", flip(raw, off, rng.randrange(8)), {i}
        yield f"zero-{i}", put(raw, lo, bytes(hi - lo)), {i}
        for what, donor in donors.items():
            yield f"{what}-{i}", put(raw, lo, donor[lo:hi]), {i}
        for k in range(i + 1, n):
            if A(k + 1) - A(k) == hi - lo:
                yield f"swap-{i}-{k}", put(put(raw, lo, raw[A(k):A(k + 1)]), A(k), raw[lo:hi]), {i, k}
                yield f"twice-{i}-{k}", put(raw, A(k), raw[lo:hi]), {k}


def length_damage(rng, raw, plain, native):
    n, size, tail = n_segs(len(plain)), len(plain), at(n_segs(len(plain)), len(plain))
    cuts = {tail, len(raw) - 1, at(n // 2, size)}
    if n < 10:
        cuts |= {0, 1, 511, 512, len(raw) - 22, len(raw) - 23, *(rng.randrange(512, len(raw)) for _ in range(40 if LONG else 4))}
        cuts |= {at(i, size) + d for i in range(n + 1) for d in (-1, 0, 1)}
    for c in cuts:
        if c < len(raw):
            yield f"cut-{c}", raw[:c], WHOLE
    for what, more in (("zero", b"\0"), ("junk", rng.randbytes(100)), ("segment", raw[512:at(1, size)]), ("tail", raw[tail:])):
        if n < 10 and (native or what != "tail"):  # in another's zip that is a directory for the same entries
            yield f"more-{what}", raw + more, WHOLE
    if n < 10:  # the file cut, with its own tail
        for i in range(n):
            yield f"without-{i}", raw[:at(i, size)] + raw[at(i + 1, size):], WHOLE


def tail_damage(rng, raw, plain, others, native):
    tail = at(n_segs(len(plain)), len(plain))
    for what, o in others.items():
        if plain or native:  # one empty file of others is as good as another
            yield f"tail-of-{what}", raw[:tail] + o[tail:], WHOLE
        if native:
            yield f"head-of-{what}", o[:512] + raw[512:], WHOLE
            yield f"all-but-payload-of-{what}", o[:512] + raw[512:tail] + o[tail:], None if not plain else "segments"
    yield "no-head", bytes(512) + raw[512:], WHOLE
    if native and len(plain) < 100 * SEG:
        for off in rng.sample(range(512), 512 if LONG and len(plain) < 2 else 3) + rng.sample(range(tail, len(raw)), 3):
            yield f"byte-{off}", flip(raw, off, rng.randrange(8)), WHOLE
    elif not native:
        text = raw.rindex(b'"sig":"') + 7
        yield "root", put(raw, text, raw[text + 1:text + 2] + raw[text:text + 1]), WHOLE if raw[text] != raw[text + 1] else None
    mark = raw.rindex(b'"hash":"') + 8
    yield "hash", put(raw, mark, b"A" if raw[mark:mark + 1] != b"A" else b"B"), WHOLE


def made():
    """with the key of the plain content"""
    rng = random.Random(os.environ["TDFS_SEED"])
    for name, size in SIZES.items():
        sealed, v1, twin, other = (read(p) for p in (f"{GOOD}/{name}.tdf", f"{V1}/{name}.tdf", f"{GOOD}/{name}-twin.tdf", f"{GOOD}/{name}-other.tdf"))
        v2 = plain_of(name, "v2")
        foreign, foreign2 = read(f"{GOOD}/{name}-f.tdf"), read(f"{GOOD}/{name}-f2.tdf")
        for kind, raw, donors in (("", sealed, {"other": other, "old": v1, "twin": twin}), ("-foreign", foreign, {"other": foreign2, "sealed": sealed})):
            yield Bad(f"{name}{kind}-good", raw, (name, "v2"), set())
            if not size:
                donors = {k: d for k, d in donors.items() if k in ("other", "sealed")}  # nothing was changed in the others
            others = {k: d for k, d in donors.items() if k != "sealed" and (size < 100 * SEG or k == "twin")}
            for what, out, bad in (*payload_damage(rng, name, raw, v2, donors), *length_damage(rng, raw, v2, not kind), *tail_damage(rng, raw, v2, others, not kind)):
                if bad is None:
                    continue
                if bad == "segments":  # a good file with the payload of another: what differs is bad
                    owner = what.rsplit("-", 1)[1]
                    differ = {i for i in range(n_segs(size)) if raw[at(i, size):at(i + 1, size)] != donors[owner][at(i, size):at(i + 1, size)]}
                    assert differ, (name, what)
                    yield Bad(f"{name}{kind}-{what}", out, (name, {"old": "v1"}.get(owner, owner)), differ)
                    continue
                assert out != raw, (name, kind, what)  # the damage is there
                if bad != WHOLE:
                    assert {i for i in range(n_segs(size)) if out[at(i, size):at(i + 1, size)] != raw[at(i, size):at(i + 1, size)]} == bad, (name, what)
                yield Bad(f"{name}{kind}-{what}", out, (name, "v2"), bad)
        yield Bad(f"{name}-old-good", v1, (name, "v1"), set())  # a whole old file: stated in the README, not detected
        yield Bad(f"{name}-twin-good", twin, (name, "twin"), set())


def damage():
    os.mkdir(GOOD)
    for f in os.listdir(S):
        if f.endswith(".tdf"):
            os.rename(f"{S}/{f}", f"{GOOD}/{f}") if os.stat(S).st_dev == os.stat(GOOD).st_dev else shutil.move(f"{S}/{f}", GOOD)
    for name, size in SIZES.items():
        old, new, twin = (parts(read(f"{d}/{name}{x}.tdf"))[1]["encryptionInformation"]["keyAccess"] for d, x in ((V1, ""), (GOOD, ""), (GOOD, "-twin")))
        assert old == new == twin, "the old version and the copy have the data key of the file"
        write(f"{TMP}/plain", version(name, "v2"))
        for x in ("-f", "-f2"):
            r = run("encrypt", "--segment-size", str(SEG), *KEYS, "-o", f"{GOOD}/{name}{x}.tdf", f"{TMP}/plain")
            assert r.returncode == 0, r.stderr
    n, k, done = 0, 0, []
    for b in made():
        place(S, [b])
        n, k = n + 1, k + (not b.bad)
        b.raw = None
        done.append(b)
    with open(TMP + "/bads", "wb") as f:
        pickle.dump(done, f)
    print(f"{n} files, {k} of them good")
    assert n > 500 and k == 4 * len(SIZES)


def bads():
    with open(TMP + "/bads", "rb") as f:
        for b in pickle.load(f):
            b.plain = plain_of(*b.plain)
            yield b


def look():
    complain([f"{b.name}: {p}" for b in bads() if (p := mount_reads(M, b))])


def verify():
    complain(verify_agrees(KEYS, S, bads()))


def tools():
    os.mkdir(TMP + "/out")
    rng, wrong, n = random.Random(os.environ["TDFS_SEED"]), [], 0
    for b in bads():
        if not LONG and rng.random() > (0.12 if b.bad else 1):
            continue
        n += 1
        if p := tool_reads(KEYS, f"{S}/{b.name}.tdf", b, TMP + "/out/x"):
            wrong.append(f"{b.name}: {p}")
    print(f"{n} files through cat and decrypt")
    complain(wrong)


globals()[os.sys.argv[1]]()
