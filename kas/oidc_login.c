/* SPDX-License-Identifier: Apache-2.0 */
/* A person's session: device flow (RFC 8628) and its end (RFC 7009). */
#include <errno.h>
#include <stdio.h>

#include "oidc_int.h"
#include "pubkey.h"
#include "report.h"

#define DEVICE_GRANT "urn:ietf:params:oauth:grant-type:device_code"
#define INTERVAL_DEFAULT 5
#define INTERVAL_MAX 60
#define CODE_LIFE_MAX 1800
#define POLL_NS 100000000

static const char *member(const json_t *object, const char *name)
{
	const char *s = json_string_value(json_object_get(object, name));

	return s ? s : "";
}

static int64_t number(const json_t *object, const char *name, int64_t otherwise, int64_t most)
{
	const json_t *n = json_object_get(object, name);

	return json_is_integer(n) ? MAX(0, MIN(json_integer_value(n), most)) : otherwise;
}

/* Goes to a terminal: printable, and short. */
static bool showable(const char *s, size_t max)
{
	size_t len = strlen(s);

	for (size_t i = 0; i < len; i++)
		if (s[i] < ' ' || s[i] > '~')
			return false;
	return len && len <= max;
}

static int device_start(const struct oidc_login *l, struct issuer *is, json_t **ret)
{
	CLEANUP_WIPE char *form = NULL;
	int err = issuer_discover(is, http_now() + FETCH_MS);

	if (err)
		return err;
	if (!is->has_device)
		return fail(-ENOTSUP, "%s offers no device flow: use a client secret or a token file", is->name);
	err = form_add(&form, "scope", l->scope ? l->scope : "openid offline_access");
	if (!err && is->audience)
		err = form_add(&form, "audience", is->audience);
	return err ? err : issuer_post(is, &is->device, form, NULL, NULL, http_now() + FETCH_MS, ret);
}

static int show(const struct oidc_login *l, const struct issuer *is, const json_t *start)
{
	const char *uri = member(start, "verification_uri"), *complete = member(start, "verification_uri_complete"),
		   *code = member(start, "user_code");
	struct url u;

	if (!showable(code, 64) || !*member(start, "device_code"))
		return fail(-EPROTO, "%s: no usable device code came back", is->name);
	if (url_parse(uri, true, &u) || (*complete && url_parse(complete, true, &u)))
		return fail(-EPROTO, "%s: a page to go to that is none: %s", is->name, fail_text());
	l->show(l->arg, uri, *complete ? complete : NULL, code);
	return 0;
}

/* Wait @ms; -EINTR if stopped. */
static int pause_ms(const struct oidc_login *l, int64_t ms)
{
	int64_t until = http_now() + ms;

	while (http_now() < until) {
		if (l->stopped && l->stopped(l->arg))
			return fail(-EINTR, "stopped");
		nanosleep(&(struct timespec){.tv_nsec = POLL_NS}, NULL);
	}
	return 0;
}

/* Ask until the person has decided.  A network that is away for a moment is no reason to give up. */
static int device_poll(const struct oidc_login *l, struct issuer *is, const json_t *start, EVP_PKEY *key, json_t **ret)
{
	int64_t interval = number(start, "interval", INTERVAL_DEFAULT, INTERVAL_MAX);
	int64_t until = http_now() + 1000 * number(start, "expires_in", CODE_LIFE_MAX, CODE_LIFE_MAX);
	CLEANUP_WIPE char *form = NULL;
	int err = form_add(&form, "grant_type", DEVICE_GRANT);

	if (!err)
		err = form_add(&form, "device_code", member(start, "device_code"));
	while (!err) {
		err = pause_ms(l, MAX(interval * 1000, 200));
		if (err)
			return err;
		if (http_now() > until)
			return fail(-ETIMEDOUT, "the code has expired: start again");
		err = issuer_post(is, &is->token, form, NULL, key, http_now() + FETCH_MS, ret);
		if (!err)
			return 0;
		if (err == -EBUSY)
			interval += 5;
		if (err == -EBUSY || err == -EAGAIN || err == -EIO || err == -ECONNREFUSED || err == -ECONNRESET)
			err = 0;
	}
	return err;
}

static int login(const struct oidc_login *l, struct issuer *is, EVP_PKEY *key)
{
	CLEANUP_TOKEN struct token t = {0};
	json_t *start = NULL, *answer = NULL;
	bool no = false;
	int err = device_start(l, is, &start);

	if (!err)
		err = show(l, is, start);
	if (!err)
		err = device_poll(l, is, start, key, &answer);
	if (!err)
		err = token_from_answer(is, answer, key, &t);
	json_decref(start);
	json_decref(answer);
	if (err)
		return err;
	if (!t.refresh)
		return fail(-ENOTSUP, "%s gives this client no refresh token: allow it \"offline access\" there", is->name);
	return session_new(l->session_file, is, t.refresh, key, l->keyring ? l->keyring : &no);
}

int oidc_login_device(const struct oidc_login *l, struct http *http)
{
	struct issuer is = {0};
	EVP_PKEY *key = pubkey_new_ec();
	int err = key ? issuer_init(&is, l->issuer, l->client_id, l->audience, http) : -EIO;

	if (!err)
		err = login(l, &is, key);
	issuer_done(&is);
	EVP_PKEY_free(key);
	return err;
}

static int session_revoke(struct issuer *is, const struct session *s)
{
	CLEANUP_ANSWER struct http_answer a = {0};
	CLEANUP_WIPE char *form = NULL;
	int err = issuer_discover(is, http_now() + FETCH_MS);

	if (err || !is->has_revoke)
		return err;
	err = form_add(&form, "token", s->refresh);
	if (!err)
		err = form_add(&form, "token_type_hint", "refresh_token");
	if (!err)
		err = form_add(&form, "client_id", is->client_id);
	if (!err) /* the answer has no body that counts, so not issuer_post() */
		err = http_call(is->http,
				&(struct http_request){.url = &is->revoke,
						       .content_type = "application/x-www-form-urlencoded",
						       .body = form,
						       .body_len = strlen(form),
						       .answer_max = OIDC_ANSWER_MAX,
						       .deadline = http_now() + FETCH_MS},
				&a);
	if (!err && a.status != 200)
		err = fail(-EIO, "%s: HTTP %ld", is->name, a.status);
	return err;
}

int oidc_logout(const char *issuer, const char *client_id, const char *session_file, struct http *http)
{
	CLEANUP_SESSION struct session s = {0};
	struct issuer is = {0};
	CLEANUP_FD int lock = -1;
	char why[300];
	int err = issuer_init(&is, issuer, client_id, NULL, http), gone;

	if (err)
		return err;
	/* or a refresh that is under way has the next token, and that one would not be revoked; who hangs does not keep us */
	lock = session_lock(session_file, http_now() + 2 * FETCH_MS);
	fail_clear();
	err = session_read(session_file, &is, &s);
	if (!err)
		err = session_revoke(&is, &s);
	issuer_done(&is);
	/* a session that cannot be read any more is to go all the same; one that could not be revoked as well */
	if (err)
		snprintf(why, sizeof(why), "%s", fail_text());
	gone = session_remove(session_file);
	if (gone && gone != -ENOENT)
		return gone;
	return err ? fail(err, "%s", why) : 0;
}
