/* SPDX-License-Identifier: Apache-2.0 */
/* Who serves the store meanwhile, and how it is asked. */
#include "convert_live.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>

#include "encode.h"
#include "say.h"
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

/* What the daemon that has it mounted says; NULL: nobody has */
static json_t *status_of(const char *store)
{
	CLEANUP_FREE char *dir = tdfs_dir(store);
	json_t *status = NULL;

	fail_clear();
	if (!dir || control_call(dir, "status", ANSWER_MS, &status))
		fail_clear();
	return status;
}

bool live_serves(const char *store)
{
	json_t *status = status_of(store);
	const char *state = json_string_value(json_object_get(status, "state"));
	bool yes = state && strcmp(state, "converting") == 0;

	json_decref(status);
	return yes;
}

int live_refuse(const char *store, enum convert_verb verb, bool in_place)
{
	json_t *status = status_of(store);
	const char *where = json_string_value(json_object_get(status, "mountpoint"));
	CLEANUP_FREE char *shown = path_text(where ? where : "MOUNTPOINT");

	if (!status)
		return EXIT_TDFS_OK;
	if (verb == CONVERT_IN && in_place)
		report(REPORT_ERROR,
		       "%s: is mounted at %s and strict; `tdfs convert open %s` first, then the same command; or: tdfs umount %s", store,
		       shown, store, shown);
	else if (verb == CONVERT_IN)
		report(REPORT_ERROR, "%s: is mounted at %s: copy into the mount, or first: tdfs umount %s", store, shown, shown);
	else if (verb == CONVERT_OUT && !in_place)
		report(REPORT_ERROR, "%s: is mounted at %s: copy out of the mount, or first: tdfs umount %s", store, shown, shown);
	else
		report(REPORT_ERROR, "%s: is mounted at %s, which keeps the files' keys and changes; first: tdfs umount %s", store, shown,
		       shown);
	json_decref(status);
	return EXIT_TDFS_BUSY;
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
