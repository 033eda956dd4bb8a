/* SPDX-License-Identifier: Apache-2.0 */
/* pubkey.c against another implementation's keys and wrapped keys, in every spelling of PEM met in the wild. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#undef fail /* ours is another */

#include <errno.h>
#include <openssl/pem.h>
#include <stdio.h>

#include "hex.h"
#include "pubkey.h"
#include "pubkey_vectors.h"
#include "report.h"

static uint8_t dek[SECRET_LEN];

static EVP_PKEY *private_key(const char *pem)
{
	EVP_PKEY *key = NULL;
	int err = pubkey_private(pem, strlen(pem), &key);

	if (err)
		print_message("%s\n", fail_text());
	assert_int_equal(err, 0);
	return key;
}

static EVP_PKEY *public_key(const char *pem)
{
	EVP_PKEY *key = NULL;
	int err = pubkey_public(pem, strlen(pem), &key);

	if (err)
		print_message("%s\n", fail_text());
	assert_int_equal(err, 0);
	return key;
}

static void test_ec_vectors(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(ec_vectors); i++) {
		const struct ec_vector *v = &ec_vectors[i];
		EVP_PKEY *a = private_key(v->pkcs8), *b = private_key(v->traditional);
		struct secret *kek = NULL, *kek_b = NULL;
		uint8_t wrapped[128], key[SECRET_LEN];
		size_t n = unhex(v->wrapped, wrapped);

		print_message("%s\n", v->name);
		assert_int_equal(pubkey_type(a), WRAP_EC);
		assert_int_equal(EVP_PKEY_eq(a, b), 1);
		assert_int_equal(n, EC_WRAPPED_LEN);
		assert_int_equal(ec_kek_of(a, v->ephemeral, &kek), 0);
		assert_int_equal(ec_kek_of(b, v->ephemeral, &kek_b), 0);
		assert_memory_equal(kek->b, kek_b->b, SECRET_LEN);
		assert_int_equal(aead_open(kek, wrapped, n, NULL, key), 0);
		assert_memory_equal(key, dek, SECRET_LEN);
		secret_free(kek);
		secret_free(kek_b);

		/* another curve's ephemeral key is malformed, not a crash */
		kek = NULL;
		assert_int_equal(ec_kek_of(a, ec_vectors[(i + 1) % ARRAY_SIZE(ec_vectors)].ephemeral, &kek), -EPROTO);
		assert_int_equal(ec_kek_of(a, rsa_public, &kek), -EPROTO);
		assert_int_equal(ec_kek_of(a, "", &kek), -EPROTO);
		assert_int_equal(ec_kek_of(a, "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", &kek), -EPROTO);
		assert_null(kek);
		EVP_PKEY_free(a);
		EVP_PKEY_free(b);
	}
}

static void test_ec_round_trip(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(ec_vectors); i++) {
		EVP_PKEY *kas = private_key(ec_vectors[i].pkcs8), *pub;
		char *pub_pem = pubkey_pem(kas), *eph = NULL, *eph2 = NULL;
		struct secret *w = NULL, *r = NULL, *w2 = NULL;

		assert_non_null(pub_pem);
		assert_null(strstr(pub_pem, "PRIVATE"));
		pub = public_key(pub_pem);
		assert_int_equal(ec_kek_new(pub, &w, &eph), 0);
		assert_int_equal(ec_kek_new(pub, &w2, &eph2), 0);
		assert_int_equal(ec_kek_of(kas, eph, &r), 0);
		assert_memory_equal(w->b, r->b, SECRET_LEN);
		assert_memory_not_equal(w->b, w2->b, SECRET_LEN);
		assert_string_not_equal(eph, eph2);
		secret_free(w);
		secret_free(w2);
		secret_free(r);
		free(eph);
		free(eph2);
		free(pub_pem);
		EVP_PKEY_free(pub);
		EVP_PKEY_free(kas);
	}
}

static void test_rsa(void **state)
{
	EVP_PKEY *key = private_key(rsa_pkcs8), *trad = private_key(rsa_traditional), *pub = public_key(rsa_public),
		 *crt = public_key(rsa_certificate);
	struct secret *s = NULL, *in = secret_new();
	uint8_t w[WRAPPED_MAX];
	size_t n;

	assert_int_equal(pubkey_type(key), WRAP_RSA);
	assert_int_equal(EVP_PKEY_eq(key, trad), 1);
	assert_int_equal(EVP_PKEY_eq(pub, crt), 1);
	n = unhex(rsa_wrapped, w);
	assert_int_equal(rsa_unwrap(key, w, n, &s), 0);
	assert_memory_equal(s->b, dek, SECRET_LEN);
	secret_free(s);

	s = NULL;
	for (size_t i = 0; i < n; i += 17) {
		w[i] ^= 1;
		assert_int_equal(rsa_unwrap(key, w, n, &s), -EBADMSG);
		w[i] ^= 1;
	}
	assert_int_equal(rsa_unwrap(key, w, n - 1, &s), -EBADMSG);
	assert_int_equal(rsa_unwrap(key, w, 0, &s), -EBADMSG);
	memset(w, 0xff, sizeof(w));
	assert_int_equal(rsa_unwrap(key, w, sizeof(w), &s), -EBADMSG);
	n = unhex(rsa_wrapped_sha256, w);
	assert_int_equal(rsa_unwrap(key, w, n, &s), -EBADMSG);
	n = unhex(rsa_wrapped_short, w);
	assert_int_equal(rsa_unwrap(key, w, n, &s), -EBADMSG);
	assert_null(s);

	memcpy(in->b, dek, SECRET_LEN);
	assert_int_equal(rsa_wrap(crt, in, w, &n), 0);
	assert_int_equal(n, 256);
	assert_int_equal(rsa_unwrap(trad, w, n, &s), 0);
	assert_memory_equal(s->b, dek, SECRET_LEN);
	secret_free(s);
	secret_free(in);
	EVP_PKEY_free(key);
	EVP_PKEY_free(trad);
	EVP_PKEY_free(pub);
	EVP_PKEY_free(crt);
}

/* @pem as other software would put it */
static char *respell(const char *pem, int how)
{
	char *out = malloc(3 * strlen(pem) + 100), *p = out;
	const char *body = strstr(pem, "-----\n") + 6, *end = strstr(pem, "\n-----END");

	assert_non_null(out);
	if (how == 3)
		p += sprintf(p, "Bag Attributes\n    friendlyName: kas\nKey Attributes: <No Attributes>\n");
	if (how == 4)
		p += sprintf(p, "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n");
	for (const char *c = pem; *c; c++) {
		if (*c == '\n' && how == 0)
			*p++ = '\r';
		if (*c == '\n' && how == 1 && c >= body && c < end)
			continue; /* base64 in one line */
		if (*c == '\n' && how == 2 && !c[1])
			continue; /* no last newline */
		*p++ = *c;
		if (how == 5 && *c == '\n')
			*p++ = ' ';
	}
	*p = '\0';
	return out;
}

static void test_pem_spellings(void **state)
{
	static const char *const names[] = {"CRLF", "one line", "no last newline", "text before", "EC parameters before", "indented"};
	const char *const privates[] = {rsa_pkcs8, rsa_traditional, ec_vectors[0].pkcs8, ec_vectors[0].traditional};
	const char *const publics[] = {rsa_public, rsa_certificate, ec_vectors[0].ephemeral};

	for (int how = 0; how < (int)ARRAY_SIZE(names); how++) {
		for (size_t i = 0; i < ARRAY_SIZE(privates); i++) {
			EVP_PKEY *want = private_key(privates[i]), *got;
			char *pem = respell(privates[i], how);

			assert_string_not_equal(pem, privates[i]);
			got = private_key(pem);
			assert_int_equal(EVP_PKEY_eq(want, got), 1);
			EVP_PKEY_free(want);
			EVP_PKEY_free(got);
			free(pem);
		}
		for (size_t i = 0; i < ARRAY_SIZE(publics); i++) {
			EVP_PKEY *want = public_key(publics[i]), *got;
			char *pem = respell(publics[i], how);

			got = public_key(pem);
			assert_int_equal(EVP_PKEY_eq(want, got), 1);
			EVP_PKEY_free(want);
			EVP_PKEY_free(got);
			free(pem);
		}
	}
}

static void test_pem_refused(void **state)
{
	static const struct {
		const char *name, *pem;
		bool private;
		int err;
	} v[] = {
	    {"empty", "", true, -EPROTO},
	    {"text", "hello", true, -EPROTO},
	    {"no end", "-----BEGIN PRIVATE KEY-----\nAAAA", true, -EPROTO},
	    {"no dashes", "-----BEGIN PRIVATE KEY", true, -EPROTO},
	    {"empty block", "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n", true, -EPROTO},
	    {"not base64", "-----BEGIN PRIVATE KEY-----\n@@@@\n-----END PRIVATE KEY-----\n", true, -EPROTO},
	    {"not DER", "-----BEGIN PRIVATE KEY-----\nAAAAAAAA\n-----END PRIVATE KEY-----\n", true, -EPROTO},
	    {"public for private", rsa_public, true, -EPROTO},
	    {"certificate for private", rsa_certificate, true, -EPROTO},
	    {"private for public", rsa_pkcs8, false, -EPROTO},
	    {"1024 bits", rsa_1024, false, -ENOTSUP},
	    {"Ed25519", ed25519_private, true, -ENOTSUP},
	    {"secp256k1", secp256k1_private, true, -ENOTSUP},
	    {"with a password", locked_private, true, -ENOTSUP},
	};

	for (size_t i = 0; i < ARRAY_SIZE(v); i++) {
		EVP_PKEY *key = NULL;

		fail_clear();
		print_message("%s\n", v[i].name);
		assert_int_equal((v[i].private ? pubkey_private : pubkey_public)(v[i].pem, strlen(v[i].pem), &key), v[i].err);
		assert_null(key);
		assert_string_not_equal(fail_text(), "");
	}
	/* cut anywhere: refused, never a crash */
	for (size_t len = 0; len + 1 < strlen(rsa_pkcs8); len++) {
		EVP_PKEY *key = NULL;
		char *cut = strndup(rsa_pkcs8, len); /* own allocation, so that ASan sees an overrun */

		assert_true(pubkey_private(cut, len, &key) < 0);
		free(cut);
	}
}

static void test_der(void **state)
{
	const char *const pems[] = {rsa_traditional, ec_vectors[0].traditional, ec_vectors[2].pkcs8};

	for (size_t i = 0; i < ARRAY_SIZE(pems); i++) {
		EVP_PKEY *key = private_key(pems[i]), *back = NULL;
		uint8_t *der = NULL;
		size_t len = 0;

		assert_int_equal(pubkey_private_der(key, &der, &len), 0);
		assert_int_equal(pubkey_private_from_der(der, len, &back), 0);
		assert_int_equal(EVP_PKEY_eq(key, back), 1);
		EVP_PKEY_free(back);
		back = NULL;
		assert_int_equal(pubkey_private_from_der(der, len - 1, &back), -EPROTO);
		assert_int_equal(pubkey_private_from_der(der, 0, &back), -EPROTO);
		der = realloc(der, len + 1);
		der[len] = 0;
		assert_int_equal(pubkey_private_from_der(der, len + 1, &back), -EPROTO);
		assert_null(back);
		free(der);
		EVP_PKEY_free(key);
	}
}

static void test_new_ec(void **state)
{
	EVP_PKEY *a = pubkey_new_ec(), *b = pubkey_new_ec();
	char group[32];

	assert_non_null(a);
	assert_non_null(b);
	assert_int_equal(EVP_PKEY_get_group_name(a, group, sizeof(group), NULL), 1);
	assert_string_equal(group, "prime256v1");
	assert_int_not_equal(EVP_PKEY_eq(a, b), 1);
	EVP_PKEY_free(a);
	EVP_PKEY_free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_ec_vectors),    cmocka_unit_test(test_ec_round_trip), cmocka_unit_test(test_rsa),
	    cmocka_unit_test(test_pem_spellings), cmocka_unit_test(test_pem_refused),   cmocka_unit_test(test_der),
	    cmocka_unit_test(test_new_ec),
	};

	for (size_t i = 0; i < sizeof(dek); i++)
		dek[i] = (uint8_t)i;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
