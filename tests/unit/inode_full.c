/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The disk is full when the kernel writes pages back, whose writer has been told long ago that they are written: either the file has them
 * from then on, and no fsync says 0 without them, or it says that it has not.
 */
#include "faults.h"
#include "inode_i.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h> /* has a fail() of its own */

#define LOTS 1000000u
#define OLD 100000u
#define MORE 60000u

/* Not a byte any more, neither by reserving nor by writing; the log stands already */
static void disk_full(struct world *w, enum fault_op op)
{
	fault_set(w, op, ON_FILE, 1, -ENOSPC, LOTS);
}

static struct file *sealed(struct world *w, const char *name)
{
	struct file *f = file_create(w, name);

	file_write(w, f, 0, OLD, 1);
	file_fsync(w, f);
	assert_int_equal(store_sync(w->st), 0);
	return f;
}

/* What is known of the file is there after a kill, and at rest */
static void survives_kill(struct world *w, struct file *f)
{
	world_kill(w);
	file_reopen(w, f);
	file_check(w, f);
	assert_int_equal(store_sync(w->st), 0);
	file_check_at_rest(w, f);
}

/* What file_write() does, by a page that is written back: the answer, and whether the file has it */
static int write_back(struct file *f, uint64_t len, int seed, bool *ret_taken)
{
	int err;

	fill(f->plain + f->size, len, seed);
	err = inode_write_back(f->f, f->plain + f->size, len, f->size, ret_taken);
	if (*ret_taken)
		f->size += len;
	return err;
}

static void test_kept(void **state)
{
	struct world *w = *state;
	struct file *f = sealed(w, "kept");
	uint64_t seals;
	bool taken;

	disk_full(w, FAULT_ALLOCATE);
	assert_int_equal(write_back(f, 3 * MORE, 2, &taken), -ENOSPC); /* its writer is told */
	assert_true(taken);
	file_check(w, f); /* everybody reads it */
	for (int i = 0; i < 3; i++)
		assert_int_equal(inode_fsync(f->f, false), -ENOSPC); /* each time */
	seals = w->st->n_seals;
	assert_int_equal(store_sync(w->st), -ENOSPC);
	assert_int_equal(w->st->n_seals, seals);
	fault_clear(w);
	file_fsync(w, f);
	survives_kill(w, f);
	file_end(w, f);
}

/* Somebody writes with write(2) instead: that one is told, and nothing is changed. */
static void test_not_asked_for(void **state)
{
	struct world *w = *state;
	struct file *f = sealed(w, "told");
	uint8_t more[5000] = {7};

	disk_full(w, FAULT_ALLOCATE);
	assert_int_equal(inode_write(f->f, more, sizeof(more), OLD + 400000), -ENOSPC);
	file_check(w, f);
	assert_int_equal(inode_fsync(f->f, false), 0);
	fault_clear(w);
	file_end(w, f);
}

/* What is committed is sealed meanwhile and lets go of the log, and that seal does not take the blocks for paid that are owed. */
static void test_seal_meanwhile(void **state)
{
	struct world *w = *state;
	struct file *f = sealed(w, "meanwhile");
	bool taken;

	file_write(w, f, 1000, 2000, 3);
	file_fsync(w, f);
	assert_true(f->f->pin.runs);
	disk_full(w, FAULT_ALLOCATE);
	assert_int_equal(write_back(f, 7 * MORE, 4, &taken), -ENOSPC);
	assert_true(taken);
	assert_int_equal(store_sync(w->st), -ENOSPC);
	assert_false(f->f->pin.runs);
	file_check(w, f);
	assert_int_equal(inode_fsync(f->f, false), -ENOSPC);
	assert_int_equal(inode_fsync(f->f, false), -ENOSPC);
	fault_clear(w);
	file_fsync(w, f);
	assert_int_equal(store_sync(w->st), 0);
	file_check_at_rest(w, f);
	file_end(w, f);
}

/* Memory has an end, and what lies beyond a gap is no part of the file. */
static void test_refused(void **state)
{
	struct world *w = *state;
	struct file *f = sealed(w, "refused");
	uint8_t more[100] = {7};
	bool taken = true;
	unsigned n;
	int err = 0;

	disk_full(w, FAULT_ALLOCATE);
	assert_int_equal(inode_write_back(f->f, more, sizeof(more), OLD + (2 << 20), &taken), -ENOSPC);
	assert_false(taken);
	file_check(w, f);
	for (n = 0; n < 40; n++) {
		err = write_back(f, 256 << 10, (int)n, &taken);
		assert_int_equal(err, -ENOSPC);
		if (!taken)
			break;
	}
	assert_in_range(n, 8, 24);
	assert_in_range(f->f->dirty, 1 << 20, 2 * DIRTY_MAX);
	file_check(w, f);
	fault_clear(w);
	file_fsync(w, f);
	world_kill(w);
	file_reopen(w, f);
	file_check(w, f);
	file_end(w, f);
}

/* What is cut off again is owed no more; cut to nothing it is another content. */
static void test_cut(void **state)
{
	struct world *w = *state;
	struct file *f = sealed(w, "cut");
	bool taken;

	for (int i = 0; i < 2; i++) {
		disk_full(w, FAULT_ALLOCATE);
		assert_int_equal(write_back(f, 9 * MORE, 5, &taken), -ENOSPC);
		assert_true(taken);
		file_cut(w, f, i ? 0 : OLD / 2);
		assert_int_equal(inode_fsync(f->f, false), 0);
		fault_clear(w);
		assert_int_equal(store_sync(w->st), 0);
		file_check_at_rest(w, f);
		file_write(w, f, 0, OLD, 6);
		file_fsync(w, f);
		assert_int_equal(store_sync(w->st), 0);
	}
	file_end(w, f);
}

/* New files: closed while the disk is full they wait in memory, whole. */
static void test_new(void **state)
{
	static const uint64_t lens[] = {MORE, 1 << 20, 3 << 20};

	for (size_t i = 0; i < ARRAY_SIZE(lens); i++) {
		struct world *w = *state;
		struct file *f = file_create(w, "new");
		uint64_t len = lens[i];
		bool taken = true;

		if (len > NEW_MEMORY_MAX) /* it has spilled when the disk becomes full */
			file_write(w, f, 0, 2 << 20, 8);
		disk_full(w, FAULT_PWRITE);
		while (f->size < len && taken)
			(void)!write_back(f, MIN(len - f->size, 256 << 10), 9, &taken);
		assert_true(taken);
		assert_int_equal(inode_fsync(f->f, false), -ENOSPC);
		file_check(w, f);
		assert_int_equal(store_sync(w->st), -ENOSPC);
		fault_clear(w);
		file_fsync(w, f);
		file_close(w, f);
		world_kill(w);
		file_reopen(w, f);
		file_check(w, f);
		file_end(w, f);
	}
}

/* It is not tried by writing: that would take the last blocks away from the log, and a kill would leave a part of the file with its header.
 */
static void test_new_waits(void **state)
{
	struct world *w = *state;
	struct file *f = file_create(w, "waits");
	unsigned writes;
	bool taken;

	disk_full(w, FAULT_ALLOCATE);
	assert_int_equal(write_back(f, MORE, 10, &taken), -ENOSPC);
	assert_true(taken);
	writes = w->faults.count[FAULT_PWRITE];
	assert_int_equal(inode_fsync(f->f, false), -ENOSPC);
	assert_int_equal(store_sync(w->st), -ENOSPC);
	assert_int_equal(w->faults.count[FAULT_PWRITE], writes);
	file_check(w, f);
	fault_clear(w);
	file_fsync(w, f);
	world_kill(w);
	file_reopen(w, f);
	file_check(w, f);
	file_end(w, f);
}

/* The log, though it stands, is refused room as well (btrfs): each fsync says so, nothing is lost, and it goes on. */
static void test_log_refused(void **state)
{
	static const int errors[] = {-ENOSPC, -EDQUOT};
	struct world *w = *state;
	struct file *f = sealed(w, "log");

	for (unsigned i = 0; i < ARRAY_SIZE(errors); i++) {
		fault_set(w, FAULT_PWRITE, ON_LOG, 1, errors[i], LOTS);
		file_write(w, f, 7, OLD / 2, 5 + (int)i);
		for (int k = 0; k < 3; k++) {
			assert_int_equal(inode_fsync(f->f, false), errors[i]);
			file_check(w, f);
		}
		assert_int_equal(store_sync(w->st), errors[i]);
		file_write(w, f, OLD / 2, OLD / 4, 9);
		assert_int_equal(inode_fsync(f->f, false), errors[i]);
		file_check(w, f);
		assert_true(w->faults.fired > 5);
		assert_false(w->st->failed);
		fault_set(w, FAULT_PWRITE, ON_LOG, 1, errors[i], 1); /* once more, and then there is room */
		file_fsync(w, f);
		assert_int_equal(w->faults.fired, 1);
		survives_kill(w, f);
	}
	file_end(w, f);
}

/* Neither is an acknowledged state lost to records that were never acknowledged. */
static void test_log_refused_kill(void **state)
{
	struct world *w = *state;
	struct file *f = sealed(w, "log");

	fault_set(w, FAULT_PWRITE, ON_LOG, 1, -ENOSPC, LOTS);
	file_write(w, f, 0, 10, 2);
	assert_int_equal(inode_fsync(f->f, false), -ENOSPC);
	assert_int_equal(store_sync(w->st), -ENOSPC);
	world_kill(w);
	fill(f->plain, OLD, 1);
	file_reopen(w, f);
	file_check(w, f);
	file_end(w, f);
}

/* The record that gives the old content up is refused, but stays: what is small again may not be sealed on a base that is given up. */
static void test_void_refused(void **state)
{
	struct world *w = *state;
	struct file *f = sealed(w, "void");
	static uint8_t much[3 << 19];

	for (int seals = 0; seals < 2; seals++) {
		file_cut(w, f, 0);
		fault_set(w, FAULT_PWRITE, ON_LOG, 1, -ENOSPC, LOTS);
		assert_int_equal(inode_write(f->f, much, sizeof(much), 0), -ENOSPC);
		assert_true(w->faults.fired > 0);
		file_cut(w, f, 0);
		file_write(w, f, 0, 1000, 3 + seals);
		assert_int_equal(inode_fsync(f->f, false), -ENOSPC);
		fault_clear(w);
		if (seals)
			assert_int_equal(store_sync(w->st), 0);
		else
			file_fsync(w, f);
		survives_kill(w, f);
	}
	file_end(w, f);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_kept, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_not_asked_for, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_seal_meanwhile, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_cut, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_new, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_new_waits, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_log_refused, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_log_refused_kill, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_void_refused, setup, teardown),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
