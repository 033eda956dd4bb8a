# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# What the cases of tests/convert have in common:  . "${0%/*}/convert.sh"   (it reads ../lib.sh first)
. "${0%/*}/../lib.sh"
needs_tdfs
KEY=$TDFS_HOST/key
SRC=$TDFS_DISK/src
DEST=$TDFS_DISK/dest
(umask 077 && head -c 32 /dev/urandom >"$KEY") # no KDF: a case starts tdfs many times
K=(--keyfile "$KEY")

store_new() { # store_new [DIR] [init options]
	local dir=${1:-$STORE}; shift || true
	tdfs init "$dir" "${K[@]}" --no-recovery --log-size 16M "$@" >>"$TDFS_HOST/init.log" 2>&1 </dev/null || { cat "$TDFS_HOST/init.log"; fail "tdfs init ended with $?"; }
}
convert() { # convert VERB ARGUMENT...: the exit code in $RC, what it said in $OUT
	local verb=$1; shift
	RC=0
	OUT=$(tdfs convert "$verb" "$@" "${K[@]}" 2>&1 </dev/null) || RC=$?
}
convert_ok() {
	convert "$@"
	[[ $RC == 0 ]] || fail "tdfs convert $* ended with $RC: $OUT"
}
convert_rc() { # convert_rc CODE VERB ARGUMENT...
	local want=$1; shift
	convert "$@"
	[[ $RC == "$want" ]] || fail "tdfs convert $* ended with $RC, wanted $want: $OUT"
}
said() { # said PATTERN: in the output of the last convert
	grep -qE -- "$1" <<<"$OUT" || fail "nothing like <$1> was said: $OUT"
}
tree_list() { python3 "$HERE/convert/same.py" --list "$1" "$2"; }
tree_same() { # tree_same LIST DIR [WHAT]
	python3 "$HERE/convert/same.py" --against "$1" "$2" || fail "${3:-$2} is not what it was"
}
all_sealed() { # all_sealed DIR: no plain file, nothing left over
	local left
	left=$(find "$1" -path "$1/.tdfs" -prune -o -path "$1/lost+found" -prune -o -type f ! -name '*.tdf' -print; find "$1/.tdfs/convert/tmp" -type f)
	[[ -z $left ]] || fail "left over: $left"
	tdfs verify "$1" "${K[@]}" >"$TMP/verify.out" 2>&1 </dev/null || { cat "$TMP/verify.out"; fail "tdfs verify ended with $?"; }
}
mixed_tree() { # mixed_tree DIR: 40 files and what else there is, every sort of attribute that the file system and our rights allow
	python3 - "$1" <<'PY'
import os, random, socket, subprocess, sys
r = random.Random(7); d = os.fsencode(sys.argv[1]); os.makedirs(d)
def put(name, data, mode=0o644, mtime=1_000_000_000_123_456_789):
    p = os.path.join(d, name); os.makedirs(os.path.dirname(p), exist_ok=True)
    with open(p, "wb") as f: f.write(data)
    os.chmod(p, mode); os.utime(p, ns=(mtime + 1, mtime)); return p
S = 65536
for i, n in enumerate((0, 1, 511, 4095, 4096, 4097, S - 1, S, S + 1, 2 * S, 3 * S + 7, 1 << 20, (1 << 20) + 1, 5 << 20)):
    put(b"sizes/size-%d" % n, r.randbytes(n), mtime=1_100_000_000_000_000_000 + i)
for i in range(8): put(b"a/b/c/deep-%d" % i, r.randbytes(3000 + i))
put(b"names/data.tdf3", b"data"); put(b"names/report.txt.tdf3", b"report"); put(b"names/t.d.f", b"tdf")
put(b"names/foo", b"user"); put(b"names/foo.tdf", b"a user's own .tdf"); put(b"names/foo.tdf.tdf", b"and another"); put(b"names/empty.tdf", b"")
put(b"names/new\nline", b"nl"); put(b"names/tab\tand space ", b"tab"); put(b"names/\xff\xfe not utf-8", b"latin"); put(b"names/" + b"n" * 251, b"long"); put(b"names/-rf", b"dash")
put(b"dir.tdf/inside", b"1"); put(b"dir.tdf_/inside", b"2"); put(b"dir.tdf__/inside", b"3")
p = put(b"attrs/mode", b"suid", 0o4755); put(b"attrs/none", b"nobody", 0o000); put(b"attrs/ro", b"ro", 0o444)
p = put(b"attrs/xattr", b"x"); os.setxattr(p, b"user.note", b"hello"); os.setxattr(p, b"user.big", bytes(2000)); os.utime(p, ns=(5, 6))
q = put(b"links/one", b"one file, three names" * 1000); os.mkdir(os.path.join(d, b"links/sub")); os.link(q, os.path.join(d, b"links/two")); os.link(q, os.path.join(d, b"links/sub/three.tdf"))
os.symlink(b"../a/b", os.path.join(d, b"links/sym")); os.symlink(b"nowhere", os.path.join(d, b"links/dangling.tdf")); os.symlink(b"/etc/passwd", os.path.join(d, b"links/outside"))
os.mkfifo(os.path.join(d, b"fifo.tdf")); s = socket.socket(socket.AF_UNIX); os.chdir(d); s.bind("socket"); os.mkdir("empty dir"); os.chmod("empty dir", 0o711)
if os.getuid() == 0:
    os.mknod("device", 0o20600, os.makedev(1, 3)); os.chown("attrs/mode", 1234, 5678); os.chmod("attrs/mode", 0o6755); os.chown("a/b/c/deep-3", 1, 2); os.lchown("links/sym", 3, 4)
    cap = bytes.fromhex("0100000200040000000000000000000000000000")
    os.setxattr("attrs/ro", "security.capability", cap); os.setxattr("attrs/xattr", "trusted.t", b"root's")
subprocess.run(["setfacl", "-m", "u:42:r--,g:43:rw-", "attrs/xattr"], check=False); subprocess.run(["setfacl", "-d", "-m", "u:42:rwx", "a/b"], check=False)
os.utime("attrs/xattr", ns=(5, 6))
for x, dirs, files in os.walk(b".", topdown=False): os.utime(x, ns=(1_200_000_000_000_000_007, 1_200_000_000_000_000_000 + len(x)))
PY
}
