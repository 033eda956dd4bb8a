/* SPDX-License-Identifier: Apache-2.0 */
/* The issuer: OpenID Connect Discovery 1.0, and requests to its endpoints (RFC 6749 sections 2.3, 5). */
#include "oidc_int.h"

#include <errno.h>
#include <stdio.h>

#include "encode.h"
#include "report.h"
#include "secret.h"

int issuer_init(struct issuer *is, const char *name, const char *client_id, const char *audience, struct http *http)
{
	struct url u;
	int err = url_parse(name, false, &u);

	if (err)
		return err;
	*is = (struct issuer){.http = http};
	is->name = strdup(name);
	is->client_id = strdup(client_id ? client_id : "");
	is->audience = audience ? strdup(audience) : NULL;
	if (is->name && is->client_id && (is->audience || !audience))
		return 0;
	issuer_done(is);
	return -ENOMEM;
}

void issuer_done(struct issuer *is)
{
	free(is->name);
	free(is->client_id);
	free(is->audience);
	is->name = is->client_id = is->audience = NULL;
}

static int issuer_call(struct issuer *is, const struct http_request *q, struct http_answer *ret)
{
	int err;

	__atomic_add_fetch(&is->requests, 1, __ATOMIC_RELAXED);
	err = http_call(is->http, q, ret);
	if (err)
		return err;
	if (ret->date)
		is->skew = ret->date - time(NULL);
	if (*ret->dpop_nonce)
		memcpy(is->nonce, ret->dpop_nonce, sizeof(is->nonce));
	return 0;
}

/* --- discovery --- */

static const char *member(const json_t *object, const char *name)
{
	const char *s = json_string_value(json_object_get(object, name));

	return s ? s : "";
}

/* An endpoint gets our secrets, so it has to be at the issuer's own origin. */
static int endpoint(const struct issuer *is, const json_t *doc, const char *name, struct url *ret)
{
	struct url home, u;
	int err = url_parse(member(doc, name), true, &u);

	if (err)
		return err;
	err = url_parse(is->name, false, &home);
	if (err)
		return err;
	if (!url_same_origin(&home, &u))
		return fail(-EINVAL, "the %s of %s is elsewhere (%.100s): not trusted", name, is->name, u.host);
	*ret = u;
	return 0;
}

static int discovery_read(struct issuer *is, const struct http_answer *a)
{
	json_t *doc = http_is_json(a) ? json_loadb(a->body, a->len, JSON_REJECT_DUPLICATES, NULL) : NULL;
	const json_t *methods = json_object_get(doc, "token_endpoint_auth_methods_supported"), *each;
	size_t i;
	int err = 0;

	if (!json_is_object(doc))
		err = fail(-EPROTO, "%s: no discovery document came back", is->name);
	else if (strcmp(member(doc, "issuer"), is->name))
		err = fail(-EINVAL, "%s calls itself \"%.200s\": the issuer has to be given exactly like that", is->name,
			   member(doc, "issuer"));
	if (!err)
		err = endpoint(is, doc, "token_endpoint", &is->token);
	if (!err && *member(doc, "device_authorization_endpoint"))
		err = endpoint(is, doc, "device_authorization_endpoint", &is->device);
	is->has_device = !err && *member(doc, "device_authorization_endpoint");
	if (!err && *member(doc, "revocation_endpoint"))
		err = endpoint(is, doc, "revocation_endpoint", &is->revoke);
	is->has_revoke = !err && *member(doc, "revocation_endpoint");
	is->basic = !json_is_array(methods); /* the default of the specification */
	json_array_foreach(methods, i, each) if (json_is_string(each) && strcmp(json_string_value(each), "client_secret_basic") == 0)
	    is->basic = true;
	is->known = !err;
	json_decref(doc);
	return err;
}

int issuer_discover(struct issuer *is, int64_t deadline)
{
	CLEANUP_ANSWER struct http_answer a = {0};
	CLEANUP_FREE char *path = NULL;
	struct url u;
	int err;

	if (is->known)
		return 0;
	err = url_parse(is->name, false, &u);
	if (err)
		return err;
	if (asprintf(&path, "%s/.well-known/openid-configuration", u.path) < 0) {
		path = NULL;
		return -ENOMEM;
	}
	err = issuer_call(is, &(struct http_request){.url = &u, .path = path, .answer_max = OIDC_ANSWER_MAX, .deadline = deadline}, &a);
	if (err)
		return err;
	if (a.status != 200)
		return fail(-EIO, "%s: its discovery document: HTTP %ld", is->name, a.status);
	return discovery_read(is, &a);
}

/* --- forms --- */

/* application/x-www-form-urlencoded; malloc'd: wipe */
static char *form_encode(const char *s)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~", hex[] = "0123456789ABCDEF";
	char *ret = malloc(3 * strlen(s) + 1), *p = ret;

	for (; ret && *s; s++) {
		unsigned char c = (unsigned char)*s;

		if (strchr(plain, c)) {
			*p++ = (char)c;
			continue;
		}
		*p++ = '%';
		*p++ = hex[c >> 4];
		*p++ = hex[c & 15];
	}
	if (ret)
		*p = 0;
	return ret;
}

int form_add(char **form, const char *name, const char *value)
{
	CLEANUP_WIPE char *text = form_encode(value);
	char *more;

	if (!text || asprintf(&more, "%s%s%s=%s", *form ? *form : "", *form ? "&" : "", name, text) < 0)
		return -ENOMEM;
	wipe_free(form);
	*form = more;
	return 0;
}

/* "Authorization: Basic ..." (RFC 6749 2.3.1: both parts form-encoded first) */
static int basic_header(const char *id, const char *secret, char **ret)
{
	CLEANUP_WIPE char *name = form_encode(id), *word = form_encode(secret), *pair = NULL, *b64 = NULL;

	if (!name || !word || asprintf(&pair, "%s:%s", name, word) < 0) {
		pair = NULL;
		return -ENOMEM;
	}
	b64 = malloc(BASE64_LEN(strlen(pair)) + 1);
	if (!b64)
		return -ENOMEM;
	base64_encode(pair, strlen(pair), b64);
	if (asprintf(ret, "Authorization: Basic %s", b64) < 0) {
		*ret = NULL;
		return -ENOMEM;
	}
	return 0;
}

/* What an OAuth error means to us (RFC 6749 5.2, RFC 8628 3.5). */
static int oauth_error(const char *code)
{
	static const struct {
		const char *code;
		int err;
	} errors[] = {
	    {"invalid_grant", -EACCES},        {"invalid_client", -EACCES},        {"unauthorized_client", -EACCES},
	    {"access_denied", -EACCES},        {"expired_token", -ETIMEDOUT},      {"server_error", -EIO},
	    {"temporarily_unavailable", -EIO}, {"authorization_pending", -EAGAIN}, {"slow_down", -EBUSY},
	};

	for (size_t i = 0; i < ARRAY_SIZE(errors); i++)
		if (strcmp(errors[i].code, code) == 0)
			return errors[i].err;
	return -EINVAL;
}

/* 0 and the object of a 200; *ret_nonce: asked to come again with the nonce it has sent */
static int answer_read(const struct issuer *is, const struct http_answer *a, bool *ret_nonce, json_t **ret)
{
	json_t *j = http_is_json(a) ? json_loadb(a->body, a->len, JSON_REJECT_DUPLICATES, NULL) : NULL;
	char code[64], text[160];

	*ret_nonce = false;
	if (a->status == 200 && json_is_object(j)) {
		*ret = j;
		return 0;
	}
	snprintf(code, sizeof(code), "%s", member(j, "error"));
	snprintf(text, sizeof(text), "%s", member(j, "error_description"));
	json_decref(j);
	for (char *c = text; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 127)
			*c = '?';
	if ((a->status != 400 && a->status != 401 && a->status != 403) || !*code)
		return fail(a->status == 200 ? -EPROTO : -EIO, "%s: HTTP %ld without an answer of OAuth", is->name, a->status);
	*ret_nonce = strcmp(code, "use_dpop_nonce") == 0 && *a->dpop_nonce;
	return fail(oauth_error(code), "%s: %s%s%s", is->name, code, *text ? ": " : "", text);
}

static int post_once(struct issuer *is, const struct url *to, const char *form, const char *basic, EVP_PKEY *key, int64_t deadline,
		     bool *ret_nonce, json_t **ret)
{
	CLEANUP_ANSWER struct http_answer a = {0};
	CLEANUP_FREE char *proof = NULL;
	const char *headers[4] = {"Accept: application/json"};
	size_t n = 1;
	int err = 0;

	if (basic)
		headers[n++] = basic;
	if (key) {
		CLEANUP_FREE char *htu = url_text(to, NULL);

		if (!htu)
			return -ENOMEM;
		htu[strcspn(htu, "?")] = 0;
		err = dpop_proof(key, "POST", htu, is->nonce, NULL, is->skew, &proof);
		headers[n++] = proof;
	}
	if (!err)
		err = issuer_call(is,
				  &(struct http_request){.url = to,
							 .content_type = "application/x-www-form-urlencoded",
							 .body = form,
							 .body_len = strlen(form),
							 .headers = headers,
							 .answer_max = OIDC_ANSWER_MAX,
							 .deadline = deadline},
				  &a);
	return err ? err : answer_read(is, &a, ret_nonce, ret);
}

int issuer_post(struct issuer *is, const struct url *to, const char *form, const char *secret, EVP_PKEY *key, int64_t deadline,
		json_t **ret)
{
	CLEANUP_WIPE char *body = strdup(form), *basic = NULL;
	int64_t skew = is->skew;
	bool nonce = false;
	int err = body ? 0 : -ENOMEM;

	if (!err && secret && is->basic)
		err = basic_header(is->client_id, secret, &basic);
	else if (!err)
		err = form_add(&body, "client_id", is->client_id);
	if (!err && secret && !is->basic)
		err = form_add(&body, "client_secret", secret);
	if (!err)
		err = post_once(is, to, body, basic, key, deadline, &nonce, ret);
	/* once more with its nonce, or (a proof may have looked too old or too new) by its clock */
	if (err && (nonce || (err == -EINVAL && llabs(is->skew - skew) > 30)))
		err = post_once(is, to, body, basic, key, deadline, &nonce, ret);
	return err;
}
