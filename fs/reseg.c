/* SPDX-License-Identifier: Apache-2.0 */
/* Building the copy of a file under a new key and with other segments, while the file is in use. */
#include <fcntl.h>

#include "random.h"
#include "reseg_i.h"

#define LEFT_MAX ((uint64_t)32 << 20)  /* copied with the file's lock held, at the end ... */
#define LEFT_MOST ((uint64_t)512 << 20) /* ... and up to this much where it changes as fast as it is copied: a second or two for whoever writes */

/* All but its file. */
void reseg_forget(struct inode *f)
{
	struct reseg *r = f->reseg;

	f->reseg = NULL;
	secret_free(r->dek);
	tail_template_free(r->tmpl);
	free(r->tags);
	free(r->crcs);
	free(r->stale);
	free(r);
}

void reseg_drop(struct inode *f)
{
	const struct io *io = &f->st->io;
	struct reseg *r = f->reseg;

	if (!r)
		return;
	io->close(io->ctx, r->fd);
	(void)!io->unlink(io->ctx, f->st->tdfs_fd, r->name, 0); /* else the next mount does */
	reseg_forget(f);
}

void reseg_mark(struct inode *f, uint64_t no)
{
	struct reseg *r = f->reseg;
	uint64_t k = r ? no / r->times : 0;

#ifdef TEST_NO_WHOLE_MARKED
	return;
#endif
	if (r && k < r->done && !r->stale[k]) {
		r->stale[k] = 1;
		r->n_stale++;
	}
}

void reseg_cut(struct inode *f)
{
	struct reseg *r = f->reseg;

	while (r && r->done > f->size / r->s)
		r->n_stale -= r->stale[--r->done];
}

void reseg_give_up(struct inode *f)
{
	if (f->reseg)
		f->reseg->given_up = true;
}

static bool is_usable(const struct inode *f)
{
	return f->content == CONTENT_SEALED && !f->unlinked && !f->error && !f->lost && !f->st->failed && f->fd_write &&
	       f->lease.state == LEASE_GOOD;
}

bool reseg_ready(const struct inode *f)
{
	return f->reseg && f->reseg->ready && !f->reseg->given_up && is_usable(f);
}

/* Blocks for all of it before anything is done, and not the last ones of the disk. */
static int take_room(struct inode *f, struct reseg *r)
{
	struct store *st = f->st;
	uint64_t need = tail_offset(f->size, r->s) + tail_len(r->tmpl, f->size);
	int err = store_may_take(st, need) ? st->io.allocate(st->io.ctx, r->fd, FALLOC_FL_KEEP_SIZE, 0, need) : -ENOSPC;

	return err == -EOPNOTSUPP ? 0 : err;
}

static int make_key(struct inode *f, struct reseg *r)
{
	struct store *st = f->st;
	const char *policy = f->tmpl->policy; /* it is the same content: never that of new files */
	CLEANUP_FREE char *key_access = NULL;
	int err;

	r->dek = secret_random();
	if (!r->dek)
		return fail(-EIO, "no random bytes for a data key");
	err = kas_wrap_again(st->keys.kas, r->dek, policy, &key_access);
	if (err)
		return err;
	r->tmpl = tail_template_new(r->s, key_access, policy);
	return r->tmpl ? 0 : -ENOMEM;
}

static int make_file(struct inode *f, struct reseg *r)
{
	struct store *st = f->st;
	uint8_t id[ID_LEN];
	int err = random_bytes(id, ID_LEN);

	if (err)
		return err;
	redo_whole_name(id, r->name);
	memcpy(r->name + REDO_WHOLE_LEN, ".new", sizeof(".new"));
	r->fd = st->io.open(st->io.ctx, st->tdfs_fd, r->name, O_RDWR | O_CREAT | O_EXCL | O_NOCTTY, 0600);
	return r->fd < 0 ? r->fd : 0;
}

int reseg_begin(struct inode *f, uint32_t s)
{
	struct reseg *r = calloc(1, sizeof(*r));
	int err;

	if (!r)
		return -ENOMEM;
	rwlock_write(&f->lock);
	if (f->reseg || !is_usable(f) || s % f->s || s > SEG_MAX) {
		err = f->reseg ? -EALREADY : -EINVAL;
		rwlock_unlock(&f->lock);
		free(r);
		return err;
	}
	r->s = s;
	r->times = s / f->s;
	err = make_file(f, r);
	if (err) {
		rwlock_unlock(&f->lock);
		free(r);
		return err;
	}
	f->reseg = r;
	err = make_key(f, r);
	if (!err)
		err = take_room(f, r);
	if (err)
		reseg_drop(f);
	rwlock_unlock(&f->lock);
	return err;
}

static int room_for(struct reseg *r, uint64_t n)
{
	uint64_t cap = MAX(n, 2 * r->cap_tags);
	void *p;

	if (n <= r->cap_tags)
		return 0;
	p = realloc(r->tags, cap * AEAD_TAG);
	r->tags = p ? p : r->tags;
	if (!p)
		return -ENOMEM;
	p = realloc(r->crcs, cap * sizeof(*r->crcs));
	r->crcs = p ? p : r->crcs;
	if (!p)
		return -ENOMEM;
	p = realloc(r->stale, cap);
	r->stale = p ? p : r->stale;
	if (!p)
		return -ENOMEM;
	r->cap_tags = cap;
	return 0;
}

/* One of its segments; the file's lock is held. */
int reseg_copy_one(struct inode *f, uint64_t k, uint8_t *buf)
{
	struct reseg *r = f->reseg;
	uint64_t at = k * r->s;
	uint32_t len = seg_plain(f->size, r->s, k);
	uint8_t *out = buf + r->s;
	int err = room_for(r, k + 1);

	if (!err && len)
		err = inode_read_plain(f, buf, at, at + len);
	if (!err)
		err = aead_seal(r->dek, buf, len, out);
	if (err)
		return err;
	r->invocations++;
	r->copied += len;
	memcpy(r->tags + k * AEAD_TAG, out + AEAD_IV + len, AEAD_TAG);
	r->crcs[k] = (uint64_t)1 << 32 | crc_bytes(0, out, len + AEAD_OVERHEAD);
	return io_pwrite(&f->st->io, r->fd, out, len + AEAD_OVERHEAD, seg_off(r->s, k));
}

/* The next piece, or *ret_left bytes are what remains; with the file's lock held for reading. */
static int build_one(struct inode *f, uint64_t *from, uint8_t *buf, uint64_t *ret_left)
{
	struct reseg *r = f->reseg;
	uint64_t whole = f->size / r->s, k = r->done;
	int err;

	*ret_left = (whole - r->done + r->n_stale) * r->s;
	/* first to the end; then what was changed behind, unless that never ends */
	if (r->done == whole && (*ret_left <= LEFT_MAX || r->copied > 2 * f->size))
		return *ret_left <= LEFT_MOST ? 0 : fail(-EBUSY, "it changes faster than it can be copied");
	if (r->done == whole) {
		for (k = *from; k < r->done && !r->stale[k]; k++)
			;
		*from = k < r->done ? k : 0;
		if (k == r->done)
			return -EAGAIN; /* once round */
	}
	err = reseg_copy_one(f, k, buf);
	if (err)
		return err;
	if (k == r->done)
		r->done++;
	else
		r->n_stale--;
	r->stale[k] = 0;
	return -EAGAIN;
}

int reseg_build(struct inode *f, uint64_t bytes, bool *ret_ready)
{
	struct reseg *r = f->reseg;
	uint8_t *buf = copy_buffer(r);
	uint64_t from = 0, left = 0;
	int err = buf ? -EAGAIN : -ENOMEM;

	*ret_ready = false;
	for (uint64_t n = 0; err == -EAGAIN && n < bytes; n += r->s) {
		rwlock_read(&f->lock);
		err = r->given_up || !is_usable(f) ? -ECANCELED : build_one(f, &from, buf, &left);
		rwlock_unlock(&f->lock);
	}
	copy_buffer_free(r, buf);
	if (!err) /* the bulk of it, while nobody waits */
		err = f->st->io.sync(f->st->io.ctx, r->fd, false);
	if (!err)
		*ret_ready = r->ready = true;
	if (err && err != -EAGAIN) {
		rwlock_write(&f->lock);
		reseg_drop(f);
		rwlock_unlock(&f->lock);
		return err;
	}
	return 0;
}
