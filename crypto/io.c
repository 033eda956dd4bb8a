/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

#include "io.h"
#include "report.h"

#define MAGIC_EXT 0xEF53u
#define MAGIC_XFS 0x58465342u
#define MAGIC_BTRFS 0x9123683Eu

/* one system call may move this much; Linux stops a little below 2 GiB */
#define CALL_MAX ((size_t)1 << 30)
#define IOV_AT_ONCE 64

#define RETRY(call)                                   \
	({                                            \
		__typeof__(call) retry_;              \
		do                                    \
			retry_ = (call);              \
		while (retry_ < 0 && errno == EINTR); \
		retry_;                               \
	})
#define ZERO_OR_ERRNO(call) (RETRY(call) < 0 ? -errno : 0)

static int posix_open(void *ctx, int dirfd, const char *name, int flags, mode_t mode)
{
	int fd = RETRY(openat(dirfd, name, flags | O_CLOEXEC | O_NOFOLLOW, mode));

	return fd < 0 ? -errno : fd;
}

static void posix_close(void *ctx, int fd)
{
	/* not retried: Linux has freed the descriptor even when it says EINTR */
	close(fd);
}

static ssize_t posix_pread(void *ctx, int fd, void *buf, size_t len, uint64_t off)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = RETRY(pread(fd, (uint8_t *)buf + done, MIN(len - done, CALL_MAX), (off_t)(off + done)));

		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

/*
 * The kernel takes security.capability away from a file that is written or cut, and set-id bits unless root does it.  That an application
 * changed the content was answered when it did; the ciphertext may follow later, when they have been set anew.
 */
struct privs {
	char cap[32]; /* 24 at most */
	ssize_t cap_len;
	mode_t mode;
};
#define CAPS "security.capability"
#define SET_ID (S_ISUID | S_ISGID)

static struct privs privs_of(int fd)
{
	struct privs p = {.mode = 0};
	struct stat st;

	p.cap_len = fgetxattr(fd, CAPS, p.cap, sizeof(p.cap));
	if (geteuid() && !fstat(fd, &st) && st.st_mode & SET_ID)
		p.mode = st.st_mode & 07777;
	return p;
}

static void privs_back(int fd, const struct privs *p)
{
	if (p->cap_len > 0 && fsetxattr(fd, CAPS, p->cap, (size_t)p->cap_len, 0))
		report(REPORT_WARN, "a file's capabilities (" CAPS ") were lost when it was written: %s", strerror(errno));
	if (p->mode && fchmod(fd, p->mode))
		report(REPORT_WARN, "a file's setuid or setgid bit was lost when it was written: %s", strerror(errno));
}

static int write_all(int fd, const struct iovec *iov, int n, uint64_t off)
{
	struct iovec part[IOV_AT_ONCE];
	size_t skip = 0; /* bytes of iov[i] already written */
	int i = 0;

	while (i < n) {
		size_t want = 0;
		int k = 0;

		for (; k < IOV_AT_ONCE && i + k < n && want < CALL_MAX; k++) {
			size_t from = k ? 0 : skip, len = MIN(iov[i + k].iov_len - from, CALL_MAX - want);

			part[k] = (struct iovec){(uint8_t *)iov[i + k].iov_base + from, len};
			want += len;
		}

		ssize_t w = want ? RETRY(pwritev(fd, part, k, (off_t)off)) : 0;

		if (w < 0)
			return -errno;
		if (w == 0 && want)
			return -EIO;
		off += (size_t)w;
		skip += (size_t)w;
		while (i < n && skip >= iov[i].iov_len)
			skip -= iov[i++].iov_len;
	}
	return 0;
}

static int posix_pwritev(void *ctx, int fd, const struct iovec *iov, int n, uint64_t off)
{
	const struct privs p = privs_of(fd);
	int err = write_all(fd, iov, n, off);

	privs_back(fd, &p);
	return err;
}

static int posix_truncate(void *ctx, int fd, uint64_t len)
{
	const struct privs p = privs_of(fd);
	int err = ZERO_OR_ERRNO(ftruncate(fd, (off_t)len));

	privs_back(fd, &p);
	return err;
}

static int posix_allocate(void *ctx, int fd, int mode, uint64_t off, uint64_t len)
{
	const struct privs p = privs_of(fd);
	int err = ZERO_OR_ERRNO(fallocate(fd, mode, (off_t)off, (off_t)len));

	privs_back(fd, &p);
	return err;
}

static int posix_sync(void *ctx, int fd, bool full)
{
	return full ? ZERO_OR_ERRNO(fsync(fd)) : ZERO_OR_ERRNO(fdatasync(fd));
}

static int posix_syncfs(void *ctx, int fd)
{
	return ZERO_OR_ERRNO(syncfs(fd));
}

static int posix_stat(void *ctx, int fd, struct stat *ret)
{
	struct stat s;

	if (fstat(fd, &s))
		return -errno;
	*ret = s;
	return 0;
}

static int posix_times(void *ctx, int fd, const struct timespec ts[2])
{
	return ZERO_OR_ERRNO(futimens(fd, ts));
}

static int posix_chmod(void *ctx, int fd, mode_t mode)
{
	char path[40];
	int err = ZERO_OR_ERRNO(fchmod(fd, mode));

	if (err != -EBADF)
		return err;
	/* a descriptor opened with O_PATH, because the mode forbids any other */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return ZERO_OR_ERRNO(chmod(path, mode));
}

static int posix_set_xattr(void *ctx, int fd, const char *name, const void *val, size_t len)
{
	return ZERO_OR_ERRNO(fsetxattr(fd, name, val, len, 0));
}

static int posix_rename(void *ctx, int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
	return ZERO_OR_ERRNO(renameat2(from_dir, from, to_dir, to, flags));
}

static int posix_unlink(void *ctx, int dirfd, const char *name, int flags)
{
	return ZERO_OR_ERRNO(unlinkat(dirfd, name, flags));
}

static int posix_list(void *ctx, int dirfd, int (*each)(void *arg, const char *name, unsigned char d_type, ino_t ino), void *arg)
{
	/* an own open file, so that the position of @dirfd (and of whoever shares it) is not moved, and O_PATH descriptors work */
	int fd = posix_open(ctx, dirfd, ".", O_RDONLY | O_DIRECTORY, 0);
	struct dirent *e;
	int err = 0;
	DIR *d;

	if (fd < 0)
		return fd;
	d = fdopendir(fd);
	if (!d) {
		err = -errno;
		close(fd);
		return err;
	}
	while (!err) {
		errno = 0;
		e = readdir(d);
		if (!e) {
			err = -errno;
			break;
		}
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
			err = each(arg, e->d_name, e->d_type, e->d_ino);
	}
	closedir(d);
	return err;
}

static void posix_advise(void *ctx, int fd, bool random)
{
	(void)posix_fadvise(fd, 0, 0, random ? POSIX_FADV_RANDOM : POSIX_FADV_NORMAL);
}

static void posix_in_place(void *ctx, int fd)
{
	int flags = 0;

	if (ioctl(fd, FS_IOC_GETFLAGS, &flags))
		return;
	flags |= FS_NOCOW_FL;
	(void)ioctl(fd, FS_IOC_SETFLAGS, &flags);
}

struct io io_posix(int store_fd)
{
	struct io io = {
	    .open = posix_open,
	    .close = posix_close,
	    .pread = posix_pread,
	    .pwritev = posix_pwritev,
	    .truncate = posix_truncate,
	    .allocate = posix_allocate,
	    .sync = posix_sync,
	    .syncfs = posix_syncfs,
	    .stat = posix_stat,
	    .times = posix_times,
	    .chmod = posix_chmod,
	    .set_xattr = posix_set_xattr,
	    .advise = posix_advise,
	    .in_place = posix_in_place,
	    .rename = posix_rename,
	    .unlink = posix_unlink,
	    .list = posix_list,
	};
	struct statfs s;

	if (!RETRY(fstatfs(store_fd, &s))) {
		uint32_t type = (uint32_t)s.f_type;

		io.names_with_files = type == MAGIC_EXT || type == MAGIC_XFS || type == MAGIC_BTRFS;
	}
	return io;
}

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

static int sync_directory(const struct io *io, int dirfd)
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
	err = sync_directory(io, dirfd);
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
