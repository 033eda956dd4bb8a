/* SPDX-License-Identifier: Apache-2.0 */
/* The table of calls (crypto/io.h) over the simulated disk. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "simdisk_i.h"

static bool fault(struct simdisk *d, enum sim_call call, const struct sim_fd *f)
{
	size_t len = strcspn(d->fault.name, "*");
	const char *name = f ? f->name : "";

	if (!d->fault.left || d->fault.call != call || strncmp(name, d->fault.name, len) || (len && !d->fault.name[len] && name[len]))
		return false;
	if (d->fault.left > 1) {
		d->fault.left--;
		return false;
	}
	if (!d->fault.stays)
		d->fault.left = 0;
	return true;
}

static struct sim_fd *fd_get(struct simdisk *d, int fd)
{
	if (fd < SIM_FD || fd >= SIM_FD + SIM_FDS || !d->fds[fd - SIM_FD].node)
		abort(); /* a bug in the code under test */
	return &d->fds[fd - SIM_FD];
}

static int fd_new(struct simdisk *d, struct sim_node *n, const char *name, int flags)
{
	for (int i = 0; i < SIM_FDS; i++) {
		struct sim_fd *f = &d->fds[i];

		if (f->node)
			continue;
		f->node = n;
		f->path = flags & O_PATH;
		f->write = !f->path && (flags & O_ACCMODE) != O_RDONLY;
		snprintf(f->name, sizeof(f->name), "%s", name);
		return SIM_FD + i;
	}
	return -EMFILE;
}

static struct sim_name make_name(uint64_t dir, const char *name, uint64_t ino)
{
	struct sim_name e = {.dir = dir, .ino = ino};

	snprintf(e.name, sizeof(e.name), "%s", name);
	return e;
}

static int sim_open(void *ctx, int dirfd, const char *name, int flags, mode_t mode)
{
	struct simdisk *d = ctx;
	struct sim_node *dir = fd_get(d, dirfd)->node, *n;
	struct sim_name *e;

	if (!*name) /* as the mount's table: the descriptor itself once more */
		return fd_new(d, dir, fd_get(d, dirfd)->name, flags);
	if (!dir->dir)
		return -ENOTDIR;
	if (!strcmp(name, "."))
		return fd_new(d, dir, ".", flags);
	if (!*name || strchr(name, '/') || strlen(name) >= SIM_NAME)
		return -ENOENT;
	e = sim_names_find(&d->v, dir->ino, name);
	if (e && flags & O_CREAT && flags & O_EXCL)
		return -EEXIST;
	if (!e && !(flags & O_CREAT))
		return -ENOENT;
	if (!e) {
		struct sim_op op = {.n_put = 1};

		if (fault(d, SIM_OTHER, NULL))
			return d->fault.err;
		n = sim_node_new(d, d->next_ino++, false, S_IFREG | (mode & 07777));
		op.put[0] = make_name(dir->ino, name, n->ino);
		sim_op_do(d, &op);
	} else {
		n = sim_node(d, e->ino);
	}
	if (flags & O_DIRECTORY && !n->dir)
		return -ENOTDIR;
	if (n->dir && (flags & O_ACCMODE) != O_RDONLY && !(flags & O_PATH))
		return -EISDIR;
	if (flags & O_TRUNC && !n->dir)
		sim_node_truncate(d, n, 0);
	return fd_new(d, n, name, flags);
}

static void sim_close(void *ctx, int fd)
{
	fd_get(ctx, fd)->node = NULL;
}

static ssize_t sim_pread(void *ctx, int fd, void *buf, size_t len, uint64_t off)
{
	struct sim_fd *f = fd_get(ctx, fd);

	if (f->path || f->node->dir)
		return f->path ? -EBADF : -EISDIR;
	if (off >= f->node->vsize)
		return 0;
	len = MIN(len, f->node->vsize - off);
	sim_node_read(f->node, buf, len, off);
	return (ssize_t)len;
}

static int sim_pwritev(void *ctx, int fd, const struct iovec *iov, int n, uint64_t off)
{
	struct simdisk *d = ctx;
	struct sim_fd *f = fd_get(d, fd);

	if (!f->write)
		return -EBADF;
	if (fault(d, SIM_WRITE, f)) { /* some of it was taken */
		if (n == 1 && iov->iov_len > 1024)
			sim_node_write(d, f->node, iov->iov_base, iov->iov_len / 2, off);
		return d->fault.err;
	}
	for (int i = 0; i < n; i++) {
		if (iov[i].iov_len)
			sim_node_write(d, f->node, iov[i].iov_base, iov[i].iov_len, off);
		off += iov[i].iov_len;
	}
	return 0;
}

static int sim_truncate(void *ctx, int fd, uint64_t len)
{
	struct simdisk *d = ctx;
	struct sim_fd *f = fd_get(d, fd);

	if (!f->write)
		return -EBADF;
	if (fault(d, SIM_OTHER, f))
		return d->fault.err;
	sim_node_truncate(d, f->node, len);
	return 0;
}

static int sim_allocate(void *ctx, int fd, int mode, uint64_t off, uint64_t len)
{
	struct simdisk *d = ctx;
	struct sim_fd *f = fd_get(d, fd);

	if (!f->write)
		return -EBADF;
	if (fault(d, SIM_OTHER, f))
		return d->fault.err;
	if (!(mode & FALLOC_FL_KEEP_SIZE) && off + len > f->node->vsize)
		sim_node_truncate(d, f->node, off + len);
	return mode & ~FALLOC_FL_KEEP_SIZE ? -EOPNOTSUPP : 0;
}

static void point(struct simdisk *d, const char *name)
{
	d->n_syncs++;
	if (d->hook)
		d->hook(d->hook_arg, name);
}

static int sim_sync(void *ctx, int fd, bool full)
{
	struct simdisk *d = ctx;
	struct sim_fd *f = fd_get(d, fd);

	if (f->path)
		return -EBADF;
	point(d, f->name);
	if (fault(d, SIM_SYNC, f)) {
		sim_node_lose(f->node);
		return d->fault.err;
	}
	sim_node_sync(f->node);
	if (full) {
		f->node->da = f->node->va;
		if (d->mode == SIM_EXT4)
			sim_names_commit(d, 0);
	}
	if (f->node->dir)
		sim_names_commit(d, d->mode == SIM_EXT4 ? 0 : f->node->ino);
	return 0;
}

static int sim_syncfs(void *ctx, int fd)
{
	struct simdisk *d = ctx;
	struct sim_fd *f = fd_get(d, fd);

	if (f->path)
		return -EBADF;
	point(d, "");
	if (fault(d, SIM_SYNCFS, f)) {
		for (size_t i = 0; i < d->n_nodes; i++)
			sim_node_lose(d->nodes[i]);
		return d->fault.err;
	}
	simdisk_sync(d);
	return 0;
}

static int sim_stat(void *ctx, int fd, struct stat *ret)
{
	struct simdisk *d = ctx;
	struct sim_node *n = fd_get(d, fd)->node;

	memset(ret, 0, sizeof(*ret));
	ret->st_dev = 77;
	ret->st_ino = n->ino;
	ret->st_mode = n->va.mode;
	ret->st_nlink = 0;
	for (size_t i = 0; i < d->v.n; i++)
		ret->st_nlink += d->v.e[i].ino == n->ino;
	ret->st_uid = geteuid();
	ret->st_size = (off_t)n->vsize;
	ret->st_blocks = (blkcnt_t)((n->vsize + 511) / 512);
	ret->st_mtim = n->va.mtime;
	ret->st_ctim = n->ctime;
	return 0;
}

static int sim_times(void *ctx, int fd, const struct timespec ts[2])
{
	struct sim_node *n = fd_get(ctx, fd)->node;

	clock_gettime(CLOCK_REALTIME_COARSE, &n->ctime);
	if (ts[1].tv_nsec == UTIME_NOW)
		n->va.mtime = n->ctime;
	else if (ts[1].tv_nsec != UTIME_OMIT)
		n->va.mtime = ts[1];
	return 0;
}

static int sim_chmod(void *ctx, int fd, mode_t mode)
{
	struct sim_node *n = fd_get(ctx, fd)->node;

	n->va.mode = (n->va.mode & S_IFMT) | (mode & 07777);
	return 0;
}

static int sim_set_xattr(void *ctx, int fd, const char *name, const void *val, size_t len)
{
	struct sim_node *n = fd_get(ctx, fd)->node;

	if (len > SIM_XATTR)
		return -ENOSPC;
	memcpy(n->va.xattr, val, len);
	n->va.xattr_len = len;
	return 0;
}

static int sim_rename(void *ctx, int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
	struct simdisk *d = ctx;
	uint64_t fd = fd_get(d, from_dir)->node->ino, td = fd_get(d, to_dir)->node->ino;
	struct sim_name *f = sim_names_find(&d->v, fd, from), *t = sim_names_find(&d->v, td, to);
	struct sim_op op = {0};

	if (!f || (!t && flags & RENAME_EXCHANGE))
		return -ENOENT;
	if (t && flags & RENAME_NOREPLACE)
		return -EEXIST;
	if (fault(d, SIM_OTHER, NULL))
		return d->fault.err;
	if (t && t->ino == f->ino)
		return 0;
	op.take[op.n_take++] = *f;
	op.put[op.n_put++] = make_name(td, to, f->ino);
	if (flags & RENAME_EXCHANGE)
		op.put[op.n_put++] = make_name(fd, from, t->ino);
	sim_op_do(d, &op);
	return 0;
}

static int sim_unlink(void *ctx, int dirfd, const char *name, int flags)
{
	struct simdisk *d = ctx;
	struct sim_name *e = sim_names_find(&d->v, fd_get(d, dirfd)->node->ino, name);
	struct sim_op op = {.n_take = 1};

	if (!e)
		return -ENOENT;
	op.take[0] = *e;
	sim_op_do(d, &op);
	return 0;
}

static int sim_list(void *ctx, int dirfd, int (*each)(void *arg, const char *name, unsigned char d_type, ino_t ino), void *arg)
{
	struct simdisk *d = ctx;
	uint64_t dir = fd_get(d, dirfd)->node->ino;
	int err = 0;

	for (size_t i = 0; i < d->v.n && !err; i++) {
		struct sim_name e = d->v.e[i];

		if (e.dir == dir)
			err = each(arg, e.name, sim_node(d, e.ino)->dir ? DT_DIR : DT_REG, e.ino);
	}
	return err;
}

void sim_io_init(struct simdisk *d)
{
	d->io = (struct io){
	    .ctx = d,
	    .open = sim_open,
	    .close = sim_close,
	    .pread = sim_pread,
	    .pwritev = sim_pwritev,
	    .truncate = sim_truncate,
	    .allocate = sim_allocate,
	    .sync = sim_sync,
	    .syncfs = sim_syncfs,
	    .stat = sim_stat,
	    .times = sim_times,
	    .chmod = sim_chmod,
	    .set_xattr = sim_set_xattr,
	    .rename = sim_rename,
	    .unlink = sim_unlink,
	    .list = sim_list,
	    .names_with_files = d->mode == SIM_EXT4,
	};
}

const struct io *simdisk_io(struct simdisk *d)
{
	return &d->io;
}

int simdisk_root(struct simdisk *d)
{
	return fd_new(d, sim_node(d, SIM_ROOT), "/", O_RDONLY | O_DIRECTORY);
}

int simdisk_mkdir(struct simdisk *d, int dirfd, const char *name)
{
	uint64_t dir = fd_get(d, dirfd)->node->ino;
	struct sim_op op = {.n_put = 1};

	if (sim_names_find(&d->v, dir, name))
		return -EEXIST;
	op.put[0] = make_name(dir, name, d->next_ino);
	sim_node_new(d, d->next_ino++, true, S_IFDIR | 0755);
	sim_op_do(d, &op);
	return 0;
}
