/* SPDX-License-Identifier: Apache-2.0 */
/* Private to plain_session.c and plain_swap.c. */
#ifndef TDFS_PLAIN_I_H
#define TDFS_PLAIN_I_H

#include <sys/stat.h>

#include "plain.h"

/* One name of the file that is swapped. */
struct place {
	struct node *dir;     /* referenced */
	int fd;               /* of it, borrowed */
	const char *name;     /* plain */
	char file[NAME_ROOM]; /* sealed */
	struct stat was;      /* the directory before */
};

/** place_look() - 0: a plain file lies there; -ENOENT; -errno */
int place_look(const struct tree *t, int fd, const char *name, struct stat *ret) MUST_CHECK;
/** plain_swap_claimed() - all name locks are held and the file is claimed; 0 or as plain_session_swap() */
int plain_swap_claimed(const struct tree *t, struct place *p, size_t n, const struct plain_swap *w) MUST_CHECK;

#endif
