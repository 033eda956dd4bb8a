# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# A small loop-mounted disk of its own that can be cut off; the store of the case lies on it.
DISK=$TDFS_HOST/disk
disk_new() { # disk_new FS [SIZE]
	mkdir -p "$DISK"
	truncate -s "${2:-1G}" "$TDFS_HOST/disk.img"
	case $1 in
	ext4) mkfs.ext4 -q -F "$TDFS_HOST/disk.img" ;;
	xfs) mkfs.xfs -q -f "$TDFS_HOST/disk.img" ;;
	btrfs) mkfs.btrfs -q -f "$TDFS_HOST/disk.img" ;;
	esac
	mount -o loop "$TDFS_HOST/disk.img" "$DISK"
	STORE=$DISK/store
	export ALIVE=$DISK/alive
	: >"$ALIVE"
}
disk_cut() { # EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN are one number; 2 = without flushing the log
	python3 -c 'import fcntl, os, struct, sys; fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587D, struct.pack("I", 2))' "$DISK" || fail "the shutdown ioctl"
}
disk_again() {
	local i
	for ((i = 0; i < 100; i++)); do umount "$DISK" 2>/dev/null && break; sleep 0.1; done
	mount -o loop "$TDFS_HOST/disk.img" "$DISK"
}
disk_gone() { umount "$DISK"; rm -f "$TDFS_HOST/disk.img"; }
ended_disk() {
	local rc=$?
	trap - ERR; set +eE
	[[ -n $DAEMON && $rc != 0 ]] && kill -9 "$DAEMON" 2>/dev/null
	is_mounted && umount -l "$MNT"
	grep -qF " $DISK " /proc/self/mounts && { umount "$DISK" 2>/dev/null || { sleep 0.5; umount "$DISK" || umount -l "$DISK"; }; }
	(exit $rc)
	ended
}
trap ended_disk EXIT
