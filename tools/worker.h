/* SPDX-License-Identifier: Apache-2.0 */
/* A worker process of the converter: takes chunks, answers for each file. */
#ifndef TDFS_WORKER_H
#define TDFS_WORKER_H

#include <stdatomic.h>

#include "convert.h"

/* Shared with the parent, which reads it when the worker has died. */
struct worker_cell {
	_Atomic uint64_t chunk; /* at work on this one */
	_Atomic uint32_t item;
};

/** worker_main() - the life of a worker; never returns
 * Sees the keys of @run->v that it needs and wipes the others; dies with its parent; ignores what a terminal sends. */
_Noreturn void worker_main(const struct convert_run *run, struct volume *v, int fd, struct worker_cell *cell);

/** barrier_main() - the process that waits for syncfs(2), so that nobody else has to: answers each byte with an int32 -errno */
_Noreturn void barrier_main(int root, int fd, pid_t parent);

#endif
