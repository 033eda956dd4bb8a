/* SPDX-License-Identifier: Apache-2.0 */
/* Reading the log: which groups count, and whether one is missing that was durable. */
#include <errno.h>

#include "recover_int.h"
#include "redo_int.h"
#include "report.h"

struct keep {
	struct keep *next;
	uint8_t b[];
};

struct groups {
	struct redo_group *g;
	size_t n, cap;
	bool unreadable; /* the disk failed behind the last one */
};

/* The group at @off, whole and checked, or -ENOENT; *ret_p: malloc'd */
static int load_group(const struct log *l, int half, uint64_t off, struct redo_group *ret, uint8_t **ret_p)
{
	CLEANUP_FREE uint8_t *p = NULL;
	uint8_t header[REDO_HEADER];
	uint32_t len;
	int err;

	if (off + REDO_BLOCK > l->half_size)
		return -ENOENT;
	err = io_pread_full(l->io, l->fd[half], header, REDO_HEADER, off);
	if (err)
		return -EIO;
	len = redo_group_len(header, l->half_size - off);
	if (!len)
		return -ENOENT;
	p = malloc(len);
	if (!p)
		return -ENOMEM;
	err = io_pread_full(l->io, l->fd[half], p, len, off);
	if (err)
		return -EIO;
	err = redo_group_parse(p, len, l->keys->volume_id, l->keys->k_log, ret);
	if (err)
		return err == -EIO ? -ENOMEM : err;
	ret->half = half;
	ret->off = off;
	*ret_p = STEAL(p);
	return 0;
}

static int add_group(struct groups *gs, const struct redo_group *g)
{
	if (gs->n == gs->cap) {
		size_t cap = MAX(64, 2 * gs->cap);
		struct redo_group *p = reallocarray(gs->g, cap, sizeof(*p));

		if (!p)
			return -ENOMEM;
		gs->g = p;
		gs->cap = cap;
	}
	gs->g[gs->n++] = *g;
	return 0;
}

/* The group that comes next in the same half: the epoch goes up by two where the other half was tried first and failed (redo_flush.c). */
static bool goes_on(const struct redo_group *last, const struct redo_group *g)
{
	return g->lsn == last->lsn + 1 && (g->epoch == last->epoch || g->epoch == last->epoch + 2);
}

/* Groups from the start of a half as long as epoch and LSN go on. */
static int read_run(const struct log *l, int half, struct groups *ret, int *ret_head_err)
{
	uint64_t off = 0;

	for (;;) {
		CLEANUP_FREE uint8_t *p = NULL;
		struct redo_group g;
		int err = load_group(l, half, off, &g, &p);

		if (!ret->n)
			*ret_head_err = err;
		if (err == -ENOMEM || err == -ENOTSUP)
			return err;
		ret->unreadable |= err == -EIO;
		if (err || (ret->n && !goes_on(&ret->g[ret->n - 1], &g)))
			return 0;
		err = add_group(ret, &g);
		if (err)
			return err;
		off += redo_align(g.len);
	}
}

static int note_lost(struct log *l, const uint8_t *id)
{
	uint8_t(*p)[ID_LEN];

	for (size_t i = 0; i < l->n_lost; i++)
		if (!memcmp(l->lost[i], id, ID_LEN))
			return 0;
	p = reallocarray(l->lost, l->n_lost + 1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	l->lost = p;
	memcpy(l->lost[l->n_lost++], id, ID_LEN);
	return 0;
}

/* Whose records stand in a group, whole or as far as it can be understood. */
static int note_group(struct log *l, const uint8_t *p, size_t len)
{
	struct redo_rec rec;
	size_t rec_len;
	int err = 0;

	for (size_t off = REDO_HEADER; !err && off < len && !redo_rec_parse(p + off, len - off, &rec, &rec_len); off += rec_len)
		err = note_lost(l, rec.base.file_id);
	return err;
}

/* The group that should come next is there but not whole: a best effort. */
static int note_torn(struct log *l)
{
	uint8_t header[REDO_HEADER];
	CLEANUP_FREE uint8_t *p = NULL;
	uint32_t len;

	if (l->end + REDO_BLOCK > l->half_size || io_pread_full(l->io, l->fd[l->half], header, REDO_HEADER, l->end))
		return 0;
	len = redo_group_len(header, l->half_size - l->end);
	p = len ? malloc(len) : NULL;
	if (!p || io_pread_full(l->io, l->fd[l->half], p, len, l->end))
		return 0;
	return note_group(l, p, len);
}

/* A window on a half of the log, so that looking at every block is no system call for each */
struct window {
	uint8_t *p;
	uint64_t off;
	size_t len;
};
#define WINDOW ((size_t)256 << 10)

static const uint8_t *window_block(const struct log *l, int half, struct window *w, uint64_t off)
{
	size_t len = (size_t)MIN(WINDOW, l->half_size - off);

	if (off >= w->off && off + REDO_BLOCK <= w->off + w->len)
		return w->p + (off - w->off);
	w->off = off;
	w->len = 0;
	if (!io_pread_full(l->io, l->fd[half], w->p, len, off))
		w->len = len;
	else if (!io_pread_full(l->io, l->fd[half], w->p, REDO_BLOCK, off)) /* a bad sector hides no other block */
		w->len = REDO_BLOCK;
	return w->len ? w->p : NULL;
}

/*
 * A group behind the end that knew a later one than the last as durable proves that something durable is missing; a group torn by a crash
 * leaves nothing of the kind, since the next one is written only after it is durable.
 * @from, @to: the part of the half that is looked at.
 */
static int look_in_half(struct log *l, int half, uint64_t from, uint64_t to, uint64_t *ret_found)
{
	CLEANUP_FREE uint8_t *buf = malloc(WINDOW);
	struct window w = {.p = buf};

	if (!buf)
		return -ENOMEM;
	for (uint64_t off = from; off + REDO_BLOCK <= to; off += REDO_BLOCK) {
		CLEANUP_FREE uint8_t *p = NULL;
		const uint8_t *header = window_block(l, half, &w, off);
		struct redo_group g;
		int err;

		if (!header || !redo_group_len(header, l->half_size - off) || redo_group_lsn(header) <= l->last_lsn)
			continue;
		err = load_group(l, half, off, &g, &p);
		if (err == -ENOMEM)
			return err;
		if (err || g.durable_lsn <= l->last_lsn)
			continue;
		++*ret_found;
		err = note_group(l, p, g.len);
		if (err)
			return err;
	}
	return 0;
}

/*
 * @clean: the last group retires all others, as an unmount leaves it, or there is none.  The next group stands right behind it or at the
 * start of the other half, and one that proves that it is missing right behind that: looking past the largest group is enough, and a mount
 * needn't read the whole log.  A longer damage is known by the LIVE mark of the files that have anything there.
 */
static int look_past_end(struct log *l, bool clean, uint64_t *ret_found)
{
	uint64_t past = MAX(l->half_size / 4, REDO_GROUP_CLOSE + 2 * REDO_BLOCK);

	for (int half = 0; half < 2; half++) {
		uint64_t from = clean && half == l->half ? l->end : 0;
		uint64_t to = clean ? MIN(from + past, l->half_size) : l->half_size;
		int err = look_in_half(l, half, from, to, ret_found);

		if (err)
			return err;
	}
	return 0;
}

static int add_rec(struct log *l, const struct log_rec *r)
{
	if (l->n_recs == l->cap_recs) {
		size_t cap = MAX(256, 2 * l->cap_recs);
		struct log_rec *p = reallocarray(l->recs, cap, sizeof(*p));

		if (!p)
			return -ENOMEM;
		l->recs = p;
		l->cap_recs = cap;
	}
	l->recs[l->n_recs] = *r;
	l->recs[l->n_recs].order = l->n_recs;
	l->n_recs++;
	return 0;
}

/* Take the records of one group; images stay on disk, all else is copied. */
static int take_records(struct log *l, const struct redo_group *at)
{
	CLEANUP_FREE uint8_t *p = NULL;
	struct log_rec r = {.lsn = at->lsn, .half = at->half};
	struct redo_group g;
	struct keep *k;
	size_t len, off, room = 0, used = 0;
	int err = load_group(l, at->half, at->off, &g, &p);

	if (err)
		return err == -ENOMEM ? err : -EIO;
	for (off = REDO_HEADER; off < g.len && !redo_rec_parse(p + off, g.len - off, &r.rec, &len); off += len)
		room += r.rec.type == REDO_IMAGE ? 0 : len;
	k = malloc(sizeof(*k) + room);
	if (!k)
		return -ENOMEM;
	k->next = l->kept;
	l->kept = k;
	for (off = REDO_HEADER; off < g.len && !err; off += len) {
		err = redo_rec_parse(p + off, g.len - off, &r.rec, &len);
		if (err)
			break;
		r.off = at->off + off;
		if (r.rec.type == REDO_IMAGE) {
			memcpy(r.tag, r.rec.image.bytes + r.rec.image.len - AEAD_TAG, AEAD_TAG);
			r.rec.image.bytes = NULL;
		} else {
			memcpy(k->b + used, p + off, len);
			err = redo_rec_parse(k->b + used, len, &r.rec, &len);
			used += len;
		}
		if (!err)
			err = add_rec(l, &r);
	}
	return err;
}

/* Put the two runs together; the newer one wins where they overlap. */
static int choose_groups(struct log *l, struct groups run[2], struct groups *ret)
{
	struct groups *old = &run[0], *new = &run[1];
	size_t n_old;
	int err = 0;

	if (!new->n || (old->n && old->g[old->n - 1].epoch > new->g[new->n - 1].epoch)) {
		old = &run[1];
		new = &run[0];
	}
	if (!new->n)
		return 0;
	n_old = old->n;
	while (n_old && old->g[n_old - 1].lsn >= new->g[0].lsn)
		n_old--;
	if (n_old && (old->g[n_old - 1].lsn + 1 != new->g[0].lsn || old->g[n_old - 1].epoch + 1 != new->g[0].epoch))
		n_old = 0;
	for (size_t i = 0; i < n_old && !err; i++)
		err = add_group(ret, &old->g[i]);
	for (size_t i = 0; i < new->n && !err; i++)
		err = add_group(ret, &new->g[i]);
	/* an old half whose start cannot be read might be the newer one */
	ret->unreadable = new->unreadable || (old->unreadable && !n_old);
	return err;
}

/* No run at all: a fresh log, or one that cannot be read. */
static int no_groups(struct log *l, const int head_err[2])
{
	uint64_t found = 0;
	int err;

	for (int i = 0; i < 2; i++) {
		if (head_err[i] == -EXDEV)
			return fail(-EBADMSG, "the log belongs to another volume");
		if (head_err[i] == -EIO)
			return fail(-EBADMSG, "the start of log.%d cannot be read", i);
	}
	err = look_past_end(l, true, &found); /* at their start stands what comes next */
	if (err)
		return err;
	if (found)
		return fail(-EBADMSG, "both halves of the log are damaged at their start");
	l->half = 1; /* so that the first group goes to half 0 */
	l->end = l->half_size;
	return 0;
}

static int scan(struct log *l, struct groups run[2], struct groups *all)
{
	int head_err[2] = {0}, err = 0;
	const struct redo_group *last;
	uint64_t found = 0;

	for (int i = 0; i < 2 && !err; i++)
		err = read_run(l, i, &run[i], &head_err[i]);
	if (!err)
		err = choose_groups(l, run, all);
	if (err)
		return err;
	if (!all->n)
		return no_groups(l, head_err);
	last = &all->g[all->n - 1];
	l->n_groups = all->n;
	l->last_lsn = last->lsn;
	l->last_epoch = last->epoch;
	l->half = last->half;
	l->end = last->off + redo_align(last->len);
	for (size_t i = 0; i < all->n; i++)
		l->retired = MAX(l->retired, MIN(all->g[i].retired_lsn, all->g[i].lsn));
	for (size_t i = 0; i < all->n; i++)
		l->other_needed |= all->g[i].half != l->half && all->g[i].lsn > l->retired;
	err = look_past_end(l, l->retired == l->last_lsn, &found);
	if (err)
		return err;
	/* the last group before a change of half retires what the other half held (redo.c) */
	l->lost_front = all->g[0].lsn > l->retired + 1;
	l->damaged = found || all->unreadable || l->lost_front;
	if (l->damaged)
		err = note_torn(l);
	for (size_t i = 0; i < all->n && !err; i++)
		if (all->g[i].lsn > l->retired)
			err = take_records(l, &all->g[i]);
	return err;
}

int log_open(const struct io *io, int dirfd, const struct recover_keys *keys, bool write, struct log *ret)
{
	struct groups run[2] = {0}, all = {0};
	int err;

	*ret = (struct log){.io = io, .keys = keys, .fd = {-1, -1}};
	err = redo_open_halves(io, dirfd, write, ret->fd, &ret->half_size);
	if (!err)
		err = scan(ret, run, &all);
	free(run[0].g);
	free(run[1].g);
	free(all.g);
	return err;
}

void log_close(struct log *l)
{
	while (l->kept) {
		struct keep *k = l->kept;

		l->kept = k->next;
		free(k);
	}
	for (int i = 0; i < 2; i++)
		if (l->fd[i] >= 0)
			l->io->close(l->io->ctx, l->fd[i]);
	free(l->recs);
	free(l->lost);
}

int log_image(const struct log *l, const struct log_rec *r, uint8_t *buf)
{
	uint32_t len = r->rec.image.len;
	int err = io_pread_full(l->io, l->fd[r->half], buf, len, r->off + REDO_RECORD + 16);

	if (err)
		return err;
	return equal_ct(buf + len - AEAD_TAG, r->tag, AEAD_TAG) ? 0 : fail(-EBADMSG, "the log changed while it was read");
}
