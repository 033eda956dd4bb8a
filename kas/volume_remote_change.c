/* SPDX-License-Identifier: Apache-2.0 */
/* Changing the list of remote KASes: what stands on disk now is copied, changed, written, and only then put in its place. */
#include <errno.h>

#include "report.h"
#include "volume_file.h"
#include "volume_remote.h"

/* Put @list in the place of the present one, on disk and here; here only if the disk has it.  Takes what is left over. */
static int replace(struct volume *v, struct volume_remote *list, size_t n, int embedded)
{
	struct volume_remote *old = v->remotes;
	size_t n_old = v->n_remotes;
	int was = v->kas_split, err;

	v->remotes = list;
	v->n_remotes = n;
	v->kas_split = n ? embedded : 0;
	err = n ? volume_remotes_valid(v) : 0;
	if (!err && n == n_old)
		err = volume_plans_fit(v);
	if (!err)
		err = volume_text_write(v);
	if (err) {
		v->remotes = old;
		v->n_remotes = n_old;
		v->kas_split = was;
		volume_remotes_free(list, n);
		return fail(err, "%s/%s: %s", v->path, TDFS_DIR, *fail_text() ? fail_text() : strerror(-err));
	}
	volume_remotes_free(old, n_old);
	return 0;
}

/* A copy of the list, without @but, with room for one more. */
static int copy_list(const struct volume *v, const struct volume_remote *but, struct volume_remote **ret, size_t *ret_n)
{
	struct volume_remote *list = calloc(v->n_remotes + 1, sizeof(*list));
	size_t n = 0;
	int err = list ? 0 : -ENOMEM;

	for (size_t i = 0; i < v->n_remotes && !err; i++)
		if (&v->remotes[i] != but) {
			err = volume_remote_copy(&v->remotes[i], &list[n]);
			n += !err;
		}
	if (err) {
		volume_remotes_free(list, n);
		return err;
	}
	*ret = list;
	*ret_n = n;
	return 0;
}

int volume_remote_first(struct volume *v, const struct volume_remote *r)
{
	int err = volume_remote_check(v, r);

	if (err)
		return err;
	v->remotes = calloc(1, sizeof(*v->remotes));
	err = v->remotes ? volume_remote_copy(r, v->remotes) : -ENOMEM;
	if (err)
		return err;
	v->n_remotes = 1;
	v->remotes->split = 0;
	v->kas_split = -1;
	return 0;
}

int volume_remote_add(struct volume *v, const struct volume_remote *r)
{
	CLEANUP_CHANGE struct volume *locked = NULL;
	struct volume_remote *list;
	size_t n;
	int err = volume_remote_check(v, r);

	if (!err)
		err = volume_change_begin(v, &locked);
	if (err)
		return err;
	if (volume_remote_find(v, r->url))
		return fail(-EEXIST, "%s has the KAS %s already", v->path, r->url);
	if (v->n_remotes >= VOLUME_REMOTES_MAX)
		return fail(-ENOSPC, "%s has %d remote KASes already", v->path, VOLUME_REMOTES_MAX);
	err = copy_list(v, NULL, &list, &n);
	if (err)
		return err;
	err = volume_remote_copy(r, &list[n]);
	if (err) {
		volume_remotes_free(list, n);
		return err;
	}
	list[n].split = -1; /* volume_remotes_wrap() says for whom new files are */
	return replace(v, list, n + 1, v->kas_split);
}

int volume_remote_remove(struct volume *v, const char *url)
{
	CLEANUP_CHANGE struct volume *locked = NULL;
	const struct volume_remote *r;
	struct volume_remote *list;
	size_t n;
	int err = volume_change_begin(v, &locked);

	if (err)
		return err;
	r = volume_remote_find(v, url);
	if (!r)
		return fail(-ENOENT, "%s has no KAS %s", v->path, url);
	if (r->split >= 0)
		return fail(-EBUSY, "new files are made for %s", url);
	err = volume_plans_drop(v, url);
	if (!err)
		err = copy_list(v, r, &list, &n);
	return err ? err : replace(v, list, n, v->kas_split);
}

int volume_remote_pin(struct volume *v, const char *url, const char *algorithm, const char *kid, const char *pem)
{
	CLEANUP_CHANGE struct volume *locked = NULL;
	const struct volume_remote *r;
	struct volume_remote *list, next;
	size_t n;
	int err = volume_change_begin(v, &locked);

	if (err)
		return err;
	r = volume_remote_find(v, url);
	if (!r)
		return fail(-ENOENT, "%s has no KAS %s", v->path, url);
	err = copy_list(v, NULL, &list, &n);
	if (err)
		return err;
	volume_remote_clear(&list[r - v->remotes]);
	next = *r;
	next.algorithm = (char *)algorithm;
	next.kid = (char *)kid;
	next.pem = (char *)pem;
	err = volume_remote_copy(&next, &list[r - v->remotes]);
	if (err) {
		volume_remotes_free(list, n);
		return err;
	}
	return replace(v, list, n, v->kas_split);
}

/* One alternative of a split */
static int wrap_for(struct volume_remote *list, size_t n, int *embedded, const char *who, int split)
{
	struct volume_remote *r = NULL;
	int *at;

	for (size_t i = 0; i < n; i++)
		if (strcmp(list[i].url, who) == 0)
			r = &list[i];
	if (!r && strcmp(who, "embedded"))
		return fail(-ENOENT, "%s is no KAS of this volume, nor \"embedded\"", who);
	at = r ? &r->split : embedded;
	if (*at >= 0)
		return fail(-EINVAL, "%s is named twice", who);
	if (r && !r->pem)
		return fail(-EINVAL, "no key of %s is pinned: first: tdfs kas pin", who);
	*at = split;
	return 0;
}

int volume_remotes_wrap(struct volume *v, const char *const *splits, size_t n_splits)
{
	CLEANUP_CHANGE struct volume *locked = NULL;
	struct volume_remote *list;
	int embedded = -1, err = volume_change_begin(v, &locked);
	size_t n;

	if (err)
		return err;
	if (!v->n_remotes || !n_splits || n_splits > VOLUME_REMOTES_MAX + 1)
		return fail(-EINVAL, "%s has %zu remote KASes, %zu splits are asked for", v->path, v->n_remotes, n_splits);
	err = copy_list(v, NULL, &list, &n);
	for (size_t i = 0; i < n && !err; i++)
		list[i].split = -1;
	for (size_t s = 0; s < n_splits && !err; s++) {
		CLEANUP_FREE char *copy = strdup(splits[s]);
		char *at = copy, *one;

		err = copy ? 0 : -ENOMEM;
		while (!err && (one = strsep(&at, ",")))
			err = wrap_for(list, n, &embedded, one, (int)s);
		if (err)
			volume_remotes_free(list, n);
	}
	return err ? err : replace(v, list, n, embedded);
}
