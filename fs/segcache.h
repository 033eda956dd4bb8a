/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plaintext of segments read lately, for reads that are smaller than a segment.  Copies in and out; a bounded number of bytes; wiped when
 * dropped.  Thread-safe; leaf locks.
 */
#ifndef TDFS_SEGCACHE_H
#define TDFS_SEGCACHE_H

#include "defs.h"

struct segcache;

/** segcache_new() - at most @bytes of plaintext; NULL if out of memory; 0 bytes: every get misses */
struct segcache *segcache_new(size_t bytes) MUST_CHECK;
void segcache_free(struct segcache *c);
/** segcache_get() - copy bytes [off, off + len) of segment (@owner, @seg) out; false: not there */
bool segcache_get(struct segcache *c, uint64_t owner, uint64_t seg, uint32_t off, void *buf, uint32_t len) MUST_CHECK;
/** segcache_put() - remember a whole segment (copied); drops the least recently used ones; silently does nothing without memory */
void segcache_put(struct segcache *c, uint64_t owner, uint64_t seg, const void *buf, uint32_t len);
/** segcache_drop() - forget one segment / all of an owner */
void segcache_drop(struct segcache *c, uint64_t owner, uint64_t seg);
void segcache_drop_all(struct segcache *c, uint64_t owner);

#endif
