/* SPDX-License-Identifier: Apache-2.0 */
/* For kas_remote.c: a KAS elsewhere that can refuse, lie, be slow and be away, and a volume that has two of them. */
#ifndef TEST_KAS_REMOTE_H
#define TEST_KAS_REMOTE_H

#include "kas.h"
#include "pubkey_vectors.h"
#include "remote.h"
#include "report.h"

#define POLICY "eyJ1dWlkIjoiMDAwMDAwMDAtMDAwMC00MDAwLTgwMDAtMDAwMDAwMDAwMDAwIn0="
#define OTHER_POLICY "eyJ1dWlkIjoiMTExMTExMTEtMDAwMC00MDAwLTgwMDAtMDAwMDAwMDAwMDAwIn0="
#define URL_A "https://a.example.org"
#define URL_B "https://b.example.org"

struct fake {
	const char *url;
	struct kas *keys;
	_Atomic int err;         /* what it says to everybody */
	_Atomic bool lies, slow; /* a key that is not the file's; 100 ms */
	_Atomic bool frozen;     /* no answer for as long as it may take */
	_Atomic unsigned ms;     /* which was that, the last time */
	_Atomic int n_calls, n_items;
	_Atomic int *inside, *most; /* NULL, or calls that run now, and the most there were at a time */
};

static bool fake_serves(void *ctx, const char *url)
{
	return strcmp(((struct fake *)ctx)->url, url) == 0;
}

static int fake_rewrap(void *ctx, struct remote_item *items, size_t n, unsigned ms)
{
	static const struct timespec pause = {.tv_nsec = 100000000};
	struct fake *f = ctx;

	f->n_calls++;
	f->n_items += (int)n;
	if (f->inside && ++*f->inside > *f->most)
		*f->most = (int)*f->inside;
	f->ms = ms;
	if (f->slow)
		nanosleep(&pause, NULL);
	if (f->frozen)
		nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L}, NULL);
	if (f->inside)
		--*f->inside;
	for (size_t i = 0; i < n; i++) {
		assert_string_equal(items[i].ka->url, f->url);
		items[i].err = f->frozen ? -ETIMEDOUT
			       : f->err  ? f->err
					 : kas_unwrap_local(f->keys, items[i].policy, items[i].ka, &items[i].share);
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
	err = kas_unwrap_until(w->k, m, 0, &got, &until);
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

#endif
