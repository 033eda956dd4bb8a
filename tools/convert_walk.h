/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Walking the tree that is converted, as a stream: names of one directory at a time and, of a very large one, some of them.
 *
 * Never through a symlink, onto another file system (one_fs), into .tdfs or into a volume below.  What is in a directory comes in inode
 * order, files before directories.
 */
#ifndef TDFS_CONVERT_WALK_H
#define TDFS_CONVERT_WALK_H

#include <sys/stat.h>

#include "defs.h"

/* A directory that something still happens in. */
struct cdir {
	struct cdir *parent;
	unsigned refs;  /* the walk, directories below, files under way */
	char *path;     /* relative; "" the root */
	struct stat st; /* as found */
	bool touched;   /* by us: its times are to be restored */
};

struct walk_calls {
	void *arg;
	void (*bad)(void *arg, const char *path, int err); /* cannot be looked at; the walk goes on */
	void (*done)(void *arg, struct cdir *d);           /* nobody needs it any more; freed afterwards */
	const char *below;                                 /* only this directory and what is in it, or this file; NULL: all */
	ino_t only;                                        /* and of the files only this one; 0: all */
};

struct walk_entry {
	struct cdir *dir; /* a reference is not handed over */
	int dir_fd;       /* borrowed until the next call */
	const char *name; /* likewise */
	struct stat st;
	struct cdir *self; /* of a directory: what it will be while it is walked */
};

struct walk; /* opaque */

/** walk_open() - @stats: false: st holds only the kind (S_IFMT) where the directory tells it.  0 or -errno */
int walk_open(int root, bool one_fs, bool stats, const struct walk_calls *calls, struct walk **ret) MUST_CHECK;
/** walk_next() - 1 an entry; 0 the end; -ENOMEM */
int walk_next(struct walk *w, struct walk_entry *ret) MUST_CHECK;
/** walk_skip() - do not go into the directory that came last */
void walk_skip(struct walk *w);
void walk_close(struct walk *w);
/** walk_foreign() - is the directory another file system's, or (it holds a .tdfs) a volume of its own, whose files must not be sealed
 * twice?  Why, or NULL */
const char *walk_foreign(const struct walk_entry *e);
bool walk_is_volume(const struct walk_entry *e);

/** path_is_inside() - of a list: inside the tree and nothing else, no "..", not absolute */
bool path_is_inside(const char *p);
/** path_lies_in_tdfs_dir() - the walk goes into none: what `find -type f` lists must not cost a volume its keys */
bool path_lies_in_tdfs_dir(const char *path);

/** cdir_new() - with one reference; takes one of @parent; NULL: out of memory */
struct cdir *cdir_new(struct cdir *parent, const char *name, const struct stat *st);
static inline struct cdir *cdir_get(struct cdir *d)
{
	d->refs++;
	return d;
}
void cdir_put(struct cdir *d, const struct walk_calls *calls);
/** cdir_join() - path of @name in @d, malloc'd */
char *cdir_join(const struct cdir *d, const char *name) MUST_CHECK;

#endif
