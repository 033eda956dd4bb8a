/* SPDX-License-Identifier: Apache-2.0 */
/* What prefetch.c, prefetch_ask.c, prefetch_walk.c and prefetch_gather.c share. */
#ifndef TDFS_PREFETCH_I_H
#define TDFS_PREFETCH_I_H

#include "kas.h"
#include "lock.h"
#include "prefetch.h"

#define WINDOW_MAX 499u   /* and the file that is opened: one request */
#define WINDOW_FIRST 127u /* of what needs several: somebody waits for it, the next one comes meanwhile */
#define WINDOW_GUESS 64u  /* of the directories beside it, when it is the second of them */
#define THREADS 2u        /* requests at a time for which nobody asked: the files of one are looked at while the KAS is at the other */
#define AHEAD 998u        /* keys that were asked for and have not been used, at most, for another window of the largest size */

/* What is asked for with one request: files from a place on in the directory's own order; at its end, if @scope says so, those of the
 * directories that come behind it, and then what is left from the start of the scope. */
struct window {
	struct store *st;
	struct prefetch *p;
	struct seen *seen;
	int fd;            /* of the directory, to be read; borrowed */
	const char *path;  /* its path from the root, "" the root; NULL: no further than this directory */
	const char *scope; /* no further than what lies below this one, above @path or the same */
	const char *name;  /* begin behind this one; NULL: at the descriptor's offset */
	unsigned wide;     /* how many files where it is allowed to leave the directory; at most @max */
	unsigned max;      /* room of @want, and how many in this directory */
	uint64_t end;      /* when somebody has waited long enough for this: now_ns(); 0: nobody waits */
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

#define DIRS 64u /* that are walked at a time */

struct walk { /* of one directory */
	dev_t dev;
	ino_t ino; /* 0: free */
	uint64_t used;
	bool listed;
	bool busy;       /* somebody gathers and asks */
	unsigned misses; /* keys that nobody knew */
	unsigned window; /* keys asked for last time */
	unsigned size;   /* ... at most, with as many files as that */
	unsigned left;   /* keys that were asked for and have not been used */
	off_t pos;       /* where the next window begins; -1: at the end, 0: not known */
	/* of the directories in it, one after the other: in how many has a key been missed, in which last, when */
	unsigned children;
	ino_t child;
	uint64_t child_when;
};

/* A walk through many directories: the threads are ahead of it. */
struct front {
	char *scope, *at; /* what is walked; where the next window begins: NULL none, or the end */
	off_t pos;
	unsigned left, size; /* as of a walk */
	uint64_t when;       /* somebody missed a key in it last */
	bool busy;           /* somebody gathers, or an open asks as well; what is owned here is his */
	bool going;          /* what was asked for is used: the threads go on */
};

struct prefetch {
	struct store *st;
	struct seen seen;
	struct mutex lock; /* a leaf */
	/* guarded by lock */
	struct cond changed;
	struct walk walks[DIRS];
	uint64_t clock;
	bool stop;
	int next_fd; /* for a thread: a directory whose next window is wanted; -1: none */
	struct walk *next;
	struct front front;
	const struct window *flights[THREADS]; /* gathered by a thread, and asked for: @n and @inos do not change */
	uint64_t failures;                     /* requests that brought nothing */
	unsigned n_threads;
	pthread_t threads[THREADS];
};

/* prefetch_ask.c */
int run_own(struct prefetch *p, struct walk *walk, struct window *w, const struct manifest *own);
/* by a thread; the lock is held, before and after, not meanwhile */
void run_walk(struct prefetch *p, struct walk *walk, int fd);
void run_front(struct prefetch *p);

/* prefetch_walk.c */
struct walk *walk_find(struct prefetch *p, const struct stat *dir);
struct walk *walk_of(struct prefetch *p, const struct stat *dir);
unsigned window_of(struct walk *w);
bool next_wanted(struct prefetch *p, struct walk *w);
ssize_t scope_of(struct prefetch *p, const char *path, size_t len, const struct stat *dir, unsigned *ret_children);
bool front_take(struct prefetch *p, const char *path, size_t scope_len, unsigned children, struct window *win);
bool front_used(struct prefetch *p, const char *path, size_t len);
bool front_ready(const struct front *f);
unsigned size_next(unsigned size);
unsigned ahead_of(unsigned size);
bool in_flight(const struct prefetch *p, ino_t ino);

#endif
