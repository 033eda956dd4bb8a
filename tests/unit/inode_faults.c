/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine on a disk that fails: errors on chosen calls, a process killed between two calls, too few descriptors, many threads; each test
 * is a bug that was there once, and at the end stands a random walk against a plain copy in memory.
 *
 * inode_faults random SEED [STEPS] replays one walk.
 */
#include "faults.h"
#include "inode_i.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h> /* has a fail() of its own */

/* A full disk under a new file that has spilled: what was there before is still there, or the new bytes are; never neither. */
static void test_spilled_overwrite_fails(void **state)
{
	static const int errors[] = {-ENOSPC, -EIO};

	for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
		struct world *w = *state;
		struct file *f = file_create(w, "spilled");

		file_write(w, f, 0, 3 << 20, 1);
		fault_set(w, FAULT_PWRITE, ON_FILE, 1, errors[i], 1);
		file_try_write(w, f, 16 * S, 32 * S, 2);
		fault_clear(w);
		file_check(w, f);
		file_close(w, f);
		assert_int_equal(store_sync(w->st), 0);
		file_reopen(w, f);
		file_check(w, f);
		file_check_at_rest(w, f);
		file_end(w, f);
	}
}

/* More dirty data than the log holds: sync takes as many rounds as it needs. */
static void test_sync_takes_all(void **state)
{
	struct world *w = *state;
	struct file *f[12];

	for (size_t i = 0; i < ARRAY_SIZE(f); i++) {
		char name[32];

		snprintf(name, sizeof(name), "all%zu", i);
		f[i] = file_create(w, name);
		file_write(w, f[i], 0, 7 << 20, (int)i);
		file_fsync(w, f[i]);
	}
	assert_int_equal(store_sync(w->st), 0);
	for (size_t i = 0; i < ARRAY_SIZE(f); i++) {
		file_write(w, f[i], 0, 7 << 20, (int)i + 100);
		file_close(w, f[i]);
	}
	assert_int_equal(store_sync(w->st), 0);
	assert_int_equal(w->st->dirty, 0);
	world_kill(w);
	for (size_t i = 0; i < ARRAY_SIZE(f); i++) {
		file_reopen(w, f[i]);
		file_check(w, f[i]);
		file_end(w, f[i]);
	}
}

static void fill_log(struct world *w)
{
	struct file *f = file_create(w, "fill");

	file_write(w, f, 0, 4 << 20, 1);
	file_fsync(w, f);
	assert_int_equal(store_sync(w->st), 0);
	for (int i = 0; i < 12; i++) {
		file_write(w, f, 0, 4 << 20, i);
		file_fsync(w, f);
	}
	file_check(w, f);
	file_end(w, f);
}

/* Unlinked while open: whatever state it is in, it must not hold the log back for ever. */
static void test_unlinked_lets_go_of_the_log(void **state)
{
	static const size_t after[] = {0, 100, 2 << 20};

	for (size_t i = 0; i < ARRAY_SIZE(after); i++) {
		struct world *w = *state;
		struct file *f = file_create(w, "gone");

		file_write(w, f, 0, 200000, 1);
		file_fsync(w, f);
		file_write(w, f, 1000, 50000, 2);
		file_fsync(w, f); /* records in the log */
		file_cut(w, f, 0);
		if (after[i])
			file_write(w, f, 0, after[i], 3);
		file_unlink(w, f);
		fill_log(w);
		file_check(w, f);
		file_write(w, f, 70000, 100000, 4);
		file_check(w, f);
		file_close(w, f);
	}
}

/* Opened, appended to and closed again, as shells and cron jobs do, thousands of times: the key is not used up by that. */
static void test_many_sessions(void **state)
{
	struct world *w = *state;
	struct file *f = file_create(w, "sessions");

	for (int i = 0; i < 2300; i++) {
		file_write(w, f, f->size, 10, i);
		file_close(w, f);
		assert_int_equal(store_sync(w->st), 0);
		file_reopen(w, f);
	}
	file_check(w, f);
	file_end(w, f);
}

/* The old content was given up, and then the new header could not be written. */
static void test_void_header_fails(void **state)
{
	struct world *w = *state;

	for (unsigned nth = 1; nth < 5; nth++) {
		struct file *f = file_create(w, "void");

		file_write(w, f, 0, 200000, 1);
		file_fsync(w, f);
		file_cut(w, f, 0);
		fault_set(w, FAULT_PWRITE, ON_FILE, nth, -EIO, 1);
		file_try_write(w, f, 0, 2 << 20, 2);
		fault_clear(w);
		file_close(w, f);
		file_reopen(w, f);
		file_cut(w, f, 0);
		file_write(w, f, 0, nth & 1 ? 100 : 3 << 20, 3);
		file_fsync(w, f);
		world_kill(w);
		file_reopen(w, f);
		file_check(w, f);
		file_end(w, f);
	}
	fill_log(w);
}

/* A new large file was closed, and its background seal met one failing sync: it is still sealed, sooner or later. */
static void test_spilled_seal_is_tried_again(void **state)
{
	struct world *w = *state;
	struct file *f = file_create(w, "again");
	unsigned before;

	file_write(w, f, 0, 5 << 20, 1);
	file_close(w, f);
	fault_set(w, FAULT_SYNC, ON_FILE, 1, -EIO, 1);
	before = w->faults.count[FAULT_PWRITE];
	assert_int_not_equal(store_sync(w->st), 0);
	fault_clear(w);
	assert_int_equal(store_sync(w->st), 0);
	assert_true(w->faults.count[FAULT_PWRITE] - before >= 10); /* all of it once more: a second sync alone proves nothing */
	world_kill(w);
	file_reopen(w, f);
	file_check(w, f);
	file_check_at_rest(w, f);
	file_end(w, f);
}

/* One byte of a stored segment flipped behind the engine's back. */
static void rot(struct world *w, struct file *f, uint64_t segment)
{
	size_t len;
	uint8_t *raw = file_raw(w, f, &len);

	raw[SECTOR + segment * (S + AEAD_OVERHEAD) + 40] ^= 4;
	file_raw_put(w, f, raw, len);
	free(raw);
}

/*
 * Segments that are damaged, or that the disk cannot read: whole overwrites and cuts mend the file, its CRC-32 as well, one segment at a
 * time and in any order.
 */
static void test_overwrite_mends(void **state)
{
	struct world *w = *state;

	for (unsigned turn = 0; turn < 6; turn++) {
		struct file *f = file_create(w, "mend");

		file_write(w, f, 0, 9 * S + 500, 1);
		file_close(w, f);
		assert_int_equal(store_sync(w->st), 0);
		if (turn <= 2) {
			rot(w, f, 2);
			rot(w, f, 7);
			rot(w, f, 9);
		}
		file_reopen(w, f);
		if (turn == 3) /* the old segment cannot be read */
			fault_set(w, FAULT_PREAD, ON_FILE, 1, -EIO, 1);
		if (turn >= 4) /* nor the next one that is looked at for the new checksum */
			fault_set(w, FAULT_PREAD, ON_FILE, 1, -EIO, 2);
		file_write(w, f, 2 * S, S, 2);
		file_fsync(w, f);
		if (turn >= 3)
			assert_int_equal(w->faults.fired, MIN(turn - 2, 2));
		fault_clear(w);
		if (turn == 1 || turn == 5) /* what the next base says is as good */
			assert_int_equal(store_sync(w->st), 0);
		if (turn == 5)
			file_check_at_rest(w, f);
		file_write(w, f, 7 * S, S, 3);
		file_fsync(w, f);
		if (turn == 2)
			file_cut(w, f, 8 * S);
		else
			file_write(w, f, 9 * S, 500, 4);
		file_fsync(w, f);
		file_check(w, f);
		if (turn == 4)
			world_kill(w); /* recovery makes the zip of what the COMMIT says */
		else
			file_close(w, f);
		assert_int_equal(store_sync(w->st), 0);
		file_check_at_rest(w, f);
		file_reopen(w, f);
		file_check(w, f);
		file_end(w, f);
	}
}

static void die(struct file *f)
{
	f->w->faults.dead = true;
}

/* Killed inside a write of the seal of a new file: it was never acknowledged, and nothing of it looks like a damaged file. */
static void test_killed_in_a_new_seal(void **state)
{
	struct world *w = *state;
	struct file *f = file_create(w, "torn");
	struct inode *got;

	file_write(w, f, 0, 200000, 1);
	fault_hook(w, FAULT_PWRITE, die, f);
	file_close(w, f);
	assert_true(w->faults.dead);
	world_kill(w);
	assert_int_equal(inode_get(w->st, w->bed.root, "torn", false, "torn", &got), -ENODATA);
	file_reopen(w, f);
	file_write(w, f, 0, 200000, 2);
	file_fsync(w, f);
	world_kill(w);
	file_reopen(w, f);
	file_check(w, f);
	file_end(w, f);
}

static void test_random(void **state)
{
	unsigned seed = getenv("TDFS_SEED") ? (unsigned)atoi(getenv("TDFS_SEED")) : (unsigned)getpid() % 100000 * 10;

	for (unsigned i = 0; i < 6; i++)
		walk(seed + i, 150);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_spilled_overwrite_fails, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_sync_takes_all, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_unlinked_lets_go_of_the_log, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_many_sessions, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_void_header_fails, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_spilled_seal_is_tried_again, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_overwrite_mends, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_killed_in_a_new_seal, setup, teardown),
	    cmocka_unit_test(test_random),
	};

	if (argc > 2 && !strcmp(argv[1], "random")) {
		for (int i = 0; i < (argc > 4 ? atoi(argv[4]) : 1); i++)
			walk((unsigned)(atoi(argv[2]) + i), argc > 3 ? (unsigned)atoi(argv[3]) : 150);
		return 0;
	}
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
