/* SPDX-License-Identifier: Apache-2.0 */
#include "inode_i.h"

#define SECOND 1000000000u
#define TICK (SECOND / 4)
#define COMMIT_AGE (5 * (uint64_t)SECOND)
#define IDLE_AGE (5 * (uint64_t)SECOND)
#define CLOSED_AGE ((uint64_t)SECOND)
#define RETRY_AGE (5 * (uint64_t)SECOND)
#define CHANGE_AGE (60 * (uint64_t)SECOND)
#define IDLE_ROUNDS 6 /* of a sync in which no file got done: a seal begun before, one for the commit, one for the rest */
#define SYNCFS_FROM 4 /* files from which one syncfs is cheaper than a sync each */

struct writeback {
	struct store *st;
	pthread_t thread;
	struct mutex lock;
	struct cond wake;
	bool stop, kicked; /* guarded by lock */
	/* guarded by store->list_lock */
	struct inode *first;
};

/* A store without threads (crash tests) has the list too. */
static struct inode **list_head(struct store *st)
{
	return &st->wb->first;
}

void writeback_note(struct inode *f)
{
	struct store *st = f->st;

	mutex_lock(&st->list_lock);
	if (!f->wb_prev && !(f->unlinked && !f->handles)) {
		struct inode **head = list_head(st);

		f->refs++;
		f->wb_next = *head;
		f->wb_prev = head;
		if (*head)
			(*head)->wb_prev = &f->wb_next;
		*head = f;
	}
	mutex_unlock(&st->list_lock);
}

void writeback_unlist(struct inode *f)
{
	struct store *st = f->st;
	bool was;

	mutex_lock(&st->list_lock);
	was = f->wb_prev;
	if (was) {
		*f->wb_prev = f->wb_next;
		if (f->wb_next)
			f->wb_next->wb_prev = f->wb_prev;
		f->wb_prev = NULL;
		f->wb_next = NULL;
	}
	mutex_unlock(&st->list_lock);
	if (was)
		inode_put(f);
}

void writeback_kick(struct store *st)
{
	struct writeback *wb = st->wb;

	if (st->opt.no_threads)
		return;
	mutex_lock(&wb->lock);
	wb->kicked = true;
	cond_broadcast(&wb->wake);
	mutex_unlock(&wb->lock);
}

static void put_all(struct inode **files, size_t n)
{
	for (size_t i = 0; i < n; i++)
		inode_put(files[i]);
	free(files);
}

/* @want is called without list_lock, because it may take inode->lock. */
int writeback_collect(struct store *st, bool (*want)(struct inode *f, void *arg), void *arg, struct inode ***ret, size_t *ret_n)
{
	struct inode **files;
	size_t n = 0, kept = 0, room = 0;

	mutex_lock(&st->list_lock);
	for (struct inode *f = *list_head(st); f; f = f->wb_next)
		room++;
	files = calloc(room + 1, sizeof(*files));
	if (!files) {
		mutex_unlock(&st->list_lock);
		return -ENOMEM;
	}
	for (struct inode *f = *list_head(st); f; f = f->wb_next) {
		f->refs++;
		files[n++] = f;
	}
	mutex_unlock(&st->list_lock);
	for (size_t i = 0; i < n; i++) {
		if (want(files[i], arg))
			files[kept++] = files[i];
		else
			inode_put(files[i]);
	}
	*ret = files;
	*ret_n = kept;
	return 0;
}

/* What one file of a batch is at. */
struct item {
	struct inode *f;
	enum { ITEM_NONE, ITEM_LOGGED, ITEM_SPILLED, ITEM_FAILED } step;
	uint64_t seq, lsn;
};

static void item_fail(struct item *it, int err, int *first_err)
{
	if (err == -EAGAIN) { /* no room, or the file changed: the next round takes it */
		it->step = ITEM_NONE;
		return;
	}
	it->step = ITEM_FAILED;
	it->f->retry_at = now_ns() + RETRY_AGE;
	rwlock_read(&it->f->lock); /* its path may change */
	report(REPORT_ERROR, "%s: cannot be sealed: %s%s%s; its changes are kept and tried again", it->f->path ? it->f->path : "file", strerror(-err),
	       *fail_text() ? ": " : "", fail_text());
	rwlock_unlock(&it->f->lock);
	if (!*first_err)
		*first_err = err;
}

static void batch_log(struct item *items, size_t n, bool commit, uint64_t *lsn, int *first_err)
{
	for (size_t i = 0; i < n; i++) {
		struct item *it = &items[i];
		int err;

		fail_clear();
		rwlock_write(&it->f->lock);
		if (it->f->content == CONTENT_SPILLED && !it->f->unlinked) {
			err = it->f->error && it->f->handles ? it->f->error : seal_spilled_begin(it->f, &it->seq);
			it->step = ITEM_SPILLED;
			rwlock_unlock(&it->f->lock);
		} else {
			rwlock_unlock(&it->f->lock);
			err = seal_log(it->f, commit, &it->lsn);
			if (err == -EAGAIN && commit) /* what is dirty does not fit: seal what is committed */
				err = seal_log(it->f, false, &it->lsn);
			it->step = it->lsn ? ITEM_LOGGED : ITEM_NONE;
		}
		if (err)
			item_fail(it, err, first_err);
		else if (it->lsn > *lsn)
			*lsn = it->lsn;
	}
}

static void batch_apply(struct item *items, size_t n, int *first_err)
{
	for (size_t i = 0; i < n; i++) {
		struct item *it = &items[i];
		int err = it->step == ITEM_LOGGED ? seal_apply(it->f) : 0;

		if (err)
			item_fail(it, err, first_err);
	}
}

/*
 * The kernel tells a lost write once to each descriptor.  syncfs has one of its own, so that no other syncfs (of the log, of a sync) takes the news away; what it says
 * is about all that was written since the last batch, which is enough for what was put in place in this one.  A spilled file was written long before: only its own
 * descriptor knows.
 */
static int sync_items(struct store *st, struct item *items, size_t n)
{
	size_t k = 0;
	bool all;
	int err = 0;

	for (size_t i = 0; i < n; i++)
		k += items[i].step == ITEM_LOGGED || items[i].step == ITEM_SPILLED;
	all = k >= SYNCFS_FROM || (k && !st->io.names_with_files);
	if (all)
		err = st->io.syncfs(st->io.ctx, st->seal_fd);
	for (size_t i = 0; i < n && !err; i++) {
		if ((items[i].step == ITEM_LOGGED && !all) || items[i].step == ITEM_SPILLED)
			err = st->io.sync(st->io.ctx, items[i].f->fd, true);
	}
	return err;
}

/* A failed sync is reported once and the pages are gone: write everything again from the log, then sync again; never believe a second sync alone. */
static int batch_sync(struct store *st, struct item *items, size_t n, int *first_err)
{
	int err = sync_items(st, items, n);

	if (!err)
		return 0;
	report(REPORT_WARN, "the disk failed a sync (%s); writing the sealed files again", strerror(-err));
	for (size_t i = 0; i < n; i++) {
		if (items[i].step == ITEM_SPILLED) { /* its data exists nowhere else */
			int lost;

			rwlock_write(&items[i].f->lock);
			lost = spilled_lost(items[i].f);
			rwlock_unlock(&items[i].f->lock);
			item_fail(&items[i], lost, first_err);
		}
	}
#ifndef TEST_NO_APPLY_RETRY
	batch_apply(items, n, first_err);
#endif
	return sync_items(st, items, n);
}

static void batch_finish(struct item *items, size_t n, int *first_err)
{
	for (size_t i = 0; i < n; i++) {
		struct item *it = &items[i];
		int err;

		if (it->step == ITEM_LOGGED)
			seal_done(it->f);
		if (it->step == ITEM_SPILLED) {
			rwlock_write(&it->f->lock);
			err = seal_spilled_finish(it->f, it->seq);
			rwlock_unlock(&it->f->lock);
			if (err)
				item_fail(it, err, first_err);
		}
		if (it->step != ITEM_FAILED) {
			rwlock_read(&it->f->lock);
			if (!inode_needs_seal(it->f))
				writeback_unlist(it->f);
			rwlock_unlock(&it->f->lock);
		}
	}
}

static bool is_gone(struct inode *f)
{
	bool gone;

	rwlock_read(&f->lock);
	gone = f->unlinked && (f->content == CONTENT_SEALED || f->pin.runs || f->void_pin.runs || f->apply.pending);
	rwlock_unlock(&f->lock);
	return gone;
}

/* Unlinked and still open: once the unlink is durable nothing of them needs the log. */
static int batch_gone(struct store *st, struct inode **files, size_t n)
{
	CLEANUP_FREE bool *gone = calloc(n + 1, sizeof(*gone));
	bool any = false;
	int err;

	if (!gone)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		any |= gone[i] = is_gone(files[i]);
	err = any ? st->io.syncfs(st->io.ctx, st->root_fd) : 0;
	for (size_t i = 0; i < n && !err; i++)
		err = gone[i] ? seal_gone(files[i]) : 0;
	return err;
}

/* caller holds seal_lock */
static int seal_batch(struct store *st, struct inode **files, size_t n, bool commit)
{
	CLEANUP_FREE struct item *items = calloc(n + 1, sizeof(*items));
	uint64_t lsn = 0;
	int first_err = 0, err;

	if (!items)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		items[i].f = files[i];
	first_err = batch_gone(st, files, n);
	batch_log(items, n, commit, &lsn, &first_err);
#ifndef TEST_NO_EARLY_APPLY
	err = lsn ? redo_flush(st->redo, lsn) : 0;
	if (err) {
		if (redo_is_dead(st->redo))
			st->failed = true;
		return err;
	}
#endif
	batch_apply(items, n, &first_err);
	err = batch_sync(st, items, n, &first_err);
	if (err)
		return err;
	batch_finish(items, n, &first_err);
	return first_err;
}

int writeback_seal(struct store *st, struct inode **files, size_t n, bool commit)
{
	int err;

	mutex_lock(&st->seal_lock);
	err = seal_batch(st, files, n, commit);
	mutex_unlock(&st->seal_lock);
	return err;
}

static bool want_must(struct inode *f, void *arg)
{
	bool yes;

	rwlock_read(&f->lock);
	yes = redo_must_seal(f->st->redo, &f->pin) || redo_must_seal(f->st->redo, &f->apply.pin) || redo_must_seal(f->st->redo, &f->void_pin);
	rwlock_unlock(&f->lock);
	return yes;
}

static bool want_pinned(struct inode *f, void *arg)
{
	bool yes;

	rwlock_read(&f->lock);
	yes = f->pin.runs || f->apply.pin.runs || f->void_pin.runs;
	rwlock_unlock(&f->lock);
	return yes;
}

static bool want_closed(struct inode *f, void *arg)
{
	bool yes;

	rwlock_read(&f->lock);
	yes = !f->handles;
	rwlock_unlock(&f->lock);
	return yes;
}

void writeback_descriptors(struct store *st)
{
	struct inode **files;
	size_t n;

	if (!st->redo || writeback_collect(st, want_closed, NULL, &files, &n))
		return;
	if (n)
		(void)!writeback_seal(st, files, n, true);
	put_all(files, n);
}

/* First what holds the other half; if that was nothing (the space is reserved away), everything that holds any. */
int writeback_room(struct store *st)
{
	struct inode **files;
	size_t n;
	int err;

	if (redo_is_dead(st->redo)) {
		st->failed = true;
		return -EIO;
	}
	mutex_lock(&st->seal_lock);
	err = writeback_collect(st, want_must, NULL, &files, &n);
	if (!err && !n) {
		free(files);
		err = writeback_collect(st, want_pinned, NULL, &files, &n);
	}
	if (!err) {
		err = seal_batch(st, files, n, false);
		put_all(files, n);
	}
	mutex_unlock(&st->seal_lock);
	return err;
}

struct due {
	uint64_t now;
	bool must, crowded;
};

/* @since may have been set after @now was looked up */
static bool is_older(uint64_t since, uint64_t now, uint64_t age)
{
	return since && since + age <= now;
}

static bool want_due(struct inode *f, void *arg)
{
	const struct due *d = arg;
	uint64_t now = d->now;
	bool yes;

	rwlock_read(&f->lock);
	if (f->retry_at > now && !d->must)
		yes = false;
	else if (f->unlinked)
		yes = d->must && (redo_must_seal(f->st->redo, &f->pin) || redo_must_seal(f->st->redo, &f->apply.pin) || redo_must_seal(f->st->redo, &f->void_pin));
	else
		yes = f->apply.pending || is_older(f->last_write, now, IDLE_AGE) || is_older(f->first_change, now, CHANGE_AGE) ||
		      (!f->writers && f->last_close + CLOSED_AGE <= now) ||
		      (d->crowded && (f->content == CONTENT_NEW || f->content == CONTENT_SEALED || !f->writers)) ||
		      (d->must && (redo_must_seal(f->st->redo, &f->pin) || redo_must_seal(f->st->redo, &f->void_pin)));
	rwlock_unlock(&f->lock);
	return yes;
}

static bool want_commit(struct inode *f, void *arg)
{
	const struct due *d = arg;
	bool yes;

	rwlock_read(&f->lock);
	yes = !f->unlinked && f->content == CONTENT_SEALED && is_older(f->oldest_uncommitted, d->now, COMMIT_AGE);
	rwlock_unlock(&f->lock);
	return yes;
}

static void commit_due(struct store *st, const struct due *d)
{
	struct inode **files;
	uint64_t lsn = 0;
	size_t n;

	if (writeback_collect(st, want_commit, (void *)d, &files, &n))
		return;
	for (size_t i = 0; i < n; i++) {
		struct inode *f = files[i];

		rwlock_write(&f->lock);
		if (!commit_append(f, false)) /* -EAGAIN: the seals that follow make room */
			lsn = MAX(lsn, f->last_lsn);
		rwlock_unlock(&f->lock);
	}
	if (lsn && !redo_flush(st->redo, lsn)) {
		for (size_t i = 0; i < n; i++)
			commit_mark_live(files[i], lsn);
	}
	put_all(files, n);
}

static void tick(struct store *st)
{
	struct due d = {.now = now_ns(), .crowded = st->dirty > st->opt.dirty_bytes, .must = st->redo && redo_half_used(st->redo) >= 500};
	struct inode **files;
	size_t n;

	commit_due(st, &d);
	if (writeback_collect(st, want_due, &d, &files, &n))
		return;
	if (n)
		(void)!writeback_seal(st, files, n, true);
	put_all(files, n);
}

static void *writeback_main(void *arg)
{
	struct writeback *wb = arg;

	mutex_lock(&wb->lock);
	while (!wb->stop) {
		uint64_t until = now_ns() + TICK;
		struct timespec ts = {.tv_sec = (time_t)(until / SECOND), .tv_nsec = (long)(until % SECOND)};

		if (!wb->kicked)
			cond_wait_until(&wb->wake, &wb->lock, &ts);
		wb->kicked = false;
		mutex_unlock(&wb->lock);
		tick(wb->st);
		mutex_lock(&wb->lock);
	}
	mutex_unlock(&wb->lock);
	return NULL;
}

int writeback_start(struct store *st)
{
	struct writeback *wb = calloc(1, sizeof(*wb));

	if (!wb)
		return -ENOMEM;
	wb->st = st;
	mutex_init(&wb->lock);
	cond_init(&wb->wake);
	st->wb = wb;
	if (!st->opt.no_threads && pthread_create(&wb->thread, NULL, writeback_main, wb)) {
		writeback_stop(st);
		return -EAGAIN;
	}
	return 0;
}

void writeback_stop(struct store *st)
{
	struct writeback *wb = st->wb;

	if (!wb)
		return;
	mutex_lock(&wb->lock);
	wb->stop = true;
	cond_broadcast(&wb->wake);
	mutex_unlock(&wb->lock);
	if (!st->opt.no_threads && wb->thread)
		pthread_join(wb->thread, NULL);
	while (wb->first) /* what could not be sealed is given up; whoever closes the store was told */
		writeback_unlist(wb->first);
	cond_destroy(&wb->wake);
	mutex_destroy(&wb->lock);
	free(wb);
	st->wb = NULL;
}

/* Changed before the sync began, and still not sealed. */
static bool want_since(struct inode *f, void *arg)
{
	const uint64_t *start = arg;
	bool yes;

	rwlock_read(&f->lock);
	yes = inode_needs_seal(f) && (f->apply.pending || f->first_change <= *start);
	rwlock_unlock(&f->lock);
	return yes;
}

/* A large new file that is being written all the time never stands still between the two halves of its seal. */
static int seal_restless(struct inode *f)
{
	int err = 0;

	rwlock_write(&f->lock);
	if (f->content == CONTENT_SPILLED && !f->unlinked && !f->error)
		err = seal_spilled(f);
	rwlock_unlock(&f->lock);
	return err;
}

/* There may be far more than the log holds at once: as many rounds as it takes, as long as there are fewer files left every now and then. */
int store_sync(struct store *st)
{
	size_t least = SIZE_MAX;
	uint64_t start = now_ns();
	int first_err = 0, err = 0, idle = 0;
	struct inode **files;
	size_t n;

	if (!st->redo)
		return 0;
	for (;;) {
		err = writeback_collect(st, want_since, &start, &files, &n);
		idle = n < least ? 0 : idle + 1;
		if (err || !n || st->failed || idle > IDLE_ROUNDS)
			break;
		least = MIN(least, n);
		err = writeback_seal(st, files, n, true);
		for (size_t i = 0; i < n && idle && !err; i++)
			err = seal_restless(files[i]);
		first_err = first_err ? first_err : err;
		put_all(files, n);
	}
	if (!err) {
		if (n && !first_err)
			first_err = st->failed ? -EIO : fail(-EIO, "%zu files cannot be sealed: the volume log has no room", n);
		put_all(files, n);
	}
	err = first_err ? first_err : err;
	return err ? err : st->io.syncfs(st->io.ctx, st->sync_fd);
}
