# SPDX-License-Identifier: Apache-2.0
"""The cases of sdks and of platform: what each partner and tdfs can make of each other's files, and a table of it."""
import json, os, subprocess, zipfile

from partners import Missing

LONG = os.environ.get("TDFS_BUDGET") == "long"
SIZES = [0, 1, 65535, 65536, 65537, 5 << 20] + ([200 << 20] if LONG else [])
TO, FROM, OWN = "tdfs writes, it reads", "it writes, tdfs reads", "it writes, it reads"


def content(path):
    with open(path, "rb") as f:
        return f.read()


def put(path, data):
    with open(path, "wb") as f:
        f.write(data)


class Table:
    def __init__(self, partners):
        self.names, self.rows, self.bad, self.n = [p.name for p in partners], {}, 0, 0

    def add(self, p, case, direction, good, text=""):
        text = text.decode(errors="replace") if isinstance(text, bytes) else text
        self.n += 1
        self.bad += not good
        self.rows.setdefault((case, direction), {})[p.name] = "ok" if good else "FAIL"
        if not good:
            print(f"FAIL  {p.name}: {case} ({direction}): {text.strip()[-600:]}", flush=True)

    def show(self):
        wide = [max(len(n), 4) for n in self.names]
        print(f"\n{'case':52} {'direction':22} " + "  ".join(n.ljust(w) for n, w in zip(self.names, wide)))
        for (case, direction), got in self.rows.items():
            print(f"{case:52} {direction:22} " + "  ".join(got.get(n, "-").ljust(w) for n, w in zip(self.names, wide)))
        print(f"{self.n} cases, {self.bad} failed", flush=True)


class Suite:
    """@volume: a Volume whose files the partners can open; @t: a partners.Target"""

    def __init__(self, table, t, tdfs, tmp, passfile, me="alice"):
        self.table, self.t, self.tdfs, self.tmp, self.passfile, self.me = table, t, tdfs, tmp, passfile, me

    def run(self, *args, code=0):
        p = subprocess.run([str(a) for a in (self.tdfs, *args)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600)
        if p.returncode != code:
            raise SystemExit(f"FAIL: tdfs {' '.join(map(str, args))} ended with {p.returncode}: {p.stdout.decode(errors='replace')[-600:]}")
        return p.stdout.decode()

    def mounted(self, store):
        return Mounted(self, store)

    def opens(self, p, case, direction, path, data, id=None, more=()):
        """Whether @p gets @data out of the TDF at @path"""
        out = self.tmp + "/out"
        put(out, b"nothing")
        try:
            r = p.dec(self.t, path, out, id or self.me, more)
        except Missing:
            return
        self.table.add(p, case, direction, r.returncode == 0 and content(out) == data, r.stdout)

    def refused(self, p, case, direction, path, data, id=None):
        out = self.tmp + "/out"
        put(out, b"nothing")
        try:
            r = p.dec(self.t, path, out, id or self.me)
        except Missing:
            return
        self.table.add(p, case, direction, r.returncode != 0 and content(out) != data, b"it was opened: " + r.stdout)

    def write(self, p, case, direction, data, how, attribute=None, id=None):
        """The TDF that @p makes of @data; None if it cannot, which is a failure"""
        put(self.tmp + "/in", data)
        path = self.tmp + "/written.tdf"
        if os.path.exists(path):
            os.unlink(path)
        try:
            r = p.enc(self.t, self.tmp + "/in", path, how, attribute, id or self.me)
        except Missing:
            return None
        if r.returncode:
            self.table.add(p, case, direction, False, r.stdout)
            return None
        return path

    # --- T1, T2: files that a mount wrote ---

    def make_files(self, store, sizes=SIZES):
        """{name: (stored file, content)}"""
        files = {}
        with self.mounted(store) as m:
            for n in sizes:
                data = os.urandom(n)
                put(f"{m}/f{n}", data)
                files[f"{n} bytes"] = (f"{store}/f{n}.tdf", data)
            self.run("sync", m)
            data = bytearray(os.urandom(200000))
            put(f"{m}/edited", data)
            self.run("sync", m)
            with open(f"{m}/edited", "r+b") as f:
                f.seek(100000)
                f.write(b"x" * 1000)
            data[100000:101000] = b"x" * 1000
            self.run("sync", m)
            with open(f"{m}/edited", "ab") as f:
                f.write(b"tail" * 20000)
            data += b"tail" * 20000
            put(f"{m}/cut", data)
            os.truncate(f"{m}/cut", 70001)
            os.rename(f"{m}/cut", f"{m}/renamed")
        files["overwritten and appended"] = (f"{store}/edited.tdf", bytes(data))
        files["truncated and renamed"] = (f"{store}/renamed.tdf", bytes(data[:70001]))
        return files

    def reads(self, p, kind, files):
        for name, (path, data) in files.items():
            if kind in p.kinds and len(data) <= p.most:
                self.opens(p, f"{kind}: {name}", TO, path, data)

    # --- T3, T4: files that a partner wrote ---

    def written(self, p, store, sizes=(0, 1, 65537, 5 << 20)):
        for how in p.writes:
            for n in sizes:
                if n == 0 and p.name.startswith("otdf"):
                    continue  # it leaves the payload empty: no TDF to others either
                case, data = f"{how}: {n} bytes", os.urandom(n)
                path = self.write(p, case, FROM, data, how)
                if not path:
                    continue
                t = subprocess.run([self.tdfs, "cat", path, "--volume", store, "--passfile", self.passfile], stdin=subprocess.DEVNULL, capture_output=True, timeout=600)
                v = subprocess.run([self.tdfs, "verify", path, "--volume", store, "--passfile", self.passfile], stdin=subprocess.DEVNULL, capture_output=True, timeout=600)
                self.table.add(p, case, FROM, t.returncode == 0 and t.stdout == data and v.returncode == 0, t.stderr + v.stdout + v.stderr)
                self.opens(p, case, OWN, path, data)

    def adopted(self, p, store):
        """A partner's file in the store: shown as foreign, read, copied to one of ours, which the partner reads"""
        how, data = next(iter(p.writes)), os.urandom(70000)
        path = self.write(p, "put into the store", FROM, data, how)
        if not path:
            return
        os.replace(path, f"{store}/theirs.tdf")
        try:
            with self.mounted(store) as m:
                origin, got = os.getxattr(f"{m}/theirs", "user.tdfs.origin"), content(f"{m}/theirs")
                put(f"{m}/ours", got)
                os.rename(f"{m}/ours", f"{m}/theirs")
        except OSError as e:
            origin, got = b"", str(e).encode()
        self.table.add(p, "put into the store", FROM, (origin, got) == (b"foreign", data), f"origin {origin}, {got[:100]}")
        if "EC" in p.kinds:
            self.opens(p, "put into the store, written anew by the mount", TO, f"{store}/theirs.tdf", data)
        os.unlink(f"{store}/theirs.tdf")

    # --- T5: policies ---

    def policies(self, p, attribute, store, audit=None, other="bob"):
        """@attribute: we have it, @other has not (None: there is no such client); @audit(): lines of the audit log so far"""
        data = b"for the team"
        if p.attributes:
            path = self.write(p, "attribute: for those who have it", OWN, data, next(iter(p.writes)), attribute)
            if path:
                self.opens(p, "attribute: for those who have it", OWN, path, data)
                self.denied(p, "attribute: refused to others", OWN, path, data, audit, other)
        if "EC" not in p.kinds:
            return
        for what, words in (("attribute", ["--attribute", attribute]), *([("dissemination list", ["--dissem", "alice"])] if audit else [])):
            os.makedirs(f"{store}/secret", exist_ok=True)
            self.run("policy", "set", f"{store}/secret", *words, "--passfile", self.passfile)
            with self.mounted(store) as m:
                put(f"{m}/secret/f", data)
            self.opens(p, f"{what}: for those who have it", TO, f"{store}/secret/f.tdf", data)
            self.denied(p, f"{what}: refused to others", TO, f"{store}/secret/f.tdf", data, audit, other)
            os.unlink(f"{store}/secret/f.tdf")
        self.run("policy", "set", f"{store}/secret", "--inherit", "--passfile", self.passfile)

    def denied(self, p, case, direction, path, data, audit, other):
        if not other:
            return
        before = len(audit()) if audit else 0
        self.refused(p, case, direction, path, data, other)
        if audit:
            lines = [l for l in audit()[before:] if l.get("decision") == "deny" and l["sub"] == other]
            self.table.add(p, f"{case}, in the audit log", direction, len(lines) > 0, str(audit()[before:]))

    # --- T9: files that somebody changed ---

    def tampered(self, p, path, data):
        if "EC" not in p.kinds:
            return
        z = zipfile.ZipFile(path)
        text, payload = z.read("0.manifest.json"), z.read("0.payload")
        segments = json.loads(text)["encryptionInformation"]["integrityInformation"]["segments"]
        size = json.loads(text)["encryptionInformation"]["integrityInformation"]["encryptedSegmentSizeDefault"]
        ways = {"the policy": lambda m, b: (m["encryptionInformation"].update(policy="eyJ1dWlkIjoiIiwiYm9keSI6e319"), b)[1]}
        if p.tampering:
            def swap(m, b):
                s = m["encryptionInformation"]["integrityInformation"]["segments"]
                s[0], s[1] = s[1], s[0]
                return b[size:2 * size] + b[:size] + b[2 * size:]

            def drop(m, b):
                m["encryptionInformation"]["integrityInformation"]["segments"].pop()
                return b[:size * (len(segments) - 1)]

            def root(m, b):
                sig = m["encryptionInformation"]["integrityInformation"]["rootSignature"]
                sig["sig"] = sig["sig"][:5] + ("A" if sig["sig"][5] != "A" else "B") + sig["sig"][6:]
                return b
            ways |= {"the root signature": root, "segments swapped": swap, "a segment dropped": drop, "a byte of the payload": lambda m, b: b[:50] + bytes([b[50] ^ 1]) + b[51:]}
        if len(segments) < 3:
            raise SystemExit("FAIL: a file of three segments is needed")
        for what, change in ways.items():
            m = json.loads(text)
            bad = change(m, payload)
            with zipfile.ZipFile(self.tmp + "/bad.tdf", "w") as out:
                out.writestr("0.payload", bad)
                out.writestr("0.manifest.json", json.dumps(m))
            self.refused(p, f"tampered: {what}", TO, self.tmp + "/bad.tdf", data)
        with zipfile.ZipFile(self.tmp + "/bad.tdf", "w") as out:  # as it is, but written like the others: this opens
            out.writestr("0.payload", payload)
            out.writestr("0.manifest.json", json.dumps(json.loads(text)))
        self.opens(p, "tampered: not at all", TO, self.tmp + "/bad.tdf", data)

    # --- T8, T10, T11: forms of asking, which only the Go SDK has ---

    def forms(self, p, files, audit=None):
        if not p.name.startswith("Go"):
            return
        path, data = files["65537 bytes"]
        for wire in ("json", "get", "grpc"):
            self.opens(p, f"wire form {wire}", TO, path, data, more=["-wire", wire])
        self.opens(p, "EC session key", TO, path, data, more=["-session", "ec:secp256r1"])
        if not p.new:
            return
        path, data = files["1 bytes"]
        before, pairs = len(audit()) if audit else 0, []
        for i in range(100):
            pairs += [path, f"{self.tmp}/bulk{i}"]
        r = p.do("bulk", self.t, *pairs, id=self.me)
        good = r.returncode == 0 and all(content(f"{self.tmp}/bulk{i}") == data for i in range(100))
        if audit:
            good = good and len(audit()) == before + 100 and len({l["request"] for l in audit()[before:]}) == 1
        self.table.add(p, "100 files in one rewrap", TO, good, r.stdout)


class Mounted:
    def __init__(self, suite, store):
        self.suite, self.store, self.dir = suite, store, suite.tmp + "/mnt"

    def __enter__(self):
        os.makedirs(self.dir, exist_ok=True)
        self.suite.run("mount", self.store, self.dir, "--passfile", self.suite.passfile)
        return self.dir

    def __exit__(self, *rest):
        self.suite.run("umount", self.dir)
