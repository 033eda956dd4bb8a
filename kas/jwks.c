/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "io.h"
#include "jwks_i.h"
#include "report.h"

int64_t jwks_clock(void)
{
	struct timespec now = {0};

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec + 1; /* never 0 */
}

/* The keys of a set that can have signed a token; others are left out, as RFC 7517 section 5 has it. */
static json_t *keys_usable(const json_t *set)
{
	const json_t *list = json_object_get(set, "keys");
	json_t *usable = json_array(), *each;
	size_t i;

	if (!json_is_array(list) || !usable) {
		json_decref(usable);
		return NULL;
	}
	json_array_foreach(list, i, each)
	{
		const char *use = json_string_value(json_object_get(each, "use"));

		if (json_array_size(usable) < JWKS_KEYS_MAX && (!use || strcmp(use, "sig") == 0) && jwk_check(each) == 0 &&
		    json_array_append(usable, each))
			break;
	}
	return usable;
}

static int keys_take(struct jwks *j, const char *text, size_t len, const char *from)
{
	json_t *set = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL), *keys = keys_usable(set), *old;

	json_decref(set);
	if (!json_array_size(keys)) {
		json_decref(keys);
		return fail(-EPROTO, "%s: no JSON Web Key Set with an RSA or EC key that signs", from);
	}
	mutex_lock(&j->lock);
	old = j->keys;
	if (!json_equal(old, keys))
		j->generation++; /* tokens checked before are checked again */
	j->keys = keys;
	j->fetched = jwks_clock();
	mutex_unlock(&j->lock);
	json_decref(old);
	return 0;
}

static int keys_from_file(struct jwks *j)
{
	CLEANUP_FREE char *text = NULL;
	struct io io = io_posix(AT_FDCWD);
	size_t len;
	int err = io_read_file(&io, AT_FDCWD, j->jwks_file, JWKS_TEXT_MAX, &text, &len);

	return err ? fail(err, "%s: %s", j->jwks_file, strerror(-err)) : keys_take(j, text, len, j->jwks_file);
}

/* Where the issuer says its keys are. */
static int keys_where(struct jwks *j, char **ret)
{
	CLEANUP_FREE char *url = NULL, *text = NULL;
	const char *issuer, *uri;
	json_t *doc, *old;
	int err;

	if (asprintf(&url, "%s%s.well-known/openid-configuration", j->issuer, j->issuer[strlen(j->issuer) - 1] == '/' ? "" : "/") < 0) {
		url = NULL;
		return -ENOMEM;
	}
	err = j->get(j->ctx, url, JWKS_TEXT_MAX, &text);
	if (err)
		return err;
	doc = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	issuer = json_string_value(json_object_get(doc, "issuer"));
	uri = json_string_value(json_object_get(doc, "jwks_uri"));
	if (!issuer || strcmp(issuer, j->issuer))
		err = fail(-EPROTO, "%s: it speaks for the issuer \"%.200s\", not for %s", url, issuer ? issuer : "", j->issuer);
	else if (!uri)
		err = fail(-EPROTO, "%s: no \"jwks_uri\"", url);
	else if (!(*ret = strdup(uri)))
		err = -ENOMEM;
	if (!err) {
		mutex_lock(&j->lock);
		old = j->discovery;
		j->discovery = json_incref(doc);
		mutex_unlock(&j->lock);
		json_decref(old);
	}
	json_decref(doc);
	return err;
}

static int keys_fetch(struct jwks *j)
{
	CLEANUP_FREE char *uri = NULL, *text = NULL;
	int err = 0;

	if (j->jwks_file)
		return keys_from_file(j);
	if (!j->jwks_uri)
		err = keys_where(j, &uri);
	if (!err)
		err = j->get(j->ctx, uri ? uri : j->jwks_uri, JWKS_TEXT_MAX, &text);
	return err ? err : keys_take(j, text, strlen(text), uri ? uri : j->jwks_uri);
}

/* Until somebody wants keys, or it is time again.  Returns with the lock held. */
static void wait_until_due(struct jwks *j)
{
	mutex_lock(&j->lock);
	while (!j->stop) {
		int64_t now = jwks_clock(), at;
		struct timespec until = {0};

		/* who wants keys that were asked for lately has been told so: jwks_want() */
		at = !j->tried || j->wanted ? 0 : j->tried + (j->fetched >= j->tried ? JWKS_REFRESH : JWKS_RETRY);
		if (now >= at)
			return;
		until.tv_sec = at - 1;
		(void)cond_wait_until(&j->wake, &j->lock, &until);
	}
}

static void *keep_fresh(void *arg)
{
	struct jwks *j = arg;
	bool good = true;

	for (;;) {
		int err;

		wait_until_due(j);
		if (j->stop)
			break;
		j->wanted = false;
		j->busy = true;
		j->tried = jwks_clock();
		mutex_unlock(&j->lock);
		fail_clear();
		err = keys_fetch(j);
		if (err && good)
			report(REPORT_ERROR, "the issuer's keys cannot be had: %s; trying again every %d s",
			       *fail_text() ? fail_text() : strerror(-err), JWKS_RETRY);
		else if (!err && !good)
			report(REPORT_NOTE, "the issuer's keys are there again");
		good = !err;
		mutex_lock(&j->lock);
		j->busy = false;
		mutex_unlock(&j->lock);
		if (j->on_done)
			j->on_done(j->arg);
	}
	mutex_unlock(&j->lock);
	return NULL;
}

static bool copy(const char *s, char **ret)
{
	*ret = s ? strdup(s) : NULL;
	return !s || *ret;
}

int jwks_new(const struct jwks_config *c, struct jwks **ret)
{
	struct jwks *j = calloc(1, sizeof(*j));
	int err = 0;

	if (!j)
		return -ENOMEM;
	mutex_init(&j->lock);
	mutex_init(&j->cache_lock);
	cond_init(&j->wake);
	j->algs = c->algs ? c->algs : JOSE_ALL;
	j->get = c->get;
	j->ctx = c->ctx;
	j->on_done = c->on_done;
	j->arg = c->arg;
	if (!copy(c->issuer, &j->issuer) || !copy(c->audience, &j->audience) || !copy(c->jwks_uri, &j->jwks_uri) ||
	    !copy(c->jwks_file, &j->jwks_file))
		err = -ENOMEM;
	if (!err && j->jwks_file) {
		err = keys_from_file(j);
		j->tried = jwks_clock();
	}
	if (!err) {
		err = -pthread_create(&j->thread, NULL, keep_fresh, j);
		j->has_thread = !err;
	}
	if (err)
		jwks_free(j);
	else
		*ret = j;
	return err;
}

void jwks_free(struct jwks *j)
{
	if (!j)
		return;
	if (j->has_thread) {
		mutex_lock(&j->lock);
		j->stop = true;
		cond_broadcast(&j->wake);
		mutex_unlock(&j->lock);
		pthread_join(j->thread, NULL);
	}
	tokens_drop(j);
	json_decref(j->keys);
	json_decref(j->discovery);
	cond_destroy(&j->wake);
	mutex_destroy(&j->cache_lock);
	mutex_destroy(&j->lock);
	free(j->issuer);
	free(j->audience);
	free(j->jwks_uri);
	free(j->jwks_file);
	free(j);
}

void jwks_refresh(struct jwks *j)
{
	mutex_lock(&j->lock);
	j->tried = 0;
	j->wanted = true;
	cond_broadcast(&j->wake);
	mutex_unlock(&j->lock);
}

int jwks_want(struct jwks *j)
{
	int err = -EAGAIN;

	mutex_lock(&j->lock);
	if (!j->busy && j->tried && jwks_clock() - j->tried < JWKS_RETRY) {
		/* asked a moment ago: the answer would be the same */
		err = j->fetched >= j->tried ? -EACCES : -EIO;
	} else if (!j->busy) {
		j->wanted = true;
		cond_broadcast(&j->wake);
	}
	mutex_unlock(&j->lock);
	return err;
}

json_t *jwks_find(struct jwks *j, const char *kid, uint64_t *ret_generation)
{
	json_t *found = NULL, *each;
	size_t i;

	mutex_lock(&j->lock);
	*ret_generation = j->generation;
	if (j->keys && jwks_clock() - j->fetched <= JWKS_STALE_MAX) {
		json_array_foreach(j->keys, i, each)
		{
			const char *own = json_string_value(json_object_get(each, "kid"));

			if (kid ? own && strcmp(own, kid) == 0 : json_array_size(j->keys) == 1) {
				found = json_incref(each);
				break;
			}
		}
	}
	mutex_unlock(&j->lock);
	return found;
}

size_t jwks_keys(struct jwks *j, int64_t *ret_age)
{
	size_t n;

	mutex_lock(&j->lock);
	n = json_array_size(j->keys);
	*ret_age = j->fetched ? jwks_clock() - j->fetched : -1;
	mutex_unlock(&j->lock);
	return n;
}

json_t *jwks_discovery(struct jwks *j)
{
	json_t *doc;

	mutex_lock(&j->lock);
	doc = json_incref(j->discovery);
	mutex_unlock(&j->lock);
	return doc;
}
