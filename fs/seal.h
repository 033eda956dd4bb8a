/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From dirty or committed to sealed, in steps (fs/DESIGN.md "Durability", 7).  The crash tests call the steps one by one; everybody else
 * uses writeback.h.
 *
 * seal_log, seal_apply and seal_done need store->seal_lock.
 */
#ifndef TDFS_SEAL_H
#define TDFS_SEAL_H

#include "store.h"

/** seal_new() - a NEW file in memory becomes SEALED with one write; caller holds inode->lock for writing.  Not synced. */
int seal_new(struct inode *f) MUST_CHECK;
/** seal_spilled() - a SPILLED file becomes SEALED: rest and tail, sync, header; caller holds inode->lock for writing.  The header is not
 * synced. */
int seal_spilled(struct inode *f) MUST_CHECK;
/** seal_spilled_begin() / seal_spilled_finish() - the same in two halves: sync between them.  finish: -EAGAIN if the file changed meanwhile
 * (it stays SPILLED) */
int seal_spilled_begin(struct inode *f, uint64_t *ret_seq) MUST_CHECK;
int seal_spilled_finish(struct inode *f, uint64_t seq) MUST_CHECK;
/** seal_replaced() - the SEAL of a REPLACED file, whole content in the log; caller holds inode->lock for writing; no apply pending */
int seal_replaced(struct inode *f) MUST_CHECK;
/** seal_too_large() - a REPLACED file that seal_replaced() must not be asked for: it grew by a call whose inode_pressure() waits for the
 * apply before */
bool seal_too_large(const struct inode *f);
/** seal_voided() - a REPLACED file without the old content as a way back: VOID in the log, then sealed like a spilled one; lock as above */
int seal_voided(struct inode *f) MUST_CHECK;

/** seal_log() - (a) append SEAL (of the committed state; with @commit also of what is dirty) and move the base on
 * @ret_lsn: flush it before seal_apply(); 0 = nothing was to be logged.  NEW and SPILLED files are sealed right here.
 * Return: 0; -EAGAIN no room in the log; -errno */
int seal_log(struct inode *f, bool commit, uint64_t *ret_lsn) MUST_CHECK;
/** seal_apply() - (b) images, tail, length, header in place; 0, or -errno (still pending) */
int seal_apply(struct inode *f) MUST_CHECK;
/** seal_done() - (d) synced: forget the images, free the log */
void seal_done(struct inode *f);
/** seal_pending() - between seal_log() and seal_done() */
bool seal_pending(struct inode *f);
/** seal_gone() - an unlinked file whose unlink is durable: what the log holds of it goes in place, without a seal, so that the log is free
 */
int seal_gone(struct inode *f) MUST_CHECK;

#endif
