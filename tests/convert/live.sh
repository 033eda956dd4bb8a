# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What the live cases have in common:  . "${0%/*}/live.sh": a store that is converted while it is mounted on $MNT
. "${0%/*}/convert.sh"
K=("${UNLOCK[@]}")
live_store() { # live_store: what lies in $STORE becomes a volume in place
	mkdir -p "$STORE"
	mk_volume --in-place --no-recovery
}
live_in() { convert in --in-place "$STORE" "$@"; }
plain_left() { find "$STORE" -path "$STORE/.tdfs" -prune -o -type f ! -name '*.tdf' -print; }
both_left() { # names that lie there plain and sealed
	find "$STORE" -path "$STORE/.tdfs" -prune -o -type f ! -name '*.tdf' -print | while read -r f; do [[ ! -e $f.tdf ]] || echo "$f"; done
}
