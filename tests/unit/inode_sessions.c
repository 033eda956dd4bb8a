/* SPDX-License-Identifier: Apache-2.0 */
/* A file that several threads and openers use at once, with few descriptors, while it is being sealed. */
#include "faults.h"
#include "inode_i.h"
#include "redo_int.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h> /* has a fail() of its own */

/* Fewer descriptors than files with changes. */
static void test_few_descriptors(void **state)
{
	struct world *w = *state;
	struct rlimit old, few;
	struct file *f[150];

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	few = (struct rlimit){64, old.rlim_max};
	for (size_t i = 0; i < ARRAY_SIZE(f); i++) {
		char name[32];

		snprintf(name, sizeof(name), "few%zu", i);
		f[i] = file_create(w, name);
		file_write(w, f[i], 0, 1000, (int)i);
		file_close(w, f[i]);
	}
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	for (size_t i = 0; i < ARRAY_SIZE(f); i++) {
		file_reopen(w, f[i]);
		file_write(w, f[i], 500, 1000, (int)i);
		file_close(w, f[i]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(f); i++) {
		file_reopen(w, f[i]);
		file_check(w, f[i]);
		file_cut(w, f[i], 0);
		file_write(w, f[i], 0, 10, 3);
		file_end(w, f[i]);
	}
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
}

#define WRITERS 6

struct writer {
	struct world *w;
	struct inode *f;
	unsigned no, rounds;
	pthread_t thread;
};

static void *sparse_writer(void *arg)
{
	struct writer *me = arg;

	for (unsigned i = 0; i < me->rounds; i++) {
		uint64_t block = i * WRITERS + (me->no + i) % WRITERS; /* one of its own, beyond the end more often than not */
		uint8_t b[100];

		memset(b, 1 + (int)(block % 255), sizeof(b));
		if (inode_write(me->f, b, sizeof(b), block * 2000))
			return me;
	}
	return NULL;
}

/* Writes beyond the end by several threads (pages written back by the kernel): none cuts another off. */
static void test_sparse_writers(void **state)
{
	struct world *w = *state;

	for (int round = 0; round < 6; round++) {
		struct file *f = file_create(w, "sparse");
		struct writer t[WRITERS];
		unsigned rounds = 300;
		uint8_t b[100], want[100];

		for (unsigned i = 0; i < WRITERS; i++) {
			t[i] = (struct writer){.w = w, .f = f->f, .no = i, .rounds = rounds};
			assert_int_equal(pthread_create(&t[i].thread, NULL, sparse_writer, &t[i]), 0);
		}
		for (unsigned i = 0; i < WRITERS; i++) {
			void *bad;

			pthread_join(t[i].thread, &bad);
			assert_null(bad);
		}
		for (uint64_t block = 0; block < (uint64_t)rounds * WRITERS; block++) {
			memset(want, 1 + (int)(block % 255), sizeof(want));
			assert_int_equal(inode_read(f->f, b, sizeof(b), block * 2000), sizeof(b));
			assert_memory_equal(b, want, sizeof(b));
		}
		file_end(w, f);
	}
}

static _Atomic bool readers_stop;

static void *busy_reader(void *arg)
{
	struct writer *me = arg;
	uint8_t *b = malloc(1 << 20);

	while (!readers_stop)
		if (inode_read(me->f, b, 1 << 20, 0) != 1 << 20)
			break;
	free(b);
	return NULL;
}

/* Readers that never pause do not keep a writer (or the thread that seals, and with it everybody who waits for a seal) out. */
static void test_readers_let_writers_in(void **state)
{
	struct world *w = *state;
	struct file *f = file_create(w, "busy");
	struct timespec from, to;
	struct writer t[WRITERS];
	double slowest = 0;

	file_write(w, f, 0, 2 << 20, 1);
	file_fsync(w, f);
	readers_stop = false;
	for (unsigned i = 0; i < WRITERS; i++) {
		t[i] = (struct writer){.w = w, .f = f->f};
		assert_int_equal(pthread_create(&t[i].thread, NULL, busy_reader, &t[i]), 0);
	}
	for (int i = 0; i < 20; i++) {
		clock_gettime(CLOCK_MONOTONIC, &from);
		file_write(w, f, (1 << 20) + 100, 10, i);
		clock_gettime(CLOCK_MONOTONIC, &to);
		slowest = MAX(slowest, (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) / 1e9);
	}
	readers_stop = true;
	for (unsigned i = 0; i < WRITERS; i++)
		pthread_join(t[i].thread, NULL);
	print_message("the slowest write took %.3f s\n", slowest);
	assert_true(slowest < 5);
	file_end(w, f);
}

static void *session_writer(void *arg)
{
	struct writer *me = arg;
	struct world *w = me->w;

	for (unsigned i = 0; i < me->rounds; i++) {
		uint64_t at = ((uint64_t)me->no * me->rounds + i) * 8;
		struct inode *f;

		if (inode_get(w->st, w->bed.root, "shared", true, "shared", &f))
			return me;
		inode_opened(f, true);
		if (inode_write(f, &at, sizeof(at), at) || inode_flush(f))
			return me;
		inode_closed(f, true);
		inode_put(f);
		if (me->no == 0 && i % 4 == 0 && store_sync(w->st))
			return me;
	}
	return NULL;
}

/* Opened, written and closed by several threads while it is being sealed: the last one who lets go of it must see that it is dirty again.
 */
static void test_sessions_in_threads(void **state)
{
	struct world *w = *state;
	struct file *f = file_create(w, "shared");
	struct writer t[WRITERS];
	unsigned rounds = 400;

	file_write(w, f, 0, WRITERS * 400 * 8ull, 1);
	file_fsync(w, f);
	file_close(w, f);
	for (unsigned i = 0; i < WRITERS; i++) {
		t[i] = (struct writer){.w = w, .no = i, .rounds = rounds};
		assert_int_equal(pthread_create(&t[i].thread, NULL, session_writer, &t[i]), 0);
	}
	for (unsigned i = 0; i < WRITERS; i++) {
		void *bad;

		pthread_join(t[i].thread, &bad);
		assert_null(bad);
	}
	file_reopen(w, f);
	for (uint64_t at = 0; at < (uint64_t)rounds * WRITERS * 8; at += 8) {
		uint64_t got;

		assert_int_equal(inode_read(f->f, &got, 8, at), 8);
		assert_int_equal(got, at);
	}
	file_end(w, f);
}

/* A descriptor that stays open: what was written through it is on the list of what sync writes, even if it was written while a seal ended.
 */
static void test_written_while_sealed(void **state)
{
	struct world *w = *state;
	struct file *f = file_create(w, "while");

	file_write(w, f, 0, 100000, 1);
	file_fsync(w, f);
	for (int i = 0; i < 20; i++) {
		file_write(w, f, 10, 10, i);
		fault_hook(w, FAULT_SYNC, write_in_hook, f); /* between (b) and the end of the seal */
		assert_int_equal(store_sync(w->st), 0);
		fault_clear(w);
		assert_int_equal(store_sync(w->st), 0);
		assert_int_equal(w->st->dirty, 0);
	}
	file_check(w, f);
	file_end(w, f);
}

/* Removed while it grows: nothing of it is committed any more, so that no writer may wait for that. */
static void test_removed_while_it_grows(void **state)
{
	struct world *w = *state;
	struct file *f = file_create(w, "a");

	file_write(w, f, 0, 1000, 1);
	file_fsync(w, f);
	file_write(w, f, f->size, 3 << 20, 2);
	assert_true(f->f->fresh);
	file_unlink(w, f);
	alarm(60);
	for (int i = 0; i < 20; i++)
		file_write(w, f, (uint64_t)i * 150000, 140000, 3 + i);
	for (int i = 0; i < 12; i++)
		file_write(w, f, f->size, 700000, 40 + i);
	file_check(w, f);
	file_close(w, f);

	/* the same where every write is an fsync, which has nothing to do for them; and one that was never sealed is not kept in memory */
	w->st->opt.strict = true;
	f = file_create(w, "a");
	file_write(w, f, 0, 1000, 1);
	file_unlink(w, f);
	for (int i = 0; i < 12; i++)
		file_write(w, f, (uint64_t)i * 800000, 800000, 3 + i);
	file_check(w, f);
	file_close(w, f);
	f = file_create(w, "b");
	file_unlink(w, f);
	file_write(w, f, 0, 9 << 20, 2);
	assert_in_range(f->f->dirty, 0, 2 << 20);
	file_check(w, f);
	file_close(w, f);
	alarm(0);
}

/* What is dirty in an unlinked file has to go somewhere, though nothing commits it: where every write is made durable, and where the file
 * was growing in place when it lost its name.  Without that these writes never come back. */
static void test_unlinked_lets_go(void **state)
{
	struct world *w = *state;

	for (int strict = 0; strict < 2; strict++) {
		struct file *f = file_create(w, strict ? "b" : "a");

		file_write(w, f, 0, 3 << 20, 1);
		file_close(w, f);
		assert_int_equal(store_sync(w->st), 0);
		file_reopen(w, f);
		file_write(w, f, 3 << 20, 3 << 19, 2); /* in place, not committed */
		file_unlink(w, f);
		w->st->opt.strict = strict;
		for (uint64_t i = 0; i < 16; i++)
			file_write(w, f, i * 700000, 700000, (int)i); /* 11 MB */
		w->st->opt.strict = false;
		file_check(w, f);
		file_close(w, f);
	}
}

/*
 * A file that grew in place and was cut can't go on in place, so what it grows by is images: they must fit into the room that was kept for
 * its seal, since nothing else is left where its own first record holds the other half.
 */
static void test_grown_cut_grown(void **state)
{
	struct world *w = *state;
	struct redo *r = w->st->redo;
	struct file *a = file_create(w, "a"), *b = file_create(w, "b");

	file_write(w, a, 0, 3 << 20, 1);
	file_write(w, b, 0, 256 << 10, 1);
	assert_int_equal(store_sync(w->st), 0);
	file_write(w, a, 3 << 20, 3 << 19, 2); /* in place, not committed */
	file_cut(w, a, (3 << 20) + 200000);
	for (int i = 0; i < 1000; i++) {
		if (r->fill->half && r->fill->off + (600 << 10) + r->reserved + r->spare > r->half_size)
			break;
		file_write(w, b, 0, 256 << 10, i);
		file_fsync(w, b);
	}
	assert_true(redo_must_seal(r, &a->f->pin));
	file_cut(w, a, (3 << 20) + 200000 + (4 << 20));
	file_fsync(w, a);
	file_check(w, a);
	assert_int_equal(store_sync(w->st), 0);
	file_check_at_rest(w, a);
	file_unlink(w, a);
	file_unlink(w, b);
	file_close(w, a);
	file_close(w, b);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_few_descriptors, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_sparse_writers, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_readers_let_writers_in, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_sessions_in_threads, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_written_while_sealed, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_removed_while_it_grows, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_unlinked_lets_go, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_grown_cut_grown, setup, teardown),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
