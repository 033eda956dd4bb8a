/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Conversion of a store that is mounted: below the mount files are read and sealed, the daemon puts them in place (CONVERT.md section 7).
 */
#ifndef TDFS_CONVERT_LIVE_H
#define TDFS_CONVERT_LIVE_H

#include <stdatomic.h>

#include "cmd_convert.h"
#include "control.h"

/* What the processes of a run share. */
struct live_board {
	_Atomic bool stop; /* after the batch at hand */
	_Atomic bool gone; /* the daemon is */
	unsigned deaths;   /* the parent's */
	_Atomic uint64_t converted, bytes, already, busy, skipped, failed;
};

/** live_main() - `convert in`: -1: not of a store that is mounted and being converted; else an exit code */
int live_main(const struct convert_args *a, int n, char **pos);
/** live_mounted() - is the store mounted and being converted?  1; 0 not mounted; -errno: mounted otherwise, fail() tells */
int live_mounted(const struct volume *v) MUST_CHECK;
/** live_run() - convert what is plain; an exit code, reported */
int live_run(const struct convert_run *run, const char *store, bool quiet, bool json);
/** live_worker() - a process of it; it has every file whose inode number is @i modulo run->workers.  Never returns. */
_Noreturn void live_worker(const struct convert_run *run, unsigned i, struct live_board *board);
/** live_hold() - one converter at a time, mounted or not: a descriptor to be kept; -EBUSY; -errno.  fail() tells */
int live_hold(const struct volume *v) MUST_CHECK;
/** live_prepare() - a volume that is being converted is about to be mounted; an exit code, reported */
int live_prepare(struct volume *v);

/** live_ask() - a request with what is in @more, which is taken over; as control_talk() */
int live_ask(struct control_talk *c, const char *op, json_t *more, json_t **ret) MUST_CHECK;
int live_begin(struct control_talk *c, const char *path, uint64_t links) MUST_CHECK;

extern const struct command convert_open, convert_finish;

#endif
