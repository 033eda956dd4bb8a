/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Locked memory for the contexts of OpenSSL that hold keys: a key schedule begins with the key itself, so that in ordinary memory keys
 * reach swap and core files whatever struct secret does.  Best effort: without room (RLIMIT_MEMLOCK, 4096 threads, AddressSanitizer)
 * contexts lie in ordinary memory.
 */
#ifndef TDFS_KEYROOM_H
#define TDFS_KEYROOM_H

#include "defs.h"

struct keyroom;

/** keyroom_begin() - from here to keyroom_end() what OpenSSL allocates in this thread lies in locked memory (up to 8 KiB); only around what
 * makes contexts that are freed before keyroom_free().  NULL: in ordinary memory.  Thread-safe. */
struct keyroom *keyroom_begin(void);
void keyroom_end(void);
/** keyroom_free() - wipe it, for the next thread; NULL is fine */
void keyroom_free(struct keyroom *room);

#endif
