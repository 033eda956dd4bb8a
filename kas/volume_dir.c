/* SPDX-License-Identifier: Apache-2.0 */
/* Finding a volume's directories, and checking that nobody else can have written in them. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/file.h>
#include <time.h>

#include "report.h"
#include "volume_file.h"

#define LOCK_WAIT_MS 10000
#define LOCK_POLL_MS 20

int volume_check_owner(const struct stat *st, const char *path, const char *what)
{
	if (st->st_uid != geteuid() && st->st_uid != 0)
		return fail(-EPERM, "%s%s belongs to user %u: only its owner may use it (chown it, or become that user)", path, what,
			    (unsigned)st->st_uid);
	if (st->st_mode & (S_IWGRP | S_IWOTH))
		return fail(-EPERM, "%s%s may be written by group or others: chmod go-w it", path, what);
	return 0;
}

static int open_store(const char *store, int *ret_fd, char **ret_path, struct stat *ret_st)
{
	CLEANUP_FREE char *plain = strdup(store);
	CLEANUP_FREE char *path = NULL;
	CLEANUP_FD int fd = -1;
	struct stat st;
	size_t n;

	if (!plain)
		return -ENOMEM;
	/* "link/" would be followed */
	for (n = strlen(plain); n > 1 && plain[n - 1] == '/'; n--)
		plain[n - 1] = '\0';
	fd = open(plain, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 && (errno == ELOOP || errno == ENOTDIR) && lstat(plain, &st) == 0 && S_ISLNK(st.st_mode))
		return fail(-ELOOP, "%s is a symbolic link: name the directory itself", plain);
	if (fd < 0)
		return fail(-errno, "%s: %s", plain, strerror(errno));
	path = realpath(plain, NULL);
	if (!path || fstat(fd, &st))
		return fail(-errno, "%s: %s", plain, strerror(errno));
	*ret_fd = fd;
	*ret_path = STEAL(path);
	*ret_st = st;
	fd = -1;
	return 0;
}

int volume_open_store(const char *store, int *ret_fd, char **ret_path)
{
	CLEANUP_FREE char *path = NULL;
	CLEANUP_FD int fd = -1;
	struct stat st;
	int err = open_store(store, &fd, &path, &st);

	if (!err)
		err = volume_check_owner(&st, path, "");
	if (err)
		return err;
	*ret_fd = fd;
	*ret_path = STEAL(path);
	fd = -1;
	return 0;
}

struct check {
	const char *path;
	int fd;
};

static int check_entry(void *arg, const char *name, unsigned char d_type, ino_t ino)
{
	struct check *c = arg;
	char what[NAME_MAX + 16];
	struct stat st;

	if (fstatat(c->fd, name, &st, AT_SYMLINK_NOFOLLOW))
		return errno == ENOENT ? 0 : fail(-errno, "%s/%s/%s: %s", c->path, TDFS_DIR, name, strerror(errno));
	if (S_ISLNK(st.st_mode))
		return fail(-EPERM, "%s/%s/%s is a symbolic link: tdfs has not made it", c->path, TDFS_DIR, name);
	snprintf(what, sizeof(what), "/%s/%s", TDFS_DIR, name);
	return volume_check_owner(&st, c->path, what);
}

/*
 * Owner and mode of the store itself are those of the mount's root directory, which chown(2) and chmod(2) may change: root serves anybody's,
 * and a group may write in it.  What counts is .tdfs: in its place another user can only put a directory of his own.
 */
static int check_root(const struct stat *st, const char *path)
{
	if (geteuid() && st->st_uid != geteuid() && st->st_uid)
		return fail(-EPERM, "%s belongs to user %u: only its owner or root may use it", path, (unsigned)st->st_uid);
	if ((st->st_mode & (S_IWOTH | S_ISVTX)) == S_IWOTH)
		return fail(-EPERM, "%s may be written by everybody: chmod o-w it, or chmod +t", path);
	return 0;
}

int volume_open_dirs(const char *store, struct volume **ret)
{
	CLEANUP(volume_cleanup) struct volume *v = volume_new();
	struct check c;
	struct stat st;
	struct io io;
	int err;

	if (!v)
		return -ENOMEM;
	err = open_store(store, &v->store_fd, &v->path, &st);
	if (!err)
		err = check_root(&st, v->path);
	if (err)
		return err;
	v->dir_fd = openat(v->store_fd, TDFS_DIR, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (v->dir_fd < 0 && (errno == ENOENT || errno == ENOTDIR || errno == ELOOP))
		return fail(-ENOENT, "%s: no tdfs volume here%s (tdfs init makes one)", v->path,
			    errno == ENOENT ? "" : ": its .tdfs is no directory");
	if (v->dir_fd < 0 || fstat(v->dir_fd, &st))
		return fail(-errno, "%s/%s: %s", v->path, TDFS_DIR, strerror(errno));
	err = volume_check_owner(&st, v->path, "/" TDFS_DIR);
	if (err)
		return err;
	c = (struct check){v->path, v->dir_fd};
	io = io_posix(v->store_fd);
	err = io.list(io.ctx, v->dir_fd, check_entry, &c);
	if (!err)
		*ret = STEAL(v);
	return err;
}

/* A file of that name is just a file, and a user may have a directory of that name in a mount: what makes the volume is its configuration.
 */
static bool holds_volume(const char *dir)
{
	static const char *const names[] = {"volume.json", "volume.json.bak"};
	char probe[PATH_MAX + 32];
	struct stat st;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(probe, sizeof(probe), "%s/%s/%s", dir, TDFS_DIR, names[i]);
		if (!lstat(probe, &st) || errno == EACCES) /* somebody else's volume: opening it will say so */
			return true;
	}
	return false;
}

int dir_lock(int dir, const char *what)
{
	for (int waited = 0; flock(dir, LOCK_EX | LOCK_NB); waited += LOCK_POLL_MS) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return fail(-errno, "%s cannot be locked: %s", what, strerror(errno));
		if (waited >= LOCK_WAIT_MS)
			return fail(-EBUSY,
				    "%s: another process holds the lock of its directory, for %d s already; `fuser -v` on that says which",
				    what, LOCK_WAIT_MS / 1000);
		(void)nanosleep(&(struct timespec){.tv_nsec = LOCK_POLL_MS * 1000000L}, NULL);
	}
	return 0;
}

int volume_find(const char *path, char **ret)
{
	CLEANUP_FREE char *at = realpath(path, NULL);

	if (!at)
		return fail(-errno, "%s: %s", path, strerror(errno));
	for (;;) {
		char *slash = strrchr(at, '/');

		if (holds_volume(at[1] ? at : "")) {
			*ret = STEAL(at);
			return 0;
		}
		if (!at[1])
			return fail(-ENOENT, "%s is not in a tdfs volume", path);
		slash[slash == at] = '\0';
	}
}
