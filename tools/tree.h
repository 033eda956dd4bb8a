/* SPDX-License-Identifier: Apache-2.0 */
/* Walking a store or any other tree: never through a symlink, never onto another file system, never into .tdfs. */
#ifndef TDFS_TREE_H
#define TDFS_TREE_H

#include <sys/stat.h>

#include "defs.h"

struct tree_entry {
	int dir_fd; /* borrowed, for the call */
	const char *name, *path;
	struct stat st;
};

struct tree_calls {
	void *arg;
	/* non-zero stops the walk; directories are told before what is in them */
	int (*each)(void *arg, const struct tree_entry *e);
	/* something that cannot be looked at; the walk goes on */
	void (*bad)(void *arg, const char *path, int err);
};

/** tree_walk() - everything below directory @path (not itself), names in order
 * Return: 0; what @each returned; -ENOMEM; -errno if @path itself cannot be opened */
int tree_walk(const char *path, const struct tree_calls *calls) MUST_CHECK;

/** name_is_tdf() - does this name end in .tdf (and is more than that)? */
bool name_is_tdf(const char *name);

#endif
