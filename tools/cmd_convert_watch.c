/* SPDX-License-Identifier: Apache-2.0 */
/* tdfs convert status, pause, resume and cancel: a conversion seen and steered from another process.  No secret is needed: only the owner
 * gets at .tdfs. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <time.h>

#include "commands.h"
#include "convert_job.h"
#include "plan.h"
#include "say.h"
#include "target.h"

struct watch_args {
	bool json, watch;
};

static bool is_plan(const char *path)
{
	CLEANUP_FREE char *file = NULL;

	return asprintf(&file, "%s/plan.json", path) > 0 && access(file, F_OK) == 0;
}

/* STORE/.tdfs/convert, or a plan; -1: reported */
static int job_dir_open_path(const char *store)
{
	CLEANUP_FREE char *path = NULL;
	int fd;

	fail_clear();
	if ((is_plan(store) ? asprintf(&path, "%s", store) : asprintf(&path, "%s/%s/%s", store, TDFS_DIR, CONVERT_DIR)) < 0)
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

/* Is the process that wrote this the one that has the store, or converts below its mount? */
static bool is_running(const char *store, const json_t *j)
{
	json_int_t pid = json_integer_value(json_object_get(j, "pid"));
	pid_t holder = json_is_true(json_object_get(j, "mounted")) ? convert_holder(store) : store_holder(store);

	return is_live(text_of(j, "state")) && (holder == pid || holder == -1);
}

static int status_once(const struct watch_args *a, const char *store, int dir, bool *ret_live)
{
	json_t *j = status_read(dir);
	const char *state;

	if (!j) {
		report(REPORT_ERROR, "%s: nothing was converted here yet", store);
		return EXIT_TDFS_FAILED;
	}
	state = text_of(j, "state");
	*ret_live = is_running(store, j);
	if (is_live(state) && !*ret_live) { /* what it wrote last, a reboot ago perhaps */
		json_object_set_new(j, "state", json_string("killed"));
		state = "killed: the same command goes on";
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

/* --- a plan: the sum of its runs --- */

#define SILENT_SECONDS 30

static const char *const sums[] = {"files_seen", "converted", "bytes", "already", "busy", "skipped", "failed"};

struct summing {
	int dir;
	json_t *sum;
	int64_t runs, live;
};

static int run_add(void *arg, const char *name, unsigned char d_type, ino_t ino)
{
	struct summing *s = arg;
	CLEANUP_FD int dir = openat(s->dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	json_t *j = dir < 0 ? NULL : status_read(dir);
	struct stat st;

	if (!j)
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(sums); i++)
		json_object_set_new(
		    s->sum, sums[i],
		    json_integer(json_integer_value(json_object_get(s->sum, sums[i])) + json_integer_value(json_object_get(j, sums[i]))));
	s->runs++;
	s->live += is_live(text_of(j, "state")) && fstatat(dir, "status", &st, 0) == 0 && time(NULL) - st.st_mtim.tv_sec < SILENT_SECONDS;
	json_decref(j);
	return 0;
}

static int plan_once(const struct watch_args *a, const char *path, bool *ret_live)
{
	struct plan_counts n = {0};
	struct summing s = {.dir = -1, .sum = json_object()};
	struct plan *p = NULL;
	const char *state;
	struct io io;
	int err;

	fail_clear();
	err = treeplan_read(path, &p);
	if (!err)
		err = treeplan_count(p, &n);
	if (!err) {
		s.dir = openat(p->dir, "run", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		io = io_posix(s.dir);
		err = s.dir < 0 ? -errno : io.list(io.ctx, s.dir, run_add, &s);
		close_fd(&s.dir);
	}
	if (err) {
		json_decref(s.sum);
		treeplan_free(p);
		return complain_file(err, path, NULL);
	}
	*ret_live = s.live > 0;
	state = !n.queue && !n.work ? "done" : s.live ? "running" : s.runs ? "stopped" : "not begun";
	if (a->json) {
		json_object_update_new(s.sum,
				       json_pack("{s:i, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "v", 1, "state", state, "chunks",
						 (json_int_t)p->head.chunks, "queue", (json_int_t)n.queue, "work", (json_int_t)n.work,
						 "done", (json_int_t)n.done, "files_total", (json_int_t)p->head.files, "runs",
						 (json_int_t)s.runs, "runs_live", (json_int_t)s.live));
		json_dumpf(s.sum, stdout, JSON_COMPACT);
		putchar('\n');
	} else {
		char bytes[SAY_TEXT];

		size_text((uint64_t)json_integer_value(json_object_get(s.sum, "bytes")), bytes);
		printf("%s: %s | chunks: %" PRIu64 " done, %" PRIu64 " under way, %" PRIu64 " waiting | %" JSON_INTEGER_FORMAT "/%" PRIu64
		       " files | %s | %" PRId64 " runs, %" PRId64 " live | busy %" JSON_INTEGER_FORMAT " skipped %" JSON_INTEGER_FORMAT
		       " failed %" JSON_INTEGER_FORMAT "\n",
		       path, state, n.done, n.work, n.queue, json_integer_value(json_object_get(s.sum, "converted")), p->head.files, bytes,
		       s.runs, s.live, json_integer_value(json_object_get(s.sum, "busy")),
		       json_integer_value(json_object_get(s.sum, "skipped")), json_integer_value(json_object_get(s.sum, "failed")));
	}
	fflush(stdout);
	json_decref(s.sum);
	treeplan_free(p);
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
		code = is_plan(pos[0]) ? plan_once(a, pos[0], &live) : status_once(a, pos[0], dir, &live);
		if (a->watch && live && !code)
			(void)poll(NULL, 0, 1000);
	} while (a->watch && live && !code);
	return output_flush(code);
}

static int request(const char *store, enum job_request r, const char *what)
{
	CLEANUP_FD int dir = job_dir_open_path(store);
	json_t *j = dir < 0 ? NULL : status_read(dir);
	bool live = is_plan(store) || (j && is_running(store, j));
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
				       .usage = "STORE|PLAN",
				       .options = status_rows,
				       .args_size = sizeof(struct watch_args),
				       .min_args = 1,
				       .max_args = 1,
				       .run = status_main};
const struct command convert_pause = {.name = "pause",
				      .summary = "let a running conversion wait",
				      .usage = "STORE|PLAN",
				      .options = no_rows,
				      .min_args = 1,
				      .max_args = 1,
				      .run = pause_main};
const struct command convert_resume = {.name = "resume",
				       .summary = "let it go on",
				       .usage = "STORE|PLAN",
				       .options = no_rows,
				       .min_args = 1,
				       .max_args = 1,
				       .run = resume_main};
const struct command convert_cancel = {.name = "cancel",
				       .summary = "end a running conversion cleanly",
				       .usage = "STORE|PLAN",
				       .options = no_rows,
				       .min_args = 1,
				       .max_args = 1,
				       .run = cancel_main};
