/* SPDX-License-Identifier: Apache-2.0 */
#include "policy_keys.h"

#include <jansson.h>

#include <errno.h>
#include <stdio.h>

#include "encode.h"
#include "kas_source.h"
#include "say.h"

struct wish { /* of one platform */
	struct remote_mapped *keys;
	size_t n;
	bool told; /* it was asked and answered */
};

/* As many as fit; borrowed from @policy */
static size_t attributes_of(const json_t *policy, const char *fqns[static REMOTE_ATTRIBUTES_MAX])
{
	const json_t *list = json_object_get(json_object_get(policy, "body"), "dataAttributes"), *each;
	size_t n = 0, i;

	json_array_foreach(list, i, each)
	{
		const char *fqn = json_string_value(json_object_get(each, "attribute"));

		if (fqn && n < REMOTE_ATTRIBUTES_MAX)
			fqns[n++] = fqn;
	}
	return n;
}

static int ask_one(const struct volume_remote *conf, const char *const *fqns, size_t n, struct wish *ret)
{
	struct remote *r = NULL;
	int err = volume_remote_new(conf, &r);

	if (!err)
		err = remote_mappings(r, fqns, n, &ret->keys, &ret->n);
	remote_free(r);
	return err;
}

static bool same_text(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

static bool same_wish(const struct wish *a, const struct wish *b)
{
	if (a->n != b->n)
		return false;
	for (size_t i = 0; i < a->n; i++)
		if (!same_text(a->keys[i].url, b->keys[i].url) || !same_text(a->keys[i].kid, b->keys[i].kid) ||
		    a->keys[i].split != b->keys[i].split)
			return false;
	return true;
}

/* What one platform says, beside what another one said; an exit code */
static int wish_take(const struct volume_remote *conf, int err, struct wish *said, struct wish *all)
{
	if (err == -ENOENT)
		return complain(err, conf->url, "files with it would open for nobody; --unchecked sets it all the same");
	if (err == -ENOTSUP || err == -ENOSPC)
		return complain(err, conf->url, "--unchecked makes files with them for the volume's own KAS keys");
	if (err) {
		report(REPORT_NOTE, "%s: whether it knows the attributes could not be found out: %s", conf->url, cause_text(err));
		return EXIT_TDFS_OK;
	}
	if (said->n && all->n && !same_wish(said, all))
		return complain(fail(-EEXIST, "maps these attributes to other keys than another KAS's platform does"), conf->url,
				"--unchecked makes files with them for the volume's own KAS keys");
	if (said->n && !all->n) {
		*all = *said;
		*said = (struct wish){0};
	}
	all->told = true;
	return EXIT_TDFS_OK;
}

static int ask_all(const struct volume *v, const json_t *policy, struct wish *ret)
{
	const char *fqns[REMOTE_ATTRIBUTES_MAX];
	size_t n = attributes_of(policy, fqns);
	int code = EXIT_TDFS_OK;

	for (size_t i = 0; i < v->n_remotes && n && !code; i++) {
		struct wish said = {0};

		if (v->remotes[i].split < 0)
			continue;
		fail_clear();
		code = wish_take(&v->remotes[i], ask_one(&v->remotes[i], fqns, n, &said), &said, ret);
		remote_mapped_free(said.keys, said.n);
	}
	return code;
}

/* --- may files be made for them? --- */

/* A KAS may hand out a key that it does not unwrap for. */
static int try_key(const struct volume_remote *conf, const struct remote_mapped *m)
{
	struct volume_remote with = *conf;
	int err;

	with.algorithm = m->algorithm;
	with.kid = m->kid;
	with.pem = m->pem;
	fail_clear();
	err = kas_source_probe(&with);
	if (err == -EBADMSG || err == -ENOTSUP)
		return complain(err, conf->url,
				"it does not unwrap for the key %s that its platform maps to these attributes; --unchecked makes files for "
				"the volume's own KAS keys",
				m->kid);
	if (err)
		report(REPORT_NOTE, "%s: whether it gives keys back that are wrapped for %s could not be tried: %s", conf->url, m->kid,
		       cause_text(err));
	return EXIT_TDFS_OK;
}

/* @ret: all borrowed.  An exit code */
static int key_take(const struct volume *v, const struct remote_mapped *m, struct volume_remote *ret)
{
	const struct volume_remote *conf = volume_remote_at(v, m->url);

	if (!conf)
		return complain(fail(-ENOKEY, "files with these attributes are to be made for it, but the volume does not trust it"),
				m->url, "first: tdfs kas add %s %s --open-only --issuer URL --client-id ID ...", v->path, m->url);
	if (!m->pem && !conf->pem)
		return complain(fail(-ENOKEY, "no key of it is pinned"), conf->url, "first: tdfs kas pin %s %s", v->path, conf->url);
	*ret = (struct volume_remote){.url = m->url, .algorithm = m->algorithm, .kid = m->kid, .pem = m->pem, .split = (int)m->split};
	if (m->pem)
		return conf->kid && strcmp(conf->kid, m->kid) == 0 && strcmp(conf->pem, m->pem) == 0 ? EXIT_TDFS_OK : try_key(conf, m);
	ret->algorithm = conf->algorithm;
	ret->kid = conf->kid;
	ret->pem = conf->pem;
	return EXIT_TDFS_OK;
}

static void tell_keys(const struct volume_remote *keys, size_t n)
{
	for (size_t i = 0; i < n; i++)
		printf("  %-10s %s (%s, %s)\n",
		       i && keys[i].split == keys[i - 1].split ? "  or"
		       : i                                     ? "and for"
							       : "made for",
		       keys[i].url, keys[i].kid, keys[i].algorithm);
}

void policy_keys_tell(const struct volume *v, const char *policy)
{
	const struct volume_plan *p = volume_plan_of(v, policy);

	if (p)
		tell_keys(p->keys, p->n);
}

/* @wish as the plan of @policy; without any it has none */
static int wish_set(struct volume *v, const char *policy, const struct wish *wish)
{
	struct volume_remote keys[REMOTE_MAPPED_MAX] = {{0}};
	int code = EXIT_TDFS_OK, err;

	for (size_t i = 0; i < wish->n && !code; i++)
		code = key_take(v, &wish->keys[i], &keys[i]);
	if (code)
		return code;
	fail_clear();
	err = volume_plan_set(v, policy, keys, wish->n);
	if (err)
		return complain(err, v->path, NULL);
	policy_keys_tell(v, policy); /* @keys were borrowed from what is gone now */
	return EXIT_TDFS_OK;
}

/* The JSON of base64; NULL: it is none */
static json_t *policy_of(const char *b64)
{
	size_t len = strlen(b64), got = 0;
	CLEANUP_FREE char *text = malloc(len + 1);

	return text && !base64_decode(b64, len, true, text, len, &got) ? json_loadb(text, got, 0, NULL) : NULL;
}

int policy_keys_set(struct volume *v, const char *policy, bool unasked)
{
	CLEANUP_FREE char *mine = strdup(policy); /* it may be the volume's, which is read again */
	json_t *j = policy_of(policy);
	struct wish wish = {.told = unasked};
	int code = mine ? EXIT_TDFS_OK : complain(-ENOMEM, v->path, NULL);

	if (!code && !unasked)
		code = ask_all(v, j, &wish);
	if (!code && wish.told)
		code = wish_set(v, mine, &wish);
	remote_mapped_free(wish.keys, wish.n);
	json_decref(j);
	return code;
}
