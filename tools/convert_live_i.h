/* SPDX-License-Identifier: Apache-2.0 */
/* A worker of a live conversion. Private to convert_live_one.c (a file) and convert_live_walk.c (which ones). */
#ifndef TDFS_CONVERT_LIVE_I_H
#define TDFS_CONVERT_LIVE_I_H

#include "convert_file.h"
#include "convert_live.h"

#define LIVE_ROUNDS 3        /* busy files are tried again so often */
#define LIVE_BUSY_MAX 100000 /* more than that is left for the next run */
#define LIVE_SETS 65536

struct names { /* of one file */
	struct names *next;
	uint64_t ino, links;
	char **paths;
	size_t n;
};

struct live_item { /* sealed, waiting for the batch's sync */
	char **paths;
	size_t n_paths;
	char temp[TEMP_ROOM];
	struct stat st;
	uint64_t temp_ino;
	bool verify;
	uint8_t hash[HASH_LEN];
};

struct live {
	const struct convert_run *run;
	struct live_board *board;
	struct control_talk *talk;
	struct sealer sealer;
	struct io io;
	int root; /* a description of the store of its own: the kernel tells each about a failed write once */
	struct live_item *batch;
	size_t n, max;
	uint64_t bytes;
	struct names *busy; /* to be tried again; a list */
	size_t n_busy;
	struct names **sets; /* whose names are not all found yet, by inode number */
	unsigned round;
	uint64_t n_made;
};

void names_free(char **paths, size_t n);
/** live_one() - seal a file; takes its names over, the first of which is @name in @dir.  0 or what ends the run */
int live_one(struct live *w, int dir, const char *name, char **paths, size_t n) MUST_CHECK;
/** live_commit() - what was sealed becomes durable, then takes the place of what it was made from */
int live_commit(struct live *w) MUST_CHECK;
/** live_settle() - the end of a file's way that was not the good one; takes its names over */
void live_settle(struct live *w, char **paths, size_t n, int err);
void live_say(const char *path, const char *what, int err);

#endif
