/* SPDX-License-Identifier: Apache-2.0 */
/* What a worker does with items.  Private to worker.c and worker_set.c. */
#ifndef TDFS_WORKER_I_H
#define TDFS_WORKER_I_H

#include "convert_one.h"

struct job { /* an item as it came */
	struct item_order order;
	const char *path; /* NUL-ended, in the chunk's copy */
};

/** one_do() - the step of this verb; @links as one_fn has it */
void one_do(struct one *w, enum chunk_op op, const struct job *j, unsigned links, struct item_answer *a);
/** one_waits() - is what was staged without a name in the tree until it is committed? */
static inline bool one_waits(const struct one *w)
{
	return w->run->verb == CONVERT_REWRAP || w->run->live;
}
/** rewrap_policy() - which policy the file with these @n names is to have; NULL: its own.  Borrowed from the run.
 * By the rules (policy set) that of a name that has one of its own, else of the first in byte order: the same however they were found */
const char *rewrap_policy(const struct convert_run *run, const struct job *jobs, size_t n);
/** set_stage() / set_commit() - all names of one file; @a: of them all */
void set_stage(struct one *w, const struct job *jobs, size_t n, struct item_answer *a);
void set_commit(struct one *w, const struct job *jobs, size_t n, struct item_answer *a);

#endif
