/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Syncs that fail: who is told that a write was lost, what counts as durable after that, and what a later commit may build on.  Each test
 * is a bug that was there once.
 */
#include "faults.h"
#include "inode_i.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h> /* has a fail() of its own */

/* The kernel tells each descriptor once that a write was lost: the syncfs of a batch has its own, and a spilled file is always asked
 * itself. */
static void test_who_is_told_of_lost_writes(void **state)
{
	struct world *w = *state;
	struct inode *seal[5];
	struct file *f[5];
	unsigned before;

	for (int i = 0; i < 5; i++) {
		char name[32];

		snprintf(name, sizeof(name), "told%d", i);
		f[i] = file_create(w, name);
		file_write(w, f[i], 0, 3 << 20, i);
		seal[i] = f[i]->f;
	}
	before = w->faults.count[FAULT_SYNC];
	assert_int_equal(writeback_seal(w->st, seal, 5, true), 0);
	assert_true(w->faults.count[FAULT_SYNC] - before >= 5);
	for (int i = 0; i < 5; i++)
		file_write(w, f[i], 5, 5, i);
	assert_int_equal(writeback_seal(w->st, seal, 5, true), 0);
	assert_int_not_equal(w->faults.syncfs_fd, w->bed.root);
	before = (unsigned)w->faults.syncfs_fd;
	assert_int_equal(store_sync(w->st), 0);
	assert_int_not_equal(w->faults.syncfs_fd, before);
	for (int i = 0; i < 5; i++) {
		file_check(w, f[i]);
		file_end(w, f[i]);
	}
}

/* One file of a batch is lost: the others, spilled or sealed through the log, are not told and are sealed. */
static void test_one_lost_of_many(void **state)
{
	struct world *w = *state;
	struct inode *seal[6];
	struct file *f[6];

	for (unsigned turn = 0; turn < 2; turn++) {
		for (int i = 0; i < 6; i++) {
			char name[32];

			snprintf(name, sizeof(name), "many%u-%d", turn, i);
			f[i] = file_create(w, name);
			file_write(w, f[i], 0, i & 1 ? 3 << 20 : 50000, i); /* 1, 3, 5: spilled */
			seal[i] = f[i]->f;
			if (i & 1)
				continue;
			file_fsync(w, f[i]);
			file_write(w, f[i], 100, 100, i + 10);
		}
		if (turn) /* all that went through the log */
			fault_set(w, FAULT_SYNCFS, ON_ANY, 1, -EIO, 1);
		else /* the second spilled one */
			fault_set(w, FAULT_SYNC, ON_FILE, 2, -EIO, 1);
		assert_int_equal(writeback_seal(w->st, seal, 6, true), turn ? 0 : -EIO);
		assert_int_equal(w->faults.fired, 1);
		fault_clear(w);
		for (int i = 0; i < 6; i++)
			assert_int_equal(inode_fsync(f[i]->f, false), !turn && i == 3 ? -EIO : 0);
		for (int i = 0; i < 6; i++)
			file_close(w, f[i]);
		assert_int_equal(store_sync(w->st), 0); /* the lost one was written again */
		for (int i = 0; i < 6; i++) {
			file_check_at_rest(w, f[i]);
			file_reopen(w, f[i]);
			file_check(w, f[i]);
			file_end(w, f[i]);
		}
	}
}

/* Where fsync of a file does not make its name durable, nothing but a sync of the file system does. */
static void test_name_is_synced(void **state)
{
	struct world *w = *state;
	struct file *f;
	unsigned before;

	w->faults.io.names_with_files = w->st->io.names_with_files = false;
	f = file_create(w, "named");
	file_write(w, f, 0, 100000, 1);
	file_fsync(w, f);
	assert_int_equal(renameat(w->bed.root, "named", w->bed.root, "named2"), 0);
	snprintf(f->name, sizeof(f->name), "named2");
	inode_renamed(f->f, "named2");
	before = w->faults.count[FAULT_SYNCFS];
	file_write(w, f, f->size, 3 << 20, 2); /* goes in place */
	file_fsync(w, f);
	assert_true(w->faults.count[FAULT_SYNCFS] > before);
	assert_int_equal(renameat(w->bed.root, "named2", w->bed.root, "named"), 0);
	snprintf(f->name, sizeof(f->name), "named");
	inode_renamed(f->f, "named");
	file_write(w, f, 5, 5, 2);
	before = w->faults.count[FAULT_SYNCFS];
	assert_int_equal(writeback_seal(w->st, &f->f, 1, true), 0);
	file_fsync(w, f);
	assert_true(w->faults.count[FAULT_SYNCFS] > before);
	file_end(w, f);
	w->faults.io.names_with_files = w->st->io.names_with_files = w->faults.real.names_with_files;
}

/* A new file, sealed but never synced, whose first sync fails because it grows in place: no later fsync may say that it is there. */
static void test_new_base_lost_by_growth(void **state)
{
	struct world *w = *state;
	struct file *f = file_create(w, "grown");

	file_write(w, f, 0, 100000, 1);
	file_close(w, f);
	file_reopen(w, f);
	fault_set(w, FAULT_SYNC, ON_FILE, 1, -EIO, 1);
	assert_int_equal(inode_write(f->f, f->plain, 3 << 20, 100000), -EIO);
	assert_int_equal(w->faults.fired, 1);
	inode_closed(f->f, true);
	inode_opened(f->f, true);
	assert_int_equal(inode_fsync(f->f, false), -EIO);
	fault_clear(w);
	world_kill(w);
	file_reopen(w, f);
	file_check(w, f);
	file_end(w, f);
}

/* The same by a seal: the log has what was changed, and nothing else of the file.  By a syncfs of many only those are lost that say so. */
static void test_new_base_lost_by_seal(void **state)
{
	struct world *w = *state;
	struct inode *list[5];
	struct file *f[5];

	for (unsigned n = 1; n <= ARRAY_SIZE(f); n += 4) {
		for (unsigned i = 0; i < n; i++) {
			char name[32];

			snprintf(name, sizeof(name), "sealed%u-%u", n, i);
			f[i] = file_create(w, name);
			file_write(w, f[i], 0, 20 * S, 1);
			file_close(w, f[i]);
			file_reopen(w, f[i]);
			file_write(w, f[i], 5, 5, 2);
			list[i] = f[i]->f;
		}
		fault_set(w, n > 1 ? FAULT_SYNCFS : FAULT_SYNC, ON_FILE, 1, -EIO, 1);
		(void)!writeback_seal(w->st, list, n, true);
		assert_int_equal(w->faults.fired, 1);
		assert_int_equal(inode_fsync(f[0]->f, false), n > 1 ? 0 : -EIO);
		for (unsigned i = 0; i < n; i++) {
			assert_int_equal(f[i]->f->lost, n == 1);
			file_check(w, f[i]);
		}
		fault_clear(w);
		world_kill(w);
		for (unsigned i = 0; i < n; i++) {
			file_reopen(w, f[i]);
			file_check(w, f[i]);
			file_end(w, f[i]);
		}
	}
}

/* Images of a commit that failed half way stand in the log; then what they belong to is dropped; a later commit must not count them. */
static void test_half_a_commit(void **state)
{
	struct world *w = *state;
	struct file *f = file_create(w, "half");
	uint64_t used;

	file_write(w, f, 0, 9 << 20, 1);
	file_fsync(w, f);
	file_close(w, f);
	assert_int_equal(store_sync(w->st), 0);
	file_reopen(w, f);
	file_check(w, f);
	file_write(w, f, 0, 250 * S, 2); /* more than one append, less than what is committed without being asked */
	used = f->f->invocations;
	f->f->invocations = INVOCATION_MAX - 240; /* the key is worn out behind the first append */
	assert_int_equal(inode_fsync(f->f, true), -EFBIG);
	f->f->invocations = used + 240;
	f->f->fresh = true; /* with so much dirty a file begins no growth in place, but one with large segments may have begun */
	f->f->place_first = f->f->place_end = f->f->n_tags;
	fault_set(w, FAULT_SYNC, ON_FILE, 1, -EIO, 1);
	assert_int_equal(inode_write(f->f, f->plain, 2 << 20, f->size), -EIO);
	assert_int_equal(w->faults.fired, 1);
	file_try_fsync(w, f); /* back to the last commit */
	file_check(w, f);
	file_close(w, f);
	file_reopen(w, f);
	file_write(w, f, 8 << 20, 10, 4);
	file_fsync(w, f);
	world_kill(w);
	file_reopen(w, f);
	file_check(w, f);
	file_end(w, f);
}

static void *fsync_other(void *arg)
{
	struct file *f = arg;

	return (void *)(intptr_t)inode_fsync(f->f, false);
}

static pthread_t other;

/* The disk has lost something, and tells whoever asks first: this thread or the other. */
static void fsync_in_hook(struct file *f)
{
	fault_set(f->w, FAULT_SYNC, ON_FILE, 1, -EIO, 1);
	assert_int_equal(pthread_create(&other, NULL, fsync_other, f), 0);
	usleep(50000);
}

static int other_end(void)
{
	void *err;

	assert_int_equal(pthread_join(other, &err), 0);
	return (int)(intptr_t)err;
}

/* While an fsync goes on another one, or while a seal of a large new file does: neither believes the disk because the other was told. */
static void test_sync_that_told_another_sync(void **state)
{
	for (int large = 0; large < 2; large++) {
		struct world *w = *state;
		struct file *f = file_create(w, "told");

		file_write(w, f, 0, large ? 3 << 20 : 20 * S, 1);
		if (!large)
			assert_int_equal(inode_flush(f->f), 0);
		fault_hook(w, FAULT_SYNC, fsync_in_hook, f);
		assert_int_equal(large ? writeback_seal(w->st, &f->f, 1, true) : inode_fsync(f->f, false), -EIO);
		assert_int_equal(other_end(), -EIO);
		assert_int_equal(w->faults.fired, 1);
		fault_clear(w);
		assert_int_equal(inode_fsync(f->f, false), -EIO);
		if (large)
			assert_true(f->f->rewrite);
		else
			assert_true(f->f->lost);
		file_end(w, f);
		world_restart(w);
	}
}

/* While a seal's sync goes on an fsync by the same descriptor is told that the disk has lost something: the log keeps what the seal put in
 * place. */
static void test_sync_that_told_somebody_else(void **state)
{
	struct world *w = *state;
	struct file *f = file_create(w, "told");

	file_write(w, f, 0, 20 * S, 1);
	file_fsync(w, f);
	file_write(w, f, 5, 3 * S, 2);
	file_fsync(w, f);
	inode_changed(f->f, NULL); /* so that the next one syncs the store file too */
	fault_hook(w, FAULT_SYNC, fsync_in_hook, f);
	(void)!writeback_seal(w->st, &f->f, 1, true);
	assert_int_equal(other_end(), -EIO);
	assert_null(w->faults.hook);
	assert_true(f->f->lost);
	assert_true(f->f->apply.pending);
	file_check(w, f);
	world_kill(w);
	file_reopen(w, f);
	file_check(w, f);
	file_end(w, f);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_who_is_told_of_lost_writes, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_one_lost_of_many, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_name_is_synced, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_new_base_lost_by_growth, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_new_base_lost_by_seal, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_half_a_commit, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_sync_that_told_another_sync, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_sync_that_told_somebody_else, setup, teardown),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
