/* SPDX-License-Identifier: Apache-2.0 */
/* fsync: the log made durable and, where the store file or its name may not be, that too; the LIVE mark; what a rename over a file needs.
 */
#include "inode_i.h"

/* Written only after the log is durable, so that LIVE without records in the log means that the log is lost.  Not synced: recovery does not
 * need it. */
void commit_mark_live(struct inode *f, uint64_t lsn)
{
	struct store *st = f->st;
	struct record rec;
	uint8_t sector[SECTOR];

	if (!st->opt.live_mark)
		return;
	rwlock_write(&f->lock);
	if (f->content == CONTENT_SEALED && !f->live && !f->apply.pending && !f->unlinked && f->number && f->first_lsn <= lsn) {
		rec = f->rec;
		rec.state = RECORD_LIVE;
		f->live = !record_sector(&rec, f->base_crc, st->keys.k_rec, sector) && !io_pwrite(&st->io, f->fd, sector, SECTOR, 0);
	}
	rwlock_unlock(&f->lock);
}

/* fsync, first half: everything written is in the log (or sealed in place); lock held for writing. */
static int fsync_locked(struct inode *f)
{
	if (f->load_err || f->content == CONTENT_FOREIGN || f->content == CONTENT_VOID || f->unlinked)
		return 0;
	if (f->st->failed)
		return -EIO;
	if (f->error)
		return f->error;
	switch (f->content) {
	case CONTENT_NEW:
		return seal_new(f);
	case CONTENT_SPILLED:
		return seal_spilled(f);
	case CONTENT_REPLACED:
		if (f->apply.pending)
			return -EBUSY;
		return seal_too_large(f) ? seal_voided(f) : seal_replaced(f);
	default:
		return commit_append(f, false);
	}
}

/*
 * A lost write is told once to each descriptor, and the store file's is everybody's.  So one asks at a time, and who is told says so to all
 * who ask after that: else the next one would believe that what is lost is there, before who was told could say what comes of it.
 */
int inode_sync_file(struct inode *f, int fd, bool full)
{
	const struct io *io = &f->st->io;
	int err;

	mutex_lock(&f->sync_lock);
	err = f->sync_failed ? -EIO : io->sync(io->ctx, fd, full);
	f->sync_failed = err;
	mutex_unlock(&f->sync_lock);
	return err;
}

void inode_sync_again(struct inode *f)
{
	mutex_lock(&f->sync_lock);
	f->sync_failed = false;
	mutex_unlock(&f->sync_lock);
}

int inode_sync_names(struct inode *f, int fd)
{
	struct store *st = f->st;
	int err = inode_sync_file(f, fd, true);

	return err || st->io.names_with_files ? err : st->io.syncfs(st->io.ctx, st->root_fd);
}

static int sync_base(struct inode *f, unsigned seq)
{
	int err;

	f->n_syncing++;
	err = inode_sync_names(f, inode_fd(f)); /* the descriptor stays open as long as the object, even when a writable one takes over */
	rwlock_write(&f->lock);
	if (err)
		inode_lost(f);
	else if (f->meta_seq == seq)
		f->durable = true;
	rwlock_unlock(&f->lock);
	f->n_syncing--;
	return err;
}

int inode_fsync(struct inode *f, bool data_only)
{
	struct store *st = f->st;
	struct room_turn turn = {.st = st};
	bool durable, native;
	uint64_t lsn;
	unsigned seq;
	int err;

	if (f->plain)
		return plain_fsync(f, data_only);
	do {
		room_turn_wait(&turn);
		rwlock_write(&f->lock);
		err = fsync_locked(f);
		lsn = f->last_lsn;
		seq = f->meta_seq;
		native = f->content == CONTENT_SEALED && !f->unlinked;
		durable = f->durable || f->unlinked;
		rwlock_unlock(&f->lock);
	} while (room_turn_again(&turn, f, err, &err));
	st->n_fsyncs++;
	if (!err && native && lsn)
		err = redo_flush(st->redo, lsn);
#ifndef TEST_NO_LOST_BASE
	if (!err && !durable && !st->opt.read_only)
		err = sync_base(f, seq);
#endif
	if (!err && native && lsn)
		commit_mark_live(f, lsn);
	if (err && st->redo && redo_is_dead(st->redo))
		st->failed = true;
	return err;
}

int inode_flush(struct inode *f)
{
	int err;

	rwlock_write(&f->lock);
	err = f->error;
	if (!err && f->content == CONTENT_NEW && !f->unlinked)
		err = seal_new(f);
	rwlock_unlock(&f->lock);
	return err;
}

bool inode_is_replaced(struct inode *f)
{
	bool replaced;

	rwlock_read(&f->lock);
	replaced = f->content == CONTENT_REPLACED;
	rwlock_unlock(&f->lock);
	return replaced;
}

int inode_before_rename(struct inode *f)
{
#ifdef TEST_NO_RENAME_EARLY
	return 0;
#else
	return inode_fsync(f, true);
#endif
}
