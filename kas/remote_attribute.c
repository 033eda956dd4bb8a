/* SPDX-License-Identifier: Apache-2.0 */
/* Does the platform know an attribute?  A file with one that it does not know opens for nobody. */
#include <errno.h>
#include <stdio.h>

#include "remote_int.h"
#include "report.h"

#define VALUES_BY_FQNS "/policy.attributes.AttributesService/GetAttributeValuesByFqns"
#define VALUE_ROOM 8192 /* of an answer, for each attribute: a definition has all its values with it */

/* One that was asked for and is not in the answer */
static const char *missing(const json_t *map, const char *const *fqns, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!json_object_get(map, fqns[i]))
			return fqns[i];
	return NULL;
}

static int answer_judge(const struct remote *r, const struct http_answer *a, const char *const *fqns, size_t n)
{
	const char *name;
	char error[160];
	json_t *j;
	int err = 0;

	connect_error(a, error, sizeof(error));
	if (a->status != 200)
		return fail(strncmp(error, "not_found", 9) ? -EIO : -ENOENT, "%s: %s", r->name, error);
	j = json_loadb(a->body, a->len, JSON_REJECT_DUPLICATES, NULL);
	if (!json_is_object(j))
		err = fail(-EPROTO, "%s: an answer that is not JSON", r->name);
	else if ((name = missing(json_object_get(j, "fqnAttributeValues"), fqns, n)))
		err = fail(-ENOENT, "%s knows no attribute %.200s", r->name, name);
	json_decref(j);
	return err;
}

int remote_attributes(struct remote *r, const char *const *fqns, size_t n)
{
	CLEANUP_ANSWER struct http_answer a = {0};
	CLEANUP_FREE char *body = NULL;
	json_t *list = json_array(), *j;
	int err;

	for (size_t i = 0; i < n; i++)
		json_array_append_new(list, json_string(fqns[i]));
	j = json_pack("{s:o}", "fqns", list);
	body = j && json_array_size(list) == n ? json_dumps(j, JSON_COMPACT) : NULL;
	json_decref(j);
	if (!body)
		return -ENOMEM;
	if (!r->oidc)
		return fail(-EACCES, "there is no login for %s", r->name);
	err = remote_exchange(r,
			      &(struct exchange){.connect = VALUES_BY_FQNS,
						 .body = body,
						 .token = true,
						 .answer_max = ANSWER_BASE + n * VALUE_ROOM,
						 .deadline = http_now() + r->total_ms},
			      &a);
	return err ? err : answer_judge(r, &a, fqns, n);
}
