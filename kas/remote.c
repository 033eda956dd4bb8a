/* SPDX-License-Identifier: Apache-2.0 */
#include "remote.h"

#include <errno.h>
#include <stdio.h>

#include "remote_int.h"
#include "report.h"

#define TOTAL_MS 10000
#define CONNECT_PUBLIC_KEY "/kas.AccessService/PublicKey"
#define WELL_KNOWN "/.well-known/opentdf-configuration"
#define KID_MAX 200

static const struct kind {
	const char *algorithm, *group;
	int bits;
} kinds[] = {
    {"ec:secp256r1", "prime256v1", 0}, {"ec:secp384r1", "secp384r1", 0}, {"ec:secp521r1", "secp521r1", 0},
    {"rsa:2048", NULL, 2048},          {"rsa:4096", NULL, 4096},
};

static int login_new(const struct remote_config *c, struct remote *r)
{
	struct oidc_config o = {c->issuer, c->audience, c->client_id, c->secret_file, c->token_file, c->session_file, c->dpop_required};

	if (!c->secret_file && !c->token_file && !c->session_file)
		return 0;
	return oidc_new(&o, r->http, &r->oidc);
}

int remote_new(const struct remote_config *c, struct remote **ret)
{
	struct http_config h = {.ca_file = c->ca_file, .spki_pin = c->spki_pin, .allow = c->allow, .idle_ms = c->idle_ms};
	struct remote *r = calloc(1, sizeof(*r));
	int err;

	if (!r)
		return -ENOMEM;
	mutex_init(&r->lock);
	r->total_ms = c->total_ms ? c->total_ms : TOTAL_MS;
	r->session_rsa = c->session_rsa;
	r->name = strdup(c->url);
	err = r->name ? url_parse(c->url, false, &r->url) : -ENOMEM;
	if (!err)
		err = http_new(&h, &r->http);
	if (!err)
		err = login_new(c, r);
	if (err)
		remote_free(r);
	else
		*ret = r;
	return err;
}

void remote_free(struct remote *r)
{
	if (!r)
		return;
	oidc_free(r->oidc);
	http_free(r->http);
	EVP_PKEY_free(r->rsa);
	free(r->name);
	mutex_destroy(&r->lock);
	free(r);
}

bool remote_serves(const struct remote *r, const char *url)
{
	struct url u;

	return strcmp(url, r->name) == 0 || (url_parse(url, false, &u) == 0 && url_same_origin(&u, &r->url));
}

const char *remote_url(const struct remote *r)
{
	return r->name;
}

void remote_stats(struct remote *r, struct remote_stats *ret)
{
	int64_t now = http_now();

	mutex_lock(&r->lock);
	*ret = r->stats;
	ret->state = r->breaker.state;
	ret->retry_in_ms = ret->state == REMOTE_OPEN && r->breaker.open_until > now ? (unsigned)(r->breaker.open_until - now) : 0;
	mutex_unlock(&r->lock);
	ret->token_requests = r->oidc ? oidc_requests(r->oidc) : 0;
}

/* --- public calls --- */

static int public_call(struct remote *r, const struct exchange *x, struct http_answer *ret)
{
	int err = breaker_enter(r);

	if (err)
		return err;
	err = remote_exchange(r, x, ret);
	if (err == -ENOMEM)
		breaker_cancel(r);
	else
		breaker_leave(r, err);
	return err;
}

static bool key_is(EVP_PKEY *key, const struct kind *k)
{
	char group[32] = "";

	if (!k->group)
		return pubkey_type(key) == WRAP_RSA && EVP_PKEY_get_bits(key) == k->bits;
	return pubkey_type(key) == WRAP_EC && EVP_PKEY_get_group_name(key, group, sizeof(group), NULL) == 1 && strcmp(group, k->group) == 0;
}

static bool kid_ok(const char *kid)
{
	size_t len = strlen(kid);

	for (size_t i = 0; i < len; i++)
		if (kid[i] <= ' ' || kid[i] > '~')
			return false;
	return len && len <= KID_MAX;
}

static int key_take(const struct remote *r, const json_t *j, const char *member, const struct kind *k, char **ret_pem, char **ret_kid)
{
	const char *pem = json_string_value(json_object_get(j, member)), *kid = json_string_value(json_object_get(j, "kid"));
	CLEANUP_FREE char *good = NULL, *name = NULL;
	EVP_PKEY *key = NULL;
	int err;

	if (!pem || !kid || !kid_ok(kid))
		return fail(-EPROTO, "%s: an answer without a public key or a printable kid", r->name);
	err = pubkey_public(pem, strlen(pem), &key);
	if (err)
		return fail(-EPROTO, "%s: kid \"%s\": %s", r->name, kid, fail_text());
	if (!key_is(key, k))
		err = fail(-EPROTO, "%s: kid \"%s\" is not a key for %s", r->name, kid, k->algorithm);
	else if (!(good = pubkey_pem(key)) || !(name = strdup(kid)))
		err = -ENOMEM;
	EVP_PKEY_free(key);
	if (err)
		return err;
	*ret_pem = STEAL(good);
	*ret_kid = STEAL(name);
	return 0;
}

static const struct kind *kind_of(const char *algorithm)
{
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (strcmp(kinds[i].algorithm, algorithm) == 0)
			return &kinds[i];
	return NULL;
}

int remote_key_take(const struct remote *r, const json_t *j, const char *member, const char *algorithm, char **ret_pem, char **ret_kid)
{
	const struct kind *k = kind_of(algorithm);

	return k ? key_take(r, j, member, k, ret_pem, ret_kid) : -ENOTSUP;
}

int remote_public_key(struct remote *r, const char *algorithm, char **ret_pem, char **ret_kid)
{
	CLEANUP_ANSWER struct http_answer a = {0};
	const struct kind *k = kind_of(algorithm);
	char body[100], query[64], error[160];
	struct exchange x = {
	    .connect = CONNECT_PUBLIC_KEY, .rest = REST_PUBLIC_KEY, .rest_get = query, .body = body, .answer_max = ANSWER_BASE};
	json_t *j;
	int err;

	if (!k)
		return fail(-EINVAL, "\"%.40s\" is no key algorithm: ec:secp256r1, ec:secp384r1, ec:secp521r1, rsa:2048, rsa:4096",
			    algorithm);
	snprintf(body, sizeof(body), "{\"algorithm\":\"%s\",\"fmt\":\"pkcs8\",\"v\":\"2\"}", algorithm);
	snprintf(query, sizeof(query), "?algorithm=%s&v=2", algorithm);
	x.deadline = http_now() + r->total_ms;
	err = public_call(r, &x, &a);
	if (err)
		return err;
	connect_error(&a, error, sizeof(error));
	if (a.status != 200)
		return fail(-ENOENT, "%s has no key for %s (%s)", r->name, algorithm, error);
	j = json_loadb(a.body, a.len, JSON_REJECT_DUPLICATES, NULL);
	err = key_take(r, j, "publicKey", k, ret_pem, ret_kid);
	json_decref(j);
	return err;
}

int remote_well_known(struct remote *r, char **ret)
{
	CLEANUP_ANSWER struct http_answer a = {0};
	struct exchange x = {.connect = WELL_KNOWN, .get = true, .answer_max = ANSWER_BASE, .deadline = http_now() + r->total_ms};
	json_t *j, *inner;
	char *text = NULL;
	int err = public_call(r, &x, &a);

	if (err)
		return err;
	if (a.status != 200)
		return fail(-ENOENT, "%s publishes no configuration", r->name);
	j = json_loadb(a.body, a.len, JSON_REJECT_DUPLICATES, NULL);
	inner = json_object_get(j, "configuration"); /* older ones wrap it */
	if (json_is_object(j))
		text = json_dumps(json_is_object(inner) ? inner : j, JSON_COMPACT);
	else
		err = fail(-EPROTO, "%s: its configuration is not JSON", r->name);
	json_decref(j);
	if (!err && !text)
		err = -ENOMEM;
	if (!err)
		*ret = text;
	return err;
}

/* Of the configuration's base_key; *@ret_kind is the table's */
static int base_key_take(const struct remote *r, const json_t *base, const struct kind **ret_kind, char **ret_pem, char **ret_kid)
{
	const char *url = json_string_value(json_object_get(base, "kas_uri")), *algorithm;
	const json_t *key = json_object_get(base, "public_key");

	if (!url || !key)
		return fail(-ENOENT, "%s names no base key", r->name);
	if (!remote_serves(r, url))
		return fail(-ENOENT, "the base key that %s names is another KAS's (%.200s)", r->name, url);
	algorithm = json_string_value(json_object_get(key, "algorithm"));
	*ret_kind = algorithm ? kind_of(algorithm) : NULL;
	if (!*ret_kind)
		return fail(-ENOENT, "the base key of %s is of a kind that is not supported (%.40s)", r->name, algorithm ? algorithm : "?");
	return key_take(r, key, "pem", *ret_kind, ret_pem, ret_kid);
}

int remote_base_key(struct remote *r, char **ret_algorithm, char **ret_pem, char **ret_kid)
{
	CLEANUP_FREE char *text = NULL, *pem = NULL, *kid = NULL;
	const struct kind *kind = NULL;
	json_t *j;
	int err = remote_well_known(r, &text);

	if (err)
		return err;
	j = json_loads(text, 0, NULL);
	err = base_key_take(r, json_object_get(j, "base_key"), &kind, &pem, &kid);
	json_decref(j);
	if (err)
		return err;
	*ret_algorithm = strdup(kind->algorithm);
	if (!*ret_algorithm)
		return -ENOMEM;
	*ret_pem = STEAL(pem);
	*ret_kid = STEAL(kid);
	return 0;
}
