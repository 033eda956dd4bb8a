/* SPDX-License-Identifier: Apache-2.0 */
/* Everything about a file but its bytes; and opening it without leaving the tree. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

#include "convert_file.h"
#include "report.h"

#define PIECE 3500 /* of a path, for one call */
#define LIST_MAX ((size_t)64 << 10)
#define ROOM_LEAST ((uint64_t)1 << 20)
#define ACL_ACCESS "system.posix_acl_access"
#define ACL_DEFAULT "system.posix_acl_default"
#define CAPABILITY "security.capability"

static int open_piece(int dir, const char *path, bool one_fs)
{
	struct open_how how = {
	    .flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW,
	    .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | (one_fs ? RESOLVE_NO_XDEV : 0u),
	};
	long fd;

	do
		fd = syscall(SYS_openat2, dir, path, &how, sizeof(how));
	while (fd < 0 && (errno == EINTR || errno == EAGAIN)); /* EAGAIN: somebody renamed meanwhile */
	return fd < 0 ? -errno : (int)fd;
}

int beneath_open(int root, const char *path, bool one_fs)
{
	CLEANUP_FD int at = -1;
	char piece[PIECE + 1];

	if (!*path)
		return open_piece(root, ".", one_fs);
	while (strlen(path) > PIECE) {
		size_t cut = PIECE;
		int fd;

		while (cut && path[cut] != '/')
			cut--;
		if (!cut)
			return -ENAMETOOLONG;
		memcpy(piece, path, cut);
		piece[cut] = 0;
		fd = open_piece(at < 0 ? root : at, piece, one_fs);
		if (fd < 0)
			return fd;
		close_fd(&at);
		at = fd;
		path += cut + 1;
	}
	return open_piece(at < 0 ? root : at, path, one_fs);
}

int content_open(int dir, const char *name)
{
	const int flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY;
	int fd = openat(dir, name, flags | O_NOATIME);

	return fd < 0 && errno == EPERM ? openat(dir, name, flags) : fd; /* somebody else's file */
}

static bool is_ours(const char *name)
{
	return strncmp(name, HINT_XATTR, strlen(HINT_XATTR)) == 0 && (!name[strlen(HINT_XATTR)] || name[strlen(HINT_XATTR)] == '.');
}

static int xattr_copy(int from, int to, const char *name, bool strict)
{
	CLEANUP_FREE char *value = NULL;
	ssize_t len = fgetxattr(from, name, NULL, 0);

	if (len < 0)
		return errno == ENODATA ? 0 : -errno;
	value = malloc((size_t)len + 1);
	if (!value)
		return -ENOMEM;
	len = fgetxattr(from, name, value, (size_t)len);
	if (len < 0)
		return errno == ENODATA ? 0 : -errno;
	if (fsetxattr(to, name, value, (size_t)len, 0) == 0)
		return 0;
	/* what only root may set, and what the target does not know, is left out as cp -a does */
	return !strict && (errno == EPERM || errno == ENOTSUP) ? 0 : -errno;
}

/* @what: set to the attribute's name (in @list, which lives in the caller) on failure */
static int xattrs_copy(int from, int to, bool strict, bool acl_dir)
{
	char small[512];
	CLEANUP_FREE char *large = NULL;
	char *list = small;
	ssize_t len = flistxattr(from, small, sizeof(small));
	bool has_acl = false, has_default = false, has_cap = false;
	int err = 0;

	if (len < 0 && errno == ERANGE) {
		large = list = malloc(LIST_MAX);
		if (!list)
			return -ENOMEM;
		len = flistxattr(from, list, LIST_MAX);
	}
	if (len < 0)
		return errno == ENOTSUP ? 0 : -errno;
	for (const char *p = list; !err && p < list + len; p += strlen(p) + 1) {
		has_acl |= strcmp(p, ACL_ACCESS) == 0;
		has_default |= strcmp(p, ACL_DEFAULT) == 0;
		if (strcmp(p, CAPABILITY) == 0)
			has_cap = true; /* last: any other change clears it */
		else if (!is_ours(p) && strcmp(p, ACL_ACCESS) != 0)
			err = xattr_copy(from, to, p, strict || strncmp(p, "user.", 5) == 0);
	}
	if (!err && acl_dir && !has_acl && fremovexattr(to, ACL_ACCESS) && errno != ENODATA && errno != ENOTSUP)
		err = -errno;
	if (!err && acl_dir && !has_default && fremovexattr(to, ACL_DEFAULT) && errno != ENODATA && errno != ENOTSUP && errno != EACCES)
		err = -errno;
	/* behind the rest: with it the owner may lose the right to set the others */
	if (!err && has_acl)
		err = xattr_copy(from, to, ACL_ACCESS, strict);
	if (!err && has_cap)
		err = xattr_copy(from, to, CAPABILITY, strict);
	return err;
}

#define KEPT_FLAGS ((unsigned)(FS_XFLAG_NODUMP | FS_XFLAG_NOATIME | FS_XFLAG_SYNC))

const char *meta_flags(int fd, bool *ret_any)
{
	struct fsxattr x;

	*ret_any = false;
	if (ioctl(fd, FS_IOC_FSGETXATTR, &x))
		return NULL;
	*ret_any = x.fsx_xflags & KEPT_FLAGS || x.fsx_projid;
	return x.fsx_xflags & FS_XFLAG_IMMUTABLE ? "immutable" : x.fsx_xflags & FS_XFLAG_APPEND ? "append-only" : NULL;
}

bool meta_inherits(int dir, bool *ret_append)
{
	struct fsxattr x = {0};

	(void)ioctl(dir, FS_IOC_FSGETXATTR, &x);
	*ret_append = x.fsx_xflags & FS_XFLAG_APPEND;
	return x.fsx_xflags & (KEPT_FLAGS | FS_XFLAG_PROJINHERIT);
}

int meta_flags_copy(int from, int to, bool strict)
{
	struct fsxattr a, b;

	if (ioctl(from, FS_IOC_FSGETXATTR, &a))
		return 0;
	if (ioctl(to, FS_IOC_FSGETXATTR, &b))
		return strict ? -errno : 0;
	if (a.fsx_projid == b.fsx_projid && (a.fsx_xflags & KEPT_FLAGS) == (b.fsx_xflags & KEPT_FLAGS))
		return 0;
	b.fsx_projid = a.fsx_projid;
	b.fsx_xflags = (b.fsx_xflags & ~KEPT_FLAGS) | (a.fsx_xflags & KEPT_FLAGS);
	return ioctl(to, FS_IOC_FSSETXATTR, &b) && strict ? -errno : 0;
}

/* Was it not the disk that was full, but the place that a file has for its attributes? */
static bool has_room(int fd)
{
	struct statvfs fs;

	return fstatvfs(fd, &fs) == 0 && fs.f_bavail * fs.f_frsize >= ROOM_LEAST;
}

int meta_copy(int from, const struct stat *st, int to, const struct stat *to_st, bool strict, bool flags, bool acl_dir, const char **what)
{
	const struct timespec times[2] = {st->st_atim, st->st_mtim};
	bool owned = true, chowned;
	mode_t mode;
	struct stat now;
	int err;

	*what = "owner";
	if (to_st)
		now = *to_st;
	else if (fstat(to, &now))
		return -errno;
	chowned = now.st_uid != st->st_uid || now.st_gid != st->st_gid;
	if (chowned && fchown(to, st->st_uid, st->st_gid)) {
		if (strict || errno != EPERM)
			return -errno;
		owned = now.st_uid == st->st_uid && fchown(to, (uid_t)-1, st->st_gid) == 0;
	}
	*what = "mode";
	/* a file that could not be given its owner must not run with the rights of another */
	mode = st->st_mode & (owned ? 07777 : 01777);
	/* user.* attributes can be set only where the owner may write */
	if ((chowned || (now.st_mode & 07777) != (mode | 0200)) && fchmod(to, mode | 0200))
		return -errno;
	*what = "extended attributes";
	err = xattrs_copy(from, to, strict, acl_dir);
	if (err == -ENOSPC && has_room(to)) {
		*what = "extended attributes (beside the one of tdfs there is no room for them)";
		err = -EOVERFLOW;
	}
	if (!err && flags) {
		*what = "flags or project id";
		err = meta_flags_copy(from, to, strict);
	}
	if (!err && !(mode & 0200)) {
		*what = "mode";
		err = fchmod(to, mode) ? -errno : 0;
	}
	if (err)
		return err;
	*what = "times";
	return futimens(to, times) ? -errno : 0;
}

int temp_open(int dir, int temp_dir, mode_t mode, char ret_name[static TEMP_ROOM])
{
	static _Atomic unsigned long count; /* of this process: a name is never used twice */
	struct timespec now;
	int fd = openat(dir, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, (mode & 0777) | 0200);

	ret_name[0] = 0;
	if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL) || temp_dir < 0)
		return fd < 0 ? -errno : fd;
	clock_gettime(CLOCK_REALTIME, &now); /* another machine may have a process of this number */
	snprintf(ret_name, TEMP_ROOM, "%lx.%ld.%lu", (unsigned long)now.tv_nsec, (long)getpid(), atomic_fetch_add(&count, 1));
	fd = openat(temp_dir, ret_name, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		ret_name[0] = 0;
	return fd < 0 ? -errno : fd;
}

int temp_link(int fd, int temp_dir, const char *temp_name, int dir, const char *name)
{
	char path[40];

	if (*temp_name) {
		if (linkat(temp_dir, temp_name, dir, name, 0))
			return -errno;
		return unlinkat(temp_dir, temp_name, 0) ? -errno : 0;
	}
	if (linkat(fd, "", dir, name, AT_EMPTY_PATH) == 0)
		return 0;
	if (errno != ENOENT && errno != EPERM) /* not allowed to this user or kernel */
		return -errno;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return linkat(AT_FDCWD, path, dir, name, AT_SYMLINK_FOLLOW) ? -errno : 0;
}

void temp_drop(int temp_dir, const char *temp_name)
{
	if (*temp_name)
		(void)unlinkat(temp_dir, temp_name, 0);
}
