/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every call that the container, the log, recovery and the engine make on the backing store.
 *
 * A table, so that the crash tests can put a simulated disk behind the same code.  All return 0 or a result, or -errno; EINTR is
 * retried inside.  Descriptors are those of the table that made them: never hand one to a system call directly.
 */
#ifndef TDFS_IO_H
#define TDFS_IO_H

#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "defs.h"

struct io {
	void *ctx; /* owned by whoever made the table; handed to every call */

	/* openat(2); O_CLOEXEC and O_NOFOLLOW are added, O_NOATIME is left out where it is not permitted; with O_NONBLOCK a pipe is not
	 * waited for, but up to 10 s for somebody's lease (else -EAGAIN) */
	int (*open)(void *ctx, int dirfd, const char *name, int flags, mode_t mode);
	void (*close)(void *ctx, int fd);
	/* one call, may be short at the end of the file only */
	ssize_t (*pread)(void *ctx, int fd, void *buf, size_t len, uint64_t off);
	/* all of @len or an error */
	int (*pwritev)(void *ctx, int fd, const struct iovec *iov, int n, uint64_t off);
	int (*truncate)(void *ctx, int fd, uint64_t len);
	/* fallocate(2) with this mode */
	int (*allocate)(void *ctx, int fd, int mode, uint64_t off, uint64_t len);
	/* make content and size durable; with @full also times, mode, xattrs, and the file's name (ext4, xfs, btrfs) */
	int (*sync)(void *ctx, int fd, bool full);
	/* syncfs(2): everything on the file system of @fd */
	int (*syncfs)(void *ctx, int fd);
	int (*stat)(void *ctx, int fd, struct stat *ret);
	/* utimensat(2) on the descriptor */
	int (*times)(void *ctx, int fd, const struct timespec ts[2]);
	int (*chmod)(void *ctx, int fd, mode_t mode);
	int (*set_xattr)(void *ctx, int fd, const char *name, const void *val, size_t len);
	/* how the file will be read: posix_fadvise(2) RANDOM or NORMAL; only advice; may be NULL */
	void (*advise)(void *ctx, int fd, bool random);
	/* somebody has read this file: its atime moves as its file system thinks right, also with O_NOATIME; may be NULL */
	void (*was_read)(void *ctx, int fd);
	/* these bytes will be read soon: posix_fadvise(2) WILLNEED; only advice; may be NULL */
	void (*ahead)(void *ctx, int fd, uint64_t off, size_t len);
	/* of an empty file: it will only be overwritten in place, so do not copy at each write (btrfs); only advice; may be NULL */
	void (*in_place)(void *ctx, int fd);
	/* renameat2(2) */
	int (*rename)(void *ctx, int from_dir, const char *from, int to_dir, const char *to, unsigned flags);
	int (*unlink)(void *ctx, int dirfd, const char *name, int flags);
	/* calls @each for every entry but "." and ".."; stops at its first non-zero result and returns that */
	int (*list)(void *ctx, int dirfd, int (*each)(void *arg, const char *name, unsigned char d_type, ino_t ino), void *arg);
	/* fsync of a file makes its name durable (ext4, xfs, btrfs): else the parent directory has to be synced too */
	bool names_with_files;
};

/** io_posix() - the real thing.  @store_fd: any descriptor on the store, asked for its file system type (names_with_files).  Never fails.
 */
struct io io_posix(int store_fd);

/* The forms used most. */
static inline int io_pwrite(const struct io *io, int fd, const void *buf, size_t len, uint64_t off)
{
	struct iovec v = {(void *)buf, len};

	return io->pwritev(io->ctx, fd, &v, 1, off);
}
/** io_openat() - openat(2) with O_CLOEXEC; O_NOATIME is left out where it is not permitted (another user's file); O_NONBLOCK as in struct
 * io; a descriptor or -errno */
int io_openat(int dirfd, const char *name, int flags, mode_t mode) MUST_CHECK;
/** io_pread_full() - exactly @len bytes; 0, -EIO if the file ends before (fail() says where), -errno */
int io_pread_full(const struct io *io, int fd, void *buf, size_t len, uint64_t off) MUST_CHECK;
/** io_open_beneath() - open @path below the directory @dirfd: no symlink on the way, nothing outside, nothing that is mounted there;
 * O_NOFOLLOW and O_CLOEXEC are added.  Kernels before 5.6 guard the last component only.  A descriptor, -ELOOP, -EXDEV, -errno */
int io_open_beneath(int dirfd, const char *path, int flags) MUST_CHECK;
/** io_open_lifted() - open a regular file of ours whose mode forbids it (0444 and written through an open handle, 000 and dirty): its bits
 * are lifted for the moment, through a descriptor, so that whatever takes its name meanwhile keeps its mode; a descriptor, -EACCES if it is
 * not ours, -errno */
int io_open_lifted(const struct io *io, int dirfd, const char *name, int flags) MUST_CHECK;
/** io_replace() - write a small file so that after a crash the old or the new content is there: temp, fsync, rename, directory fsync; 0 or
 * -errno */
int io_replace(const struct io *io, int dirfd, const char *name, const void *buf, size_t len, mode_t mode) MUST_CHECK;
/** io_sync_dir() - make the names in a directory durable; @dirfd may be O_PATH; 0 or -errno.  Blocks: disk */
int io_sync_dir(const struct io *io, int dirfd) MUST_CHECK;
/** io_read_file() - a whole file of at most @max bytes into malloc'd memory, NUL added; 0, -EFBIG, -errno */
int io_read_file(const struct io *io, int dirfd, const char *name, size_t max, char **ret, size_t *ret_len) MUST_CHECK;

#endif
