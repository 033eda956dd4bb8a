/* SPDX-License-Identifier: Apache-2.0 */
/* A file gets other segments and another key while it is in use, in the same inode. */
#include "reseg_setup.h"

/* Written to all over while it is copied: content, names and inode stay, everything else is new. */
static void test_in_use(void **state)
{
	struct world *w = *state;
	struct file *f = sealed_file(w, "a");
	struct stat before = stat_of(f), after;
	uint32_t sizes[] = {2 * S, 16 * S, 16 * S};

	assert_int_equal(linkat(w->bed.root, "a", w->bed.root, "b", 0), 0);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct record r = record_of(f);
		uint64_t pieces = 0;

		assert_int_equal(begin(f, sizes[i]), 0);
		assert_int_equal(begin(f, sizes[i]), -EALREADY);
		assert_int_equal(n_copies(w), 1);
		for (bool ready = false; !ready; pieces++) {
			file_write(w, f, random_below(w, f->size), 1 + random_below(w, 40000), (int)(i + pieces));
			if (pieces == 5)
				file_cut(w, f, f->size / 2);
			if (pieces % 3 == 0)
				file_fsync(w, f);
			if (pieces == 7)
				file_write(w, f, f->size, 300000, 9);
			ready = build(f, 3 * S);
			file_check(w, f);
		}
		assert_true(pieces > 3);
		file_write(w, f, 5, 10, 7);
		file_write(w, f, f->size, 1000, 8);
		seal(f);
		assert_int_equal(n_copies(w), 0);
		file_check(w, f);
		file_check_at_rest(w, f);
		assert_int_equal(record_of(f).s, sizes[i]);
		assert_true(record_of(f).generation > r.generation);
		assert_true(record_of(f).invocations < 1000);
		assert_memory_equal(record_of(f).file_id, r.file_id, ID_LEN);
		assert_memory_not_equal(record_of(f).seal, r.seal, 32);
		file_write(w, f, 100000, 50000, 3);
		file_write(w, f, f->size, 100, 4);
		seal(f);
		file_check_at_rest(w, f);
	}
	after = stat_of(f);
	assert_int_equal(after.st_ino, before.st_ino);
	assert_int_equal(after.st_nlink, 2);
	assert_int_equal(begin(f, sizes[2] + 1), -EINVAL);  /* no multiple */
	assert_int_equal(begin(f, sizes[2] * 16), -EINVAL); /* too large */
	world_restart(w);
	file_reopen(w, f);
	file_check(w, f);
	finish(f);
	assert_int_equal(unlinkat(w->bed.root, "b", 0), 0);
}

/* The SEAL stands in the log; the file is copied into its place a piece at a time.  What is written meanwhile is on the new base. */
static void test_on_its_way(void **state)
{
	struct world *w = *state;
	struct file *f = sealed_file(w, "a");
	struct store *st = w->st;
	uint64_t lsn = 0;

	file_write(w, f, 70000, 100, 2);
	file_fsync(w, f); /* in the log, and superseded by what comes */
	assert_int_equal(begin(f, 16 * S), 0);
	while (!build(f, UINT64_MAX))
		;
	mutex_lock(&st->seal_lock);
	assert_int_equal(seal_log(f->f, true, &lsn), 0);
	mutex_unlock(&st->seal_lock);
	assert_true(lsn && seal_pending(f->f));
	file_check(w, f);
	file_write(w, f, 10, 20, 3);
	file_write(w, f, f->size, 2 << 20, 3); /* too early to go in place */
	file_fsync(w, f);
	file_check(w, f);
	world_kill(w);
	file_reopen(w, f);
	file_check(w, f);
	assert_int_equal(n_copies(w), 0);
	assert_int_equal(record_of(f).s, 16 * S);
	file_write(w, f, 12, 20, 4);
	file_fsync(w, f);
	world_restart(w);
	file_reopen(w, f);
	file_check(w, f);
	file_check_at_rest(w, f);
	finish(f);
}

/* The disk fails the sync of what was copied into place: all of it is written again. */
static void test_failed_sync(void **state)
{
	struct world *w = *state;
	struct file *f = sealed_file(w, "a");

	assert_int_equal(begin(f, 4 * S), 0);
	while (!build(f, UINT64_MAX))
		;
	fault_set(w, FAULT_SYNC, ON_FILE, 2, -EIO, 1); /* the first is that of the copy */
	seal(f);
	assert_int_equal(w->faults.fired, 1);
	fault_clear(w);
	file_check(w, f);
	file_check_at_rest(w, f);
	assert_int_equal(record_of(f).s, 4 * S);

	/* that of the copy itself: it is given up, the file goes on as it is */
	assert_int_equal(begin(f, 8 * S), 0);
	while (!build(f, UINT64_MAX))
		;
	file_write(w, f, 3, 10, 5);
	fault_set(w, FAULT_SYNC, ON_FILE, 1, -EIO, 1);
	seal(f);
	fault_clear(w);
	assert_int_equal(n_copies(w), 0);
	file_check(w, f);
	file_check_at_rest(w, f);
	assert_int_equal(record_of(f).s, 4 * S);
	finish(f);
}

static void test_given_up(void **state)
{
	struct world *w = *state;
	struct file *f = sealed_file(w, "a");
	bool ready;

	/* no room for a second copy */
	fault_set(w, FAULT_ALLOCATE, ON_FILE, 1, -ENOSPC, 1);
	assert_int_equal(begin(f, 16 * S), -ENOSPC);
	fault_clear(w);
	assert_int_equal(n_copies(w), 0);
	/* replaced */
	assert_int_equal(begin(f, 16 * S), 0);
	assert_false(build(f, 20 * S));
	file_cut(w, f, 0);
	file_write(w, f, 0, 5000, 2);
	mutex_lock(&w->st->seal_lock);
	assert_int_equal(reseg_build(f->f, UINT64_MAX, &ready), -ECANCELED);
	mutex_unlock(&w->st->seal_lock);
	assert_int_equal(n_copies(w), 0);
	seal(f);
	file_check_at_rest(w, f);
	assert_int_equal(record_of(f).s, S);
	/* closed in the middle */
	assert_int_equal(begin(f, 16 * S), 0);
	file_close(w, f);
	assert_int_equal(n_copies(w), 1);
	world_restart(w);
	assert_int_equal(n_copies(w), 0);
	file_reopen(w, f);
	file_check(w, f);
	/* killed in the middle */
	file_write(w, f, 0, SIZE, 2);
	file_fsync(w, f);
	assert_int_equal(begin(f, 16 * S), 0);
	assert_false(build(f, 20 * S));
	world_kill(w);
	assert_int_equal(n_copies(w), 0);
	file_reopen(w, f);
	file_check(w, f);
	/* removed in the middle of either */
	assert_int_equal(begin(f, 16 * S), 0);
	file_unlink(w, f);
	file_check(w, f);
	file_close(w, f);
	assert_int_equal(n_copies(w), 0);
	f = sealed_file(w, "c");
	assert_int_equal(begin(f, 16 * S), 0);
	while (!build(f, UINT64_MAX))
		;
	mutex_lock(&w->st->seal_lock);
	assert_int_equal(seal_log(f->f, true, &(uint64_t){0}), 0);
	mutex_unlock(&w->st->seal_lock);
	assert_int_equal(n_copies(w), 1);
	file_unlink(w, f);
	file_check(w, f);
	file_close(w, f);
	assert_int_equal(n_copies(w), 0);
}

/* A damaged segment: nothing is made of it, and it is not tried for ever. */
static void test_damaged(void **state)
{
	struct world *w = *state;
	struct file *f = sealed_file(w, "a");
	uint8_t *raw, b[10];
	size_t len;
	bool ready;

	file_close(w, f);
	world_restart(w);
	raw = file_raw(w, f, &len);
	raw[SECTOR + 40 * (S + 28) + 50] ^= 1;
	file_raw_put(w, f, raw, len);
	free(raw);
	file_reopen(w, f);
	assert_int_equal(inode_write(f->f, "x", 1, 0), 0);
	assert_int_equal(inode_fsync(f->f, true), 0);
	f->f->invocations = RESEG_KEY_USES;
	while (reseg_turn(w->st))
		;
	assert_int_equal(n_copies(w), 0);
	assert_true(f->f->reseg_refused);
	f->f->reseg_refused = false;
	assert_false(reseg_turn(w->st));
	assert_true(f->f->reseg_refused);
	mutex_lock(&w->st->seal_lock);
	assert_int_equal(reseg_begin(f->f, 2 * S), 0);
	assert_int_equal(reseg_build(f->f, UINT64_MAX, &ready), -EBADMSG);
	mutex_unlock(&w->st->seal_lock);
	assert_int_equal(inode_read(f->f, b, 10, 39 * S), 10);
	assert_int_equal(inode_read(f->f, b, 10, 40 * S), -EBADMSG);
	seal(f);
	finish(f);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_in_use, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_on_its_way, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_failed_sync, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_given_up, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_damaged, setup, teardown),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
