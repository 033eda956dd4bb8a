/* SPDX-License-Identifier: Apache-2.0 */
/* Holding a mount still, so that a copy of its store is a volume as after an unmount; and leaving one that nobody uses. */
#ifndef TDFS_QUIESCE_H
#define TDFS_QUIESCE_H

#include "ops.h"
#include "volume.h"

/** quiesce_begin() - everything written so far is sealed, the log is empty, and nothing changes until quiesce_end() or for @seconds
 * Never on a thread of the session.  Return: 0; -EBUSY it is being converted; -EALREADY; -EAGAIN; as store_sync().  fail() tells */
int quiesce_begin(struct mount *m, unsigned seconds) MUST_CHECK;
/** quiesce_end() - 0; -EALREADY it is not quiesced, or not any more */
int quiesce_end(struct mount *m) MUST_CHECK;
/**
 * quiesce_take_plain() - a strict volume takes plain files from now on
 *
 * Nothing changes meanwhile and all is sealed, as before a mount of such a volume: every file is told by what lies on the disk.  What the
 * kernel remembers of names goes by itself before anybody can convert.  0, also if it does already; -EBUSY, -EROFS; as quiesce_begin() and
 * volume_state_write().  fail() tells
 */
int quiesce_take_plain(struct mount *m, struct volume *v) MUST_CHECK;

/** idle_for() - seconds since the mount was used last, as far as calls of this have shown; 0 while files are open or not sealed */
unsigned idle_for(struct mount *m);

#endif
