/* SPDX-License-Identifier: Apache-2.0 */
/* When a file gets other segments or another key: near the key's bound, when it is new, told its size, and never behind an unmount or a
 * quiesce. */
#include "reseg_setup.h"

/* A key near its bound is replaced by the background, held back while the volume is quiesced. */
static void test_rekey(void **state)
{
	struct world *w = *state;
	struct file *f = sealed_file(w, "a");
	uint64_t first;

	file_write(w, f, 0, 10, 2);
	first = f->f->invocations = RESEG_KEY_USES;
	assert_false(inode_write(f->f, f->plain, 10, 0));
	reseg_hold(w->st, 100);
	assert_false(reseg_turn(w->st));
	assert_int_equal(f->f->invocations, first);
	reseg_hold(w->st, 0);
	assert_true(reseg_turn(w->st)); /* built and sealed; now on its way into place */
	file_write(w, f, 500, 10, 3);
	while (reseg_turn(w->st))
		;
	assert_true(f->f->invocations < 1000);
	seal(f);
	seal(f);
	file_check(w, f);
	file_check_at_rest(w, f);
	assert_int_equal(record_of(f).s, S);
	assert_true(record_of(f).invocations < 1000);
	assert_int_equal(n_copies(w), 0);
	finish(f);
}

/* A new file that was never sealed: in place, whatever is dirty, and again. */
static void test_spilled(void **state)
{
	struct world *w = *state;
	struct file *f = file_create(w, "a");

	file_write(w, f, 0, SIZE, 1);
	assert_int_equal(f->f->content, CONTENT_SPILLED);
	rwlock_write(&f->f->lock);
	assert_int_equal(reseg_spilled(f->f), 0);
	rwlock_unlock(&f->f->lock);
	assert_int_equal(f->f->s, 16 * S);
	file_check(w, f);
	file_write(w, f, 20000, 500000, 2);
	file_write(w, f, f->size, 600000, 3);
	file_check(w, f);
	file_fsync(w, f);
	file_check_at_rest(w, f);
	assert_int_equal(record_of(f).s, 16 * S);
	world_kill(w);
	file_reopen(w, f);
	file_check(w, f);

	finish(f);
	/* between the two halves of its seal */
	f = file_create(w, "b");
	file_write(w, f, 0, SIZE, 1);
	mutex_lock(&w->st->seal_lock);
	rwlock_write(&f->f->lock);
	uint64_t seq;
	assert_int_equal(seal_spilled_begin(f->f, &seq), 0);
	assert_int_equal(reseg_spilled(f->f), 0);
	assert_int_equal(seal_spilled_finish(f->f, seq), -EAGAIN);
	rwlock_unlock(&f->f->lock);
	mutex_unlock(&w->st->seal_lock);
	file_fsync(w, f);
	file_check(w, f);
	file_check_at_rest(w, f);
	finish(f);
}

/* The size is told before the first byte is written. */
static void test_told(void **state)
{
	struct world *w = *state;
	struct file *f = file_create(w, "a");
	const uint64_t large = (uint64_t)9 << 30;

	assert_true(tail_len(f->f->tmpl, large) > RESEG_TAIL);
	rwlock_write(&f->f->lock);
	reseg_empty(f->f, large);
	assert_int_equal(f->f->s, 16 * S);
	assert_true(tail_len(f->f->tmpl, large) <= RESEG_TAIL);
	reseg_empty(f->f, UINT64_MAX);
	reseg_empty(f->f, PLAIN_MAX); /* no segment is large enough */
	assert_in_range(f->f->s, 16 * S, SEG_MAX);
	rwlock_unlock(&f->f->lock);
	file_write(w, f, 0, 5000000, 1);
	file_write(w, f, 7, 70000, 2);
	file_fsync(w, f);
	file_check_at_rest(w, f);
	assert_int_equal(record_of(f).s, f->f->s);
	finish(f);
}

/* What the background thread may do between the last look of an unmount's sync and its end. */
static void turn_in_hook(struct file *f)
{
	for (unsigned i = 0; i < 4; i++)
		(void)reseg_turn(f->w->st);
}

/* An unmount retires the log: no copy may get into it once everything was sealed. */
static void test_unmounted(void **state)
{
	struct world *w = *state;
	struct file *f = sealed_file(w, "a");

	file_write(w, f, 0, 10, 2);
	f->f->invocations = RESEG_KEY_USES;
	seal(f);
	assert_true(reseg_busy(f->f));
	fault_hook(w, FAULT_SYNCFS, turn_in_hook, f);
	world_restart(w);
	assert_null(w->faults.hook);
	fault_clear(w);
	file_reopen(w, f);
	file_check(w, f);
	file_check_at_rest(w, f);
	assert_int_equal(n_copies(w), 0);
	finish(f);
}

/* A copy that waits for room in the log waits for the end of a quiesce too: a seal of what is there meanwhile does not take it. */
static void test_held(void **state)
{
	struct world *w = *state;
	struct file *f = sealed_file(w, "a");

	assert_int_equal(begin(f, 4 * S), 0);
	while (!build(f, UINT64_MAX))
		;
	reseg_hold(w->st, 100);
	seal(f);
	assert_false(seal_pending(f->f));
	assert_int_equal(record_of(f).s, S);
	reseg_hold(w->st, 0);
	seal(f);
	assert_int_equal(record_of(f).s, 4 * S);
	file_check_at_rest(w, f);
	finish(f);
}

/* Its policy is its own, whatever that of new files is. */
static void test_policy(void **state)
{
	struct world *w = *state;
	struct file *f = sealed_file(w, "a");
	char *policy = NULL;

	w->st->keys.policy = "eyJib2R5Ijp7ImRhdGFBdHRyaWJ1dGVzIjpbXSwiZGlzc2VtIjpbXX19";
	assert_int_equal(begin(f, 4 * S), 0);
	while (!build(f, UINT64_MAX))
		;
	seal(f);
	assert_int_equal(record_of(f).s, 4 * S);
	assert_int_equal(inode_policy(f->f, &policy), 0);
	assert_string_equal(policy, BED_POLICY);
	free(policy);
	file_check_at_rest(w, f);
	finish(f);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_rekey, setup, teardown), cmocka_unit_test_setup_teardown(test_spilled, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_told, setup, teardown),  cmocka_unit_test_setup_teardown(test_unmounted, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_held, setup, teardown),  cmocka_unit_test_setup_teardown(test_policy, setup, teardown),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
