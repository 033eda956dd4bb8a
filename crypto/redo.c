/* SPDX-License-Identifier: Apache-2.0 */
/* The volume log in memory: the group being filled, space, pins, the change of half. */
#include <errno.h>

#include "redo_int.h"
#include "report.h"

void redo_die(struct redo *r, const char *why)
{
	if (!r->dead)
		report(REPORT_ERROR, "the volume log cannot be written any more: %s; the volume is read-only until it is mounted again",
		       why);
	r->dead = true;
	cond_broadcast(&r->changed);
}

static bool run_used(const struct redo *r, unsigned i)
{
	return r->runs[i].pins || r->runs[i].groups || (r->fill && r->fill->run == i);
}

int redo_new_run(struct redo *r, int half, uint64_t first_lsn, unsigned *ret)
{
	for (unsigned i = 0; i < REDO_RUNS; i++) {
		if (run_used(r, i))
			continue;
		r->runs[i] = (struct redo_run){.first_lsn = first_lsn, .halves = (uint8_t)(1 << half)};
		*ret = i;
		return 0;
	}
	return -EAGAIN;
}

/* Every record up to the result is applied and synced, or of a file whose unlink is durable. */
uint64_t redo_retired_now(const struct redo *r)
{
	uint64_t first = r->fill->lsn;

	for (unsigned i = 0; i < REDO_RUNS; i++)
		if (r->runs[i].pins)
			first = MIN(first, r->runs[i].first_lsn);
	return MAX(first - 1, r->retired_sealed);
}

bool redo_half_pinned(const struct redo *r, int half, bool *ret_only_buried)
{
	uint32_t pins = 0, buried = 0;

	for (unsigned i = 0; i < REDO_RUNS; i++) {
		if (!(r->runs[i].halves & 1 << half))
			continue;
		pins += r->runs[i].pins;
		buried += r->runs[i].buried + r->runs[i].burying;
	}
	*ret_only_buried = pins && pins == buried;
	return pins > 0;
}

static void run_drop(struct redo *r, unsigned i, uint32_t n)
{
	struct redo_run *run = &r->runs[i];

	run->pins -= n;
	/* nothing in it is live: what comes next starts afresh */
	if (!run->pins && i == r->fill->run)
		run->first_lsn = r->fill->lsn;
}

/* Make every unlink and rename so far durable and let go of what was pinned for them.  Lock held, but not over the system call. */
int redo_sync_names(struct redo *r)
{
	int err;

	if (r->syncing_names) {
		while (r->syncing_names)
			cond_wait(&r->changed, &r->lock);
		return 0; /* the caller looks again */
	}
	r->syncing_names = true;
	for (unsigned i = 0; i < REDO_RUNS; i++) {
		r->runs[i].burying += r->runs[i].buried;
		r->runs[i].buried = 0;
	}
	mutex_unlock(&r->lock);
	/*
	 * syncfs also reports, once, data that could not be written for any file of the store; each file's own sync tells that again. Names
	 * are metadata: what a second call says about them is true, since a file system that cannot write its journal stays failed.
	 */
	err = r->io.syncfs(r->io.ctx, r->store_fd);
	if (err)
		err = r->io.syncfs(r->io.ctx, r->store_fd);
	mutex_lock(&r->lock);
	for (unsigned i = 0; i < REDO_RUNS; i++) {
		uint32_t n = r->runs[i].burying;

		r->runs[i].burying = 0;
		if (err)
			r->runs[i].buried += n;
		else
			run_drop(r, i, n);
	}
	r->syncing_names = false;
	cond_broadcast(&r->changed);
	return err;
}

void redo_forget_half(struct redo *r, int half)
{
	size_t k = 0;

	for (size_t i = 0; i < r->n_where; i++)
		if (r->where[i].half != half)
			r->where[k++] = r->where[i];
	r->n_where = k;
}

/* Close the group being filled and open the next one behind it. */
struct redo_group_buf *redo_next_group(struct redo *r)
{
	struct redo_group_buf *g = calloc(1, sizeof(*g)), *old = r->fill;

	if (!g)
		return NULL;
	g->len = REDO_HEADER;
	g->lsn = old->lsn + 1;
	g->epoch = old->epoch;
	g->half = old->half;
	g->off = old->off + redo_align(old->len);
	g->run = old->run;
	r->runs[g->run].groups++;
	old->next = g;
	r->fill = g;
	/* records of the closed group are pinned already; if none are, the run begins with the new one */
	if (!r->runs[g->run].pins)
		r->runs[g->run].first_lsn = g->lsn;
	return g;
}

static bool fits(const struct redo *r, uint64_t off, uint64_t len, uint64_t reserved)
{
	return off + redo_align(len) + reserved + r->spare <= r->half_size;
}

static bool marker_needed(const struct redo *r, uint64_t retired)
{
	const struct redo_group_buf *g;

	for (g = r->head; g != r->fill; g = g->next)
		if (!g->sealed)
			return false; /* that one will tell */
	return !r->fill->n_recs && r->retired_sealed < retired && r->fill->off + REDO_BLOCK <= r->half_size;
}

/*
 * Go on at the start of the other half.  0: done, or the lock was let go: look again; -EAGAIN: it is in use.
 *
 * The last group in the old half always says that everything in the other one is retired, if need be an empty group written for that: when
 * the first group over there is torn by a crash, recovery must know that nothing is missing.
 */
static int change_half(struct redo *r, uint64_t len, uint64_t reserved)
{
	int to = 1 - r->fill->half;
	struct redo_group_buf *g;
	bool only_buried;
	unsigned run;

	if (!fits(r, 0, REDO_HEADER + len, reserved))
		return -EAGAIN;
#ifndef TEST_NO_EARLY_REUSE
	if (redo_half_pinned(r, to, &only_buried)) {
		if (!only_buried)
			return -EAGAIN;
#ifndef TEST_NO_DROP_EARLY
		if (redo_sync_names(r)) {
			redo_die(r, "the store cannot be synced");
			return -EIO;
		}
		return 0;
#endif
	}
#endif
	if (redo_new_run(r, to, r->fill->lsn + 1, &run))
		return -EAGAIN;
	if (r->fill->n_recs || marker_needed(r, redo_retired_now(r))) {
		g = redo_next_group(r);
		if (!g)
			return -ENOMEM;
	} else {
		g = r->fill;
	}
	r->runs[g->run].groups--;
	g->run = run;
	r->runs[run].groups++;
	r->runs[run].first_lsn = g->lsn;
	g->half = to;
	g->off = 0;
	g->epoch++;
	redo_forget_half(r, to);
	return 0;
}

int redo_group_grow(struct redo *r, struct redo_group_buf *g, size_t need)
{
	size_t cap = MAX(g->cap, (size_t)64 << 10);
	void *p;

	need = redo_align(need);
	if (need <= g->cap)
		return 0;
	for (int i = 0; !g->p && i < 2; i++) {
		if (r->pool_cap[i] < need)
			continue;
		g->p = STEAL(r->pool[i]);
		g->cap = r->pool_cap[i];
		r->pool_cap[i] = 0;
		return 0;
	}
	while (cap < need)
		cap *= 2;
	if (posix_memalign(&p, REDO_BLOCK, cap))
		return -ENOMEM;
	if (g->p)
		memcpy(p, g->p, g->len);
	free(g->p);
	g->p = p;
	g->cap = cap;
	return 0;
}

void redo_group_free(struct redo *r, struct redo_group_buf *g)
{
	r->runs[g->run].groups--;
	for (int i = 0; g->p && i < 2; i++) {
		if (r->pool[i])
			continue;
		r->pool[i] = STEAL(g->p);
		r->pool_cap[i] = g->cap;
	}
	free(g->p);
	free(g);
}

/* What stays reserved for @pin once @len bytes stand in the group being filled.  Rounded up: a SEAL may have to go into a group of its own.
 */
static uint64_t reserve_after(const struct redo *r, const struct redo_pin *pin, uint64_t len, uint32_t reserve, bool is_seal)
{
	const struct redo_group_buf *g = r->fill;
	uint64_t used = redo_align(g->len + len) - (g->n_recs ? redo_align(g->len) : 0);

	if (!is_seal)
		return MAX(pin->reserved, reserve ? redo_align((uint64_t)reserve + REDO_HEADER) : 0);
	/* on the way to the SEAL: it takes from what is reserved; the SEAL itself gives back the rest */
	return reserve && pin->reserved > used ? pin->reserved - used : 0;
}

/* Find room for @len bytes of records: in the group being filled, in a new one, or in the other half. */
static int make_room(struct redo *r, uint64_t len, struct redo_pin *pin, uint32_t reserve, bool is_seal, uint64_t *ret_want)
{
	for (;;) {
		uint64_t want, reserved;
		int err;

		if (r->dead)
			return fail(-EIO, "the volume log could not be written");
		if (r->fill->n_recs && r->fill->len + len > REDO_GROUP_CLOSE && !redo_next_group(r))
			return -ENOMEM;
		want = reserve_after(r, pin, len, reserve, is_seal);
		reserved = r->reserved - pin->reserved + want;
		if (fits(r, r->fill->off, r->fill->len + len, reserved)) {
			*ret_want = want;
			return 0;
		}
		err = change_half(r, len, reserved);
		if (err < 0)
			return err;
	}
}

int redo_append(struct redo *r, const struct redo_rec *recs, size_t n, struct redo_pin *pin, uint32_t reserve, bool is_seal,
		uint64_t *ret_lsn, struct redo_loc *ret_locs)
{
	uint64_t len = 0, want = 0;
	struct redo_group_buf *g;
	struct redo_run *run;
	size_t at, k = 0;
	int err;

	for (size_t i = 0; i < n; i++) {
		len += redo_rec_len(&recs[i]);
		if (len > REDO_GROUP_MAX)
			return fail(-EFBIG, "more than %zu bytes for the log at once", REDO_GROUP_MAX);
	}
	mutex_lock(&r->lock);
	err = make_room(r, len, pin, reserve, is_seal, &want);
	g = r->fill;
	if (!err)
		err = redo_group_grow(r, g, g->len + len);
	if (err) {
		mutex_unlock(&r->lock);
		return err;
	}
	at = g->len;
	for (size_t i = 0; i < n; i++) {
		redo_rec_write(&recs[i], g->p + at);
		if (recs[i].type == REDO_IMAGE && ret_locs)
			ret_locs[k++] = (struct redo_loc){g->lsn, (uint32_t)(at + REDO_RECORD + 16), recs[i].image.len};
		at += redo_rec_len(&recs[i]);
	}
	g->len = at;
	g->n_recs += (uint32_t)n;
	g->retire_all = false; /* these do count */
	run = &r->runs[g->run];
	if (!(pin->runs & 1 << g->run)) {
		pin->runs |= (uint8_t)(1 << g->run);
		run->pins++;
	}
	r->reserved = r->reserved - pin->reserved + want;
	pin->reserved = (uint32_t)want;
	*ret_lsn = g->lsn;
	mutex_unlock(&r->lock);
	return 0;
}

static void pin_leave(struct redo *r, struct redo_pin *pin, bool bury)
{
	mutex_lock(&r->lock);
	r->reserved -= pin->reserved;
	for (unsigned i = 0; i < REDO_RUNS; i++) {
		if (!(pin->runs & 1 << i))
			continue;
		if (bury)
			r->runs[i].buried++;
		else
			run_drop(r, i, 1);
	}
	memset(pin, 0, sizeof(*pin));
	mutex_unlock(&r->lock);
}

void redo_unpin(struct redo *r, struct redo_pin *pin)
{
	pin_leave(r, pin, false);
}

void redo_bury(struct redo *r, struct redo_pin *pin)
{
#ifdef TEST_NO_DROP_EARLY
	pin_leave(r, pin, false);
#else
	pin_leave(r, pin, true);
#endif
}

void redo_names_durable(struct redo *r)
{
	mutex_lock(&r->lock);
	for (unsigned i = 0; i < REDO_RUNS; i++) {
		uint32_t n = r->runs[i].buried + r->runs[i].burying;

		r->runs[i].buried = r->runs[i].burying = 0;
		run_drop(r, i, n);
	}
	mutex_unlock(&r->lock);
}

bool redo_must_seal(struct redo *r, const struct redo_pin *pin)
{
	bool must = false;

	mutex_lock(&r->lock);
	for (unsigned i = 0; i < REDO_RUNS; i++)
		must |= pin->runs & 1 << i && r->runs[i].halves & 1 << (1 - r->fill->half);
	mutex_unlock(&r->lock);
	return must;
}

unsigned redo_half_used(struct redo *r)
{
	uint64_t used;

	mutex_lock(&r->lock);
	used = r->fill->off + (r->fill->n_recs ? redo_align(r->fill->len) : 0) + r->reserved;
	used = used * 1000 / (r->half_size - r->spare);
	mutex_unlock(&r->lock);
	return (unsigned)MIN(used, 1000);
}
