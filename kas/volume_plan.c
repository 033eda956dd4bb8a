/* SPDX-License-Identifier: Apache-2.0 */
/* Policies whose files are made for KAS keys of their own: volume_remote.h, "Plans". */
#include <jansson.h>

#include <errno.h>
#include <stdio.h>

#include "encode.h"
#include "report.h"
#include "volume_file.h"
#include "volume_remote.h"

#define KEYS_MAX 16

static int policy_hash(const char *policy, uint8_t ret[static 32])
{
	return sha256(&(struct part){policy, strlen(policy)}, 1, ret);
}

static struct volume_plan *plan_find(const struct volume *v, const uint8_t hash[static 32])
{
	for (size_t i = 0; i < v->n_plans; i++)
		if (memcmp(v->plans[i].policy, hash, 32) == 0)
			return &v->plans[i];
	return NULL;
}

const struct volume_plan *volume_plan_of(const struct volume *v, const char *policy)
{
	uint8_t hash[32];

	return v->n_plans && !policy_hash(policy, hash) ? plan_find(v, hash) : NULL;
}

void volume_plans_free(struct volume_plan *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		volume_remotes_free(p[i].keys, p[i].n);
	free(p);
}

/* Splits that begin with 0 and go up without a gap, as kas_add_writer() wants them; each with a key */
static bool keys_are_right(const struct volume_remote *keys, size_t n)
{
	int last = -1;

	if (!n || n > KEYS_MAX)
		return false;
	for (size_t i = 0; i < n; i++) {
		if (!keys[i].pem || keys[i].split < last || keys[i].split > last + 1)
			return false;
		last = keys[i].split;
	}
	return keys[0].split == 0;
}

/* --- volume.json --- */

static int parse_one(const json_t *o, struct volume_plan *p, size_t *ret_n)
{
	const char *hex = json_string_value(json_object_get(o, "policy"));
	const json_t *list = json_object_get(o, "keys");
	size_t i, n = json_array_size(list);
	json_t *each;
	int err = 0;

	if (json_object_size(o) != 2 || !hex || strlen(hex) != 64 || hex_decode(hex, 64, p->policy, sizeof(p->policy)) || !n ||
	    n > KEYS_MAX)
		return fail(-EPROTO, "\"plans\" has something that is no plan");
	p->keys = calloc(n, sizeof(*p->keys));
	if (!p->keys)
		return -ENOMEM;
	++*ret_n;
	json_array_foreach(list, i, each)
	{
		p->n++;
		err = err ? err : volume_remote_entry_parse(each, &p->keys[i]);
	}
	return err || keys_are_right(p->keys, p->n) ? err : fail(-EPROTO, "the splits of a plan do not count from 0");
}

int volume_plans_parse(json_t *list, struct volume *v)
{
	size_t i, n = json_array_size(list);
	json_t *each;
	int err = 0;

	if (!list)
		return 0;
	if (!n || n > VOLUME_PLANS_MAX)
		return fail(-EPROTO, "%zu plans: 1 to %d are right", n, VOLUME_PLANS_MAX);
	v->plans = calloc(n, sizeof(*v->plans));
	if (!v->plans)
		return -ENOMEM;
	json_array_foreach(list, i, each) err = err ? err : parse_one(each, &v->plans[i], &v->n_plans);
	return err;
}

static int put_one(const struct volume_plan *p, bool first, FILE *f)
{
	json_t *list = json_array(), *j;
	CLEANUP_FREE char *text = NULL;
	char hex[65];

	hex_encode(p->policy, sizeof(p->policy), hex);
	for (size_t i = 0; i < p->n; i++)
		json_array_append_new(list, volume_remote_entry_json(&p->keys[i]));
	j = json_array_size(list) == p->n ? json_pack("{s:s, s:O}", "policy", hex, "keys", list) : NULL;
	text = j ? json_dumps(j, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
	json_decref(j);
	json_decref(list);
	if (!text)
		return -EINVAL;
	fprintf(f, "%s%s", first ? ",\n\"plans\":[\n" : ",\n", text);
	return 0;
}

int volume_plans_put(const struct volume *v, FILE *f)
{
	int err = 0;

	for (size_t i = 0; i < v->n_plans && !err; i++)
		err = put_one(&v->plans[i], i == 0, f);
	if (v->n_plans)
		fputs("]", f);
	return err;
}

/* --- using --- */

static int splits_of(const struct volume *v)
{
	int n = v->kas_split + 1;

	for (size_t i = 0; i < v->n_remotes; i++)
		n = MAX(n, v->remotes[i].split + 1);
	return n;
}

bool volume_plan_keeps(const struct volume *v, const struct volume_plan *p, int split)
{
	int n = splits_of(v);

	if (n < 2 || split < 0 || split >= n)
		return false;
	for (size_t i = 0, end; i < p->n; i = end) {
		bool within = true; /* whoever has this share of the plan is one of the split's KASes */

		for (end = i; end < p->n && p->keys[end].split == p->keys[i].split; end++) {
			const struct volume_remote *r = volume_remote_at(v, p->keys[end].url);

			within &= r && r->split == split;
		}
		if (within)
			return false;
	}
	return true;
}

/* -ENOSPC: more keys than a file may have */
static int plan_fits(const struct volume *v, const struct volume_plan *p)
{
	size_t n = p->n + (volume_plan_keeps(v, p, v->kas_split) ? 1 : 0);

	for (size_t i = 0; i < v->n_remotes; i++)
		n += volume_plan_keeps(v, p, v->remotes[i].split) ? 1 : 0;
	return n <= KEYS_MAX ? 0
			     : fail(-ENOSPC,
				    "files with these attributes are to be made for %zu keys, and with those that every file needs (tdfs "
				    "kas wrap) for %zu: %d are the most",
				    p->n, n, KEYS_MAX);
}

int volume_plans_fit(const struct volume *v)
{
	int err = 0;

	for (size_t i = 0; i < v->n_plans && !err; i++)
		err = plan_fits(v, &v->plans[i]);
	return err;
}

/* What all files need stands beside what the attributes ask for. */
static int kept_load(struct volume *v, const struct volume_plan *p)
{
	int next = p->keys[p->n - 1].split + 1, err = 0;

	for (int split = 0; split < splits_of(v) && !err; split++) {
		if (!volume_plan_keeps(v, p, split))
			continue;
		if (v->kas_split == split)
			err = kas_add_writer(v->kas, NULL, NULL, NULL, (unsigned)next);
		for (size_t i = 0; i < v->n_remotes && !err; i++) {
			struct volume_remote r = v->remotes[i];

			r.split = next;
			if (v->remotes[i].split == split)
				err = volume_remote_writer(v, &r);
		}
		next++;
	}
	return err;
}

static int plan_load(struct volume *v, const struct volume_plan *p)
{
	int err = kas_plan(v->kas, p->policy);

	for (size_t i = 0; i < p->n && !err; i++)
		err = volume_remote_writer(v, &p->keys[i]);
	if (err || !p->n)
		return err;
	if (plan_fits(v, p)) { /* set by an older tdfs: no reason not to open the volume */
		report(REPORT_WARN, "%s: %s; they are made for the former alone", v->path, fail_text());
		return 0;
	}
	return kept_load(v, p);
}

int volume_plans_load(struct volume *v)
{
	int err = 0;

	for (size_t i = 0; i < v->n_plans && !err; i++)
		err = plan_load(v, &v->plans[i]);
	return err;
}

/* --- changing --- */

static bool plan_has(const struct volume *v, const struct volume_plan *p, const char *url)
{
	const struct volume_remote *r = volume_remote_at(v, url);

	for (size_t i = 0; i < p->n && r; i++)
		if (volume_remote_at(v, p->keys[i].url) == r)
			return true;
	return false;
}

static void plan_remove(struct volume *v, struct volume_plan *p)
{
	volume_remotes_free(p->keys, p->n);
	*p = v->plans[--v->n_plans];
}

int volume_plans_drop(struct volume *v, const char *url)
{
	const struct volume_plan *p = volume_plan_of(v, v->policy);
	bool set = p && plan_has(v, p, url);

	for (size_t i = 0; i < v->n_policies; i++) {
		p = volume_plan_of(v, v->policies[i].policy);
		set |= p && plan_has(v, p, url);
	}
	if (set)
		return fail(-EBUSY, "the policy of new files of a directory has them made for %s", url);
	for (size_t i = v->n_plans; i-- > 0;)
		if (plan_has(v, &v->plans[i], url))
			plan_remove(v, &v->plans[i]);
	return 0;
}

/* A copy of @keys as a plan */
static int plan_make_of(const uint8_t hash[static 32], const struct volume_remote *keys, size_t n, struct volume_plan *ret)
{
	struct volume_plan p = {.keys = calloc(n, sizeof(*p.keys))};
	int err = p.keys ? 0 : -ENOMEM;

	memcpy(p.policy, hash, sizeof(p.policy));
	for (; p.n < n && !err; p.n++)
		err = volume_remote_copy(&(struct volume_remote){.url = keys[p.n].url,
								 .algorithm = keys[p.n].algorithm,
								 .kid = keys[p.n].kid,
								 .pem = keys[p.n].pem,
								 .split = keys[p.n].split},
					 &p.keys[p.n]);
	if (err) {
		volume_remotes_free(p.keys, p.n);
		return err;
	}
	*ret = p;
	return 0;
}

/* Takes @p over, also on failure */
static int plan_put(struct volume *v, struct volume_plan *p)
{
	struct volume_plan *more = plan_find(v, p->policy);

	if (more)
		plan_remove(v, more);
	more = v->n_plans < VOLUME_PLANS_MAX ? realloc(v->plans, (v->n_plans + 1) * sizeof(*more)) : NULL;
	if (!more) {
		volume_remotes_free(p->keys, p->n);
		return v->n_plans < VOLUME_PLANS_MAX ? -ENOMEM
						     : fail(-ENOSPC, "%d policies have keys of their own already", VOLUME_PLANS_MAX);
	}
	v->plans = more;
	more[v->n_plans++] = *p;
	return 0;
}

static int keys_check(const struct volume *v, const struct volume_remote *keys, size_t n)
{
	const struct volume_plan p = {.keys = (struct volume_remote *)keys, .n = n};

	if (!keys_are_right(keys, n))
		return fail(-EINVAL, "the splits of the keys do not count from 0, or there are more than %d", KEYS_MAX);
	for (size_t i = 0; i < n; i++)
		if (!volume_remote_at(v, keys[i].url))
			return fail(-ENOKEY, "files with these attributes are to be made for %s, which is no KAS that the volume trusts",
				    keys[i].url);
	return plan_fits(v, &p);
}

/* The plan on disk; what v->kas has is replaced, and given back to the writers of all policies */
static int plan_write(struct volume *v, const uint8_t hash[static 32], const struct volume_plan *p)
{
	int err = volume_text_write(v), back;

	if (!err)
		err = p ? plan_load(v, p) : kas_plan(v->kas, hash);
	back = kas_plan(v->kas, NULL);
	return err ? err : back;
}

/* None any more */
static int plan_unset(struct volume *v, const uint8_t hash[static 32])
{
	CLEANUP_CHANGE struct volume *locked = NULL;
	struct volume_plan *p;
	int err = volume_change_begin(v, &locked);

	p = err ? NULL : plan_find(v, hash);
	if (!p)
		return err;
	plan_remove(v, p);
	return plan_write(v, hash, NULL);
}

int volume_plan_set(struct volume *v, const char *policy, const struct volume_remote *keys, size_t n)
{
	CLEANUP_CHANGE struct volume *locked = NULL;
	struct volume_plan p = {.keys = NULL};
	uint8_t hash[32];
	int err = policy_hash(policy, hash);

	if (err)
		return err;
	if (!n)
		return plan_unset(v, hash);
	/* before the volume is read again: they may be borrowed from it */
	err = plan_make_of(hash, keys, n, &p);
	if (!err)
		err = volume_change_begin(v, &locked);
	if (!err)
		err = keys_check(v, p.keys, n);
	if (err) {
		volume_remotes_free(p.keys, p.n);
		return err;
	}
	err = plan_put(v, &p);
	return err ? err : plan_write(v, hash, &v->plans[v->n_plans - 1]);
}

int volume_plan_use(struct volume *v, const char *policy, const struct volume_remote *keys, size_t n)
{
	struct volume_plan p = {.keys = (struct volume_remote *)keys, .n = n};
	int err = policy_hash(policy, p.policy), back;

	if (!err && n)
		err = keys_check(v, keys, n);
	if (err)
		return err;
	err = plan_load(v, &p);
	back = kas_plan(v->kas, NULL);
	return err ? err : back;
}
