# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What the cases in stress/ begin with.  TDFS_SECONDS=N: how long each goes on, instead of the budget's.
. "${BASH_SOURCE[0]%/*}/../lib.sh"
. "$HERE/crash/kill-lib.sh"
WRITERS=4 LEDGERS=4 # the eight processes

seconds() { say "${TDFS_SECONDS:-$(budget "$1" "$2")}"; } # seconds SHORT LONG

start_work() { # start_work ROUND [bear]: all eight; with bear only those that go on after an error
	[[ ${2:-} == bear ]] || start_writers "$1"
	local k
	for ((k = 0; k < LEDGERS; k++)); do : >>"$TMP/logs/ledger-$k"; done # on a busy machine the kill comes before they have begun
	PYTHONPATH=$HERE/mount python3 "$HERE/stress/ledger.py" work "$DIR" "$TMP/logs" "$((SEED * 1000 + $1))" $LEDGERS ${2:-} &
	LEDGER=$!
}
stop_ledgers() { # and wait for each: what is left of one holds a file open
	while kill -0 "$LEDGER" 2>/dev/null; do
		ps -o pid= --ppid "$LEDGER" | xargs -r kill -9 2>/dev/null || true
		sleep 0.02
	done
	wait "$LEDGER" 2>/dev/null || true
}
stop_work() { stop_writers; stop_ledgers; }
check_ledgers() { PYTHONPATH=$HERE/mount python3 "$HERE/stress/ledger.py" check "$DIR" "$TMP/logs" $LEDGERS; }
check_work() { # check_work MODE: of kill-tool; prints what is lost
	local rc=0
	check_writers "$1" || rc=1
	check_ledgers || rc=1
	return $rc
}
acknowledged() { cat "$TMP"/logs/ledger-* 2>/dev/null | grep -c '^A' || true; }

status() { tdfs status "$STORE" --json | python3 -c "import json, sys; d = json.load(sys.stdin)['volumes'][0]['daemon']; print(d$1)"; }
fds() { ls "/proc/$DAEMON/fd" | wc -l; }
memory_of() { awk -v k="$1:" '$1 == k { print $2 }' "/proc/$DAEMON/status"; } # memory_of FIELD: KiB, or a count
tdfs_dir() { (cd "$STORE/.tdfs" && find . ! -type s ! -name lock -printf '%p %s\n' | grep -v '^\. ' | sort); } # what the volume itself occupies
