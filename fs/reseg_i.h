/* SPDX-License-Identifier: Apache-2.0 */
/* Between reseg.c and reseg_seal.c; nobody else includes this. */
#ifndef TDFS_RESEG_I_H
#define TDFS_RESEG_I_H

#include "inode_i.h"
#include "reseg.h"

struct reseg {
	int fd;
	char name[REDO_WHOLE_NAME];
	uint32_t times; /* one of its segments = so many of the file's */
	bool ready;
	/* guarded by inode->lock: written by the builder alone, who holds it for reading, and by whoever holds it for writing */
	bool given_up;
	uint64_t done;  /* its segments [0, done) were copied ... */
	uint8_t *stale; /* ... and these of them were changed since */
	uint64_t n_stale;
	uint64_t copied; /* bytes in all */
	/* what the inode has of the same name */
	uint32_t s;
	struct secret *dek;
	struct tail_template *tmpl;
	uint8_t *tags;
	uint64_t *crcs;
	uint64_t n_tags, cap_tags, invocations;
};

/* plain bytes of a segment, and behind them what is stored */
static inline uint8_t *copy_buffer(const struct reseg *r)
{
	return malloc(2 * (size_t)r->s + AEAD_OVERHEAD);
}

static inline void copy_buffer_free(const struct reseg *r, uint8_t *buf)
{
	if (buf)
		wipe(buf, r->s);
	free(buf);
}

/* one of its segments; the file's lock is held, in whatever way */
int reseg_copy_one(struct inode *f, uint64_t k, uint8_t *buf);
/* all but its file */
void reseg_forget(struct inode *f);

#endif
