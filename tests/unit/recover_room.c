/* SPDX-License-Identifier: Apache-2.0 */
/* Recovery of a log that is full to the end of its half. */
#include "recover_setup.h"
#include "redo_int.h"

/* As large as it takes for the end of the log to be @left bytes before the end of its half; the first sync, of the other half, fails. */
static void fill_up(struct bed *b, uint64_t left)
{
	uint64_t room = b->r->half_size - b->r->end[0] - left, len = room - REDO_HEADER - REDO_RECORD - 24;
	struct redo_rec rec = {.type = REDO_IMAGE};
	CLEANUP_FREE uint8_t *bytes = calloc(1, len);
	uint64_t lsn;

	assert_true(len > b->r->spare && len < REDO_GROUP_MAX);
	memset(rec.base.file_id, 99, ID_LEN);
	rec.image.bytes = bytes;
	rec.image.len = (uint32_t)len;
	assert_int_equal(redo_append(b->r, &rec, 1, &b->pins[0], 0, false, &lsn, NULL), 0);
	assert_int_equal(b->r->fill->half, 1);
	b->fail_syncs = 1;
	assert_int_equal(redo_flush(b->r, lsn), 0);
	assert_int_equal(b->r->end[0], b->r->half_size - left);
}

/* The log went on behind the last group of a half because the other could not be written, and left no room for SEALs. */
static void test_no_room(void **state)
{
	struct bed *b = *state;
	struct content *one = content_new(b, 3 * S, 1), *two = content_change(b, one, 3 * S, 1, 50);
	CLEANUP_FREE uint8_t *mb = calloc(1, 1 << 20);
	struct redo_rec rec = {.type = REDO_IMAGE, .image = {0, mb, 1 << 20}};
	uint64_t lsn;
	char name[8];

	for (uint8_t i = 1; i <= 14; i++) {
		struct redo_rec recs[3];

		snprintf(name, sizeof(name), "f%u", i);
		write_file(b, name, one, i, 1, RECORD_SEALED);
		recs[0] = intent_rec(b, name, one, i, 1);
		recs[1] = image_of(one, two, 1, i, 1);
		recs[2] = commit_of(one, two, i, 1);
		assert_int_equal(redo_append(b->r, recs, 3, &b->pins[0], 0, false, &lsn, NULL), 0);
		assert_int_equal(redo_flush(b->r, lsn), 0);
	}
	memset(rec.base.file_id, 99, ID_LEN);
	for (int i = 0; i < 13; i++) {
		assert_int_equal(redo_append(b->r, &rec, 1, &b->pins[0], 0, false, &lsn, NULL), 0);
		assert_int_equal(redo_flush(b->r, lsn), 0);
	}
	fill_up(b, 3 * REDO_BLOCK);
	assert_int_equal(run(b, true), 0);
	assert_int_equal(b->got.half, 0); /* it went on in the other one, and so do we */
	for (uint8_t i = 1; i <= 14; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		check_file(b, name, two, i, 2);
	}
	assert_int_equal(run(b, true), 0);
	assert_int_equal(b->got.files, 0);
	content_free(one);
	content_free(two);
}

int main(void)
{
	const struct CMUnitTest tests[] = {T(test_no_room)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
