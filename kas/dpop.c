/* SPDX-License-Identifier: Apache-2.0 */
#include "dpop.h"

#include <errno.h>
#include <strings.h>

#include "aead.h"
#include "lock.h"
#include "report.h"

#define SETS 65536
#define WAYS 4

struct replays {
	uint8_t salt[16];  /* fixed: else others could choose a "jti" that lands in a proof's set, and push it out */
	struct mutex lock; /* a leaf */
	/* guarded by lock */
	struct seen {
		uint8_t id[12];
		uint32_t until; /* seconds, UTC */
	} e[SETS][WAYS];
};

struct replays *replays_new(void)
{
	struct replays *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	mutex_init(&r->lock);
	if (random_bytes(r->salt, sizeof(r->salt))) {
		replays_free(r);
		return NULL;
	}
	return r;
}

void replays_free(struct replays *r)
{
	if (r)
		mutex_destroy(&r->lock);
	free(r);
}

/* Is it the first time?  Then it is remembered. */
static bool first_use(struct replays *r, const uint8_t hash[static 32], int64_t now, int64_t until)
{
	struct seen *set = r->e[hash[0] | hash[1] << 8], *oldest = set;
	bool first = true;

	mutex_lock(&r->lock);
	for (size_t i = 0; i < WAYS; i++) {
		if (set[i].until >= (uint32_t)now && memcmp(set[i].id, hash + 2, sizeof(set[i].id)) == 0)
			first = false;
		if (set[i].until < oldest->until)
			oldest = &set[i];
	}
	if (first) {
		memcpy(oldest->id, hash + 2, sizeof(oldest->id));
		oldest->until = (uint32_t)until;
	}
	mutex_unlock(&r->lock);
	return first;
}

static bool url_fits(const char *htu, const struct dpop_request *q)
{
	size_t n = strcspn(htu, "?#"), origin = strlen(q->origin), path = strlen(q->path);

	if (*htu != '/') { /* the origin's scheme and host are told apart by nothing but their case */
		if (n < origin || strncasecmp(htu, q->origin, origin))
			return false;
		htu += origin;
		n -= origin;
	}
	return n == path && memcmp(htu, q->path, path) == 0;
}

static int check_claims(const struct dpop_request *q, const json_t *claims)
{
	const char *htm = json_string_value(json_object_get(claims, "htm")), *htu = json_string_value(json_object_get(claims, "htu")),
		   *ath = json_string_value(json_object_get(claims, "ath"));
	const json_t *iat = json_object_get(claims, "iat");
	double at = json_number_value(iat);
	uint8_t hash[32];
	char *want;
	bool fits;
	int err;

	if (!htm || strcmp(htm, q->method))
		return fail(-EACCES, "the DPoP proof is for another method (\"htm\")");
	if (!htu || !url_fits(htu, q))
		return fail(-EACCES, "the DPoP proof is for %.200s, not for %.100s%.100s", htu ? htu : "no URL", q->origin, q->path);
	if (!json_is_number(iat) || !(at > (double)(q->now - DPOP_AGE)) || at > (double)(q->now + DPOP_AHEAD))
		return fail(-EACCES, "the DPoP proof is too old or from the future (\"iat\"): one of the clocks may be wrong");
	err = sha256(&(struct part){q->token, strlen(q->token)}, 1, hash);
	if (err)
		return err;
	want = base64url_encode(hash, sizeof(hash));
	if (!want)
		return -ENOMEM;
	fits = ath && strcmp(ath, want) == 0;
	free(want);
	return fits ? 0 : fail(-EACCES, "the DPoP proof is for another token (\"ath\")");
}

int dpop_nonce(const struct secret *key, int64_t now, char ret[static DPOP_NONCE_LEN + 1])
{
	uint8_t mac[32], at[8];
	char *text;
	int err;

	put_le64(at, (uint64_t)(now / DPOP_NONCE_LIFE));
	err = hmac_sha256(key->b, SECRET_LEN, (struct part[]){{"dpop nonce", 10}, {at, sizeof(at)}}, 2, mac);
	if (err)
		return err;
	text = base64url_encode(mac, 16);
	if (!text)
		return -ENOMEM;
	memcpy(ret, text, DPOP_NONCE_LEN + 1);
	free(text);
	return 0;
}

static int check_nonce(const struct dpop_request *q, const json_t *claims)
{
	const char *nonce = json_string_value(json_object_get(claims, "nonce"));
	char want[DPOP_NONCE_LEN + 1];

	if (!q->nonce_key)
		return 0;
	for (int back = 0; nonce && back < 2; back++) {
		int err = dpop_nonce(q->nonce_key, q->now - back * DPOP_NONCE_LIFE, want);

		if (err)
			return err;
		if (strlen(nonce) == DPOP_NONCE_LEN && equal_ct(nonce, want, DPOP_NONCE_LEN))
			return 0;
	}
	return fail(-ESTALE, "the DPoP proof needs a nonce of this server");
}

int dpop_check(struct replays *r, const struct dpop_request *q, const char *proof, size_t len, json_t **ret_jwk,
	       char ret_jkt[static JWK_THUMBPRINT_LEN + 1])
{
	CLEANUP_JWS struct jws j = {0};
	const char *typ, *jti;
	const json_t *jwk;
	char jkt[JWK_THUMBPRINT_LEN + 1];
	uint8_t hash[32];
	int err = len <= DPOP_MAX ? jws_parse(proof, len, &j) : fail(-EACCES, "a DPoP proof of %zu bytes", len);

	if (err)
		return err == -ENOMEM ? err : -EACCES;
	typ = json_string_value(json_object_get(j.header, "typ"));
	jwk = json_object_get(j.header, "jwk");
	jti = json_string_value(json_object_get(j.claims, "jti"));
	if (!typ || strcasecmp(typ, "dpop+jwt") || !json_is_object(jwk))
		return fail(-EACCES, "not a DPoP proof: \"typ\" or \"jwk\" is wrong");
	if (!jti || !*jti)
		return fail(-EACCES, "the DPoP proof has no \"jti\"");
	err = check_claims(q, j.claims);
	if (!err)
		err = jws_verify(&j, jwk, JOSE_ALL);
	if (!err)
		err = jwk_thumbprint(jwk, jkt);
	if (!err)
		err = sha256((struct part[]){{r->salt, sizeof(r->salt)}, {jkt, JWK_THUMBPRINT_LEN}, {jti, strlen(jti)}}, 3, hash);
	if (!err)
		err = check_nonce(q, j.claims);
	if (!err && !first_use(r, hash, q->now, q->now + DPOP_AGE + DPOP_AHEAD))
		err = fail(-EACCES, "the DPoP proof was used before");
	if (err)
		return err == -ENOMEM || err == -EIO || err == -ESTALE ? err : -EACCES;
	memcpy(ret_jkt, jkt, sizeof(jkt));
	*ret_jwk = json_incref((json_t *)jwk);
	return 0;
}
