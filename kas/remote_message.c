/* SPDX-License-Identifier: Apache-2.0 */
/* What a rewrap asks, and what its answer means. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>

#include "encode.h"
#include "remote_int.h"
#include "report.h"

#define POLICY_MAX ((size_t)1 << 20)
#define FQN_MAX 20 /* attributes in one policy: a platform refuses the whole request for more */

static const char *member(const json_t *object, const char *name)
{
	const char *s = json_string_value(json_object_get(object, name));

	return s ? s : "";
}

/* Text from elsewhere, for people: one line, printable, cut. */
static void text_set(struct remote_item *i, int err, const char *what, const char *text)
{
	snprintf(i->text, sizeof(i->text), "%s%s%s", what, *text ? ": " : "", text);
	for (char *c = i->text; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 127)
			*c = ' ';
	i->err = err;
}

/* --- before --- */

static bool fqn_word(const char *s, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (!isalnum((unsigned char)s[i]) && s[i] != '-' && s[i] != '_' && s[i] != '.' && s[i] != ':')
			return false;
	return len > 0 && len <= 253;
}

/* https://NAMESPACE/attr/NAME/value/VALUE */
static bool fqn_ok(const char *s)
{
	static const char *const between[] = {"", "/attr/", "/value/"};

	s += strncasecmp(s, "https://", 8) == 0 ? 8 : strncasecmp(s, "http://", 7) == 0 ? 7 : 0;
	for (size_t i = 0; i < ARRAY_SIZE(between); i++) {
		size_t len = strlen(between[i]);

		if (strncasecmp(s, between[i], len))
			return false;
		s += len;
		len = strcspn(s, "/");
		if (!fqn_word(s, len))
			return false;
		s += len;
	}
	return !*s;
}

static enum item_kind policy_kind(const char *policy)
{
	size_t len = strnlen(policy, POLICY_MAX), n = 0, i;
	CLEANUP_FREE char *text = malloc(len / 4 * 3 + 3);
	const json_t *attributes, *each;
	enum item_kind kind = ITEM_ALONE;
	json_t *j = NULL;

	if (text && len < POLICY_MAX && base64_decode(policy, len, true, text, len / 4 * 3 + 3, &n) == 0)
		j = json_loadb(text, n, 0, NULL);
	attributes = json_object_get(json_object_get(j, "body"), "dataAttributes");
	if (json_is_object(json_object_get(j, "body")) && json_array_size(attributes) <= FQN_MAX &&
	    (!attributes || json_is_array(attributes) || json_is_null(attributes)))
		kind = json_array_size(attributes) ? ITEM_ATTRIBUTED : ITEM_PLAIN;
	json_array_foreach(attributes, i, each) if (!fqn_ok(member(each, "attribute"))) kind = ITEM_ALONE;
	json_decref(j);
	return kind;
}

enum item_kind item_kind(const struct remote *r, struct remote_item *i, const struct remote_item *like, enum item_kind kind)
{
	const struct key_access *ka = i->ka;

	if (!remote_serves(r, ka->url))
		text_set(i, -ENOTSUP, "the key access object points at another KAS", ka->url);
	else if (!ka->wrapped_len || !*ka->binding)
		text_set(i, -EBADMSG, "the key access object has no wrapped key or no policy binding", "");
	else
		return like && strcmp(like->policy, i->policy) == 0 ? kind : policy_kind(i->policy);
	return ITEM_BAD;
}

static json_t *key_access_json(const struct key_access *ka)
{
	CLEANUP_FREE char *wrapped = malloc(BASE64_LEN(ka->wrapped_len) + 1);
	json_t *j;

	if (!wrapped)
		return NULL;
	base64_encode(ka->wrapped, ka->wrapped_len, wrapped);
	j = json_pack("{s:s,s:s,s:s,s:s,s:s,s:{s:s,s:s}}", "type", ka->type_name, "url", ka->url, "protocol", "kas", "wrappedKey", wrapped,
		      "kid", ka->kid, "policyBinding", "alg", "HS256", "hash", ka->binding);
	if (j && ((*ka->sid && json_object_set_new(j, "sid", json_string(ka->sid))) ||
		  (*ka->ephemeral_pem && json_object_set_new(j, "ephemeralPublicKey", json_string(ka->ephemeral_pem))))) {
		json_decref(j);
		return NULL;
	}
	return j;
}

static int request_add(json_t *list, const struct remote_item *i, size_t number)
{
	json_t *ka = key_access_json(i->ka);
	char id[32];

	snprintf(id, sizeof(id), "policy-%zu", number);
	return ka ? json_array_append_new(list,
					  json_pack("{s:s,s:{s:s,s:s},s:[{s:s,s:o}]}", "algorithm", "", "policy", "id", id, "body",
						    i->policy, "keyAccessObjects", "keyAccessObjectId", "kao-0", "keyAccessObject", ka))
		  : -1;
}

char *request_make(struct remote_item *const *items, size_t n, const char *client_pem, bool rsa)
{
	json_t *list = json_array(), *body;
	char *text = NULL;
	int bad = list == NULL;

	for (size_t i = 0; i < n && !bad; i++)
		bad = request_add(list, items[i], i);
	body = bad ? NULL : json_pack("{s:s,s:O}", "clientPublicKey", client_pem, "requests", list);
	/* servers that know nothing of `requests` yet */
	if (body && n == 1)
		bad = json_object_set_new(body, "keyAccess", key_access_json(items[0]->ka)) ||
		      json_object_set_new(body, "policy", json_string(items[0]->policy)) ||
		      json_object_set_new(body, "algorithm", json_string(rsa ? "rsa:2048" : "ec:secp256r1"));
	if (body && !bad)
		text = json_dumps(body, JSON_COMPACT);
	json_decref(list);
	json_decref(body);
	return text;
}

/* --- after --- */

static bool ends_with(const char *s, const char *tail)
{
	size_t n = strlen(s), t = strlen(tail);

	while (n && isspace((unsigned char)s[n - 1]))
		n--;
	return n >= t && memcmp(s + n - t, tail, t) == 0;
}

enum verdict verdict_of(const char *text)
{
	if (strstr(text, "pdp-denied"))
		return VERDICT_UNDECIDED;
	if (strstr(text, "code = Internal") || strstr(text, "code = Unavailable") || strstr(text, "auth-service-unavailable") ||
	    strstr(text, "context-cancelled") || strncmp(text, "internal", 8) == 0 || strncmp(text, "unavailable", 11) == 0 ||
	    strncmp(text, "resource_exhausted", 18) == 0)
		return VERDICT_OUTAGE;
	if (ends_with(text, "forbidden") || strncmp(text, "permission_denied", 17) == 0)
		return VERDICT_DENIED;
	if (strstr(text, "invalid request"))
		return VERDICT_INVALID;
	return VERDICT_BAD;
}

void item_fail(struct remote_item *i, enum verdict v, const char *text)
{
	switch (v) {
	case VERDICT_DENIED:
		text_set(i, -EACCES, "the KAS refuses", text);
		break;
	case VERDICT_UNDECIDED:
		text_set(i, -EIO, "the KAS could not decide", text);
		break;
	case VERDICT_OUTAGE:
		text_set(i, -EIO, "the KAS is in trouble", text);
		break;
	case VERDICT_NONE:
		text_set(i, -EIO, "the KAS did not answer for this key", text);
		break;
	default: /* "bad request" is what a platform says to a wrong binding or wrapped key; the rest is configuration */
		text_set(i, strstr(text, "bad request") ? -EBADMSG : -EIO, "the KAS does not take the key access object", text);
	}
}

/* The key in the answer -> a share whose binding fits */
static int share_open(const struct remote_item *i, const char *b64, EVP_PKEY *client, const struct secret *kek, struct secret **ret)
{
	struct manifest m = {.policy = (char *)i->policy};
	CLEANUP_SECRET struct secret *share = NULL;
	uint8_t wrapped[WRAPPED_MAX];
	size_t len = 0;
	int err = base64_decode(b64, strlen(b64), true, wrapped, sizeof(wrapped), &len);

	if (err)
		return fail(-EBADMSG, "a key that is not base64");
	if (!kek) {
		err = rsa_unwrap(client, wrapped, len, &share);
	} else {
		share = secret_new();
		if (!share)
			return -ENOMEM;
		err = len == EC_WRAPPED_LEN ? aead_open(kek, wrapped, len, NULL, share->b) : fail(-EBADMSG, "a key of %zu bytes", len);
	}
	if (!err)
		err = manifest_binding(&m, i->ka, share);
	if (!err)
		*ret = STEAL(share);
	return err;
}

/* What a denial was for, where the KAS says so. */
static const char *obligations(const json_t *result)
{
	const json_t *list = json_object_get(json_object_get(result, "metadata"), "X-Required-Obligations");

	return json_array_size(list) ? "obligations that this client cannot fulfil" : "";
}

static enum verdict result_take(struct remote_item *i, const json_t *result, EVP_PKEY *client, const struct secret *kek)
{
	const char *key = member(result, "kasWrappedKey"), *error = member(result, "error");
	enum verdict v;
	int err;

	if (strcmp(member(result, "status"), "permit") || !*key) {
		v = *error ? verdict_of(error) : VERDICT_OUTAGE;
		item_fail(i, v, v == VERDICT_DENIED && *obligations(result) ? obligations(result) : error);
		return v;
	}
	err = share_open(i, key, client, kek, &i->share);
	if (!err) {
		i->err = 0;
		i->text[0] = 0;
		return VERDICT_KEY;
	}
	text_set(i, err == -EBADMSG || err == -EPROTO ? -EBADMSG : -EIO, "the KAS answered with a key that does not fit", fail_text());
	return VERDICT_BAD;
}

/* "policy-N" -> N; n if it is none of ours */
static size_t number_of(const char *id, size_t n)
{
	char *end;
	unsigned long v;

	if (strncmp(id, "policy-", 7) || !isdigit((unsigned char)id[7]))
		return n;
	v = strtoul(id + 7, &end, 10);
	return *end || v >= n ? n : v;
}

static void responses_take(const json_t *responses, EVP_PKEY *client, const struct secret *kek, struct remote_item *const *items, size_t n,
			   enum verdict *verdicts)
{
	const json_t *each, *result;
	size_t i, j;

	json_array_foreach(responses, i, each)
	{
		size_t number = number_of(member(each, "policyId"), n);

		if (number == n)
			continue;
		json_array_foreach(json_object_get(each, "results"), j, result)
		{
			/* the first answer for a key counts */
			if (strcmp(member(result, "keyAccessObjectId"), "kao-0") == 0 && verdicts[number] == VERDICT_NONE)
				verdicts[number] = result_take(items[number], result, client, kek);
		}
	}
}

int answer_take(const struct http_answer *a, EVP_PKEY *client, struct remote_item *const *items, size_t n, enum verdict *verdicts)
{
	json_t *j = json_loadb(a->body, a->len, JSON_REJECT_DUPLICATES, NULL);
	CLEANUP_SECRET struct secret *kek = NULL;
	const char *pem = member(j, "sessionPublicKey"), *old = member(j, "entityWrappedKey");
	int err = json_is_object(j) ? 0 : fail(-EPROTO, "an answer that is not JSON");

	if (!err && pubkey_type(client) == WRAP_EC && *pem)
		err = ec_kek_of(client, pem, &kek);
	if (err == -EPROTO)
		err = fail(-EPROTO, "an answer that is cut off, or without a usable session key");
	for (size_t i = 0; i < n && !err; i++)
		verdicts[i] = VERDICT_NONE;
	if (!err)
		responses_take(json_object_get(j, "responses"), client, kek, items, n, verdicts);
	if (!err && n == 1 && verdicts[0] == VERDICT_NONE && *old) {
		json_t *result = json_pack("{s:s,s:s}", "status", "permit", "kasWrappedKey", old);

		verdicts[0] = result_take(items[0], result, client, kek);
		json_decref(result);
	}
	for (size_t i = 0; i < n && !err; i++)
		if (verdicts[i] == VERDICT_NONE)
			item_fail(items[i], VERDICT_NONE, "");
	json_decref(j);
	return err;
}
