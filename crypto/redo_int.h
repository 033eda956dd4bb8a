/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the volume log, shared by redo.c (appending, space), redo_flush.c (writing, failure) and redo_file.c (files).
 *
 * The group being filled is always the last of a queue; the ones before it are closed and wait for their flush.  Each has its place (half,
 * offset) from the start, and they are written strictly one after the other, each synced before the next: behind the last durable group
 * there is at most one that is not, so nothing valid but unknown can ever follow a group that recovery puts there.
 */
#ifndef TDFS_REDO_INT_H
#define TDFS_REDO_INT_H

#include "lock.h"
#include "redo.h"

#define REDO_RUNS 8
#define REDO_GROUP_CLOSE ((size_t)8 << 20) /* a group is not filled further than this */

struct redo_group_buf {
	struct redo_group_buf *next;
	uint8_t *p; /* REDO_BLOCK aligned; NULL while empty */
	size_t len, cap;
	uint32_t n_recs;
	uint64_t lsn, epoch, off;
	int half;
	unsigned run;
	bool sealed;     /* header was made, so that its retired LSN is fixed */
	bool moved;      /* second try, in the other half */
	bool retire_all; /* the group of a clean unmount */
};

/* A stretch of the log between two changes of half.  Pins point at it by number, so that moving a stretch never needs to find the pins. */
struct redo_run {
	uint64_t first_lsn;       /* of the oldest group that may hold something live */
	uint32_t pins;            /* buried ones included */
	uint32_t buried, burying; /* names not durable; the same, a syncfs is on its way */
	uint32_t groups;          /* queued */
	uint8_t halves;           /* bit per half that holds groups of it */
	bool durable;             /* some group of it is on disk */
};

struct redo_where {
	uint64_t lsn, off;
	int half;
};

struct redo {
	/* fixed */
	struct io io;
	int dirfd, store_fd, fd[2];
	uint64_t half_size, spare;
	uint8_t volume_id[ID_LEN];
	struct secret *k_log;

	struct mutex lock;
	struct cond changed;
	/* guarded by lock */
	struct redo_group_buf *head, *fill; /* queue; fill is its last */
	bool writing;                       /* a leader is at work on head */
	bool syncing_names;
	bool dead;
	int refused; /* the last write, for want of room: -ENOSPC, -EDQUOT */
	uint64_t n_refused;
	uint64_t durable, retired_sealed, retired_durable; /* retired LSN: of the last group that was sealed; of the last durable one */
	uint64_t start[2]; /* LSN of the durable group at the start of each half */
	uint64_t end[2]; /* behind the last durable group of each half; 0: there is none */
	uint64_t reserved; /* of all pins */
	struct redo_run runs[REDO_RUNS];
	struct redo_where *where; /* by rising LSN: where durable groups stand */
	size_t n_where, cap_where;
	uint8_t *pool[2]; /* emptied buffers */
	size_t pool_cap[2];
	uint64_t n_flushes, n_bytes;
};

static inline uint64_t redo_align(uint64_t n)
{
	return (n + REDO_BLOCK - 1) & ~(uint64_t)(REDO_BLOCK - 1);
}

#define REDO_SIDE_NAME 40 /* "tail-" and 32 digits */

/* redo_file.c; also used by recovery */
int redo_open_halves(const struct io *io, int dirfd, bool write, int ret_fd[2], uint64_t *ret_half);
void redo_side_name(const uint8_t hash[static 32], char ret[static REDO_SIDE_NAME]);
bool redo_side_wanted(uint64_t half, uint64_t tail_len);
int redo_side_put(const struct io *io, int dirfd, const void *tail, uint64_t len, uint8_t ret_hash[static 32]);

/* redo.c; lock held */
struct redo_group_buf *redo_next_group(struct redo *r);
int redo_new_run(struct redo *r, int half, uint64_t first_lsn, unsigned *ret);
uint64_t redo_retired_now(const struct redo *r);
bool redo_half_pinned(const struct redo *r, int half, bool *ret_only_buried);
void redo_forget_half(struct redo *r, int half);
int redo_sync_names(struct redo *r);
void redo_die(struct redo *r, const char *why);
int redo_group_grow(struct redo *r, struct redo_group_buf *g, size_t need);
void redo_group_free(struct redo *r, struct redo_group_buf *g);

#endif
