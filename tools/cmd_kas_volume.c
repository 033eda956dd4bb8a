/* SPDX-License-Identifier: Apache-2.0 */
/* tdfs kas add, list, pin, remove, wrap: the remote KASes that a volume trusts, and for whom its new files are made. */
#include <errno.h>
#include <stdio.h>

#include "cmd_kas.h"
#include "kas_source.h"
#include "say.h"
#include "target.h"

struct add_args {
	struct credential_source cred;
	struct kas_source kas;
	bool open_only;
};

struct volume_args {
	struct credential_source cred;
	bool json;
};

/* Open and locked: a mounted daemon would go on with what it has. */
static int open_held(const struct credential_source *cred, const char *store, struct volume **ret)
{
	int code = volume_get(store, cred, ret);

	fail_clear();
	return code ? code : volume_hold(*ret);
}

static void tell_key(const struct volume_remote *r)
{
	char hash[17] = "?";

	if (kas_key_hash(r->pem, hash))
		hash[0] = '\0';
	printf("  key %s (%s), SHA-256 %s...: compare it with what the KAS's keeper says\n", r->kid, r->algorithm, hash);
}

static int add_main(const void *args, int n, char **pos)
{
	const struct add_args *a = args;
	CLEANUP(volume_cleanup) struct volume *v = NULL;
	CLEANUP(volume_remote_clear) struct volume_remote r = {0};
	const char *splits[] = {pos[1]};
	int code = open_held(&a->cred, pos[0], &v), err;
	bool first;

	if (!code)
		code = kas_source_get(&a->kas, pos[1], v->path, &r);
	if (code)
		return code;
	first = !v->n_remotes;
	err = volume_remote_add(v, &r);
	if (!err && first && !a->open_only)
		err = volume_remotes_wrap(v, splits, 1);
	if (err)
		return complain(err, pos[0], err == -EEXIST ? "`tdfs kas list` shows it" : NULL);
	printf("%s trusts the KAS %s.\n", pos[0], r.url);
	tell_key(&r);
	if (first && !a->open_only)
		printf(
		    "New files are made for it alone. `tdfs kas wrap` changes that, `tdfs convert rewrap` moves files that are there.\n");
	return output_flush(EXIT_TDFS_OK);
}

static json_t *list_json(const struct volume *v)
{
	json_t *list = json_array();

	for (size_t i = 0; i < v->n_remotes; i++) {
		const struct volume_remote *r = &v->remotes[i];
		char hash[17] = "";
		json_t *j = json_pack("{s:s, s:i, s:s*, s:s*, s:s*, s:s*, s:s*}", "url", r->url, "split", r->split, "issuer", r->issuer,
				      "client_id", r->client_id, "audience", r->audience, "kid", r->kid, "algorithm", r->algorithm);

		if (r->pem && !kas_key_hash(r->pem, hash))
			json_object_set_new(j, "key_sha256", json_string(hash));
		json_array_append_new(list, j);
	}
	return json_pack("{s:i, s:{s:s, s:s, s:i}, s:o}", "v", 1, "embedded", "kid", v->kas_kid, "url", v->kas_url, "split", v->kas_split,
			 "remotes", list);
}

static void list_role(int split, unsigned n_splits)
{
	if (split < 0)
		printf("  opens files, new ones are not made for it\n");
	else if (n_splits > 1)
		printf("  new files: share %d of %u, all of which are needed\n", split + 1, n_splits);
	else
		printf("  new files are made for it\n");
}

static int list_main(const void *args, int n, char **pos)
{
	const struct volume_args *a = args;
	CLEANUP(volume_cleanup) struct volume *v = NULL;
	int code = volume_get(pos[0], &a->cred, &v);
	unsigned n_splits;

	if (code)
		return code;
	if (a->json)
		return json_say(list_json(v));
	n_splits = v->kas_split >= 0 ? (unsigned)v->kas_split + 1 : 0;
	for (size_t i = 0; i < v->n_remotes; i++)
		if (v->remotes[i].split >= 0)
			n_splits = MAX(n_splits, (unsigned)v->remotes[i].split + 1);
	printf("embedded (%s)\n", v->kas_kid);
	list_role(v->kas_split, n_splits);
	for (size_t i = 0; i < v->n_remotes; i++) {
		const struct volume_remote *r = &v->remotes[i];

		printf("%s\n", r->url);
		list_role(r->split, n_splits);
		if (r->pem)
			tell_key(r);
		if (r->issuer)
			printf("  issuer %s, client %s\n", r->issuer, r->client_id ? r->client_id : "-");
	}
	return output_flush(EXIT_TDFS_OK);
}

static int pin_main(const void *args, int n, char **pos)
{
	const struct add_args *a = args;
	CLEANUP(volume_cleanup) struct volume *v = NULL;
	CLEANUP(volume_remote_clear) struct volume_remote r = {0};
	const struct volume_remote *was;
	int code = open_held(&a->cred, pos[0], &v), err;
	bool same;

	if (code)
		return code;
	was = volume_remote_find(v, pos[1]);
	err = was ? volume_remote_copy(was, &r) : fail(-ENOENT, "has no KAS %s", pos[1]);
	if (err)
		return complain(err, pos[0], "`tdfs kas list` shows them");
	code = kas_source_key(&a->kas, &r);
	if (code)
		return code;
	same = was->pem && strcmp(was->pem, r.pem) == 0 && strcmp(was->kid, r.kid) == 0;
	err = same ? 0 : volume_remote_pin(v, r.url, r.algorithm, r.kid, r.pem);
	if (err)
		return complain(err, pos[0], NULL);
	printf(same ? "The key of %s is the one that is pinned.\n" : "Another key of %s is pinned; new files are made for it.\n", r.url);
	tell_key(&r);
	return output_flush(EXIT_TDFS_OK);
}

static int remove_main(const void *args, int n, char **pos)
{
	const struct volume_args *a = args;
	CLEANUP(volume_cleanup) struct volume *v = NULL;
	int code = open_held(&a->cred, pos[0], &v), err;

	if (code)
		return code;
	err = volume_remote_remove(v, pos[1]);
	if (err)
		return complain(err, pos[0], err == -EBUSY ? "first: tdfs kas wrap %s embedded" : "`tdfs kas list %s` shows them", pos[0]);
	printf("%s is not asked for keys any more: files that only it opens cannot be read.\n", pos[1]);
	return output_flush(EXIT_TDFS_OK);
}

static int wrap_main(const void *args, int n, char **pos)
{
	const struct volume_args *a = args;
	CLEANUP(volume_cleanup) struct volume *v = NULL;
	int code = open_held(&a->cred, pos[0], &v), err;

	if (code)
		return code;
	err = volume_remotes_wrap(v, (const char *const *)(pos + 1), (size_t)n - 1);
	if (err)
		return complain(err, pos[0], "`tdfs kas list %s` shows what there is", pos[0]);
	printf("New files are made so; `tdfs convert rewrap %s` moves those that are there.\n", pos[0]);
	return output_flush(EXIT_TDFS_OK);
}

static const struct option_row add_rows[] = {
    {OPTION_FLAG, 0, "open-only", NULL, offsetof(struct add_args, open_only), "make no new files for it"},
    KAS_ROWS(struct add_args, kas),
    CREDENTIAL_ROWS(struct add_args, cred),
    {0},
};
static const struct option_row pin_rows[] = {KAS_KEY_ROWS(struct add_args, kas), CREDENTIAL_ROWS(struct add_args, cred), {0}};
static const struct option_row list_rows[] = {
    {OPTION_FLAG, 0, "json", NULL, offsetof(struct volume_args, json), "answer in JSON"},
    CREDENTIAL_ROWS(struct volume_args, cred),
    {0},
};
static const struct option_row plain_rows[] = {CREDENTIAL_ROWS(struct volume_args, cred), {0}};

const struct command kas_add = {
    .name = "add",
    .summary = "trust a remote KAS, pin its public key",
    .usage = "STORE URL",
    .notes = "The first one added is what new files are made for, instead of the embedded\n"
	     "KAS. --client-id alone: log in with `tdfs login`. Files named here must not lie\n"
	     "in the store; secrets are never copied into it.\n",
    .options = add_rows,
    .args_size = sizeof(struct add_args),
    .min_args = 2,
    .max_args = 2,
    .run = add_main,
};

const struct command kas_list = {
    .name = "list",
    .summary = "which KASes a volume trusts, and who opens new files",
    .usage = "STORE",
    .options = list_rows,
    .args_size = sizeof(struct volume_args),
    .min_args = 1,
    .max_args = 1,
    .run = list_main,
};

const struct command kas_pin = {
    .name = "pin",
    .summary = "fetch a remote KAS's public key anew, for new files",
    .usage = "STORE URL",
    .notes = "Old files still open as long as the KAS keeps its old key.\n",
    .options = pin_rows,
    .args_size = sizeof(struct add_args),
    .min_args = 2,
    .max_args = 2,
    .run = pin_main,
};

const struct command kas_remove = {
    .name = "remove",
    .summary = "do not trust a remote KAS any more",
    .usage = "STORE URL",
    .options = plain_rows,
    .args_size = sizeof(struct volume_args),
    .min_args = 2,
    .max_args = 2,
    .run = remove_main,
};

const struct command kas_wrap_rule = {
    .name = "wrap",
    .summary = "say who opens new files",
    .usage = "STORE WHO[,WHO]...  [WHO...]",
    .notes = "WHO is a KAS's URL or \"embedded\". With commas: any one of them opens a file.\n"
	     "As several arguments: all of them are needed, none alone learns the key.\n",
    .options = plain_rows,
    .args_size = sizeof(struct volume_args),
    .min_args = 2,
    .max_args = 10,
    .run = wrap_main,
};
