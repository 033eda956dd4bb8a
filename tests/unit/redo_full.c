/* SPDX-License-Identifier: Apache-2.0 */
/* The disk refuses the volume log room for a write (btrfs). */
#include "redo_setup.h"

static void group_at(struct bed *b, const char *half, uint64_t off, struct redo_group *ret)
{
	uint8_t block[4096];
	int fd = openat(b->fd, half, O_RDONLY);

	assert_int_equal(pread(fd, block, sizeof(block), (off_t)off), sizeof(block));
	close(fd);
	assert_int_equal(redo_group_parse(block, sizeof(block), volume, b->key, ret), 0);
}

/* A write that is refused for want of room lost nothing: the log stays where it is and goes on when there is room again. */
static void test_write_refused(void **state)
{
	struct bed *b = *state;
	uint8_t *bytes = pattern(300, 1), got[300];
	struct redo_rec rec = image_rec(1, 1, bytes, 300);
	struct redo_pin pin = {0};
	struct redo_loc locs[4];
	struct redo_group g;
	uint64_t lsn;

	for (int i = 0; i < 4; i++) {
		bytes[0] = (uint8_t)i;
		assert_int_equal(redo_append(b->r, &rec, 1, &pin, 1000, false, &lsn, &locs[i]), 0);
		b->write_err = i & 1 ? -EDQUOT : -ENOSPC;
		b->fail_writes = i == 0 ? 1 : i < 3 ? 1000 : 0;
		assert_int_equal(redo_flush(b->r, lsn), i == 0 || i == 3 ? 0 : b->write_err);
		assert_false(redo_is_dead(b->r));
		for (int k = 0; k <= i; k++) { /* from memory, where it is not durable */
			assert_int_equal(redo_read(b->r, &locs[k], got), 0);
			assert_int_equal(got[0], k);
		}
	}
	assert_true(b->syncfs >= 3); /* which gives btrfs room back */
	for (unsigned i = 0; i < 3; i++) {
		group_at(b, "log.0", (uint64_t)i * 4096, &g);
		assert_int_equal(g.lsn, i + 1);
		assert_int_equal(g.epoch, 1);
		assert_int_equal(g.durable_lsn, i);
		assert_int_equal(g.n_recs, i < 2 ? 1 : 2); /* what came while one was refused goes with the next */
	}
	redo_unpin(b->r, &pin);
	assert_int_equal(redo_retire(b->r), 0);
	free(bytes);
}

static void *flush_it(void *arg)
{
	struct bed *b = arg;

	return (void *)(intptr_t)redo_flush(b->r, 1);
}

/* Whoever waits for the write that is refused is told as well, and nobody for ever. */
static void test_write_refused_to_many(void **state)
{
	struct bed *b = *state;
	uint8_t *bytes = pattern(300, 1);
	struct redo_rec rec = image_rec(1, 1, bytes, 300);
	struct redo_pin pin = {0};
	pthread_t t[8];
	uint64_t lsn;
	void *err;

	assert_int_equal(redo_append(b->r, &rec, 1, &pin, 1000, false, &lsn, NULL), 0);
	b->fail_writes = 1000;
	for (int i = 0; i < 8; i++)
		assert_int_equal(pthread_create(&t[i], NULL, flush_it, b), 0);
	for (int i = 0; i < 8; i++) {
		assert_int_equal(pthread_join(t[i], &err), 0);
		assert_int_equal((intptr_t)err, -ENOSPC);
	}
	b->fail_writes = 3; /* one or two are told, the others made durable */
	for (int i = 0; i < 8; i++)
		assert_int_equal(pthread_create(&t[i], NULL, flush_it, b), 0);
	for (int i = 0; i < 8; i++) {
		assert_int_equal(pthread_join(t[i], &err), 0);
		assert_true(!err || (intptr_t)err == -ENOSPC);
	}
	assert_int_equal(redo_flush(b->r, lsn), 0);
	redo_unpin(b->r, &pin);
	free(bytes);
}

/* The group of a clean end is refused: what the mount, which goes on, writes after that is not retired by it. */
static void test_retire_refused(void **state)
{
	struct bed *b = *state;
	uint8_t *bytes = pattern(300, 1);
	struct redo_rec rec = image_rec(1, 1, bytes, 300);
	struct redo_pin pin = {0};
	struct redo_group g;
	uint64_t lsn;

	for (unsigned queued = 0; queued < 2; queued++) {
		assert_int_equal(redo_append(b->r, &rec, 1, &pin, 1000, false, &lsn, NULL), 0);
		b->fail_writes = queued ? 1000 : 0;
		assert_int_equal(redo_flush(b->r, lsn), queued ? -ENOSPC : 0);
		redo_unpin(b->r, &pin);
		b->fail_writes = 1000;
		assert_int_equal(redo_retire(b->r), -ENOSPC);
		assert_int_equal(redo_append(b->r, &rec, 1, &pin, 1000, false, &lsn, NULL), 0);
		b->fail_writes = 0;
		assert_int_equal(redo_flush(b->r, lsn), 0);
		group_at(b, "log.0", (lsn - 1) * 4096, &g);
		assert_int_equal(g.lsn, lsn);
		assert_int_equal(g.n_recs, 1);
		assert_int_equal(g.retired_lsn, lsn - 1);
		redo_unpin(b->r, &pin);
	}
	assert_int_equal(redo_retire(b->r), 0);
	free(bytes);
}

static void *retire_one(void *arg)
{
	struct bed *b = arg;

	return (void *)(intptr_t)redo_retire(b->r);
}

static void *flush_first(void *arg)
{
	struct bed *b = arg;

	return (void *)(intptr_t)redo_flush(b->r, 1);
}

/* While the group that is to retire everything waits for the one before it, something comes into it that counts. */
static void test_retire_overtaken(void **state)
{
	struct bed *b = *state;
	uint8_t *bytes = pattern(300, 1);
	struct redo_rec rec = image_rec(1, 1, bytes, 300);
	struct redo_pin pin = {0}, late = {0};
	struct redo_group g;
	pthread_t flusher, retirer;
	uint64_t lsn;
	void *err;

	assert_int_equal(redo_append(b->r, &rec, 1, &pin, 0, false, &lsn, NULL), 0);
	b->slow = 400000;
	assert_int_equal(pthread_create(&flusher, NULL, flush_first, b), 0);
	usleep(100000);
	redo_unpin(b->r, &pin);
	assert_int_equal(pthread_create(&retirer, NULL, retire_one, b), 0);
	usleep(100000);
	assert_int_equal(redo_append(b->r, &rec, 1, &late, 0, false, &lsn, NULL), 0);
	b->slow = 0;
	assert_int_equal(redo_flush(b->r, lsn), 0);
	assert_int_equal(pthread_join(flusher, &err), 0);
	assert_null(err);
	assert_int_equal(pthread_join(retirer, &err), 0);
	group_at(b, "log.0", (lsn - 1) * 4096, &g);
	assert_int_equal(g.n_recs, 1);
	assert_true(g.retired_lsn < lsn);
	assert_true(lsn > 2 || (intptr_t)err == -EBUSY);
	redo_unpin(b->r, &late);
	free(bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T(test_write_refused),
	    T(test_write_refused_to_many),
	    T(test_retire_refused),
	    T(test_retire_overtaken),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
