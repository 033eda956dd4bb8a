# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What the cases in posix/ begin with.
. "${BASH_SOURCE[0]%/*}/../lib.sh"

REF=$TDFS_HOST/ext4 # the reference: an ext4 of its own, which can be mounted read-only and back
PJD=$TDFS_ROOT/build-posix/bin/pjdfstest
FSX=$TDFS_ROOT/build-posix/bin/fsx
mk_reference() {
	truncate -s 2G "$TDFS_DISK/reference"
	mkfs.ext4 -q -F "$TDFS_DISK/reference"
	mkdir -p "$REF"
	mount -o loop,X-mount.mkdir "$TDFS_DISK/reference" "$REF"
	chmod 755 "$REF"
}
