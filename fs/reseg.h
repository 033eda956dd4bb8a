/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Re-segmentation: a sealed file gets another segment size and a fresh data key, in the same inode (fs/DESIGN.md section 9).
 *
 * A copy is built beside the log while the file stays in use; then one SEAL makes the copy the file's state, and it is copied into the
 * file's place like any other seal.  The functions that say so need store->seal_lock.
 */
#ifndef TDFS_RESEG_H
#define TDFS_RESEG_H

#include "store.h"

/** reseg_begin() - start a copy with segments of @s, a multiple of the present size; seal_lock held, no inode lock
 * Return: 0; -EALREADY one is being made; -EINVAL not a sealed file in use, or @s impossible; -ENOSPC, -EDQUOT no room for two; -errno */
int reseg_begin(struct inode *f, uint32_t s) MUST_CHECK;
/** reseg_build() - copy about @bytes more; seal_lock held, no inode lock
 * @ret_ready: so little is left that the next seal takes the copy.  Return: 0; -ECANCELED it was given up (the file was replaced, removed,
 * or had an error); -errno: it is given up */
int reseg_build(struct inode *f, uint64_t bytes, bool *ret_ready) MUST_CHECK;
/** reseg_copy() - after its SEAL is durable: about @bytes more into the file's place; seal_lock held.  0 or -errno */
int reseg_copy(struct inode *f, uint64_t bytes) MUST_CHECK;
/** reseg_turn() - what the background does: start, build, seal or copy a piece of every listed file that wants it; takes seal_lock
 * Return: there is more to do */
bool reseg_turn(struct store *st);
/** reseg_hold() - no turn changes a store file for so many seconds (quiesce; 0: from now on they may); waits for the one under way */
void reseg_hold(struct store *st, unsigned seconds);

#endif
