/* SPDX-License-Identifier: Apache-2.0 */
/* jose.c against the examples of RFC 7515 and RFC 7638, both ways, and everything a token may try. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#undef fail /* ours is another */

#include <errno.h>
#include <openssl/ec.h>
#include <openssl/rsa.h>
#include <stdio.h>

#include "jose.h"
#include "report.h"

#define BODY "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
/* RFC 7515 A.3 */
#define ES_KEY                                                                                                            \
	"{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\",\"y\":\"x_FEzRu9m36HLN_" \
	"tue659LNpXW6pCyStikYjKIWI5a0\"}"
#define ES_SIG "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
/* RFC 7515 A.2 */
#define RS_KEY                                                                                                          \
	"{\"kty\":\"RSA\",\"e\":\"AQAB\",\"n\":\"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-" \
	"4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-"                                                                             \
	"SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-"       \
	"UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_"                                                     \
	"I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ\"}"
#define RS_SIG                                                                                      \
	"cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_"     \
	"O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_"                                 \
	"nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-" \
	"eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5A"                 \
	"XLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"
#define ES_TOKEN "eyJhbGciOiJFUzI1NiJ9." BODY "." ES_SIG
#define RS_TOKEN "eyJhbGciOiJSUzI1NiJ9." BODY "." RS_SIG
/* RFC 7638 3.1 */
#define THUMB_KEY                                                                                                                    \
	"{\"kty\":\"RSA\",\"n\":\"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_"           \
	"BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-"                                                                                     \
	"5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_"                                                                         \
	"FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-"                                          \
	"bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw\",\"e\":\"AQAB\",\"alg\":\"RS256\"," \
	"\"kid\":\"2011-04-29\"}"
#define THUMB "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"

static json_t *parse(const char *text)
{
	json_t *j = json_loads(text, 0, NULL);

	assert_non_null(j);
	return j;
}

static int verify(const char *token, const char *key, unsigned algs)
{
	CLEANUP_JWS struct jws j = {0};
	json_t *jwk = parse(key);
	int err = jws_parse(token, strlen(token), &j);

	if (!err)
		err = jws_verify(&j, jwk, algs);
	json_decref(jwk);
	return err;
}

static void test_rfc_signatures(void **state)
{
	CLEANUP_JWS struct jws j = {0};

	assert_int_equal(verify(ES_TOKEN, ES_KEY, JOSE_ES256), 0);
	assert_int_equal(verify(RS_TOKEN, RS_KEY, JOSE_RS256 | JOSE_ES256), 0);
	assert_int_equal(jws_parse(ES_TOKEN, strlen(ES_TOKEN), &j), 0);
	assert_int_equal(j.alg, JOSE_ES256);
	assert_string_equal(json_string_value(json_object_get(j.claims, "iss")), "joe");
	assert_int_equal(json_integer_value(json_object_get(j.claims, "exp")), 1300819380);
}

static void test_rfc_thumbprint(void **state)
{
	char got[JWK_THUMBPRINT_LEN + 1] = "";
	json_t *jwk = parse(THUMB_KEY);

	assert_int_equal(jwk_thumbprint(jwk, got), 0);
	assert_string_equal(got, THUMB);
	json_decref(jwk);
}

/* the list decides, and the key has to be of the kind that the algorithm names */
static void test_algorithms(void **state)
{
	assert_int_equal(verify(ES_TOKEN, ES_KEY, JOSE_RS256 | JOSE_PS256 | JOSE_ES384), -EACCES);
	assert_int_equal(verify(ES_TOKEN, ES_KEY, 0), -EACCES);
	assert_int_equal(verify(ES_TOKEN, RS_KEY, JOSE_ALL), -EACCES);
	assert_int_equal(verify(RS_TOKEN, ES_KEY, JOSE_ALL), -EACCES);
	assert_int_equal(verify("eyJhbGciOiJQUzI1NiJ9." BODY "." RS_SIG, RS_KEY, JOSE_ALL), -EACCES); /* PS256 */
	assert_int_equal(verify("eyJhbGciOiJub25lIn0." BODY ".", ES_KEY, JOSE_ALL), -EACCES);         /* none */
	assert_int_equal(verify("eyJhbGciOiJIUzI1NiJ9." BODY "." ES_SIG, ES_KEY, JOSE_ALL), -EACCES); /* HS256 */
	assert_int_equal(verify("eyJhbGciOiJFUzM4NCJ9." BODY "." ES_SIG, ES_KEY, JOSE_ALL), -EACCES); /* ES384, key P-256 */
	assert_int_equal(verify("e30." BODY "." ES_SIG, ES_KEY, JOSE_ALL), -EACCES);                  /* no alg */
}

/* every single changed character of a token is noticed */
static void test_tampered(void **state)
{
	char token[] = ES_TOKEN;

	for (size_t i = 0; i < sizeof(token) - 1; i += 1) {
		char was = token[i];

		if (was == '.' || i == sizeof(token) - 2) /* the last character has spare bits */
			continue;
		token[i] = was == 'A' ? 'B' : 'A';
		assert_int_not_equal(verify(token, ES_KEY, JOSE_ALL), 0);
		token[i] = was;
	}
	assert_int_equal(verify(token, ES_KEY, JOSE_ALL), 0);
}

static void test_malformed(void **state)
{
	static const char *const bad[] = {
	    "",
	    ".",
	    "..",
	    "...",
	    "e30.e30",
	    "e30.e30.a.b",
	    "W10.e30.",                        /* header [] */
	    "e30.W10.",                        /* claims [] */
	    "e30.e3.",                         /* { */
	    "e$0.e30.",                        /* not base64 */
	    "eyJhIjoxLCJhIjoyfQ.e30.",         /* a member twice */
	    "e30.eyJhIjoxLCJhIjoyfQ.",         /* in the claims too */
	    "eyJjcml0IjpbImI2NCJdfQ.e30.AAAA", /* crit */
	};
	struct jws j = {0};
	char *big = malloc(JWS_MAX + 2);

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(jws_parse(bad[i], strlen(bad[i]), &j), -EPROTO);
	assert_null(j.header);
	assert_non_null(big);
	memset(big, 'a', JWS_MAX + 1);
	assert_int_equal(jws_parse(big, JWS_MAX + 1, &j), -EPROTO);
	assert_int_equal(jws_parse(big, JWS_MAX, &j), -EPROTO);
	free(big);
	/* bytes behind the length are not looked at; a signature of nonsense is refused later */
	assert_int_equal(jws_parse("e30.e30.\xff.", 9, &j), 0);
	jws_free(&j);
	assert_int_equal(verify("eyJhbGciOiJFUzI1NiJ9." BODY ".\xff\xfe", ES_KEY, JOSE_ALL), -EACCES);
	assert_int_equal(verify("eyJhbGciOiJFUzI1NiJ9." BODY ".", ES_KEY, JOSE_ALL), -EACCES);
}

static void test_bad_keys(void **state)
{
	static const struct {
		const char *jwk;
		int err;
	} bad[] = {
	    {"{}", -ENOTSUP},
	    {"[]", -ENOTSUP},
	    {"{\"kty\":\"oct\",\"k\":\"AAAA\"}", -EPROTO},
	    {"{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"AAAA\"}", -ENOTSUP},
	    {"{\"kty\":\"EC\",\"crv\":\"secp256k1\",\"x\":\"AAAA\",\"y\":\"AAAA\"}", -ENOTSUP},
	    {"{\"kty\":\"EC\",\"crv\":\"P-256\"}", -EPROTO},
	    {"{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":1,\"y\":2}", -EPROTO},
	    /* not on the curve */
	    {"{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\",\"y\":"
	     "\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\"}",
	     -EPROTO},
	    {"{\"kty\":\"RSA\",\"e\":\"AQAB\",\"n\":\"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHm\"}", -EPROTO},
	    {"{\"kty\":\"RSA\",\"e\":\"AQAB\"}", -EPROTO},
	};
	char thumb[JWK_THUMBPRINT_LEN + 1];

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		json_t *jwk = parse(bad[i].jwk);
		EVP_PKEY *key = NULL;

		assert_int_equal(jwk_to_key(jwk, &key), bad[i].err);
		assert_null(key);
		if (jwk_check(jwk))
			assert_int_equal(jwk_thumbprint(jwk, thumb), bad[i].err);
		assert_int_not_equal(verify(ES_TOKEN, bad[i].jwk, JOSE_ALL), 0);
		json_decref(jwk);
	}
}

/* a big exponent costs the checker as much as a signature; a private part has no business in a token */
static void test_costly_keys(void **state)
{
	json_t *jwk = parse(RS_KEY);

	assert_int_equal(jwk_check(jwk), 0);
	json_object_set_new(jwk, "e", json_string("AAAAAAAAAQAB"));
	assert_int_equal(jwk_check(jwk), -EPROTO);
	json_object_set_new(jwk, "e", json_string("AQAB"));
	json_object_set_new(jwk, "d", json_string("AQAB"));
	assert_int_equal(jwk_check(jwk), -EPROTO);
	json_decref(jwk);
}

/* what a JWK says about its own use holds, and the library keeps its opinion to itself: strangers do not write into our log */
static void test_key_use(void **state)
{
	static const char *const bad[] = {"\"alg\":\"RS512\"", "\"use\":\"enc\"", "\"key_ops\":[\"sign\"]", "\"x\":\"!!\""};
	FILE *f = tmpfile();
	int keep = dup(2);
	char text[1024];

	assert_non_null(f);
	dup2(fileno(f), 2);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		json_t *jwk = parse(ES_KEY), *more;
		char *key;

		snprintf(text, sizeof(text), "{%s}", bad[i]);
		more = parse(text);
		json_object_update(jwk, more);
		key = json_dumps(jwk, 0);
		assert_int_equal(verify(ES_TOKEN, key, JOSE_ALL), -EACCES);
		free(key);
		json_decref(more);
		json_decref(jwk);
	}
	dup2(keep, 2);
	close(keep);
	assert_int_equal(lseek(fileno(f), 0, SEEK_END), 0);
	fclose(f);
}

static void sign_and_verify(EVP_PKEY *key, enum jose_alg alg)
{
	json_t *claims = parse("{\"sub\":\"\\u00e4\",\"n\":1}"), *header = parse("{\"typ\":\"dpop+jwt\"}"), *jwk = jwk_from_key(key);
	CLEANUP_JWS struct jws j = {0};
	EVP_PKEY *back = NULL;
	char *token = NULL;

	assert_non_null(jwk);
	assert_null(json_object_get(jwk, "d"));
	assert_int_equal(jwk_to_key(jwk, &back), 0);
	assert_int_equal(EVP_PKEY_eq(key, back), 1);
	assert_int_equal(jws_sign(key, alg, header, claims, &token), 0);
	assert_int_equal(jws_parse(token, strlen(token), &j), 0);
	assert_int_equal(j.alg, alg);
	assert_string_equal(json_string_value(json_object_get(j.header, "typ")), "dpop+jwt");
	assert_true(json_equal(j.claims, claims));
	assert_null(json_object_get(header, "alg")); /* the caller's object stays as it was */
	assert_int_equal(jws_verify(&j, jwk, alg), 0);
	assert_int_equal(jws_verify(&j, jwk, JOSE_ALL & ~(unsigned)alg), -EACCES);
	free(token);
	EVP_PKEY_free(back);
	json_decref(jwk);
	json_decref(claims);
	json_decref(header);
}

/* signed by OpenSSL, checked by libjose; often enough to meet an r or s with leading zeros */
static void test_sign(void **state)
{
	EVP_PKEY *p256 = EVP_EC_gen("P-256"), *p384 = EVP_EC_gen("P-384"), *p521 = EVP_EC_gen("P-521"), *rsa = EVP_RSA_gen(2048);
	json_t *claims = json_object();
	char *token = NULL;

	for (int i = 0; i < 600; i++)
		sign_and_verify(p256, JOSE_ES256);
	sign_and_verify(p384, JOSE_ES384);
	sign_and_verify(rsa, JOSE_RS256);
	sign_and_verify(rsa, JOSE_PS256);
	assert_int_equal(jose_alg_of(p256), JOSE_ES256);
	assert_int_equal(jose_alg_of(p384), JOSE_ES384);
	assert_int_equal(jose_alg_of(p521), JOSE_OTHER);
	assert_int_equal(jose_alg_of(rsa), JOSE_RS256);
	assert_int_equal(jws_sign(p256, JOSE_ES384, NULL, claims, &token), -EINVAL);
	assert_int_equal(jws_sign(p256, JOSE_RS256, NULL, claims, &token), -EINVAL);
	assert_int_equal(jws_sign(p521, JOSE_ES256, NULL, claims, &token), -EINVAL);
	assert_int_equal(jws_sign(rsa, JOSE_ES256, NULL, claims, &token), -EINVAL);
	assert_null(token);
	json_decref(claims);
	EVP_PKEY_free(p256);
	EVP_PKEY_free(p384);
	EVP_PKEY_free(p521);
	EVP_PKEY_free(rsa);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_rfc_signatures), cmocka_unit_test(test_rfc_thumbprint), cmocka_unit_test(test_algorithms),
	    cmocka_unit_test(test_tampered),       cmocka_unit_test(test_malformed),      cmocka_unit_test(test_bad_keys),
	    cmocka_unit_test(test_costly_keys),    cmocka_unit_test(test_key_use),        cmocka_unit_test(test_sign),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
