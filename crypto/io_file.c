/* SPDX-License-Identifier: Apache-2.0 */
/* What is made of the calls of an io table: whole reads, files found without following anything, small files replaced and read. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "io.h"
#include "report.h"

int io_pread_full(const struct io *io, int fd, void *buf, size_t len, uint64_t off)
{
	ssize_t n = io->pread(io->ctx, fd, buf, len, off);

	if (n < 0)
		return fail((int)n, "cannot read %zu bytes at %" PRIu64 ": %s", len, off, strerror((int)-n));
	if ((size_t)n < len)
		return fail(-EIO, "the file ends at %" PRIu64 ", %" PRIu64 " was expected", off + (size_t)n, off + len);
	return 0;
}

int io_open_beneath(int dirfd, const char *path, int flags)
{
	struct open_how how = {
	    .flags = (uint64_t)flags | O_NOFOLLOW | O_CLOEXEC,
	    .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV,
	};
	int fd;

	do {
		fd = (int)syscall(SYS_openat2, dirfd, path, &how, sizeof(how));
	} while (fd < 0 && (errno == EINTR || errno == EAGAIN));
	if (fd < 0 && (errno == ENOSYS || errno == EPERM)) /* EPERM: old container filters */
		fd = openat(dirfd, path, flags | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int io_open_lifted(const struct io *io, int dirfd, const char *name, int flags)
{
	int probe = io->open(io->ctx, dirfd, name, O_PATH, 0), fd, err;
	struct stat s;

	if (probe < 0)
		return probe;
	err = io->stat(io->ctx, probe, &s);
	if (!err && (!S_ISREG(s.st_mode) || s.st_uid != geteuid() || io->chmod(io->ctx, probe, (s.st_mode & 07777) | 0600)))
		err = -EACCES;
	fd = err ? err : io->open(io->ctx, dirfd, name, flags, 0);
	if (!err)
		err = io->chmod(io->ctx, probe, s.st_mode & 07777);
	io->close(io->ctx, probe);
	if (err && fd >= 0) {
		io->close(io->ctx, fd);
		fd = err;
	}
	return fd;
}

int io_sync_dir(const struct io *io, int dirfd)
{
	int fd = io->open(io->ctx, dirfd, ".", O_RDONLY | O_DIRECTORY, 0), err;

	if (fd < 0)
		return fd;
	err = io->sync(io->ctx, fd, true);
	io->close(io->ctx, fd);
	return err;
}

static int write_new_file(const struct io *io, int dirfd, const char *name, const void *buf, size_t len, mode_t mode)
{
	int fd = io->open(io->ctx, dirfd, name, O_WRONLY | O_CREAT | O_EXCL, mode), err;

	if (fd < 0)
		return fd;
	err = len ? io_pwrite(io, fd, buf, len, 0) : 0;
	if (!err)
		err = io->chmod(io->ctx, fd, mode); /* whatever the umask says */
	if (!err)
		err = io->sync(io->ctx, fd, true);
	io->close(io->ctx, fd);
	return err;
}

int io_replace(const struct io *io, int dirfd, const char *name, const void *buf, size_t len, mode_t mode)
{
	char temp[NAME_MAX + 1];
	int err;

	if (snprintf(temp, sizeof(temp), "%s.new", name) >= (int)sizeof(temp))
		return -ENAMETOOLONG;
	/* left over from a crash; O_EXCL after it never writes into someone else's file */
	err = io->unlink(io->ctx, dirfd, temp, 0);
	if (err && err != -ENOENT)
		return fail(err, "cannot remove the left-over %s: %s", temp, strerror(-err));
	err = write_new_file(io, dirfd, temp, buf, len, mode);
	if (!err)
		err = io->rename(io->ctx, dirfd, temp, dirfd, name, 0);
	if (err) {
		(void)io->unlink(io->ctx, dirfd, temp, 0);
		return fail(err, "cannot write %s: %s", name, strerror(-err));
	}
	err = io_sync_dir(io, dirfd);
	return err ? fail(err, "cannot make %s durable: %s", name, strerror(-err)) : 0;
}

int io_read_file(const struct io *io, int dirfd, const char *name, size_t max, char **ret, size_t *ret_len)
{
	int fd = io->open(io->ctx, dirfd, name, O_RDONLY | O_NONBLOCK, 0), err;
	CLEANUP_FREE char *p = NULL;
	struct stat s;
	ssize_t n = 0;

	if (fd < 0)
		return fail(fd, "cannot open %s: %s", name, strerror(-fd));
	err = io->stat(io->ctx, fd, &s);
	if (!err && !S_ISREG(s.st_mode))
		err = fail(-EINVAL, "%s is not a regular file", name);
	else if (!err && (uint64_t)s.st_size > max)
		err = fail(-EFBIG, "%s is larger than %zu bytes", name, max);
	if (!err) {
		/* one byte more tells a file that grows meanwhile */
		size_t room = (size_t)s.st_size + 1;

		p = malloc(room + 1);
		n = p ? io->pread(io->ctx, fd, p, room, 0) : -ENOMEM;
		if (n < 0)
			err = fail((int)n, "cannot read %s: %s", name, strerror((int)-n));
		else if ((size_t)n > max)
			err = fail(-EFBIG, "%s is larger than %zu bytes", name, max);
	}
	io->close(io->ctx, fd);
	if (err)
		return err;
	p[n] = 0;
	*ret = STEAL(p);
	*ret_len = (size_t)n;
	return 0;
}
