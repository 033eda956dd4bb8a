/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The conversation with a converter.  Names may be any bytes, so they travel as base64.
 *
 * {"op":"begin","path":P,"links":n}: see plain_session_begin().
 * {"op":"swap","paths":[P...],"temp":T,"temp_ino":n,"ino":n,"size":n,"mtime":[s,ns],"ctime":[s,ns]}: plain_session_swap().  {"op":"moves"}:
 * {"moves":n} for {"op":"strict","moves":n}: plain_strict().
 */
#include <errno.h>

#include "encode.h"
#include "plain.h"
#include "plain_talk.h"
#include "report.h"

struct plain_talk {
	const struct plain_talk_calls *calls;
	struct plain_session *session;
};

static int get_path(const json_t *value, char **ret)
{
	const char *text = json_string_value(value);
	size_t len = text ? strlen(text) : 0, n;
	CLEANUP_FREE char *path = malloc(len + 1);

	if (!path)
		return -ENOMEM;
	if (!text || base64_decode(text, len, false, path, len, &n) || memchr(path, 0, n))
		return fail(-EPROTO, "a request without a path");
	path[n] = 0;
	*ret = STEAL(path);
	return 0;
}

static struct timespec get_time(const json_t *req, const char *name)
{
	const json_t *a = json_object_get(req, name);

	return (struct timespec){.tv_sec = json_integer_value(json_array_get(a, 0)), .tv_nsec = json_integer_value(json_array_get(a, 1))};
}

static int swap(struct plain_talk *c, const json_t *req)
{
	const char *temp = json_string_value(json_object_get(req, "temp"));
	const json_t *list = json_object_get(req, "paths");
	struct plain_swap w = {.temp = temp ? temp : ""};
	size_t n = MIN(json_array_size(list), (size_t)PLAIN_NAMES_MAX);
	CLEANUP_FREE char **paths = calloc(n + 1, sizeof(*paths));
	int err = !paths ? -ENOMEM : n < json_array_size(list) ? fail(-EMLINK, "has more than %d names", PLAIN_NAMES_MAX) : 0;

	for (size_t i = 0; i < n && !err; i++)
		err = get_path(json_array_get(list, i), &paths[i]);
	w.paths = (const char *const *)paths;
	w.n_paths = n;
	w.temp_ino = (uint64_t)json_integer_value(json_object_get(req, "temp_ino"));
	w.st.st_ino = (ino_t)json_integer_value(json_object_get(req, "ino"));
	w.st.st_size = json_integer_value(json_object_get(req, "size"));
	w.st.st_mtim = get_time(req, "mtime");
	w.st.st_ctim = get_time(req, "ctime");
	if (!err)
		err = plain_session_swap(c->session, &w);
	for (size_t i = 0; paths && i < n; i++)
		free(paths[i]);
	return err;
}

static int begin(struct plain_talk *c, const json_t *req)
{
	json_int_t links = json_integer_value(json_object_get(req, "links"));
	CLEANUP_FREE char *path = NULL;
	int err = get_path(json_object_get(req, "path"), &path);

	return err ? err : plain_session_begin(c->session, path, links > 0 ? (uint64_t)links : 1);
}

int plain_talk_begin(const struct plain_talk_calls *calls, struct plain_talk **ret)
{
	struct plain_talk *c;

	if (!plain_on(calls->tree))
		return fail(-EROFS, "the volume is strict: `tdfs convert open` opens it for plain files");
	if (calls->tree->store->opt.read_only)
		return fail(-EROFS, "it is mounted read-only");
	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->calls = calls;
	c->session = plain_session_new(calls->tree);
	if (!c->session) {
		free(c);
		return -ENOMEM;
	}
	*ret = c;
	return 0;
}

json_t *plain_talk_answer(struct plain_talk *c, const json_t *req)
{
	const char *op = json_string_value(json_object_get(req, "op"));
	const struct tree *t = c->calls->tree;
	uint64_t moves = 0;
	int err = 0;

	if (op && !strcmp(op, "moves")) {
		err = plain_moves(t, &moves);
	} else if (op && !strcmp(op, "strict")) {
		moves = (uint64_t)json_integer_value(json_object_get(req, "moves"));
		err = plain_strict(t, moves, c->calls->strict, c->calls->arg);
	} else if (op && !strcmp(op, "begin")) {
		err = begin(c, req);
	} else if (op && !strcmp(op, "swap")) {
		err = swap(c, req);
	} else {
		err = fail(-EOPNOTSUPP, "unknown request");
	}
	return err ? control_error(err) : json_pack("{s:i, s:b, s:I}", "v", 1, "ok", 1, "moves", (json_int_t)moves);
}

void plain_talk_end(struct plain_talk *c)
{
	plain_session_free(c->session);
	free(c);
}
