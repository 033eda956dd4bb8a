/* SPDX-License-Identifier: Apache-2.0 */
#include "inode_i.h"
#include "reseg.h"

#define SECOND 1000000000u
#define TICK (SECOND / 4)
#define COMMIT_AGE (5 * (uint64_t)SECOND)
#define IDLE_AGE (5 * (uint64_t)SECOND)
#define CLOSED_AGE ((uint64_t)SECOND)
#define CHANGE_AGE (60 * (uint64_t)SECOND)
#define IDLE_ROUNDS 6 /* of a sync in which no file got done: a seal begun before, one for the commit, one for the rest */

struct writeback {
	struct store *st;
	pthread_t thread;
	struct mutex lock;
	struct cond wake;
	bool stop, kicked;   /* guarded by lock */
	struct inode *first; /* guarded by store->list_lock */
};

/* A store without threads (crash tests) has the list too. */
static struct inode **list_head(struct store *st)
{
	return &st->wb->first;
}

void writeback_note(struct inode *f)
{
	struct store *st = f->st;

	st->changed = true;
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
	yes =
	    redo_must_seal(f->st->redo, &f->pin) || redo_must_seal(f->st->redo, &f->apply.pin) || redo_must_seal(f->st->redo, &f->void_pin);
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

/* First what holds the other half; if that was nothing (the space is reserved away), everything that holds any.  A file that cannot be
 * sealed is no reason to tell somebody else of an error, as long as others let go of the log. */
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
		for (size_t i = 0; i < n && err && !st->failed; i++)
			if (!want_pinned(files[i], NULL))
				err = 0;
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
	if ((f->retry_at > now && !d->must) || (reseg_copying(f) && !(d->must && redo_must_seal(f->st->redo, &f->apply.pin))))
		yes = false;
	else if (f->unlinked)
		yes = d->must && (redo_must_seal(f->st->redo, &f->pin) || redo_must_seal(f->st->redo, &f->apply.pin) ||
				  redo_must_seal(f->st->redo, &f->void_pin));
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
	yes = yes && !(f->owed && f->retry_at > d->now);
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
	if (lsn && redo_flush(st->redo, lsn))
		lsn = 0;
	for (size_t i = 0; i < n && lsn; i++)
		commit_mark_live(files[i], lsn);
	put_all(files, n);
}

/* true: at once once more */
static bool tick(struct store *st)
{
	struct due d = {.now = now_ns(), .crowded = st->dirty > st->opt.dirty_bytes, .must = st->redo && redo_half_used(st->redo) >= 500};
	struct inode **files;
	bool more;
	size_t n;

	if (!st->short_of_room)
		commit_due(st, &d);
	more = reseg_turn(st);
	if (writeback_collect(st, want_due, &d, &files, &n))
		return false;
	if (n)
		(void)!writeback_seal(st, files, n, !st->short_of_room);
	put_all(files, n);
	return more;
}

static void *writeback_main(void *arg)
{
	struct writeback *wb = arg;
	bool more;

	mutex_lock(&wb->lock);
	while (!wb->stop) {
		uint64_t until = now_ns() + TICK;
		struct timespec ts = {.tv_sec = (time_t)(until / SECOND), .tv_nsec = (long)(until % SECOND)};

		if (!wb->kicked)
			cond_wait_until(&wb->wake, &wb->lock, &ts);
		wb->kicked = false;
		mutex_unlock(&wb->lock);
		more = tick(wb->st);
		mutex_lock(&wb->lock);
		wb->kicked |= more;
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

/* There may be far more than the log holds at once: as many rounds as it takes, as long as fewer files are left every now and then. */
int store_sync(struct store *st)
{
	CLEANUP(room_turn_end) struct room_turn turn = {.st = st};
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
		if (idle) /* others' commits, made since, may hold the log */
			(void)!room_turn_alone(&turn);
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
