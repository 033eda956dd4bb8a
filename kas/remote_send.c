/* SPDX-License-Identifier: Apache-2.0 */
/* One exchange with the KAS: Connect JSON or REST v2, with tokens, proofs and the few tries that are safe.  A rewrap changes nothing there,
 * so it may be sent again. */
#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "aead.h"
#include "encode.h"
#include "jose.h"
#include "remote_int.h"
#include "report.h"

#define TRIES_MAX 3
#define PAUSE_MS 150
#define SKEW_SECONDS 30 /* a clock that is further off is worth another try */
#define REQUEST_LIFE 60

struct attempt { /* what differs from one try to the next */
	char nonce[257];
	int64_t skew;
	bool rest;
	bool nonce_used, skew_used, token_used, rest_used; /* each is worth one more try, once */
	unsigned broken;                                   /* tries that ended without an answer, or with a 5xx */
};

void connect_error(const struct http_answer *a, char *ret, size_t room)
{
	json_t *j = http_is_json(a) ? json_loadb(a->body, a->len, 0, NULL) : NULL;
	const json_t *code = json_object_get(j, "code");
	const char *text = json_string_value(json_object_get(j, "message"));

	*ret = 0;
	if (json_is_string(code))
		snprintf(ret, room, "%s%s%s", json_string_value(code), text && *text ? ": " : "", text ? text : "");
	else if (json_is_integer(code) && text) /* REST: the number of a gRPC code */
		snprintf(ret, room, "%s", text);
	for (char *c = ret; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 127)
			*c = ' ';
	json_decref(j);
}

static int request_token(EVP_PKEY *key, const char *body, int64_t skew, char **ret)
{
	int64_t now = time(NULL) + skew - 5; /* as in a DPoP proof: not of the future */
	json_t *header = json_pack("{s:s}", "typ", "JWT");
	json_t *claims = json_pack("{s:s,s:I,s:I}", "requestBody", body, "iat", (json_int_t)now, "exp", (json_int_t)now + REQUEST_LIFE);
	CLEANUP_FREE char *srt = NULL;
	int err = header && claims ? jws_sign(key, jose_alg_of(key), header, claims, &srt) : -ENOMEM;

	json_decref(header);
	json_decref(claims);
	if (!err && asprintf(ret, "{\"signedRequestToken\":\"%s\"}", srt) < 0) {
		*ret = NULL;
		err = -ENOMEM;
	}
	return err;
}

static void note_answer(struct remote *r, const struct http_answer *a)
{
	struct remote_stats *s = &r->stats;

	mutex_lock(&r->lock);
	s->last_us = a->took_us;
	s->mean_us = s->mean_us ? (uint32_t)((15 * (uint64_t)s->mean_us + a->took_us) / 16) : a->took_us;
	s->max_us = MAX(s->max_us, a->took_us);
	if (*a->dpop_nonce)
		memcpy(r->nonce, a->dpop_nonce, sizeof(r->nonce));
	if (a->date)
		r->skew = a->date - time(NULL);
	mutex_unlock(&r->lock);
}

static int path_make(const struct remote *r, const struct exchange *x, bool rest, char **ret)
{
	int n = rest ? asprintf(ret, "%s%s%s", r->url.path, x->rest, x->rest_get ? x->rest_get : "") : asprintf(ret, "%s", x->connect);

	if (n < 0)
		*ret = NULL;
	return n < 0 ? -ENOMEM : 0;
}

/* @auth: filled when signed, for the caller to free */
static int send_once(struct remote *r, const struct exchange *x, const struct attempt *t, struct oidc_auth *auth, struct http_answer *ret)
{
	CLEANUP_FREE char *path = NULL, *htu = NULL, *srt = NULL;
	char id[64] = "X-Request-Id: ";
	const char *headers[6] = {"Accept: application/json", id};
	size_t n = 2;
	uint8_t uuid[16];
	int err = path_make(r, x, t->rest, &path);

	if (!err)
		err = random_bytes(uuid, sizeof(uuid));
	if (err)
		return err;
	uuid[6] = (uuid[6] & 15) | 64;
	uuid[8] = (uuid[8] & 63) | 128;
	uuid_format(uuid, id + strlen(id));
	if (!t->rest)
		headers[n++] = "Connect-Protocol-Version: 1";
	if (x->sign || x->token) {
		htu = url_text(&r->url, path);
		err = htu ? oidc_authorize(r->oidc, "POST", htu, t->nonce, t->skew, x->deadline, auth) : -ENOMEM;
		if (!err && x->sign)
			err = request_token(auth->key, x->body, t->skew, &srt);
		headers[n++] = auth->authorization;
		headers[n++] = auth->dpop; /* or NULL, which ends the list */
	}
	if (err)
		return err;
	mutex_lock(&r->lock);
	r->stats.requests++;
	mutex_unlock(&r->lock);
	const char *body = srt ? srt : x->body;
	bool get = t->rest ? x->rest_get != NULL : x->get;

	return http_call(r->http,
			 &(struct http_request){.url = &r->url,
						.path = path,
						.pinned = true,
						.content_type = get ? NULL : "application/json",
						.body = body,
						.body_len = body ? strlen(body) : 0,
						.headers = headers,
						.answer_max = x->answer_max,
						.deadline = x->deadline},
			 ret);
}

/* The wrong door: a server without Connect, or a proxy.  Only JSON with a code is the KAS speaking. */
static bool wrong_path(const struct http_answer *a, const char *error)
{
	if (a->status == 404 || a->status == 405 || a->status == 415 || a->status == 501)
		return !*error || strncmp(error, "unimplemented", 13) == 0;
	return (a->status == 401 || a->status == 403) && !*error;
}

bool remote_lacks(const struct http_answer *a)
{
	char error[160];

	connect_error(a, error, sizeof(error));
	return a->status != 200 && wrong_path(a, error);
}

/* A 401: is there something to do better? */
static bool again_after_401(struct remote *r, struct attempt *t, const struct http_answer *a, const struct oidc_auth *auth)
{
	int64_t skew = a->date ? a->date - time(NULL) : t->skew;

	if (auth->dpop && *a->dpop_nonce && strcmp(a->dpop_nonce, t->nonce) && !t->nonce_used) {
		t->nonce_used = true;
		memcpy(t->nonce, a->dpop_nonce, sizeof(t->nonce));
		t->skew = skew;
		return true;
	}
	if (llabs(skew - t->skew) > SKEW_SECONDS && !t->skew_used) {
		t->skew_used = true;
		t->skew = skew;
		return true;
	}
	if (t->token_used || !oidc_reject(r->oidc, auth->serial))
		return false;
	return t->token_used = true;
}

/* Wait before another try; false: no time for one. */
static bool pause_before(const struct exchange *x, struct attempt *t, unsigned retry_after)
{
	int64_t ms = PAUSE_MS << t->broken;
	uint16_t v = 0;

	if (++t->broken >= TRIES_MAX || random_bytes(&v, sizeof(v)))
		return false;
	ms = MAX(ms / 2 + ms * v / 65536, (int64_t)retry_after * 1000);
	if (http_now() + ms >= x->deadline)
		return false;
	nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
	return true;
}

/* An answer: 0 take it, 1 try again, or an error */
static int judge(struct remote *r, const struct exchange *x, struct attempt *t, const struct http_answer *a, const struct oidc_auth *auth)
{
	char error[160];

	connect_error(a, error, sizeof(error));
	if (a->status == 200 && http_is_json(a))
		return 0;
	if (wrong_path(a, error) && !t->rest_used && x->rest) {
		t->rest_used = true;
		t->rest = !t->rest;
		return 1;
	}
	if (x->may_lack && wrong_path(a, error))
		return 0;
	if (a->status == 401 && (x->sign || x->token)) {
		if (again_after_401(r, t, a, auth))
			return 1;
		if (*error)
			return fail(-EACCES, "%s does not accept our access token (%s)", r->name, error);
	}
	if ((a->status == 502 || a->status == 503 || a->status == 504 || a->status == 429) && pause_before(x, t, a->retry_after))
		return 1;
	if (a->status >= 400 && a->status < 500 && a->status != 408 && a->status != 429 && *error)
		return 0;
	return fail(-EIO, "%s: HTTP %ld%s%s, which is no answer of a KAS", r->name, a->status, *error ? ": " : "", error);
}

static int transport_error(struct remote *r, const struct exchange *x, struct attempt *t, int err)
{
	if ((err == -ECONNREFUSED || err == -ECONNRESET) && pause_before(x, t, 0))
		return 1;
	if (err == -ENOMEM || err == -EACCES || err == -ETIMEDOUT)
		return err;
	return fail(-EIO, "%s", *fail_text() ? fail_text() : strerror(-err));
}

int remote_exchange(struct remote *r, const struct exchange *x, struct http_answer *ret)
{
	struct attempt t = {0};
	int err;

	mutex_lock(&r->lock);
	memcpy(t.nonce, r->nonce, sizeof(t.nonce));
	t.skew = r->skew;
	t.rest = r->rest && x->rest;
	mutex_unlock(&r->lock);
	do {
		CLEANUP_ANSWER struct http_answer a = {0};
		CLEANUP_AUTH struct oidc_auth auth = {0};

		fail_clear();
		err = send_once(r, x, &t, &auth, &a);
		if (err) {
			err = transport_error(r, x, &t, err);
			continue;
		}
		note_answer(r, &a);
		err = judge(r, x, &t, &a, &auth);
		if (!err) {
			*ret = a;
			a.body = NULL;
		}
	} while (err > 0);
	if (!err && x->rest) {
		mutex_lock(&r->lock);
		r->rest = t.rest;
		mutex_unlock(&r->lock);
	}
	return err;
}
