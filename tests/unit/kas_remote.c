/* SPDX-License-Identifier: Apache-2.0 */
/* kas_unwrap.c, kas_ask.c, keycache.c: keys that a KAS elsewhere gives. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#undef fail /* ours is another */

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

#include "kas_remote.h"
#include "keycache.h"

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void test_one(void **state)
{
	struct world w = world_new();
	uint64_t until, before = now();
	struct manifest *m, *own;

	own = file_with(w.maker, w.dek, POLICY); /* before there is a writer: for the embedded key */
	assert_int_equal(kas_wrap_until(w.k, POLICY), 0);
	write_for(&w, 'a', 0);
	assert_true(kas_wrap_until(w.k, POLICY) > before + 299000000000u);
	m = file_with(w.maker, w.dek, POLICY);
	assert_int_equal(m->n_ka, 1);
	assert_string_equal(m->ka[0].url, URL_A);
	assert_string_equal(m->ka[0].kid, "a1");
	assert_string_equal(m->ka[0].sid, "");
	assert_int_equal(w.a->n_calls, 0); /* making it asked nobody */

	assert_false(kas_known(w.k, m));
	assert_true(kas_known(w.k, own));
	assert_int_equal(unwrap(&w, m, &until), 0);
	assert_true(until > before + 299000000000u && until < now() + 300000000001u);
	assert_true(kas_known(w.k, m));
	assert_int_equal(unwrap(&w, m, NULL), 0);
	assert_int_equal(w.a->n_calls, 1);
	assert_int_equal(unwrap(&w, own, &until), 0);
	assert_int_equal(until, 0);
	assert_int_equal(w.a->n_calls + w.b->n_calls, 1);
	manifest_free(m);
	manifest_free(own);
	world_free(&w);
}

/* What was made here is known here, for as long as what the KAS gives; under another policy it is not. */
static void test_made_here(void **state)
{
	struct world w = world_new();
	struct manifest *m, *other;
	char *text;

	write_for(&w, 'a', 0);
	write_for(&w, 'b', 1);
	write_for(&w, 'o', 2);
	assert_int_equal(kas_wrap(w.k, w.dek, POLICY, &text), 0);
	assert_int_equal(manifest_of_keys(text, POLICY, &m), 0);
	assert_int_equal(manifest_of_keys(text, OTHER_POLICY, &other), 0);
	assert_true(kas_known(w.k, m));
	assert_false(kas_known(w.k, other));
	assert_int_equal(unwrap(&w, m, NULL), 0);
	assert_int_equal(w.a->n_calls + w.b->n_calls, 0);
	manifest_free(m);
	manifest_free(other);
	free(text);
	kas_times(w.k, 0, 0);
	assert_int_equal(kas_wrap(w.k, w.dek, POLICY, &text), 0);
	assert_int_equal(manifest_of_keys(text, POLICY, &m), 0);
	assert_int_equal(unwrap(&w, m, NULL), 0);
	assert_int_equal(w.a->n_calls + w.b->n_calls, 2);
	manifest_free(m);
	free(text);
	world_free(&w);
}

/* The shares of one file that are at several KASes are asked for at the same time: none waits for another KAS. */
static void test_together(void **state)
{
	struct world w = world_new();
	_Atomic int inside = 0, most = 0;
	struct manifest *m;

	kas_times(w.k, 0, 0);
	write_for(&w, 'a', 0);
	write_for(&w, 'b', 1);
	w.a->inside = w.b->inside = &inside;
	w.a->most = w.b->most = &most;
	w.a->slow = w.b->slow = true;
	for (int try = 0; try < 20 && most < 2; try++) { /* a thread may be late on a busy machine */
		m = file_with(w.maker, w.dek, POLICY);
		assert_int_equal(unwrap(&w, m, NULL), 0);
		manifest_free(m);
	}
	assert_int_equal(most, 2);
	world_free(&w);
}

/* A KAS that is not configured is not asked, whatever its kid. */
static void test_foreign_url(void **state)
{
	struct world w = world_new();
	struct kas *evil = kas_new();
	struct manifest *m;

	assert_int_equal(kas_add_local(evil, "a1", "https://a.example.org.evil", private_key(ec_vectors[0].pkcs8)), 0);
	m = file_with(evil, w.dek, POLICY);
	assert_true(kas_known(w.k, m)); /* that there is nothing to ask */
	assert_int_equal(unwrap(&w, m, NULL), -ENOKEY);
	assert_int_equal(w.a->n_calls + w.b->n_calls, 0);
	manifest_free(m);
	kas_free(evil);
	world_free(&w);
}

static void test_splits(void **state)
{
	struct world any = world_new(), all = world_new(), both = world_new();
	struct manifest *m;
	uint64_t until;

	write_for(&any, 'a', 0);
	write_for(&any, 'b', 0);
	m = file_with(any.maker, any.dek, POLICY);
	assert_int_equal(m->n_ka, 2);
	assert_string_equal(m->ka[0].sid, m->ka[1].sid);
	any.a->err = -ETIMEDOUT;
	assert_int_equal(unwrap(&any, m, NULL), 0);
	any.b->err = -EACCES; /* has it in the cache still */
	assert_int_equal(unwrap(&any, m, NULL), 0);
	kas_times(any.k, 0, 0); /* from now on nothing is kept */
	manifest_free(m);
	m = file_with(any.maker, any.dek, OTHER_POLICY);
	/* one refuses, one is away: that is no verdict */
	assert_int_equal(unwrap(&any, m, NULL), -ETIMEDOUT);
	any.a->err = -EACCES;
	assert_int_equal(unwrap(&any, m, NULL), -EACCES);
	manifest_free(m);

	write_for(&all, 'a', 0);
	write_for(&all, 'b', 1);
	m = file_with(all.maker, all.dek, POLICY);
	assert_string_equal(m->ka[0].sid, "s1");
	assert_string_equal(m->ka[1].sid, "s2");
	all.b->err = -EACCES;
	assert_int_equal(unwrap(&all, m, NULL), -EACCES);
	assert_non_null(strstr(fail_text(), URL_B));
	manifest_free(m);
	all.b->err = 0;
	m = file_with(all.maker, all.dek, POLICY);
	assert_int_equal(unwrap(&all, m, NULL), 0);
	manifest_free(m);

	/* (own or a) and b: asked for is b alone */
	write_for(&both, 'o', 0);
	write_for(&both, 'a', 0);
	assert_int_equal(kas_wrap_until(both.k, POLICY), 0);
	write_for(&both, 'b', 1);
	assert_int_not_equal(kas_wrap_until(both.k, POLICY), 0);
	m = file_with(both.maker, both.dek, POLICY);
	assert_int_equal(m->n_ka, 3);
	assert_true(kas_is_current(both.k, m));
	assert_false(kas_is_current(all.k, m));
	assert_int_equal(unwrap(&both, m, &until), 0);
	assert_int_not_equal(until, 0);
	assert_int_equal(both.a->n_calls, 0);
	assert_int_equal(both.b->n_calls, 1);
	manifest_free(m);
	world_free(&any);
	world_free(&all);
	world_free(&both);
}

static void test_refused_and_away(void **state)
{
	struct world w = world_new();
	struct manifest *m;

	write_for(&w, 'a', 0);
	m = file_with(w.maker, w.dek, POLICY);
	w.a->err = -EIO;
	assert_int_equal(unwrap(&w, m, NULL), -EIO); /* an outage is asked again each time */
	w.a->err = -ETIMEDOUT;
	assert_int_equal(unwrap(&w, m, NULL), -ETIMEDOUT);
	assert_non_null(strstr(fail_text(), "says the fake"));
	assert_int_equal(w.a->n_calls, 2);
	w.a->err = -EACCES;
	assert_int_equal(unwrap(&w, m, NULL), -EACCES);
	w.a->err = 0;
	assert_int_equal(unwrap(&w, m, NULL), -EACCES); /* a refusal is believed for a while */
	assert_non_null(strstr(fail_text(), "30 s"));
	assert_int_equal(w.a->n_calls, 3);
	manifest_free(m);

	m = file_with(w.maker, w.dek, POLICY);
	w.a->lies = true;
	assert_int_equal(unwrap(&w, m, NULL), -EIO);
	assert_non_null(strstr(fail_text(), "not this file's"));
	w.a->lies = false;
	assert_int_equal(unwrap(&w, m, NULL), 0);
	manifest_free(m);
	world_free(&w);
}

/* The same wrapped key under another policy is another question. */
static void test_policy_counts(void **state)
{
	struct world w = world_new();
	struct manifest *m, *other;
	char *text;

	write_for(&w, 'a', 0);
	assert_int_equal(kas_wrap(w.maker, w.dek, POLICY, &text), 0);
	assert_int_equal(manifest_of_keys(text, POLICY, &m), 0);
	assert_int_equal(manifest_of_keys(text, OTHER_POLICY, &other), 0);
	assert_int_equal(unwrap(&w, m, NULL), 0);
	assert_int_equal(unwrap(&w, other, NULL), -EBADMSG);
	assert_int_equal(w.a->n_items, 2);
	free(text);
	manifest_free(m);
	manifest_free(other);
	world_free(&w);
}

static void test_times(void **state)
{
	static const struct timespec pause = {.tv_sec = 1, .tv_nsec = 100000000};
	struct world w = world_new();
	struct kas_stats s;
	struct manifest *m;
	uint64_t until;

	kas_times(w.k, 1, 2);
	write_for(&w, 'a', 0);
	m = file_with(w.maker, w.dek, POLICY);
	assert_int_equal(unwrap(&w, m, NULL), 0);
	nanosleep(&pause, NULL); /* over; away; bridged */
	w.a->err = -ETIMEDOUT;
	kas_tick(w.k);
	assert_int_equal(unwrap(&w, m, &until), 0);
	assert_true(until <= now() + KEYCACHE_AGAIN_NS);
	assert_int_equal(w.a->n_calls, 2);
	kas_stats(w.k, &s);
	assert_int_equal(s.bridged, 1);
	assert_int_equal(s.keys, 1);
	nanosleep(&pause, NULL);
	nanosleep(&pause, NULL); /* the grace is over too */
	assert_int_equal(unwrap(&w, m, NULL), -ETIMEDOUT);
	kas_tick(w.k);
	kas_stats(w.k, &s);
	assert_int_equal(s.keys, 0);
	w.a->err = 0;
	assert_int_equal(unwrap(&w, m, NULL), 0);
	nanosleep(&pause, NULL); /* a refusal ends a grace */
	w.a->err = -EACCES;
	assert_int_equal(unwrap(&w, m, NULL), -EACCES);
	w.a->err = -ETIMEDOUT;
	nanosleep(&pause, NULL);
	assert_int_equal(unwrap(&w, m, NULL), -ETIMEDOUT);
	manifest_free(m);
	world_free(&w);
}

#define MANY 1000

static void test_many(void **state)
{
	struct world w = world_new();
	struct kas_want *want = calloc(MANY, sizeof(*want));
	struct manifest *first;

	write_for(&w, 'a', 0);
	for (size_t i = 0; i < MANY; i++)
		want[i].m = i % 10 == 9 ? want[i - 1].m : file_with(w.maker, w.dek, POLICY); /* some twice */
	first = (struct manifest *)want[0].m;
	assert_int_equal(unwrap(&w, first, NULL), 0);
	kas_prefetch(w.k, want, MANY, 0);
	assert_int_equal(w.a->n_calls, 2);
	assert_int_equal(w.a->n_items, MANY / 10 * 9);
	for (size_t i = 0; i < MANY; i++) {
		assert_int_equal(want[i].err, 0);
		assert_int_equal(unwrap(&w, want[i].m, NULL), 0);
	}
	assert_int_equal(w.a->n_calls, 2);
	kas_renew(w.k, want, MANY); /* all are fresh */
	assert_int_equal(w.a->n_calls, 2);
	kas_times(w.k, 601, 0); /* now they have less than half of their time */
	w.a->err = -EACCES;
	kas_renew(w.k, want, 5);
	assert_int_equal(w.a->n_calls, 3);
	assert_int_equal(want[0].err, -EACCES);
	assert_int_equal(unwrap(&w, first, NULL), -EACCES);
	assert_int_equal(unwrap(&w, want[5].m, NULL), 0);
	w.a->err = -EIO; /* an outage takes nothing away before its time */
	kas_renew(w.k, want + 5, 1);
	assert_int_equal(want[5].err, 0);
	assert_int_equal(unwrap(&w, want[5].m, NULL), 0);
	for (size_t i = 0; i < MANY; i++)
		if (i % 10 != 9)
			manifest_free((struct manifest *)want[i].m);
	free(want);
	world_free(&w);
}

struct flight {
	struct world *w;
	struct manifest *m[2];
	int want;
	bool swap;
	_Atomic int n_wrong;
};

static void *flight_main(void *arg)
{
	struct flight *f = arg;
	struct kas_want want[2] = {{.m = f->m[0]}, {.m = f->m[1]}};

	kas_prefetch(f->w->k, want, 2, 0);
	f->n_wrong += (want[0].err != f->want) + (want[1].err != f->want);
	return NULL;
}

/* Sixteen threads want the same keys in either order: one request for each, also of a failure, and nobody waits for ever. */
static void test_single_flight(void **state)
{
	static const int errs[] = {0, -EIO, -EACCES};

	for (size_t e = 0; e < ARRAY_SIZE(errs); e++) {
		struct world w = world_new();
		struct flight fs[16];
		pthread_t t[16];

		write_for(&w, 'a', 0);
		fs[0] =
		    (struct flight){.w = &w, .m = {file_with(w.maker, w.dek, POLICY), file_with(w.maker, w.dek, POLICY)}, .want = errs[e]};
		w.a->slow = true;
		w.a->err = errs[e];
		for (size_t i = 0; i < 16; i++) {
			fs[i] = fs[0];
			if (i % 2) {
				fs[i].m[0] = fs[0].m[1];
				fs[i].m[1] = fs[0].m[0];
			}
			assert_int_equal(pthread_create(&t[i], NULL, flight_main, &fs[i]), 0);
		}
		for (size_t i = 0; i < 16; i++) {
			pthread_join(t[i], NULL);
			assert_int_equal(fs[i].n_wrong, 0);
		}
		if (errs[e] == -EIO) /* who comes after the first answer asks again */
			assert_in_range(w.a->n_items, 2, 8);
		else
			assert_int_equal(w.a->n_items, 2);
		manifest_free(fs[0].m[0]);
		manifest_free(fs[0].m[1]);
		world_free(&w);
	}
}

static int unwrap_in(struct world *w, const struct manifest *m, unsigned ms, uint64_t *ret_took)
{
	struct secret *got = NULL;
	uint64_t begun = now(), until;
	int err = kas_unwrap_until(w->k, m, begun + ms * UINT64_C(1000000), &got, &until);

	*ret_took = (now() - begun) / 1000000;
	secret_free(got);
	return err;
}

static void *wait_main(void *arg)
{
	struct flight *f = arg;
	uint64_t took;

	f->n_wrong = unwrap_in(f->w, f->m[0], 150, &took) != -ETIMEDOUT || took > 400;
	return NULL;
}

/* All alternatives together have one time; each its part, so that one that does not answer leaves some for the next. */
static void test_one_time(void **state)
{
	struct world w = world_new();
	struct flight f = {.w = &w};
	struct manifest *m;
	pthread_t t;
	uint64_t took;

	write_for(&w, 'a', 0);
	write_for(&w, 'b', 0);
	m = file_with(w.maker, w.dek, POLICY);
	w.a->frozen = w.b->frozen = true;
	assert_int_equal(unwrap_in(&w, m, 400, &took), -ETIMEDOUT);
	assert_in_range(took, 300, 500);
	assert_in_range(w.a->ms, 150, 200);
	assert_in_range(w.b->ms, 100, 200);
	w.b->frozen = false;
	assert_int_equal(unwrap_in(&w, m, 400, &took), 0);
	assert_in_range(took, 150, 390);
	manifest_free(m);

	/* who comes later than one who asks has his own time, and who has none left asks nobody */
	m = file_with(w.maker, w.dek, POLICY);
	w.b->frozen = true;
	f.m[0] = m;
	w.a->n_calls = 0;
	assert_int_equal(pthread_create(&t, NULL, wait_main, &f), 0);
	assert_int_equal(unwrap_in(&w, m, 1000, &took), -ETIMEDOUT);
	pthread_join(t, NULL);
	assert_int_equal(f.n_wrong, 0);
	assert_true(took <= 1100);
	w.a->n_calls = w.b->n_calls = 0;
	assert_int_equal(unwrap_in(&w, m, 0, &took), -ETIMEDOUT);
	assert_int_equal(w.a->n_calls + w.b->n_calls, 0);
	w.a->frozen = false; /* however much the caller allows: the bound stays */
	assert_int_equal(unwrap_in(&w, m, 3600000, &took), 0);
	assert_true(w.a->ms <= KAS_TOTAL_MS / 2);
	manifest_free(m);
	world_free(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_one),           cmocka_unit_test(test_made_here), cmocka_unit_test(test_together),
	    cmocka_unit_test(test_foreign_url),   cmocka_unit_test(test_splits),    cmocka_unit_test(test_refused_and_away),
	    cmocka_unit_test(test_policy_counts), cmocka_unit_test(test_times),     cmocka_unit_test(test_many),
	    cmocka_unit_test(test_single_flight), cmocka_unit_test(test_one_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
