# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Shared by the kill-* cases, after lib.sh: writers under a mount that dies, and the check of what was acknowledged.
WRITERS=3
DIR=$MNT/work
mkdir -p "$TMP/logs" "$TMP/base"
SEED=${TDFS_SEED:-$RANDOM}
say "seed $SEED"

start_writers() { # start_writers ROUND
	"$TOOLS/kill-tool" write "$DIR" "$TMP/logs" "$TMP/base" $((SEED * 1000 + $1)) $WRITERS &
	WRITER=$!
}
stop_writers() {
	local pid
	for pid in $WRITER $(ps -o pid= --ppid "$WRITER"); do kill -9 "$pid" 2>/dev/null || true; done
	wait "$WRITER" 2>/dev/null || true
}
check_writers() { # check_writers MODE: prints what it found
	"$TOOLS/kill-tool" check "$DIR" "$TMP/logs" "$TMP/base" $WRITERS "$1"
}
nap() { # nap MIN MAX milliseconds, at random
	local ms=$(($1 + RANDOM % ($2 - $1 + 1)))
	sleep "$((ms / 1000)).$(printf '%03d' $((ms % 1000)))"
}
