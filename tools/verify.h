/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading every byte of TDFs and checking it, on all cores: opening checks, every segment, the zip's CRC-32 of the payload.
 *
 * Files are handed in one after the other; a large one is cut into ranges that several threads take.
 */
#ifndef TDFS_VERIFY_H
#define TDFS_VERIFY_H

#include "progress.h"
#include "target.h"

enum verify_state { VERIFY_OK, VERIFY_BAD, VERIFY_INCOMPLETE /* created, never completed */, VERIFY_NO_KEY };

#define VERIFY_SHOWN 16 /* problems of one file that are remembered; the rest is counted */

struct verify_problem {
	bool whole; /* of the file, not of one segment */
	uint64_t segment, plain_off, file_off;
	char *reason;
};
struct verify_result { /* borrowed for the call */
	const char *path;
	enum verify_state state;
	bool native, live;
	uint64_t size;
	size_t n_problems; /* all; the first VERIFY_SHOWN are in problems */
	const struct verify_problem *problems;
};

struct verify_params {
	const struct target *target;
	unsigned threads; /* 0: as many as cores */
	bool in_use;      /* somebody has the store mounted: a file that looks wrong is looked at again */
	struct progress *progress;
	/* called by one thread at a time, in the order files are done */
	void (*result)(void *arg, const struct verify_result *r);
	void *arg;
};

struct verify; /* opaque */

/** verify_start() - start the threads; 0, -ENOMEM, -EAGAIN */
int verify_start(const struct verify_params *par, struct verify **ret) MUST_CHECK;
/** verify_file() - hand in a file; waits while the queue is full; 0, -ENOMEM, -EINTR interrupted()
 * @named: so many bytes of @path are the directory that the user named; below it no symlink is followed. 0: all of it is what he named */
int verify_file(struct verify *v, const char *path, size_t named) MUST_CHECK;
/** verify_finish() - wait until all is done (interrupted(): drop what is waiting) and free */
void verify_finish(struct verify *v);

#endif
