/* SPDX-License-Identifier: Apache-2.0 */
#include "doctor.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include "mounts.h"
#include "say.h"
#include "target.h"

#define MAGIC_XFS 0x58465342
#define MAGIC_EXFAT 0x2011BAB0
#define MAGIC_CIFS 0xFF534D42
#define MAGIC_SMB2 0xFE534D42
#define MAGIC_FUSE 0x65735546
#define MAGIC_RAMFS 0x858458f6
#define MAGIC_ZFS 0x2fc12fc1

/* Where the file system with this device number comes from and how it is mounted; both malloc'd. */
static bool mount_options(dev_t dev, char **ret_source, char **ret_options)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	CLEANUP_FREE char *line = NULL;
	size_t room = 0;
	bool found = false;
	char want[32];

	snprintf(want, sizeof(want), "%u:%u", major(dev), minor(dev));
	while (f && !found && getline(&line, &room, f) > 0) {
		struct mountinfo m;

		if (!mountinfo_parse(line, &m) || strcmp(m.device, want) != 0)
			continue;
		*ret_source = strdup(m.source);
		found = *ret_source && asprintf(ret_options, "%s,%s", m.options, m.super_options) >= 0;
	}
	if (f)
		fclose(f);
	return found;
}

/* Does ext4 itself list this option for the device (also when it is the default of the superblock)? */
static bool ext4_option(const char *name, const char *option)
{
	CLEANUP_FREE char *path = NULL;
	FILE *f = asprintf(&path, "/proc/fs/ext4/%s/options", name) < 0 ? NULL : fopen(path, "re");
	char line[128];
	bool found = false;

	while (f && fgets(line, sizeof(line), f))
		found |= strncmp(line, option, strlen(option)) == 0;
	if (f)
		fclose(f);
	return found;
}

static void ext4_look(struct doctor *d, dev_t dev)
{
	CLEANUP_FREE char *source = NULL;
	CLEANUP_FREE char *options = NULL;
	CLEANUP_FREE char *journal = NULL;
	const char *name;

	if (!mount_options(dev, &source, &options))
		return;
	name = strrchr(source, '/') ? strrchr(source, '/') + 1 : source;
	if (strstr(options, "data=writeback") || ext4_option(name, "data=writeback"))
		doctor_tell(d, DOCTOR_BAD, "journal", "take data=writeback out of /etc/fstab and mount it anew",
			    "data=writeback: after a power cut a file never synced may read as damaged instead of being absent");
	if (strstr(options, "nobarrier") || ext4_option(name, "nobarrier"))
		doctor_tell(d, DOCTOR_BAD, "flushes", "take nobarrier out of /etc/fstab and mount it anew",
			    "nobarrier: an fsync is not durable here");
	/* the kernel has an entry for every journal; /dev/root and mapped names are not to be found there */
	if (asprintf(&journal, "/proc/fs/ext4/%s", name) < 0 || access(journal, F_OK))
		return;
	free(STEAL(journal));
	if (asprintf(&journal, "/proc/fs/jbd2/%s-8", name) >= 0 && access("/proc/fs/jbd2", R_OK) == 0 && access(journal, F_OK))
		doctor_tell(d, DOCTOR_NOTE, "journal", "sudo tune2fs -O has_journal DEVICE   (unmounted)",
			    "no journal on %s: after a power cut names and files never synced may be damaged", source);
}

static void btrfs_look(struct doctor *d, const char *store)
{
	CLEANUP_FREE char *log = NULL;
	CLEANUP_FREE char *fix = NULL;
	CLEANUP_FD int fd = -1;
	int flags = 0;

	if (asprintf(&log, "%s/" TDFS_DIR "/log.0", store) < 0)
		return;
	fd = open(log, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 || ioctl(fd, FS_IOC_GETFLAGS, &flags) || flags & FS_NOCOW_FL)
		return;
	/* the flag can only be set on an empty file, so the log is copied while nobody uses it */
	if (asprintf(&fix,
		     "unmounted: cd %s/" TDFS_DIR
		     " && for i in 0 1; do touch n && chattr +C n && cp --reflink=never log.$i n && chmod 600 n && mv n log.$i; done",
		     store) < 0)
		fix = NULL;
	doctor_tell(d, DOCTOR_NOTE, "log", fix, "the log is copied at every write on btrfs: fsync is slow");
}

static void place_look(struct doctor *d, const char *store, const struct stat *st)
{
	struct statfs fs;

	if (statfs(store, &fs))
		return;
	switch ((unsigned long)fs.f_type & 0xffffffffUL) {
	case EXT4_SUPER_MAGIC:
		doctor_tell(d, DOCTOR_OK, "place", NULL, "an ext file system");
		ext4_look(d, st->st_dev);
		break;
	case MAGIC_XFS:
		doctor_tell(d, DOCTOR_OK, "place", NULL, "xfs");
		break;
	case BTRFS_SUPER_MAGIC:
		doctor_tell(d, DOCTOR_OK, "place", NULL, "btrfs");
		btrfs_look(d, store);
		break;
	case TMPFS_MAGIC:
	case MAGIC_RAMFS:
		doctor_tell(d, DOCTOR_BAD, "place", "move the store to a disk: cp -a", "it is in memory (tmpfs): the next boot deletes it");
		break;
	case MSDOS_SUPER_MAGIC:
	case MAGIC_EXFAT:
		doctor_tell(d, DOCTOR_BAD, "place", "move the store to ext4, xfs or btrfs", "FAT has no owners, modes or safe renames");
		break;
	case NFS_SUPER_MAGIC:
	case MAGIC_CIFS:
	case MAGIC_SMB2:
		doctor_tell(d, DOCTOR_NOTE, "place", "mount with -o shared_storage",
			    "a network file system: durability is the server's; one daemon at a time");
		break;
	case MAGIC_FUSE:
		doctor_tell(d, DOCTOR_NOTE, "place", NULL, "a FUSE file system: whether fsync is durable is its own matter");
		break;
	default:
		doctor_tell(d, DOCTOR_NOTE, "place", NULL, "an untested file system (type 0x%lx); ext4, xfs and btrfs are known",
			    (unsigned long)fs.f_type & 0xffffffffUL);
	}
}

static void space_look(struct doctor *d, const char *store)
{
	struct statvfs v;
	char text[SAY_TEXT];

	if (statvfs(store, &v))
		return;
	size_text((uint64_t)v.f_bavail * v.f_frsize, text);
	if (v.f_flag & ST_RDONLY)
		doctor_tell(d, DOCTOR_BAD, "space", "sudo mount -o remount,rw ...", "the file system is read-only");
	else if (v.f_bavail < v.f_blocks / 50)
		doctor_tell(d, DOCTOR_NOTE, "space", NULL, "only %s are free: sealing changed files needs room", text);
	else
		doctor_tell(d, DOCTOR_OK, "space", NULL, "%s free", text);
	if (v.f_files && v.f_favail < 1000)
		doctor_tell(d, DOCTOR_NOTE, "inodes", NULL, "only %llu more files can be made there", (unsigned long long)v.f_favail);
}

static void volume_look(struct doctor *d, const char *store)
{
	CLEANUP(volume_cleanup) struct volume *v = NULL;
	CLEANUP_FREE char *fix = NULL;
	int err;

	fail_clear();
	err = volume_peek(store, &v);
	if (!err) {
		doctor_tell(d, DOCTOR_OK, "volume", NULL, "owner and modes are right, %zu key slots", v->n_slots);
		if (v->from_backup)
			doctor_tell(d, DOCTOR_BAD, "volume", "tdfs key recovery STORE   (any change of a slot writes it anew)",
				    "volume.json is damaged, its copy is used");
	} else if (err == -ENOENT) {
		doctor_tell(d, DOCTOR_NOTE, "volume", "tdfs init STORE", "there is no volume here yet");
	} else if (err == -EPERM) {
		if (asprintf(&fix, "chown -R \"$(id -u)\" %s/" TDFS_DIR " && chmod -R go= %s/" TDFS_DIR, store, store) < 0)
			fix = NULL;
		doctor_tell(d, DOCTOR_BAD, "volume", fix, "%s", cause_text(err));
	} else {
		doctor_tell(d, DOCTOR_BAD, "volume", err == -EBADMSG ? "tdfs key restore STORE FILE" : NULL, "%s", cause_text(err));
	}
}

void doctor_store(struct doctor *d, const char *arg)
{
	CLEANUP_FREE char *found = NULL;
	CLEANUP_FREE char *mountpoint = NULL;
	const char *store = arg;
	struct stat st;

	if (store_resolve(arg, &found, &mountpoint) == 0)
		store = found;
	if (stat(store, &st)) {
		doctor_tell(d, DOCTOR_BAD, "store", "tdfs init STORE", "%s: %s", store, strerror(errno));
		return;
	}
	if (!S_ISDIR(st.st_mode)) {
		doctor_tell(d, DOCTOR_BAD, "store", NULL, "%s: not a folder", store);
		return;
	}
	place_look(d, store, &st);
	space_look(d, store);
	volume_look(d, store);
}
