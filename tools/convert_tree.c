/* SPDX-License-Identifier: Apache-2.0 */
/* Copying: folders, symbolic links, fifos, sockets and devices.  Few of them, so the parent does it. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/xattr.h>

#include "convert_file.h"
#include "convert_i.h"
#include "name.h"
#include "report.h"

static int name_there(const struct convert *cv, const char *name, char ret[static NAME_ROOM])
{
	return cv->run.verb == CONVERT_IN ? name_store(name, false, ret) : name_show(name, false, ret);
}

/* The directory in the tree written that stands for @d. */
static int dir_there(const struct convert *cv, const struct cdir *d)
{
	CLEANUP_FREE char *path = malloc(2 * strlen(d->path) + 2);
	char comp[NAME_ROOM], name[NAME_ROOM];
	const char *p = d->path;
	size_t n = 0;

	if (!path)
		return -ENOMEM;
	while (*p) {
		size_t len = strcspn(p, "/");
		int err;

		memcpy(comp, p, MIN(len, sizeof(comp) - 1));
		comp[MIN(len, sizeof(comp) - 1)] = 0;
		err = name_there(cv, comp, name);
		if (err)
			return err;
		if (n)
			path[n++] = '/';
		memcpy(path + n, name, strlen(name));
		n += strlen(name);
		p += len + (p[len] == '/');
	}
	path[n] = 0;
	return beneath_open(cv->run.to_fd, path, true); /* one syncfs must cover it */
}

static int not_copied(struct convert *cv, const struct walk_entry *e, int err)
{
	CLEANUP_FREE char *path = cdir_join(e->dir, e->name);

	cv->counts.failed++;
	report_failed(cv, path ? path : e->name, "failed",
		      err == -ENOENT ? "its name cannot be in the other tree"
		      : *fail_text() ? fail_text()
				     : strerror(-err));
	return err;
}

int tree_dir(struct convert *cv, const struct walk_entry *e)
{
	CLEANUP_FD int dir = dir_there(cv, e->dir);
	char name[NAME_ROOM];
	struct stat st;
	int err;

	fail_clear();
	err = dir < 0 ? dir : name_there(cv, e->name, name);
	if (!err && mkdirat(dir, name, 0700) && errno != EEXIST)
		err = -errno;
	if (!err && (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) || !S_ISDIR(st.st_mode)))
		err = fail(-EEXIST, "there is something else in its place");
	if (err)
		return not_copied(cv, e, err);
	e->self->touched = true;
	e->dir->touched = true;
	return 0;
}

int tree_dir_finish(struct convert *cv, const struct cdir *d)
{
	CLEANUP_FD int from = beneath_open(cv->run.from_fd, d->path, cv->run.one_fs);
	CLEANUP_FD int to = dir_there(cv, d);
	const char *what = "";

	if (from < 0 || to < 0)
		return from < 0 ? from : to;
	if (!*d->path) /* the root belongs to the volume or to the user already: only what is in it is copied */
		return 0;
	return meta_copy(from, &d->st, to, NULL, false, true, true, &what);
}

static int link_copy(const struct walk_entry *e, int dir, const char *name)
{
	char text[PATH_MAX], there[PATH_MAX];
	ssize_t n = readlinkat(e->dir_fd, e->name, text, sizeof(text) - 1), m;

	if (n < 0)
		return -errno;
	text[n] = 0;
	if (symlinkat(text, dir, name) == 0)
		return 0;
	if (errno != EEXIST)
		return -errno;
	m = readlinkat(dir, name, there, sizeof(there));
	return m == n && memcmp(text, there, (size_t)n) == 0 ? 0 : fail(-EEXIST, "there is something else in its place");
}

static int node_copy(const struct walk_entry *e, int dir, const char *name)
{
	struct stat st;

	if (mknodat(dir, name, (e->st.st_mode & S_IFMT) | 0600, e->st.st_rdev) == 0)
		return 0;
	if (errno != EEXIST)
		return -errno;
	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW))
		return -errno;
	return (st.st_mode & S_IFMT) == (e->st.st_mode & S_IFMT) && st.st_rdev == e->st.st_rdev
		   ? 0
		   : fail(-EEXIST, "there is something else in its place");
}

/* Of the object itself: in a folder that is somebody else's the name may lead elsewhere by now. */
static int node_meta(const struct walk_entry *e, int dir, const char *name)
{
	const struct timespec times[2] = {e->st.st_atim, e->st.st_mtim};
	CLEANUP_FD int fd = openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	char path[40];
	struct stat st;

	if (fd < 0 || fstat(fd, &st))
		return -errno;
	if ((st.st_mode & S_IFMT) != (e->st.st_mode & S_IFMT))
		return fail(-EEXIST, "there is something else in its place");
	if (fchownat(fd, "", e->st.st_uid, e->st.st_gid, AT_EMPTY_PATH) && errno != EPERM)
		return -errno;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (!S_ISLNK(e->st.st_mode) && chmod(path, e->st.st_mode & 07777))
		return -errno;
	return utimensat(dir, name, times, AT_SYMLINK_NOFOLLOW) ? -errno : 0;
}

int tree_other(struct convert *cv, const struct walk_entry *e)
{
	CLEANUP_FD int dir = dir_there(cv, e->dir);
	char name[NAME_ROOM];
	int err;

	fail_clear();
	err = dir < 0 ? dir : name_there(cv, e->name, name);
	if (!err)
		err = S_ISLNK(e->st.st_mode) ? link_copy(e, dir, name) : node_copy(e, dir, name);
	if (!err)
		err = node_meta(e, dir, name);
	e->dir->touched = true;
	if (err)
		(void)not_copied(cv, e, err);
	return 0;
}
