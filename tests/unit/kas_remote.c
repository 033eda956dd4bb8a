/* SPDX-License-Identifier: Apache-2.0 */
/* kas_unwrap.c, kas_ask.c, keycache.c: keys that a KAS elsewhere gives, with one made up here that can refuse, lie, be slow and be away. */
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

#include "kas.h"
#include "keycache.h"
#include "pubkey_vectors.h"
#include "remote.h"
#include "report.h"

#define POLICY "eyJ1dWlkIjoiMDAwMDAwMDAtMDAwMC00MDAwLTgwMDAtMDAwMDAwMDAwMDAwIn0="
#define OTHER_POLICY "eyJ1dWlkIjoiMTExMTExMTEtMDAwMC00MDAwLTgwMDAtMDAwMDAwMDAwMDAwIn0="
#define URL_A "https://a.example.org"
#define URL_B "https://b.example.org"

/* --- the KAS elsewhere --- */

struct fake {
	const char *url;
	struct kas *keys;
	_Atomic int err;         /* what it says to everybody */
	_Atomic bool lies, slow; /* a key that is not the file's; 100 ms */
	_Atomic int n_calls, n_items;
	_Atomic int *inside, *most; /* NULL, or calls that run now, and the most there were at a time */
};

static bool fake_serves(void *ctx, const char *url)
{
	return strcmp(((struct fake *)ctx)->url, url) == 0;
}

static int fake_rewrap(void *ctx, struct remote_item *items, size_t n)
{
	static const struct timespec pause = {.tv_nsec = 100000000};
	struct fake *f = ctx;

	f->n_calls++;
	f->n_items += (int)n;
	if (f->inside && ++*f->inside > *f->most)
		*f->most = (int)*f->inside;
	if (f->slow)
		nanosleep(&pause, NULL);
	if (f->inside)
		--*f->inside;
	for (size_t i = 0; i < n; i++) {
		assert_string_equal(items[i].ka->url, f->url);
		items[i].err = f->err ? f->err : kas_unwrap_local(f->keys, items[i].policy, items[i].ka, &items[i].share);
		if (!items[i].err && f->lies)
			items[i].share->b[0] ^= 1;
		if (items[i].err)
			snprintf(items[i].text, sizeof(items[i].text), "says the fake");
	}
	return 0;
}

static EVP_PKEY *private_key(const char *pem)
{
	EVP_PKEY *key = NULL;

	assert_int_equal(pubkey_private(pem, strlen(pem), &key), 0);
	return key;
}

static EVP_PKEY *public_key(const char *pem)
{
	EVP_PKEY *key = private_key(pem), *pub = NULL;
	char *text = pubkey_pem(key);

	assert_int_equal(pubkey_public(text, strlen(text), &pub), 0);
	free(text);
	EVP_PKEY_free(key);
	return pub;
}

static struct fake *fake_new(const char *url, const char *kid, const char *pem)
{
	struct fake *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	f->url = url;
	f->keys = kas_new();
	assert_int_equal(kas_add_local(f->keys, kid, url, private_key(pem)), 0);
	return f;
}

static void fake_free(struct fake *f)
{
	kas_free(f->keys);
	free(f);
}

static void add_remote(struct kas *k, struct fake *f)
{
	const struct kas_remote r = {f, fake_serves, fake_rewrap};

	assert_int_equal(kas_add_remote(k, &r), 0);
}

/* A volume's kas: an embedded key (RSA), A (EC) and B (EC, another) elsewhere. */
struct world {
	struct kas *k, *maker; /* the latter makes files elsewhere: what k makes it knows */
	struct fake *a, *b;
	struct secret *dek;
};

static struct world world_new(void)
{
	struct world w = {kas_new(), kas_new(), fake_new(URL_A, "a1", ec_vectors[0].pkcs8), fake_new(URL_B, "b1", ec_vectors[1].pkcs8),
			  secret_random()};

	assert_int_equal(kas_add_local(w.k, "own", "https://localhost:8443", private_key(rsa_pkcs8)), 0);
	assert_int_equal(kas_add_local(w.maker, "own", "https://localhost:8443", private_key(rsa_pkcs8)), 0);
	add_remote(w.k, w.a);
	add_remote(w.k, w.b);
	return w;
}

static void world_free(struct world *w)
{
	kas_free(w->k);
	kas_free(w->maker);
	fake_free(w->a);
	fake_free(w->b);
	secret_free(w->dek);
}

static void write_for(struct world *w, char who, unsigned split)
{
	struct kas *const ks[] = {w->k, w->maker};

	for (size_t i = 0; i < 2; i++) {
		int err;

		if (who == 'o')
			err = kas_add_writer(ks[i], NULL, NULL, NULL, split);
		else
			err = kas_add_writer(ks[i], who == 'a' ? "a1" : "b1", who == 'a' ? URL_A : URL_B,
					     public_key(ec_vectors[who == 'b'].pkcs8), split);
		assert_int_equal(err, 0);
	}
}

static struct manifest *file_with(struct kas *k, const struct secret *dek, const char *policy)
{
	struct manifest *m = NULL;
	char *text = NULL;

	assert_int_equal(kas_wrap(k, dek, policy, &text), 0);
	assert_int_equal(manifest_of_keys(text, policy, &m), 0);
	free(text);
	return m;
}

static int unwrap(struct world *w, const struct manifest *m, uint64_t *ret_until)
{
	struct secret *got = NULL;
	uint64_t until = 1;
	int err;

	fail_clear();
	err = kas_unwrap_until(w->k, m, &got, &until);
	if (err) {
		assert_null(got);
		assert_string_not_equal(fail_text(), "");
	} else {
		assert_memory_equal(got->b, w->dek->b, SECRET_LEN);
	}
	secret_free(got);
	if (ret_until)
		*ret_until = until;
	return err;
}

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
	kas_prefetch(w.k, want, MANY);
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

	kas_prefetch(f->w->k, want, 2);
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

/* --- the cache by itself --- */

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
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_one),           cmocka_unit_test(test_made_here), cmocka_unit_test(test_together),
	    cmocka_unit_test(test_foreign_url),   cmocka_unit_test(test_splits),    cmocka_unit_test(test_refused_and_away),
	    cmocka_unit_test(test_policy_counts), cmocka_unit_test(test_times),     cmocka_unit_test(test_many),
	    cmocka_unit_test(test_single_flight), cmocka_unit_test(test_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
