/* SPDX-License-Identifier: Apache-2.0 */
/* One file being verified: opened by one thread, its ranges checked by any number.  Used by verify.c only. */
#ifndef TDFS_VERIFY_ITEM_H
#define TDFS_VERIFY_ITEM_H

#include <stdatomic.h>

#include "lock.h"
#include "verify.h"

struct verify_item {
	char *path;
	size_t named; /* as verify_file() */
	int tries;
	/* set when it is opened, then fixed */
	int fd;
	struct io io;
	struct container *c;
	uint64_t per_range, n_ranges;
	uint32_t crc;                  /* what the zip says */
	uint64_t slack_off, slack_len; /* bytes behind the last segment that belong to the zip's entry all the same */
	/* each written by the thread that has the range */
	uint32_t *range_crc;
	uint64_t *range_len;
	_Atomic uint64_t ranges_left;

	struct mutex lock;
	/* guarded by lock */
	struct verify_problem problems[VERIFY_SHOWN];
	size_t n_problems;
	bool crc_known; /* every stored byte could be read */
};

struct verify_buffers { /* of one thread */
	uint8_t *stored, *plain;
	size_t stored_room, plain_room;
};
void buffers_free(struct verify_buffers *w);

/** item_new() - @path is copied; 0 or -ENOMEM.  Free with item_free() */
int item_new(const char *path, size_t named, struct verify_item **ret) MUST_CHECK;
void item_free(struct verify_item *f);
/** item_close() - back to what item_new() gave: problems and all */
void item_close(struct verify_item *f);
/** item_open() - open and unlock; 0 or as target_container() */
int item_open(struct verify_item *f, const struct target *t) MUST_CHECK;
/** item_range() - check range @range, of 0..n_ranges - 1; stops early when interrupted() */
void item_range(struct verify_item *f, struct verify_buffers *w, uint64_t range, struct progress *progress);
/** item_crc() - when all ranges are done: the zip's CRC-32 */
void item_crc(struct verify_item *f);
/** item_problem() - with the file as a whole: fail_text() or what @err means */
void item_problem(struct verify_item *f, int err);

#endif
