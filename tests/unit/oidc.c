/* SPDX-License-Identifier: Apache-2.0 */
/* oidc_*.c without a network: secrets in files, sessions, forms, proofs, and what a token says of itself. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#undef fail /* ours is another */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "jose.h"
#include "oidc_int.h"
#include "pubkey.h"
#include "report.h"
#include "temp_dir.h"

static char dir[PATH_MAX];

static const char *path_of(const char *name)
{
	static char path[PATH_MAX + 32];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

static const char *write_file(const char *name, const void *p, size_t len, mode_t mode)
{
	const char *path = path_of(name);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, p, len), len);
	assert_int_equal(fchmod(fd, mode), 0);
	close(fd);
	return path;
}

static int make_dir(void **state)
{
	return temp_dir_make(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	return temp_dir_remove(dir) ? 0 : -1;
}

static void test_secret_files(void **state)
{
	static const struct {
		const char *text;
		size_t len;
		mode_t mode;
		int err;
		const char *want;
	} cases[] = {
	    {"secret", 6, 0600, 0, "secret"},          {"secret\r\n\t\n", 10, 0400, 0, "secret"},
	    {" a b \n", 6, 0600, 0, " a b"},           {"secret", 6, 0640, -EPERM, NULL},
	    {"secret", 6, 0604, -EPERM, NULL},         {"secret", 6, 0620, -EPERM, NULL},
	    {"secret", 6, 0601, -EPERM, NULL},         {"", 0, 0600, -EPROTO, NULL},
	    {"\n\n", 2, 0600, -EPROTO, NULL},          {"a\0b", 3, 0600, -EPROTO, NULL},
	    {"0123456789", 10, 0600, 0, "0123456789"}, {"0123456789X", 11, 0600, -EPROTO, NULL},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char *got = NULL;

		assert_int_equal(secret_file_read(write_file("s", cases[i].text, cases[i].len, cases[i].mode), 10, &got, NULL),
				 cases[i].err);
		if (!cases[i].err)
			assert_string_equal(got, cases[i].want);
		else
			assert_null(got);
		wipe_free(&got);
	}
	char *got = NULL;

	assert_int_equal(secret_file_read(dir, 10, &got, NULL), -EPROTO);
	assert_int_equal(secret_file_read(path_of("none"), 10, &got, NULL), -ENOENT);
}

static void test_sessions(void **state)
{
	struct issuer is = {.name = (char *)"https://id.example.org", .client_id = (char *)"cli"}, other = is, client = is;
	CLEANUP_SESSION struct session s = {0}, none = {0};
	EVP_PKEY *key = pubkey_new_ec();
	char path[PATH_MAX + 32];
	bool keyring = false;
	struct stat st;

	other.name = (char *)"https://id.example.com";
	client.client_id = (char *)"cli2";
	snprintf(path, sizeof(path), "%s", path_of("a/b/session"));
	assert_int_equal(session_read(path, &is, &none), -ENOENT);
	assert_int_equal(session_new(path, &is, "refresh-1", key, &keyring), 0);
	assert_int_equal(session_write(path, &is, "refresh-2", key), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(session_read(path, &is, &s), 0);
	assert_string_equal(s.refresh, "refresh-2");
	assert_int_equal(EVP_PKEY_eq(s.key, key), 1);
	assert_int_equal(session_read(path, &other, &none), -EPROTO);
	assert_int_equal(session_read(path, &client, &none), -EPROTO);
	assert_int_equal(chmod(path, 0640), 0);
	assert_int_equal(session_read(path, &is, &none), -EPERM);
	for (const char *const *bad =
		 (const char *const[]){"{}", "[]", "x", "{\"version\":2,\"refresh_token\":\"r\"}",
				       "{\"version\":1,\"refresh_token\":\"r\"}",
				       "{\"version\":1,\"issuer\":\"https://"
				       "id.example.org\",\"client_id\":\"cli\",\"refresh_token\":\"r\",\"dpop_key\":\"k\"}",
				       NULL};
	     *bad; bad++)
		assert_int_equal(session_read(write_file("session", *bad, strlen(*bad), 0600), &is, &none), -EPROTO);
	assert_null(none.refresh);
	EVP_PKEY_free(key);
}

static void test_session_lock(void **state)
{
	const char *path = path_of("session");
	int a = session_lock(path, http_now() + 1000), b;

	assert_true(a >= 0);
	b = session_lock(path, http_now() + 120);
	assert_int_equal(b, -ETIMEDOUT);
	close(a);
	b = session_lock(path, http_now() + 1000);
	assert_true(b >= 0);
	close(b);
}

static void *let_go(void *lock)
{
	nanosleep(&(struct timespec){.tv_nsec = 400000000}, NULL);
	close(*(int *)lock);
	return NULL;
}

/* A refresh is under way in another process while its user logs out, or in anew. */
static void test_session_ended(void **state)
{
	struct issuer is = {.name = (char *)"https://id.example.org", .client_id = (char *)"cli"};
	EVP_PKEY *key = pubkey_new_ec();
	char path[PATH_MAX + 32];
	int64_t begun;
	pthread_t t;
	int lock;

	snprintf(path, sizeof(path), "%s", path_of("session"));
	for (int i = 0; i < 2; i++) {
		bool keyring = i;

		assert_int_equal(session_new(path, &is, "refresh-1", key, &keyring), 0);
		assert_int_equal(session_write(path, &is, "refresh-2", key), 0);
		assert_int_equal(session_remove(path), 0);
		assert_int_equal(session_write(path, &is, "refresh-3", key), -EACCES);
		assert_int_equal(access(path, F_OK), -1);
	}
	lock = session_lock(path, http_now() + 1000);
	assert_true(lock >= 0);
	begun = http_now();
	assert_int_equal(pthread_create(&t, NULL, let_go, &lock), 0);
	assert_int_equal(session_new(path, &is, "refresh-4", key, &(bool){false}), 0);
	assert_true(http_now() - begun >= 300);
	assert_int_equal(pthread_join(t, NULL), 0);
	assert_int_equal(session_remove(path), 0);
	EVP_PKEY_free(key);
}

static void test_session_path(void **state)
{
	char *a = NULL, *b = NULL, *c = NULL;

	setenv("XDG_STATE_HOME", "/state", 1);
	assert_int_equal(oidc_session_path("https://id.example.org", "x", &a), 0);
	assert_int_equal(oidc_session_path("https://id.example.org", "y", &b), 0);
	assert_memory_equal(a, "/state/tdfs/login-", 18);
	assert_string_not_equal(a, b);
	unsetenv("XDG_STATE_HOME");
	setenv("HOME", "/h", 1);
	assert_int_equal(oidc_session_path("https://id.example.org", "x", &c), 0);
	assert_memory_equal(c, "/h/.local/state/tdfs/login-", 27);
	free(a);
	free(b);
	free(c);
	a = NULL;
	unsetenv("HOME");
	assert_int_equal(oidc_session_path("https://id.example.org", "x", &a), -ENOENT);
	assert_null(a);
}

static void test_forms(void **state)
{
	char *form = NULL;

	assert_int_equal(form_add(&form, "a", "x y&z=%\xc3\xa4-._~"), 0);
	assert_int_equal(form_add(&form, "b", ""), 0);
	assert_string_equal(form, "a=x%20y%26z%3D%25%C3%A4-._~&b=");
	free(form);
}

static void test_proofs(void **state)
{
	EVP_PKEY *key = pubkey_new_ec();
	CLEANUP_JWS struct jws j = {0};
	char *line = NULL, thumb[JWK_THUMBPRINT_LEN + 1], again[JWK_THUMBPRINT_LEN + 1];
	json_t *jwk = jwk_from_key(key);
	int64_t now = time(NULL);

	assert_int_equal(dpop_proof(key, "POST", "https://kas.example.org/x", "n", "token", 1000, &line), 0);
	assert_memory_equal(line, "DPoP: ", 6);
	assert_int_equal(jws_parse(line + 6, strlen(line) - 6, &j), 0);
	assert_int_equal(jws_verify(&j, json_object_get(j.header, "jwk"), JOSE_ES256), 0);
	assert_int_equal(jwk_thumbprint(json_object_get(j.header, "jwk"), thumb), 0);
	assert_int_equal(jwk_thumbprint(jwk, again), 0);
	assert_string_equal(thumb, again);
	assert_string_equal(json_string_value(json_object_get(j.header, "typ")), "dpop+jwt");
	assert_string_equal(json_string_value(json_object_get(j.claims, "htm")), "POST");
	assert_string_equal(json_string_value(json_object_get(j.claims, "htu")), "https://kas.example.org/x");
	assert_string_equal(json_string_value(json_object_get(j.claims, "nonce")), "n");
	/* base64url(SHA-256("token")), computed elsewhere */
	assert_string_equal(json_string_value(json_object_get(j.claims, "ath")), "PEaenWxYddN6Q_NT1PiOYfz4EsZu7jRXRlpAsNpBU-A");
	assert_in_range(json_integer_value(json_object_get(j.claims, "iat")), now + 1000 - IAT_BACK, now + 1001 - IAT_BACK);
	free(line);
	json_decref(jwk);
	EVP_PKEY_free(key);
}

/* A token with these claims, taken from a file: the result, and seconds of life left. */
static int token(const struct issuer *is, EVP_PKEY *key, const char *claims, int64_t *life, bool *bound)
{
	CLEANUP_TOKEN struct token t = {0};
	json_t *j = json_loads(claims, 0, NULL);
	char *text = NULL;
	int err;

	assert_non_null(j);
	assert_int_equal(jws_sign(key, JOSE_ES256, NULL, j, &text), 0);
	json_decref(j);
	err = token_from_text(is, text, key, &t);
	*life = err ? 0 : (t.good_until - http_now() + 999) / 1000;
	*bound = t.bound;
	free(text);
	return err;
}

static void test_tokens(void **state)
{
	struct issuer is = {.name = (char *)"https://id.example.org", .audience = (char *)"tdfs"};
	EVP_PKEY *key = pubkey_new_ec();
	json_t *jwk = jwk_from_key(key);
	char thumb[JWK_THUMBPRINT_LEN + 1], claims[300];
	static const struct {
		const char *claims;
		int exp, err;
	} cases[] = {
	    {"", 100, 0},
	    {",\"iss\":\"https://id.example.org\",\"aud\":\"tdfs\"", 100, 0},
	    {",\"aud\":[\"a\",\"tdfs\"]", 100, 0},
	    {",\"aud\":[\"a\"]", 100, -EACCES},
	    {",\"aud\":\"tdfs2\"", 100, -EACCES},
	    {",\"aud\":7", 100, -EACCES},
	    {",\"iss\":\"https://id.example.org/\"", 100, -EACCES},
	    {"", 0, -EACCES},
	    {"", -100, -EACCES},
	    {",\"cnf\":{\"jkt\":\"somebody else's\"}", 100, -EACCES},
	};
	int64_t life;
	bool bound;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		snprintf(claims, sizeof(claims), "{\"exp\":%lld%s}", (long long)time(NULL) + cases[i].exp, cases[i].claims);
		assert_int_equal(token(&is, key, claims, &life, &bound), cases[i].err);
		if (!cases[i].err)
			assert_in_range(life, cases[i].exp - 2, cases[i].exp);
		assert_false(bound);
	}
	assert_int_equal(jwk_thumbprint(jwk, thumb), 0);
	snprintf(claims, sizeof(claims), "{\"exp\":99999999999999999,\"cnf\":{\"jkt\":\"%s\"}}", thumb);
	assert_int_equal(token(&is, key, claims, &life, &bound), 0);
	assert_true(bound);
	assert_in_range(life, 600000, 700000); /* a week, not for ever */
	assert_int_equal(token(&is, key, "{\"exp\":-9223372036854775808}", &life, &bound), -EACCES); /* no sum of it overflows */
	/* the issuer's clock is ahead: what looks good here has run out there */
	is.skew = 200;
	snprintf(claims, sizeof(claims), "{\"exp\":%lld}", (long long)time(NULL) + 100);
	assert_int_equal(token(&is, key, claims, &life, &bound), -EACCES);
	json_decref(jwk);
	EVP_PKEY_free(key);
}

static void test_answers(void **state)
{
	static const struct {
		const char *json;
		int err;
	} cases[] = {
	    {"{\"access_token\":\"opaque\",\"token_type\":\"Bearer\",\"expires_in\":60}", 0},
	    {"{\"access_token\":\"opaque\",\"token_type\":\"bearer\"}", 0},
	    {"{\"access_token\":\"opaque\",\"token_type\":\"DPoP\",\"refresh_token\":\"r\"}", 0},
	    {"{\"access_token\":\"opaque\",\"token_type\":\"mac\"}", -EPROTO},
	    {"{\"access_token\":\"opaque\"}", -EPROTO},
	    {"{\"token_type\":\"Bearer\"}", -EPROTO},
	    {"{\"access_token\":\"a b\",\"token_type\":\"Bearer\"}", -EPROTO},
	    {"{\"access_token\":\"a\\r\\nX-Y: z\",\"token_type\":\"Bearer\"}", -EPROTO},
	    {"{\"access_token\":\"a\",\"token_type\":\"Bearer\",\"refresh_token\":\"a\\n\"}", -EPROTO},
	    {"{\"access_token\":7,\"token_type\":\"Bearer\"}", -EPROTO},
	};
	struct issuer is = {.name = (char *)"https://id.example.org"};
	EVP_PKEY *key = pubkey_new_ec();

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		CLEANUP_TOKEN struct token t = {0};
		json_t *j = json_loads(cases[i].json, 0, NULL);

		assert_int_equal(token_from_answer(&is, j, key, &t), cases[i].err);
		if (!cases[i].err)
			assert_true(t.fresh_until < t.good_until);
		else
			assert_null(t.access);
		json_decref(j);
	}
	EVP_PKEY_free(key);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_secret_files),  cmocka_unit_test(test_sessions),     cmocka_unit_test(test_session_lock),
	    cmocka_unit_test(test_session_ended), cmocka_unit_test(test_session_path), cmocka_unit_test(test_forms),
	    cmocka_unit_test(test_proofs),        cmocka_unit_test(test_tokens),       cmocka_unit_test(test_answers),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
