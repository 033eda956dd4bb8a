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
/*
 * Writing to a log that is full.  Who finds no room has it made and tries again; many who do so at once would take it from each other, so
 * they go one after the other, and when one has failed a few times all wait for it.  Outside of every lock of the engine.
 *
 *   do {
 *           room_turn_wait(&turn);
 *           err = ... with the inode's lock: 0, -EAGAIN no room in the log, -EBUSY its seal must be finished first
 *   } while (room_turn_again(&turn, f, err, &err));
 */
struct room_turn { /* zeroed but for st */
	struct store *st;
	unsigned tries;
	bool mine;
};
void room_turn_wait(struct room_turn *t);
/** room_turn_again() - true: room was made, try once more; false: *ret_err is what came of it, and the turn is over.  Blocks: disk */
bool room_turn_again(struct room_turn *t, struct inode *f, int err, int *ret_err) MUST_CHECK;

/** room_turn_alone() - outside of that loop: wait for the turn, make room, and nobody else commits until room_turn_end().  As
 * writeback_room() */
int room_turn_alone(struct room_turn *t) MUST_CHECK;
void room_turn_end(struct room_turn *t);

/** writeback_collect() - a reference to each listed file that @want says yes to; malloc'd array */
int writeback_collect(struct store *st, bool (*want)(struct inode *f, void *arg), void *arg, struct inode ***ret, size_t *ret_n) MUST_CHECK;

#endif
