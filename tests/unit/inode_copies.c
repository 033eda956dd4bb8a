/* SPDX-License-Identifier: Apache-2.0 */
/* Copies and old versions of store files put beside or in place of them; lost ones. */
#include "faults.h"
#include "inode_i.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h> /* has a fail() of its own */

/* Somebody with the store, but without keys, puts old versions and parts of them back. */
static void test_old_version_put_back(void **state)
{
	struct world *w = *state;
	struct file *f = file_create(w, "old");
	size_t len, len2;
	CLEANUP_FREE uint8_t *first = NULL, *second = NULL, *mixed = NULL;

	file_write(w, f, 0, 10 * S, 1);
	file_fsync(w, f);
	assert_int_equal(store_sync(w->st), 0);
	first = file_raw(w, f, &len);
	file_write(w, f, 2 * S + 5, 3 * S, 2);
	file_fsync(w, f);
	assert_int_equal(store_sync(w->st), 0);
	second = file_raw(w, f, &len2);
	assert_int_equal(len, len2);
	mixed = malloc(len);
	file_close(w, f);
	/* parts of the old version in the new one, and the other way round: every byte read is of one version or an error */
	for (int i = 0; i < 60; i++) {
		size_t a = (size_t)random_below(w, len), b = (size_t)random_below(w, len), from = MIN(a, b), to = MAX(a, b);
		struct inode *got;
		int err;

		memcpy(mixed, i & 1 ? first : second, len);
		memcpy(mixed + from, (i & 1 ? second : first) + from, to - from);
		if (i < 4) {
			memcpy(mixed, i & 1 ? first : second, len); /* header, payload or tail alone */
			memcpy(i & 2 ? mixed : mixed + tail_offset(f->size, S),
			       (i & 1 ? second : first) + (i & 2 ? 0 : tail_offset(f->size, S)),
			       i & 2 ? SECTOR : len - tail_offset(f->size, S));
		}
		file_raw_put(w, f, mixed, len);
		err = inode_get(w->st, w->bed.root, f->name, false, f->name, &got);
		if (err)
			continue;
		for (uint64_t k = 0; k < 10; k++) {
			uint8_t one[S];
			ssize_t n = inode_read(got, one, S, k * S);

			if (n < 0)
				continue;
			assert_int_equal(n, S);
			assert_true(!memcmp(one, f->plain + k * S, S) || file_was(f, k * S, one, S));
		}
		inode_put(got);
	}
	/* live while the store file is changed under it: nothing old comes out either */
	file_raw_put(w, f, second, len);
	file_reopen(w, f);
	file_raw_put(w, f, first, len);
	for (uint64_t k = 0; k < 10; k++) {
		uint8_t one[S];
		ssize_t n = inode_read(f->f, one, S, k * S);

		assert_true(n < 0 || !memcmp(one, f->plain + k * S, S));
	}
	file_raw_put(w, f, second, len);
	file_check(w, f);
	file_end(w, f);
}

/* A copy made inside the store has the same ids; the original is given up for large new content, and then the power goes. */
static void test_copy_survives(void **state)
{
	struct world *w = *state;

	for (int logged = 0; logged < 2; logged++) {
		struct file *f = file_create(w, "original"), *copy = file_create(w, "copy");
		CLEANUP_FREE uint8_t *raw = NULL;
		size_t len;

		file_write(w, f, 0, 300000, 1);
		file_fsync(w, f);
		assert_int_equal(store_sync(w->st), 0);
		file_close(w, copy);
		raw = file_raw(w, f, &len);
		file_raw_put(w, copy, raw, len);
		file_reopen(w, copy);
		memcpy(copy->plain, f->plain, f->size);
		copy->size = f->size;
		file_check(w, copy);
		if (logged) {
			file_write(w, f, 0, 10, 3);
			file_fsync(w, f);
		}
		file_cut(w, f, 0);
		file_write(w, f, 0, 3 << 20, 2);
		world_kill(w);
		file_reopen(w, copy);
		file_check(w, copy);
		file_check_at_rest(w, copy);
		file_end(w, copy);
		file_reopen(w, f);
		file_end(w, f);
	}
}

/* The kernel reports a failed sync once and calls the pages clean: closing and opening the file must not turn the next sync into a promise.
 */
static void test_lost_is_lost(void **state)
{
	struct world *w = *state;
	struct file *f = file_create(w, "lost");

	file_write(w, f, 0, 100000, 1);
	fault_set(w, FAULT_SYNC, ON_FILE, 1, -EIO, 1);
	assert_int_equal(inode_fsync(f->f, false), -EIO);
	file_close(w, f);
	fault_clear(w);
	file_reopen(w, f);
	assert_int_equal(inode_fsync(f->f, false), -EIO);
	assert_int_equal(inode_write(f->f, "x", 1, 0), -EIO);
	world_restart(w);
	file_reopen(w, f);
	file_write(w, f, 0, 10, 2);
	file_fsync(w, f);
	file_end(w, f);
}

/* The original is gone, a copy made inside the store has the same id, generation and content: what was committed to the original is not the
 * copy's. */
static void test_copy_of_a_gone_file(void **state)
{
	struct world *w = *state;
	struct file *f = file_create(w, "original"), *copy = file_create(w, "copy");
	CLEANUP_FREE uint8_t *raw = NULL;
	size_t len;

	file_write(w, f, 0, 100000, 1);
	file_fsync(w, f);
	assert_int_equal(store_sync(w->st), 0);
	file_close(w, copy);
	raw = file_raw(w, f, &len);
	file_raw_put(w, copy, raw, len);
	memcpy(copy->plain, f->plain, f->size);
	copy->size = f->size;
	file_write(w, f, 50, 10, 3);
	file_fsync(w, f);
	file_unlink(w, f); /* its records stay in the log */
	world_kill(w);
	file_reopen(w, copy);
	file_check(w, copy);
	file_check_at_rest(w, copy);
	file_end(w, copy);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_old_version_put_back, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_copy_survives, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_lost_is_lost, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_copy_of_a_gone_file, setup, teardown),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
