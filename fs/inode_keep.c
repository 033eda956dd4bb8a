/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel writes back when the disk is full.  Its caller has long been told that it was written, and the kernel goes on showing it:
 * its page counts as clean, a later fsync by anybody else finds nothing to do and says 0, and the file stays as long as the kernel thinks
 * it is.  So it is kept in memory, as dirty as everything else, and the blocks for it are owed: nothing of the file is acknowledged, and
 * nothing goes to the log, before they are there.
 */
#include "inode_i.h"

static bool may_keep(const struct inode *f, uint64_t off, uint64_t end)
{
	if (off > f->size || f->unlinked || f->error || f->st->dirty > f->st->opt.dirty_bytes)
		return false;
	switch (f->content) {
	case CONTENT_NEW:
		return end <= NEW_MEMORY_MAX;
	case CONTENT_SPILLED:
		return f->dirty <= DIRTY_MAX;
	case CONTENT_SEALED: /* what is placed must be committed for the log to become free, and a copy must come to its end */
		return f->dirty <= DIRTY_MAX && !f->fresh && !f->reseg && !(f->apply.pending && f->apply.whole);
	default:
		return false;
	}
}

bool inode_keep(struct inode *f, const uint8_t *buf, size_t len, uint64_t off)
{
	uint64_t at = off, end = off + len;

	if (!may_keep(f, off, end))
		return false;
	while (at < end) {
		uint64_t i = at / f->s;
		uint32_t from = (uint32_t)(at - i * f->s), step = (uint32_t)MIN(end - at, (uint64_t)f->s - from);

		if (seg_write(f, i, from, step, buf + (at - off)))
			return false;
		at += step;
		f->size = MAX(f->size, at);
		f->owed = f->content != CONTENT_SPILLED; /* that one is written piece by piece */
	}
	return true;
}

/* All or nothing, for as long as it is refused: to try by writing would take the last blocks away from the log, for a moment each time. */
int inode_pay(struct inode *f)
{
	bool is_new = f->content == CONTENT_NEW;
	int err = f->owed && (is_new || f->content == CONTENT_SEALED) ? inode_reserve(f, f->size, true) : 0;
	uint64_t now;

	if (!err) {
		f->owed = false;
		return 0;
	}
	now = now_ns();
	if (!is_new && f->retry_at <= now)
		report(REPORT_ERROR, "%s: the disk has no room for what was written (%s); it is kept in memory, and tried again",
		       f->path ? f->path : "file", strerror(-err));
	f->retry_at = now + RETRY_AGE;
	return err;
}

uint64_t inode_paid_size(const struct inode *f)
{
	return f->owed && f->content == CONTENT_SEALED ? f->com_size : f->size;
}

bool inode_owes(struct inode *f)
{
	bool owes;

	rwlock_read(&f->lock);
	owes = f->owed;
	rwlock_unlock(&f->lock);
	return owes;
}
