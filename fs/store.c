/* SPDX-License-Identifier: Apache-2.0 */
#include "store.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/btrfs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/quota.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>

#include "lease.h"
#include "prefetch.h"
#include "report.h"
#include "reseg.h"
#include "writeback.h"

#define BUCKETS 16384
#ifndef SPARE /* tests make it smaller */
#define SPARE ((uint64_t)256 << 20)
#endif

static int open_again(struct store *st, int *ret)
{
	int fd = st->io.open(st->io.ctx, st->root_fd, ".", O_RDONLY | O_DIRECTORY, 0);

	if (fd < 0)
		return fd;
	*ret = fd;
	return 0;
}

static int start_log(struct store *st)
{
	struct recovered *r = &st->recovered;
	int err = open_again(st, &st->seal_fd);

	if (!err)
		err = open_again(st, &st->sync_fd);
	if (err)
		return err;
	redo_sides_drop(&st->io, st->tdfs_fd); /* also what a copy that was never finished has left */
	return redo_open(&st->io, st->tdfs_fd, st->root_fd, st->keys.volume_id, st->keys.k_log, r->next_lsn, r->next_epoch, r->half,
			 r->other_end, &st->redo);
}

/* btrfs does not answer quotactl(2). */
static bool has_qgroups(int fd)
{
	struct btrfs_ioctl_fs_info_args a = {0};
	char path[80] = "/sys/fs/btrfs/";
	struct statfs s;
	size_t n = strlen(path);

	if (fstatfs(fd, &s) || s.f_type != BTRFS_SUPER_MAGIC || ioctl(fd, BTRFS_IOC_FS_INFO, &a))
		return false;
	for (size_t i = 0; i < sizeof(a.fsid); i++)
		n += (size_t)snprintf(path + n, sizeof(path) - n, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", a.fsid[i]);
	snprintf(path + n, sizeof(path) - n, "/qgroups");
	return !access(path, F_OK) || errno != ENOENT;
}

/* A quota may refuse what the free space allows. */
static bool has_quota(int fd)
{
	if (has_qgroups(fd))
		return true;
#ifdef SYS_quotactl_fd
	static const int kinds[] = {USRQUOTA, GRPQUOTA, 2 /* project */};
	uint32_t fmt;

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		if (!syscall(SYS_quotactl_fd, fd, (unsigned)Q_GETFMT << SUBCMDSHIFT | (unsigned)kinds[i], 0, &fmt) ||
		    (errno != ESRCH && errno != ENOSYS && errno != ENOTSUP))
			return true;
	}
	return false;
#else
	return true;
#endif
}

static void store_free(struct store *st)
{
	prefetch_stop(st);
	leases_stop(st);
	writeback_stop(st);
	if (st->buckets && st->cache)
		inode_free_all(st);
	if (st->redo)
		redo_close(st->redo);
	segcache_free(st->cache);
	if (st->seal_fd >= 0)
		st->io.close(st->io.ctx, st->seal_fd);
	if (st->sync_fd >= 0)
		st->io.close(st->io.ctx, st->sync_fd);
	for (size_t i = 0; i < st->n_damaged; i++)
		free(st->damaged[i].path);
	free(st->damaged);
	free(st->buckets);
	mutex_destroy(&st->list_lock);
	mutex_destroy(&st->seal_lock);
	mutex_destroy(&st->room_lock);
	free(st);
}

int store_open(const struct io *io, int root_fd, int tdfs_fd, const struct store_keys *keys, const struct store_options *opt,
	       void (*event)(void *arg, const char *path, const char *text), void *arg, struct store **ret)
{
	struct store *st = calloc(1, sizeof(*st));
	struct recover_keys rk = {keys->volume_id, keys->k_log, keys->k_rec, keys->k_hint};
	struct statvfs sys;
	struct stat root;
	int damage, err;

	if (!st)
		return -ENOMEM;
	st->io = *io;
	st->root_fd = root_fd;
	st->seal_fd = st->sync_fd = -1;
	st->tdfs_fd = tdfs_fd;
	st->keys = *keys;
	st->opt = *opt;
	mutex_init(&st->list_lock);
	mutex_init(&st->seal_lock);
	mutex_init(&st->room_lock);
	st->n_buckets = BUCKETS;
	st->buckets = calloc(BUCKETS, sizeof(*st->buckets));
	st->cache = segcache_new(opt->cache_bytes);
	if (!st->buckets || !st->cache) {
		store_free(st);
		return -ENOMEM;
	}
	st->may_defer = !opt->no_threads && !opt->strict && !has_quota(root_fd);
	if (!fstatvfs(root_fd, &sys)) {
		st->strict_atime = !(sys.f_flag & (ST_NOATIME | ST_RELATIME));
		st->opt.noatime |= (sys.f_flag & ST_NOATIME) != 0; /* counting would change nothing */
	}
	if (!io->stat(io->ctx, root_fd, &root))
		st->root_ino = (uint32_t)root.st_ino;
	damage = recover(io, tdfs_fd, root_fd, &rk, !opt->read_only, event, arg, &st->recovered, &st->damaged, &st->n_damaged);
	err = damage < 0 ? damage : 0;
	if (damage == 1)
		st->opt.read_only = true;
	if (!err && !st->opt.read_only)
		err = start_log(st);
	if (!err)
		err = writeback_start(st);
	if (!err)
		err = leases_start(st);
	if (!err)
		err = prefetch_start(st);
	if (err) {
		store_free(st);
		return err;
	}
	*ret = st;
	return damage;
}

bool store_may_take(const struct store *st, uint64_t bytes)
{
	struct statvfs v;

	return fstatvfs(st->root_fd, &v) || bytes + SPARE <= (uint64_t)v.f_bavail * v.f_frsize;
}

/* Where nothing was changed and the log held nothing either, the disk is left in peace. */
int store_close(struct store *st)
{
	bool changed = st->changed || st->recovered.files;
	int err;

	reseg_hold(st, UINT_MAX); /* what would be put into the log behind the last look at it is retired with it */
	err = changed ? store_sync(st) : 0;
	prefetch_stop(st);
	leases_stop(st);
	writeback_stop(st);
	if (!err && changed && st->redo)
		err = redo_retire(st->redo);
	store_free(st);
	return err;
}
