/* SPDX-License-Identifier: Apache-2.0 */
/* Recovery of a damaged log, of side files and of many files; disks that fail meanwhile. */
#include "recover_setup.h"

static void flip(struct bed *b, const char *name, uint64_t off)
{
	int fd = openat(b->tdfs, name, O_RDWR);
	uint8_t c;

	assert_int_equal(pread(fd, &c, 1, (off_t)off), 1);
	c ^= 0x10;
	assert_int_equal(pwrite(fd, &c, 1, (off_t)off), 1);
	close(fd);
}

/* The last group torn: the state before it, and no complaint. */
static void test_torn(void **state)
{
	struct bed *b = *state;
	struct content *one = content_new(b, 3 * S, 1), *two = content_change(b, one, 3 * S, 1, 50),
		       *three = content_change(b, two, 3 * S, 2, 70);
	struct redo_rec recs[2];

	write_file(b, "f", one, 1, 1, RECORD_SEALED);
	commit_one(b, "f", one, two, 1, 1, 1, 0);
	recs[0] = image_of(one, three, 2, 1, 1);
	recs[1] = commit_of(one, three, 1, 1);
	put(b, recs, 2, 0);
	log_stop(b);
	flip(b, "log.0", 20480 + 5000); /* the first group takes 16,384 + 28 + 400 bytes */
	assert_int_equal(run(b, true), 0);
	check_file(b, "f", two, 1, 2);
	content_free(one);
	content_free(two);
	content_free(three);
}

static void test_damage_inside(void **state)
{
	struct bed *b = *state;
	struct content *one = content_new(b, 3 * S, 1), *two = content_change(b, one, 3 * S, 1, 50),
		       *three = content_change(b, two, 3 * S, 2, 70);
	struct seal_parts parts;
	struct redo_rec recs[4];
	size_t len;

	/* s: sealed in the log before the damage; f: commits before and in it; g: behind it; h: not in the log */
	write_file(b, "s", one, 1, 1, RECORD_LIVE);
	write_file(b, "f", one, 2, 1, RECORD_LIVE);
	write_file(b, "g", one, 3, 1, RECORD_LIVE);
	write_file(b, "h", one, 4, 1, RECORD_SEALED);
	recs[0] = intent_rec(b, "s", one, 1, 1);
	recs[1] = image_of(one, two, 1, 1, 1);
	recs[2] = commit_of(one, two, 1, 1);
	recs[3] = seal_of(b, one, two, 1, 1, &parts);
	put(b, recs, 4, 0);
	commit_one(b, "f", one, two, 1, 2, 1, 1);
	recs[0] = image_of(one, three, 2, 2, 1);
	recs[1] = commit_of(one, three, 2, 1);
	put(b, recs, 2, 1);
	commit_one(b, "g", one, two, 1, 3, 1, 2);
	log_stop(b);
	flip(b, "log.0", 20480 + 20480 + 5000);   /* the third group */
	for (int round = 0; round < 2; round++) { /* and again: nothing is forgotten */
		assert_int_equal(run(b, true), 1);
		check_file(b, "s", two, 1, 2);
		check_file(b, "h", one, 4, 1);
		assert_int_equal(b->n_damage, 2);
		for (int i = 0; i < 2; i++)
			assert_true(b->damage[i].file_id[0] == 2 || b->damage[i].file_id[0] == 3);
		assert_int_equal(b->got.committed, 0);
	}
	{
		struct record r;
		uint8_t *p = slurp(b, "f", &len);

		assert_int_equal(record_parse(p, b->k_rec, &r, NULL), 0);
		assert_int_equal(r.state, RECORD_LIVE);
		assert_int_equal(r.generation, 1);
		free(p);
	}
	free(parts.tail);
	content_free(one);
	content_free(two);
	content_free(three);
}

/* The start of the older half is gone while something there is still needed. */
static void test_damage_front(void **state)
{
	struct bed *b = *state;
	struct content *one = content_new(b, 3 * S, 1), *two = content_change(b, one, 3 * S, 1, 50);
	uint8_t *mb = calloc(1, 1 << 20);
	struct redo_rec big = {.type = REDO_IMAGE, .base = base_of(one, 9, 1), .image = {0, mb, 1 << 20}};
	uint64_t lsn;
	int n = 0;

	write_file(b, "f", one, 1, 1, RECORD_SEALED);
	commit_one(b, "f", one, two, 1, 1, 1, 0);
	while (n < 20) { /* on into the other half */
		assert_int_equal(redo_append(b->r, &big, 1, &b->pins[1], 0, false, &lsn, NULL), 0);
		assert_int_equal(redo_flush(b->r, lsn), 0);
		n++;
	}
	log_stop(b);
	flip(b, "log.0", 40);
	assert_int_equal(run(b, true), 1);
	check_file(b, "f", one, 1, 1);
	/* with both it is in order */
	flip(b, "log.0", 40);
	assert_int_equal(run(b, true), 0);
	check_file(b, "f", two, 1, 2);
	free(mb);
	content_free(one);
	content_free(two);
}

/* Where the group @lsn stands in that half. */
static uint64_t group_at(struct bed *b, const char *name, uint64_t lsn)
{
	int fd = openat(b->tdfs, name, O_RDONLY);
	uint8_t head[REDO_HEADER];

	for (uint64_t off = 0; pread(fd, head, sizeof(head), (off_t)off) == sizeof(head); off += REDO_BLOCK)
		if (redo_group_len(head, REDO_HALF_MIN) && redo_group_lsn(head) == lsn) {
			close(fd);
			return off;
		}
	close(fd);
	assert_true(false); /* it is not there */
	return 0;
}

/* Everything is retired, as after an unmount, and the first group of the next mount is gone while its second is there. */
static void test_damage_after_clean(void **state)
{
	struct bed *b = *state;
	struct content *one = content_new(b, 3 * S, 1), *two = content_change(b, one, 3 * S, 1, 50);
	struct recovered at;
	char name[8];
	uint64_t off;

	write_file(b, "f", one, 1, 1, RECORD_SEALED);
	write_file(b, "g", one, 2, 1, RECORD_SEALED);
	commit_one(b, "f", one, two, 1, 1, 1, 0);
	assert_int_equal(run(b, true), 0);
	assert_int_equal(run(b, true), 0);
	at = b->got;
	assert_int_equal(redo_open(&b->io, b->tdfs, b->root, volume, b->k_log, at.next_lsn, at.next_epoch, at.half, at.other_end, &b->r),
			 0);
	commit_one(b, "g", one, two, 1, 2, 1, 0);
	commit_one(b, "g", one, two, 1, 2, 1, 1);
	commit_one(b, "g", one, two, 1, 2, 1, 2);
	log_stop(b);
	snprintf(name, sizeof(name), "log.%d", at.half);
	off = group_at(b, name, at.next_lsn);
	flip(b, name, off + 40);
	assert_int_equal(run(b, true), 1);
	check_file(b, "f", two, 1, 2);
	check_file(b, "g", one, 2, 1);
	flip(b, name, off + 40);
	assert_int_equal(run(b, true), 0);
	check_file(b, "g", two, 2, 2);
	content_free(one);
	content_free(two);
}

/* The same where the group that is gone is as large as one can be. */
static void test_large_damage_after_clean(void **state)
{
	struct bed *b = *state;
	struct content *one = content_new(b, 3 * S, 1), *two = content_change(b, one, 3 * S, 1, 50);
	CLEANUP_FREE uint8_t *bytes = calloc(1, REDO_GROUP_MAX);
	struct redo_rec big = {.type = REDO_IMAGE, .base = base_of(one, 9, 1), .image = {0, bytes, (uint32_t)((4u << 20) - REDO_BLOCK)}};
	uint64_t lsn, off;

	write_file(b, "f", one, 1, 1, RECORD_SEALED);
	write_file(b, "g", one, 2, 1, RECORD_SEALED);
	commit_one(b, "f", one, two, 1, 1, 1, 0);
	assert_int_equal(run(b, true), 0);
	assert_int_equal(
	    redo_open(&b->io, b->tdfs, b->root, volume, b->k_log, b->got.next_lsn, b->got.next_epoch, b->got.half, b->got.other_end, &b->r),
	    0);
	for (int i = 0; i < 2; i++)
		assert_int_equal(redo_append(b->r, &big, 1, &b->pins[0], 0, false, &lsn, NULL), 0);
	assert_int_equal(lsn, b->got.next_lsn);
	assert_int_equal(redo_flush(b->r, lsn), 0);
	commit_one(b, "g", one, two, 1, 2, 1, 1);
	log_stop(b);
	off = group_at(b, "log.1", lsn);
	flip(b, "log.1", off + 5000000);
	assert_int_equal(run(b, true), 1);
	check_file(b, "g", one, 2, 1);
	flip(b, "log.1", off + 5000000);
	assert_int_equal(run(b, true), 0);
	check_file(b, "g", two, 2, 2);
	content_free(one);
	content_free(two);
}

/* The first group after a change of half is torn: what the old half holds is all there is, and that is in order. */
static void test_torn_after_change(void **state)
{
	struct bed *b = *state;
	struct content *one = content_new(b, 3 * S, 1), *two = content_change(b, one, 3 * S, 1, 50);
	uint8_t *mb = calloc(1, 1 << 20);
	struct redo_rec big = {.type = REDO_IMAGE, .base = base_of(one, 9, 1), .image = {0, mb, 1 << 20}};
	uint64_t lsn, last = 0;

	for (int half = 0; half < 2; half++) { /* log.0, then log.1 ... */
		for (int i = 0; i < 13; i++) {
			assert_int_equal(redo_append(b->r, &big, 1, &b->pins[half], 0, false, &lsn, NULL), 0);
			assert_int_equal(redo_flush(b->r, lsn), 0);
		}
	}
	write_file(b, "f", one, 1, 1, RECORD_SEALED);
	commit_one(b, "f", one, two, 1, 1, 1, 2);
	redo_unpin(b->r, &b->pins[0]);
	/* ... and back to log.0, torn */
	assert_int_equal(redo_append(b->r, &big, 1, &b->pins[3], 0, false, &last, NULL), 0);
	assert_int_equal(redo_flush(b->r, last), 0);
	log_stop(b);
	flip(b, "log.0", 50000);
	assert_int_equal(run(b, true), 0);
	check_file(b, "f", two, 1, 2);
	free(mb);
	content_free(one);
	content_free(two);
}

/*
 * Three groups wait to be written, and of the first two nothing is needed any more.  The first does not say so: after a power cut behind it
 * the LSN of the second is given again.
 */
static void test_torn_behind_retired(void **state)
{
	struct bed *b = *state;
	struct content *one = content_new(b, 3 * S, 1), *two = content_change(b, one, 3 * S, 1, 50);
	uint8_t *mb = calloc(1, 4 << 20);
	struct redo_rec big = {.type = REDO_IMAGE, .base = base_of(one, 9, 1), .image = {0, mb, 4 << 20}};
	uint64_t lsn = 0;
	int fd;

	memset(mb, 1, 4 << 20);
	write_file(b, "f", one, 1, 1, RECORD_SEALED);
	for (int i = 0; i < 3; i++)
		assert_int_equal(redo_append(b->r, &big, 1, &b->pins[0], 0, false, &lsn, NULL), 0);
	assert_int_equal(lsn, 3);
	redo_bury(b->r, &b->pins[0]); /* removed */
	redo_names_durable(b->r);
	commit_one(b, "f", one, two, 1, 1, 1, 1);
	log_stop(b);
	fd = openat(b->tdfs, "log.0", O_RDWR);
	assert_int_equal(ftruncate(fd, 6 << 20), 0); /* the power cut */
	assert_int_equal(ftruncate(fd, REDO_HALF_MIN), 0);
	close(fd);
	assert_int_equal(run(b, true), 0);
	assert_int_equal(b->got.next_lsn, 2);
	check_file(b, "f", one, 1, 1);
	log_start(b, b->got.next_lsn, b->got.next_epoch, b->got.half);
	commit_one(b, "f", one, two, 1, 1, 1, 2);
	assert_int_equal(run(b, true), 0);
	check_file(b, "f", two, 1, 2);
	free(mb);
	content_free(one);
	content_free(two);
}

static void test_other_volume(void **state)
{
	struct bed *b = *state;
	struct content *one = content_new(b, 3 * S, 1), *two = content_change(b, one, 3 * S, 1, 50);

	write_file(b, "f", one, 1, 1, RECORD_SEALED);
	commit_one(b, "f", one, two, 1, 1, 1, 0);
	b->keys.volume_id = (const uint8_t *)"another volume..";
	assert_int_equal(run(b, true), -EBADMSG);
	check_file(b, "f", one, 1, 1);
	content_free(one);
	content_free(two);
}

static void test_report_only(void **state)
{
	struct bed *b = *state;
	struct content *one = content_new(b, 3 * S, 1), *two = content_change(b, one, 3 * S, 1, 50);

	write_file(b, "f", one, 1, 1, RECORD_SEALED);
	commit_one(b, "f", one, two, 1, 1, 1, 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(run(b, false), 0);
		assert_int_equal(b->got.committed, 1);
		assert_int_equal(b->n_damage, 1); /* what is in place is not its last state */
		check_file(b, "f", one, 1, 1);
	}
	assert_int_equal(run(b, true), 0);
	check_file(b, "f", two, 1, 2);
	content_free(one);
	content_free(two);
}

/* A tail in a side file; removed when it is not needed any more. */
static void test_side(void **state)
{
	struct bed *b = *state;
	struct content *one = content_new(b, 3 * S, 1), *two = content_change(b, one, 3 * S, 1, 50);
	struct seal_parts parts;
	struct redo_rec recs[3];
	uint8_t hash[32];
	char name[40] = "tail-";

	write_file(b, "f", one, 1, 1, RECORD_SEALED);
	recs[0] = intent_rec(b, "f", one, 1, 1);
	recs[1] = image_of(one, two, 1, 1, 1);
	recs[2] = seal_of(b, one, two, 1, 1, &parts);
	assert_int_equal(redo_side_write(b->r, parts.tail, parts.len, hash), 0);
	recs[2].seal.tail = NULL;
	recs[2].seal.side = hash;
	put(b, recs, 3, 0);
	for (int i = 0; i < 16; i++)
		sprintf(name + 5 + 2 * i, "%02x", hash[i]);
	assert_int_equal(faccessat(b->tdfs, name, F_OK, 0), 0);
	assert_int_equal(run(b, true), 0);
	check_file(b, "f", two, 1, 2);
	assert_int_equal(faccessat(b->tdfs, name, F_OK, 0), -1);
	free(parts.tail);
	content_free(one);
	content_free(two);
}

static void test_sync_fails(void **state)
{
	struct bed *b = *state;
	struct content *one = content_new(b, 3 * S, 1), *two = content_change(b, one, 3 * S, 1, 50);

	write_file(b, "f", one, 1, 1, RECORD_SEALED);
	commit_one(b, "f", one, two, 1, 1, 1, 0);
	log_stop(b);
	/* the SEAL is logged; then the file's sync fails for good: the log keeps everything */
	b->fail_at = 1;
	b->fail_syncs = 2;
	assert_int_equal(run(b, true), 1);
	assert_int_equal(b->n_damage, 1);
	/* once: written again */
	b->fail_at = 0;
	b->fail_syncs = 1;
	b->syncs = 0;
	assert_int_equal(run(b, true), 0);
	assert_int_equal(b->syncs, 3);
	check_file(b, "f", two, 1, 2);
	content_free(one);
	content_free(two);
}

/* More files than one batch. */
static void test_many(void **state)
{
	struct bed *b = *state;
	struct content *one = content_new(b, 2 * S, 1), *two = content_change(b, one, 2 * S, 1, 50);
	char name[20];

	for (int i = 0; i < 150; i++) {
		snprintf(name, sizeof(name), "f%d", i);
		write_file(b, name, one, (uint8_t)(i + 1), 1, RECORD_LIVE);
		commit_one(b, name, one, two, 1, (uint8_t)(i + 1), 1, i % 8);
	}
	assert_int_equal(run(b, true), 0);
	assert_int_equal(b->got.committed, 150);
	for (int i = 0; i < 150; i++) {
		snprintf(name, sizeof(name), "f%d", i);
		check_file(b, name, two, (uint8_t)(i + 1), 2);
	}
	content_free(one);
	content_free(two);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T(test_torn),
	    T(test_damage_inside),
	    T(test_damage_front),
	    T(test_damage_after_clean),
	    T(test_torn_after_change),
	    T(test_torn_behind_retired),
	    T(test_other_volume),
	    T(test_report_only),
	    T(test_side),
	    T(test_sync_fails),
	    T(test_many),
	    T(test_large_damage_after_clean),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
