# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# tests/lib.sh - what every case in mount/ and crash/ begins with:  . "${0%/*}/../lib.sh"
#
# tests/run gives a case: TDFS_BIN, TDFS_BUILD (helpers), TDFS_HOST (its scratch directory on the host's disk), TDFS_DISK (its directory on
# the loop-mounted test image), TDFS_BUDGET (short|long).  A case ends 0 = ok, 77 = skipped (last line: why), anything else = failed.
# TDFS_TEST_PLAIN=1 puts a bind mount of a plain directory in place of tdfs: it shows that a case tells what ext4 does.

if [[ -z ${TDFS_HOST:-} ]]; then # run by hand: let the runner prepare everything
	dir=$(cd "${0%/*}" && pwd)
	exec bash "$dir/../run" "${dir##*/}/${0##*/}"
fi
set -eEuo pipefail
umask 022
export LC_ALL=C TZ=UTC PYTHONDONTWRITEBYTECODE=1

HERE=$(cd "${0%/*}/.." && pwd)     # tests/
STORE=$TDFS_DISK/store             # ciphertext, on the test image
MNT=$TDFS_HOST/mnt                 # the mount
TMP=$TDFS_HOST/tmp                 # scratch outside both
PASS=$TDFS_HOST/pass               # passphrase file
KEY=$TDFS_HOST/key                 # key file
UNLOCK=(--keyfile "$KEY")          # what mounts the volume; a passphrase costs scrypt at every mount
LOG=$TDFS_HOST/daemon.log
TOOLS=$TDFS_BUILD/tests/mount
DAEMON=                            # pid of the daemon started by mount_tdfs
KILLED=                            # it was killed once
MOUNT_WRAP=()                      # put before the daemon's command line: env LD_PRELOAD=..., strace ...
AS_USER=()                         # put before every tdfs command: setpriv ...
export STORE MNT TMP PASS LOG TOOLS HERE TMPDIR=$TMP
mkdir -p "$MNT" "$TMP" "$TDFS_DISK"
(umask 077 && printf 'correct horse battery staple\n' >"$PASS" && printf 'a key of thirty-two bytes, no less' >"$KEY")
# A sanitizer's report goes to the daemon's log wherever the daemon's stderr went.
export ASAN_OPTIONS=detect_leaks=1:abort_on_error=0:exitcode=99:log_path=$TDFS_HOST/sanitizer
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1:log_path=$TDFS_HOST/sanitizer
export TSAN_OPTIONS=halt_on_error=0:exitcode=99:second_deadlock_stack=1:log_path=$TDFS_HOST/sanitizer

say() { printf '%s\n' "$*"; }
fail() { # fail TEXT: the case failed
	say "FAIL: $* (${BASH_SOURCE[1]##*/}:${BASH_LINENO[0]})"
	exit 1
}
skip() { say "$*"; exit 77; }
expect_eq() { # expect_eq WHAT WANTED GOT
	[[ $2 == "$3" ]] || fail "$1: wanted <$2>, got <$3>"
}
expect_fail() { # expect_fail CODE COMMAND...: the command ends with exactly this code; its output is in $OUT
	local want=$1 rc=0; shift
	OUT=$("$@" 2>&1 </dev/null) || rc=$?
	[[ $rc == "$want" ]] || fail "<$*> ended with $rc, wanted $want; it said: $OUT"
}
plain() { [[ ${TDFS_TEST_PLAIN:-0} == 1 ]]; }
needs_tdfs() { ! plain || skip "says nothing about a plain directory"; }
long() { [[ ${TDFS_BUDGET:-short} == long ]]; }
budget() { if long; then say "$2"; else say "$1"; fi; } # budget SHORT LONG
tdfs() { "${AS_USER[@]}" "$TDFS_BIN" "$@"; }

# --- the volume and the mount ---

mk_volume() { # mk_volume [init options]: opened by $UNLOCK and by the passphrase
	if plain; then mkdir -p "$STORE"; return; fi
	{
		if [[ ${UNLOCK[0]} == --passfile ]]; then
			tdfs init "$STORE" --passfile "$PASS" --scrypt-logn 15 --log-size 16M "$@"
		else
			tdfs init "$STORE" "${UNLOCK[@]}" --log-size 16M "$@" && tdfs key add "$STORE" "${UNLOCK[@]}" --new-passfile "$PASS" --scrypt-logn 15
		fi
	} >>"$TDFS_HOST/init.log" 2>&1 </dev/null || { cat "$TDFS_HOST/init.log"; fail "tdfs init ended with $?"; }
}
is_mounted() { grep -qF " $MNT " /proc/self/mounts; }
try_mount() { # try_mount [mount options]: 0, or the daemon's exit code
	local i rc=0
	if plain; then mount --bind "$STORE" "$MNT"; return; fi
	# a program that was still running when the daemon was killed may have made something in the bare folder
	"${AS_USER[@]}" "${MOUNT_WRAP[@]}" "$TDFS_BIN" mount "$STORE" "$MNT" "${UNLOCK[@]}" -f ${KILLED:+-o nonempty} "$@" >>"$LOG" 2>&1 </dev/null &
	DAEMON=$!
	for ((i = 0; i < 1200; i++)); do
		if is_mounted && "${AS_USER[@]}" stat -t "$MNT" >/dev/null 2>&1; then return 0; fi
		kill -0 "$DAEMON" 2>/dev/null || { wait "$DAEMON" || rc=$?; DAEMON=; return $((rc ? rc : 98)); }
		sleep 0.05
	done
	fail "not mounted after 60 s"
}
mount_tdfs() {
	local rc=0
	try_mount "$@" || rc=$?
	[[ $rc == 0 ]] || { tail -20 "$LOG"; fail "tdfs mount $* ended with $rc"; }
}
wait_daemon() { # wait_daemon [CODE]: it ends by itself with this code
	local i rc=0
	plain && return 0
	for ((i = 0; i < 1200; i++)); do kill -0 "$DAEMON" 2>/dev/null || break; sleep 0.05; done
	((i < 1200)) || { say "FAIL: the daemon is still there 60 s after the unmount"; return 1; }
	wait "$DAEMON" || rc=$?
	DAEMON=
	[[ $rc == "${1:-0}" ]] || { say "FAIL: the daemon ended with $rc, wanted ${1:-0}"; return 1; }
}
umount_tdfs() { # everything is sealed and the daemon is gone when this returns
	if plain; then umount "$MNT"; return; fi
	tdfs umount "$MNT" >"$TDFS_HOST/umount.log" 2>&1 </dev/null || { say "FAIL: tdfs umount ended with $?: $(cat "$TDFS_HOST/umount.log")"; return 1; }
	if is_mounted; then say "FAIL: still mounted after tdfs umount"; return 1; fi
	wait_daemon 0
}
kill9_tdfs() { # the daemon dies without a chance to write anything
	if plain; then sync; umount -l "$MNT"; return; fi
	KILLED=yes
	kill -9 "$DAEMON"
	wait "$DAEMON" 2>/dev/null || true
	DAEMON=
	umount -l "$MNT" 2>/dev/null || fusermount3 -uz "$MNT" 2>/dev/null || true
}
remount() { umount_tdfs; mount_tdfs "$@"; }
sync_tdfs() { if plain; then sync -f "$MNT"; else tdfs sync "$MNT" >/dev/null; fi; }

# --- looking at rest ---

on_store() { # on_store PATH: where that regular file lies at rest
	if plain; then say "$STORE/$1"; else say "$STORE/$1.tdf"; fi
}
check_store() { # check_store [void]: every sealed file is a good zip and a good TDF for a reader that knows nothing of tdfs
	plain || python3 "$HERE/mount/tdf.py" check "$STORE" "$@" || fail "the store holds files that are no valid TDF"
}
py() { PYTHONPATH=$HERE/mount python3 - "$@"; } # a python snippet with mount/t.py at hand:  py <<'EOF'

# --- the end of a case, however it comes ---

ended() {
	local rc=$? f
	trap - EXIT ERR
	set +eE
	if [[ $rc == 0 ]] && is_mounted; then
		umount_tdfs || rc=1
	fi
	for f in "$LOG" "$TDFS_HOST"/sanitizer.*; do
		[[ -f $f ]] || continue
		if grep -qE 'ERROR: (Address|Leak|Thread)Sanitizer|WARNING: ThreadSanitizer|runtime error:|[Aa]ssertion .*failed|stack smashing|free\(\): invalid' "$f"; then
			say "FAIL: ${f##*/} holds a report:"; grep -m1 -A25 -E 'Sanitizer|runtime error:|ssertion|smashing|free\(\)' "$f"; rc=1
		fi
	done
	if [[ $rc != 0 && $rc != 77 ]]; then
		[[ -s $LOG ]] && { say "--- the daemon said:"; tail -15 "$LOG" | cut -c1-300; }
		if [[ -n $DAEMON ]] && ! kill -9 "$DAEMON" 2>/dev/null; then
			wait "$DAEMON"
			say "--- the daemon was gone, ended with $?"
		fi
		is_mounted && { umount -l "$MNT" 2>/dev/null || fusermount3 -uz "$MNT"; }
	elif [[ $rc == 77 ]]; then
		[[ -n $DAEMON ]] && kill -9 "$DAEMON" 2>/dev/null
		is_mounted && umount -l "$MNT"
	fi
	exit "$rc"
}
trap ended EXIT
trap 'say "FAIL: <$BASH_COMMAND> ended with $? (${BASH_SOURCE[0]##*/}:$LINENO)"' ERR
trap 'exit 143' TERM
trap 'exit 130' INT
