/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of prefetch.c. */
#ifndef TDFS_PREFETCH_I_H
#define TDFS_PREFETCH_I_H

#include "kas.h"
#include "lock.h"
#include "prefetch.h"

#define WINDOW_MAX 499u   /* and the file that is opened: one request */
#define WINDOW_FIRST 127u /* of what needs several: somebody waits for it, the next one comes meanwhile */
#define WINDOW_GUESS 64u  /* of the directories beside it, when it is the second of them */

/* What is asked for with one request: files from a place on in the directory's own order; at its end, if @scope says so, those of the
 * directories that come behind it, and then what is left from the start of the scope. */
struct window {
	struct store *st;
	struct seen *seen;
	int fd;            /* of the directory, to be read; borrowed */
	const char *path;  /* its path from the root, "" the root; NULL: no further than this directory */
	const char *scope; /* no further than what lies below this one, above @path or the same */
	const char *name;  /* begin behind this one; NULL: at the descriptor's offset */
	unsigned wide;     /* how many files where it is allowed to leave the directory; at most @max */
	unsigned max;      /* room of @want */
	struct kas_want *want;
	ino_t *inos;     /* of these */
	bool again;      /* from the start of the scope */
	unsigned looked; /* at so many files and directories */
	/* out */
	size_t n;
	char *at;  /* the directory in which it was full; NULL: at the end of everything.  malloc'd */
	off_t pos; /* ... and where; -1: at the end */
};

/** window_gather() - fill @w->want with the manifests of files whose keys nobody knows; they are the caller's (manifest_free()) */
void window_gather(struct window *w);
/** dir_beneath() - a directory by its path from the store's root; a descriptor or -errno */
int dir_beneath(const struct store *st, const char *path) MUST_CHECK;
/** path_within() - is @path (of @len bytes) @dir, or below it? */
bool path_within(const char *path, size_t len, const char *dir);

/* Directories that were gone through to their end not long ago: they are not gone through again because something else is missing. */
#define SEEN 1024u
struct seen {
	struct mutex lock; /* a leaf */
	struct {
		ino_t ino;
		uint64_t when;
	} dirs[SEEN]; /* by inode number */
};

#endif
