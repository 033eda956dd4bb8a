/* SPDX-License-Identifier: Apache-2.0 */
#include "oidc.h"

#include <errno.h>
#include <stdio.h>

#include "jose.h"
#include "oidc_int.h"
#include "pubkey.h"
#include "report.h"
#include "secret.h"

#define BACKOFF_MIN_MS 500
#define BACKOFF_MAX_MS 30000
#define REJECT_MS 10000

struct stamp { /* tells whether a token file is still the one read */
	dev_t dev;
	ino_t ino;
	off_t size;
	struct timespec mtime;
};

struct oidc {
	/* fixed after oidc_new() */
	char *secret_file, *token_file, *session_file;
	bool dpop_required;

	struct issuer issuer; /* whoever has set `fetching` */

	struct mutex lock; /* a leaf; not held during requests */
	struct cond done;
	bool fetching;
	EVP_PKEY *key;
	struct token token;
	uint64_t serial; /* of the token; 0: none yet */
	struct stamp stamp;
	int64_t reject_until; /* a further 401 until then does not fetch again */
	int64_t retry_at;     /* after a failure */
	unsigned backoff_ms;
	int err;
	char text[300];
};

static int copy(const char *s, char **ret)
{
	*ret = s ? strdup(s) : NULL;
	return s && !*ret ? -ENOMEM : 0;
}

/* Is what the configuration names there, and closed to others? */
static int files_check(struct oidc *o)
{
	CLEANUP_SESSION struct session s = {0};
	CLEANUP_WIPE char *text = NULL;
	const char *path = o->secret_file ? o->secret_file : o->token_file;

	return path ? secret_file_read(path, TOKEN_MAX, &text, NULL) : session_read(o->session_file, &o->issuer, &s);
}

int oidc_new(const struct oidc_config *c, struct http *http, struct oidc **ret)
{
	int ways = !!c->secret_file + !!c->token_file + !!c->session_file, err;
	struct oidc *o;

	if (ways != 1)
		return fail(-EINVAL, "exactly one of secret file, token file and session is needed for a KAS login, not %d", ways);
	if (!c->token_file && (!c->issuer || !*c->issuer || !c->client_id || !*c->client_id))
		return fail(-EINVAL, "a KAS login needs an issuer and a client id");
	o = calloc(1, sizeof(*o));
	if (!o)
		return -ENOMEM;
	mutex_init(&o->lock);
	cond_init(&o->done);
	o->dpop_required = c->dpop_required;
	o->key = pubkey_new_ec();
	err = o->key ? 0 : -EIO;
	if (!err && c->issuer && *c->issuer)
		err = issuer_init(&o->issuer, c->issuer, c->client_id, c->audience, http);
	else if (!err)
		err = copy("", &o->issuer.name) ?: copy(c->audience, &o->issuer.audience);
	if (!err)
		err = copy(c->secret_file, &o->secret_file) ?: copy(c->token_file, &o->token_file) ?: copy(c->session_file, &o->session_file);
	if (!err)
		err = files_check(o);
	if (err)
		oidc_free(o);
	else
		*ret = o;
	return err;
}

void oidc_free(struct oidc *o)
{
	if (!o)
		return;
	issuer_done(&o->issuer);
	token_free(&o->token);
	EVP_PKEY_free(o->key);
	free(o->secret_file);
	free(o->token_file);
	free(o->session_file);
	cond_destroy(&o->done);
	mutex_destroy(&o->lock);
	free(o);
}

/* --- fetching; without the lock, by the one thread that has set `fetching` --- */

/* A secret that is not there, or open to others: nobody is logged in. */
static int no_secret(int err)
{
	return err == -ENOMEM ? err : fail(-EACCES, "%s", fail_text());
}

static int form_start(const struct issuer *is, const char *grant, char **form)
{
	int err = form_add(form, "grant_type", grant);

	if (!err && is->audience)
		err = form_add(form, "audience", is->audience);
	return err;
}

static int fetch_client(struct oidc *o, int64_t deadline, struct token *ret)
{
	CLEANUP_WIPE char *secret = NULL, *form = NULL;
	json_t *answer = NULL;
	int err = secret_file_read(o->secret_file, TOKEN_MAX, &secret, NULL);

	if (err)
		return no_secret(err);
	err = issuer_discover(&o->issuer, deadline);
	if (!err)
		err = form_start(&o->issuer, "client_credentials", &form);
	if (!err)
		err = issuer_post(&o->issuer, &o->issuer.token, form, secret, o->key, deadline, &answer);
	if (!err)
		err = token_from_answer(&o->issuer, answer, o->key, ret);
	json_decref(answer);
	return err;
}

/* A refresh token is often good for one use: its successor is on disk before anything is done with the access token. */
static int session_use(struct oidc *o, int64_t deadline, struct session *s, struct token *ret)
{
	CLEANUP_TOKEN struct token t = {0};
	CLEANUP_WIPE char *form = NULL;
	json_t *answer = NULL;
	int err = form_start(&o->issuer, "refresh_token", &form);

	if (!err)
		err = form_add(&form, "refresh_token", s->refresh);
	if (!err)
		err = issuer_post(&o->issuer, &o->issuer.token, form, NULL, s->key, deadline, &answer);
	if (!err)
		err = token_from_answer(&o->issuer, answer, s->key, &t);
	json_decref(answer);
	if (err == -EACCES)
		return fail(err, "%s (tdfs login starts a new session)", *fail_text() ? fail_text() : "the session is over");
	if (!err && t.refresh && strcmp(t.refresh, s->refresh))
		err = session_write(o->session_file, &o->issuer, t.refresh, s->key);
	if (err)
		return err;
	*ret = t;
	t = (struct token){0};
	return 0;
}

static int fetch_session(struct oidc *o, int64_t deadline, struct token *ret)
{
	CLEANUP_SESSION struct session s = {0};
	CLEANUP_FD int lock = -1;
	int err = issuer_discover(&o->issuer, deadline);

	if (err)
		return err;
	lock = session_lock(o->session_file, deadline);
	if (lock < 0)
		return lock;
	err = session_read(o->session_file, &o->issuer, &s);
	if (err)
		return no_secret(err);
	err = session_use(o, deadline, &s, ret);
	if (err)
		return err;
	mutex_lock(&o->lock);
	EVP_PKEY_free(o->key);
	o->key = STEAL(s.key);
	mutex_unlock(&o->lock);
	return 0;
}

static int fetch_file(struct oidc *o, struct token *ret)
{
	CLEANUP_WIPE char *text = NULL;
	struct stat st;
	int err = secret_file_read(o->token_file, TOKEN_MAX, &text, &st);

	if (err)
		return no_secret(err);
	mutex_lock(&o->lock);
	o->stamp = (struct stamp){st.st_dev, st.st_ino, st.st_size, st.st_mtim};
	mutex_unlock(&o->lock);
	err = token_from_text(&o->issuer, text, o->key, ret);
	return err ? fail(err, "%s: %s", o->token_file, fail_text()) : 0;
}

static int fetch(struct oidc *o, int64_t deadline, struct token *ret)
{
	int err = o->token_file ? fetch_file(o, ret) : o->session_file ? fetch_session(o, deadline, ret) : fetch_client(o, deadline, ret);

	if (!err && o->dpop_required && !ret->bound) {
		token_free(ret);
		err = fail(-EACCES, "the access token is not bound to our key (DPoP), which is demanded here");
	}
	return err;
}

/* --- the token of now --- */

static bool file_changed(const struct oidc *o)
{
	struct stat st;

	return stat(o->token_file, &st) || st.st_dev != o->stamp.dev || st.st_ino != o->stamp.ino || st.st_size != o->stamp.size ||
	       st.st_mtim.tv_sec != o->stamp.mtime.tv_sec || st.st_mtim.tv_nsec != o->stamp.mtime.tv_nsec;
}

static void fetch_failed(struct oidc *o, int err)
{
	o->backoff_ms = MIN(MAX(2 * o->backoff_ms, BACKOFF_MIN_MS), BACKOFF_MAX_MS);
	o->retry_at = http_now() + o->backoff_ms;
	o->err = err;
	snprintf(o->text, sizeof(o->text), "%s", err == -ENOMEM ? "out of memory" : fail_text());
}

/* Lock held; dropped meanwhile.  Returns with a new token in place, or the error. */
static int fetch_now(struct oidc *o, int64_t deadline)
{
	struct token t = {0};
	int err;

	o->fetching = true;
	mutex_unlock(&o->lock);
	fail_clear();
	err = fetch(o, MIN(deadline, http_now() + FETCH_MS), &t);
	mutex_lock(&o->lock);
	o->fetching = false;
	if (err) {
		fetch_failed(o, err);
	} else {
		token_free(&o->token);
		o->token = t;
		o->serial++;
		o->backoff_ms = 0;
		o->retry_at = 0;
	}
	cond_broadcast(&o->done);
	return err;
}

/* Lock held.  Afterwards o->token is good. */
static int token_now(struct oidc *o, int64_t deadline)
{
	struct timespec until = {.tv_sec = deadline / 1000, .tv_nsec = deadline % 1000 * 1000000};
	bool tried = false;

	for (;;) {
		int64_t now = http_now();
		bool good = o->token.access && now < o->token.good_until;
		bool fresh = good && now < o->token.fresh_until && !(o->token_file && !o->fetching && file_changed(o));

		if (fresh || (good && (o->fetching || tried || now < o->retry_at)))
			return 0;
		if (o->fetching) {
			if (cond_wait_until(&o->done, &o->lock, &until))
				return fail(-ETIMEDOUT, "no access token in time");
			continue;
		}
		if (tried || (now < o->retry_at && !(o->token_file && file_changed(o))))
			return fail(o->err, "%s", o->text);
		tried = true;
		(void)fetch_now(o, deadline); /* the error is kept in o */
	}
}

static int auth_make(const struct token *t, EVP_PKEY *key, const char *method, const char *htu, const char *nonce, int64_t skew,
		     struct oidc_auth *a)
{
	if (asprintf(&a->authorization, "Authorization: %s %s", t->bound ? "DPoP" : "Bearer", t->access) < 0) {
		a->authorization = NULL;
		return -ENOMEM;
	}
	return t->bound ? dpop_proof(key, method, htu, nonce, t->access, skew, &a->dpop) : 0;
}

int oidc_authorize(struct oidc *o, const char *method, const char *htu, const char *nonce, int64_t skew, int64_t deadline,
		   struct oidc_auth *ret)
{
	CLEANUP_AUTH struct oidc_auth a = {0};
	CLEANUP_TOKEN struct token t = {0};
	int err;

	mutex_lock(&o->lock);
	err = token_now(o, deadline);
	if (!err) {
		t.access = strdup(o->token.access);
		t.bound = o->token.bound;
		a.serial = o->serial;
		if (EVP_PKEY_up_ref(o->key) == 1)
			a.key = o->key;
		err = t.access && a.key ? 0 : -ENOMEM;
	}
	mutex_unlock(&o->lock);
	if (!err)
		err = auth_make(&t, a.key, method, htu, nonce, skew, &a);
	if (err)
		return err;
	*ret = a;
	a = (struct oidc_auth){0};
	return 0;
}

void oidc_auth_free(struct oidc_auth *a)
{
	wipe_free(&a->authorization);
	free(a->dpop);
	EVP_PKEY_free(a->key);
	*a = (struct oidc_auth){0};
}

bool oidc_reject(struct oidc *o, uint64_t serial)
{
	bool again;

	mutex_lock(&o->lock);
	if (o->serial != serial) {
		again = true; /* there is another one already */
	} else if (o->token_file) {
		again = file_changed(o);
	} else if (http_now() >= o->reject_until) {
		o->token.good_until = 0;
		o->reject_until = http_now() + REJECT_MS;
		again = true;
	} else {
		again = false; /* a KAS that refuses every token must not make us ask for one after the other */
	}
	mutex_unlock(&o->lock);
	return again;
}

int oidc_claims(struct oidc *o, int64_t deadline, json_t **ret)
{
	CLEANUP_JWS struct jws j = {0};
	int err;

	mutex_lock(&o->lock);
	err = token_now(o, deadline);
	if (!err)
		err = jws_parse(o->token.access, strlen(o->token.access), &j);
	mutex_unlock(&o->lock);
	if (err && err != -EPROTO)
		return err;
	*ret = err ? json_object() : json_incref(j.claims);
	return *ret ? 0 : -ENOMEM;
}

uint64_t oidc_requests(struct oidc *o)
{
	return __atomic_load_n(&o->issuer.requests, __ATOMIC_RELAXED);
}
