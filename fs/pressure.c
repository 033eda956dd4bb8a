/* SPDX-License-Identifier: Apache-2.0 */
/* What is too much for memory: new files spill, large appends go in place ahead of their COMMIT, the rest is committed. */
#include "inode_i.h"

/* The first segment that may go in place: whole, never committed, never placed on this base, and beyond the sealed file's end. */
static uint64_t place_start(const struct inode *f)
{
	uint64_t stride = (uint64_t)f->s + AEAD_OVERHEAD;
	uint64_t end = f->base_len;
	uint64_t i;

#ifdef TEST_NO_OVER_TAIL
	end = f->rec.tail_off;
#endif
	i = (end - SECTOR + stride - 1) / stride;
#ifndef TEST_NO_REUSE_PLACE
	i = MAX(i, f->used_end);
#endif
	return MAX(i, seg_count(f->com_size, f->s));
}

static int log_intent(struct inode *f)
{
	struct store *st = f->st;
	struct redo_rec rec = {.type = REDO_INTENT};
	uint64_t lsn;
	int err;

	base_of(f, &rec.base);
	rec.intent.sealed_len = f->base_len;
	rec.intent.ino = f->ino;
	rec.intent.root_ino = f->st->root_ino;
	rec.intent.path = f->path ? f->path : "";
	f->intent = true; /* from now on seal_estimate() counts the growth */
	err = redo_append(st->redo, &rec, 1, &f->pin, seal_estimate(f, true), false, &lsn, NULL);
	if (!err)
		err = redo_flush(st->redo, lsn);
	if (err)
		f->intent = false;
	else
		f->hinted = true;
	return err;
}

/* Whole appended segments to their place, ahead of the COMMIT that will count them. */
static int place_growth(struct inode *f, uint64_t first)
{
	struct store *st = f->st;
	struct seg *s = seg_find(f, first);
	size_t at = (size_t)(s - f->segs), n = 0;
	uint64_t stride = (uint64_t)f->s + AEAD_OVERHEAD;
	CLEANUP_FREE uint8_t *out = NULL;
	int err = inode_pay(f);

	if (err)
		return err;
	if (!f->durable) { /* growth beyond a file that a crash may take away or tear */
		err = inode_sync_names(f, f->fd);
		if (err) {
			inode_lost(f); /* no later sync of it is believed */
			return -EIO;
		}
		f->durable = true;
	}
#ifndef TEST_NO_NO_INTENT
	if (!f->intent)
		err = log_intent(f);
#endif
	if (!err)
		err = tags_room(f, seg_count(f->size, f->s));
	if (err)
		return err;
	while (at + n < f->n_segs && f->segs[at + n].no == first + n && f->segs[at + n].len == f->s)
		n++;
	out = malloc(n * stride);
	if (!out)
		return -ENOMEM;
	for (size_t k = 0; k < n && !err; k++)
		err = segment_put(f, first + k, f->segs[at + k].buf, f->s, out + k * stride);
	if (!err)
		err = io_pwrite(&st->io, f->fd, out, n * stride, seg_off(f->s, first));
	if (err)
		return err; /* still dirty in memory: the log takes it at the commit */
	for (size_t k = n; k > 0; k--)
		seg_drop(f, at + k - 1);
	if (!f->fresh)
		f->place_first = first;
	f->fresh = true;
	f->place_end = f->used_end = first + n;
	return 0;
}

/* Number of dirty whole segments from @first on, in a row. */
static uint64_t dirty_run(struct inode *f, uint64_t first)
{
	struct seg *s = seg_find(f, first);
	uint64_t n = 0;

	if (!s)
		return 0;
	for (size_t i = (size_t)(s - f->segs); i < f->n_segs && f->segs[i].no == first + n && f->segs[i].len == f->s; i++)
		n++;
	return n;
}

static int pressure_sealed(struct inode *f, bool *ret_flush)
{
	uint64_t first = place_start(f), n = 0;
	bool crowded = f->st->dirty > f->st->opt.dirty_bytes && f->dirty >= f->s;
	int err = 0;

	if (!f->apply.pending && !f->unlinked && (!f->fresh || first == f->place_end))
		n = dirty_run(f, first);
	if (!f->fresh &&
	    f->dirty - n * f->s > GROW_OTHER_MAX) /* that is committed first: the room kept for a growing file's seal holds no more */
		n = 0;
	if (n * f->s >= GROW_MIN || (f->fresh && n))
		err = place_growth(f, first);
	if (err)
		return err;
	if (f->dirty > DIRTY_MAX || crowded ||
	    (f->fresh && (f->dirty > GROW_OTHER_MAX + 2 * (uint64_t)f->s || f->place_end - f->place_first > PLACE_MAX))) {
		err = commit_append(f, false);
		*ret_flush = !err;
	}
	return err;
}

int inode_place(struct inode *f)
{
	uint64_t first = place_start(f);

	return f->fresh && !f->apply.pending && first == f->place_end && dirty_run(f, first) ? place_growth(f, first) : 0;
}

static int pressure_locked(struct inode *f, bool *ret_flush, bool *ret_wait)
{
	struct store *st = f->st;
	bool crowded = st->dirty > st->opt.dirty_bytes && f->dirty > (uint64_t)64 << 10;

	if (f->content == CONTENT_NEW && (f->dirty > NEW_MEMORY_MAX || f->size > NEW_MEMORY_MAX || crowded))
		return inode_spill(f);
	if (f->content == CONTENT_REPLACED && (f->dirty > NEW_MEMORY_MAX || f->size > NEW_MEMORY_MAX)) {
		*ret_wait = f->apply.pending;
		return *ret_wait ? 0 : inode_void_base(f);
	}
	if (reseg_spilled_wanted(f))
		return reseg_spilled(f);
	if (f->content == CONTENT_SPILLED && f->dirty > NEW_MEMORY_MAX)
		return spill_dirty(f, false);
	if (f->content == CONTENT_SEALED && f->unlinked) {
		*ret_wait = f->dirty > DIRTY_MAX;
		return 0;
	}
	return f->content == CONTENT_SEALED ? pressure_sealed(f, ret_flush) : 0;
}

static bool is_unlinked(struct inode *f)
{
	bool yes;

	rwlock_read(&f->lock);
	yes = f->unlinked;
	rwlock_unlock(&f->lock);
	return yes;
}

int inode_pressure(struct inode *f)
{
	struct store *st = f->st;
	struct room_turn turn = {.st = st};
	bool flush, wait;
	uint64_t lsn;
	int err;

	if (st->opt.strict && !is_unlinked(f)) /* nothing makes that one durable, but memory has an end */
		return inode_fsync(f, true);
	do {
		room_turn_wait(&turn);
		flush = wait = false;
		rwlock_write(&f->lock);
		err = pressure_locked(f, &flush, &wait);
		lsn = f->last_lsn;
		rwlock_unlock(&f->lock);
	} while (room_turn_again(&turn, f, wait ? -EBUSY : err, &err));
	if (!err && flush) {
		err = redo_flush(st->redo, lsn);
		if (!err)
			commit_mark_live(f, lsn);
		else if (redo_is_dead(st->redo))
			st->failed = true;
	}
	if (st->dirty > st->opt.dirty_bytes)
		writeback_kick(st);
	return err;
}
