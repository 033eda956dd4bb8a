/* SPDX-License-Identifier: Apache-2.0 */
/* Access tokens as they come, and proofs that they are ours (RFC 9449). */
#include "oidc_int.h"

#include <errno.h>
#include <stdio.h>

#include "aead.h"
#include "jose.h"
#include "report.h"
#include "secret.h"

#define LIFE_MAX ((int64_t)7 * 86400) /* seconds; what an issuer says beyond that is not relied on */
#define LIFE_UNKNOWN 60
#define AHEAD_MS 30000

static int proof_claims(json_t *claims, const char *method, const char *htu, const char *nonce, const char *token, int64_t skew)
{
	CLEANUP_FREE char *jti = NULL, *ath = NULL;
	uint8_t id[16], hash[32];
	int err = random_bytes(id, sizeof(id));

	if (!err && token)
		err = sha256(&(struct part){token, strlen(token)}, 1, hash);
	if (err)
		return err;
	jti = base64url_encode(id, sizeof(id));
	ath = token ? base64url_encode(hash, sizeof(hash)) : NULL;
	if (!jti || (token && !ath) || json_object_set_new(claims, "jti", json_string(jti)) ||
	    json_object_set_new(claims, "htm", json_string(method)) || json_object_set_new(claims, "htu", json_string(htu)) ||
	    json_object_set_new(claims, "iat", json_integer(time(NULL) + skew - IAT_BACK)) ||
	    (ath && json_object_set_new(claims, "ath", json_string(ath))) ||
	    (*nonce && json_object_set_new(claims, "nonce", json_string(nonce))))
		return -ENOMEM;
	return 0;
}

int dpop_proof(EVP_PKEY *key, const char *method, const char *htu, const char *nonce, const char *token, int64_t skew, char **ret)
{
	json_t *jwk = jwk_from_key(key), *header = jwk ? json_pack("{s:s,s:o}", "typ", "dpop+jwt", "jwk", jwk) : NULL,
	       *claims = json_object();
	CLEANUP_FREE char *jws = NULL;
	int err = header && claims ? proof_claims(claims, method, htu, nonce, token, skew) : -ENOMEM;

	if (!err)
		err = jws_sign(key, jose_alg_of(key), header, claims, &jws);
	if (!err && asprintf(ret, "DPoP: %s", jws) < 0)
		err = -ENOMEM;
	json_decref(header);
	json_decref(claims);
	return err;
}

void token_free(struct token *t)
{
	wipe_free(&t->access);
	wipe_free(&t->refresh);
}

static const char *member(const json_t *object, const char *name)
{
	const char *s = json_string_value(json_object_get(object, name));

	return s ? s : "";
}

static bool audience_has(const json_t *aud, const char *want)
{
	const json_t *each;
	size_t i;

	json_array_foreach(aud, i, each) if (json_is_string(each) && strcmp(json_string_value(each), want) == 0) return true;
	return json_is_string(aud) && strcmp(json_string_value(aud), want) == 0;
}

/* cnf.jkt: is the token bound, and to us? */
static int binding_check(const json_t *claims, EVP_PKEY *key, bool *bound)
{
	const char *jkt = member(json_object_get(claims, "cnf"), "jkt");
	char ours[JWK_THUMBPRINT_LEN + 1] = "";
	json_t *jwk;
	int err;

	if (!*jkt)
		return 0;
	jwk = jwk_from_key(key);
	err = jwk ? jwk_thumbprint(jwk, ours) : -ENOMEM;
	json_decref(jwk);
	if (err)
		return err;
	*bound = true;
	return strcmp(jkt, ours) ? fail(-EACCES, "the access token is bound to somebody else's key") : 0;
}

/* What a JWT says of itself.  Its signature is the KAS's business; this keeps a token away from where it does not belong.
 * @life: seconds it has left, unless a claim tells better */
static int claims_check(const struct issuer *is, const json_t *claims, EVP_PKEY *key, bool *bound, int64_t *life)
{
	const json_t *exp = json_object_get(claims, "exp"), *aud = json_object_get(claims, "aud");

	if (*member(claims, "iss") && *is->name && strcmp(member(claims, "iss"), is->name))
		return fail(-EACCES, "the access token is of another issuer (%.150s, not %.150s)", member(claims, "iss"), is->name);
	if (is->audience && aud && !audience_has(aud, is->audience))
		return fail(-EACCES, "the access token is not for the audience %.150s", is->audience);
	if (json_is_integer(exp))
		*life = MIN(*life, (int64_t)MAX(MIN(json_integer_value(exp), (json_int_t)1 << 40), 0) - (time(NULL) + is->skew));
	if (*life <= 0)
		return fail(-EACCES, "the access token expired %lld s ago", (long long)-*life);
	return binding_check(claims, key, bound);
}

static bool text_ok(const char *s)
{
	size_t len = strlen(s);

	for (size_t i = 0; i < len; i++)
		if (s[i] <= ' ' || s[i] > '~')
			return false;
	return len && len <= TOKEN_MAX;
}

static int token_make(const struct issuer *is, const char *text, int64_t life, EVP_PKEY *key, struct token *ret)
{
	CLEANUP_JWS struct jws j = {0};
	struct token t = {.bound = ret->bound};
	int err = 0;

	if (!text_ok(text))
		return fail(-EPROTO, "an access token that is not printable text of at most 16 KiB");
	fail_clear();
	if (jws_parse(text, strlen(text), &j) == 0) /* else it is opaque, which is fine */
		err = claims_check(is, j.claims, key, &t.bound, &life);
	if (err)
		return err;
	t.good_until = http_now() + life * 1000;
	t.fresh_until = t.good_until - MIN(AHEAD_MS, life * 250);
	t.access = strdup(text);
	if (!t.access)
		return -ENOMEM;
	*ret = t;
	return 0;
}

int token_from_answer(const struct issuer *is, const json_t *answer, EVP_PKEY *key, struct token *ret)
{
	const json_t *expires = json_object_get(answer, "expires_in");
	const char *type = member(answer, "token_type"), *refresh = member(answer, "refresh_token");
	int64_t life = json_is_integer(expires) ? MAX(0, MIN(json_integer_value(expires), LIFE_MAX)) : LIFE_UNKNOWN;
	CLEANUP_TOKEN struct token t = {.bound = strcasecmp(type, "DPoP") == 0};
	int err;

	if (strcasecmp(type, "DPoP") && strcasecmp(type, "Bearer"))
		return fail(-EPROTO, "%s: a token of the unknown type \"%.40s\"", is->name, type);
	err = token_make(is, member(answer, "access_token"), life, key, &t);
	if (err)
		return err;
	if (*refresh && (!text_ok(refresh) || !(t.refresh = strdup(refresh))))
		return text_ok(refresh) ? -ENOMEM : fail(-EPROTO, "%s: a refresh token that is not printable text", is->name);
	*ret = t;
	t = (struct token){0};
	return 0;
}

int token_from_text(const struct issuer *is, const char *text, EVP_PKEY *key, struct token *ret)
{
	struct token t = {0};
	int err = token_make(is, text, LIFE_MAX, key, &t);

	if (!err)
		*ret = t;
	return err;
}
