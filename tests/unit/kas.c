/* SPDX-License-Identifier: Apache-2.0 */
/* kas.c and local.c: wrapping, splits, bindings, the ephemeral key, the cache. */
#include "kas_setup.h"

#include <pthread.h>
#include <sys/wait.h>
#include <time.h>

/* what is written goes the short way when it is read */
static void test_written_is_native(void **state)
{
	const char *const pems[] = {rsa_pkcs8, ec_vectors[0].pkcs8};

	for (size_t i = 0; i < ARRAY_SIZE(pems); i++) {
		struct kas *k = kas_with("k1", "https://kas.example.org", pems[i]);
		struct secret *dek = secret_random();
		struct manifest m = {0};
		char *text;

		assert_int_equal(kas_wrap(k, dek, POLICY, &text), 0);
		assert_int_equal(native_key_access((struct part){text, strlen(text)}, &m), 0);
		assert_int_equal(m.ka[0].type, i ? WRAP_EC : WRAP_RSA);
		manifest_keys_free(&m);
		free(text);
		secret_free(dek);
		kas_free(k);
	}
}

static void test_round_trip(void **state)
{
	const char *const pems[] = {rsa_pkcs8, ec_vectors[0].pkcs8, ec_vectors[1].pkcs8, ec_vectors[2].pkcs8};

	for (size_t i = 0; i < ARRAY_SIZE(pems); i++) {
		struct kas *k = kas_with("k1", "https://kas.example.org/[x]?\"a\\b", pems[i]);
		struct secret *dek = secret_random();
		struct manifest *m;
		char *text;

		assert_int_equal(kas_wrap(k, dek, POLICY, &text), 0);
		m = manifest_with(text, POLICY);
		assert_int_equal(m->n_ka, 1);
		assert_int_equal(m->ka[0].type, i ? WRAP_EC : WRAP_RSA);
		assert_string_equal(m->ka[0].type_name, i ? "ec-wrapped" : "wrapped");
		assert_string_equal(m->ka[0].kid, "k1");
		assert_string_equal(m->ka[0].url, "https://kas.example.org/[x]?\"a\\b");
		assert_string_equal(m->ka[0].protocol, "kas");
		assert_int_equal(*m->ka[0].ephemeral_pem != '\0', i > 0);
		assert_non_null(strstr(text, "\"schemaVersion\":\"1.0\""));
		assert_non_null(strstr(text, "\"policyBinding\":{\"alg\":\"HS256\",\"hash\":\""));
		assert_null(strchr(text, '\n'));
		manifest_free(m);

		assert_int_equal(try_unwrap(k, text, POLICY, dek), 0);
		assert_int_equal(try_unwrap(k, text, POLICY, dek), 0); /* from the cache */
		assert_int_equal(try_unwrap(k, text, OTHER_POLICY, dek), -EBADMSG);
		free(text);
		secret_free(dek);
		kas_free(k);
	}
}

static void test_no_key(void **state)
{
	struct kas *none = kas_new(), *k = kas_with("k1", NULL, ec_vectors[0].pkcs8),
		   *other_kid = kas_with("k2", NULL, ec_vectors[0].pkcs8);
	struct kas *other_type = kas_with("k1", NULL, rsa_pkcs8), *impostor = kas_new(), *wild_wrong = kas_new(),
		   *wild = kas_with("", NULL, ec_vectors[0].pkcs8);
	struct secret *dek = secret_random();
	char *text = NULL;

	assert_int_equal(kas_add_local(impostor, "k1", NULL, pubkey_new_ec()), 0);
	assert_int_equal(kas_add_local(wild_wrong, "", NULL, pubkey_new_ec()), 0);
	assert_int_equal(kas_wrap(none, dek, POLICY, &text), -ENOKEY);
	assert_int_equal(kas_wrap(k, dek, POLICY, &text), 0);
	assert_non_null(strstr(text, "\"url\":\"" KAS_URL_DEFAULT "\""));
	assert_int_equal(try_unwrap(none, text, POLICY, NULL), -ENOKEY);
	assert_int_equal(try_unwrap(other_kid, text, POLICY, NULL), -ENOKEY);
	assert_int_equal(try_unwrap(other_type, text, POLICY, NULL), -ENOKEY);
	assert_int_equal(try_unwrap(impostor, text, POLICY, NULL), -EBADMSG);
	assert_int_equal(try_unwrap(wild_wrong, text, POLICY, NULL), -ENOKEY);
	assert_int_equal(try_unwrap(wild, text, POLICY, dek), 0);
	/* several keys without a kid: the right one is found */
	assert_int_equal(kas_add_local(wild_wrong, "", NULL, private_key(ec_vectors[1].pkcs8)), 0);
	assert_int_equal(kas_add_local(wild_wrong, "", NULL, private_key(ec_vectors[0].pkcs8)), 0);
	assert_int_equal(try_unwrap(wild_wrong, text, POLICY, dek), 0);
	assert_int_equal(kas_write_key(k, "nope"), -ENOKEY);
	free(text);

	/* a file without a kid: every key that fits is tried */
	assert_int_equal(kas_wrap(wild, dek, POLICY, &text), 0);
	assert_non_null(strstr(text, "\"kid\":\"\""));
	assert_int_equal(try_unwrap(k, text, POLICY, dek), 0);
	assert_int_equal(try_unwrap(impostor, text, POLICY, NULL), -ENOKEY);
	free(text);

	text = strdup("[{\"type\":\"hybrid-wrapped\",\"url\":\"https://"
		      "x\",\"protocol\":\"kas\",\"kid\":\"k1\",\"wrappedKey\":\"AAAA\",\"policyBinding\":{\"alg\":\"HS256\",\"hash\":"
		      "\"AAAA\"}}]");
	assert_int_equal(try_unwrap(k, text, POLICY, NULL), -ENOKEY);
	assert_non_null(strstr(fail_text(), "hybrid-wrapped"));
	free(text);
	secret_free(dek);
	kas_free(none);
	kas_free(k);
	kas_free(other_kid);
	kas_free(other_type);
	kas_free(impostor);
	kas_free(wild_wrong);
	kas_free(wild);
}

/* Every character of the wrapped key and the ephemeral key. */
static void test_damaged(void **state)
{
	static const char *const members[] = {"\"wrappedKey\":\"", "\"hash\":\"", "\"ephemeralPublicKey\":\"-----BEGIN PUBLIC KEY-----\\n"};
	struct kas *k = kas_with("k1", NULL, ec_vectors[0].pkcs8);
	struct secret *dek = secret_random();
	char *text;

	assert_int_equal(kas_wrap(k, dek, POLICY, &text), 0);
	for (size_t i = 0; i < ARRAY_SIZE(members); i++) {
		char *at = strstr(text, members[i]);
		size_t n = 0;

		assert_non_null(at);
		for (at += strlen(members[i]); *at != '"' && *at != '=' && strncmp(at, "\\n-----END", 10); at++) {
			char old = *at;

			if (old == '\\' || (old == 'n' && at[-1] == '\\'))
				continue;
			*at = old == 'A' ? 'B' : 'A';
			assert_int_equal(try_unwrap(k, text, POLICY, NULL), -EBADMSG);
			*at = old;
			n++;
		}
		assert_true(n > 40);
	}
	assert_int_equal(try_unwrap(k, text, POLICY, dek), 0);
	free(text);
	secret_free(dek);
	kas_free(k);
}

static void test_splits(void **state)
{
	struct kas *k = kas_new(), *only_a = kas_with("a", NULL, ec_vectors[0].pkcs8);
	struct secret *a = secret_random(), *b = secret_random(), *dek = secret_new();
	char *wa, *wb, *oa, *ob, *oc, *list;

	assert_int_equal(kas_add_local(k, "a", NULL, private_key(ec_vectors[0].pkcs8)), 0);
	assert_int_equal(kas_add_local(k, "b", NULL, private_key(rsa_pkcs8)), 0);
	for (int i = 0; i < SECRET_LEN; i++)
		dek->b[i] = a->b[i] ^ b->b[i];
	assert_int_equal(kas_wrap(k, a, POLICY, &wa), 0);
	assert_int_equal(kas_write_key(k, "b"), 0);
	assert_int_equal(kas_wrap(k, b, POLICY, &wb), 0);
	assert_non_null(strstr(wb, "\"kid\":\"b\""));

	/* two shares, two keys */
	oa = object_of(wa, "s1");
	ob = object_of(wb, "s2");
	assert_true(asprintf(&list, "[%s,%s]", oa, ob) > 0);
	assert_int_equal(try_unwrap(k, list, POLICY, dek), 0);
	assert_int_equal(try_unwrap(only_a, list, POLICY, NULL), -ENOKEY); /* one share is not enough */
	free(list);

	/* an alternative that is not ours, before and behind */
	oc = strdup("{\"sid\":\"s1\",\"type\":\"wrapped\",\"url\":\"https://"
		    "dead.example.org\",\"protocol\":\"kas\",\"kid\":\"zz\",\"wrappedKey\":\"dGhpcyBpcyBzb21lIGRhdGE=\","
		    "\"policyBinding\":{\"alg\":\"HS256\",\"hash\":\"AAAA\"}}");
	assert_true(asprintf(&list, "[%s,%s,%s]", oc, oa, ob) > 0);
	assert_int_equal(try_unwrap(k, list, POLICY, dek), 0);
	free(list);
	assert_true(asprintf(&list, "[%s,%s,%s]", ob, oa, oc) > 0);
	assert_int_equal(try_unwrap(k, list, POLICY, dek), 0);
	free(list);
	free(oc);

	/* a damaged alternative of ours does not hide the good one; alone it is reported as what it is */
	oc = strdup(oa);
	memcpy(strstr(oc, "\"wrappedKey\":\"") + 14, "AAAA", 4);
	assert_true(asprintf(&list, "[%s,%s,%s]", oc, oa, ob) > 0);
	assert_int_equal(try_unwrap(k, list, POLICY, dek), 0);
	free(list);
	assert_true(asprintf(&list, "[%s,%s]", oc, ob) > 0);
	assert_int_equal(try_unwrap(k, list, POLICY, NULL), -EBADMSG);
	assert_non_null(strstr(fail_text(), "key access object 1 of 2"));
	free(list);
	free(oc);
	free(oa);
	free(ob);

	/* no sid at all: alternatives of one share */
	oa = object_of(wa, NULL);
	ob = object_of(wb, NULL);
	assert_true(asprintf(&list, "[%s,%s]", oa, ob) > 0);
	assert_int_equal(try_unwrap(only_a, list, POLICY, a), 0);
	free(list);
	free(oa);
	free(ob);
	free(wa);
	free(wb);
	secret_free(a);
	secret_free(b);
	secret_free(dek);
	kas_free(k);
	kas_free(only_a);
}

static char *member(const char *text, const char *name)
{
	const char *at = strstr(text, name);

	assert_non_null(at);
	at = strchr(at, ':') + 2;
	return strndup(at, (size_t)(strchr(at, '"') - at));
}

static void test_ephemeral(void **state)
{
	struct kas *k = kas_with("k1", NULL, ec_vectors[0].pkcs8);
	struct secret *dek = secret_random();
	char *a, *b, *c, *ea, *eb, *wa, *wb, in_child[4096] = "";
	int fds[2], status;
	ssize_t n;
	pid_t pid;

	assert_int_equal(kas_wrap(k, dek, POLICY, &a), 0);
	assert_int_equal(kas_wrap(k, dek, POLICY, &b), 0);
	ea = member(a, "\"ephemeralPublicKey\"");
	eb = member(b, "\"ephemeralPublicKey\"");
	wa = member(a, "\"wrappedKey\"");
	wb = member(b, "\"wrappedKey\"");
	assert_string_equal(ea, eb);     /* one key for many files */
	assert_string_not_equal(wa, wb); /* a fresh IV for each */
	free(eb);
	free(wa);
	free(wb);
	free(b);

	/* another process has its own */
	assert_int_equal(pipe(fds), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		if (kas_wrap(k, dek, POLICY, &c))
			_exit(1);
		_exit(write(fds[1], c, strlen(c)) == (ssize_t)strlen(c) ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	n = read(fds[0], in_child, sizeof(in_child) - 1);
	assert_true(n > 100);
	eb = member(in_child, "\"ephemeralPublicKey\"");
	assert_string_not_equal(ea, eb);
	assert_int_equal(try_unwrap(k, in_child, POLICY, dek), 0);
	close(fds[0]);
	close(fds[1]);
	free(ea);
	free(eb);
	free(a);
	secret_free(dek);
	kas_free(k);
}

/* More ephemeral keys than the cache has room for. */
static void test_cache_overflow(void **state)
{
	enum { N = 400 };
	EVP_PKEY *key = private_key(ec_vectors[0].pkcs8);
	struct kas *reader = kas_with("k1", NULL, ec_vectors[0].pkcs8);
	struct secret *dek = secret_random();
	static char *text[N];

	for (int i = 0; i < N; i++) {
		struct kas *k = kas_new();

		assert_int_equal(EVP_PKEY_up_ref(key), 1);
		assert_int_equal(kas_add_local(k, "k1", NULL, key), 0);
		assert_int_equal(kas_wrap(k, dek, POLICY, &text[i]), 0);
		kas_free(k);
	}
	for (int round = 0; round < 2; round++)
		for (int i = 0; i < N; i++)
			assert_int_equal(try_unwrap(reader, text[i], POLICY, dek), 0);
	for (int i = 0; i < N; i++)
		free(text[i]);
	secret_free(dek);
	EVP_PKEY_free(key);
	kas_free(reader);
}

static void *wrap_and_unwrap(void *arg)
{
	struct kas *k = arg;
	bool ok = true;

	for (int i = 0; ok && i < 300; i++) {
		struct secret *dek = secret_random(), *got = NULL;
		struct manifest *m;
		char *text = NULL;

		ok = dek && kas_wrap(k, dek, POLICY, &text) == 0;
		if (ok) {
			m = manifest_with(text, POLICY);
			ok = kas_unwrap(k, m, &got) == 0 && equal_ct(got->b, dek->b, SECRET_LEN);
			manifest_free(m);
		}
		free(text);
		secret_free(got);
		secret_free(dek);
	}
	return ok ? arg : NULL;
}

static void test_threads(void **state)
{
	struct kas *k = kas_with("k1", NULL, ec_vectors[0].pkcs8);
	pthread_t t[4];

	for (size_t i = 0; i < ARRAY_SIZE(t); i++)
		assert_int_equal(pthread_create(&t[i], NULL, wrap_and_unwrap, k), 0);
	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		void *ok = NULL;

		pthread_join(t[i], &ok);
		assert_ptr_equal(ok, k);
	}
	kas_free(k);
}

static void test_speed(void **state)
{
	enum { N = 2000 };
	struct kas *k = kas_with("k1", NULL, ec_vectors[0].pkcs8);
	struct secret *dek = secret_random(), *got;
	struct timespec a, b, c;
	struct manifest *m;
	char *text;

	assert_int_equal(kas_wrap(k, dek, POLICY, &text), 0);
	m = manifest_with(text, POLICY);
	free(text);
	clock_gettime(CLOCK_MONOTONIC, &a);
	for (int i = 0; i < N; i++) {
		assert_int_equal(kas_wrap(k, dek, POLICY, &text), 0);
		free(text);
	}
	clock_gettime(CLOCK_MONOTONIC, &b);
	for (int i = 0; i < N; i++) {
		assert_int_equal(kas_unwrap(k, m, &got), 0);
		secret_free(got);
	}
	clock_gettime(CLOCK_MONOTONIC, &c);
	print_message("wrap %.1f us, unwrap %.1f us\n", (double)((b.tv_sec - a.tv_sec) * 1000000000L + b.tv_nsec - a.tv_nsec) / N / 1000,
		      (double)((c.tv_sec - b.tv_sec) * 1000000000L + c.tv_nsec - b.tv_nsec) / N / 1000);
	manifest_free(m);
	secret_free(dek);
	kas_free(k);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_written_is_native), cmocka_unit_test(test_round_trip), cmocka_unit_test(test_no_key),
	    cmocka_unit_test(test_damaged),           cmocka_unit_test(test_splits),     cmocka_unit_test(test_ephemeral),
	    cmocka_unit_test(test_cache_overflow),    cmocka_unit_test(test_threads),    cmocka_unit_test(test_speed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
