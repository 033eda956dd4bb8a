/* SPDX-License-Identifier: Apache-2.0 */
/* The volume log on a disk that fails: what was promised goes to the other half, or behind what is there. */
#include "redo_setup.h"

/* fsync fails once: from our memory into the other half, and what was promised is there. */
static void test_sync_fails(void **state)
{
	struct bed *b = *state;
	uint8_t *bytes = pattern(300, 1), got[300];
	struct redo_rec rec = image_rec(1, 1, bytes, 300);
	struct redo_pin pin = {0}, pin2 = {0};
	struct redo_loc locs[4];
	struct redo_group g;
	uint64_t lsn;
	uint8_t *file;
	int fd;

	for (int i = 0; i < 4; i++) {
		if (i == 2)
			b->fail_syncs = 1;
		bytes[0] = (uint8_t)i;
		assert_int_equal(redo_append(b->r, &rec, 1, i == 3 ? &pin2 : &pin, 1000, false, &lsn, &locs[i]), 0);
		assert_int_equal(redo_flush(b->r, lsn), 0);
		assert_int_equal(lsn, i + 1);
	}
	for (int i = 0; i < 4; i++) {
		assert_int_equal(redo_read(b->r, &locs[i], got), 0);
		assert_int_equal(got[0], i);
	}
	/* on disk: LSN 3 stands at the start of log.1 in the next epoch and knows that 2 was durable */
	fd = openat(b->fd, "log.1", O_RDONLY);
	file = malloc(8192);
	assert_int_equal(pread(fd, file, 8192, 0), 8192);
	close(fd);
	assert_int_equal(redo_group_parse(file, 4096, volume, b->key, &g), 0);
	assert_int_equal(g.lsn, 3);
	assert_int_equal(g.epoch, 2);
	assert_int_equal(g.durable_lsn, 2);
	assert_int_equal(redo_group_parse(file + 4096, 4096, volume, b->key, &g), 0);
	assert_int_equal(g.lsn, 4);
	free(file);
	/* the first pin holds both halves now, the second only the new one */
	assert_true(redo_must_seal(b->r, &pin));
	assert_false(redo_must_seal(b->r, &pin2));
	/* both halves are needed: a second failure is the end, and it stays the end */
	b->fail_syncs = 1;
	assert_int_equal(redo_append(b->r, &rec, 1, &pin, 1000, false, &lsn, &locs[0]), 0);
	assert_int_equal(redo_flush(b->r, lsn), -EIO);
	assert_true(redo_is_dead(b->r));
	assert_int_equal(redo_flush(b->r, lsn), -EIO);
	assert_int_equal(redo_flush(b->r, lsn - 1), 0); /* that one is durable */
	assert_int_equal(redo_append(b->r, &rec, 1, &pin, 1000, false, &lsn, &locs[0]), -EIO);
	assert_int_equal(redo_read(b->r, &locs[1], got), 0); /* reading goes on */
	redo_unpin(b->r, &pin);
	redo_unpin(b->r, &pin2);
	assert_int_equal(redo_retire(b->r), -EIO);
	free(bytes);
}

static void test_sync_fails_twice(void **state)
{
	struct bed *b = *state;
	uint8_t *bytes = pattern(300, 1);
	struct redo_rec rec = image_rec(1, 1, bytes, 300);
	struct redo_pin pin = {0};
	uint64_t lsn;

	b->fail_syncs = 2;
	assert_int_equal(redo_append(b->r, &rec, 1, &pin, 1000, false, &lsn, NULL), 0);
	assert_int_equal(redo_flush(b->r, lsn), -EIO);
	assert_true(redo_is_dead(b->r));
	redo_unpin(b->r, &pin);
	free(bytes);
}

/* A group that cannot be written in the other half goes on behind the last one, but never into the room that recovery will need. */
static void test_moves_behind(void **state)
{
	struct bed *b = *state;
	uint8_t *mb = pattern(1 << 20, 1);
	struct redo_rec rec = image_rec(1, 1, mb, 1 << 20);
	struct redo_pin pin = {0}, pins[2] = {{0}};
	uint64_t lsn;

	for (unsigned reserve = 0; reserve < 2; reserve++) {
		for (int i = 0; i < 13; i++) {
			assert_int_equal(redo_append(b->r, &rec, 1, &pin, 1000, false, &lsn, NULL), 0);
			assert_int_equal(redo_flush(b->r, lsn), 0);
		}
		/* what is left: 3 MiB less a few blocks */
		assert_int_equal(redo_append(b->r, &rec, 1, &pins[reserve], reserve ? 2 << 20 : 1000, false, &lsn, NULL), 0);
		b->fail_syncs = 1;
		assert_int_equal(redo_flush(b->r, lsn), reserve ? -EIO : 0);
		assert_int_equal(redo_is_dead(b->r), reserve);
		if (reserve)
			break;
		redo_unpin(b->r, &pin);
		redo_unpin(b->r, &pins[0]);
		redo_close(b->r);
		assert_int_equal(bed_open_log(b), 0);
	}
	redo_unpin(b->r, &pin);
	redo_unpin(b->r, &pins[1]);
	free(mb);
}

/* A failed write moves what is queued as well: a closed group before the change of half and the one after it. */
static void test_write_fails_with_queue(void **state)
{
	struct bed *b = *state;
	uint8_t *mb = pattern(1 << 20, 1), *got = malloc(1 << 20);
	struct redo_pin pin = {0};
	struct redo_loc locs[14];
	uint64_t lsn = 0;

	for (int i = 0; i < 14; i++) { /* the last one goes to the other half */
		struct redo_rec rec = image_rec(1, (uint64_t)i, mb, 1 << 20);

		mb[0] = (uint8_t)i;
		assert_int_equal(redo_append(b->r, &rec, 1, &pin, 1000, false, &lsn, &locs[i]), 0);
	}
	assert_int_equal(lsn, 3);
	b->fail_writes = 1;
	b->write_err = -EIO;
	assert_int_equal(redo_flush(b->r, lsn), 0);
	for (int i = 0; i < 14; i++) {
		assert_int_equal(redo_read(b->r, &locs[i], got), 0);
		assert_int_equal(got[0], i);
		assert_memory_equal(got + 1, mb + 1, (1 << 20) - 1);
	}
	redo_unpin(b->r, &pin);
	free(mb);
	free(got);
}

int main(void)
{
	const struct CMUnitTest tests[] = {T(test_sync_fails), T(test_sync_fails_twice), T(test_moves_behind),
					   T(test_write_fails_with_queue)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
