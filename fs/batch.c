/* SPDX-License-Identifier: Apache-2.0 */
/* Sealing many files with few barriers. */
#include "inode_i.h"

#define SYNCFS_FROM 4 /* files from which one syncfs is cheaper than a sync each */

/* What one file of a batch is at. */
struct item {
	struct inode *f;
	enum { ITEM_NONE, ITEM_LOGGED, ITEM_SPILLED, ITEM_FAILED } step;
	uint64_t seq, lsn;
	bool synced;
	int sync_err;
};

static bool is_written(const struct item *it) /* and not synced yet */
{
	return (it->step == ITEM_LOGGED || it->step == ITEM_SPILLED) && !it->synced;
}

static void item_fail(struct item *it, int err, int *first_err)
{
	if (err == -EAGAIN) { /* no room, or the file changed: the next round takes it */
		it->step = ITEM_NONE;
		return;
	}
	it->step = ITEM_FAILED;
	it->f->retry_at = now_ns() + RETRY_AGE;
	rwlock_read(&it->f->lock); /* its path may change */
	report(REPORT_ERROR, "%s: cannot be sealed: %s%s%s; its changes are kept and tried again", it->f->path ? it->f->path : "file",
	       strerror(-err), *fail_text() ? ": " : "", fail_text());
	rwlock_unlock(&it->f->lock);
	if (!*first_err)
		*first_err = err;
}

static void batch_log(struct item *items, size_t n, bool commit, uint64_t *lsn, int *first_err)
{
	for (size_t i = 0; i < n; i++) {
		struct item *it = &items[i];
		int err, owes;

		fail_clear();
		rwlock_write(&it->f->lock);
		if (it->f->content == CONTENT_SPILLED && !it->f->unlinked) {
			err = it->f->error && it->f->handles ? it->f->error : seal_spilled_begin(it->f, &it->seq);
			it->step = ITEM_SPILLED;
			rwlock_unlock(&it->f->lock);
		} else {
			rwlock_unlock(&it->f->lock);
			err = seal_log(it->f, commit, &it->lsn);
			owes = (err == -ENOSPC || err == -EDQUOT) && commit && inode_owes(it->f) ? err : 0;
			if ((err == -EAGAIN && commit) || owes) /* what is dirty does not fit: seal what is committed */
				err = seal_log(it->f, false, &it->lsn);
			*first_err = *first_err ? *first_err : owes;
			it->step = it->lsn ? ITEM_LOGGED : ITEM_NONE;
		}
		if (err)
			item_fail(it, err, first_err);
		else if (it->lsn > *lsn)
			*lsn = it->lsn;
	}
}

/* The log was refused room, and said so: no SEAL of these may be put in place before it is durable.  The others do not need it. */
static void batch_unlogged(struct item *items, size_t n, int err, int *first_err)
{
	for (size_t i = 0; i < n; i++) {
		if (items[i].step != ITEM_LOGGED)
			continue;
		items[i].step = ITEM_FAILED;
		items[i].f->retry_at = now_ns() + RETRY_AGE;
		*first_err = *first_err ? *first_err : err;
	}
}

static void batch_apply(struct item *items, size_t n, int *first_err)
{
	for (size_t i = 0; i < n; i++) {
		struct item *it = &items[i];
		int err = it->step == ITEM_LOGGED && !it->synced ? seal_apply(it->f) : 0;

		if (err)
			item_fail(it, err, first_err);
	}
}

/* By the descriptor that knows of every write that was lost; see reseg_copy() */
static int item_sync(struct store *st, const struct item *it)
{
	const struct apply *a = &it->f->apply;

	if (it->step == ITEM_LOGGED && a->whole && a->copy_fd >= 0)
		return st->io.sync(st->io.ctx, a->copy_fd, true);
	return inode_sync_file(it->f, it->f->fd, true);
}

/* Somebody's fsync may have been told of a write of ours that was lost, by the same descriptor: then the log keeps what it has, for the
 * next mount. */
static bool told_others(struct inode *f)
{
	const struct timespec moment = {.tv_nsec = 1000000};
	bool lost;

	while (f->n_syncing)
		nanosleep(&moment, NULL);
	rwlock_read(&f->lock);
	lost = f->lost;
	rwlock_unlock(&f->lock);
	return lost;
}

/* A sync of a file failed whose base was never synced: what the log does not hold of it may be gone, and cannot be written again. */
static void base_lost(struct inode *f)
{
	rwlock_write(&f->lock);
	if (!f->durable && !f->unlinked)
		inode_lost(f);
	rwlock_unlock(&f->lock);
}

/*
 * The kernel tells a lost write once to each descriptor.  syncfs has one of its own, so that no other syncfs (of the log, of a sync) takes
 * the news away; what it says is about all that was written since the last batch, which is enough for what was put in place in this one.  A
 * spilled file was written long before: only its own descriptor knows, and nobody else's failure is held against it.
 * Return: the first error; item->sync_err has each one's own.
 */
static int sync_items(struct store *st, struct item *items, size_t n)
{
	int all_err = 0, first = 0;
	size_t k = 0;
	bool all;

	for (size_t i = 0; i < n; i++)
		k += is_written(&items[i]);
	all = k >= SYNCFS_FROM || (k && !st->io.names_with_files);
	if (all)
		all_err = st->io.syncfs(st->io.ctx, st->seal_fd);
	for (size_t i = 0; i < n; i++) {
		struct item *it = &items[i];
		bool by_all = all && it->step == ITEM_LOGGED && !it->f->apply.whole;

		if (!is_written(it))
			continue;
		it->sync_err = by_all ? all_err : item_sync(st, it);
		if (it->sync_err && it->step == ITEM_LOGGED && (!by_all || item_sync(st, it)))
			base_lost(it->f);
		if (!it->sync_err && !st->io.names_with_files)
			it->sync_err = all_err;
		if (!it->sync_err && it->step == ITEM_LOGGED && told_others(it->f))
			it->sync_err = -EIO;
		it->synced = !it->sync_err;
		first = first ? first : it->sync_err;
	}
	return first;
}

/* A failed sync is reported once and the pages are gone: write everything again from the log, then sync again; never believe a second sync
 * alone. */
static void batch_sync(struct store *st, struct item *items, size_t n, int *first_err)
{
	int err = sync_items(st, items, n);

	if (!err)
		return;
	report(REPORT_WARN, "the disk failed a sync (%s); writing the sealed files again", strerror(-err));
	for (size_t i = 0; i < n; i++) {
		struct item *it = &items[i];

		if (it->step == ITEM_SPILLED && !it->synced) { /* its data exists nowhere else */
			rwlock_write(&it->f->lock);
			err = spilled_lost(it->f);
			rwlock_unlock(&it->f->lock);
			item_fail(it, err, first_err);
		} else if (it->step == ITEM_LOGGED && !it->synced) {
			rwlock_read(&it->f->lock);
			if (!it->f->lost) /* else no sync of it is believed any more */
				inode_sync_again(it->f);
			rwlock_unlock(&it->f->lock);
		}
	}
#ifndef TEST_NO_APPLY_RETRY
	batch_apply(items, n, first_err);
#endif
	(void)!sync_items(st, items, n);
	for (size_t i = 0; i < n; i++) /* still in the log: the next batch writes it once more */
		if (is_written(&items[i]))
			item_fail(&items[i], items[i].sync_err, first_err);
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
			if (!inode_needs_seal(it->f) && !reseg_busy(it->f))
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
int seal_batch(struct store *st, struct inode **files, size_t n, bool commit)
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
	if (err && redo_is_dead(st->redo)) {
		st->failed = true;
		return err;
	}
	if (err)
		batch_unlogged(items, n, err, &first_err);
#endif
	batch_apply(items, n, &first_err);
	batch_sync(st, items, n, &first_err);
	batch_finish(items, n, &first_err);
	return first_err;
}
