/* SPDX-License-Identifier: Apache-2.0 */
/* The volume log on disk: group commit, what happens when a write fails, reading back, the group of a clean unmount. */
#include <errno.h>
#include <stdio.h>

#include "redo_int.h"
#include "report.h"

/* @ret_refused: there was no room for it, so that nothing was taken that could be lost later */
static int write_group(struct redo *r, struct redo_group_buf *g, const struct redo_group *head, bool *ret_refused)
{
	size_t padded = redo_align(g->len);
	int err = redo_group_seal(g->p, head, r->volume_id, r->k_log);

	if (err)
		return err;
	memset(g->p + g->len, 0, padded - g->len);
	err = io_pwrite(&r->io, r->fd[g->half], g->p, padded, g->off);
	if (err) {
		*ret_refused = err == -ENOSPC || err == -EDQUOT;
		return err;
	}
	err = r->io.sync(r->io.ctx, r->fd[g->half], false);
#ifdef TEST_NO_FSYNC_RETRY
	if (err)
		err = r->io.sync(r->io.ctx, r->fd[g->half], false);
#endif
	return err;
}

/*
 * A write that is refused for want of room (btrfs: of metadata, which a commit of the file system gives back) lost nothing: what the kernel
 * took of it is a torn group behind the last durable one, and is written over by all of it.  So it is tried again in the same place, now
 * and at the next flush; another half would be refused as well.
 */
static int write_or_refuse(struct redo *r, struct redo_group_buf *g, const struct redo_group *head, bool *ret_refused)
{
	int err = write_group(r, g, head, ret_refused);

	if (!*ret_refused)
		return err;
	(void)!r->io.syncfs(r->io.ctx, r->store_fd);
	*ret_refused = false;
	return write_group(r, g, head, ret_refused);
}

/* Before the write, so that nothing can fail after it. */
static int where_reserve(struct redo *r)
{
	size_t cap = MAX(r->cap_where * 2, 256);
	struct redo_where *w;

	if (r->n_where < r->cap_where)
		return 0;
	w = reallocarray(r->where, cap, sizeof(*w));
	if (!w)
		return -ENOMEM;
	r->where = w;
	r->cap_where = cap;
	return 0;
}

/* Is there anything on disk in @half that is still needed? */
static bool half_live(struct redo *r, int half, bool *ret_only_buried)
{
	bool held = redo_half_pinned(r, half, ret_only_buried), live = false;

	for (unsigned i = 0; i < REDO_RUNS; i++)
		live |= r->runs[i].pins && r->runs[i].durable && r->runs[i].halves & 1 << half;
	return held && live;
}

/*
 * Where the queue may go in half @to, whose start stays as it is where something there is still needed: after a power cut in the middle of
 * a write over it the next mount has only the other half.
 *
 * If nothing is durable in the half that fails, the last group of the other one is what tells the next mount that nothing is missing: the
 * queue goes behind it, as long as recovery still has room behind the queue.  Else the half that fails must have said that everything in
 * the other one is retired.
 */
static int move_where(struct redo *r, int to, uint64_t *ret_off)
{
	uint64_t off = r->head->off ? 0 : r->end[to], len = 0;
	bool only_buried;

	for (struct redo_group_buf *q = r->head; q; q = q->next)
		len += redo_align(q->len);
#ifdef TEST_NO_FIRST_GROUP
	off = 0;
#endif
	if (off) {
		if (off + len + r->reserved + 2 * REDO_BLOCK > r->half_size)
			return -ENOSPC;
		*ret_off = off;
		return 0;
	}
	if (half_live(r, to, &only_buried) && only_buried && redo_sync_names(r))
		return -EIO;
	if (half_live(r, to, &only_buried))
		return -EBUSY;
#ifndef TEST_NO_MOVE_RETIRED
	if (r->head->off && r->end[to] && r->retired_durable + 1 < r->start[1 - to])
		return -EBUSY;
#endif
	*ret_off = 0;
	return len <= r->half_size ? 0 : -ENOSPC;
}

/*
 * The group at the head could not be made durable.  What the kernel had in memory of it is lost, and a second fdatasync would say 0: so it
 * and all later ones go to the other half, from our memory, with the same LSNs and the next epoch.
 */
static int move_queue(struct redo *r)
{
	struct redo_group_buf *g = r->head;
	int from = g->half, to = 1 - from, err;
	uint64_t off, epoch = g->epoch + 1;
	unsigned run;

	if (g->moved)
		return -EIO;
	err = move_where(r, to, &off);
	if (err)
		return err;
	if (redo_new_run(r, to, g->lsn, &run))
		return -ENOSPC;
	if (!off)
		redo_forget_half(r, to);
	for (struct redo_group_buf *q = g; q; q = q->next) {
		struct redo_run *old = &r->runs[q->run];

		/* whoever holds the old run now holds this half as well */
		old->halves = old->durable ? old->halves | (uint8_t)(1 << to) : (uint8_t)(1 << to);
		q->half = to;
		q->off = off;
		q->epoch = epoch;
		off += redo_align(q->len);
	}
	g->moved = true;
	g->sealed = false;
	r->runs[r->fill->run].groups--;
	r->fill->run = run;
	r->runs[run].groups++;
	report(REPORT_WARN, "the volume log could not be written in half %d; it goes on in half %d", from, to);
	return 0;
}

static void head_durable(struct redo *r)
{
	struct redo_group_buf *g = r->head;

	r->where[r->n_where++] = (struct redo_where){g->lsn, g->off, g->half};
	r->durable = g->lsn;
	r->retired_durable = r->retired_sealed;
	if (!g->off)
		r->start[g->half] = g->lsn;
	r->end[g->half] = g->off + redo_align(g->len);
	r->n_flushes++;
	r->n_bytes += redo_align(g->len);
	if (r->refused)
		report(REPORT_NOTE, "the volume log is written again");
	r->refused = 0;
	r->runs[g->run].durable = true;
	r->head = g->next;
	redo_group_free(r, g);
}

static void head_refused(struct redo *r, int err)
{
	r->head->sealed = false;
	r->n_refused++;
	if (!r->refused)
		report(REPORT_ERROR,
		       "the disk has no room for the volume log (%s): what was written is kept in memory, fsync says so; it is tried again",
		       strerror(-err));
	r->refused = err;
}

/* Leader: make the group at the head durable.  Called and left with the lock held, which is let go meanwhile. */
static void flush_head(struct redo *r)
{
	struct redo_group_buf *g = r->head;
	int err = redo_group_grow(r, g, g->len); /* an empty group has no buffer yet */

	if (!err)
		err = where_reserve(r);
	while (!err) {
		bool refused = false;
		struct redo_group head = {
		    .epoch = g->epoch,
		    .lsn = g->lsn,
		    .durable_lsn = r->durable,
		    /* nothing about later ones: after a power cut behind this one other groups have their LSNs */
		    .retired_lsn = g->retire_all ? g->lsn : MIN(redo_retired_now(r), g->lsn),
		    .n_recs = g->n_recs,
		    .len = (uint32_t)g->len,
		};

		g->sealed = true;
		r->retired_sealed = head.retired_lsn;
		mutex_unlock(&r->lock);
		err = write_or_refuse(r, g, &head, &refused);
		mutex_lock(&r->lock);
		if (!err) {
			head_durable(r);
			return;
		}
		if (refused) {
			head_refused(r, err);
			return;
		}
		report(REPORT_ERROR, "cannot write the volume log: %s", strerror(-err));
		err = move_queue(r);
	}
	redo_die(r, strerror(-err));
}

int redo_flush(struct redo *r, uint64_t lsn)
{
	uint64_t n_refused;
	int err = 0;

	mutex_lock(&r->lock);
	n_refused = r->n_refused;
	if (lsn > r->fill->lsn || (lsn == r->fill->lsn && !r->fill->n_recs && !r->fill->retire_all))
		err = -EINVAL;
	while (!err && r->durable < lsn) {
		if (r->dead) {
			err = fail(-EIO, "the volume log could not be written");
		} else if (r->n_refused != n_refused && r->refused) { /* the leader was told; so is who waited for it */
			err = fail(r->refused, "the disk has no room for the volume log");
		} else if (r->writing) {
			cond_wait(&r->changed, &r->lock);
		} else if (r->head == r->fill && !redo_next_group(r)) {
			err = -ENOMEM;
		} else {
			r->writing = true;
			flush_head(r);
			r->writing = false;
			cond_broadcast(&r->changed);
		}
	}
	mutex_unlock(&r->lock);
	return err;
}

static int where_find(const struct redo *r, uint64_t lsn, struct redo_where *ret)
{
	size_t lo = 0, hi = r->n_where;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (r->where[mid].lsn < lsn)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (lo == r->n_where || r->where[lo].lsn != lsn)
		return -ENOENT;
	*ret = r->where[lo];
	return 0;
}

int redo_read(struct redo *r, const struct redo_loc *loc, void *buf)
{
	const struct redo_group_buf *g;
	struct redo_where w;
	int err;

	mutex_lock(&r->lock);
	for (g = r->head; g && g->lsn != loc->lsn; g = g->next)
		;
	if (g) {
		err = (uint64_t)loc->off + loc->len <= g->len ? 0 : -EINVAL;
		if (!err)
			memcpy(buf, g->p + loc->off, loc->len);
		mutex_unlock(&r->lock);
		return err;
	}
	err = where_find(r, loc->lsn, &w);
	mutex_unlock(&r->lock);
	if (err)
		return fail(-EIO, "group %llu is no longer in the log", (unsigned long long)loc->lsn);
	/* the caller's pin keeps the half from being used again */
	return io_pread_full(&r->io, r->fd[w.half], buf, loc->len, w.off + loc->off);
}

int redo_retire(struct redo *r)
{
	bool only_buried, busy = false;
	uint64_t lsn = 0;
	int err = 0;

	mutex_lock(&r->lock);
	for (int half = 0; half < 2 && !err && !busy; half++) {
		if (redo_half_pinned(r, half, &only_buried) && only_buried && redo_sync_names(r))
			err = fail(-EIO, "the store cannot be synced");
		busy = redo_half_pinned(r, half, &only_buried);
	}
	if (!err && busy)
		err = -EBUSY;
	if (!err && r->dead)
		err = fail(-EIO, "the volume log could not be written");
	if (!err) {
		r->fill->retire_all = true;
		lsn = r->fill->lsn;
	}
	mutex_unlock(&r->lock);
	if (!err)
		err = redo_flush(r, lsn);
	mutex_lock(&r->lock);
	if (!err && r->retired_durable < lsn) /* something came into that group before it was written */
		err = -EBUSY;
	if (r->fill->lsn == lsn) /* it goes on: what comes into this group does count */
		r->fill->retire_all = false;
	mutex_unlock(&r->lock);
	return err;
}
