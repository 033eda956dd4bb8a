/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 256-bit keys: DEKs, KEKs, the volume key and what is derived from it.
 *
 * A secret lives in memory that is locked (best effort), left out of core dumps and wiped when freed.  It is immutable once handed out.
 */
#ifndef TDFS_SECRET_H
#define TDFS_SECRET_H

#include "defs.h"

#define SECRET_LEN 32

struct secret {
	uint8_t b[SECRET_LEN];
};

/** secret_new() - a zeroed secret; NULL if out of memory.  Thread-safe.  Free with secret_free(). */
struct secret *secret_new(void) MUST_CHECK;
/** secret_copy() - a new secret with the same bytes; NULL if out of memory */
struct secret *secret_copy(const struct secret *s) MUST_CHECK;
/** secret_random() - a new secret from the random generator; NULL if out of memory or the generator failed */
struct secret *secret_random(void) MUST_CHECK;
/** secret_free() - wipe and free; NULL is fine */
void secret_free(struct secret *s);
/** wipe() - clear memory that held a secret; never optimised away */
void wipe(void *p, size_t len);
/** process_private() - from here on no core of this process, and nobody else may trace it or read its memory, but root; again after a change of user.
 * Not all secrets are in struct secret: OpenSSL has its own copies, of the KAS's private key for one. */
void process_private(void);
/** equal_ct() - compare in constant time */
bool equal_ct(const void *a, const void *b, size_t len) MUST_CHECK;

static inline void secret_cleanup(struct secret **s)
{
	secret_free(*s);
}
#define CLEANUP_SECRET CLEANUP(secret_cleanup)

#endif
