/* SPDX-License-Identifier: Apache-2.0 */
/* Which policy new files get: the volume's, or that of the nearest directory above them that has one of its own. */
#include <jansson.h>

#include <errno.h>

#include "encode.h"
#include "report.h"
#include "volume_file.h"

#define DIR_MAX 4095

/* An OpenTDF policy object: what every client looks for in it. */
static int policy_check(const char *text, size_t len)
{
	json_error_t e;
	json_t *j = json_loadb(text, len, JSON_REJECT_DUPLICATES, &e), *body = json_object_get(j, "body");
	int err = 0;

	if (!json_is_object(j))
		err = fail(-EPROTO, "no JSON object (line %d: %s)", e.line, e.text);
	else if (!json_is_string(json_object_get(j, "uuid")))
		err = fail(-EPROTO, "no policy: its \"uuid\" is missing");
	else if (!json_is_array(json_object_get(body, "dataAttributes")) || !json_is_array(json_object_get(body, "dissem")))
		err = fail(-EPROTO, "no policy: its \"body\" needs the lists \"dataAttributes\" and \"dissem\"");
	json_decref(j);
	return err;
}

const char *volume_policy_at(const struct volume *v, const char *path)
{
	const char *best = v->policy;
	size_t best_len = 0;

	for (size_t i = 0; i < v->n_policies; i++) {
		const struct volume_policy *p = &v->policies[i];
		size_t len = strlen(p->dir);

		if (len > best_len && strncmp(path, p->dir, len) == 0 && (path[len] == '/' || !path[len])) {
			best = p->policy;
			best_len = len;
		}
	}
	return best;
}

void volume_policies_free(struct volume_policy *p, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free(p[i].dir);
		free(p[i].policy);
	}
	free(p);
}

/* --- volume.json --- */

/* A path below the store: no empty part, no "." or "..", none of ours. */
static bool dir_is_right(const char *dir)
{
	const char *at = dir;

	if (!*dir || strlen(dir) > DIR_MAX || strcmp(dir, TDFS_DIR) == 0 || strncmp(dir, TDFS_DIR "/", sizeof(TDFS_DIR)) == 0)
		return false;
	for (;;) {
		size_t len = strcspn(at, "/");

		if (!len || (len == 1 && at[0] == '.') || (len == 2 && at[0] == '.' && at[1] == '.'))
			return false;
		if (!at[len])
			return true;
		at += len + 1;
	}
}

static int parse_one(const json_t *o, struct volume *v)
{
	const json_t *d = json_object_get(o, "dir"), *p = json_object_get(o, "policy");
	const char *dir = json_string_value(d), *policy = json_string_value(p);
	struct volume_policy *to = &v->policies[v->n_policies];

	if (json_object_size(o) != 2 || !dir || !policy || strlen(dir) != json_string_length(d) || strlen(policy) > VOLUME_POLICY_MAX ||
	    !dir_is_right(dir))
		return fail(-EPROTO, "\"policies\" has something that is no policy of a directory");
	for (size_t i = 0; i < v->n_policies; i++)
		if (strcmp(v->policies[i].dir, dir) == 0)
			return fail(-EPROTO, "\"policies\" has the directory %.100s twice", dir);
	v->n_policies++;
	to->dir = strdup(dir);
	to->policy = strdup(policy);
	return to->dir && to->policy ? 0 : -ENOMEM;
}

int volume_policies_parse(json_t *list, struct volume *v)
{
	size_t i, n = json_array_size(list);
	json_t *each;

	if (!list)
		return 0;
	if (!n || n > VOLUME_POLICIES_MAX)
		return fail(-EPROTO, "%zu policies of directories: 1 to %d are right", n, VOLUME_POLICIES_MAX);
	v->policies = calloc(n, sizeof(*v->policies));
	if (!v->policies)
		return -ENOMEM;
	json_array_foreach(list, i, each)
	{
		int err = parse_one(each, v);

		if (err)
			return err;
	}
	return 0;
}

int volume_policies_put(const struct volume *v, FILE *f)
{
	for (size_t i = 0; i < v->n_policies; i++) {
		json_t *j = json_pack("{s:s, s:s}", "dir", v->policies[i].dir, "policy", v->policies[i].policy);
		CLEANUP_FREE char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;

		json_decref(j);
		if (!text)
			return -EINVAL;
		fprintf(f, "%s%s", i ? ",\n" : ",\n\"policies\":[\n", text);
	}
	if (v->n_policies)
		fputs("]", f);
	return 0;
}

/* --- changing --- */

static struct volume_policy *entry_find(const struct volume *v, const char *dir)
{
	for (size_t i = 0; i < v->n_policies; i++)
		if (strcmp(v->policies[i].dir, dir) == 0)
			return &v->policies[i];
	return NULL;
}

const char *volume_policy_own(const struct volume *v, const char *path)
{
	const struct volume_policy *p = *path ? entry_find(v, path) : NULL;

	return p ? p->policy : *path ? NULL : v->policy;
}

/* The entry of @dir; or a new one; NULL: no memory */
static struct volume_policy *entry_of(struct volume *v, const char *dir)
{
	struct volume_policy *more = entry_find(v, dir);

	if (more)
		return more;
	more = realloc(v->policies, (v->n_policies + 1) * sizeof(*more));
	if (!more)
		return NULL;
	v->policies = more;
	more[v->n_policies] = (struct volume_policy){.dir = strdup(dir)};
	return more[v->n_policies].dir ? &more[v->n_policies++] : NULL;
}

static void entry_drop(struct volume *v, struct volume_policy *p)
{
	free(p->dir);
	free(p->policy);
	*p = v->policies[--v->n_policies];
}

int volume_policy_set(struct volume *v, const char *dir, const char *text, size_t len)
{
	CLEANUP_CHANGE struct volume *locked = NULL;
	CLEANUP_FREE char *b64 = NULL;
	struct volume_policy *p = NULL;
	char **at = &v->policy, *was;
	int err = !text ? 0 : len <= VOLUME_POLICY_MAX / 4 * 3 ? policy_check(text, len) : fail(-EFBIG, "longer than a policy may be");

	if (!err && *dir ? !dir_is_right(dir) : !text)
		err = fail(-EINVAL, "\"%s\" is no directory in a store", dir);
	if (!err)
		err = volume_change_begin(v, &locked);
	if (err)
		return err;
	if (*dir && v->n_policies >= VOLUME_POLICIES_MAX && !entry_find(v, dir))
		return fail(-ENOSPC,
			    "%d directories and files have a policy of their own already: `tdfs policy set PATH --inherit` frees one",
			    VOLUME_POLICIES_MAX);
	b64 = malloc(BASE64_LEN(len) + 1);
	p = *dir ? entry_of(v, dir) : NULL;
	if (!b64 || (*dir && !p))
		return -ENOMEM;
	if (text)
		base64_encode(text, len, b64);
	at = p ? &p->policy : &v->policy;
	was = *at;
	*at = text ? b64 : NULL;
	b64 = text ? NULL : b64;
	if (!text) {
		p->policy = was;
		entry_drop(v, p);
		return volume_text_write(v);
	}
	if (was && strcmp(was, *at) == 0) {
		free(was);
		return 0;
	}
	err = volume_text_write(v);
	if (!err) {
		free(was);
		return 0;
	}
	free(*at);
	*at = was;
	if (!was)
		entry_drop(v, p);
	return err;
}
