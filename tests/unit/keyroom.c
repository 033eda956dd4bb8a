/* SPDX-License-Identifier: Apache-2.0 */
/* Locked memory for OpenSSL's contexts: whose memory it is, frees from anywhere, reuse, and that keys lie nowhere else. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#undef fail /* ours is another */

#include <openssl/crypto.h>
#include <pthread.h>
#include <stdio.h>

#include "aead.h"
#include "keyroom.h"
#include "secret.h"

/* Does the page of @p bear this flag in smaps? */
static bool page_has(const void *p, const char *flag)
{
	FILE *f = fopen("/proc/self/smaps", "r");
	char line[1024];
	unsigned long lo, hi;
	bool in = false, has = false;

	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &lo, &hi) == 2)
			in = (unsigned long)p >= lo && (unsigned long)p < hi;
		else if (in && strncmp(line, "VmFlags:", 8) == 0)
			has = strstr(line, flag);
	}
	fclose(f);
	return has;
}

static void test_locked(void **state)
{
	struct keyroom *room = keyroom_begin();
	void *in, *out, *small;

	if (!room)
		skip(); /* a sanitizer's allocator */
	in = OPENSSL_malloc(100);
	small = OPENSSL_zalloc(1);
	keyroom_end();
	out = OPENSSL_malloc(100);
	assert_true(page_has(in, " lo"));
	assert_true(page_has(in, " dd"));
	assert_false(page_has(out, " lo"));
	assert_int_equal((uintptr_t)in % 16, 0);
	assert_int_equal((uintptr_t)small % 16, 0);
	memset(in, 7, 100);
	in = OPENSSL_realloc(in, 200); /* moves out */
	assert_int_equal(((uint8_t *)in)[99], 7);
	assert_false(page_has(in, " lo"));
	OPENSSL_free(in);
	OPENSSL_free(small);
	OPENSSL_free(out);
	keyroom_free(room);
}

static void test_full(void **state)
{
	struct keyroom *room = keyroom_begin();
	void *p[20];

	if (!room)
		skip();
	for (int i = 0; i < 20; i++) { /* 8 KiB hold fewer: the rest is elsewhere */
		p[i] = OPENSSL_malloc(1000);
		assert_non_null(p[i]);
		memset(p[i], i, 1000);
	}
	keyroom_end();
	for (int i = 0; i < 20; i++)
		assert_int_equal(((uint8_t *)p[i])[999], i);
	assert_true(page_has(p[0], " lo"));
	assert_false(page_has(p[19], " lo"));
	for (int i = 0; i < 20; i++)
		OPENSSL_free(p[i]);
	keyroom_free(room);
}

static void *free_it(void *p)
{
	OPENSSL_free(p);
	return NULL;
}

/* What is freed late, and by another thread; only then is the slot used again, and clean */
static void test_reuse(void **state)
{
	struct keyroom *room = keyroom_begin(), *other, *third;
	uint8_t *p, *q;
	pthread_t t;

	if (!room)
		skip();
	p = OPENSSL_malloc(64);
	keyroom_end();
	memset(p, 0xAA, 64);
	keyroom_free(room); /* something lives in it */
	other = keyroom_begin();
	q = OPENSSL_malloc(64);
	keyroom_end();
	assert_ptr_not_equal(p, q);
	assert_int_equal(p[63], 0xAA);
	memset(q, 0xBB, 64);
	assert_int_equal(pthread_create(&t, NULL, free_it, q), 0);
	pthread_join(t, NULL);
	keyroom_free(other);
	third = keyroom_begin();
	p = OPENSSL_malloc(64);
	keyroom_end();
	assert_ptr_equal(p, q);
	for (int i = 0; i < 64; i++)
		assert_int_equal(p[i], 0);
	OPENSSL_free(p);
	keyroom_free(third);
}

#define THREADS 40
#define ROUNDS 200

static void *work(void *arg)
{
	uint8_t pt[100], ct[100 + AEAD_OVERHEAD], back[100];
	CLEANUP_SECRET struct secret *k = secret_random();

	for (int i = 0; i < ROUNDS; i++) {
		memset(pt, i, sizeof(pt));
		assert_int_equal(aead_seal(k, pt, sizeof(pt), ct), 0);
		assert_int_equal(aead_open(k, ct, sizeof(ct), NULL, back), 0);
		assert_memory_equal(pt, back, sizeof(pt));
	}
	return NULL;
}

/* Many short threads: their contexts come and go in the same slots */
static void test_threads(void **state)
{
	pthread_t t[THREADS];

	for (int round = 0; round < 5; round++) {
		for (int i = 0; i < THREADS; i++)
			assert_int_equal(pthread_create(&t[i], NULL, work, NULL), 0);
		for (int i = 0; i < THREADS; i++)
			pthread_join(t[i], NULL);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_locked),
	    cmocka_unit_test(test_full),
	    cmocka_unit_test(test_reuse),
	    cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
