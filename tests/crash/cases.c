/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One case for each rule of the protocol: the shortest history in which a power cut breaks a promise if the rule is left out.
 *
 * cases NAME [--expect-violation]: the program is also built once for each rule with that rule switched off (-DTEST_NO_...); there the
 * violation must be seen.
 */
#include <errno.h>
#include <stdio.h>

#include "redo_int.h"
#include "report.h"
#include "world.h"

enum { A, B, C };

#define BIG (((size_t)1 << 20) + 5 * WORLD_S + 100)
#define FILL ((size_t)70 << 10)

/* a is sealed and durable, and has one commit in the log */
static void start(struct world *w)
{
	world_create(w, A);
	world_write(w, A, 0, 2 * WORLD_S + 700);
	world_fsync(w, A);
	world_write(w, A, 10, 300);
	world_fsync(w, A);
}

/* b has a commit in the log as well, which keeps what comes after from being retired */
static void start_both(struct world *w)
{
	world_create(w, B);
	world_write(w, B, 0, 3000);
	world_fsync(w, B);
	world_write(w, B, 10, 300);
	world_fsync(w, B);
	start(w);
}

static void overwrite(struct world *w, int i)
{
	world_write(w, i, WORLD_S - 50, 200);
	world_fsync(w, i);
}

/* so much of another file goes through the (small) log that both halves are used again */
static void wrap(struct world *w, int i)
{
	if (!w->files[i].exists)
		world_create(w, i);
	for (int k = 0; k < 16; k++) {
		world_write(w, i, 0, FILL);
		world_fsync(w, i);
	}
}

static void grown(struct world *w)
{
	start_both(w);
	world_seal(w, A, true);
	world_write(w, A, w->files[A].size, BIG);
}

static void lost_base(struct world *w)
{
	world_create(w, A);
	world_write(w, A, 0, 5000);
	world_close(w, A);
	world_open(w, A);
	world_write(w, A, 100, 300);
	world_fsync(w, A);
}

static void early_apply(struct world *w)
{
	start(w);
	world_write(w, A, WORLD_S - 50, 200);
	world_seal(w, A, true);
}

static void early_reuse(struct world *w)
{
	start(w);
	overwrite(w, A);
	for (int k = 0; k < 3; k++) /* logged, flushed, applied, not synced */
		world_seal_step(w, A, true);
	wrap(w, B);
}

static void drop_early(struct world *w)
{
	world_create(w, B);
	world_write(w, B, 0, FILL);
	world_fsync(w, B);
	start(w);
	world_unlink(w, A);
	wrap(w, B);
}

static void no_tail_redo(struct world *w)
{
	start(w);
	world_seal(w, A, true);
}

static void over_tail(struct world *w)
{
	world_create(w, A);
	world_write(w, A, 0, 2 * WORLD_S);
	world_fsync(w, A);
	world_write(w, A, w->files[A].size, BIG);
	world_fsync(w, A);
}

static void commit_first(struct world *w)
{
	grown(w);
	world_fsync(w, A);
}

static void no_intent(struct world *w)
{
	world_create(w, A);
	world_write(w, A, 0, 2 * WORLD_S + 700);
	world_fsync(w, A);
	world_write(w, A, w->files[A].size, BIG);
}

static void rec_cut(struct world *w)
{
	grown(w);
	world_fsync(w, A);
}

static void grow_again(struct world *w)
{
	world_write(w, A, w->files[A].size, BIG);
}

/* the growth that was committed is cut off; before that is durable another thread appends again */
static void reuse_place(struct world *w)
{
	grown(w);
	world_fsync(w, A);
	world_truncate(w, A, WORLD_S + 100);
	w->meanwhile = grow_again;
	world_fsync(w, A);
}

static void partial_place(struct world *w)
{
	start(w);
	world_write(w, A, w->files[A].size, 10);
	world_fsync(w, A);
}

static void rename_early(struct world *w)
{
	world_create(w, A);
	world_write(w, A, 0, 3000);
	world_fsync(w, A);
	world_create(w, B);
	world_write(w, B, 0, 2000);
	world_rename(w, B, A);
}

static void fsync_retry(struct world *w)
{
	start(w);
	world_write(w, A, 0, 100);
	simdisk_fail(w->disk, SIM_SYNC, 1, false, -EIO, "log.0");
	if (world_fsync(w, A))
		world_violation(w, "one failed sync of the log must not stop it");
}

/* The first group after a mount can be written in neither half: nothing is lost, and the next mount must see that. */
static void first_group(struct world *w)
{
	start(w);
	world_power_off(w);
	world_mount(w, w->disk);
	world_open(w, A);
	world_write(w, A, 0, 100);
	w->faults = true;
	simdisk_fail(w->disk, SIM_SYNC, 1, true, -EIO, "log.*");
	if (!world_fsync(w, A))
		world_violation(w, "a log that cannot be synced says it was");
}

/* The first group after a change of half fails: the log goes on behind its last group, and later both halves are used again. */
static void first_group_later(struct world *w)
{
	start_both(w);
	w->one_in = 3;
	simdisk_fail(w->disk, SIM_SYNC, 1, false, -EIO, "log.1");
	wrap(w, C);
	wrap(w, C);
	wrap(w, C);
	if (redo_is_dead(w->st->redo))
		world_violation(w, "one failed sync of the log must not stop it");
}

/* The other half has just become free, no group says so yet, and the next one cannot be written where it should. */
static void move_retired(struct world *w)
{
	start(w);
	world_create(w, C);
	while (!w->st->redo->fill->half) {
		world_write(w, C, 0, FILL);
		world_fsync(w, C);
	}
	world_seal(w, A, true);
	world_seal(w, C, true);
	world_write(w, A, 0, 100);
	w->faults = true;
	simdisk_fail(w->disk, SIM_WRITE, 1, false, -EIO, "log.1");
	if (world_fsync(w, A))
		w->failed = true;
}

static void apply_retry(struct world *w)
{
	start(w);
	overwrite(w, A);
	simdisk_fail(w->disk, SIM_SYNC, 1, false, -EIO, "a");
	world_seal(w, A, true);
	wrap(w, B);
}

static void rec_early(struct world *w)
{
	start(w);
	world_write(w, A, w->files[A].size, 10);
	world_fsync(w, A);
}

static void rec_chain(struct world *w)
{
	start(w);
	overwrite(w, A);
	world_seal_step(w, A, true);
	world_seal_step(w, A, true); /* logged and flushed, not applied */
	world_write(w, A, w->files[A].size, 10);
	world_fsync(w, A);
}

static void one_flush_new(struct world *w)
{
	world_create(w, B);
	world_write(w, B, 0, BIG);
	world_fsync(w, B);
}

/* a is sealed, and a copy of it with other segments is complete but for what is written last */
static void copied(struct world *w)
{
	start(w);
	world_write(w, A, 0, 5 * WORLD_S + 700);
	world_seal(w, A, true);
	world_reseg(w, A, 2, UINT64_MAX);
	world_write(w, A, WORLD_S + 5, 300);
	world_write(w, A, w->files[A].size, 200);
	world_fsync(w, A);
}

static void whole_first(struct world *w)
{
	copied(w);
	world_seal(w, A, true);
}

/* ... and what was written meanwhile is in it */
static void whole_marked(struct world *w)
{
	copied(w);
	world_seal(w, A, true);
	world_close(w, A);
	world_open(w, A);
	world_fsync(w, A);
}

static void whole_kept(struct world *w)
{
	copied(w);
	for (int k = 0; k < 2; k++)
		world_seal_step(w, A, true);
	world_reseg(w, A, 1, 2 * WORLD_S); /* a piece of it is in place */
	world_write(w, A, 3 * WORLD_S, 100);
	world_fsync(w, A); /* on the new base */
	world_write(w, A, 10, 100);
	world_seal(w, A, true);
	world_seal(w, A, true);
	world_unlink(w, A);
}

/* What is read from the file of @files beside the log of @log, which is of another time or history? */
static void mixed(struct world *w, struct simdisk *files, struct simdisk *log, const uint64_t *ok, size_t n, const char *what)
{
	struct simdisk *d = simdisk_copy(log);
	uint64_t before = w->violations;
	struct states *s = &w->files[A].ok;

	if (simdisk_graft(d, files, "a"))
		world_violation(w, "%s: no file", what);
	free(s->hash);
	*s = (struct states){.hash = malloc(n * sizeof(*ok)), .n = n, .cap = n};
	memcpy(s->hash, ok, n * sizeof(*ok));
	world_check(w, d, 0);
	if (w->violations != before)
		fprintf(stderr, "%s\n", what);
}

static struct simdisk *durable(struct world *w)
{
	struct simdisk *d = simdisk_copy(w->disk);

	simdisk_sync(d);
	return d;
}

static uint64_t content(struct world *w)
{
	return world_hash(w->files[A].plain, w->files[A].size);
}

static void g_only(struct world *w)
{
	struct world *v = world_new(w->mode, w->live_mark, false, 77);
	struct simdisk *first, *live, *now, *other;
	uint64_t at_first, at_live[2], at_now, at_other;

	w->per_point = v->per_point = 0;
	world_create(w, A);
	world_write(w, A, 0, 3 * WORLD_S);
	world_fsync(w, A);
	first = durable(w); /* generation 1, nothing in the log */
	at_first = content(w);
	world_write(w, A, 5, 100);
	world_fsync(w, A);
	world_seal(w, A, true); /* generation 2 */
	at_live[0] = content(w);
	world_write(w, A, 2 * WORLD_S + 7, 100);
	world_fsync(w, A);
	live = durable(w); /* and a commit on it */
	at_live[1] = content(w);
	world_seal(w, A, true);
	now = durable(w);
	at_now = content(w);
	/* the same file restored, and another generation 2 made of it */
	world_power_off(v);
	simdisk_free(v->disk);
	world_mount(v, simdisk_copy(first));
	v->files[A].exists = true;
	v->files[A].size = v->files[A].cap = w->files[A].size;
	if (world_read(v->st, v->root, "a", &at_other, &v->files[A].plain, &v->files[A].size) || at_other != at_first)
		world_violation(w, "the copy does not read as it was");
	world_open(v, A);
	world_write(v, A, WORLD_S + 9, 100);
	world_fsync(v, A);
	world_seal(v, A, true);
	other = durable(v);
	at_other = content(v);
	mixed(w, now, live, (uint64_t[]){at_now}, 1, "newer file, older log");
	mixed(w, now, first, (uint64_t[]){at_now}, 1, "newer file, empty log");
	mixed(w, first, now, (uint64_t[]){at_first, at_live[0], at_live[1]}, 3, "restored file, newer log");
	mixed(w, other, live, (uint64_t[]){at_other}, 1, "file and log of two histories");
	simdisk_free(first);
	simdisk_free(live);
	simdisk_free(now);
	simdisk_free(other);
	world_free(v);
}

static const struct test_case {
	const char *name;
	void (*run)(struct world *w);
	bool small;
} cases[] = {
    {"lost-base", lost_base, false},
    {"early-apply", early_apply, false},
    {"early-reuse", early_reuse, true},
    {"drop-early", drop_early, true},
    {"no-tail-redo", no_tail_redo, false},
    {"over-tail", over_tail, false},
    {"commit-first", commit_first, false},
    {"no-intent", no_intent, false},
    {"rec-cut", rec_cut, false},
    {"reuse-place", reuse_place, false},
    {"partial-place", partial_place, false},
    {"g-only", g_only, false},
    {"rename-early", rename_early, false},
    {"fsync-retry", fsync_retry, false},
    {"apply-retry", apply_retry, true},
    {"first-group", first_group, false},
    {"first-group-later", first_group_later, true},
    {"move-retired", move_retired, true},
    {"rec-early", rec_early, false},
    {"rec-chain", rec_chain, false},
    {"one-flush-new", one_flush_new, false},
    {"whole-first", whole_first, false},
    {"whole-marked", whole_marked, false},
    {"whole-kept", whole_kept, false},
};

static unsigned run_case(const struct test_case *c, bool expect)
{
	unsigned bad = 0;
	uint64_t states = 0;

	for (int mode = 0; mode < 4 && !(expect && bad); mode++) {
		/* the LIVE mark tells a lost log: with it some violations show as EIO, without it as old data */
		struct world *w = world_new(mode & 1 ? SIM_POSIX : SIM_EXT4, mode & 2, c->small, 1 + (uint64_t)mode);

		w->per_point = 4;
		c->run(w);
		if (w->per_point)
			world_look(w, 60);
		if (w->violations)
			printf("%-14s %s\n", c->name, w->why);
		bad += w->violations != 0;
		states += w->states;
		world_free(w);
	}
	printf("%-14s %s, %llu crash states\n", c->name, bad ? "BROKEN" : "kept", (unsigned long long)states);
	return bad;
}

int main(int argc, char **argv)
{
	bool expect = argc > 2 && !strcmp(argv[2], "--expect-violation"), known = false;
	unsigned bad = 0;

	world_setup();
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		if (argc > 1 && strcmp(argv[1], cases[i].name) && strcmp(argv[1], "all"))
			continue;
		known = true;
		bad += run_case(&cases[i], expect);
	}
	world_teardown();
	if (!known) {
		fprintf(stderr, "no such case\n");
		return 2;
	}
	return expect ? !bad : bad != 0;
}
