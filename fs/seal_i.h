/* SPDX-License-Identifier: Apache-2.0 */
/* What making a sealed file of a new one (seal_new.c) and of a changed one (seal.c) share; nobody else includes this.  The lock is held for
 * writing. */
#ifndef TDFS_SEAL_I_H
#define TDFS_SEAL_I_H

#include "inode_i.h"

/* Everything of a sealed state but where it is written. */
struct sealed {
	struct record rec;
	uint8_t root[MAC_LEN];
	uint8_t sector[SECTOR];
	uint8_t *tail;
	uint64_t tail_len;
};

static inline void sealed_cleanup(struct sealed *s)
{
	free(s->tail);
}

/* @tail: where to put the tail, NULL = malloc it */
int sealed_make(struct inode *f, uint64_t size, uint64_t generation, uint32_t crc, uint8_t *tail, struct sealed *ret);
void seal_rec(const struct sealed *s, const struct base *base, const struct apply *a, struct redo_rec *r);
/* The SEAL stands in the log (not yet flushed): what it needs to go in place, and the base moves on. */
void start_apply(struct inode *f, struct sealed *s, uint32_t crc);
void sealed_metadata(struct inode *f, const struct record *r, uint64_t file_len);
void sealed_base(struct inode *f, const struct record *r, uint64_t file_len, uint32_t crc);

#endif
