/* SPDX-License-Identifier: Apache-2.0 */
/* tdfs kas registry: which KASes the platform of a volume's KAS knows, and which of them the volume trusts. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>

#include "cmd_kas.h"
#include "say.h"
#include "target.h"
#include "volume_remote.h"

struct registry_args {
	struct credential_source cred;
	bool json;
};

static int get(const struct volume_remote *conf, json_t **ret)
{
	CLEANUP_FREE char *text = NULL;
	struct remote *r = NULL;
	int err = volume_remote_new(conf, &r);

	if (!err)
		err = remote_registry(r, &text);
	remote_free(r);
	if (err)
		return err;
	*ret = json_loads(text, 0, NULL);
	return *ret ? 0 : -ENOMEM;
}

static void print_one(const struct volume *v, const json_t *s)
{
	const char *uri = json_string_value(json_object_get(s, "uri")), *name = json_string_value(json_object_get(s, "name"));
	CLEANUP_FREE char *shown = path_text(uri);
	CLEANUP_FREE char *called = name && *name ? path_text(name) : NULL;
	const json_t *each;
	size_t i;

	printf("%s%s%s%s\n", shown ? shown : "?", called ? " (" : "", called ? called : "", called ? ")" : "");
	printf(volume_remote_at(v, uri) ? "  trusted by the volume\n" : "  not trusted: tdfs kas add --open-only makes it so\n");
	json_array_foreach(json_object_get(s, "keys"), i, each)
	{
		CLEANUP_FREE char *kid = path_text(json_string_value(json_object_get(each, "kid")));
		CLEANUP_FREE char *algorithm = path_text(json_string_value(json_object_get(each, "algorithm")));

		printf("  key %s (%s)\n", kid ? kid : "?", algorithm ? algorithm : "?");
	}
}

/* The KAS that is asked: the one named, else the first one of the volume */
static const struct volume_remote *remote_of(const struct volume *v, const char *url)
{
	return url ? volume_remote_find(v, url) : v->n_remotes ? v->remotes : NULL;
}

static int registry_main(const void *args, int n, char **pos)
{
	const struct registry_args *a = args;
	CLEANUP(volume_cleanup) struct volume *v = NULL;
	const struct volume_remote *conf;
	json_t *list = NULL, *each;
	int code = volume_get(pos[0], &a->cred, &v), err;
	size_t i;

	if (code)
		return code;
	fail_clear();
	conf = remote_of(v, n > 1 ? pos[1] : NULL);
	if (!conf)
		return complain(fail(-ENOENT, "has no such KAS"), pos[0], "`tdfs kas list` shows them");
	err = get(conf, &list);
	if (err)
		return complain(err, conf->url, NULL);
	json_array_foreach(list, i, each)
	{
		if (a->json)
			json_object_set_new(each, "trusted",
					    json_boolean(volume_remote_at(v, json_string_value(json_object_get(each, "uri")))));
		else
			print_one(v, each);
	}
	if (a->json)
		return json_say(json_pack("{s:i, s:o}", "v", 1, "servers", list));
	json_decref(list);
	return output_flush(EXIT_TDFS_OK);
}

static const struct option_row rows[] = {
    {OPTION_FLAG, 0, "json", NULL, offsetof(struct registry_args, json), "answer in JSON"},
    CREDENTIAL_ROWS(struct registry_args, cred),
    {0},
};

const struct command kas_registry = {
    .name = "registry",
    .summary = "which KASes the platform behind a volume's KAS knows",
    .usage = "STORE [URL]",
    .notes = "URL: of a KAS of the volume, whose platform is asked; else the first one. Files\n"
	     "with attributes may be made for any of these (tdfs policy set).\n",
    .options = rows,
    .args_size = sizeof(struct registry_args),
    .min_args = 1,
    .max_args = 2,
    .run = registry_main,
};
