/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether a volume may hold plain files beside its own: .tdfs/convert/state, authenticated, while a tree is converted in place.
 *
 * Without that file (or with one that does not authenticate) the volume is strict: a plain file in the store is none of its files.  So who
 * can write in the store can end a conversion that way, and cannot begin one; a copy of the file that he kept does begin it again, as a
 * kept copy of volume.json brings old key slots back.
 */
#ifndef TDFS_VOLUME_STATE_H
#define TDFS_VOLUME_STATE_H

#include "volume.h"

enum volume_state { VOLUME_STRICT, VOLUME_CONVERTING };

/** volume_state_read() - @v is unlocked.  0; -EBADMSG: the file is there and damaged or not ours, *ret is VOLUME_STRICT; -errno.  fail()
 * tells */
int volume_state_read(const struct volume *v, enum volume_state *ret) MUST_CHECK;
/** volume_state_write() - durable when it returns 0; -errno.  fail() tells */
int volume_state_write(const struct volume *v, enum volume_state s) MUST_CHECK;

#endif
