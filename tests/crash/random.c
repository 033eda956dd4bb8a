/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random operations, power cuts at random moments, recovery, power cuts inside recovery, and on with what is left.
 * random [--seed N] [--states N] [--faults 1] [--trace 1]: exit 1 and the seed if a promise is broken.
 * With faults one call of the disk fails in each run; the history ends with the first operation that fails for it, unless it is a sync
 * for which the log had no room.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "report.h"
#include "world.h"

static size_t random_len(struct world *w)
{
	switch (simdisk_random(&w->rnd) % 8) {
	case 0:
		return 1;
	case 1:
		return WORLD_S;
	case 2:
		return 2 * WORLD_S + simdisk_random(&w->rnd) % WORLD_S;
	default:
		return 1 + simdisk_random(&w->rnd) % 9000;
	}
}

static void change(struct world *w, int i)
{
	struct wfile *x = &w->files[i];
	uint64_t r = simdisk_random(&w->rnd) % 100, at = simdisk_random(&w->rnd) % (x->size + 1);

	/* with a small log only what fits into half of it */
	if (w->small && r >= 10 && r < 19)
		r = 50;
	if (x->size > (w->small ? (uint64_t)120 << 10 : (uint64_t)2 << 20) || r < 4)
		world_truncate(w, i, at);
	else if (r < 8)
		world_truncate(w, i, x->size + simdisk_random(&w->rnd) % 50000);
	else if (r < 10)
		world_truncate(w, i, 0);
	else if (r < 16) /* large: spills, or grows in place */
		world_write(w, i, x->size, ((size_t)1 << 20) + simdisk_random(&w->rnd) % ((size_t)300 << 10));
	else if (r < 19)
		world_write(w, i, at, ((size_t)300 << 10) + random_len(w));
	else if (r < 50)
		world_write(w, i, x->size, random_len(w));
	else
		world_write(w, i, at, random_len(w));
}

/* Another thread's change while an fsync waits for the disk; small, so that it has no reason to wait for the log itself. */
static void meanwhile(struct world *w)
{
	struct wfile *x = &w->files[simdisk_random(&w->rnd) % WORLD_FILES];

	if (x->f && x->size < (uint64_t)500 << 10)
		world_write(w, (int)(x - w->files), simdisk_random(&w->rnd) % (x->size + 1), 1 + simdisk_random(&w->rnd) % 20000);
}

static void names(struct world *w, int i)
{
	int j = (i + 1 + (int)(simdisk_random(&w->rnd) % (WORLD_FILES - 1))) % WORLD_FILES;

	if (simdisk_random(&w->rnd) % 3)
		world_rename(w, i, j);
	else
		world_unlink(w, i);
}

/* What was told an error stays as it is, and everything goes on. */
static void room_again(struct world *w)
{
	if (redo_is_dead(w->st->redo) || w->st->failed)
		world_violation(w, "a log that was refused room is given up");
	if (simdisk_random(&w->rnd) % 2) /* else each operation is told for a while */
		return;
	simdisk_fail(w->disk, SIM_WRITE, 0, false, 0, NULL);
	w->log_full = false;
}

static void one_operation(struct world *w)
{
	int i = (int)(simdisk_random(&w->rnd) % WORLD_FILES);
	struct wfile *x = &w->files[i];
	uint64_t r = simdisk_random(&w->rnd) % 100;
	int err = 0;

	/* a small log is there to be full: hardly any seal but those that it asks for itself */
	if (w->small && (r < 2 || (r >= 77 && x->f)) && simdisk_random(&w->rnd) % 16)
		r = 50 + r % 16;
	if (r < 2) {
		world_sync(w);
	} else if (!x->exists) {
		if (r < 50)
			world_create(w, i);
	} else if (!x->f) {
		if (r < 20)
			names(w, i);
		else if (r < 35)
			world_seal(w, i, true);
		else
			world_open(w, i);
	} else if (r < 50) {
		change(w, i);
	} else if (r < 66) {
		w->meanwhile = r < 54 ? meanwhile : NULL;
		err = world_fsync(w, i);
		w->meanwhile = NULL;
	} else if (r < 72) {
		world_close(w, i);
	} else if (r < 77) {
		names(w, i);
	} else if (r < 86) {
		world_reseg(w, i, 1u << simdisk_random(&w->rnd) % 3, 1 + simdisk_random(&w->rnd) % ((uint64_t)512 << 10));
	} else if (r < 89) {
		world_seal(w, i, simdisk_random(&w->rnd) & 1);
	} else {
		world_seal_step(w, i, simdisk_random(&w->rnd) & 1);
	}
	if (err && w->log_full && (err == -ENOSPC || err == -EDQUOT))
		room_again(w);
	else if (err && w->faults)
		w->failed = true;
	else if (err)
		world_violation(w, "fsync of %s fails without a reason: %s: %s", x->name, strerror(-err), fail_text());
}

/* One call somewhere ahead fails, of the log or of any file. */
static void plan_fault(struct world *w)
{
	static const char *const names[] = {NULL, NULL, "log.0", "log.1", "a", "b", "whole-*"};
	static const enum sim_call calls[] = {SIM_SYNC, SIM_SYNC, SIM_SYNC, SIM_SYNCFS, SIM_WRITE, SIM_OTHER};
	enum sim_call call = calls[simdisk_random(&w->rnd) % ARRAY_SIZE(calls)];
	unsigned nth = 1 + (unsigned)(simdisk_random(&w->rnd) % (call == SIM_SYNC ? 30 : 60));

	w->faults = true;
	if (simdisk_random(&w->rnd) % 4 == 0) { /* no room for a while */
		w->log_full = true;
		simdisk_fail(w->disk, SIM_WRITE, 1 + nth % 8, true, nth & 1 ? -ENOSPC : -EDQUOT, "log.*");
		return;
	}
	if (simdisk_random(&w->rnd) % 4 == 0) { /* the log, for good, perhaps from the first group on */
		simdisk_fail(w->disk, SIM_SYNC, 1 + nth % 8, true, -EIO, "log.*");
		return;
	}
	simdisk_fail(w->disk, call, nth, false, call == SIM_WRITE || call == SIM_OTHER ? -ENOSPC : -EIO,
		     names[simdisk_random(&w->rnd) % ARRAY_SIZE(names)]);
}

static int run(uint64_t seed, bool faults, uint64_t *ret_states)
{
	struct world *w = world_new(seed & 1 ? SIM_POSIX : SIM_EXT4, seed & 2, seed & 4, seed);
	uint64_t ops = (w->small ? 150 : 20) + simdisk_random(&w->rnd) % (w->small ? 200 : 100);

	w->per_point = 1;
	w->one_in = (w->small ? 6 : 1) + (unsigned)(simdisk_random(&w->rnd) % 4);
	if (faults && simdisk_random(&w->rnd) & 1) { /* a log that was used before */
		for (uint64_t k = 0; k < ops / 2 && !w->violations; k++)
			one_operation(w);
		world_crash(w);
	}
	if (faults)
		plan_fault(w);
	for (uint64_t k = 0; k < ops && !w->violations && !w->failed; k++) {
		one_operation(w);
		if (!faults && !(simdisk_random(&w->rnd) % (w->small ? 200 : 40))) {
			world_look(w, 1);
			world_crash(w);
		}
	}
	if (!w->violations)
		world_look(w, 4);
	*ret_states += w->states;
	if (w->violations)
		fprintf(stderr, "seed %llu: %s\n", (unsigned long long)seed, w->why);
	int bad = w->violations != 0;

	world_free(w);
	return bad;
}

int main(int argc, char **argv)
{
	uint64_t seed = 1, want = 5000, states = 0;
	bool faults = false;
	unsigned bad = 0;

	for (int i = 1; i + 1 < argc; i += 2) {
		if (!strcmp(argv[i], "--seed"))
			seed = strtoull(argv[i + 1], NULL, 0);
		else if (!strcmp(argv[i], "--states"))
			want = strtoull(argv[i + 1], NULL, 0);
		else if (!strcmp(argv[i], "--faults"))
			faults = true;
		else if (!strcmp(argv[i], "--trace"))
			world_trace();
	}
	world_setup();
	for (uint64_t s = seed; states < want && bad < 5; s++)
		bad += (unsigned)run(s, faults, &states);
	world_teardown();
	printf("%llu crash states from seed %llu on: %u broken promises\n", (unsigned long long)states, (unsigned long long)seed, bad);
	return bad != 0;
}
