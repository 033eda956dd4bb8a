/* SPDX-License-Identifier: Apache-2.0 */
/* What a recovery key's text stands for.  Private to kas/; the rest is in slot.h. */
#ifndef TDFS_RECOVERY_KEY_H
#define TDFS_RECOVERY_KEY_H

#include "slot.h"

#define RECOVERY_BYTES 20

/** recovery_decode() - the 160 bits; 0 or -EPROTO as recovery_check() (then @ret is not to be used).  Wipe @ret. */
int recovery_decode(const char *text, size_t len, uint8_t ret[static RECOVERY_BYTES]) MUST_CHECK;

#endif
