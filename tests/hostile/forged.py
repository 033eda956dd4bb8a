# SPDX-License-Identifier: Apache-2.0
"""The steps of the case `forged`."""
import copy, errno, pickle, shutil, threading
from hostile import *
from t import M, S, TMP, LONG, blob, write

KEYS = ("--volume", S, "--keyfile", TMP + "/key")
PLAIN = blob(3 * SEG + SEG // 2, "forged")
LEN = len(PLAIN)
CROWD = 3
SANITIZED = "asan" in TDFS or "tsan" in TDFS


def read(path):
    with open(path, "rb") as f:
        return f.read()


def make():
    write(M + "/sealed", PLAIN)


# --- the manifest ---

def edited(man, path, value):
    """a copy with one member set, or taken away (value ...)"""
    m = copy.deepcopy(man)
    at_ = m
    for k in path[:-1]:
        at_ = at_[k]
    if value is ...:
        del at_[path[-1]]
    else:
        at_[path[-1]] = value
    assert json.dumps(m) != json.dumps(man)
    return m


EI, II = ("encryptionInformation",), ("encryptionInformation", "integrityInformation")
ROOT, SEGS, KA = II + ("rootSignature",), II + ("segments",), EI + ("keyAccess", 0)
ODD = ["", "hs256", "HS256 ", " HS256", "HS-256", "HS384", "HS512", "HMAC", "SHA256", "none", "None", "NONE", "null", "gmac", "Gmac", "GMAC ", "GMAC\t", "GMA", "GMACC", "AES-GMAC", "CMAC", "CRC32", "0", "1", None, True, 0, 1, [], {}, ["HS256"], ["GMAC"]]


def enums(man):
    for path, right, odd in (
            (ROOT + ("alg",), "HS256", ODD + ["GMAC", ...]), (II + ("segmentHashAlg",), "GMAC", ODD + ["HS256"]),
            (("payload", "isEncrypted"), True, [False, "true", 1, None, ...]), (("payload", "type"), "reference", ["", "Reference", "inline", None, ...]), (("payload", "protocol"), "zip", ["", "ZIP", "http", "file", None, ...]),
            (EI + ("type",), "split", ["", "shamir", "remote", None, ...]), (EI + ("method", "algorithm"), "AES-256-GCM", ["", "aes-256-gcm", "AES-128-GCM", "AES-256-CBC", "none", None, ...]),
            (KA + ("policyBinding",), 0, [..., "", "AAAA", {}, {"alg": "HS256"}, {"alg": "HS256", "hash": ""}, {"alg": "HS256", "hash": "!"}, None, 1]), (KA + ("policyBinding", "alg"), "HS256", ["none", "", "hs256", "HS512", None, 1]),
            (KA + ("wrappedKey",), 0, [..., "", "AAAA", "A" * 40000, None]), (KA + ("type",), 0, ["", "remote", "WRAPPED", None, ...]), (EI + ("keyAccess",), 0, [[], {}, None, [None], ..., [{}] * 17]),
            (ROOT + ("sig",), 0, ["", "AAAA", b64(bytes(32)), b64(bytes(31)), b64(b"00" * 32), None, ...]), (SEGS, 0, [[], {}, None, ..., [None], [[]], ["x"]])):
        for v in odd:
            assert v is ... or v != right or isinstance(v, bool) != isinstance(right, bool)
            yield f"{path[-1]}={v!r:.20}", edited(man, path, v)
    h = man["encryptionInformation"]["keyAccess"][0]["policyBinding"]["hash"]
    yield "binding-cut", edited(man, KA + ("policyBinding", "hash"), h[:-4])
    yield "binding-of-another-policy", edited(man, KA + ("policyBinding",), binding(b"k" * 32, man["encryptionInformation"]["policy"]))


def policies(man):
    p = man["encryptionInformation"]["policy"]
    for i in (0, len(p) // 2, len(p) - 5):
        yield f"policy-{i}", edited(man, EI + ("policy",), p[:i] + ("A" if p[i] != "A" else "B") + p[i + 1:])
    text = json.loads(base64.b64decode(p))
    text["body"]["dissem"] = ["mallory@example.org"]
    yield "policy-other", edited(man, EI + ("policy",), b64(json.dumps(text).encode()))
    yield "policy-same-meaning", edited(man, EI + ("policy",), b64(json.dumps(json.loads(base64.b64decode(p)), indent=1).encode()))


def consistent(pay, man):
    """A10, A11: payload and manifest changed alike, the signature not, or in place of it what some reader took for one"""
    def both(order):
        segs = man["encryptionInformation"]["integrityInformation"]["segments"]
        off = [sum(g["encryptedSegmentSize"] for g in segs[:i]) for i in range(len(segs) + 1)]
        return b"".join(pay[off[i]:off[i + 1]] for i in order), edited(man, SEGS, [segs[i] for i in order])
    for what, order in (("swapped", [1, 0, 2, 3]), ("cut", [0, 1, 2]), ("twice", [0, 1, 1, 2, 3]), ("last-first", [3, 0, 1, 2])):
        p, m = both(order)
        yield what, p, m
        g = edited(m, ROOT + ("alg",), "GMAC")
        yield what + "-gmac-root", p, edited(g, ROOT + ("sig",), m["encryptionInformation"]["integrityInformation"]["segments"][-1]["hash"])
        yield what + "-hash-root", p, edited(m, ROOT + ("sig",), m["encryptionInformation"]["integrityInformation"]["segments"][-1]["hash"])


NUMBERS = ["0", "-1", "-0", "1", "16383", "16385", "2147483648", "4294967296", "4294983680", "9007199254740993", "9223372036854775807", "9223372036854775808", "18446744073709551616", "1e400", "-1e400", "1.5", "1.6384e4", "016384", "0x4000", "+16384",
           '"16384"', "null", "true", "[]", "NaN", "16384 16384"]

# null is as good as no such member, as other readers have it: the default counts
ABSENT = ("segmentHashAlg=None", "segmentSize=null", "encryptedSegmentSize=null")


def sizes(man):
    text = json.dumps(man, separators=(",", ":"))
    for key in ("segmentSizeDefault", "encryptedSegmentSizeDefault", "segmentSize", "encryptedSegmentSize"):
        was = f'"{key}":{SEG + 28 if "encrypted" in key else SEG}'
        assert was in text
        for n in NUMBERS:
            yield f"{key}={n}", text.replace(was, f'"{key}":{n}', 1).encode()
    for n in ("0", "4194304", "134217728", "134217729", "4294967268"):  # both alike
        pair = lambda a, b: f'"segmentSize":{a},"encryptedSegmentSize":{b}'
        assert pair(SEG, SEG + 28) in text
        yield f"both={n}", text.replace(pair(SEG, SEG + 28), pair(n, int(n) + 28), 1).encode()
    yield "many", text.replace('"segments":[', '"segments":[' + '{"hash":"AAAAAAAAAAAAAAAAAAAAAA=="},' * 100000).encode()


def json_forms(man):
    text = json.dumps(man, separators=(",", ":")).encode()
    x = lambda more: text[:-1] + b',"x":' + more + b"}"
    return [("deep", x(b"[" * 1000000 + b"]" * 1000000)), ("deep-objects", x(b'{"a":' * 200000 + b"1" + b"}" * 200000)), ("unclosed", x(b"[" * 1000000)), ("1e400", x(b"1e400")),
            ("utf8", x(b'"\xff\xfe"')), ("surrogate", x(b'"\\ud800"')), ("nul", x(b'"\\u0000"')), ("raw-nul", x(b'"\0"')), ("behind", text + b"{}"), ("twice", text + text), ("cut", text[:-1]), ("empty", b""), ("no-object", b"[]"),
            ("duplicate", text[:-1] + b',"payload":' + json.dumps(man["payload"]).encode() + b"}"), ("duplicate-escaped", b'{"p\\u0061yload":{},' + text[1:]),
            ("duplicate-segments", text.replace(b'"segments":', b'"segments":[],"segments":', 1)), ("duplicate-hash", text.replace(b'{"hash":', b'{"hash":"AAAA","hash":', 1)), ("values", x(b"[" + b"1," * 3000000 + b"1]")),
            ("long-string", x(b'"' + b"a" * (12 << 20) + b'"')), ("long-policy", text.replace(b'"policy":"', b'"policy":"' + b"A" * (4 << 20), 1)), ("long-space", text[:-1] + b" " * (9 << 20) + b"}"), ("segments-bomb", text.replace(b'"segments":[', b'"segments":[' + b"{}," * 4000000, 1))]


# --- the zip ---

def zips(pay, man):
    text = json.dumps(man, separators=(",", ":")).encode()
    P = lambda **f: (b"0.payload", pay, f)
    J = lambda **f: (b"0.manifest.json", text, f)
    n = len(pay)
    good = zip_of([P(), J()])
    z64 = lambda *v: struct.pack("<HH", 1, 8 * len(v)) + b"".join(struct.pack("<Q", x) for x in v)
    end64 = lambda count, size, off, where: struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, off) + struct.pack("<4sIQI", b"PK\6\7", 0, where, 1) + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 65535, 65535, ALL, ALL, 0)
    ALL, cd = 0xFFFFFFFF, good[:-22]
    size, off = struct.unpack_from("<II", good, len(good) - 10)
    assert cd + end64(2, size, off, len(cd)) != good
    yield "good-zip64-end", cd + end64(2, size, off, len(cd)), True
    yield "good-third-entry", zip_of([P(), J(), (b"readme", b"hello", {})]), True
    yield "good-manifest-first", zip_of([J(), P()]), True
    yield "good-comment", zip_of([P(), J()], b"PK\5\6 in a comment" + b"PK\5\6" * 100), True
    yield "good-deflated", tdf(pay, man, deflated=True), True
    for what, args in (("count", ((1 << 64) - 1, size, off, len(cd))), ("count0", (0, size, off, len(cd))), ("size", (2, (1 << 64) - 1, off, len(cd))), ("off", (2, size, 1 << 63, len(cd))), ("off-1", (2, size, (1 << 64) - 1, len(cd))), ("sum", (2, (1 << 64) - off + 5, off, len(cd))),
                       ("where", (2, size, off, 1 << 63)), ("where-1", (2, size, off, (1 << 64) - 56)), ("where-far", (2, size, off, len(cd) + 100))):
        yield "zip64-" + what, cd + end64(*args), False
    for key in ("size", "csize"):
        for v in (0, n - 1, n + 1, ALL - 1):
            yield f"{key}={v}", zip_of([P(**{key: v}), J()]), False
    for v in (1 << 63, (1 << 64) - 1, n + 1):
        yield f"payload-zip64={v}", zip_of([P(size=ALL, csize=ALL, cextra=z64(v, v), extra=z64(v, v)), J()]), False
    yield "local-name", zip_of([P(local_name=b"0.paylaod"), J()]), False
    yield "local-size", zip_of([P(local_size=n - 28), J()]), False
    yield "local-off", zip_of([P(), J(local_off=5)]), False
    yield "local-off-end", zip_of([P(), J(local_off=ALL - 1)]), False
    yield "local-off-of-payload", zip_of([P(), J(local_off=0)]), False
    yield "two-payloads", zip_of([P(), J(), (b"0.payload", pay[::-1], {})]), False
    yield "two-manifests", zip_of([P(), J(), (b"0.manifest.json", text, {})]), False
    yield "no-payload", zip_of([J()]), False
    yield "no-manifest", zip_of([P()]), False
    yield "payload-deflated", zip_of([(b"0.payload", deflate(pay), {"method": 8, "size": n, "crc": zlib.crc32(pay)}), J()]), False
    yield "payload-method", zip_of([P(method=12), J()]), False
    yield "manifest-method", zip_of([P(), J(method=9)]), False
    yield "encrypted", zip_of([P(flags=1), J()]), False
    yield "strong-encryption", zip_of([P(flags=0x41), J()]), False
    yield "manifest-crc", zip_of([P(), J(crc=1)]), False
    yield "manifest-inflates-short", zip_of([P(), (b"0.manifest.json", deflate(text), {"method": 8, "size": len(text) + 1, "crc": zlib.crc32(text)})]), False
    yield "manifest-inflates-long", zip_of([P(), (b"0.manifest.json", deflate(text), {"method": 8, "size": len(text) - 1, "crc": zlib.crc32(text[:-1])})]), False
    yield "manifest-4g", zip_of([P(), (b"0.manifest.json", deflate(text), {"method": 8, "size": ALL - 1})]), False
    yield "entries", zip_of([P(), J()] + [(b"e%d" % i, b"", {}) for i in range(1000)]), False
    field = lambda n: struct.pack("<HH", 0x7777, n - 4) + bytes(n - 4)
    yield "good-fields", zip_of([P(extra=field(16000), cextra=field(16000)), J()]), True
    yield "good-local-header-large", zip_of([P(extra=field(17000)), J()]), True
    yield "directory-large", zip_of([P(), J()] + [(b"e%d" % i, b"", {"cextra": field(9000)}) for i in range(8)]), False
    yield "overlap", zip_of([P(), J(), (b"x", b"", {"local_off": 0, "local_name": b"0.payload"})]), False
    yield "extra-overflow", zip_of([P(size=ALL, csize=ALL, cextra=struct.pack("<HH", 1, 60000) + b"12345678"), J()]), False
    yield "good-two-ends", good + good[-22:], True  # the same directory for both
    yield "comment-too-long", good[:-2] + b"\xff\xff", False


def forge():
    r = run("encrypt", "--segment-size", str(SEG), *KEYS, "-o", TMP + "/f.tdf", _tmp("plain", PLAIN))
    assert r.returncode == 0, r.stderr
    pay, man = parts(read(TMP + "/f.tdf"))
    r = run("encrypt", "--segment-size", str(SEG), *KEYS, "-o", TMP + "/g.tdf", TMP + "/plain")
    pay2, man2 = parts(read(TMP + "/g.tdf"))
    good = tdf(pay, man)
    bads, odd = [Bad("good", good, PLAIN, set()), Bad("good-more-members", tdf(pay, edited(man, ("x",), {"y": [1, 2]})), PLAIN, set()), Bad("good-white-space", tdf(pay, json.dumps(man, indent=3).encode()), PLAIN, set())], []
    rogue = {**man["encryptionInformation"]["keyAccess"][0], "url": "https://kas.evil", "kid": "evil", "wrappedKey": b64(os.urandom(60))}
    for i, kas in enumerate(([rogue, man["encryptionInformation"]["keyAccess"][0]], [man["encryptionInformation"]["keyAccess"][0], rogue])):
        bads.append(Bad(f"good-other-kas-{i}", tdf(pay, edited(man, EI + ("keyAccess",), kas)), PLAIN, set()))
    bads.append(Bad("split-with-other-kas", tdf(pay, edited(man, EI + ("keyAccess",), [{**rogue, "sid": "b"}, {**man["encryptionInformation"]["keyAccess"][0], "sid": "a"}])), PLAIN, WHOLE))
    for what, m in (*enums(man), *policies(man), *sizes(man), *json_forms(man)):
        absent = what in ABSENT
        bads.append(Bad("good-" * absent + what, tdf(pay, m, deflated=isinstance(m, bytes) and len(m) > 1 << 20), PLAIN, set() if absent else WHOLE))
    for what, p, m in consistent(pay, man):
        bads.append(Bad(what, tdf(p, m), PLAIN, WHOLE))
    bads.append(Bad("manifest-of-another", tdf(pay, man2), PLAIN, WHOLE))
    bads.append(Bad("keys-of-another", tdf(pay, edited(man, EI + ("keyAccess",), man2["encryptionInformation"]["keyAccess"])), PLAIN, WHOLE))
    for what, raw, ok in zips(pay, man):
        bads.append(Bad(what, raw, PLAIN, set() if ok else WHOLE))
    m = copy.deepcopy(man)  # sizes are not signed: what is read where they lie fails by its tag
    for g, d in zip(m["encryptionInformation"]["integrityInformation"]["segments"], (-1, 1)):
        g["segmentSize"] += d
        g["encryptedSegmentSize"] += d
    bads.append(Bad("shifted", tdf(pay, m), PLAIN, {0, 1}))
    sealed = read(S + "/sealed.tdf")
    bads.append(Bad("good-record-stripped", tdf(*parts(sealed)), PLAIN, set()))  # ours without our mark is another's
    for k, b in enumerate(bads):
        assert b.name.startswith("good") == (not b.bad) and (b.raw != good or k == 0), b.name
        b.name = f"{k:03}-" + "".join(c if c.isalnum() or c in "=-." else "_" for c in b.name)
    place(S, bads)
    os.mkdir(S + "/crowd")
    bomb = tdf(pay, json.dumps(man).encode()[:-1] + b" " * (60 << 20) + b"}", deflated=True)
    for i in range(CROWD):
        write(f"{S}/crowd/bomb{i}.tdf", bomb)
    m = copy.deepcopy(man)  # sizes are not signed
    g = m["encryptionInformation"]["integrityInformation"]["segments"]
    g[0].update(segmentSize=1 << 27, encryptedSegmentSize=(1 << 27) + 28)
    sparse_tdf(S + "/crowd/segment.tdf", sum(x["encryptedSegmentSize"] for x in g), json.dumps(m).encode())
    with open(TMP + "/bads", "wb") as f:
        pickle.dump(bads, f)
    print(f"{len(bads)} files, {sum(not b.bad for b in bads)} of them good")
    assert len(bads) > 250


def _tmp(name, data):
    write(f"{TMP}/{name}", data)
    return f"{TMP}/{name}"


def all_bads():
    with open(TMP + "/bads", "rb") as f:
        return pickle.load(f)


def cpu(pid):
    f = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(f[11]) + int(f[12])) / os.sysconf("SC_CLK_TCK")


def look():
    pid, wrong = os.environ["DAEMON"], []
    for b in all_bads():
        was = cpu(pid)
        if p := mount_reads(M, b):
            wrong.append(f"{b.name}: {p}")
        used = cpu(pid) - was
        if used > 4 and not SANITIZED:
            wrong.append(f"{b.name}: took the daemon {used:.1f} s")
        if not b.bad and os.getxattr(f"{M}/{b.name}", "user.tdfs.origin") != b"foreign":
            wrong.append(f"{b.name}: not shown as foreign")
        for flags in (os.O_RDWR, os.O_WRONLY | os.O_TRUNC):
            try:
                os.close(os.open(f"{M}/{b.name}", flags))
                wrong.append(f"{b.name}: may be written")
            except OSError as e:
                if e.errno not in (REFUSED if b.bad else (errno.EROFS,)):
                    wrong.append(f"{b.name}: writing: {errno.errorcode[e.errno]}")
    most = peak()
    print(f"the daemon took {most} MiB at most")
    if most > 320 and not SANITIZED:
        wrong.append(f"the daemon took {most} MiB")
    complain(wrong)


def crowd():
    """many at once: what is large is taken one at a time"""
    errors = []
    def reader(name, off):
        try:
            os.pread(os.open(f"{M}/crowd/{name}", os.O_RDONLY), 10, off)
            errors.append(0)
        except OSError as e:
            errors.append(e.errno)
    assert os.stat(M + "/crowd/segment").st_size > 1 << 27
    threads = [threading.Thread(target=reader, args=a) for i in range(CROWD) for a in ((f"bomb{i}", 0), ("segment", i << 20))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    most = peak()
    print(f"{len(threads)} at once: {most} MiB at most")
    assert errors == [errno.EIO] * len(threads), errors
    assert most < 420 or SANITIZED, f"{most} MiB"


def peak():
    return int([x for x in open(f"/proc/{os.environ['DAEMON']}/status") if x.startswith("VmHWM")][0].split()[1]) >> 10


def verify():
    shutil.rmtree(S + "/crowd")
    complain(verify_agrees(KEYS, S, all_bads()))


def tools():
    os.mkdir(TMP + "/out")
    rng, wrong = seed(), []
    for b in all_bads():
        if LONG or not b.bad or rng.random() < 0.15:
            if p := tool_reads(KEYS, f"{S}/{b.name}.tdf", b, TMP + "/out/x"):
                wrong.append(f"{b.name}: {p}")
    complain(wrong)


# --- with a KAS key of our own: the data key is known here ---

def own_key():
    kas, other = Rsa(TMP + "/kas.pem"), Rsa(TMP + "/other.pem")
    k1, k2, policy = os.urandom(32), os.urandom(32), b64(b'{"uuid":"1","body":{"dataAttributes":[],"dissem":[]}}')
    plain = b"known to all who hold the key" * 40
    chunks = [plain[i:i + 300] for i in range(0, len(plain), 300)]
    segs = [gcm_seal(k1, os.urandom(12), c) for c in chunks]
    man = manifest_of(segs, [len(c) for c in chunks], 300, k1, [kas.wrap(k1, policy)], policy)
    pay = b"".join(segs)
    raw_binding = {"alg": "HS256", "hash": b64(mac(k1, policy.encode()))}
    wrong, bads = [], [Bad("good", tdf(pay, man), plain, set(), 300), Bad("good-raw-binding", tdf(pay, edited(man, KA + ("policyBinding",), raw_binding)), plain, set(), 300),
                       Bad("good-bare-binding", tdf(pay, edited(man, KA + ("policyBinding",), man["encryptionInformation"]["keyAccess"][0]["policyBinding"]["hash"])), plain, set(), 300)]
    hexed = copy.deepcopy(man)  # the 4.2 form: hex of everything, and signed so
    ii = hexed["encryptionInformation"]["integrityInformation"]
    for g, s in zip(ii["segments"], segs):
        g["hash"] = b64(s[-16:].hex().encode())
    ii["rootSignature"]["sig"] = b64(mac(k1, b"".join(s[-16:].hex().encode() for s in segs)).hex().encode())
    for what, m in (("good-hex", hexed), ("good-hex-no-version", edited(hexed, ("schemaVersion",), ...)), ("good-no-version", edited(man, ("schemaVersion",), ...))):
        bads.append(Bad(what, tdf(pay, m), plain, set(), 300))  # the version is not believed, the length of a hash is
    mixed = copy.deepcopy(hexed)
    mixed["encryptionInformation"]["integrityInformation"]["rootSignature"] = man["encryptionInformation"]["integrityInformation"]["rootSignature"]
    bads.append(Bad("hex-and-raw", tdf(pay, mixed), plain, WHOLE, 300))
    for what, kas_list, bad in (("chosen-key-first", [kas.wrap(k2, policy), kas.wrap(k1, policy)], None), ("chosen-key-last", [kas.wrap(k1, policy), kas.wrap(k2, policy)], None), ("chosen-key", [kas.wrap(k2, policy)], WHOLE),
                                ("binding-of-the-other", [{**kas.wrap(k1, policy), "policyBinding": binding(k2, policy)}], WHOLE), ("attackers-split", [kas.wrap(k1, policy, sid="a"), other.wrap(os.urandom(32), policy, sid="b")], WHOLE), ("split-of-nothing", [kas.wrap(k1, policy, sid="a"), kas.wrap(bytes(32), policy, sid="b")], set())):
        bads.append(Bad(what, tdf(pay, edited(man, EI + ("keyAccess",), kas_list)), plain, bad, 300))
    os.mkdir(TMP + "/own")
    place(TMP + "/own", bads)
    for b in bads:
        if b.bad is None:  # alternatives that contradict each other: an error, or the content that was signed
            r = run("cat", "--kas-key", kas.path, f"{TMP}/own/{b.name}.tdf")
            ok = r.stdout in (b"", plain) and (r.returncode == 0) == (r.stdout == plain)
            if not ok:
                wrong.append(f"{b.name}: {r.returncode}, {len(r.stdout)} bytes")
        elif p := tool_reads(("--kas-key", kas.path), f"{TMP}/own/{b.name}.tdf", b, TMP + "/out/x"):
            wrong.append(f"{b.name}: {p}")
    # A16: one stored segment, two contents; whoever holds k1 could be shown another file than whoever holds k2
    seg = two_key_segment(k1, k2, os.urandom(12))
    p1, p2 = gcm_open(k1, seg), gcm_open(k2, seg)
    assert p1 and p2 and p1 != p2, "the segment opens under both keys"
    two = [kas.wrap(k1, policy), other.wrap(k2, policy)]
    for order in (two, two[::-1]):
        write(TMP + "/own/two.tdf", tdf(seg, manifest_of([seg], [32], 32, k1, order, policy)))
        for key, want in ((kas, p1), (other, None)):
            r = run("cat", "--kas-key", key.path, TMP + "/own/two.tdf")
            if (r.stdout, r.returncode == 0) != ((want, True) if want else (b"", False)):
                wrong.append(f"two keys: {r.returncode} {r.stdout} {r.stderr}")
    complain(wrong)


globals()[os.sys.argv[1]]()
