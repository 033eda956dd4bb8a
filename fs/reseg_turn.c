/* SPDX-License-Identifier: Apache-2.0 */
/* When a file gets larger segments or a fresh key, and the cheap ways for a file that has no sealed state yet. */
#include "reseg.h"
#include "inode_i.h"

#define TIMES 16u                       /* so that it is done seldom */
#define TIMES_EMPTY 4u                  /* nothing has to be rewritten: no larger than needed */
#define PIECE ((uint64_t)64 << 20)      /* of a turn: others wait that long for their seals */
#define SPILLED_MAX ((uint64_t)2 << 30) /* rewritten while its writers wait */

static uint32_t larger(uint32_t s)
{
	uint32_t times = TIMES;

	while (times > 1 && (uint64_t)s * times > SEG_MAX)
		times /= 2;
	return s * times;
}

bool reseg_wanted(const struct inode *f, uint32_t *ret_s)
{
	struct store *st = f->st;

	if (f->content != CONTENT_SEALED || f->reseg || f->reseg_refused || f->unlinked || f->owed || f->error || f->lost || !f->fd_write ||
	    f->lease.state != LEASE_GOOD || f->rec.rocompat || st->failed || st->converting || !st->redo)
		return false;
	if (tail_len(f->tmpl, f->size) > RESEG_TAIL && larger(f->s) > f->s)
		*ret_s = larger(f->s);
	else if (f->invocations >= RESEG_KEY_USES)
		*ret_s = f->s;
	else
		return false;
	return true;
}

void reseg_empty(struct inode *f, uint64_t size)
{
	uint32_t s = f->s;

	if (f->content != CONTENT_NEW || f->size || f->n_segs || size > PLAIN_MAX)
		return;
	while (tail_len(f->tmpl, size) > RESEG_TAIL && (uint64_t)s * TIMES_EMPTY <= SEG_MAX)
		f->tmpl->s = s *= TIMES_EMPTY;
	f->s = f->rec.s = s;
	f->told = size > NEW_MEMORY_MAX;
}

/* --- a file that was never sealed --------------------------------------------------------------------------------------------------------
 */

bool reseg_spilled_wanted(const struct inode *f)
{
	return f->content == CONTENT_SPILLED && !f->unlinked && !f->told && !f->rewrite && !f->error && f->size <= SPILLED_MAX &&
	       larger(f->s) == f->s * TIMES && tail_len(f->tmpl, f->size) > RESEG_TAIL / 3;
}

/* The stored form with larger segments, in memory. */
struct form {
	uint32_t s;
	uint64_t n; /* whole segments */
	uint8_t *tags, *buf;
	uint64_t *crcs;
};

static void form_cleanup(struct form *w)
{
	if (w->buf)
		wipe(w->buf, w->s);
	free(w->buf);
	free(w->tags);
	free(w->crcs);
}

/* What stands at its new place is only what was read before: larger segments make the file shorter. */
static int move_one(struct inode *f, struct form *w, uint64_t k)
{
	uint8_t *out = w->buf + w->s;
	int err = inode_read_plain(f, w->buf, k * w->s, (k + 1) * w->s);

	if (!err)
		err = aead_seal(f->dek, w->buf, w->s, out);
	if (err)
		return err;
	f->invocations++;
	memcpy(w->tags + k * AEAD_TAG, out + AEAD_IV + w->s, AEAD_TAG);
	w->crcs[k] = (uint64_t)1 << 32 | crc_bytes(0, out, w->s + AEAD_OVERHEAD);
	return io_pwrite(&f->st->io, f->fd, out, w->s + AEAD_OVERHEAD, seg_off(w->s, k));
}

/* The rest, less than a segment, goes to memory. */
static int adopt(struct inode *f, struct form *w)
{
	uint32_t rest = (uint32_t)(f->size - w->n * w->s);
	struct seg *s;
	int err = inode_read_plain(f, w->buf, w->n * w->s, f->size);

	if (err)
		return err;
	segs_drop_from(f, 0);
	segcache_drop_all(f->st->cache, f->id);
	free(f->tags);
	free(f->crcs);
	f->tags = STEAL(w->tags);
	f->crcs = STEAL(w->crcs);
	f->n_tags = w->n;
	f->cap_tags = w->n + 1;
	f->s = f->rec.s = f->tmpl->s = w->s;
	err = rest ? seg_get(f, w->n, false, rest, &s) : 0;
	if (!err && rest) {
		memcpy(s->buf, w->buf, rest);
		s->len = rest;
	}
	return err;
}

int reseg_spilled(struct inode *f)
{
	CLEANUP(form_cleanup) struct form w = {.s = larger(f->s)};
	int err = 0;

	w.n = f->size / w.s;
	w.buf = malloc(2 * (size_t)w.s + AEAD_OVERHEAD);
	w.tags = malloc((w.n + 1) * AEAD_TAG);
	w.crcs = calloc(w.n + 1, sizeof(*w.crcs));
	if (!w.buf || !w.tags || !w.crcs)
		return 0; /* without memory it stays as it is */
	f->write_seq++;   /* a seal that has begun must not be finished */
	for (uint64_t k = 0; k < w.n && !err; k++)
		err = move_one(f, &w, k);
	if (!err)
		err = adopt(f, &w);
	if (err) /* half of it has the new form */
		inode_lost(f);
	return err;
}

/* --- in the background -------------------------------------------------------------------------------------------------------------------
 */

static bool is_copying(const struct inode *f)
{
	return f->apply.pending && f->apply.whole && f->apply.copied < f->apply.tail_off + f->apply.tail_len;
}

bool reseg_copying(const struct inode *f)
{
	return is_copying(f);
}

bool reseg_busy(const struct inode *f)
{
	uint32_t s;

	return f->reseg || reseg_wanted(f, &s);
}

static bool want_turn(struct inode *f, void *arg)
{
	const uint64_t *now = arg;
	bool yes;

	rwlock_read(&f->lock);
	yes = f->retry_at <= *now && (is_copying(f) || reseg_busy(f));
	rwlock_unlock(&f->lock);
	return yes;
}

/* Said once for a file and mount.  @for_good: it failed for another reason than room, and would again. */
static bool note_refused(struct inode *f, bool for_good)
{
	struct store *st = f->st;
	struct reseg_past *p = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(st->reseg_past) && !p; i++)
		if (!memcmp(st->reseg_past[i].file_id, f->rec.file_id, ID_LEN))
			p = &st->reseg_past[i];
	if (p) {
		p->for_good |= for_good;
		return false;
	}
	p = &st->reseg_past[st->n_reseg_past++ % ARRAY_SIZE(st->reseg_past)];
	memcpy(p->file_id, f->rec.file_id, ID_LEN);
	p->for_good = for_good;
	return true;
}

static bool failed_before(const struct inode *f)
{
	for (size_t i = 0; i < ARRAY_SIZE(f->st->reseg_past); i++)
		if (!memcmp(f->st->reseg_past[i].file_id, f->rec.file_id, ID_LEN))
			return f->st->reseg_past[i].for_good;
	return false;
}

void reseg_refuse(struct inode *f, int err)
{
	bool room = err == -ENOSPC || err == -EDQUOT;
	const char *why = *fail_text() ? fail_text() : strerror(-err);

	f->reseg_refused = true;
	if (note_refused(f, !room))
		report(REPORT_WARN, "%s: %s, but it cannot be rewritten: %s; it goes on as it is", f->path ? f->path : "file",
		       f->invocations >= RESEG_KEY_USES ? "its data key has been used so often that it should be replaced"
							: "it has outgrown the 10 MiB manifest that older OpenTDF clients read",
		       room ? "the disk has no room for a second copy" : why);
}

static int start(struct inode *f)
{
	uint32_t s = 0;
	bool wanted;

	rwlock_read(&f->lock);
	wanted = reseg_wanted(f, &s);
	rwlock_unlock(&f->lock);
	if (!wanted)
		return -ECANCELED;
	return failed_before(f) ? -EPERM : reseg_begin(f, s);
}

/* Everything that is still to be copied when it is sealed is copied with the file's lock held. */
static int build(struct inode *f)
{
	bool ready = false;
	uint64_t lsn = 0;
	int err = reseg_build(f, PIECE, &ready);

	if (err || !ready)
		return err;
	err = seal_log(f, true, &lsn);
	return !err && lsn ? redo_flush(f->st->redo, lsn) : err;
}

static void turn_refused(struct inode *f, int err)
{
	rwlock_write(&f->lock);
	reseg_refuse(f, err);
	rwlock_unlock(&f->lock);
}

/* seal_lock held; true: there is more to do at once */
static bool turn(struct inode *f)
{
	bool copying, building;
	int err;

	fail_clear();
	rwlock_read(&f->lock);
	copying = is_copying(f);
	building = f->reseg;
	rwlock_unlock(&f->lock);
	if (copying) {
		err = reseg_copy(f, PIECE);
		if (err)
			f->retry_at = now_ns() + RETRY_AGE;
		return !err;
	}
	if (f->apply.pending) /* an ordinary seal; its turn comes first */
		return false;
	err = building ? 0 : start(f);
	if (!err)
		err = build(f);
	if (err && err != -EAGAIN && err != -ECANCELED)
		turn_refused(f, err);
	return !err;
}

bool reseg_turn(struct store *st)
{
	uint64_t now = now_ns();
	struct inode **files;
	bool more = false;
	size_t n;

	if (!st->redo || st->failed || writeback_collect(st, want_turn, &now, &files, &n))
		return false;
	for (size_t i = 0; i < n; i++) {
		mutex_lock(&st->seal_lock);
		more |= st->held_until <= now_ns() && turn(files[i]);
		mutex_unlock(&st->seal_lock);
		inode_put(files[i]);
	}
	free(files);
	return more;
}

void reseg_hold(struct store *st, unsigned seconds)
{
	mutex_lock(&st->seal_lock);
	st->held_until = seconds ? now_ns() + seconds * (uint64_t)1000000000u : 0;
	mutex_unlock(&st->seal_lock);
}
