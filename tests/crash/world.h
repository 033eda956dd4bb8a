/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine on a simulated disk, a copy of what the user wrote, and what may be found after a power cut (fs/DESIGN.md "Promises").
 *
 * For each name the world keeps every state that may legally be read: one after an acknowledged fsync, one more for each change since.
 * Before each sync of the disk (until then the possible crash states only grow) it draws crash states, recovers each, recovers crashes
 * inside that recovery, and compares.
 */
#ifndef TDFS_CRASH_WORLD_H
#define TDFS_CRASH_WORLD_H

#include "inode.h"
#include "seal.h"
#include "simdisk.h"
#include "writeback.h"

#define WORLD_S 16384u
#define WORLD_FILES 3
#define WORLD_HALF ((uint64_t)4 << 20)
#define WORLD_HALF_SMALL ((uint64_t)512 << 10) /* the log is full all the time */
#define WORLD_DEPTH 3                          /* crashes inside recovery */

struct states {
	bool absent, nothing, damaged; /* no such name; created and never committed; EIO */
	uint64_t *hash;
	size_t n, cap;
};

struct wfile {
	char name[16];
	struct inode *f; /* NULL = not open */
	bool exists;
	uint8_t *plain;
	uint64_t size, cap;
	struct states ok;
	unsigned aliases; /* bit per slot whose name the content had while renames are not durable */
	uint64_t seal_lsn;
	int seal_step; /* 1 logged, 2 flushed, 3 applied, 4 synced */
};

struct world {
	enum sim_mode mode;
	struct simdisk *disk;
	int root, tdfs;
	struct store *st;
	bool live_mark, small;
	struct wfile files[WORLD_FILES];
	uint64_t rnd;
	bool faults;                        /* operations may fail ... */
	bool failed;                        /* ... and one did */
	bool log_full;                      /* each write into the log is refused for want of room, until an operation was */
	void (*meanwhile)(struct world *w); /* run once inside the next flush of the log: another thread's doing */
	int syncing;                        /* slot in world_fsync(), or -1 */
	uint64_t during[8];                 /* what was written to it meanwhile */
	size_t n_during;
	/* checking */
	unsigned per_point; /* crash states drawn at each sync; 0 = do not look */
	unsigned one_in;    /* ... at one sync of so many */
	uint64_t states, violations;
	char why[512]; /* the first violation */
	bool inside;   /* a check is running */
};

void world_setup(void); /* keys, once */
void world_teardown(void);
void world_trace(void); /* tell every step on standard error */
struct world *world_new(enum sim_mode mode, bool live_mark, bool small, uint64_t seed);
void world_free(struct world *w);

/* Each: what the user does; records first what may be seen from then on. */
void world_create(struct world *w, int i);
void world_open(struct world *w, int i);
void world_close(struct world *w, int i);
void world_write(struct world *w, int i, uint64_t off, size_t len);
void world_truncate(struct world *w, int i, uint64_t size);
int world_fsync(struct world *w, int i);
void world_rename(struct world *w, int from, int to);
void world_unlink(struct world *w, int i);
void world_seal(struct world *w, int i, bool commit);
/** world_seal_step() - the next step of a seal: log, flush, apply, sync, done */
void world_seal_step(struct world *w, int i, bool commit);
/** world_reseg() - the next piece of a re-segmentation: @times larger segments if none is under way; @bytes: of work */
void world_reseg(struct world *w, int i, unsigned times, uint64_t bytes);
void world_sync(struct world *w);

/** world_look() - draw @n crash states now */
void world_look(struct world *w, unsigned n);
/** world_check() - recover @d (taken over) and compare with what @w allows */
void world_check(struct world *w, struct simdisk *d, unsigned depth);
/** world_crash() - a real one: go on with the recovered store, whatever it shows */
void world_crash(struct world *w);
void world_violation(struct world *w, const char *fmt, ...) PRINTF_LIKE(2, 3);
/** world_power_off() - the disk as it is, without closing the store cleanly; the world has no store until world_mount() */
void world_power_off(struct world *w);
void world_mount(struct world *w, struct simdisk *d);
/** world_read() - hash of the whole file; 0, -ENOENT, -ENODATA, -errno */
int world_read(struct store *st, int root, const char *name, uint64_t *ret_hash, uint8_t **ret, uint64_t *ret_size);
uint64_t world_hash(const uint8_t *p, size_t len);

#endif
