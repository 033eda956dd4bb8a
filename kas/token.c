/* SPDX-License-Identifier: Apache-2.0 */
/* Access tokens: jwks.h.  Checking a signature costs more than a rewrap does, so a token that was good is remembered by its hash. */
#include <errno.h>
#include <stdatomic.h>
#include <strings.h>

#include "aead.h"
#include "jwks_i.h"
#include "report.h"

void token_put(struct token *t)
{
	if (!t || atomic_fetch_sub(&t->refs, 1) != 1)
		return;
	json_decref(t->claims);
	free(t);
}

static struct token *token_ref(struct token *t)
{
	atomic_fetch_add(&t->refs, 1);
	return t;
}

static struct token *cache_get(struct jwks *j, const uint8_t *hash)
{
	struct token **set = j->tokens[hash[0] % TOKEN_SETS], *found = NULL;

	mutex_lock(&j->cache_lock);
	for (size_t i = 0; i < TOKEN_WAYS && !found; i++)
		if (set[i] && set[i]->generation == j->generation && memcmp(set[i]->hash, hash, 32) == 0)
			found = token_ref(set[i]);
	mutex_unlock(&j->cache_lock);
	return found;
}

static void cache_put(struct jwks *j, struct token *t)
{
	size_t set = t->hash[0] % TOKEN_SETS;
	struct token *old;

	mutex_lock(&j->cache_lock);
	old = j->tokens[set][j->next[set] % TOKEN_WAYS];
	j->tokens[set][j->next[set]++ % TOKEN_WAYS] = token_ref(t);
	mutex_unlock(&j->cache_lock);
	token_put(old);
}

void tokens_drop(struct jwks *j)
{
	for (size_t s = 0; s < TOKEN_SETS; s++)
		for (size_t i = 0; i < TOKEN_WAYS; i++) {
			struct token *old;

			mutex_lock(&j->cache_lock);
			old = j->tokens[s][i];
			j->tokens[s][i] = NULL;
			mutex_unlock(&j->cache_lock);
			token_put(old);
		}
}

static bool audience_is(const json_t *aud, const char *want)
{
	const char *s = json_string_value(aud);
	json_t *each;
	size_t i;

	if (s)
		return strcmp(s, want) == 0;
	json_array_foreach((json_t *)aud, i, each) if (json_is_string(each) && strcmp(json_string_value(each), want) == 0) return true;
	return false;
}

/* A point in time, if it is there; @ret is untouched if not. */
static int time_claim(const json_t *claims, const char *name, int64_t *ret)
{
	const json_t *v = json_object_get(claims, name);
	double d = json_number_value(v);

	if (!v)
		return 0;
	if (!json_is_number(v) || !(d >= 0) || d > 1e12)
		return fail(-EACCES, "the token's \"%s\" is not a time", name);
	*ret = (int64_t)d;
	return 0;
}

/* The key it is bound to.  Another kind of binding than the one we can check must not count as none. */
static int check_binding(const json_t *claims, char jkt[static JWK_THUMBPRINT_LEN + 1])
{
	const json_t *cnf = json_object_get(claims, "cnf"), *v = json_object_get(cnf, "jkt");

	if (!cnf || json_is_null(cnf))
		return 0;
	if (json_string_length(v) != JWK_THUMBPRINT_LEN || json_object_size(cnf) != 1)
		return fail(-EACCES, "the token is bound (\"cnf\") in a way that is not supported: only \"jkt\" is");
	memcpy(jkt, json_string_value(v), JWK_THUMBPRINT_LEN + 1);
	return 0;
}

static int check_claims(const struct jwks *j, const json_t *claims, int64_t now, int64_t *ret_exp)
{
	const char *iss = json_string_value(json_object_get(claims, "iss"));
	int64_t exp = -1, nbf = 0, iat = 0;

	if (!iss || strcmp(iss, j->issuer))
		return fail(-EACCES, "the token is of the issuer \"%.100s\"", iss ? iss : "");
	if (!audience_is(json_object_get(claims, "aud"), j->audience))
		return fail(-EACCES, "the token is not for the audience %.100s", j->audience);
	if (time_claim(claims, "exp", &exp) || time_claim(claims, "nbf", &nbf) || time_claim(claims, "iat", &iat))
		return -EACCES;
	if (exp < 0)
		return fail(-EACCES, "the token has no expiry");
	if (now >= exp + TOKEN_SKEW)
		return fail(-EACCES, "the token has expired %lld s ago", (long long)(now - exp));
	if (nbf > now + TOKEN_SKEW || iat > now + TOKEN_SKEW)
		return fail(-EACCES, "the token is not valid yet: one of the clocks is wrong");
	*ret_exp = exp;
	return 0;
}

/* RFC 9068, or what most issuers write.  A proof or a logout token must not pass for one. */
static bool type_fits(const json_t *header)
{
	const char *typ = json_string_value(json_object_get(header, "typ"));

	if (typ && strncasecmp(typ, "application/", 12) == 0)
		typ += 12;
	return !typ || strcasecmp(typ, "JWT") == 0 || strcasecmp(typ, "at+jwt") == 0;
}

static int check_new(struct jwks *j, const char *text, size_t len, int64_t now, struct token *t)
{
	CLEANUP_JWS struct jws jws = {0};
	const char *kid;
	json_t *key;
	int err = jws_parse(text, len, &jws);

	if (err)
		return err == -ENOMEM ? err : -EACCES;
	if (!type_fits(jws.header))
		return fail(-EACCES, "not an access token: its \"typ\" is another");
	/* before a stranger's token makes us ask anybody: is it meant for us at all? */
	err = check_claims(j, jws.claims, now, &t->exp);
	if (!err)
		err = check_binding(jws.claims, t->jkt);
	if (err)
		return err;
	kid = json_string_value(json_object_get(jws.header, "kid"));
	key = jwks_find(j, kid, &t->generation);
	if (!key) {
		err = jwks_want(j);
		return err == -EAGAIN ? err
				      : fail(err,
					     err == -EIO ? "the issuer's keys cannot be had (kid \"%.80s\")"
							 : "the token's key (kid \"%.80s\") is none of the issuer's",
					     kid ? kid : "");
	}
	err = jws_verify(&jws, key, j->algs);
	json_decref(key);
	if (err)
		return err == -ENOMEM ? err : -EACCES;
	t->claims = json_incref(jws.claims);
	return 0;
}

static const char *claim_text(const json_t *claims, const char *name)
{
	const char *s = json_string_value(json_object_get(claims, name));

	return s && *s ? s : NULL;
}

int token_check(struct jwks *j, const char *text, size_t len, int64_t now, struct token **ret)
{
	CLEANUP_TOKEN struct token *t = NULL;
	uint8_t hash[32];
	int err;

	if (len > TOKEN_MAX)
		return fail(-EACCES, "a token of %zu bytes: %zu are taken", len, TOKEN_MAX);
	err = sha256(&(struct part){text, len}, 1, hash);
	if (err)
		return err;
	t = cache_get(j, hash);
	if (t && now < t->exp + TOKEN_SKEW) {
		*ret = STEAL(t);
		return 0;
	}
	token_put(t);
	t = calloc(1, sizeof(*t));
	if (!t)
		return -ENOMEM;
	t->refs = 1;
	memcpy(t->hash, hash, sizeof(hash));
	err = check_new(j, text, len, now, t);
	if (err)
		return err;
	t->client = claim_text(t->claims, "client_id");
	t->client = t->client ? t->client : claim_text(t->claims, "azp");
	t->subject = claim_text(t->claims, "sub");
	t->subject = t->subject ? t->subject : (t->client ? t->client : "");
	cache_put(j, t);
	*ret = STEAL(t);
	return 0;
}
