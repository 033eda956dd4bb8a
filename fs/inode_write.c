/* SPDX-License-Identifier: Apache-2.0 */
/* Writing into memory: dirty segments; and, for a new file that has spilled, whole segments straight into place. */
#include "inode_i.h"

static size_t seg_index(const struct inode *f, uint64_t no)
{
	size_t lo = 0, hi = f->n_segs;

	if (hi && f->segs[hi - 1].no < no) /* appending */
		return hi;
	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (f->segs[mid].no < no)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

struct seg *seg_find(struct inode *f, uint64_t no)
{
	size_t i = seg_index(f, no);

	return i < f->n_segs && f->segs[i].no == no ? &f->segs[i] : NULL;
}

static void seg_account(struct inode *f, int64_t bytes)
{
	f->dirty += (uint64_t)bytes;
	f->st->dirty += (uint64_t)bytes;
}

static void seg_release(struct inode *f, struct seg *s)
{
	seg_account(f, -(int64_t)s->cap);
	wipe(s->buf, s->cap);
	free(s->buf);
}

void seg_drop(struct inode *f, size_t index)
{
	seg_release(f, &f->segs[index]);
	f->n_segs--;
	memmove(&f->segs[index], &f->segs[index + 1], (f->n_segs - index) * sizeof(*f->segs));
}

void segs_drop_from(struct inode *f, uint64_t no)
{
	while (f->n_segs && f->segs[f->n_segs - 1].no >= no)
		seg_release(f, &f->segs[--f->n_segs]);
}

/* Room grows in powers of two from one page: a small file does not take a whole segment of memory.  Bytes past len are zero. */
static int seg_grow(struct inode *f, struct seg *s, uint32_t need)
{
	uint32_t cap = MAX(s->cap, 4096);
	uint8_t *p;

	if (need <= s->cap)
		return 0;
	while (cap < need)
		cap *= 2;
	cap = MIN(cap, f->s);
	p = calloc(1, cap);
	if (!p)
		return -ENOMEM;
	if (s->buf) {
		memcpy(p, s->buf, s->len);
		wipe(s->buf, s->cap);
		free(s->buf);
	}
	seg_account(f, (int64_t)cap - s->cap);
	s->buf = p;
	s->cap = cap;
	return 0;
}

int seg_get(struct inode *f, uint64_t no, bool load, uint32_t need, struct seg **ret)
{
	size_t i = seg_index(f, no);
	struct seg fresh = {.no = no};
	int err;

	reseg_mark(f, no);
	if (i < f->n_segs && f->segs[i].no == no) {
		err = seg_grow(f, &f->segs[i], need);
		if (!err)
			*ret = &f->segs[i];
		return err;
	}
	if (f->n_segs == f->cap_segs) {
		size_t cap = MAX(8, 2 * f->cap_segs);
		struct seg *p = realloc(f->segs, cap * sizeof(*p));

		if (!p)
			return -ENOMEM;
		f->segs = p;
		f->cap_segs = cap;
	}
	if (load) {
		uint32_t plain = seg_plain(f->size, f->s, no);

		err = seg_grow(f, &fresh, MAX(need, f->s)); /* what is stored may be longer than what a truncate left */
		if (!err)
			err = segment_load(f, no, fresh.buf);
		if (!err) {
			memset(fresh.buf + plain, 0, fresh.cap - plain);
			fresh.len = plain;
		}
	} else {
		err = seg_grow(f, &fresh, need);
	}
	if (err) {
		if (fresh.buf)
			seg_release(f, &fresh);
		return err;
	}
	segcache_drop(f->st->cache, f->id, no);
	memmove(&f->segs[i + 1], &f->segs[i], (f->n_segs - i) * sizeof(*f->segs));
	f->segs[i] = fresh;
	f->n_segs++;
	*ret = &f->segs[i];
	return 0;
}

int tags_room(struct inode *f, uint64_t n)
{
	if (n > f->cap_tags || !f->crcs) {
		uint64_t cap = MAX(MAX(n, f->cap_tags), n > f->cap_tags ? 2 * f->cap_tags : 0);
		uint8_t *t;
		uint64_t *c;

		if (n > UINT32_MAX)
			return fail(-EFBIG, "more than 2^32 segments");
		t = realloc(f->tags, cap * AEAD_TAG);
		if (!t)
			return -ENOMEM;
		f->tags = t;
		c = realloc(f->crcs, cap * sizeof(*c));
		if (!c)
			return -ENOMEM;
		if (!f->crcs)
			memset(c, 0, f->n_tags * sizeof(*c));
		f->crcs = c;
		f->cap_tags = cap;
	}
	if (n > f->n_tags) {
		memset(f->tags + f->n_tags * AEAD_TAG, 0, (n - f->n_tags) * AEAD_TAG);
		memset(f->crcs + f->n_tags, 0, (n - f->n_tags) * sizeof(*f->crcs));
		f->n_tags = n;
	}
	return 0;
}

/* Needs tags_room() for @i. */
int segment_put(struct inode *f, uint64_t i, const void *pt, uint32_t len, uint8_t *out)
{
	int err;

	if (f->invocations >= INVOCATION_MAX)
		return fail(-EFBIG, "this file's data key has encrypted 2^31 segments; copy the file to give it a new key");
	err = aead_seal(f->dek, pt, len, out);
	if (err)
		return err;
	f->invocations++;
	memcpy(f->tags + i * AEAD_TAG, out + AEAD_IV + len, AEAD_TAG);
	f->crcs[i] = (uint64_t)1 << 32 | crc_bytes(0, out, len + AEAD_OVERHEAD);
	return 0;
}

/* What stands in place of these segments is not known any more: what the file has of them goes to memory, to be written again later. */
static void keep_in_memory(struct inode *f, uint64_t first, uint64_t n, const uint8_t *buf)
{
	for (uint64_t i = first; i < first + n && i * f->s < f->size; i++) {
		uint32_t have = seg_plain(f->size, f->s, i);
		struct seg *s;

		if (seg_get(f, i, false, have, &s)) {
			f->error = -EIO; /* without memory it is lost */
			return;
		}
		memcpy(s->buf, buf + (i - first) * f->s, have);
		s->len = have;
	}
}

/* SPILLED: @n whole segments from the caller's buffer, one write. */
static int write_through(struct inode *f, uint64_t first, uint64_t n, const uint8_t *buf)
{
	struct store *st = f->st;
	uint64_t stride = (uint64_t)f->s + AEAD_OVERHEAD;
	uint8_t *out = scratch_get(n * stride);
	int err = out ? tags_room(f, first + n) : -ENOMEM;

	if (err)
		return err;
	for (uint64_t k = 0; k < n && !err; k++)
		err = segment_put(f, first + k, buf + k * f->s, f->s, out + k * stride);
	if (!err)
		err = io_pwrite(&st->io, f->fd, out, n * stride, seg_off(f->s, first));
	if (err) {
		keep_in_memory(f, first, n, buf);
		return err;
	}
	for (uint64_t k = 0; k < n; k++) {
		struct seg *s = seg_find(f, first + k);

		segcache_drop(st->cache, f->id, first + k);
		if (s)
			seg_drop(f, (size_t)(s - f->segs));
	}
	return 0;
}

int seg_write(struct inode *f, uint64_t i, uint32_t from, uint32_t len, const uint8_t *buf)
{
	uint64_t at = i * f->s;
	uint32_t have = at < f->size ? seg_plain(f->size, f->s, i) : 0;
	struct seg *s;
	int err = seg_get(f, i, have > 0 && (from > 0 || len < have), from + len, &s);

	if (err)
		return err;
	memcpy(s->buf + from, buf, len);
	s->len = MAX(s->len, from + len);
	return 0;
}

/* off <= size; caller holds the lock for writing */
static int write_locked(struct inode *f, const uint8_t *buf, size_t len, uint64_t off)
{
	uint64_t at = off, end = off + len;

	while (at < end) {
		uint64_t i = at / f->s;
		uint32_t from = (uint32_t)(at - i * f->s);
		uint64_t n = from ? 0 : MIN((end - at) / f->s, MAX(RUN_MAX / f->s, 1));
		uint64_t step;
		int err;

		if (n && f->content == CONTENT_SPILLED) {
			step = n * f->s;
			err = write_through(f, i, n, buf + (at - off));
		} else {
			step = MIN(end - at, (uint64_t)f->s - from);
			err = seg_write(f, i, from, (uint32_t)step, buf + (at - off));
		}
		if (err)
			return err;
		at += step;
		f->size = MAX(f->size, at);
	}
	return 0;
}

static int write_allowed(struct inode *f, uint64_t end)
{
	if (f->st->failed)
		return fail(-EIO, "the volume log cannot be written any more; the volume is read-only until it is mounted again");
	if (f->error)
		return f->error;
	if (lease_check_write(f))
		return lease_check_write(f);
	if (f->content == CONTENT_VOID || f->content == CONTENT_FOREIGN || !f->fd_write)
		return -EROFS;
	return end > PLAIN_MAX ? -EFBIG : 0;
}

/*
 * The kernel writes a file back with many requests at once, and threads take them in any order: a write beyond the end is nearly always a
 * moment early, and filling the gap with zeros that are overwritten at once costs a second write of everything.  So wait while another
 * write is under way that may close it; when there is none, a moment more for one that the kernel is about to send, but for a file that
 * really has holes only a few times.
 */
static void wait_for_gap(struct inode *f, uint64_t off)
{
	const struct timespec moment = {.tv_nsec = 250000};
	unsigned idle = 0;
	bool closed = false;

	f->n_waiting++;
	for (unsigned k = 0; k < GAP_WAITS_MAX && !closed; k++) {
		if (f->n_writing > f->n_waiting)
			idle = 0;
		else if (f->gap_misses >= GAP_MISSES || ++idle > GAP_WAITS)
			break;
		nanosleep(&moment, NULL);
		rwlock_read(&f->lock);
		closed = off <= f->size || f->error;
		rwlock_unlock(&f->lock);
	}
	f->n_waiting--;
	if (!closed && f->gap_misses < GAP_MISSES)
		f->gap_misses++;
}

/* A commit must fit into the log: who would add to more than that commits first.  An unlinked file is never committed; it gets rid of what
 * is dirty only above DIRTY_MAX (pressure.c).  Of large segments one write makes two dirty, whatever it is long. */
bool inode_too_dirty(const struct inode *f)
{
	uint64_t most = f->s > GROW_ONE_MAX ? DIRTY_MAX : 2 * DIRTY_MAX;

	if (f->fresh && !f->unlinked)
		most = GROW_OTHER_MAX + 2 * (uint64_t)f->s;
	return f->content == CONTENT_SEALED && f->dirty > most;
}

/* With the lock held for writing when it returns 0: room in memory, and the end of the file not before @off. */
static int write_begin(struct inode *f, uint64_t *off, size_t len, bool append)
{
	bool waited = append || f->st->opt.no_threads || f->st->opt.strict;
	int err;

	for (;;) {
		bool dirty;

		rwlock_write(&f->lock);
		if (append)
			*off = f->size;
		err = write_allowed(f, *off + len);
		dirty = inode_too_dirty(f);
		if (!err && !dirty && *off <= f->size)
			return 0;
		rwlock_unlock(&f->lock);
		if (err)
			return err;
		if (dirty)
			err = inode_pressure(f);
		else if (!waited)
			wait_for_gap(f, *off);
		else
			err = inode_grow(f, *off);
		waited = waited || !dirty;
		if (err)
			return err;
	}
}

/* @ret_taken: it is in memory, whatever is returned; NULL: not asked for, then nothing is kept for which there is no room */
static int write_at(struct inode *f, const void *buf, size_t len, uint64_t off, bool append, bool *ret_taken)
{
	bool taken = false;
	int err, more;

	if (!len)
		return 0;
	if (f->plain)
		return plain_write(f, buf, len, off, append);
	if (off + len < off)
		return -EFBIG;
	f->n_writing++;
	err = write_begin(f, &off, len, append);
	if (!err) {
		err = inode_reserve(f, off + len, false);
		if (!err) {
			err = write_locked(f, buf, len, off);
			inode_touched(f);
		}
		taken = !err;
		if ((err == -ENOSPC || err == -EDQUOT) && ret_taken) {
			taken = inode_keep(f, buf, len, off);
			inode_touched(f);
		}
		rwlock_unlock(&f->lock);
	}
	f->n_writing--;
	more = taken ? inode_pressure(f) : 0;
	if (ret_taken)
		*ret_taken = taken;
	return err ? err : more;
}

int inode_write(struct inode *f, const void *buf, size_t len, uint64_t off)
{
	return write_at(f, buf, len, off, false, NULL);
}

int inode_write_back(struct inode *f, const void *buf, size_t len, uint64_t off, bool *ret_taken)
{
	*ret_taken = false;
	return write_at(f, buf, len, off, false, ret_taken);
}

int inode_append(struct inode *f, const void *buf, size_t len)
{
	return write_at(f, buf, len, 0, true, NULL);
}
