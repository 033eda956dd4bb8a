# SPDX-License-Identifier: Apache-2.0
"""What an enemy may leave in a store: makes damaged and forged files and looks at what becomes of them.  Knows nothing of tdfs but its
command line; t.py (mount/) is at hand in the cases.

A Bad is a file that has to be found bad: WHOLE, or the set of its bad segments.  Whoever makes one shows that it differs from a good file;
every shape of it without the damage is read as well (bad = no segment at all), so that a refusal is known to come from the damage.
"""
import base64, ctypes, errno, hashlib, hmac, json, os, random, struct, subprocess, zlib

WHOLE = "whole"
REFUSED = {errno.EIO, errno.EROFS, errno.ENOTSUP, errno.ENOKEY}  # how open(2) may say so: damaged; nothing that we write; nothing that we know; for another's key
SEG = 16384  # of the volumes here
TDFS = os.environ["TDFS_BIN"]


class Bad:
    """name, bytes at rest, plain content, bad segments, size of a segment"""

    def __init__(self, name, raw, plain, bad, s=SEG):
        self.name, self.raw, self.plain, self.bad, self.s = name, raw, plain, bad, s


def seed():
    s = int(os.environ.get("TDFS_SEED") or int.from_bytes(os.urandom(4), "big"))
    print(f"seed {s} (TDFS_SEED={s} replays)", flush=True)
    return random.Random(s)


def run(*args, **kw):
    return subprocess.run([os.fsencode(a) for a in (TDFS, *args)], stdin=subprocess.DEVNULL, capture_output=True, timeout=120, **kw)


# --- geometry of files with their payload at 512: sealed ones, and those of `tdfs encrypt` ---

def n_segs(size, s=SEG):
    return max(1, -(-size // s))


def at(i, size, s=SEG):
    """where segment i starts; where the payload ends for i = number of segments"""
    return 512 + min(i * s, size) + 28 * i


def put(raw, off, data):
    assert off + len(data) <= len(raw)
    return raw[:off] + data + raw[off + len(data):]


def flip(raw, off, bit=0):
    return put(raw, off, bytes([raw[off] ^ 1 << bit]))


# --- zip, as simple as can be ---

def zip_of(entries, comment=b""):
    """entries: (name, stored bytes, {field: value}); fields: crc, method, flags, size, csize, local_name, local_size, local_off"""
    out, cd = b"", b""
    for name, data, f in entries:
        crc, size, csize = f.get("crc", zlib.crc32(data)), f.get("size", len(data)), f.get("csize", len(data))
        method, flags, off = f.get("method", 0), f.get("flags", 0), f.get("local_off", len(out))
        lname, extra = f.get("local_name", name), f.get("extra", b"")
        out += struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 45, flags, method, 0, 33, crc, csize, f.get("local_size", size), len(lname), len(extra)) + lname + extra + data
        cd += struct.pack("<4sHHHHHHIIIHHHHHII", b"PK\1\2", 45, 45, flags, method, 0, 33, crc, csize, size, len(name), len(f.get("cextra", b"")), 0, 0, 0, 0, off) + name + f.get("cextra", b"")
    return out + cd + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, len(entries), len(entries), len(cd), len(out), len(comment)) + comment


def deflate(data):
    c = zlib.compressobj(9, zlib.DEFLATED, -15)
    return c.compress(data) + c.flush()


def tdf(payload, manifest, **kw):
    """a foreign TDF; manifest: bytes, or what json.dumps takes"""
    text = manifest if isinstance(manifest, bytes) else json.dumps(manifest, separators=(",", ":")).encode()
    if kw.pop("deflated", False):
        kw.update(method=8, size=len(text), crc=zlib.crc32(text))
        text = deflate(text)
    return zip_of([(b"0.payload", payload, {}), (b"0.manifest.json", text, kw)])


def sparse_tdf(path, n, text):
    """a payload of n bytes that takes no room, and a manifest"""
    local = lambda name, size: struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 45, 0, 0, 0, 33, 0 if name == b"0.payload" else zlib.crc32(text), size, size, len(name), 0) + name
    central = lambda name, size, off: struct.pack("<4sHHHHHHIIIHHHHHII", b"PK\1\2", 45, 45, 0, 0, 0, 33, 0 if name == b"0.payload" else zlib.crc32(text), size, size, len(name), 0, 0, 0, 0, 0, off) + name
    cd = central(b"0.payload", n, 0) + central(b"0.manifest.json", len(text), 39 + n)
    with open(path, "wb") as f:
        f.write(local(b"0.payload", n))
        f.seek(39 + n)
        f.write(local(b"0.manifest.json", len(text)) + text + cd + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 2, 2, len(cd), 39 + n + 45 + len(text), 0))


def parts(raw):
    """(payload, manifest as a dict) of a good file"""
    import io, zipfile
    with zipfile.ZipFile(io.BytesIO(raw)) as z:
        return z.read("0.payload"), json.loads(z.read("0.manifest.json"))


# --- AES-256-GCM and its GHASH, RSA-OAEP: enough to make a TDF with a key of our choice ---

_c = ctypes.CDLL("libcrypto.so.3")
for _f in ("EVP_CIPHER_CTX_new", "EVP_aes_256_gcm", "EVP_aes_256_ecb"):
    getattr(_c, _f).restype = ctypes.c_void_p


def _crypt(cipher, key, iv, data, tag=None, aad=None):
    """encrypt, or decrypt if there is a tag; (data, tag) or None"""
    ctx, n = ctypes.c_void_p(_c.EVP_CIPHER_CTX_new()), ctypes.c_int()
    out, enc, gcm = ctypes.create_string_buffer(len(data) + 32), tag is None, iv is not None
    _c.EVP_CipherInit_ex(ctx, ctypes.c_void_p(getattr(_c, cipher)()), None, key, iv, int(enc))
    _c.EVP_CIPHER_CTX_set_padding(ctx, 0)
    _c.EVP_CipherUpdate(ctx, out, ctypes.byref(n), data, len(data))
    t = ctypes.create_string_buffer(tag or b"", 16)
    if gcm and not enc:
        _c.EVP_CIPHER_CTX_ctrl(ctx, 0x11, 16, t)
    good = _c.EVP_CipherFinal_ex(ctx, ctypes.byref(out, n.value), ctypes.byref(ctypes.c_int()))
    if gcm and enc:
        _c.EVP_CIPHER_CTX_ctrl(ctx, 0x10, 16, t)
    _c.EVP_CIPHER_CTX_free(ctx)
    return (out.raw[:len(data)], t.raw) if good == 1 else None


def gcm_seal(key, iv, plain):
    ct, tag = _crypt("EVP_aes_256_gcm", key, iv, plain)
    return iv + ct + tag


def gcm_open(key, stored):
    r = _crypt("EVP_aes_256_gcm", key, stored[:12], stored[12:-16], tag=stored[-16:])
    return r and r[0]


def aes(key, block):
    return _crypt("EVP_aes_256_ecb", key, None, block)[0]


def _mul(x, y):
    """in GF(2^128) as GCM counts its bits"""
    z = 0
    for i in range(127, -1, -1):
        if x >> i & 1:
            z ^= y
        y = y >> 1 ^ (0xE1 << 120 if y & 1 else 0)
    return z


def _inv(x):
    r, p = 1 << 127, x
    for _ in range(127):  # x^(2^128 - 2)
        p = _mul(p, p)
        r = _mul(r, p)
    return r


def two_key_segment(k1, k2, iv):
    """a stored segment of two blocks whose tag is right under both keys: the second block is solved for"""
    num = lambda b: int.from_bytes(b, "big")
    c1, lens = num(b"salamander block"), num(struct.pack(">QQ", 0, 256))
    def rest(k):  # tag without the second block, and what that is multiplied with
        h = num(aes(k, b"\0" * 16)); h2 = _mul(h, h)
        return _mul(c1, _mul(h2, h)) ^ _mul(lens, h) ^ num(aes(k, iv + b"\0\0\0\1")), h2
    (a, x), (b, y) = rest(k1), rest(k2)
    c2 = _mul(a ^ b, _inv(x ^ y))
    return iv + c1.to_bytes(16, "big") + c2.to_bytes(16, "big") + (a ^ _mul(c2, x)).to_bytes(16, "big")


class Rsa:
    """a KAS key of our own, for --kas-key"""

    def __init__(self, path):
        self.path = path
        subprocess.run(["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", path], check=True, capture_output=True)

    def wrap(self, dek, policy, **kw):
        w = subprocess.run(["openssl", "pkeyutl", "-encrypt", "-inkey", self.path, "-pkeyopt", "rsa_padding_mode:oaep"], input=dek, check=True, capture_output=True).stdout
        return {"type": "wrapped", "url": "https://kas.example", "protocol": "kas", "wrappedKey": b64(w), "policyBinding": binding(dek, policy), **kw}


def b64(b):
    return base64.b64encode(b).decode()


def mac(key, data):
    return hmac.new(key, data, hashlib.sha256).digest()


def binding(dek, policy):
    return {"alg": "HS256", "hash": b64(mac(dek, policy.encode()).hex().encode())}


def manifest_of(segments, sizes, s, dek, key_access, policy):
    tags = [x[-16:] for x in segments]
    return {"payload": {"type": "reference", "url": "0.payload", "protocol": "zip", "isEncrypted": True, "mimeType": "text/plain"},
            "encryptionInformation": {"type": "split", "keyAccess": key_access, "method": {"algorithm": "AES-256-GCM", "isStreamable": True, "iv": ""}, "policy": policy,
                "integrityInformation": {"rootSignature": {"alg": "HS256", "sig": b64(mac(dek, b"".join(tags)))}, "segmentHashAlg": "GMAC", "segmentSizeDefault": s, "encryptedSegmentSizeDefault": s + 28,
                    "segments": [{"hash": b64(t), "segmentSize": n, "encryptedSegmentSize": n + 28} for t, n in zip(tags, sizes)]}},
            "schemaVersion": "4.3.0"}


# --- what becomes of them ---

def place(store, bads):
    for b in bads:
        with open(f"{store}/{b.name}.tdf", "wb") as f:
            f.write(b.raw)


def _pread(path, n, off):
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.pread(fd, n, off)
    finally:
        os.close(fd)


def mount_reads(mnt, b):
    """None, or what is wrong with how the mount reads it: exactly the bad segments are EIO, everything else is right"""
    path = f"{mnt}/{b.name}"
    os.stat(path)
    if b.bad == WHOLE:
        try:
            got = _pread(path, len(b.plain) + 100, 0)
        except OSError as e:
            return None if e.errno in REFUSED else f"{errno.errorcode[e.errno]} for EIO"
        return f"{len(got)} bytes could be read"
    n = n_segs(len(b.plain), b.s)
    spots = range(n) if n < 50 else sorted({0, 1, n // 2, n - 1, *b.bad})
    for i in spots:
        lo, hi = i * b.s, min((i + 1) * b.s, len(b.plain))
        for off, cnt in ((lo, 1), (hi - 7, 7), (lo + (hi - lo) // 2, 5)):
            off = max(off, 0)
            want = b.plain[off:min(off + cnt, hi)]
            if not want:  # an empty file: nothing that could be wrong is read
                continue
            try:
                got = _pread(path, len(want), off)
            except OSError as e:
                if e.errno != errno.EIO or i not in b.bad:
                    return f"segment {i}: {errno.errorcode[e.errno]}"
                continue
            if i in b.bad:
                return f"segment {i} is bad and was read"
            if got != want:
                return f"segment {i}: WRONG BYTES"
    try:
        whole = open(path, "rb").read()
    except OSError as e:
        return None if e.errno == errno.EIO and b.bad else f"all of it: {errno.errorcode[e.errno]}"
    if whole != b.plain or (b.bad and b.plain):
        return "all of it: WRONG BYTES" if whole != b.plain else "all of it was read"
    return None


def verify_says(keys, *paths):
    """{path: WHOLE or set of segments} of `tdfs verify`, all files that it looked at"""
    r = run("verify", "--json", "-q", *keys, *paths)
    said = json.loads(r.stdout)
    bad = {}
    for f in said["failed"]:
        segs = [p.get("segment") for p in f["problems"]]
        bad[f["path"]] = WHOLE if f["count"] > len(segs) else {s for s in segs if s is not None} or WHOLE
    for kind in ("no_key", "incomplete"):
        for f in said[kind]:
            bad[f if isinstance(f, str) else f["path"]] = WHOLE
    assert r.returncode == (3 if bad else 0), (r.returncode, r.stderr)
    return bad


def verify_agrees(keys, store, bads):
    """what is wrong with what `tdfs verify` says of all of them"""
    got, wrong = verify_says(keys, store), []
    for b in bads:
        said, n = got.pop(f"{store}/{b.name}.tdf", set()), n_segs(len(b.plain), b.s)
        all_of_it = said == WHOLE or said == set(range(n))
        if not (all_of_it if b.bad == WHOLE or len(b.bad) > 6 else said == b.bad):  # not more than a few are listed
            wrong.append(f"{b.name}: verify says {said}, it is {b.bad}")
    return wrong + [f"{p}: {what}" for p, what in got.items()]


def tool_reads(keys, path, b, out):
    """the same of `tdfs cat` and `tdfs decrypt`: right bytes up to the first bad segment, a file only if all of it is right"""
    good = not b.bad or (b.bad != WHOLE and not b.plain)  # nothing of an empty file can be wrong
    r = run("cat", *keys, path)
    limit = 0 if b.bad == WHOLE else len(b.plain) if good else min(b.bad) * b.s
    if (r.returncode == 0) != good or r.returncode not in (0, 1, 3, 7) or (not good and not r.stderr):
        return f"cat ended with {r.returncode}: {r.stderr.decode()[-200:]}"
    if len(r.stdout) > limit or r.stdout != b.plain[:len(r.stdout)] or (good and r.stdout != b.plain):
        return f"cat printed {len(r.stdout)} bytes, {limit} can be trusted"
    r = run("decrypt", *keys, "-o", out, path)
    if (r.returncode == 0) != good or r.returncode not in (0, 1, 3, 7):
        return f"decrypt ended with {r.returncode}: {r.stderr.decode()[-200:]}"
    if good and open(out, "rb").read() != b.plain:
        return "decrypt: WRONG BYTES"
    if good:
        os.unlink(out)
    left = [n for n in os.listdir(os.path.dirname(out))]
    return f"decrypt left {left}" if left else None


def complain(problems):
    for p in problems[:20]:
        print("FAIL:", p)
    if problems:
        raise SystemExit(f"{len(problems)} problems")
