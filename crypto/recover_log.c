/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Recovery's own records, behind the last group of the log and in its epoch.  What was reserved for the SEALs that are now made has been
 * kept free, and the log keeps a spare part besides.  Where there is no room all the same (a log that went on behind the last group of a
 * half because the other could not be written) and nothing in the other half is needed, they go to its start: the last group here says that
 * it is all retired.  Each group is synced before the next one is written, as everywhere.
 */
#include <errno.h>

#include "recover_int.h"
#include "redo_int.h"
#include "report.h"

static uint64_t room_left(const struct log_out *o)
{
	uint64_t used = o->l->end + redo_align(MAX(o->len, REDO_HEADER)) + REDO_BLOCK; /* one block for the last group */

	return used < o->l->half_size ? o->l->half_size - used : 0;
}

static int grow(struct log_out *o, size_t need)
{
	size_t cap = MAX(o->cap, (size_t)64 << 10);
	void *p;

	if (need <= o->cap)
		return 0;
	while (cap < need)
		cap *= 2;
	if (posix_memalign(&p, REDO_BLOCK, cap))
		return -ENOMEM;
	if (o->p) /* o->len may be that of a header still to be written */
		memcpy(p, o->p, MIN(o->len, o->cap));
	free(o->p);
	o->p = p;
	o->cap = cap;
	return 0;
}

/* What was added and not flushed comes along. */
static bool change_half(struct log_out *o)
{
	struct log *l = o->l;

	if (l->other_needed || l->damaged)
		return false;
	l->half = 1 - l->half;
	l->end = 0;
	l->last_epoch++;
	l->other_needed = true;
	return true;
}

int out_seal(struct log_out *o, struct plan *p)
{
	struct redo_rec *rec = &p->built;
	int err;

	if (redo_rec_len(rec) + REDO_BLOCK > room_left(o))
		(void)change_half(o);
	if (redo_side_wanted(o->l->half_size, rec->seal.tail_len) || redo_rec_len(rec) + REDO_BLOCK > room_left(o)) {
		err = redo_side_put(o->l->io, o->log_dir, rec->seal.tail, rec->seal.tail_len, p->built_side);
		if (err)
			return err;
		rec->seal.side = p->built_side;
		rec->seal.tail = NULL;
	}
	if (redo_rec_len(rec) > room_left(o))
		return fail(-ENOSPC, "there is no room left in the log to finish the recovery");
	if (!o->len)
		o->len = REDO_HEADER;
	err = grow(o, redo_align(o->len + redo_rec_len(rec)));
	if (err)
		return err;
	redo_rec_write(rec, o->p + o->len);
	o->len += redo_rec_len(rec);
	o->n_recs++;
	return 0;
}

int out_flush(struct log_out *o, bool retire)
{
	struct log *l = o->l;
	struct redo_group g = {.epoch = l->last_epoch, .lsn = l->last_lsn + 1, .durable_lsn = l->last_lsn, .retired_lsn = l->retired};
	size_t padded;
	int err;

	if (!o->n_recs && !retire)
		return 0;
	if (!o->len)
		o->len = REDO_HEADER;
	padded = redo_align(o->len);
	if (l->end + padded > l->half_size && !change_half(o))
		return fail(-ENOSPC, "there is no room left in the log to finish the recovery");
	err = grow(o, padded);
	if (err)
		return err;
	g.n_recs = o->n_recs;
	g.len = (uint32_t)o->len;
	if (retire)
		g.retired_lsn = g.lsn;
	err = redo_group_seal(o->p, &g, l->keys->volume_id, l->keys->k_log);
	if (err)
		return err;
	memset(o->p + o->len, 0, padded - o->len);
	err = io_pwrite(l->io, l->fd[l->half], o->p, padded, l->end);
	if (!err)
		err = l->io->sync(l->io->ctx, l->fd[l->half], false);
	if (err)
		return fail(err, "recovery cannot write the log: %s", strerror(-err));
	l->last_lsn = g.lsn;
	l->end += padded;
	if (retire)
		l->retired = g.lsn;
	o->len = 0;
	o->n_recs = 0;
	return 0;
}
