/* SPDX-License-Identifier: Apache-2.0 */
#include "record.h"
#include "report.h" /* before cmocka.h, which has a macro fail() */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static const struct secret k_rec = {{1, 2, 3}}, k_other = {{1, 2, 4}}, k_hint = {{7}};

static struct record example(void)
{
	struct record r = {
	    .state = RECORD_SEALED,
	    .rocompat = 0x80000001,
	    .s = 65536,
	    .generation = 7,
	    .size = 65537,
	    .tail_off = 66105,
	    .epoch = 1,
	    .invocations = 1 << 20,
	    .mtime = {-5, 999999999},
	    .ctime = {1700000000, 1},
	    .made = {1800000000, 2},
	};

	for (int i = 0; i < ID_LEN; i++) {
		r.content_id[i] = (uint8_t)(0x10 + i);
		r.volume_id[i] = (uint8_t)(0x20 + i);
		r.file_id[i] = (uint8_t)(0x30 + i);
		r.dir_binding[i] = (uint8_t)(0x40 + i);
	}
	for (int i = 0; i < MAC_LEN; i++)
		r.seal[i] = (uint8_t)(0x50 + i);
	return r;
}

static void sector_of(const struct record *r, uint8_t *p)
{
	assert_int_equal(record_sector(r, 0xcafe1234, &k_rec, p), 0);
}

/* the table of FORMAT.md section 1 */
static void test_worked_counts(void **state)
{
	static const struct {
		uint64_t z, n, p, tail;
	} rows[] = {
	    {0, 1, 28, 540}, {1, 1, 29, 541}, {65536, 1, 65564, 66076}, {65537, 2, 65593, 66105}, {131072, 2, 131128, 131640},
	};
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		assert_int_equal(seg_count(rows[i].z, 65536), rows[i].n);
		assert_int_equal(payload_len(rows[i].z, 65536), rows[i].p);
		assert_int_equal(tail_offset(rows[i].z, 65536), rows[i].tail);
		assert_int_equal(seg_off(65536, rows[i].n - 1) + seg_plain(rows[i].z, 65536, rows[i].n - 1) + 28, rows[i].tail);
	}
}

/* every offset as FORMAT.md sections 2 and 3 give it, in plain numbers */
static void test_layout(void **state)
{
	struct record r = example();
	uint8_t p[SECTOR], zero[173] = {0};
	const uint8_t *rec = p + 63;

	(void)state;
	sector_of(&r, p);
	assert_memory_equal(p, "PK\3\4", 4);
	assert_int_equal(get_le16(p + 4), 45);
	assert_int_equal(get_le16(p + 6), 0);
	assert_int_equal(get_le16(p + 8), 0);
	assert_int_equal(get_le16(p + 10), 0);
	assert_int_equal(get_le16(p + 12), 0x21);
	assert_int_equal(get_le32(p + 14), 0xcafe1234);
	assert_int_equal(get_le32(p + 18), 0xffffffff);
	assert_int_equal(get_le32(p + 22), 0xffffffff);
	assert_int_equal(get_le16(p + 26), 9);
	assert_int_equal(get_le16(p + 28), 473);
	assert_memory_equal(p + 30, "0.payload", 9);
	assert_memory_equal(p + 39, "\x01\x00\x10\x00", 4);
	assert_int_equal(get_le64(p + 43), 65593);
	assert_int_equal(get_le64(p + 51), 65593);
	assert_memory_equal(p + 59, "\x74\x64\x10\x01", 4);
	assert_memory_equal(p + 335, "\x70\x64\xad\x00", 4);
	assert_memory_equal(p + 339, zero, 173);

	assert_memory_equal(rec, "\x01\x00\x02\x01\0\0\0\0\x01\0\0\x80", 12);
	assert_int_equal(get_le32(rec + 12), 65536);
	assert_int_equal(get_le64(rec + 16), 7);
	assert_memory_equal(rec + 24, r.content_id, 16);
	assert_memory_equal(rec + 40, r.volume_id, 16);
	assert_memory_equal(rec + 56, r.file_id, 16);
	assert_int_equal(get_le64(rec + 72), 65537);
	assert_int_equal(get_le64(rec + 80), 66105);
	assert_int_equal(get_le64(rec + 88), 1);
	assert_int_equal(get_le64(rec + 96), 1 << 20);
	assert_memory_equal(rec + 104, r.seal, 32);
	assert_memory_equal(rec + 136, zero, 32);
	assert_memory_equal(rec + 168, r.dir_binding, 16);
	assert_int_equal((int64_t)get_le64(rec + 184), -5);
	assert_int_equal(get_le32(rec + 192), 999999999);
	assert_int_equal(get_le64(rec + 196), 1700000000);
	assert_int_equal(get_le32(rec + 204), 1);
	assert_int_equal(get_le64(rec + 240), 1800000000);
	assert_int_equal(get_le32(rec + 248), 2);
	assert_memory_equal(rec + 252, zero, 20);

	/* the MAC: over 272 bytes with its field zero */
	uint8_t copy[272], mac[MAC_LEN];

	memcpy(copy, rec, 272);
	memset(copy + 208, 0, 32);
	assert_int_equal(hmac_sha256(k_rec.b, 32, &(struct part){copy, 272}, 1, mac), 0);
	assert_memory_equal(mac, rec + 208, 32);
}

static void test_round_trip(void **state)
{
	static const struct {
		const char *name;
		uint64_t size;
		uint32_t s;
		enum record_state state;
	} cases[] = {
	    {"empty", 0, SEG_DEFAULT, RECORD_SEALED},       {"one", 1, SEG_MIN, RECORD_SEALED},  {"live", 1 << 20, SEG_MAX, RECORD_LIVE},
	    {"largest", PLAIN_MAX, SEG_MIN, RECORD_SEALED}, {"new", 0, SEG_DEFAULT, RECORD_NEW},
	};
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct record r = example(), got;
		uint8_t p[SECTOR];
		uint32_t crc = 1;

		print_message("%s\n", cases[i].name);
		r.size = cases[i].size;
		r.s = cases[i].s;
		r.state = cases[i].state;
		r.tail_off = tail_offset(r.size, r.s);
		if (r.state == RECORD_NEW) {
			r.generation = 0;
			memset(r.content_id, 0, ID_LEN);
		}
		sector_of(&r, p);
		memset(&got, 0xee, sizeof(got));
		assert_int_equal(record_parse(p, &k_rec, &got, &crc), 0);
		assert_int_equal(crc, r.state == RECORD_NEW ? 0 : 0xcafe1234);
		assert_int_equal(got.state, r.state);
		assert_int_equal(got.size, r.size);
		assert_int_equal(got.s, r.s);
		uint8_t again[SECTOR];

		assert_int_equal(record_sector(&got, crc, &k_rec, again), 0);
		assert_memory_equal(p, again, SECTOR);
		assert_int_equal(record_parse(p, NULL, &got, NULL), 0);
		assert_int_equal(record_parse(p, &k_other, &got, NULL), -EBADMSG);
	}
}

/* every bit of the sector counts, with the MAC key; damage is never taken for a foreign file; and the result stays untouched */
static void test_every_bit(void **state)
{
	struct record r = example(), got, untouched;
	uint8_t p[SECTOR];
	uint32_t crc;

	(void)state;
	sector_of(&r, p);
	memset(&untouched, 0xee, sizeof(untouched));
	for (size_t i = 0; i < SECTOR * 8; i++) {
		int err, own;

		if (i / 8 >= 14 && i / 8 < 18)
			continue; /* the payload's CRC: the tail has it a second time (tail.c) */
		p[i / 8] ^= (uint8_t)(1 << i % 8);
		memset(&got, 0xee, sizeof(got));
		err = record_parse(p, &k_rec, &got, &crc);
		assert_true(err == -EBADMSG || err == -EPROTO || err == -ENOTSUP);
		assert_memory_equal(&got, &untouched, sizeof(got));
		own = record_own(p, &k_rec, r.volume_id, &got, &crc);
		assert_true(own == -EBADMSG || own == -EPROTO || own == -ENOTSUP);
		p[i / 8] ^= (uint8_t)(1 << i % 8);
	}
	assert_int_equal(record_own(p, &k_rec, r.volume_id, &got, &crc), 0);
}

static void test_impossible_values(void **state)
{
	(void)state;
	struct record base = example(), got;
	struct record bad[12];
	const int want[12] = {-EPROTO, -EPROTO, -EPROTO, -EPROTO, -EPROTO, -EPROTO, -EPROTO, -EPROTO, -EPROTO, -EPROTO, -ENOTSUP, -EPROTO};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		bad[i] = base;
	bad[0].s = SEG_MIN - 1;
	bad[1].s = SEG_MAX + 1;
	bad[2].size = PLAIN_MAX + 1;
	bad[3].tail_off++;
	bad[4].state = 4;
	bad[5].state = RECORD_VOID;
	bad[6].generation = 0;
	memset(bad[7].content_id, 0, ID_LEN);
	bad[8].mtime.tv_nsec = 1000000000;
	bad[9].state = RECORD_NEW; /* with a generation */
	bad[10].incompat = 1;
	bad[11].s = 0;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		uint8_t p[SECTOR];
		uint32_t s = bad[i].s;

		print_message("case %zu\n", i);
		if (!s)
			bad[i].s = 65536; /* cannot be computed with: patched below */
		sector_of(&bad[i], p);
		if (!s)
			put_le32(p + 63 + 12, 0);
		fail_clear();
		assert_int_equal(record_parse(p, &k_rec, &got, NULL), want[i]);
		assert_int_not_equal(strlen(fail_text()), 0);
	}
}

static void test_foreign_and_void(void **state)
{
	struct record r = example(), got;
	uint8_t p[SECTOR] = {0}, other[ID_LEN] = {9};
	uint32_t crc = 5;

	(void)state;
	assert_int_equal(record_parse(p, &k_rec, &got, &crc), 0);
	assert_int_equal(got.state, RECORD_VOID);
	assert_int_equal(crc, 0);
	memcpy(p, "PK\3\4", 4);
	memcpy(p + 30, "0.payload", 9);
	assert_int_equal(record_parse(p, &k_rec, &got, &crc), -ENOENT);
	memset(p, 'x', SECTOR);
	assert_int_equal(record_parse(p, &k_rec, &got, &crc), -ENOENT);
	/* another volume: its MAC key is another one too */
	assert_int_equal(record_sector(&r, 1, &k_other, p), 0);
	assert_int_equal(record_own(p, &k_rec, other, &got, &crc), -ENOENT);
	assert_string_equal(fail_text(), "");
	assert_int_equal(record_own(p, &k_rec, r.volume_id, &got, &crc), -EBADMSG);
	/* a later version */
	sector_of(&r, p);
	p[63] = 2;
	assert_int_equal(record_parse(p, &k_rec, &got, &crc), -ENOTSUP);
}

static void test_seal(void **state)
{
	struct record r = example();
	const struct secret k_seal = {{5}}, dek = {{6}}, dek2 = {{8}};
	struct part ka = {"[{}]", 4}, policy = {"e30=", 4};
	uint8_t base[MAC_LEN], other[MAC_LEN];

	(void)state;
	assert_int_equal(record_seal(&k_seal, &r, ka, policy, &dek, base), 0);
	/* by hand, from FORMAT.md */
	uint8_t text[16 + 16 + 4 + 32 + 32 + 32], want[MAC_LEN];

	memcpy(text, r.volume_id, 16);
	memcpy(text + 16, r.file_id, 16);
	memcpy(text + 32, "\0\0\1\0", 4);
	assert_int_equal(sha256(&ka, 1, text + 36), 0);
	assert_int_equal(sha256(&policy, 1, text + 68), 0);
	assert_int_equal(hmac_sha256(dek.b, 32, &(struct part){"tdfs commit", 11}, 1, text + 100), 0);
	assert_int_equal(hmac_sha256(k_seal.b, 32, &(struct part){text, sizeof(text)}, 1, want), 0);
	assert_memory_equal(base, want, MAC_LEN);

	assert_int_equal(record_seal(&k_seal, &r, ka, policy, &dek2, other), 0);
	assert_memory_not_equal(base, other, MAC_LEN);
	assert_int_equal(record_seal(&k_seal, &r, policy, ka, &dek, other), 0);
	assert_memory_not_equal(base, other, MAC_LEN);
	r.file_id[15] ^= 1;
	assert_int_equal(record_seal(&k_seal, &r, ka, policy, &dek, other), 0);
	assert_memory_not_equal(base, other, MAC_LEN);
}

static void test_hint(void **state)
{
	struct record r = example();
	uint8_t p[HINT_LEN];
	struct hint h;

	(void)state;
	assert_int_equal(hint_make(&r, 70000, &k_hint, p), 0);
	assert_int_equal(hint_parse(p, HINT_LEN, 70000, &k_hint, &h), 0);
	assert_memory_equal(h.file_id, r.file_id, ID_LEN);
	assert_int_equal(h.size, r.size);
	assert_int_equal(h.generation, 7);
	assert_int_equal(h.ctime.tv_sec, 1700000000);
	assert_int_equal(h.ctime.tv_nsec, 1);
	assert_in_range(h.made, time(NULL) - 60, time(NULL)); /* not when the record was made */
	assert_int_equal(hint_parse(p, HINT_LEN, 70001, &k_hint, &h), -ENOENT);
	assert_int_equal(hint_parse(p, HINT_LEN - 1, 70000, &k_hint, &h), -ENOENT);
	assert_int_equal(hint_parse(p, HINT_LEN, 70000, &k_rec, &h), -ENOENT);
	for (size_t i = 0; i < HINT_LEN * 8; i++) {
		p[i / 8] ^= (uint8_t)(1 << i % 8);
		assert_int_equal(hint_parse(p, HINT_LEN, 70000, &k_hint, &h), -ENOENT);
		p[i / 8] ^= (uint8_t)(1 << i % 8);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_worked_counts),
	    cmocka_unit_test(test_layout),
	    cmocka_unit_test(test_round_trip),
	    cmocka_unit_test(test_every_bit),
	    cmocka_unit_test(test_impossible_values),
	    cmocka_unit_test(test_foreign_and_void),
	    cmocka_unit_test(test_seal),
	    cmocka_unit_test(test_hint),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
