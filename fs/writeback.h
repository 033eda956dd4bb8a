/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When files are committed and sealed, and many at once.
 *
 * Commit: 5 s after the oldest uncommitted byte.  Seal: 1 s after the last close, 5 s after the last write, at the latest 60 s after the
 * first change; when the log needs its other half.
 */
#ifndef TDFS_WRITEBACK_H
#define TDFS_WRITEBACK_H

#include "store.h"

int writeback_start(struct store *st) MUST_CHECK;
void writeback_stop(struct store *st);

/** writeback_note() - the file changed: it is on the list of those that need a seal.  Caller holds inode->lock. */
void writeback_note(struct inode *f);
/** writeback_unlist() - it needs none any more.  Caller holds inode->lock (else somebody may write between the look and this) and a
 * reference. */
void writeback_unlist(struct inode *f);
/** writeback_kick() - look now */
void writeback_kick(struct store *st);

/** writeback_seal() - seal these files and sync them, many per barrier; takes seal_lock
 * @commit: also what is dirty.  Return: the first error; each file's own error is kept in it */
int writeback_seal(struct store *st, struct inode **files, size_t n, bool commit) MUST_CHECK;
/** writeback_descriptors() - there are no more file descriptors: seal files that nobody has open, so that theirs are closed.  No inode lock
 * may be held. */
void writeback_descriptors(struct store *st);
/** writeback_room() - the log is full: seal what holds it back.  No inode lock may be held.  0; -EIO the log cannot be freed */
int writeback_room(struct store *st) MUST_CHECK;
/** writeback_collect() - a reference to each listed file that @want says yes to; malloc'd array */
int writeback_collect(struct store *st, bool (*want)(struct inode *f, void *arg), void *arg, struct inode ***ret, size_t *ret_n) MUST_CHECK;

#endif
