/* SPDX-License-Identifier: Apache-2.0 */
/* Parts of the KAS server that no request reaches in a given order: replays that are pushed out, memory that is short. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#undef fail /* ours is another */

#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "aead.h"
#include "encode.h"
#include "manifest.h"
#include "report.h"
#include "serve_i.h"
#include "temp_dir.h"

#define URL "https://kas.example.org"
#define TOKEN "a.token.text"

/* --- memory is short --- */

static size_t fail_size; /* of the next malloc() that gets nothing; 0: none */

void *__real_malloc(size_t n);
void *__wrap_malloc(size_t n);

void *__wrap_malloc(size_t n)
{
	if (fail_size && n == fail_size) {
		fail_size = 0;
		return NULL;
	}
	return __real_malloc(n);
}

/* Two files of one policy that the rules refuse, and the memory for judging it is not there the first time: the second is judged. */
static void test_judge_no_memory(void **state)
{
	static struct serve_config config = {.url = (char *)URL, .issuer = (char *)"https://i", .audience = (char *)"a"};
	char policy[256], dir[PATH_MAX], path[PATH_MAX + 16], binding[89], key[BASE64_LEN(EC_WRAPPED_LEN) + 1];
	static const char text[] = "{\"uuid\":\"u\",\"body\":{\"dataAttributes\":[],\"dissem\":[\"bob\"]}}";
	json_t *rules = json_loads("{\"unrestricted\":\"allow\"}", 0, NULL), *claims = json_loads("{\"sub\":\"alice\"}", 0, NULL);
	struct serve s = {.config = &config, .kas = kas_new(), .limits = limits_new(10, 1000), .sessions = wrappers_new()};
	struct token token = {.refs = 2, .claims = claims, .subject = "alice"};
	struct call c = {.method = "POST", .path = "/kas.AccessService/Rewrap", .peer = "unit", .content_type = "application/json"};
	struct secret *kek = NULL, *dek = secret_random();
	EVP_PKEY *kas = pubkey_new_ec(), *client = pubkey_new_ec();
	uint8_t wrapped[EC_WRAPPED_LEN];
	char *ephemeral = NULL, *pem = pubkey_pem(client), *body, *srt = NULL, *request;
	json_t *object, *wrapper, *answer, *results;

	assert_true(temp_dir_make(dir) && s.kas && s.limits && s.sessions && dek && kas && client && pem);
	snprintf(path, sizeof(path), "%s/audit", dir);
	assert_int_equal(audit_open(path, &s.audit), 0);
	assert_int_equal(access_parse(rules, &s.access), 0);
	base64_encode(text, sizeof(text) - 1, policy);
	assert_int_equal(policy_binding(policy, dek, binding), 0);
	assert_int_equal(ec_kek_new(kas, &kek, &ephemeral), 0);
	assert_int_equal(aead_seal(kek, dek->b, SECRET_LEN, wrapped), 0);
	base64_encode(wrapped, sizeof(wrapped), key);
	assert_int_equal(kas_add_local(s.kas, "e1", NULL, kas), 0);
	object = json_pack("{s:s,s:s,s:s,s:s,s:s}", "type", "ec-wrapped", "kid", "e1", "wrappedKey", key, "policyBinding", binding,
			   "ephemeralPublicKey", ephemeral);
	wrapper = json_pack("{s:s,s:[{s:{s:s,s:s},s:[{s:s,s:O},{s:s,s:O}]}]}", "clientPublicKey", pem, "requests", "policy", "id", "p",
			    "body", policy, "keyAccessObjects", "keyAccessObjectId", "1", "keyAccessObject", object, "keyAccessObjectId",
			    "2", "keyAccessObject", object);
	body = json_dumps(wrapper, 0);
	json_decref(wrapper);
	wrapper = json_pack("{s:s,s:I}", "requestBody", body, "exp", (json_int_t)time(NULL) + 60);
	assert_int_equal(jws_sign(client, JOSE_ES256, NULL, wrapper, &srt), 0);
	assert_true(asprintf(&request, "{\"signedRequestToken\":\"%s\"}", srt) > 0);

	assert_int_equal(serve_begin(&s, &c), 0); /* without the issuer's keys nobody is asked for a token */
	c.token = &token;
	fail_size = strlen(policy) + 1; /* what the policy is decoded into */
	serve_finish(&s, &c, request, strlen(request));
	assert_int_equal(fail_size, 0);
	assert_int_equal(c.status, 200);
	answer = json_loadb(c.body.p, c.body.len, 0, NULL);
	results = json_object_get(json_array_get(json_object_get(answer, "responses"), 0), "results");
	assert_int_equal(json_array_size(results), 2);
	assert_non_null(strstr(json_string_value(json_object_get(json_array_get(results, 0), "error")), "Internal"));
	assert_string_equal(json_string_value(json_object_get(json_array_get(results, 1), "status")), "fail");
	assert_non_null(strstr(json_string_value(json_object_get(json_array_get(results, 1), "error")), "forbidden"));

	json_decref(answer);
	call_free(&c);
	json_decref(wrapper);
	json_decref(object);
	json_decref(rules);
	json_decref(claims);
	free(request);
	free(srt);
	free(body);
	free(pem);
	free(ephemeral);
	secret_free(kek);
	secret_free(dek);
	EVP_PKEY_free(client);
	kas_free(s.kas);
	limits_free(s.limits);
	wrappers_free(s.sessions);
	audit_free(s.audit);
	access_free(s.access);
	assert_true(temp_dir_remove(dir));
}

/* --- replays --- */

static char *proof_make(EVP_PKEY *key, const char *jti, int64_t now)
{
	json_t *header = json_pack("{s:s,s:o}", "typ", "dpop+jwt", "jwk", jwk_from_key(key)), *claims;
	uint8_t hash[32];
	char *ath, *text = NULL;

	assert_int_equal(sha256(&(struct part){TOKEN, strlen(TOKEN)}, 1, hash), 0);
	ath = base64url_encode(hash, sizeof(hash));
	claims = json_pack("{s:s,s:s,s:s,s:I,s:s}", "jti", jti, "htm", "POST", "htu", URL "/x", "iat", (json_int_t)now, "ath", ath);
	assert_int_equal(jws_sign(key, JOSE_ES256, header, claims, &text), 0);
	json_decref(header);
	json_decref(claims);
	free(ath);
	return text;
}

static int use(struct replays *r, const char *proof, int64_t now)
{
	const struct dpop_request q = {"POST", URL, "/x", TOKEN, now, NULL};
	char jkt[JWK_THUMBPRINT_LEN + 1];
	json_t *jwk = NULL;
	int err = dpop_check(r, &q, proof, strlen(proof), &jwk, jkt);

	json_decref(jwk);
	return err;
}

/* Who has seen a proof cannot make some of his own that push it out of the server's memory, and use it again. */
static void test_replay_pushed_out(void **state)
{
	struct replays *r = replays_new();
	EVP_PKEY *key = pubkey_new_ec(), *other = pubkey_new_ec();
	json_t *jwk = jwk_from_key(key), *jwk2 = jwk_from_key(other);
	char jkt[JWK_THUMBPRINT_LEN + 1], jkt2[JWK_THUMBPRINT_LEN + 1], jti[24];
	int64_t now = 1000000000;
	uint8_t want[32], hash[32];
	char *seen = proof_make(key, "once", now);
	size_t made = 0;

	assert_non_null(r);
	assert_int_equal(jwk_thumbprint(jwk, jkt), 0);
	assert_int_equal(jwk_thumbprint(jwk2, jkt2), 0);
	assert_int_equal(use(r, seen, now), 0);
	assert_int_equal(sha256((struct part[]){{jkt, JWK_THUMBPRINT_LEN}, {"once", 4}}, 2, want), 0);
	for (unsigned i = 0; made < 8; i++) { /* as many as a set has places, twice over */
		snprintf(jti, sizeof(jti), "%u", i);
		assert_int_equal(sha256((struct part[]){{jkt2, JWK_THUMBPRINT_LEN}, {jti, strlen(jti)}}, 2, hash), 0);
		if (memcmp(hash, want, 2) == 0) {
			char *p = proof_make(other, jti, now + 1);

			assert_int_equal(use(r, p, now + 1), 0);
			free(p);
			made++;
		}
	}
	assert_int_equal(use(r, seen, now + 1), -EACCES);
	free(seen);
	json_decref(jwk);
	json_decref(jwk2);
	EVP_PKEY_free(key);
	EVP_PKEY_free(other);
	replays_free(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_judge_no_memory),
	    cmocka_unit_test(test_replay_pushed_out),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
