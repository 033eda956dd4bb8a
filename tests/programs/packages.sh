#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# packages.sh: what the cases of this suite run, installed where it is missing and apt-get is at hand.  Ends 77 and names what cannot be had;
# the cases that need it skip then.
set -uo pipefail
export DEBIAN_FRONTEND=noninteractive
want=(rsync postgresql)
[[ ${TDFS_BUDGET:-short} == long ]] && want+=(libreoffice-calc tcl-dev dpkg-dev)

have() { [[ $(dpkg-query -W -f '${db:Status-Abbrev}' "$1" 2>/dev/null) == ii* ]]; }
get() { apt-get install -y -q --no-install-recommends --no-remove "$@" || { apt-get update -q && apt-get install -y -q --no-install-recommends --no-remove "$@"; }; }
missing=()
for p in "${want[@]}"; do
	have "$p" && continue
	if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
		missing+=("$p")
		continue
	fi
	conf=/etc/postgresql-common/createcluster.conf kept=
	if [[ $p == postgresql ]]; then # no database of its own, no service: the case makes one in the mount
		get postgresql-common && kept=$(mktemp) && cp -p "$conf" "$kept" && sed -i 's/^#*create_main_cluster.*/create_main_cluster = false/' "$conf"
	fi
	get "$p" || missing+=("$p")
	[[ -n $kept ]] && cp -p "$kept" "$conf" && rm -f "$kept"
done
((${#missing[@]} == 0)) || { echo "cannot be had: apt-get install ${missing[*]}"; exit 77; }
