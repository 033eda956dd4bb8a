/* SPDX-License-Identifier: Apache-2.0 */
/* Random bytes for secrets; random_bytes() for everything that will be seen is in aead.h. */
#ifndef TDFS_RANDOM_H
#define TDFS_RANDOM_H

#include "defs.h"

/** random_private() - as random_bytes(), from the generator whose output is never published: keys and passphrases; 0 or -EIO */
int random_private(void *p, size_t len) MUST_CHECK;

#endif
