/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of the random walk: walk.c knows what each file must be, walk_steps.c changes it. */
#ifndef TDFS_TEST_WALK_I_H
#define TDFS_TEST_WALK_I_H

#include "faults.h"

#define FILES 4
#define STATES 4096
#define SIZE_MOST (3u << 20)

struct shadow {
	struct file *file;
	bool known; /* there is a name */
	bool may_be_void;
	struct {
		uint64_t size;
		uint32_t crc;
	} state[STATES]; /* since the last fsync; the first is the synced one */
	size_t n;
};

struct walk {
	struct world *w;
	struct shadow s[FILES];
	unsigned seed, step;
	bool log_failed; /* since the last start: twice may be once too often for its two halves */
	char what[200];
};

#define WCHECK(k, x)                                                                                                                      \
	do {                                                                                                                              \
		if (!(x)) {                                                                                                               \
			fprintf(stderr, "seed %u step %u, %s: %s:%d: %s (%s)\n", (k)->seed, (k)->step, (k)->what, __FILE__, __LINE__, #x, \
				fail_text());                                                                                             \
			abort();                                                                                                          \
		}                                                                                                                         \
	} while (0)

/* walk.c */
void walk_note(struct walk *k, struct shadow *s);
void walk_synced(struct walk *k, struct shadow *s);
void walk_adopt(struct walk *k, struct shadow *s, const uint8_t *want, uint64_t want_size);
void walk_open_file(struct walk *k, struct shadow *s);
void walk_adopt_all(struct walk *k);
void walk_recheck(struct walk *k, bool clean);

/* walk_steps.c */
void maybe_fault(struct walk *k);
void step_write(struct walk *k, struct shadow *s);
void step_truncate(struct walk *k, struct shadow *s);
void step_fsync(struct walk *k, struct shadow *s);
void step_create(struct walk *k, struct shadow *s, unsigned i);
void step_close(struct walk *k, struct shadow *s);
void step_rename(struct walk *k, struct shadow *s, struct shadow *over);
void step_seal(struct walk *k, struct shadow *s);
void step_reseg(struct walk *k, struct shadow *s);
void step_sync(struct walk *k);
void step_link(struct walk *k, struct shadow *s);
void step_restart(struct walk *k, bool kill);

#endif
