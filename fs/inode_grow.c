/* SPDX-License-Identifier: Apache-2.0 */
/* Changes of size, and what happens when a file is too large for memory: spilling, growth in place, giving the base up. */
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/statvfs.h>

#include "inode_i.h"

#define ROOM_AGE 1000000000u
#define ROOM_SPARE ((int64_t)256 << 20) /* below this nothing is put off */
#define ROOM_OVERHEAD 8192u

/* Is there surely room for a new file's next @bytes?  Asks the disk once a second, or when what it said is used up. */
static bool room_for(struct store *st, uint64_t bytes)
{
	uint64_t now = now_ns();
	struct statvfs v;

	if (!st->may_defer)
		return false;
	if (st->room <= 0 || now - st->room_at > ROOM_AGE) {
		if (fstatvfs(st->root_fd, &v))
			return false;
		st->room = (int64_t)((uint64_t)v.f_bavail * v.f_frsize) - ROOM_SPARE;
		st->room_at = now;
	}
	return atomic_fetch_sub(&st->room, (int64_t)bytes) > (int64_t)bytes;
}

/* fallocate(2) keeps what it got before it found the disk full: a hopeless request must not fill it. */
static bool hopeless(const struct store *st, uint64_t bytes)
{
	struct statvfs v;

	return bytes > STEP && !fstatvfs(st->root_fd, &v) && bytes > (uint64_t)v.f_bavail * v.f_frsize;
}

/* Blocks for growth are taken before the data is acknowledged: a later seal must not find the disk full.  NEW files, which are written when
 * they are closed and nobody can be told any more, need none while there is plenty. */
int inode_reserve(struct inode *f, uint64_t size, bool exact)
{
	struct store *st = f->st;
	uint64_t need, slack;
	int err;

	if ((size && size <= f->size && !f->owed) || !f->tmpl)
		return 0;
	if (f->content == CONTENT_NEW && !exact) {
		if (room_for(st, size - f->size + (f->size ? 0 : ROOM_OVERHEAD)))
			return 0;
		exact = true;
	}
	if (f->content != CONTENT_SEALED && !exact)
		return 0;
	need = tail_offset(size, f->s) + tail_len(f->tmpl, size);
	if (need <= f->alloc_end)
		return 0;
	if (hopeless(st, need - f->alloc_end))
		return -ENOSPC;
	slack = exact ? 0 : MAX((uint64_t)256 << 10, MIN(need / 16, STEP));
	err = st->io.allocate(st->io.ctx, f->fd, FALLOC_FL_KEEP_SIZE, f->alloc_end, need + slack - f->alloc_end);
	if ((err == -ENOSPC || err == -EDQUOT) && slack) {
		slack = 0;
		err = st->io.allocate(st->io.ctx, f->fd, FALLOC_FL_KEEP_SIZE, f->alloc_end, need - f->alloc_end);
	}
	if (err && err != -EOPNOTSUPP) {
		if (f->content == CONTENT_NEW && !st->io.truncate(st->io.ctx, f->fd, 0)) /* nothing is in place: what it got goes back */
			f->alloc_end = 0;
		return err;
	}
	f->alloc_end = need + slack;
	return 0;
}

static int flush_run(struct inode *f, uint64_t first, uint64_t n, uint8_t *out, size_t len)
{
	int err = n ? io_pwrite(&f->st->io, f->fd, out, len, seg_off(f->s, first)) : 0;

	if (err && err != -ENOSPC && err != -EDQUOT && f->handles)
		f->error = -EIO;
	return err;
}

/* SPILLED: dirty segments go to their place; the last one only if @all, because it may still grow. */
int spill_dirty(struct inode *f, bool all)
{
	uint64_t stride = (uint64_t)f->s + AEAD_OVERHEAD, most = MAX(RUN_MAX / f->s, 1);
	uint8_t *out = scratch_get(most * stride);
	size_t at = 0, done = 0;
	int err = out ? tags_room(f, seg_count(f->size, f->s)) : -ENOMEM;

	while (!err && at < f->n_segs) {
		uint64_t first = f->segs[at].no, n = 0;
		size_t len = 0;

		while (at < f->n_segs && n < most && f->segs[at].no == first + n && (all || f->segs[at].len == f->s)) {
			err = segment_put(f, first + n, f->segs[at].buf, f->segs[at].len, out + len);
			if (err)
				return err;
			len += f->segs[at].len + AEAD_OVERHEAD;
			n++;
			at++;
		}
		if (!n)
			break; /* the last, partial */
		err = flush_run(f, first, n, out, len);
		if (!err)
			done = at;
	}
	for (size_t i = done; i > 0; i--)
		seg_drop(f, i - 1);
	return err;
}

int inode_new_header(struct inode *f)
{
	uint8_t sector[SECTOR];
	int err;

	f->rec.state = RECORD_NEW;
	f->rec.made = f->rec.mtime = f->rec.ctime = now_wall();
	err = record_sector(&f->rec, 0, f->st->keys.k_rec, sector);
	return err ? err : io_pwrite(&f->st->io, f->fd, sector, SECTOR, 0);
}

int inode_spill(struct inode *f)
{
	int err = inode_new_header(f);

	if (err)
		return err;
	f->content = CONTENT_SPILLED;
	return spill_dirty(f, false);
}

void base_of(const struct inode *f, struct base *ret)
{
	memcpy(ret->file_id, f->rec.file_id, ID_LEN);
	memcpy(ret->content_id, f->rec.content_id, ID_LEN);
	ret->generation = f->rec.generation;
}

/*
 * REPLACED and large: the log says that the old content is given up, then the file starts again as NEW.  INTENT stands before it where the
 * log does not know the file's inode number yet: VOID must never be taken for one of a copy.
 */
int inode_void_base(struct inode *f)
{
	struct store *st = f->st;
	struct redo_rec recs[2] = {{.type = REDO_INTENT}, {.type = REDO_VOID}};
	unsigned from = f->hinted ? 1 : 0;
	uint8_t id[ID_LEN];
	int err = random_bytes(id, ID_LEN);

	if (err)
		return err;
	base_of(f, &recs[0].base);
	recs[1].base = recs[0].base;
	recs[0].intent.sealed_len = f->base_len;
	recs[0].intent.ino = f->ino;
	recs[0].intent.root_ino = f->st->root_ino;
	recs[0].intent.path = f->path ? f->path : "";
	if (!f->void_lsn)
		err = redo_append(st->redo, recs + from, 2 - from, &f->pin, 0, true, &f->void_lsn, NULL);
	if (!err)
		err = redo_flush(st->redo, f->void_lsn);
	if (err)
		return err;
	f->void_lsn = 0;
	f->void_pin = f->pin;
	f->void_seq = f->write_seq;
	memset(&f->pin, 0, sizeof(f->pin));
	memset(f->rec.content_id, 0, ID_LEN);
	f->rec.generation = 0;
	f->rec.size = f->rec.tail_off = 0;
	f->com_size = f->base_len = f->alloc_end = f->number = f->last_lsn = 0;
	f->live = f->hinted = f->intent = false;
	inode_not_durable(f);
	memcpy(f->rec.file_id, id, ID_LEN);
	f->content = CONTENT_SPILLED; /* whatever happens now: all is in memory, and the seal writes the header again */
	err = inode_new_header(f);
	if (!err)
		err = st->io.truncate(st->io.ctx, f->fd, SECTOR);
	return err ? err : spill_dirty(f, false);
}

/* Cut to nothing: fresh key, old base kept until the new content is committed. */
static int replace_content(struct inode *f)
{
	int err = inode_fresh_key(f);

	if (err)
		return err;
	inode_forget_content(f);
	reseg_give_up(f);
	if (f->content == CONTENT_SEALED)
		f->content = CONTENT_REPLACED;
	return 0;
}

static int shrink(struct inode *f, uint64_t size)
{
	uint32_t rest = (uint32_t)(size % f->s);
	struct seg *s;
	int err;

	if (!size && f->content != CONTENT_SPILLED)
		return replace_content(f);
	if (rest) {
		err = seg_get(f, size / f->s, true, rest, &s);
		if (err)
			return err;
		memset(s->buf + rest, 0, s->cap - rest);
		s->len = rest;
	} else if (!size) { /* the one segment of an empty file */
		err = seg_get(f, 0, false, 1, &s);
		if (err)
			return err;
		memset(s->buf, 0, s->cap);
		s->len = 0;
	}
	segs_drop_from(f, seg_count(size, f->s));
	segcache_drop_all(f->st->cache, f->id);
	f->place_end = MIN(f->place_end, size / f->s);
	f->fresh = f->fresh && f->place_end > f->place_first;
	f->size = size;
	reseg_cut(f);
	return 0;
}

/* Zeros from the end to @to, which is at most STEP away; a segment at a time so that a failure leaves a shorter file. */
static int extend(struct inode *f, uint64_t to)
{
	int err = 0;

	while (f->size < to && !err) {
		uint64_t i = f->size / f->s;
		uint32_t from = (uint32_t)(f->size - i * f->s);
		uint32_t len = (uint32_t)MIN(to - i * f->s, f->s);
		struct seg *s;

		err = seg_get(f, i, from > 0, len, &s);
		if (err)
			break;
		s->len = len;
		f->size = i * f->s + len;
		if (f->content == CONTENT_SPILLED && f->dirty > NEW_MEMORY_MAX)
			err = spill_dirty(f, false);
	}
	return err;
}

static int grow(struct inode *f, uint64_t size)
{
	uint64_t old = UINT64_MAX, seq = 0;
	bool alone = true; /* nobody else has written since: only then can it be taken back */
	int err = 0;

	for (bool more = true; more && !err;) {
		rwlock_write(&f->lock);
		if (old == UINT64_MAX) {
			old = f->size;
			err = inode_reserve(f, size, true);
		}
		if (!err && f->size < size && !inode_too_dirty(f)) {
			alone = alone && (!seq || seq == f->write_seq);
			/* into the room kept for a growing file's seal no more than a write may bring: after a cut it cannot go in place */
			err = extend(f, MIN(size, f->size + (f->fresh ? GROW_ONE_MAX : STEP)));
			inode_touched(f);
			seq = f->write_seq;
		}
		more = f->size < size;
		rwlock_unlock(&f->lock);
		if (!err)
			err = inode_pressure(f);
	}
	if (err && alone && seq) {
		rwlock_write(&f->lock);
		if (f->size > old && f->size <= size && seq == f->write_seq) {
			(void)!shrink(f, old);
			inode_touched(f);
		}
		rwlock_unlock(&f->lock);
	}
	return err;
}

/* @only_grow: make it longer or leave it, however long it has become meanwhile */
static int resize(struct inode *f, uint64_t size, bool only_grow)
{
	int err = 0;
	bool more;

	rwlock_write(&f->lock);
	if (f->content == CONTENT_FOREIGN || f->content == CONTENT_VOID || !f->fd_write)
		err = -EROFS;
	else if (f->st->failed || f->error)
		err = -EIO;
	else if (lease_check_write(f))
		err = lease_check_write(f);
	else if (size > PLAIN_MAX)
		err = -EFBIG;
	more = !err && size > f->size;
	if (more)
		reseg_empty(f, size);
	if (!err && size < f->size && !only_grow) {
		err = shrink(f, size);
		inode_touched(f);
	}
	rwlock_unlock(&f->lock);
	return more ? grow(f, size) : err;
}

int inode_truncate(struct inode *f, uint64_t size)
{
	return f->plain ? plain_truncate(f, size) : resize(f, size, false);
}

int inode_grow(struct inode *f, uint64_t size)
{
	return resize(f, size, true);
}

static int write_zeros(struct inode *f, uint64_t off, uint64_t end)
{
	static const uint8_t zeros[65536];
	int err = 0;

	while (off < end && !err) {
		size_t n = (size_t)MIN(end - off, sizeof(zeros));

		err = inode_write(f, zeros, n, off);
		off += n;
	}
	return err;
}

int inode_allocate(struct inode *f, int mode, uint64_t off, uint64_t len)
{
	uint64_t end = off + len, size;
	int err = 0;

	if (f->plain)
		return plain_allocate(f, mode, off, len);
	if (end < off || end > PLAIN_MAX)
		return -EFBIG;
	rwlock_read(&f->lock);
	size = f->size;
	rwlock_unlock(&f->lock);
	switch (mode) {
	case 0:
		return end > size ? inode_grow(f, end) : 0;
	case FALLOC_FL_KEEP_SIZE:
		rwlock_write(&f->lock);
		reseg_empty(f, end);
		err = inode_reserve(f, end, true);
		rwlock_unlock(&f->lock);
		return err;
	case FALLOC_FL_ZERO_RANGE:
	case FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE:
	case FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE:
		if (mode == FALLOC_FL_ZERO_RANGE && end > size)
			err = inode_grow(f, end);
		return err ? err : write_zeros(f, off, MIN(end, mode == FALLOC_FL_ZERO_RANGE ? end : size));
	default:
		return -EOPNOTSUPP;
	}
}
