/* SPDX-License-Identifier: Apache-2.0 */
#include "policy_keys.h"

#include <jansson.h>

#include <errno.h>
#include <stdio.h>

#include "kas_source.h"
#include "policy_place.h"
#include "say.h"

struct wish { /* of one platform */
	struct remote_mapped *keys;
	size_t n;
	const struct volume_remote *by; /* at whose platform; borrowed */
	bool told;     /* it was asked and answered */
	char why[200]; /* why one could not be asked */
};

#define UNCHECKED "--unchecked (of `policy set`, `share`) asks nobody and makes files for the volume's own KAS keys"

/* Borrowed from @policy; more than fit: one more than that */
static size_t attributes_of(const json_t *policy, const char *fqns[static REMOTE_ATTRIBUTES_MAX])
{
	const json_t *list = json_object_get(json_object_get(policy, "body"), "dataAttributes"), *each;
	size_t n = 0, i;

	json_array_foreach(list, i, each)
	{
		const char *fqn = json_string_value(json_object_get(each, "attribute"));

		if (fqn && n == REMOTE_ATTRIBUTES_MAX)
			return n + 1;
		if (fqn)
			fqns[n++] = fqn;
	}
	return n;
}

static int ask_one(const struct volume_remote *conf, const char *const *fqns, size_t n, struct wish *ret)
{
	struct remote *r = NULL;
	int err = volume_remote_new(conf, &r);

	ret->by = conf;
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

static bool is_verdict(int err)
{
	return err == -ENOENT || err == -ENOTSUP || err == -ENOSPC;
}

/* What one platform says, beside what another one said; an exit code */
static int wish_take(const struct volume_remote *conf, struct wish *said, struct wish *all)
{
	if (said->n && all->n && !same_wish(said, all))
		return complain(fail(-EEXIST, "maps these attributes to other keys than another KAS's platform does"), conf->url,
				UNCHECKED);
	if (said->n && !all->n) {
		*all = *said;
		*said = (struct wish){0};
	}
	all->told = true;
	return EXIT_TDFS_OK;
}

/* Files with attributes that nobody can be asked about might open for nobody, or be made for keys that they are not to be made for. */
static int not_told(const struct volume_remote *conf, int err, bool needed)
{
	static const char what[] = "whether it knows the attributes, and keys of theirs, could not be found out";

	if (!needed) {
		report(REPORT_NOTE, "%s: %s: %s", conf->url, what, cause_text(err));
		return EXIT_TDFS_OK;
	}
	report(REPORT_ERROR, "%s: %s: %s; `tdfs kas test %s` tells more; " UNCHECKED, conf->url, what, cause_text(err), conf->url);
	return err == -EACCES || err == -ENOKEY ? EXIT_TDFS_KAS_REFUSED : EXIT_TDFS_KAS_AWAY;
}

static int ask_all(const struct volume *v, const json_t *policy, enum policy_keys_how how, struct wish *ret)
{
	const char *fqns[REMOTE_ATTRIBUTES_MAX];
	const struct volume_remote *silent = NULL;
	size_t n = attributes_of(policy, fqns);
	int code = EXIT_TDFS_OK, why = 0;

	if (n > REMOTE_ATTRIBUTES_MAX)
		return complain(fail(-ENOSPC, "its policy has more than %d attributes", REMOTE_ATTRIBUTES_MAX), v->path, UNCHECKED);
	for (size_t i = 0; i < v->n_remotes && n && !code; i++) {
		const struct volume_remote *conf = &v->remotes[i];
		struct wish said = {0};
		int err;

		if (conf->split < 0)
			continue;
		fail_clear();
		err = ask_one(conf, fqns, n, &said);
		if (is_verdict(err))
			code = complain(err, conf->url, err == -ENOENT ? "files with it would open for nobody; " UNCHECKED : UNCHECKED);
		else if (!err)
			code = wish_take(conf, &said, ret);
		else if (!silent) {
			silent = conf;
			why = err;
			snprintf(ret->why, sizeof(ret->why), "%s", cause_text(err));
		}
		remote_mapped_free(said.keys, said.n);
	}
	if (code || !silent)
		return code;
	fail_clear();
	return not_told(silent, fail(why, "%s", ret->why), !ret->told && how == POLICY_KEYS_ASK);
}

/* --- may files be made for them? --- */

/*
 * A platform speaks for its own KAS.  A key that it names for another one might be anybody's, who could then read the files: that KAS has to
 * say itself that it is one of its own.  @tried: why it could not show it by unwrapping.  An exit code
 */
static int ask_owner(const struct volume_remote *with, const struct volume_remote *by, int tried)
{
	static const char what[] = "whether the key that another platform maps to these attributes is its own";
	CLEANUP_FREE char *why = strdup(cause_text(tried));
	int err;

	fail_clear();
	err = kas_source_confirm(with);
	if (!err)
		return EXIT_TDFS_OK;
	if (err == -EBADMSG || err == -ENOENT) /* no verdict: it may have more keys than the one that it hands out */
		report(REPORT_ERROR,
		       "%s: %s (%s, named by %s) could not be found out: it hands out another one, and whether it unwraps for this one could "
		       "not be tried: %s; `tdfs kas test %s` tells more; " UNCHECKED,
		       with->url, what, with->kid, by->url, why ? why : "", with->url);
	else
		report(REPORT_ERROR, "%s: %s (%s, named by %s) could not be found out: %s; `tdfs kas test %s` tells more; " UNCHECKED, with->url,
		       what, with->kid, by->url, cause_text(err), with->url);
	return tried == -EACCES || tried == -ENOKEY ? EXIT_TDFS_KAS_REFUSED : EXIT_TDFS_KAS_AWAY;
}

/* A KAS may hand out a key that it does not unwrap for. */
static int try_key(const struct volume_remote *conf, const struct remote_mapped *m, const struct volume_remote *by)
{
	struct volume_remote with = *conf;
	int err, code;

	with.algorithm = m->algorithm;
	with.kid = m->kid;
	with.pem = m->pem;
	fail_clear();
	err = kas_source_probe(&with);
	if (err == -EBADMSG || err == -ENOTSUP)
		return complain(err, conf->url, "it does not unwrap for the key %s that the platform maps to these attributes; " UNCHECKED,
				m->kid);
	code = err && conf != by ? ask_owner(&with, by, err) : EXIT_TDFS_OK;
	if (err && !code)
		report(REPORT_NOTE, "%s: whether it gives keys back that are wrapped for %s could not be tried: %s", conf->url, m->kid,
		       cause_text(err));
	return code;
}

/* @by: whose platform says so; @ret: all borrowed.  An exit code */
static int key_take(const struct volume *v, const struct remote_mapped *m, const struct volume_remote *by, struct volume_remote *ret)
{
	const struct volume_remote *conf = volume_remote_at(v, m->url);

	if (!conf)
		return complain(fail(-ENOKEY, "files with these attributes are to be made for it, but the volume does not trust it"),
				m->url, "first: tdfs kas add %s %s --open-only --issuer URL --client-id ID ...", v->path, m->url);
	if (!m->pem && !conf->pem)
		return complain(fail(-ENOKEY, "no key of it is pinned"), conf->url, "first: tdfs kas pin %s %s", v->path, conf->url);
	*ret = (struct volume_remote){.url = m->url, .algorithm = m->algorithm, .kid = m->kid, .pem = m->pem, .split = (int)m->split};
	if (m->pem)
		return conf->kid && strcmp(conf->kid, m->kid) == 0 && strcmp(conf->pem, m->pem) == 0 ? EXIT_TDFS_OK : try_key(conf, m, by);
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

/* What every file needs, besides */
static void tell_kept(const struct volume *v, const struct volume_plan *p)
{
	for (int split = 0; split <= VOLUME_REMOTES_MAX; split++) {
		const char *word = "and for";

		if (!volume_plan_keeps(v, p, split))
			continue;
		if (v->kas_split == split) {
			printf("  %-10s embedded (%s), as every file\n", word, v->kas_kid);
			word = "  or";
		}
		for (size_t i = 0; i < v->n_remotes; i++)
			if (v->remotes[i].split == split) {
				printf("  %-10s %s (%s, %s), as every file\n", word, v->remotes[i].url, v->remotes[i].kid,
				       v->remotes[i].algorithm);
				word = "  or";
			}
	}
}

void policy_keys_tell(const struct volume *v, const char *policy)
{
	const struct volume_plan *p = volume_plan_of(v, policy);

	if (!p)
		return;
	tell_keys(p->keys, p->n);
	tell_kept(v, p);
}

/* @wish as the plan of @policy, by @put; without any it has none */
static int wish_put(struct volume *v, const char *policy, const struct wish *wish,
		    int (*put)(struct volume *v, const char *policy, const struct volume_remote *keys, size_t n))
{
	struct volume_remote keys[REMOTE_MAPPED_MAX] = {{0}};
	int code = EXIT_TDFS_OK, err;

	for (size_t i = 0; i < wish->n && !code; i++)
		code = key_take(v, &wish->keys[i], wish->by, &keys[i]);
	if (code)
		return code;
	fail_clear();
	err = put(v, policy, keys, wish->n);
	return err ? complain(err, v->path, NULL) : EXIT_TDFS_OK;
}

int policy_keys_set(struct volume *v, const char *policy, enum policy_keys_how how)
{
	CLEANUP_FREE char *mine = strdup(policy); /* it may be the volume's, which is read again */
	json_t *j = policy_parse(policy);
	struct wish wish = {.told = how == POLICY_KEYS_UNASKED};
	int code = mine ? EXIT_TDFS_OK : complain(-ENOMEM, v->path, NULL);

	if (!code && !wish.told)
		code = ask_all(v, j, how, &wish);
	if (!code && wish.told)
		code = wish_put(v, mine, &wish, volume_plan_set);
	if (!code && wish.told)
		policy_keys_tell(v, mine);
	remote_mapped_free(wish.keys, wish.n);
	json_decref(j);
	return code;
}

int policy_keys_use(struct volume *v, const char *policy)
{
	json_t *j = policy_parse(policy);
	struct wish wish = {.n = 0};
	int code = ask_all(v, j, POLICY_KEYS_ASK, &wish);

	if (!code)
		code = wish_put(v, policy, &wish, volume_plan_use);
	remote_mapped_free(wish.keys, wish.n);
	json_decref(j);
	return code;
}
