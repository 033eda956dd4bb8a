/* SPDX-License-Identifier: Apache-2.0 */
/* The KASes that a platform knows (policy.kasregistry, ListKeyAccessServers), page by page. */
#include <errno.h>
#include <stdio.h>

#include "remote_int.h"
#include "report.h"

#define LIST "/policy.kasregistry.KeyAccessServerRegistryService/ListKeyAccessServers"
#define ANSWER_ROOM ((size_t)4 << 20)
#define SERVERS_MAX 1000
#define PAGES_MAX 100

/* What we tell of one; NULL: out of memory, or it has no URL */
static json_t *server_make(const json_t *s)
{
	const json_t *uri = json_object_get(s, "uri"), *name = json_object_get(s, "name"), *each;
	json_t *keys = json_array();
	size_t i;

	json_array_foreach(json_object_get(s, "kasKeys"), i, each)
	{
		const json_t *key = json_object_get(each, "publicKey");
		const char *kid = json_string_value(json_object_get(key, "kid")),
			   *algorithm = json_string_value(json_object_get(key, "algorithm"));

		json_array_append_new(keys, json_pack("{s:s, s:s}", "kid", kid ? kid : "", "algorithm", algorithm ? algorithm : ""));
	}
	return json_pack("{s:s, s:s*, s:o}", "uri", json_string_value(uri), "name", json_string_value(name), "keys", keys);
}

/* @ret_next: where the next page begins, 0: this was the last */
static int page_take(const struct remote *r, const struct http_answer *a, size_t offset, json_t *list, size_t *ret_next)
{
	json_t *j = json_loadb(a->body, a->len, JSON_REJECT_DUPLICATES, NULL), *each;
	json_int_t next = json_integer_value(json_object_get(json_object_get(j, "pagination"), "nextOffset"));
	int err = json_is_object(j) ? 0 : fail(-EPROTO, "%s: an answer that is not JSON", r->name);
	size_t i;

	json_array_foreach(json_object_get(j, "keyAccessServers"), i, each) if (json_is_string(json_object_get(each, "uri")) && !err) err =
	    json_array_append_new(list, server_make(each)) ? -ENOMEM : 0;
	json_decref(j);
	if (!err && next && (next < 0 || (size_t)next <= offset))
		err = fail(-EPROTO, "%s: its list of KASes has no end", r->name);
	if (!err && json_array_size(list) > SERVERS_MAX)
		err = fail(-EFBIG, "%s knows more than %d KASes", r->name, SERVERS_MAX);
	*ret_next = err ? 0 : (size_t)next;
	return err;
}

static int page_get(struct remote *r, size_t offset, json_t *list, size_t *ret_next)
{
	CLEANUP_ANSWER struct http_answer a = {0};
	char body[64], error[160];
	int err;

	snprintf(body, sizeof(body), "{\"pagination\":{\"offset\":%zu}}", offset);
	err = remote_exchange(r,
			      &(struct exchange){.connect = LIST,
						 .body = body,
						 .token = true,
						 .may_lack = true,
						 .answer_max = ANSWER_ROOM,
						 .deadline = http_now() + r->total_ms},
			      &a);
	if (err)
		return err;
	if (remote_lacks(&a))
		return fail(-ENOENT, "%s has no registry of KASes", r->name);
	connect_error(&a, error, sizeof(error));
	if (a.status != 200)
		return fail(a.status == 403 ? -EACCES : -EIO, "%s: %s", r->name, error);
	return page_take(r, &a, offset, list, ret_next);
}

int remote_registry(struct remote *r, char **ret)
{
	json_t *list = json_array();
	char *text = NULL;
	size_t offset = 0;
	int err = list ? 0 : -ENOMEM;

	if (!err && !r->oidc)
		err = fail(-EACCES, "there is no login for %s", r->name);
	for (int page = 0; !err; page++) {
		err = page < PAGES_MAX ? page_get(r, offset, list, &offset) : fail(-EFBIG, "%s: its list of KASes has no end", r->name);
		if (!offset)
			break;
	}
	if (!err && !(text = json_dumps(list, JSON_COMPACT)))
		err = -ENOMEM;
	json_decref(list);
	if (!err)
		*ret = text;
	return err;
}
