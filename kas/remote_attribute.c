/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the platform says of attributes: whether it knows them, since a file with one that it does not know opens for nobody, and which KAS
 * keys are mapped to them.
 *
 * GetAttributeValuesByFqns tells both, but newer platforms want to be asked by GetKeyMappingsByFqns for the keys; older ones have no such
 * call.  Sources: service policy.attributes of the platform's protocol, v0.42.0, and the Go SDK's order of precedence.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>

#include "remote_int.h"
#include "report.h"

#define SERVICE "/policy.attributes.AttributesService/"
#define ANSWER_ROOM ((size_t)4 << 20) /* a definition comes with all its values, each with its keys */
#define KEYS_MAX 8                    /* of one value */
#define ANY_OF "ATTRIBUTE_RULE_TYPE_ENUM_ANY_OF"

static const struct {
	const char *simple, *cached, *algorithm; /* as a mapped key, as a grant's key, as we call it */
} algorithms[] = {
    {"ALGORITHM_EC_P256", "KAS_PUBLIC_KEY_ALG_ENUM_EC_SECP256R1", "ec:secp256r1"},
    {"ALGORITHM_EC_P384", "KAS_PUBLIC_KEY_ALG_ENUM_EC_SECP384R1", "ec:secp384r1"},
    {"ALGORITHM_EC_P521", "KAS_PUBLIC_KEY_ALG_ENUM_EC_SECP521R1", "ec:secp521r1"},
    {"ALGORITHM_RSA_2048", "KAS_PUBLIC_KEY_ALG_ENUM_RSA_2048", "rsa:2048"},
    {"ALGORITHM_RSA_4096", "KAS_PUBLIC_KEY_ALG_ENUM_RSA_4096", "rsa:4096"},
};

/* --- keys of a value --- */

static const char *text_of(const json_t *o, const char *name)
{
	const char *s = json_string_value(json_object_get(o, name));

	return s ? s : "";
}

/* Which of our names; as good as @rank says: elliptic curves first, NULL: none that we can use */
static const char *algorithm_of(const char *text, size_t *ret_rank)
{
	for (size_t i = 0; i < ARRAY_SIZE(algorithms); i++)
		if (strcmp(text, algorithms[i].simple) == 0 || strcmp(text, algorithms[i].cached) == 0) {
			*ret_rank = i;
			return algorithms[i].algorithm;
		}
	return NULL;
}

struct found { /* the keys of one value: of each KAS one */
	const struct remote *r;
	struct remote_mapped keys[KEYS_MAX];
	size_t ranks[KEYS_MAX], n;
	char odd[200]; /* one of a kind that we cannot use */
};

/* Several keys of one KAS are the same right in several algorithms: the best of them counts. */
static int found_add(struct found *f, const char *url, const json_t *key, const char *name_of_algorithm)
{
	size_t rank = SIZE_MAX, at = 0;
	const char *algorithm = key ? algorithm_of(text_of(key, name_of_algorithm), &rank) : NULL;
	struct remote_mapped m = {0};
	int err = 0;

	if (key && !algorithm) {
		snprintf(f->odd, sizeof(f->odd), "%.100s of %.60s", text_of(key, name_of_algorithm), url);
		return 0;
	}
	while (at < f->n && strcmp(f->keys[at].url, url))
		at++;
	if (at == KEYS_MAX)
		return fail(-ENOSPC, "%s maps keys of more than %d KASes to one attribute value", f->r->name, KEYS_MAX);
	if (at < f->n && f->ranks[at] <= rank)
		return 0;
	m.url = strdup(url);
	m.algorithm = algorithm ? strdup(algorithm) : NULL;
	if (!m.url || (algorithm && !m.algorithm))
		err = -ENOMEM;
	else if (key)
		err = remote_key_take(f->r, key, "pem", algorithm, &m.pem, &m.kid);
	if (err) {
		remote_mapped_clear(&m);
		return err;
	}
	if (at < f->n)
		remote_mapped_clear(&f->keys[at]);
	f->n = MAX(f->n, at + 1);
	f->keys[at] = m;
	f->ranks[at] = rank;
	return 0;
}

/* [{"kasUri","publicKey":{"algorithm","kid","pem"}}] */
static int found_keys(struct found *f, const json_t *list)
{
	const json_t *each;
	size_t i;
	int err = 0;

	json_array_foreach(list, i, each) if (!err && *text_of(each, "kasUri")) err =
	    found_add(f, text_of(each, "kasUri"), json_object_get(each, "publicKey"), "algorithm");
	return err;
}

/* Older: [{"uri","kasKeys":as above,"publicKey":{"cached":{"keys":[{"alg","kid","pem"}]}}}], or the URL alone */
static int found_grants(struct found *f, const json_t *list)
{
	const json_t *each, *key;
	size_t i, k;
	int err = 0;

	json_array_foreach(list, i, each)
	{
		const char *url = text_of(each, "uri");
		const json_t *keys = json_object_get(json_object_get(json_object_get(each, "publicKey"), "cached"), "keys");

		if (err || !*url)
			continue;
		if (json_array_size(json_object_get(each, "kasKeys")))
			err = found_keys(f, json_object_get(each, "kasKeys"));
		else if (!json_array_size(keys))
			err = found_add(f, url, NULL, "");
		else
			json_array_foreach(keys, k, key) err = err ? err : found_add(f, url, key, "alg");
	}
	return err;
}

/* Of a value, else its definition, else the namespace */
static int found_at(struct found *f, const json_t *level)
{
	int err = found_keys(f, json_object_get(level, "kasKeys"));

	return err || f->n || *f->odd ? err : found_grants(f, json_object_get(level, "grants"));
}

static int found_value(struct found *f, const json_t *mapped, const json_t *pair)
{
	const json_t *definition = json_object_get(pair, "attribute");
	const json_t *levels[] = {json_object_get(pair, "value"), definition, json_object_get(definition, "namespace")};
	int err = found_keys(f, json_object_get(mapped, "keys"));

	for (size_t i = 0; i < ARRAY_SIZE(levels) && !err && !f->n && !*f->odd; i++)
		err = found_at(f, levels[i]);
	if (!err && !f->n && *f->odd)
		err = fail(-ENOTSUP, "%s wants files with these attributes made for a key of a kind that is not supported (%s)", f->r->name,
			   f->odd);
	return err;
}

static int mapping_take(const struct remote *r, const char *fqn, const json_t *mapped, const json_t *pair, struct mapping *ret)
{
	const char *rule = text_of(mapped, "rule"), *value = strstr(fqn, "/value/");
	struct found *f = calloc(1, sizeof(*f));
	int err = f ? 0 : -ENOMEM;

	if (!err) {
		f->r = r;
		err = found_value(f, mapped, pair);
	}
	ret->definition = fqn;
	ret->definition_len = value ? (size_t)(value - fqn) : strlen(fqn);
	ret->any = strcmp(*rule ? rule : text_of(json_object_get(pair, "attribute"), "rule"), ANY_OF) == 0;
	if (!err && f->n) {
		ret->keys = calloc(f->n, sizeof(*ret->keys));
		err = ret->keys ? 0 : -ENOMEM;
	}
	for (size_t i = 0; f && i < f->n; i++)
		if (err)
			remote_mapped_clear(&f->keys[i]);
		else
			ret->keys[ret->n++] = f->keys[i];
	free(f);
	return err;
}

/* --- asking --- */

/* The platform spells all of them in lower case, in its answers too. */
static json_t *fqns_make(const char *const *fqns, size_t n)
{
	json_t *list = json_array();

	for (size_t i = 0; i < n; i++) {
		CLEANUP_FREE char *low = strdup(fqns[i]);

		for (char *p = low; p && *p; p++)
			*p = (char)tolower((unsigned char)*p);
		json_array_append_new(list, low ? json_string(low) : NULL);
	}
	if (json_array_size(list) == n)
		return list;
	json_decref(list);
	return NULL;
}

/* *@ret: the map of the answer, owned; NULL: the platform has no such call */
static int ask(struct remote *r, const char *call, json_t *fqns, const char *member, bool may_lack, json_t **ret)
{
	CLEANUP_ANSWER struct http_answer a = {0};
	json_t *j = json_pack("{s:O, s:{}}", "fqns", fqns, "withValue"); /* which old platforms demand, and new ones skip */
	CLEANUP_FREE char *body = j ? json_dumps(j, JSON_COMPACT) : NULL;
	char error[160];
	int err = body ? 0 : -ENOMEM;

	json_decref(j);
	*ret = NULL;
	if (!err)
		err = remote_exchange(r,
				      &(struct exchange){.connect = call,
							 .body = body,
							 .token = true,
							 .may_lack = may_lack,
							 .answer_max = ANSWER_ROOM,
							 .deadline = http_now() + r->total_ms},
				      &a);
	if (err || (may_lack && remote_lacks(&a)))
		return err;
	connect_error(&a, error, sizeof(error));
	if (a.status != 200)
		return fail(strncmp(error, "not_found", 9) ? -EIO : -ENOENT, "%s: %s", r->name, error);
	j = json_loadb(a.body, a.len, JSON_REJECT_DUPLICATES, NULL);
	if (!json_is_object(j))
		err = fail(-EPROTO, "%s: an answer that is not JSON", r->name);
	else
		*ret = json_incref(json_object_get(j, member));
	json_decref(j);
	return err;
}

/* A value that is not there yet is known too if its definition says that keys may go by that (allowTraversal). */
static int check_known(const struct remote *r, const json_t *pairs, const json_t *fqns)
{
	const json_t *each;
	size_t i;

	json_array_foreach(fqns, i, each)
	{
		const json_t *pair = json_object_get(pairs, json_string_value(each)), *definition = json_object_get(pair, "attribute");
		const json_t *value = json_object_get(pair, "value");

		if (!pair || (!value && !json_is_true(json_object_get(definition, "allowTraversal"))))
			return fail(-ENOENT, "%s knows no attribute %.200s", r->name, json_string_value(each));
		if (json_is_false(json_object_get(value, "active")) || json_is_false(json_object_get(definition, "active")))
			return fail(-ENOENT, "%s has taken the attribute %.200s out of use", r->name, json_string_value(each));
	}
	return 0;
}

static int plan_of(const struct remote *r, const json_t *fqns, const json_t *mapped, const json_t *pairs, struct remote_mapped **ret,
		   size_t *ret_n)
{
	struct mapping m[REMOTE_ATTRIBUTES_MAX] = {{0}};
	const json_t *each;
	int err = 0;
	size_t i;

	json_array_foreach(fqns, i, each)
	{
		const char *fqn = json_string_value(each);

		if (!err)
			err = mapping_take(r, fqn, json_object_get(mapped, fqn), json_object_get(pairs, fqn), &m[i]);
	}
	if (!err)
		err = mappings_plan(m, json_array_size(fqns), ret, ret_n);
	for (i = 0; i < ARRAY_SIZE(m); i++)
		remote_mapped_free(m[i].keys, m[i].n);
	return err;
}

int remote_mappings(struct remote *r, const char *const *fqns, size_t n, struct remote_mapped **ret, size_t *ret_n)
{
	json_t *list, *pairs = NULL, *mapped = NULL;
	int err = 0;

	if (!r->oidc)
		return fail(-EACCES, "there is no login for %s", r->name);
	if (n > REMOTE_ATTRIBUTES_MAX)
		return fail(-ENOSPC, "more than %d attributes", REMOTE_ATTRIBUTES_MAX);
	list = fqns_make(fqns, n);
	if (!list)
		return -ENOMEM;
	err = ask(r, SERVICE "GetAttributeValuesByFqns", list, "fqnAttributeValues", false, &pairs);
	if (!err)
		err = check_known(r, pairs, list);
	if (!err)
		err = ask(r, SERVICE "GetKeyMappingsByFqns", list, "fqnKeyMappings", true, &mapped);
	if (!err)
		err = plan_of(r, list, mapped, pairs, ret, ret_n);
	json_decref(mapped);
	json_decref(pairs);
	json_decref(list);
	return err;
}
