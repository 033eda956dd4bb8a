/* SPDX-License-Identifier: Apache-2.0 */
#include "outfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "aead.h"
#include "encode.h"
#include "report.h"

static int temp_name(char **ret)
{
	uint8_t random[8];
	char hex[2 * sizeof(random) + 1];
	int err = random_bytes(random, sizeof(random));

	if (err)
		return err;
	hex_encode(random, sizeof(random), hex);
	return asprintf(ret, ".tdfs-%s.tmp", hex) < 0 ? -ENOMEM : 0;
}

/* A file without a name where the file system can do that, else one with a name that `tdfs check` knows. */
static int temp_open(struct outfile *o)
{
	int err;

	o->fd = openat(o->dir_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (o->fd >= 0)
		return 0;
	if (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT && errno != EINVAL)
		return -errno;
	err = temp_name(&o->temp);
	if (err)
		return err;
	o->fd = openat(o->dir_fd, o->temp, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (o->fd < 0) {
		err = -errno;
		free(STEAL(o->temp));
	}
	return err;
}

int outfile_open(const char *path, bool force, struct outfile *ret)
{
	struct outfile o = {.fd = -1, .dir_fd = -1, .force = force};
	const char *slash = strrchr(path, '/');
	CLEANUP_FREE char *dir = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
	struct stat st;
	int err;

	o.name = strdup(slash ? slash + 1 : path);
	if (!dir || !o.name) {
		free(o.name);
		return -ENOMEM;
	}
	o.dir_fd = open(dir, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	if (o.dir_fd < 0)
		err = fail(-errno, "its directory: %s", strerror(errno));
	else if (!*o.name || (fstatat(o.dir_fd, o.name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode)))
		err = fail(-EISDIR, "is a directory");
	else if (!force && faccessat(o.dir_fd, o.name, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		err = fail(-EEXIST, "exists already");
	else
		err = temp_open(&o);
	if (err) {
		outfile_abort(&o);
		return err;
	}
	*ret = o;
	return 0;
}

static int link_in(struct outfile *o, const char *name)
{
	char self[48];

	snprintf(self, sizeof(self), "/proc/self/fd/%d", o->fd);
	return linkat(AT_FDCWD, self, o->dir_fd, name, AT_SYMLINK_FOLLOW) ? -errno : 0;
}

static int name_it(struct outfile *o)
{
	int err;

	if (!o->temp && !o->force)
		return link_in(o, o->name);
	if (!o->temp) { /* a link cannot replace a name: take the way over a temporary one */
		err = temp_name(&o->temp);
		if (!err)
			err = link_in(o, o->temp);
		if (err) {
			free(STEAL(o->temp));
			return err;
		}
	}
	if (renameat2(o->dir_fd, o->temp, o->dir_fd, o->name, o->force ? 0 : RENAME_NOREPLACE)) {
		if (errno != EINVAL || o->force)
			return -errno;
		/* no RENAME_NOREPLACE here: link and unlink do the same in two steps */
		if (linkat(o->dir_fd, o->temp, o->dir_fd, o->name, 0))
			return -errno;
		unlinkat(o->dir_fd, o->temp, 0);
	}
	free(STEAL(o->temp));
	return 0;
}

int outfile_commit(struct outfile *o, mode_t mode, const struct timespec times[2])
{
	int err = 0;

	if (fchmod(o->fd, mode & 07777) || (times && futimens(o->fd, times)) || fsync(o->fd))
		err = -errno;
	if (!err)
		err = name_it(o);
	if (!err && fsync(o->dir_fd) && errno != EINVAL)
		err = -errno;
	if (err)
		fail(err, "%s", err == -EEXIST ? "exists already" : strerror(-err));
	outfile_abort(o);
	return err;
}

void outfile_abort(struct outfile *o)
{
	if (o->temp)
		unlinkat(o->dir_fd, o->temp, 0);
	if (o->fd >= 0)
		close(o->fd);
	if (o->dir_fd >= 0)
		close(o->dir_fd);
	free(STEAL(o->temp));
	free(STEAL(o->name));
	o->fd = o->dir_fd = -1;
}
