/* SPDX-License-Identifier: Apache-2.0 */
#include "crc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define MAX_LEN 70000

static uint8_t data[2 * MAX_LEN];

/* bit by bit, from the definition: shares no code with the library */
static uint32_t crc_slow(const uint8_t *p, size_t len)
{
	uint32_t c = 0xffffffff;

	while (len--) {
		c ^= *p++;
		for (int k = 0; k < 8; k++)
			c = c & 1 ? c >> 1 ^ 0xedb88320 : c >> 1;
	}
	return ~c;
}

static const size_t lengths[] = {0, 1, 2, 3, 7, 8, 28, 255, 256, 4096, 65535, 65536, 65564, 65565, MAX_LEN};

static void test_check_value(void **state)
{
	(void)state;
	assert_int_equal(crc_bytes(0, "123456789", 9), 0xcbf43926);
	assert_int_equal(crc_bytes(0, NULL, 0), 0);
	assert_int_equal(crc_bytes(0xabcd, NULL, 0), 0xabcd);
	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++)
		assert_int_equal(crc_bytes(0, data, lengths[i]), crc_slow(data, lengths[i]));
}

static void test_join_and_cut(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++)
		for (size_t k = 0; k < ARRAY_SIZE(lengths); k++) {
			size_t la = lengths[i], lb = lengths[k];
			uint32_t a = crc_bytes(0, data, la), b = crc_bytes(0, data + la, lb), ab = crc_bytes(0, data, la + lb);

			assert_int_equal(crc_bytes(a, data + la, lb), ab);
			assert_int_equal(crc_join(a, b, lb), ab);
			assert_int_equal(crc_cut(ab, b, lb), a);
		}
}

static void test_replace(void **state)
{
	static uint8_t changed[2 * MAX_LEN];
	const size_t off[] = {0, 1, 65564, 100000}, len[] = {1, 28, 65564};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(off); i++)
		for (size_t k = 0; k < ARRAY_SIZE(len); k++) {
			size_t n = MIN(len[k], sizeof(data) - off[i]);
			uint32_t old = crc_bytes(0, data + off[i], n), new;

			memcpy(changed, data, sizeof(data));
			for (size_t j = 0; j < n; j++)
				changed[off[i] + j] = (uint8_t)(data[off[i] + j] * 3 + 1);
			new = crc_bytes(0, changed + off[i], n);
			assert_int_not_equal(old, new);
			assert_int_equal(crc_replace(crc_bytes(0, data, sizeof(data)), old, new, sizeof(data) - off[i] - n),
					 crc_bytes(0, changed, sizeof(changed)));
		}
}

/*
 * Shifts far beyond what can be computed byte by byte: n bytes and then m bytes are n + m bytes, cutting undoes joining, also around
 * multiples of the period 2^32 - 1 and with lengths of 2^56.
 */
static void test_long_shifts(void **state)
{
	const uint64_t n[] = {1,          0xfffffffeull,    0xffffffffull,     0x100000000ull, 0x1fffffffeull, 0x1ffffffffull,
			      1ull << 40, (1ull << 56) - 1, 123456789012345ull};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(n); i++)
		for (size_t k = 0; k < ARRAY_SIZE(n); k++) {
			uint32_t a = 0x12345678, b = 0x9abcdef0, c = 0x0f1e2d3c;
			uint32_t left = crc_join(crc_join(a, b, n[i]), c, n[k]);
			uint32_t right = crc_join(a, crc_join(b, c, n[k]), n[i] + n[k]);

			assert_int_equal(left, right);
			assert_int_equal(crc_cut(crc_join(a, b, n[i]), b, n[i]), a);
			assert_int_equal(crc_replace(left, b, a, n[k]), crc_join(crc_join(a, a, n[i]), c, n[k]));
		}
	assert_int_equal(crc_join(0x1234, 0, 0xffffffffull), 0x1234); /* one period: nothing moves */
	assert_int_not_equal(crc_join(0x1234, 0, 0xfffffffeull), 0x1234);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_check_value),
	    cmocka_unit_test(test_join_and_cut),
	    cmocka_unit_test(test_replace),
	    cmocka_unit_test(test_long_shifts),
	};

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 2654435761u >> 13);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
