#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# tools.sh DIR: pjdfstest and fsx from crates.io into DIR/bin, with a cargo new enough for them.  Ends 1, and says what is missing, if they
# are not there in the end: whoever asks for these suites does not want to hear that nothing failed.
set -uo pipefail
dir=$1
pjdfstest=0.2.2 fsx=0.3.2 need=85 # Rust 1.85

have() { [[ $("$dir/bin/$1" --version 2>/dev/null) == *" $2" ]]; }
have pjdfstest $pjdfstest && have fsx $fsx && exit 0

new_enough() { # new_enough CARGO
	local v
	v=$("$1" --version 2>/dev/null) || return 1
	[[ $v =~ ^cargo\ 1\.([0-9]+) ]] && ((BASH_REMATCH[1] >= need))
}
cargo=
for c in "${CARGO:-}" cargo "$HOME/.cargo/bin/cargo" /usr/bin/cargo; do
	[[ -n $c ]] && new_enough "$c" && { cargo=$c; break; }
done
# Debian 12's own is 1.63; it carries a newer one for browsers.  Nothing of the user's is removed for it.
for p in cargo-web cargo; do
	[[ -n $cargo || $(id -u) != 0 ]] && break
	echo "no cargo 1.$need: installing $p"
	{ DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends --no-remove $p ||
		{ apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends --no-remove $p; }; } 2>&1 | tail -2
	new_enough /usr/bin/cargo && cargo=/usr/bin/cargo
done
if [[ -z $cargo ]]; then
	echo "pjdfstest $pjdfstest and fsx $fsx need Rust 1.$need; here is: $(cargo --version 2>&1 | head -1)"
	echo "install cargo-web (Debian 12) or cargo (Debian 13), or name one with CARGO=/path/to/cargo"
	exit 1
fi
"$cargo" --version
for t in pjdfstest@$pjdfstest fsx@$fsx; do
	have "${t%@*}" "${t#*@}" || CARGO_TARGET_DIR=$dir/target "$cargo" install --locked --quiet --root "$dir" "$t" || exit 1
done
have pjdfstest $pjdfstest && have fsx $fsx || { echo "cargo is content, but the programs are not in $dir/bin"; exit 1; }
rm -rf "$dir/target"
