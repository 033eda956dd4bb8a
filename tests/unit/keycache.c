/* SPDX-License-Identifier: Apache-2.0 */
/* keycache.c by itself: bounds, times, memory. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#undef fail /* ours is another */

#include <errno.h>
#include <stdio.h>

#include "keycache.h"

static void id_of(uint64_t n, uint8_t id[static KEYCACHE_ID])
{
	memset(id, 0, KEYCACHE_ID);
	put_le64(id, n);
}

static void fill(struct keycache *c, uint64_t n, uint64_t at)
{
	struct secret *s = secret_new();
	struct keycache_answer a;
	uint8_t id[KEYCACHE_ID];
	uint64_t ticket;

	put_le64(s->b, n);
	id_of(n, id);
	assert_int_equal(keycache_look(c, id, at, at, &a, &ticket), KEYCACHE_ASK);
	keycache_fill(c, id, at, at, 0, s, &a);
	assert_int_equal(a.err, 0);
	secret_free(a.share);
	secret_free(s);
}

static int resident_kb(void)
{
	FILE *f = fopen("/proc/self/statm", "r");
	long total = 0, resident = 0;

	assert_non_null(f);
	assert_int_equal(fscanf(f, "%ld %ld", &total, &resident), 2);
	fclose(f);
	return (int)(resident * sysconf(_SC_PAGESIZE) / 1024);
}

static void test_bounded(void **state)
{
	const struct keycache_times times = {.ttl = 1000, .denied = 10};
	struct keycache *c = keycache_new(&times);
	struct keycache_stats s;
	struct keycache_answer a;
	uint8_t id[KEYCACHE_ID];
	uint64_t ticket;
	int before = resident_kb(), after;

	for (uint64_t n = 0; n < 100000; n++)
		fill(c, n, 100);
	after = resident_kb();
	print_message("100,000 keys: %d KiB\n", after - before);
#ifndef __SANITIZE_ADDRESS__
	assert_true(after - before < 32 << 10);
#endif
	for (uint64_t n = 100000; n < KEYCACHE_MAX + 1000; n++)
		fill(c, n, 200);
	keycache_stats(c, &s);
	assert_int_equal(s.entries, KEYCACHE_MAX);
	id_of(999, id);
	assert_false(keycache_has(c, id, 200)); /* the oldest went */
	id_of(1000, id);
	assert_int_equal(keycache_look(c, id, 200, 200, &a, &ticket), KEYCACHE_KNOWN);
	assert_int_equal(get_le64(a.share->b), 1000);
	secret_free(a.share);
	assert_int_equal(keycache_expire(c, 1100), KEYCACHE_MAX + 1000 - 100000);
	assert_int_equal(keycache_look(c, id, 1100, 1100, &a, &ticket), KEYCACHE_ASK);
	assert_int_equal(keycache_look(c, id, 1100, 1100, &a, &ticket), KEYCACHE_BUSY);
	assert_int_equal(keycache_expire(c, 5000), 1); /* what is asked for stays */
	keycache_wait(c, id, ticket, 0, &a);
	assert_int_equal(a.err, -ETIMEDOUT);
	keycache_fill(c, id, 5000, 5000, -EACCES, NULL, &a);
	assert_int_equal(a.err, -EACCES);
	assert_int_equal(keycache_look(c, id, 5009, 5009, &a, &ticket), KEYCACHE_KNOWN);
	assert_int_equal(a.err, -EACCES);
	assert_int_equal(keycache_look(c, id, 5010, 5010, &a, &ticket), KEYCACHE_ASK);
	keycache_fill(c, id, 5000, 5000, -EIO, NULL, &a);
	assert_int_equal(a.err, -EIO);
	keycache_free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_bounded)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
