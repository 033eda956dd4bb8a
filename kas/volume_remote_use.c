/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a volume's struct kas has of its remote KASes.  Each is made when it is first needed, in the process that needs it: opening a volume
 * needs no secret of a KAS, and a connection does not survive a fork.
 */
#include <errno.h>
#include <stdio.h>

#include "lock.h"
#include "report.h"
#include "volume_remote.h"

struct volume_remote_use {
	struct volume_remote_use *next;
	struct volume_remote conf; /* fixed */

	struct mutex lock; /* held while it is made; a leaf but for report */
	/* guarded by lock */
	struct remote *remote;
	pid_t pid; /* whose it is */
	int err;   /* why it cannot be made: remembered, since it was said */
	char text[200];
};

/* A path as written here: "~/" is $HOME/.  malloc'd; NULL stays NULL */
static int path_of(const char *path, char **ret)
{
	const char *home = getenv("HOME");

	*ret = NULL;
	if (!path)
		return 0;
	if (strncmp(path, "~/", 2) == 0 && !home)
		return fail(-EINVAL, "%s: $HOME is not set", path);
	if (path[0] == '~')
		return asprintf(ret, "%s%s", home, path + 1) < 0 ? -ENOMEM : 0;
	*ret = strdup(path);
	return *ret ? 0 : -ENOMEM;
}

int volume_remote_new(const struct volume_remote *r, struct remote **ret)
{
	CLEANUP_FREE char *secret = NULL;
	CLEANUP_FREE char *token = NULL;
	CLEANUP_FREE char *session = NULL;
	CLEANUP_FREE char *ca = NULL;
	struct remote_config c = {.url = r->url,
				  .issuer = r->issuer,
				  .audience = r->audience,
				  .client_id = r->client_id,
				  .spki_pin = r->spki_pin,
				  .allow = r->allow};
	int err = path_of(r->secret_file, &secret);

	if (!err)
		err = path_of(r->token_file, &token);
	if (!err)
		err = path_of(r->session_file, &session);
	if (!err)
		err = path_of(r->ca_file, &ca);
	if (err)
		return err;
	c.secret_file = secret;
	c.token_file = token;
	c.session_file = session;
	c.ca_file = ca;
	return remote_new(&c, ret);
}

/* The remote; NULL: it cannot be made, u->err says why.  A child leaves alone what its parent made: both would write to one connection. */
static struct remote *use_get(struct volume_remote_use *u)
{
	struct remote *r;

	mutex_lock(&u->lock);
	if (u->pid != getpid()) {
		u->pid = getpid();
		u->remote = NULL;
		u->err = volume_remote_new(&u->conf, &u->remote);
		if (u->err) {
			snprintf(u->text, sizeof(u->text), "%s", *fail_text() ? fail_text() : strerror(-u->err));
			u->remote = NULL;
		}
	}
	r = u->remote;
	mutex_unlock(&u->lock);
	return r;
}

/* One that cannot be made still is the one for what was made for it, so that the reason is told. */
static bool use_serves(void *ctx, const char *url)
{
	struct volume_remote_use *u = ctx;
	const struct remote *r = use_get(u);

	return r ? remote_serves(r, url) : strcmp(url, u->conf.url) == 0;
}

static int use_rewrap(void *ctx, struct remote_item *items, size_t n, unsigned ms)
{
	struct volume_remote_use *u = ctx;
	struct remote *r = use_get(u);

	for (size_t i = 0; i < n && !r; i++) {
		items[i].err = u->err == -ENOMEM ? -ENOMEM : -ENOKEY;
		snprintf(items[i].text, sizeof(items[i].text), "%.199s", u->text);
	}
	return r ? remote_rewrap(r, items, n, ms) : 0;
}

bool volume_remote_stats(const struct volume_remote *r, struct remote_stats *ret)
{
	struct remote *made = NULL;

	if (r->use) {
		mutex_lock(&r->use->lock);
		made = r->use->pid == getpid() ? r->use->remote : NULL;
		mutex_unlock(&r->use->lock);
	}
	if (made)
		remote_stats(made, ret);
	return made;
}

int volume_remotes_check(struct volume *v)
{
	for (struct volume_remote_use *u = v->remote_uses; u; u = u->next)
		if (!use_get(u))
			return fail(u->err, "%s: %s", u->conf.url, u->text);
	return 0;
}

static int add_use(struct volume *v, struct volume_remote *r)
{
	struct volume_remote_use *u = calloc(1, sizeof(*u));
	const struct kas_remote ops = {u, use_serves, use_rewrap};
	int err = u ? volume_remote_copy(r, &u->conf) : -ENOMEM;

	if (err) {
		free(u);
		return err;
	}
	mutex_init(&u->lock);
	u->next = v->remote_uses;
	v->remote_uses = u;
	r->use = u;
	return kas_add_remote(v->kas, &ops);
}

int volume_remote_writer(struct volume *v, const struct volume_remote *r)
{
	EVP_PKEY *key = NULL;
	int err = pubkey_public(r->pem, strlen(r->pem), &key);

	if (err)
		return fail(err, "%s/%s: the pinned key of %s: %s", v->path, TDFS_DIR, r->url, fail_text());
	return kas_add_writer(v->kas, r->kid, r->url, key, (unsigned)r->split);
}

int volume_remotes_load(struct volume *v)
{
	int err = 0;

	for (size_t i = 0; i < v->n_remotes && !err; i++)
		err = add_use(v, &v->remotes[i]);
	if (!err)
		err = volume_plans_load(v);
	if (!err)
		err = kas_plan(v->kas, NULL);
	/* in the order of the splits, which have no gap */
	for (int split = 0; v->n_remotes && split <= (int)v->n_remotes && !err; split++) {
		if (v->kas_split == split)
			err = kas_add_writer(v->kas, NULL, NULL, NULL, (unsigned)split);
		for (size_t i = 0; i < v->n_remotes && !err; i++)
			if (v->remotes[i].split == split)
				err = volume_remote_writer(v, &v->remotes[i]);
	}
	return err;
}

void volume_remote_uses_free(struct volume_remote_use *u)
{
	while (u) {
		struct volume_remote_use *next = u->next;

		if (u->pid == getpid())
			remote_free(u->remote);
		volume_remote_clear(&u->conf);
		mutex_destroy(&u->lock);
		free(u);
		u = next;
	}
}
