/* SPDX-License-Identifier: Apache-2.0 */
/* The table of calls that fail when they are told to. */
#include "faults.h"

static int fault(struct faults *f, enum fault_op op, int fd)
{
	bool log = fd >= 0 && fd < FDS && f->log[fd];

	f->count[op]++;
	if (f->dead && op != FAULT_PREAD)
		return -EIO;
	if (f->op != op || !(f->where & (log ? ON_LOG : ON_FILE)))
		return 0;
	if (f->hook) {
		void (*hook)(struct file *) = f->hook;

		f->hook = NULL;
		hook(f->hook_file); /* it may make a rule for this very call */
	}
	if (!f->nth || --f->nth)
		return 0;
	f->fired++;
	f->all_fired++;
	f->nth = --f->times ? 1 : 0;
	return f->err;
}

static int f_open(void *ctx, int dirfd, const char *name, int flags, mode_t mode)
{
	struct faults *f = ctx;
	int fd = f->real.open(f->real.ctx, dirfd, name, flags, mode);

	if (fd >= 0) {
		CHECK(fd < FDS);
		f->log[fd] = !strncmp(name, "log.", 4);
	}
	return fd;
}

static void f_close(void *ctx, int fd)
{
	struct faults *f = ctx;

	f->real.close(f->real.ctx, fd);
}

static ssize_t f_pread(void *ctx, int fd, void *buf, size_t len, uint64_t off)
{
	struct faults *f = ctx;
	int err = fault(f, FAULT_PREAD, fd);

	return err ? err : f->real.pread(f->real.ctx, fd, buf, len, off);
}

/* A write that fails, or in which the process is killed, has written half of its bytes. */
static int f_pwritev(void *ctx, int fd, const struct iovec *iov, int n, uint64_t off)
{
	struct faults *f = ctx;
	bool was_dead = f->dead;
	int err = fault(f, FAULT_PWRITE, fd);

	if (!err && f->dead)
		err = -EIO;
	if (err && !was_dead && n == 1 && iov->iov_len > 1 && iov->iov_len != SECTOR) {
		struct iovec half = {iov->iov_base, iov->iov_len / 2};

		CHECK(!f->real.pwritev(f->real.ctx, fd, &half, 1, off));
	}
	return err ? err : f->real.pwritev(f->real.ctx, fd, iov, n, off);
}

static int f_truncate(void *ctx, int fd, uint64_t len)
{
	struct faults *f = ctx;
	int err = fault(f, FAULT_TRUNCATE, fd);

	return err ? err : f->real.truncate(f->real.ctx, fd, len);
}

static int f_allocate(void *ctx, int fd, int mode, uint64_t off, uint64_t len)
{
	struct faults *f = ctx;
	int err = fault(f, FAULT_ALLOCATE, fd);

	return err ? err : f->real.allocate(f->real.ctx, fd, mode, off, len);
}

static int f_sync(void *ctx, int fd, bool full)
{
	return fault(ctx, FAULT_SYNC, fd); /* nothing here is about power */
}

static int f_syncfs(void *ctx, int fd)
{
	((struct faults *)ctx)->syncfs_fd = fd;
	return fault(ctx, FAULT_SYNCFS, fd);
}

static int f_stat(void *ctx, int fd, struct stat *ret)
{
	struct faults *f = ctx;

	return f->real.stat(f->real.ctx, fd, ret);
}

static int f_times(void *ctx, int fd, const struct timespec ts[2])
{
	struct faults *f = ctx;

	return f->dead ? -EIO : f->real.times(f->real.ctx, fd, ts);
}

static int f_chmod(void *ctx, int fd, mode_t mode)
{
	struct faults *f = ctx;

	return f->dead ? -EIO : f->real.chmod(f->real.ctx, fd, mode);
}

static int f_set_xattr(void *ctx, int fd, const char *name, const void *val, size_t len)
{
	struct faults *f = ctx;

	return f->dead ? -EIO : f->real.set_xattr(f->real.ctx, fd, name, val, len);
}

static int f_rename(void *ctx, int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
	struct faults *f = ctx;

	return f->dead ? -EIO : f->real.rename(f->real.ctx, from_dir, from, to_dir, to, flags);
}

static int f_unlink(void *ctx, int dirfd, const char *name, int flags)
{
	struct faults *f = ctx;

	return f->dead ? -EIO : f->real.unlink(f->real.ctx, dirfd, name, flags);
}

static int f_list(void *ctx, int dirfd, int (*each)(void *arg, const char *name, unsigned char d_type, ino_t ino), void *arg)
{
	struct faults *f = ctx;

	return f->real.list(f->real.ctx, dirfd, each, arg);
}

void faults_init(struct faults *f, int root)
{
	f->real = io_posix(root);
	f->io = (struct io){
	    .ctx = f,
	    .open = f_open,
	    .close = f_close,
	    .pread = f_pread,
	    .pwritev = f_pwritev,
	    .truncate = f_truncate,
	    .allocate = f_allocate,
	    .sync = f_sync,
	    .syncfs = f_syncfs,
	    .stat = f_stat,
	    .times = f_times,
	    .chmod = f_chmod,
	    .set_xattr = f_set_xattr,
	    .rename = f_rename,
	    .unlink = f_unlink,
	    .list = f_list,
	    .names_with_files = f->real.names_with_files,
	};
}
