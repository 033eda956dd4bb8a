/* SPDX-License-Identifier: Apache-2.0 */
/* Creating, finding and opening store files. */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/xattr.h>

#include "inode_i.h"
#include "prefetch.h"

struct container_keys inode_keys(const struct store *st)
{
	return (struct container_keys){.k_rec = st->keys.k_rec, .k_seal = st->keys.k_seal, .volume_id = st->keys.volume_id};
}

/* Closed files keep their descriptor until they are sealed: when there are no more, seal them. */
static int open_room(struct store *st, int dirfd, const char *name, int flags, mode_t mode)
{
	int fd = st->io.open(st->io.ctx, dirfd, name, flags, mode);

	if (fd != -EMFILE && fd != -ENFILE)
		return fd;
	writeback_descriptors(st);
	return st->io.open(st->io.ctx, dirfd, name, flags, mode);
}

int open_store_file(struct store *st, int dirfd, const char *name, bool write)
{
	int flags = (write ? O_RDWR : O_RDONLY) | O_NOCTTY | O_NONBLOCK | O_NOATIME; /* our own reading does not count: inode_was_read() */
	int fd = open_room(st, dirfd, name, flags, 0);

	return fd == -EACCES && !st->opt.no_threads ? io_open_lifted(&st->io, dirfd, name, flags) : fd;
}

static int new_identity(struct inode *f)
{
	struct store *st = f->st;
	struct record *r = &f->rec;

	memset(r, 0, sizeof(*r));
	r->state = RECORD_NEW;
	r->s = f->s = st->opt.segment_size;
	r->epoch = 1;
	memcpy(r->volume_id, st->keys.volume_id, ID_LEN);
	return random_bytes(r->file_id, ID_LEN);
}

/* An empty NEW file in memory. */
static int become_new(struct inode *f)
{
	int err = new_identity(f);

	if (!err)
		err = inode_fresh_key(f);
	if (err)
		return err;
	f->content = CONTENT_NEW;
	f->size = f->com_size = 0;
	inode_touched(f);
	return 0;
}

static int create(struct store *st, int dirfd, const char *name, mode_t mode, const char *path, struct inode **ret)
{
	struct inode *f, *other;
	struct stat s;
	int err;

	if (st->opt.read_only || st->failed)
		return st->failed ? -EIO : -EROFS;
	f = inode_alloc(st);
	if (!f)
		return -ENOMEM;
	f->fd = open_room(st, dirfd, name, O_RDWR | O_CREAT | O_EXCL | O_NOCTTY, mode);
	if (f->fd < 0) {
		err = f->fd;
		inode_free(f);
		return err;
	}
	f->fd_write = true;
	f->path = strdup(path);
	err = st->io.stat(st->io.ctx, f->fd, &s);
	if (!err) {
		f->dev = s.st_dev;
		f->ino = s.st_ino;
		rwlock_write(&f->lock);
		other = inode_publish(f);
		/* nobody else can have a file that O_EXCL just made, but one that was removed below the mount and left its number */
		err = other ? fail(-EIO, "its inode number is that of a file in use") : become_new(f);
		if (other)
			inode_put(other);
		if (!err)
			err = inode_reserve(f, 0, false);
		if (!err && st->kernel_times) /* by the store's clock, which is the kernel's */
			inode_times_loaded(f, &s.st_mtim, &s.st_mtim);
		if (!err && st->converting)
			plain_file_born(st, f->fd, f->rec.file_id);
		f->load_err = err;
		rwlock_unlock(&f->lock);
		if (err) {
			st->io.unlink(st->io.ctx, dirfd, name, 0);
			inode_put(f);
			return err;
		}
		*ret = f;
		return 0;
	}
	inode_free(f);
	return err;
}

int inode_create(struct store *st, int dirfd, const char *name, mode_t mode, const char *path, struct inode **ret)
{
	bool told = st->converting;
	int err;

	st->n_creating += told;
	err = create(st, dirfd, name, mode, path, ret);
	st->n_creating -= told;
	return err;
}

static bool is_damaged(struct store *st, const uint8_t *file_id)
{
	bool hit = false;

	mutex_lock(&st->list_lock);
	for (size_t i = 0; i < st->n_damaged && !hit; i++)
		hit = !memcmp(st->damaged[i].file_id, file_id, ID_LEN);
	mutex_unlock(&st->list_lock);
	return hit;
}

static int take_native(struct inode *f, struct container *c)
{
	if (c->rec.state == RECORD_LIVE)
		return fail(-EIO, "needs its log: it has newer commits that are not in this volume's log; 'tdfs recover --accept-old' "
				  "reads the last sealed state");
	if (is_damaged(f->st, c->rec.file_id))
		return fail(-EIO, "needs its log, which is damaged; see 'tdfs recover --salvage'");
	f->content = CONTENT_SEALED;
	f->rec = c->rec;
	f->s = c->rec.s;
	f->size = f->com_size = c->rec.size;
	f->com_crc = f->base_crc = c->crc;
	f->base_len = f->alloc_end = c->file_len;
	f->invocations = c->rec.invocations;
	f->mtime = c->rec.mtime;
	f->ctime = c->rec.ctime;
	f->n_tags = f->cap_tags = seg_count(f->size, f->s);
	f->used_end = 0;
	f->dek = STEAL(c->dek);
	f->tmpl = STEAL(c->tmpl);
	f->tags = STEAL(c->m->hashes);
	return 0;
}

/*
 * Of a file whose key a remote KAS may have to give: what could be done while nobody waits for its lock.  It holds as long as nobody else
 * had the file meanwhile: no content object left the table since, and none is in it.
 */
struct ahead {
	uint64_t dropped;
	struct container *c;
	struct secret *dek;
	uint64_t until;
};

static void ahead_free(struct ahead *a)
{
	container_free(a->c);
	secret_free(a->dek);
}

/* -errno: what the KAS says; what is wrong with the file itself is for load() to tell */
static int ahead_get(struct store *st, int dirfd, const char *name, const char *path, int fd, const struct stat *s, struct ahead *a)
{
	struct container_keys keys = inode_keys(st);
	struct inode *live;
	uint64_t end = now_ns() + (uint64_t)KAS_TOTAL_MS * 1000000u;
	int err;

	a->dropped = st->n_dropped;
	live = inode_find(st, s->st_dev, s->st_ino);
	if (live) {
		inode_put(live);
		return 0;
	}
	if (container_open(&st->io, fd, &keys, &a->c))
		return 0;
	err = ask_begin(st);
	if (err)
		return err;
	err = prefetch_note(st, dirfd, name, path, s->st_ino, a->c->m, end);
	if (!err)
		err = kas_unwrap_until(st->keys.kas, a->c->m, end, &a->dek, &a->until);
	ask_end(st);
	return err;
}

static int load(struct inode *f, struct stat *s, struct ahead *a)
{
	struct store *st = f->st;
	struct container_keys keys = inode_keys(st);
	CLEANUP(container_cleanup) struct container *c = NULL;
	CLEANUP_SECRET struct secret *dek = NULL;
	uint64_t until = a->until;
	int err;

	if (a->c && a->dropped == st->n_dropped) {
		c = STEAL(a->c);
		dek = STEAL(a->dek);
		err = 0;
	} else {
		err = container_open(&st->io, f->fd, &keys, &c);
	}
	if (err == -ENODATA) {
		f->content = CONTENT_VOID;
		inode_times_loaded(f, &s->st_mtim, &s->st_ctim);
		return 0;
	}
	if (!err && !dek)
		err = kas_unwrap_until(st->keys.kas, c->m, 0, &dek, &until);
	if (!err)
		err = container_unlock(c, &keys, dek);
	if (err)
		return err;
	lease_set(f, until, false);
	if (!c->native) {
		f->content = CONTENT_FOREIGN;
		foreign_size_learn(st, s, c->m->size);
		f->foreign = STEAL(c);
		return 0;
	}
	err = take_native(f, c);
	if (!err) {
		inode_show_ctime(s, &f->rec.ctime, sealed_when(f, (uint64_t)s->st_size));
		inode_times_loaded(f, &s->st_mtim, &s->st_ctim);
	}
	return err;
}

/* The object of (dev, ino), loading or loaded; a second opener waits on the lock for the first. */
static int find_or_load(struct store *st, int dirfd, const char *name, int fd, bool write, bool plain, const char *path, struct inode **ret)
{
	CLEANUP(ahead_free) struct ahead ahead = {0};
	struct inode *f, *mine = inode_alloc(st);
	struct stat s;
	int err = mine ? st->io.stat(st->io.ctx, fd, &s) : -ENOMEM;

	if (!err && !S_ISREG(s.st_mode))
		err = fail(-EIO, "not a regular file");
	if (!err && !plain && kas_is_remote(st->keys.kas))
		err = ahead_get(st, dirfd, name, path, fd, &s, &ahead);
	if (err) {
		st->io.close(st->io.ctx, fd);
		if (mine)
			inode_free(mine);
		return err;
	}
	mine->fd = fd;
	mine->fd_write = write;
	mine->plain = plain;
	mine->dev = s.st_dev;
	mine->ino = s.st_ino;
	mine->path = strdup(path);
	rwlock_write(&mine->lock);
	f = inode_publish(mine);
	if (!f) {
		if (plain)
			mine->content = CONTENT_PLAIN;
		else
			mine->load_err = load(mine, &s, &ahead);
		rwlock_unlock(&mine->lock);
		*ret = mine;
		return 0;
	}
	rwlock_unlock(&mine->lock);
	rwlock_write(&f->lock);
	if (write && !f->fd_write && f->old_fd < 0) { /* hand the writable descriptor over */
		f->old_fd = f->fd;
		f->fd = mine->fd;
		f->fd_write = true;
		mine->fd = -1;
	}
	rwlock_unlock(&f->lock);
	inode_free(mine);
	*ret = f;
	return 0;
}

static int check_writable(struct inode *f)
{
	struct store *st = f->st;
	int err = 0;

	rwlock_write(&f->lock);
	if (f->content == CONTENT_FOREIGN) {
		err = fail(-EROFS, "made by another client (foreign): read-only");
	} else if (f->content == CONTENT_SEALED && f->rec.rocompat) {
		err = fail(-EROFS, "written by a later version of tdfs: read-only");
	} else if (f->content == CONTENT_VOID) {
		err = st->io.truncate(st->io.ctx, f->fd, 0);
		if (!err)
			err = become_new(f);
	}
	rwlock_unlock(&f->lock);
	return err;
}

int inode_get(struct store *st, int dirfd, const char *name, bool write, const char *path, struct inode **ret)
{
	struct inode *f = NULL;
	int fd, err;

	if (write && (st->opt.read_only || st->failed))
		return st->failed ? -EIO : -EROFS;
	fd = open_store_file(st, dirfd, name, write);
	if (fd < 0)
		return fd;
	err = find_or_load(st, dirfd, name, fd, write, false, path, &f);
	if (err)
		return err;
	if (f->plain) { /* another file has the name by now */
		inode_put(f);
		return -ESTALE;
	}
	rwlock_read(&f->lock);
	err = f->load_err;
	if (!err && !write && f->content == CONTENT_VOID)
		err = fail(-ENODATA, "never completed before a crash: nothing was ever committed to it");
	rwlock_unlock(&f->lock);
	if (!err)
		err = lease_check(f);
	if (!err && write)
		err = check_writable(f);
	if (err) {
		inode_put(f);
		return err;
	}
	*ret = f;
	return 0;
}

int plain_file_get(struct store *st, int dirfd, const char *name, ino_t ino, bool write, struct inode **ret)
{
	int fd = write && st->opt.read_only ? -EROFS : open_store_file(st, dirfd, name, write), err;
	struct inode *f;

	if (fd < 0)
		return fd;
	err = find_or_load(st, dirfd, name, fd, write, true, "", &f);
	if (err)
		return err;
	if (!f->plain || f->ino != ino) {
		inode_put(f);
		return -ESTALE;
	}
	*ret = f;
	return 0;
}
