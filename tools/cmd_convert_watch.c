/* SPDX-License-Identifier: Apache-2.0 */
/* tdfs convert status, pause, resume and cancel: a conversion seen and steered from another process.  No secret is needed: only the owner
 * gets at .tdfs. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>

#include "commands.h"
#include "convert_job.h"
#include "say.h"
#include "target.h"

struct watch_args {
	bool json, watch;
};

/* STORE/.tdfs/convert; -1: reported */
static int job_dir_open_path(const char *store)
{
	CLEANUP_FREE char *path = NULL;
	int fd;

	fail_clear();
	if (asprintf(&path, "%s/%s/%s", store, TDFS_DIR, CONVERT_DIR) < 0)
		path = NULL;
	fd = path ? open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
	if (fd < 0 && errno == ENOENT)
		report(REPORT_ERROR, "%s: nothing was converted here yet", store);
	else if (fd < 0)
		complain_file(-errno, store, NULL);
	return fd;
}

static const char *text_of(const json_t *j, const char *key)
{
	const char *s = json_string_value(json_object_get(j, key));

	return s ? s : "?";
}

static void status_line(const char *store, const json_t *j, const char *state)
{
	char bytes[SAY_TEXT];
	double took = json_number_value(json_object_get(j, "seconds"));
	json_int_t done = json_integer_value(json_object_get(j, "converted"));

	size_text((uint64_t)json_integer_value(json_object_get(j, "bytes")), bytes);
	printf("%s: convert %s%s: %s | %" JSON_INTEGER_FORMAT "/%" JSON_INTEGER_FORMAT
	       " files | %s | %.0f files/s | busy %" JSON_INTEGER_FORMAT " skipped %" JSON_INTEGER_FORMAT " failed %" JSON_INTEGER_FORMAT
	       "\n",
	       store, text_of(j, "verb"), json_is_true(json_object_get(j, "in_place")) ? " --in-place" : "", state,
	       json_integer_value(json_object_get(j, "files_seen")), json_integer_value(json_object_get(j, "files_total")), bytes,
	       took > 0 ? (double)done / took : 0, json_integer_value(json_object_get(j, "busy")),
	       json_integer_value(json_object_get(j, "skipped")), json_integer_value(json_object_get(j, "failed")));
}

static bool is_live(const char *state)
{
	return strcmp(state, "running") == 0 || strcmp(state, "paused") == 0 || strcmp(state, "stopping") == 0;
}

static int status_once(const struct watch_args *a, const char *store, int dir, bool *ret_live)
{
	json_t *j = status_read(dir);
	const char *state;

	*ret_live = false;
	if (!j) {
		report(REPORT_ERROR, "%s: nothing was converted here yet", store);
		return EXIT_TDFS_FAILED;
	}
	state = text_of(j, "state");
	if (is_live(state) && !store_holder(store)) { /* what it wrote last, a reboot ago perhaps */
		json_object_set_new(j, "state", json_string("killed"));
		state = "killed: the same command goes on";
	} else {
		*ret_live = is_live(state);
	}
	if (a->json) {
		json_dumpf(j, stdout, JSON_COMPACT);
		putchar('\n');
	} else {
		status_line(store, j, state);
	}
	fflush(stdout);
	json_decref(j);
	return EXIT_TDFS_OK;
}

static int status_main(const void *args, int n, char **pos)
{
	const struct watch_args *a = args;
	CLEANUP_FD int dir = job_dir_open_path(pos[0]);
	bool live = false;
	int code;

	if (dir < 0)
		return EXIT_TDFS_FAILED;
	do {
		code = status_once(a, pos[0], dir, &live);
		if (a->watch && live && !code)
			(void)poll(NULL, 0, 1000);
	} while (a->watch && live && !code);
	return output_flush(code);
}

static int request(const char *store, enum job_request r, const char *what)
{
	CLEANUP_FD int dir = job_dir_open_path(store);
	json_t *j = dir < 0 ? NULL : status_read(dir);
	bool live = j && is_live(text_of(j, "state")) && store_holder(store);
	int err;

	json_decref(j);
	if (dir < 0)
		return EXIT_TDFS_FAILED;
	if (!live) {
		report(REPORT_ERROR, "%s: no conversion is running", store);
		return EXIT_TDFS_FAILED;
	}
	err = request_write(dir, r);
	if (err)
		return complain(err, store, NULL);
	printf("%s\n", what);
	return output_flush(EXIT_TDFS_OK);
}

static int pause_main(const void *args, int n, char **pos)
{
	return request(pos[0], REQUEST_PAUSE, "It pauses when what is under way is done; `tdfs convert resume` goes on.");
}

static int resume_main(const void *args, int n, char **pos)
{
	return request(pos[0], REQUEST_NONE, "It goes on.");
}

static int cancel_main(const void *args, int n, char **pos)
{
	return request(pos[0], REQUEST_CANCEL,
		       "It ends when what is under way is done. Every file stays whole; its output tells how to go back.");
}

static const struct option_row status_rows[] = {
    {OPTION_FLAG, 0, "watch", NULL, offsetof(struct watch_args, watch), "once a second, until it ends"},
    {OPTION_FLAG, 0, "json", NULL, offsetof(struct watch_args, json), "answer in JSON"},
    {0},
};
static const struct option_row no_rows[] = {{0}};

const struct command convert_status = {.name = "status",
				       .summary = "how far a conversion is, or how the last one ended",
				       .usage = "STORE",
				       .options = status_rows,
				       .args_size = sizeof(struct watch_args),
				       .min_args = 1,
				       .max_args = 1,
				       .run = status_main};
const struct command convert_pause = {.name = "pause",
				      .summary = "let a running conversion wait",
				      .usage = "STORE",
				      .options = no_rows,
				      .min_args = 1,
				      .max_args = 1,
				      .run = pause_main};
const struct command convert_resume = {
    .name = "resume", .summary = "let it go on", .usage = "STORE", .options = no_rows, .min_args = 1, .max_args = 1, .run = resume_main};
const struct command convert_cancel = {.name = "cancel",
				       .summary = "end a running conversion cleanly",
				       .usage = "STORE",
				       .options = no_rows,
				       .min_args = 1,
				       .max_args = 1,
				       .run = cancel_main};
