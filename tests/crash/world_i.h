/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of the crash tests' world: world.c looks, world_ops.c acts. */
#ifndef TDFS_CRASH_WORLD_I_H
#define TDFS_CRASH_WORLD_I_H

#include <stdio.h>

#include "report.h"
#include "world.h"

extern bool world_tracing;

#define MUST(call)                                                                                                       \
	do {                                                                                                             \
		int must_ = (call);                                                                                      \
		if (must_ < 0) {                                                                                         \
			fprintf(stderr, "%s:%d: %s: %s %s\n", __FILE__, __LINE__, #call, strerror(-must_), fail_text()); \
			abort();                                                                                         \
		}                                                                                                        \
	} while (0)

#define TRACE(w, fmt, ...)                                           \
	do {                                                         \
		if (world_tracing)                                   \
			fprintf(stderr, "  " fmt "\n", __VA_ARGS__); \
	} while (0)

/* With faults, an operation may fail: the world then stands still, and what was promised must still hold. */
#define TRY(w, call)                          \
	do {                                  \
		int try_ = (call);            \
		if (try_ < 0 && !(w)->faults) \
			MUST(try_);           \
		if (try_ < 0) {               \
			(w)->failed = true;   \
			return;               \
		}                             \
	} while (0)

void world_states_add(struct states *s, uint64_t hash);
/* nothing but the present content of a file may be seen */
void world_only_current(struct world *w, int i);

#endif
