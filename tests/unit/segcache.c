/* SPDX-License-Identifier: Apache-2.0 */
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <stdarg.h>
#include <pthread.h>
#include <stdio.h>

#include "segcache.h"

#include <cmocka.h>

#define SEG 16384u

static void fill(uint8_t *p, uint64_t owner, uint64_t seg)
{
	for (uint32_t i = 0; i < SEG; i++)
		p[i] = (uint8_t)(owner * 7 + seg * 13 + i);
}

static bool holds(struct segcache *c, uint64_t owner, uint64_t seg)
{
	uint8_t want[SEG], got[SEG];

	if (!segcache_get(c, owner, seg, 0, got, SEG))
		return false;
	fill(want, owner, seg);
	assert_memory_equal(got, want, SEG);
	return true;
}

static void put(struct segcache *c, uint64_t owner, uint64_t seg)
{
	uint8_t p[SEG];

	fill(p, owner, seg);
	segcache_put(c, owner, seg, p, SEG);
}

static void test_parts(void **state)
{
	struct segcache *c = segcache_new(1 << 20);
	uint8_t part[100], want[SEG];

	put(c, 1, 5);
	fill(want, 1, 5);
	assert_true(segcache_get(c, 1, 5, 1000, part, sizeof(part)));
	assert_memory_equal(part, want + 1000, sizeof(part));
	assert_true(segcache_get(c, 1, 5, SEG - 100, part, 100));
	assert_false(segcache_get(c, 1, 5, SEG - 99, part, 100)); /* beyond what is there */
	assert_false(segcache_get(c, 1, 6, 0, part, 1));
	assert_false(segcache_get(c, 2, 5, 0, part, 1));
	segcache_put(c, 1, 5, "short", 5); /* the newer one counts */
	assert_true(segcache_get(c, 1, 5, 0, part, 5));
	assert_memory_equal(part, "short", 5);
	assert_false(segcache_get(c, 1, 5, 0, part, 6));
	segcache_free(c);
}

static void test_bounded(void **state)
{
	struct segcache *c = segcache_new(32 * SEG);
	unsigned kept = 0;

	for (uint64_t i = 0; i < 1000; i++)
		put(c, 3, i);
	for (uint64_t i = 0; i < 1000; i++)
		kept += holds(c, 3, i);
	assert_in_range(kept, 8, 32);
	assert_true(holds(c, 3, 999));
	assert_false(holds(c, 3, 0));
	segcache_free(c);
	c = segcache_new(0);
	put(c, 1, 1);
	assert_false(holds(c, 1, 1));
	segcache_free(c);
}

static void test_least_recently_used_goes(void **state)
{
	struct segcache *c = segcache_new(64 * SEG);

	put(c, 4, 0);
	for (uint64_t i = 1; i < 2000; i++) {
		put(c, 4, i);
		assert_true(holds(c, 4, 0)); /* asked for each time: never the one to go */
	}
	segcache_free(c);
}

static void test_drop(void **state)
{
	struct segcache *c = segcache_new(1 << 20);

	for (uint64_t i = 0; i < 10; i++) {
		put(c, 5, i);
		put(c, 6, i);
	}
	segcache_drop(c, 5, 3);
	segcache_drop(c, 5, 300); /* not there */
	assert_false(holds(c, 5, 3));
	assert_true(holds(c, 5, 4) && holds(c, 6, 3));
	segcache_drop_all(c, 5);
	for (uint64_t i = 0; i < 10; i++) {
		assert_false(holds(c, 5, i));
		assert_true(holds(c, 6, i));
	}
	segcache_free(c);
}

static void *hammer(void *arg)
{
	struct segcache *c = arg;

	for (uint64_t i = 0; i < 3000; i++) {
		put(c, 7 + i % 3, i % 50);
		(void)!holds(c, 7 + (i + 1) % 3, (i * 7) % 50);
		if (i % 97 == 0)
			segcache_drop_all(c, 7 + i % 3);
	}
	return NULL;
}

static void test_threads(void **state)
{
	struct segcache *c = segcache_new(40 * SEG);
	pthread_t t[4];

	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&t[i], NULL, hammer, c), 0);
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	segcache_free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_parts), cmocka_unit_test(test_bounded), cmocka_unit_test(test_least_recently_used_goes),
	    cmocka_unit_test(test_drop),  cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
