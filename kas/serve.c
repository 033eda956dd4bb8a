/* SPDX-License-Identifier: Apache-2.0 */
#include "serve.h"

#include <errno.h>
#include <stdio.h>

#include "http.h"
#include "report.h"
#include "serve_http.h"

#define ISSUER_WAIT_MS 10000

/* What asking the issuer needs. */
struct issuer {
	struct http *http;
};

struct server { /* a serve, and what is around it */
	struct serve serve;
	struct front front;
	struct issuer issuer;
};

static int get(void *ctx, const char *text, size_t max, char **ret)
{
	struct issuer *i = ctx;
	CLEANUP_ANSWER struct http_answer a = {0};
	struct url url;
	struct http_request q = {.url = &url, .answer_max = max, .deadline = http_now() + ISSUER_WAIT_MS};
	int err = url_parse(text, true, &url);

	if (!err)
		err = http_call(i->http, &q, &a);
	if (err)
		return err;
	if (a.status != 200)
		return fail(-EIO, "%s answers with HTTP status %ld", text, a.status);
	*ret = STEAL(a.body);
	return 0;
}

static int new_parts(struct server *v, struct serve_config *c)
{
	const struct http_config http = {.ca_file = c->ca_file, .allow = c->allow};
	struct serve *s = &v->serve;
	int err = audit_open(c->audit, &s->audit);

	s->limits = limits_new(c->failures, c->keys);
	s->replays = replays_new();
	s->sessions = wrappers_new();
	if (c->dpop_nonce)
		s->nonce_key = secret_random();
	if (!err && (!s->limits || !s->replays || !s->sessions || (c->dpop_nonce && !s->nonce_key)))
		err = -ENOMEM;
	if (!err && !c->is_unix && !c->jwks_file)
		err = http_new(&http, &v->issuer.http);
	return err;
}

int serve_new(struct serve_config *c, struct kas *kas, struct serve **ret)
{
	struct server *v = calloc(1, sizeof(*v));
	int err;

	if (!v)
		return -ENOMEM;
	v->serve.config = c;
	v->serve.kas = kas;
	v->serve.access = c->is_unix ? NULL : c->access;
	v->front.serve = &v->serve;
	v->front.config = c;
	err = new_parts(v, c);
	if (err)
		serve_free(&v->serve);
	else
		*ret = &v->serve;
	return err;
}

void serve_free(struct serve *s)
{
	struct server *v = (struct server *)s;

	if (!v)
		return;
	jwks_free(s->jwks);
	http_free(v->issuer.http);
	audit_free(s->audit);
	limits_free(s->limits);
	replays_free(s->replays);
	wrappers_free(s->sessions);
	secret_free(s->nonce_key);
	free(v);
}

static int start_jwks(struct server *v)
{
	const struct serve_config *c = v->serve.config;
	const struct jwks_config j = {.issuer = c->issuer,
				      .audience = c->audience,
				      .jwks_uri = c->jwks_uri,
				      .jwks_file = c->jwks_file,
				      .get = get,
				      .ctx = &v->issuer,
				      .on_done = front_keys_done,
				      .arg = &v->front};

	return c->is_unix ? 0 : jwks_new(&j, &v->serve.jwks);
}

int serve_run(struct serve *s, const sigset_t *signals, void (*ready)(void))
{
	struct server *v = (struct server *)s;
	const struct timespec tick = {1, 0};
	int err = front_init(&v->front), sig = 0;

	if (!err)
		err = start_jwks(v);
	if (!err)
		err = front_start(&v->front);
	if (err)
		return err;
	ready();
	while (sig != SIGINT && sig != SIGTERM) {
		sig = sigtimedwait(signals, NULL, &tick);
		front_reap(&v->front);
		wrappers_expire(s->sessions, false);
		if (sig == SIGHUP) {
			err = audit_reopen(s->audit);
			if (err)
				report(REPORT_ERROR, "the audit log goes on in the old file: %s", fail_text());
			if (s->jwks)
				jwks_refresh(s->jwks);
		}
	}
	front_stop(&v->front);
	return 0;
}
