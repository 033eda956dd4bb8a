/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What attr.c, dir.c and ops.c work on: the store with its live files, and what the kernel knows of it.
 */
#ifndef TDFS_VTREE_H
#define TDFS_VTREE_H

#include "inode.h"
#include "node.h"
#include "who.h"

struct plain;

struct tree { /* set at the start, then fixed */
	struct store *store;
	struct nodes *nodes;
	struct plain *plain; /* NULL: never, in tests */
	struct who_rules who;
	bool foreign_deny; /* files that are no native ones: EACCES even for reading */
};

/* inode_put() for a pointer that may be NULL */
static inline void content_put(struct inode *f)
{
	if (f)
		inode_put(f);
}

struct entry { /* a name looked up or made: the node is referenced and its lookup counted */
	struct node *node;
	struct stat st; /* as the user sees it */
};

#endif
