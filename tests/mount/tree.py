# SPDX-License-Identifier: Apache-2.0
"""tree.py DIR [notimes]: one line for each entry below DIR: path, type, mode, owner, links, size, mtime, target, xattrs, SHA-256.  Two equal trees print the same."""
import hashlib, os, stat, sys

top, times = os.fsencode(sys.argv[1]), "notimes" not in sys.argv[2:]
for d, dirs, files in os.walk(top):
    if d == top:
        dirs[:] = [x for x in dirs if x not in (b".tdfs", b"lost+found")]
    dirs.sort()
    for name in sorted(dirs + files):
        p = os.path.join(d, name)
        s = os.lstat(p)
        row = [repr(p[len(top):]), stat.filemode(s.st_mode), s.st_uid, s.st_gid]
        if not stat.S_ISDIR(s.st_mode):
            row += [s.st_nlink, s.st_size]
        if times:
            row.append(s.st_mtime_ns)
        if stat.S_ISLNK(s.st_mode):
            row.append(repr(os.readlink(p)))
        else:
            row += [f"{k}={os.getxattr(p, k)!r}" for k in sorted(os.listxattr(p)) if not k.startswith("security.")]
        if stat.S_ISREG(s.st_mode):
            with open(p, "rb") as f:
                row.append(hashlib.sha256(f.read()).hexdigest())
        print(*row)
