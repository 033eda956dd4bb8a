/* SPDX-License-Identifier: Apache-2.0 */
/* Opening store files by path: never through a symlink, over a mount point, into `.tdfs` or out of the store, and nothing but directories
 * and regular files. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>

#include "recover_int.h"

/* One step down; the result must be on the store's own file system.  Closes @from unless it is the root. */
static int step(const struct io *io, int root, int from, dev_t dev, const char *name, int flags, struct stat *ret)
{
	int fd = io->open(io->ctx, from, name, flags | O_NOCTTY, 0), err;

	if (from != root)
		io->close(io->ctx, from);
	if (fd < 0)
		return fd;
	err = io->stat(io->ctx, fd, ret);
	if (!err && ret->st_dev != dev)
		err = -EXDEV;
	if (err) {
		io->close(io->ctx, fd);
		return err;
	}
	return fd;
}

/* Open the directory of @path, or @path itself as a directory if @ret_name is NULL. */
int find_dir(const struct io *io, int root, const char *path, char *ret_name)
{
	struct stat s;
	dev_t dev;
	int fd = root, err = io->stat(io->ctx, root, &s);

	if (err)
		return err;
	dev = s.st_dev;
	while (*path) {
		size_t len = strcspn(path, "/");
		char name[NAME_MAX + 1];

		if (!len || len > NAME_MAX || (path[0] == '.' && (len == 1 || (len == 2 && path[1] == '.')))) {
			err = -EINVAL;
			break;
		}
		memcpy(name, path, len);
		name[len] = 0;
		if (fd == root && !strcmp(name, ".tdfs")) {
			err = -EINVAL;
			break;
		}
		path += len;
		if (!*path && ret_name) {
			memcpy(ret_name, name, len + 1);
			return fd;
		}
		path += *path == '/';
		fd = step(io, root, fd, dev, name, O_PATH | O_DIRECTORY, &s);
		if (fd < 0)
			return fd;
	}
	if (!err && ret_name)
		err = -EINVAL; /* an empty path or one that ends in a slash */
	if (err && fd != root)
		io->close(io->ctx, fd);
	return err ? err : fd;
}

void find_dir_close(const struct io *io, int root, int fd)
{
	if (fd >= 0 && fd != root)
		io->close(io->ctx, fd);
}

/* Never opens anything but a regular file: a device or FIFO in its place must not be touched. */
static int open_regular(const struct io *io, int dirfd, const char *name, bool write, dev_t dev, struct stat *ret)
{
	int fd = io->open(io->ctx, dirfd, name, O_PATH, 0), flags = (write ? O_RDWR : O_RDONLY) | O_NONBLOCK | O_NOCTTY | O_NOATIME, err;
	struct stat s;

	if (fd < 0)
		return fd;
	err = io->stat(io->ctx, fd, ret);
	io->close(io->ctx, fd);
	if (!err && (!S_ISREG(ret->st_mode) || ret->st_dev != dev))
		err = -ENOENT;
	if (err)
		return err;
	fd = io->open(io->ctx, dirfd, name, flags, 0);
	if (fd == -EACCES)
		fd = io_open_lifted(io, dirfd, name, flags);
	if (fd < 0)
		return fd;
	err = io->stat(io->ctx, fd, &s);
	if (!err && (s.st_ino != ret->st_ino || s.st_dev != dev || !S_ISREG(s.st_mode)))
		err = -ENOENT;
	if (err) {
		io->close(io->ctx, fd);
		return err;
	}
	*ret = s;
	return fd;
}

int find_open(const struct io *io, int store_fd, const char *path, bool write, struct stat *ret)
{
	char name[NAME_MAX + 1];
	struct stat root;
	int dir, fd, err = io->stat(io->ctx, store_fd, &root);

	if (err)
		return err;
	dir = find_dir(io, store_fd, path, name);
	if (dir < 0)
		return dir;
	fd = open_regular(io, dir, name, write, root.st_dev, ret);
	find_dir_close(io, store_fd, dir);
	return fd;
}
