/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/statfs.h>
#include <sys/xattr.h>
#include <time.h>

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

#define LEASE_MS 10000 /* for a lease it is waited so long; without O_NONBLOCK for a pipe, too, and for ever */

int io_openat(int dirfd, const char *name, int flags, mode_t mode)
{
	int fd = RETRY(openat(dirfd, name, flags | O_CLOEXEC, mode));

	if (fd < 0 && errno == EPERM && flags & O_NOATIME) {
		flags &= ~O_NOATIME;
		fd = RETRY(openat(dirfd, name, flags | O_CLOEXEC, mode));
	}
	/* somebody's lease (the converter has one while it looks whether anybody else has the file open): he was asked to let go of it */
	for (int ms = 0; fd < 0 && errno == EAGAIN && ms < LEASE_MS; ms++) {
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
		fd = RETRY(openat(dirfd, name, flags | O_CLOEXEC, mode));
	}
	return fd < 0 ? -errno : fd;
}

static int posix_open(void *ctx, int dirfd, const char *name, int flags, mode_t mode)
{
	return io_openat(dirfd, name, flags | O_NOFOLLOW, mode);
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
	int fd = posix_open(ctx, dirfd, ".", O_RDONLY | O_DIRECTORY | O_NOATIME, 0);
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

/* Whoever sets the flag again has read before, so of several at once one is counted. */
static void posix_was_read(void *ctx, int fd)
{
	int flags = fcntl(fd, F_GETFL);
	char byte;

	if (flags < 0 || !(flags & O_NOATIME) || fcntl(fd, F_SETFL, flags & ~O_NOATIME))
		return;
	(void)!pread(fd, &byte, 1, 0);
	(void)fcntl(fd, F_SETFL, flags);
}

static void posix_ahead(void *ctx, int fd, uint64_t off, size_t len)
{
	(void)posix_fadvise(fd, (off_t)off, (off_t)len, POSIX_FADV_WILLNEED);
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
	    .was_read = posix_was_read,
	    .ahead = posix_ahead,
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
