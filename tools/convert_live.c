/* SPDX-License-Identifier: Apache-2.0 */
/* Who serves the store meanwhile, and how it is asked. */
#include "convert_live.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>

#include "convert.h"
#include "encode.h"
#include "report.h"
#include "target.h"

#define ANSWER_MS 10000
#define ASK_MS 120000

int live_mounted(const struct volume *v)
{
	struct control_talk *c = NULL;
	int err;

	fail_clear();
	err = control_talk_open(v->dir_fd, ANSWER_MS, &c);
	control_talk_close(c);
	if (err != -ENOENT && err != -ECONNREFUSED)
		return err ? err : 1;
	fail_clear();
	return 0;
}

int live_hold(const struct volume *v)
{
	CLEANUP_FD int dir = -1, fd = -1;
	int err;

	if (mkdirat(v->dir_fd, CONVERT_DIR, 0700) && errno != EEXIST)
		return fail(-errno, "%s/" TDFS_DIR "/" CONVERT_DIR ": %s", v->path, strerror(errno));
	dir = openat(v->dir_fd, CONVERT_DIR, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	fd = dir < 0 ? -1 : openat(dir, CONVERT_LOCK, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600);
	if (fd < 0)
		return fail(-errno, "%s/" TDFS_DIR "/" CONVERT_DIR "/" CONVERT_LOCK ": %s", v->path, strerror(errno));
	if (flock(fd, LOCK_EX | LOCK_NB)) {
		err = errno == EWOULDBLOCK ? fail(-EBUSY, "it is being converted by another process") : -errno;
		return err;
	}
	err = fd;
	fd = -1;
	return err;
}

bool live_serves(const char *store)
{
	CLEANUP_FREE char *dir = tdfs_dir(store);
	json_t *status = NULL;
	const char *state;
	bool yes;

	fail_clear();
	if (!dir || control_call(dir, "status", ANSWER_MS, &status)) {
		fail_clear();
		return false;
	}
	state = json_string_value(json_object_get(status, "state"));
	yes = state && strcmp(state, "converting") == 0;
	json_decref(status);
	return yes;
}

int live_talk_open(const struct volume *v, struct control_talk **ret)
{
	int err = control_talk_open(v->dir_fd, ASK_MS, ret);

	return err == -ENOENT || err == -ECONNREFUSED ? fail(-EPIPE, "its mount has ended") : err;
}

json_t *live_path(const char *path)
{
	CLEANUP_FREE char *text = malloc(BASE64_LEN(strlen(path)) + 1);

	if (!text)
		return NULL;
	base64_encode(path, strlen(path), text);
	return json_string(text);
}

int live_ask(struct control_talk *c, const char *op, json_t *more, json_t **ret)
{
	json_t *req = more ? more : json_object();

	json_object_set_new(req, "op", json_string(op));
	return control_talk(c, req, ret);
}

int live_begin(struct control_talk *c, const char *path, uint64_t links)
{
	return live_ask(c, "begin", json_pack("{s:o, s:I}", "path", live_path(path), "links", (json_int_t)links), NULL);
}
