#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""same.py A B [--no-owner]: are two trees the same, bit by bit and attribute by attribute?  Prints each difference; exit 1 if there is one.
same.py --list A FILE writes what A is like to FILE; same.py --against FILE B compares with that (the tree may be gone by then)."""
import hashlib, json, os, stat, sys

def attrs(p):
    r = {}
    try:
        for n in os.listxattr(p, follow_symlinks=False):
            r[n] = os.getxattr(p, n, follow_symlinks=False).hex()
    except OSError:
        pass
    return r

def tree(root):
    out, links = {}, {}
    for d, dirs, files in os.walk(os.fsencode(root)):
        if d == os.fsencode(root) and b".tdfs" in dirs: dirs.remove(b".tdfs")
        for n in dirs + files:
            p = os.path.join(d, n); st = os.lstat(p); rel = os.fsdecode(os.path.relpath(p, os.fsencode(root)))
            e = {"kind": stat.S_IFMT(st.st_mode), "mode": stat.S_IMODE(st.st_mode), "owner": [st.st_uid, st.st_gid], "mtime": st.st_mtime_ns, "xattrs": attrs(p)}
            if stat.S_ISREG(st.st_mode):
                with open(p, "rb") as f: e["size"], e["sha"] = st.st_size, hashlib.sha256(f.read()).hexdigest()
                links.setdefault((st.st_dev, st.st_ino), []).append(rel)
            elif stat.S_ISLNK(st.st_mode): e["target"] = os.readlink(p).hex()
            elif stat.S_ISBLK(st.st_mode) or stat.S_ISCHR(st.st_mode): e["rdev"] = st.st_rdev
            out[rel] = e
    for names in links.values():
        for n in names: out[n]["names"] = sorted(names)
    return out

def main(a):
    if a[0] == "--list":
        with open(a[2], "w") as f: json.dump(tree(a[1]), f)
        return 0
    skip, cut = {"owner"} if "--no-owner" in a else set(), "--after-cut" in a  # a power cut may cost a folder its times
    a = [w for w in a if w not in ("--no-owner", "--after-cut")]
    if a[0] == "--against":
        with open(a[1]) as f: x = json.load(f)
        y = tree(a[2])
    else: x, y = tree(a[0]), tree(a[1])
    y = json.loads(json.dumps(y)); x = json.loads(json.dumps(x))
    bad = 0
    if not x or not y: sys.exit(f"nothing to compare: {a}")
    for p in sorted(set(x) | set(y)):
        if p not in y or p not in x:
            print(f"{'missing' if p not in y else 'too much'}: {p!r}"); bad += 1; continue
        for k in sorted(set(x[p]) | set(y[p])):
            if k not in skip and x[p].get(k) != y[p].get(k) and not (cut and k == "mtime" and x[p]["kind"] == stat.S_IFDIR): print(f"{p!r}: {k}: {x[p].get(k)} became {y[p].get(k)}"); bad += 1
    return bad > 0

sys.exit(main(sys.argv[1:]))
