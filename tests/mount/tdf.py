# SPDX-License-Identifier: Apache-2.0
"""A second, independent reader of the files at rest: python's zipfile, json and the rules of the OpenTDF specification.

tdf.py check DIR [void]
                    every *.tdf below DIR is a good zip (CRCs too) with a manifest whose fields have the right values and sizes;
                    with `void` after a crash: files that were never committed may be there too
tdf.py info FILE    prints: segment size, number of segments, payload offset
"""
import base64, json, os, struct, sys, zipfile


class Bad(Exception):
    pass


def need(cond, text):
    if not cond:
        raise Bad(text)


def load(path):
    """the manifest, the zip's entries; raises Bad"""
    with zipfile.ZipFile(os.fsdecode(path)) as z:
        names = [(i.filename, i.compress_type, i.flag_bits) for i in z.infolist()]
        need(names == [("0.payload", 0, 0), ("0.manifest.json", 0, 0)], f"entries are {names}")
        bad = z.testzip()
        need(bad is None, f"CRC-32 of {bad} is wrong")
        return json.loads(z.read("0.manifest.json")), z.getinfo("0.payload"), z.getinfo("0.manifest.json")


def check(path):
    man, payload, entry = load(path)
    size = os.path.getsize(path)
    need(list(man) == ["schemaVersion", "payload", "encryptionInformation"] or "assertions" in man, f"top-level fields {list(man)}")
    need(man["payload"] == {"type": "reference", "url": "0.payload", "protocol": "zip", "isEncrypted": True, "mimeType": "application/octet-stream"}, "payload object")
    enc = man["encryptionInformation"]
    need(enc["type"] == "split", "encryptionInformation.type")
    need(enc["method"]["algorithm"] == "AES-256-GCM" and enc["method"]["isStreamable"] is True, "method")
    policy = json.loads(base64.b64decode(enc["policy"], validate=True))
    need("uuid" in policy and "body" in policy, "policy text")
    need(len(enc["keyAccess"]) >= 1, "no key access")
    for ka in enc["keyAccess"]:
        need(ka["type"] in ("wrapped", "ec-wrapped"), f"key access type {ka['type']}")
        need(ka["protocol"] == "kas" and ka["url"], "key access protocol and url")
        need(len(base64.b64decode(ka["wrappedKey"], validate=True)) >= 60, "wrappedKey")
        binding = ka["policyBinding"]
        need(binding["alg"] == "HS256", "policyBinding.alg")
        need(len(bytes.fromhex(base64.b64decode(binding["hash"], validate=True).decode())) == 32, "policyBinding.hash is no base64(hex(32 bytes))")
        if ka["type"] == "ec-wrapped":
            need("BEGIN PUBLIC KEY" in ka["ephemeralPublicKey"], "ephemeralPublicKey")
    integ = enc["integrityInformation"]
    need(integ["segmentHashAlg"] == "GMAC" and integ["rootSignature"]["alg"] == "HS256", "integrity algorithms")
    need(len(base64.b64decode(integ["rootSignature"]["sig"], validate=True)) == 32, "root signature")
    s, segs = integ["segmentSizeDefault"], integ["segments"]
    need(integ["encryptedSegmentSizeDefault"] == s + 28, "encryptedSegmentSizeDefault")
    plain = sum(g.get("segmentSize", s) for g in segs)
    need(len(segs) == max(1, -(-plain // s)), f"{len(segs)} segments for {plain} bytes")
    off = 512
    with open(path, "rb") as f:
        head = f.read(512)
        for i, g in enumerate(segs):
            p = g.get("segmentSize", s)
            need(p == min(s, plain - i * s), f"segment {i} holds {p} bytes")
            need(g.get("encryptedSegmentSize", s + 28) == p + 28, f"encrypted size of segment {i}")
            f.seek(off + 12 + p)
            need(base64.b64decode(g["hash"], validate=True) == f.read(16), f"hash of segment {i} is not its GCM tag")
            off += p + 28
    need(payload.file_size == off - 512 and entry.header_offset == off, "payload size against the manifest")
    need(head[:4] == b"PK\3\4" and head[59:61] == b"\x74\x64" and head[335:337] == b"\x70\x64", "first sector")
    need(struct.unpack_from("<HB", head, 63) in ((1, 2), (1, 3)), f"record version, state {struct.unpack_from('<HB', head, 63)}")
    need(struct.unpack_from("<Q", head, 63 + 72)[0] == plain and struct.unpack_from("<Q", head, 63 + 80)[0] == off, "sizes in the native record")
    with open(path, "rb") as f:
        f.seek(size - 22)
        end = f.read(22)
    need(end[:4] == b"PK\5\6" and end[20:22] == b"\0\0", "bytes behind the end record, or a comment")
    return plain


def void(path):
    """created, never committed: empty, a first sector of zeros, or a record in state NEW"""
    with open(path, "rb") as f:
        head = f.read(512)
    return not head.strip(b"\0") or (head[:4] == b"PK\3\4" and head[59:61] == b"\x74\x64" and head[65] == 1)


def tree(top, void_ok):
    n = bad = 0
    for d, dirs, files in os.walk(top):
        if d == top and ".tdfs" in dirs:
            dirs.remove(".tdfs")
        for name in files:
            path = os.path.join(os.fsencode(d), os.fsencode(name))
            if os.path.islink(path) or not os.path.isfile(path):
                continue
            n += 1
            if void_ok and void(path):
                continue
            try:
                need(name.endswith(".tdf"), "a regular file that is no .tdf")
                check(path)
            except (Bad, KeyError, ValueError, TypeError, zipfile.BadZipFile, struct.error) as e:
                bad += 1
                if bad <= 10:
                    print(f"{os.fsdecode(path)}: {type(e).__name__}: {e}")
    print(f"{n} files at rest, {bad} bad")
    return 1 if bad else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["check"] and sys.argv[3:] in ([], ["void"]):
        sys.exit(tree(sys.argv[2], len(sys.argv) == 4))
    elif sys.argv[1:2] == ["info"] and len(sys.argv) == 3:
        man, payload, _ = load(sys.argv[2])
        integ = man["encryptionInformation"]["integrityInformation"]
        print(integ["segmentSizeDefault"], len(integ["segments"]), 512)
    else:
        sys.exit(__doc__)
