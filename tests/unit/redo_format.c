/* SPDX-License-Identifier: Apache-2.0 */
/* The volume log's groups and records: each bit counts. */
#include "redo_setup.h"

/* One of each kind. */
static size_t all_kinds(struct redo_rec ret[static 7], uint8_t *bytes, struct redo_place *places)
{
	static const uint8_t root[32] = {9, 8, 7}, sector[SECTOR] = {1, 2, 3};

	ret[0] = (struct redo_rec){.type = REDO_INTENT, .base = base_no(3), .intent = {12345, 77, 0100644, "dir/some name"}};
	ret[1] = image_rec(3, 5, bytes, 1001);
	ret[2] = (struct redo_rec){.type = REDO_PLACE, .base = base_no(3), .place = {.first = 6, .each = places, .count = 3}};
	ret[3] = (struct redo_rec){
	    .type = REDO_COMMIT, .base = base_no(3), .commit = {1, 400000, 1 << 20, {-5, 999999999}, {1700000000, 1}, 0xdeadbeef, root}};
	ret[4] = (struct redo_rec){
	    .type = REDO_SEAL, .base = base_no(3), .seal = {4, root, 3000, {1, 2}, 2000, 1000, sector, bytes, NULL, false}};
	ret[5] = (struct redo_rec){
	    .type = REDO_SEAL, .base = base_no(3), .seal = {4, root, 9002000, {1, 2}, 2000, 9000000, sector, NULL, root, false}};
	ret[6] = (struct redo_rec){.type = REDO_VOID, .base = base_no(3)};
	return 7;
}

static void same_record(const struct redo_rec *a, const struct redo_rec *b)
{
	assert_int_equal(a->type, b->type);
	assert_memory_equal(&a->base, &b->base, sizeof(a->base));
	switch (a->type) {
	case REDO_INTENT:
		assert_int_equal(a->intent.sealed_len, b->intent.sealed_len);
		assert_int_equal(a->intent.ino, b->intent.ino);
		assert_int_equal(a->intent.root_ino, b->intent.root_ino);
		assert_string_equal(a->intent.path, b->intent.path);
		break;
	case REDO_IMAGE:
		assert_int_equal(a->image.seg, b->image.seg);
		assert_int_equal(a->image.len, b->image.len);
		assert_memory_equal(a->image.bytes, b->image.bytes, a->image.len);
		break;
	case REDO_PLACE:
		assert_int_equal(a->place.first, b->place.first);
		assert_int_equal(a->place.count, b->place.count);
		for (uint32_t i = 0; i < a->place.count; i++) {
			assert_int_equal(a->place.each[i].crc, get_le32(b->place.raw + 20 * i));
			assert_memory_equal(a->place.each[i].tag, b->place.raw + 20 * i + 4, 16);
		}
		break;
	case REDO_COMMIT:
		assert_int_equal(a->commit.number, b->commit.number);
		assert_int_equal(a->commit.size, b->commit.size);
		assert_int_equal(a->commit.invocations, b->commit.invocations);
		assert_memory_equal(&a->commit.mtime, &b->commit.mtime, sizeof(struct timespec));
		assert_memory_equal(&a->commit.ctime, &b->commit.ctime, sizeof(struct timespec));
		assert_int_equal(a->commit.crc, b->commit.crc);
		assert_memory_equal(a->commit.root, b->commit.root, 32);
		break;
	case REDO_SEAL:
		assert_int_equal(a->seal.generation, b->seal.generation);
		assert_memory_equal(a->seal.content_id, b->seal.content_id, ID_LEN);
		assert_int_equal(a->seal.final_len, b->seal.final_len);
		assert_int_equal(a->seal.tail_off, b->seal.tail_off);
		assert_int_equal(a->seal.tail_len, b->seal.tail_len);
		assert_memory_equal(a->seal.sector, b->seal.sector, SECTOR);
		assert_int_equal(!a->seal.tail, !b->seal.tail);
		if (a->seal.tail)
			assert_memory_equal(a->seal.tail, b->seal.tail, a->seal.tail_len);
		else
			assert_memory_equal(a->seal.side, b->seal.side, 32);
		break;
	case REDO_VOID:
		break;
	}
}

static uint8_t *make_group(struct redo_rec *recs, size_t n, const struct secret *key, struct redo_group *ret)
{
	size_t len = REDO_HEADER, at = REDO_HEADER;
	uint8_t *p;

	for (size_t i = 0; i < n; i++)
		len += redo_rec_len(&recs[i]);
	p = malloc(len);
	memset(p, 0xEE, len);
	for (size_t i = 0; i < n; i++) {
		redo_rec_write(&recs[i], p + at);
		at += redo_rec_len(&recs[i]);
	}
	*ret = (struct redo_group){.epoch = 3, .lsn = 17, .durable_lsn = 16, .retired_lsn = 9, .n_recs = (uint32_t)n, .len = (uint32_t)len};
	assert_int_equal(redo_group_seal(p, ret, volume, key), 0);
	return p;
}

static void test_format(void **state)
{
	struct bed *b = *state;
	struct redo_place places[3] = {{1, "a"}, {2, "b"}, {3, "c"}};
	uint8_t *bytes = pattern(1001, 1);
	struct redo_rec recs[7], got;
	struct redo_group g, h;
	size_t n = all_kinds(recs, bytes, places), at = REDO_HEADER, len;
	uint8_t *p = make_group(recs, n, b->key, &g);

	assert_int_equal(redo_group_parse(p, g.len, volume, b->key, &h), 0);
	assert_int_equal(h.epoch, 3);
	assert_int_equal(h.lsn, 17);
	assert_int_equal(h.durable_lsn, 16);
	assert_int_equal(h.retired_lsn, 9);
	assert_int_equal(h.n_recs, n);
	for (size_t i = 0; i < n; i++, at += len) {
		assert_int_equal(redo_rec_parse(p + at, g.len - at, &got, &len), 0);
		assert_int_equal(len % 8, 0);
		same_record(&recs[i], &got);
	}
	assert_int_equal(at, g.len);
	/* fixed offsets of FORMAT.md */
	assert_memory_equal(p, "TDFSLOG1\1\0\0\0", 12);
	assert_int_equal(get_le64(p + 40), 17);
	assert_int_equal(get_le16(p + 96), REDO_INTENT);
	assert_int_equal(get_le64(p + 96 + 48 + 8), 77);
	/* another volume, another key, an empty place */
	assert_int_equal(redo_group_parse(p, g.len, (const uint8_t *)"another volume..", b->key, &h), -EXDEV);
	b->key->b[0] ^= 1;
	assert_int_equal(redo_group_parse(p, g.len, volume, b->key, &h), -EBADMSG);
	b->key->b[0] ^= 1;
	assert_int_equal(redo_group_parse(p + 96, g.len - 96, volume, b->key, &h), -ENOENT);
	free(p);
	free(bytes);
}

/* Each bit of each byte counts; so does each cut. */
static void test_damage(void **state)
{
	struct bed *b = *state;
	struct redo_place places[3] = {{1, "a"}, {2, "b"}, {3, "c"}};
	uint8_t *bytes = pattern(1001, 1), *p;
	struct redo_rec recs[7];
	struct redo_group g, h;
	size_t n = all_kinds(recs, bytes, places);

	p = make_group(recs, n, b->key, &g);
	for (size_t i = 0; i < g.len; i++) {
		p[i] ^= (uint8_t)(1 << i % 8);
		assert_int_not_equal(redo_group_parse(p, g.len, volume, b->key, &h), 0);
		p[i] ^= (uint8_t)(1 << i % 8);
	}
	for (size_t i = 0; i < g.len; i += 8)
		assert_int_not_equal(redo_group_parse(p, i, volume, b->key, &h), 0);
	assert_int_equal(redo_group_parse(p, g.len, volume, b->key, &h), 0);
	free(p);
	free(bytes);
}

/* With a right CRC the MAC alone must still find every change, but for the inside of an image. */
static void test_mac(void **state)
{
	struct bed *b = *state;
	struct redo_place places[3] = {{1, "a"}, {2, "b"}, {3, "c"}};
	uint8_t *bytes = pattern(1001, 1), *p;
	struct redo_rec recs[7];
	struct redo_group g, h, other;
	size_t n = all_kinds(recs, bytes, places), image = REDO_HEADER + redo_rec_len(&recs[0]) + REDO_RECORD + 16, missed = 0;

	p = make_group(recs, n, b->key, &g);
	for (size_t i = REDO_HEADER; i < g.len; i++) {
		uint8_t mac[16];

		memcpy(mac, p + 80, 16);
		p[i] ^= 1;
		other = g;
		/* sealing again with any key makes the CRC right; then the first MAC is put back, which the CRC does not cover */
		if (!redo_group_seal(p, &other, volume, b->key)) {
			memcpy(p + 80, mac, 16);
			if (!redo_group_parse(p, g.len, volume, b->key, &h)) {
				bool inside = i >= image + 12 && i < image + 1001 - 16;
				bool padding = i >= image + 1001 && i < image + 1008;

				assert_true(inside || padding);
				missed++;
			}
		}
		p[i] ^= 1;
		assert_int_equal(redo_group_seal(p, &other, volume, b->key), 0);
	}
	assert_int_equal(missed, 1001 - 28 + (8 - 1001 % 8) % 8);
	free(p);
	free(bytes);
}

/* A SEAL whose whole content stands beside the log has a version of its own: a program that does not know it must stop there. */
static void test_whole(void **state)
{
	struct bed *b = *state;
	static const uint8_t root[32] = {9, 8, 7}, sector[SECTOR] = {1, 2, 3};
	struct redo_rec recs[2] = {
	    {.type = REDO_VOID, .base = base_no(3)},
	    {.type = REDO_SEAL, .base = base_no(3), .seal = {4, root, 3000, {1, 2}, 2000, 1000, sector, NULL, root, true}}};
	struct redo_rec got;
	struct redo_group g, h;
	uint8_t *p = make_group(recs, 2, b->key, &g);
	size_t len;

	assert_memory_equal(p, "TDFSLOG1\2\0\0\0", 12);
	assert_int_equal(get_le16(p + 96 + 48 + 2), 3);
	assert_int_equal(redo_group_parse(p, g.len, volume, b->key, &h), 0);
	assert_int_equal(redo_rec_parse(p + 96 + 48, g.len - 96 - 48, &got, &len), 0);
	same_record(&recs[1], &got);
	assert_true(got.seal.whole);
	put_le16(p + 96 + 48 + 2, 2); /* whole, but no side file */
	assert_int_equal(redo_rec_parse(p + 96 + 48, g.len - 96 - 48, &got, &len), -EPROTO);
	put_le16(p + 96 + 48 + 2, 7);
	assert_int_equal(redo_rec_parse(p + 96 + 48, g.len - 96 - 48, &got, &len), -EPROTO);
	put_le16(p + 96 + 48 + 2, 3);
	put_le32(p + 8, 3);
	assert_int_equal(redo_group_parse(p, g.len, volume, b->key, &h), -ENOTSUP);
	free(p);
	recs[1].seal.whole = false;
	p = make_group(recs, 2, b->key, &g);
	assert_memory_equal(p, "TDFSLOG1\1\0\0\0", 12);
	free(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T(test_format),
	    T(test_damage),
	    T(test_mac),
	    T(test_whole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
