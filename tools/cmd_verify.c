/* SPDX-License-Identifier: Apache-2.0 */
/* tdfs verify: every byte of files and trees. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "commands.h"
#include "say.h"
#include "tree.h"
#include "verify.h"

struct args {
	struct key_options keys;
	uint64_t jobs;
	bool json, progress_json, quiet;
};

struct tally {
	const struct args *args;
	struct progress *progress;
	json_t *failed, *incomplete, *no_key, *live;
	uint64_t ok, bad, n_no_key, n_incomplete, n_live, foreign, bytes;
	/* of the walk */
	struct verify *verify;
	size_t named; /* bytes of the paths that are what the user named */
	uint64_t total, others, unreadable;
	bool only_count;
};

static json_t *problem_json(const struct verify_problem *p)
{
	json_t *j = json_object();

	json_object_set_new(j, "reason", json_path(p->reason ? p->reason : "out of memory"));
	if (!p->whole) {
		json_object_set_new(j, "segment", json_integer((json_int_t)p->segment));
		json_object_set_new(j, "plain_offset", json_integer((json_int_t)p->plain_off));
		json_object_set_new(j, "file_offset", json_integer((json_int_t)p->file_off));
	}
	return j;
}

static void bad_json(struct tally *t, const struct verify_result *r)
{
	json_t *problems = json_array();

	for (size_t i = 0; i < MIN(r->n_problems, VERIFY_SHOWN); i++)
		json_array_append_new(problems, problem_json(&r->problems[i]));
	json_array_append_new(
	    t->failed, json_pack("{s:o, s:I, s:o}", "path", json_path(r->path), "count", (json_int_t)r->n_problems, "problems", problems));
}

static void bad_print(const char *path, const struct verify_result *r)
{
	for (size_t i = 0; i < MIN(r->n_problems, VERIFY_SHOWN); i++) {
		const struct verify_problem *p = &r->problems[i];
		const char *reason = p->reason ? p->reason : "out of memory";

		if (p->whole)
			printf("BAD  %s: %s\n", path, reason);
		else
			printf("BAD  %s: bytes from %" PRIu64 " on (segment %" PRIu64 ", at %" PRIu64 " in the TDF): %s\n", path,
			       p->plain_off, p->segment, p->file_off, reason);
	}
	if (r->n_problems > VERIFY_SHOWN)
		printf("BAD  %s: and %zu more\n", path, r->n_problems - VERIFY_SHOWN);
}

/* called by one thread at a time */
static void on_result(void *arg, const struct verify_result *r)
{
	struct tally *t = arg;
	CLEANUP_FREE char *shown = path_text(r->path);
	const char *path = shown ? shown : r->path;
	bool print = !t->args->json;

	t->ok += r->state == VERIFY_OK;
	t->bad += r->state == VERIFY_BAD;
	t->n_incomplete += r->state == VERIFY_INCOMPLETE;
	t->n_no_key += r->state == VERIFY_NO_KEY;
	t->n_live += r->live;
	t->foreign += r->state == VERIFY_OK && !r->native;
	t->bytes += r->size;
	if (print && (r->state != VERIFY_OK || r->live))
		progress_hush(t->progress);
	if (r->state == VERIFY_BAD) {
		bad_json(t, r);
		if (print)
			bad_print(path, r);
	} else if (r->state == VERIFY_INCOMPLETE) {
		json_array_append_new(t->incomplete, json_path(r->path));
		if (print)
			printf("note %s: never completed: it was created, but nothing was saved in it\n", path);
	} else if (r->state == VERIFY_NO_KEY) {
		json_array_append_new(t->no_key, json_path(r->path));
		if (print)
			printf("skip %s: none of the keys at hand opens it; --kas-key FILE gives another\n", path);
	} else if (r->live) {
		json_array_append_new(t->live, json_path(r->path));
		if (print)
			printf("note %s: has changes in the log; what is sealed is whole\n", path);
	}
	if (print)
		fflush(stdout);
}

static int on_entry(void *arg, const struct tree_entry *e)
{
	struct tally *t = arg;

	if (interrupted())
		return -EINTR;
	if (!S_ISREG(e->st.st_mode))
		return 0;
	if (!name_is_tdf(e->name)) {
		t->others += !t->only_count;
		return 0;
	}
	if (t->only_count) {
		t->total += (uint64_t)e->st.st_size;
		return 0;
	}
	return verify_file(t->verify, e->path, t->named);
}

static void on_unreadable(void *arg, const char *path, int err)
{
	struct tally *t = arg;

	if (t->only_count)
		return;
	fail_clear();
	complain(err, path, NULL);
	t->unreadable++;
}

/* A file is taken as it is, of a directory all *.tdf below it. */
static int feed(struct tally *t, const char *path)
{
	struct tree_calls calls = {t, on_entry, on_unreadable};
	struct stat st;
	int err;

	if (stat(path, &st)) {
		on_unreadable(t, path, -errno);
		return 0;
	}
	if (!S_ISDIR(st.st_mode)) {
		t->total += t->only_count ? (uint64_t)st.st_size : 0;
		return t->only_count ? 0 : verify_file(t->verify, path, 0);
	}
	t->named = strlen(path);
	err = tree_walk(path, &calls);
	if (err && err != -EINTR && err != -ENOMEM) {
		on_unreadable(t, path, err);
		err = 0;
	}
	return err;
}

/* Where somebody names the mount, its store is meant: in the mount there are no TDFs. */
static const char *path_meant(const char *path, char **ret_owned)
{
	CLEANUP_FREE char *store = NULL;
	CLEANUP_FREE char *mountpoint = NULL;
	CLEANUP_FREE char *real = realpath(path, NULL);

	if (!real || store_resolve(path, &store, &mountpoint) || !mountpoint || strcmp(mountpoint, real) != 0)
		return path;
	report(REPORT_NOTE, "%s is where the store %s is mounted; verifying the store", path, store);
	*ret_owned = STEAL(store);
	return *ret_owned;
}

static void print_summary(const struct tally *t)
{
	char bytes[SAY_TEXT];

	size_text(t->bytes, bytes);
	printf("%" PRIu64 " files verified: %s of content, every segment, signature and zip checksum\n", t->ok, bytes);
	if (t->foreign)
		printf("%" PRIu64 " of them were not made by this volume\n", t->foreign);
	if (t->others)
		printf("%" PRIu64 " files are not TDFs by their name; `tdfs check` lists them\n", t->others);
	if (t->n_incomplete)
		printf("%" PRIu64 " never completed\n", t->n_incomplete);
	if (t->n_no_key)
		printf("%" PRIu64 " could not be verified: no key for them\n", t->n_no_key);
	if (t->bad)
		printf("%" PRIu64 " FILES ARE BAD\n", t->bad);
	if (t->unreadable)
		printf("%" PRIu64 " places could not be read\n", t->unreadable);
}

static int say_summary(const struct tally *t)
{
	if (!t->args->json) {
		print_summary(t);
		return EXIT_TDFS_OK;
	}
	return json_say(json_pack("{s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:O, s:O, s:O, s:O}", "v", 1, "ok", (json_int_t)t->ok, "bad",
				  (json_int_t)t->bad, "foreign", (json_int_t)t->foreign, "not_tdf", (json_int_t)t->others, "unreadable",
				  (json_int_t)t->unreadable, "bytes", (json_int_t)t->bytes, "failed", t->failed, "no_key", t->no_key,
				  "incomplete", t->incomplete, "live", t->live));
}

static int verify_all(struct tally *t, const struct target *target, int n, const char **paths)
{
	struct verify_params par = {
	    .target = target,
	    .threads = (unsigned)MIN(t->args->jobs, 256),
	    .in_use = target->vol && store_holder(target->vol->path) != 0,
	    .result = on_result,
	    .arg = t,
	};
	enum progress_form form = t->args->progress_json ? PROGRESS_JSON : t->args->quiet ? PROGRESS_NONE : PROGRESS_AUTO;
	int err = 0;

	t->only_count = true;
	for (int i = 0; i < n && !err; i++)
		err = feed(t, paths[i]);
	t->only_count = false;
	if (err)
		return err;
	t->progress = par.progress = progress_start(form, "verified", t->total);
	err = verify_start(&par, &t->verify);
	if (!err) {
		for (int i = 0; i < n && !err; i++)
			err = feed(t, paths[i]);
		verify_finish(t->verify);
	}
	progress_stop(t->progress);
	t->progress = NULL;
	return interrupted() ? -EINTR : err;
}

static int verify_paths(const struct args *a, const struct target *target, int n, const char **paths)
{
	struct tally t = {.args = a, .failed = json_array(), .incomplete = json_array(), .no_key = json_array(), .live = json_array()};
	int err = verify_all(&t, target, n, paths), code = EXIT_TDFS_OK;

	if (err == -EINTR) {
		report(REPORT_ERROR, "interrupted: %" PRIu64 " files were verified, %" PRIu64 " of them bad", t.ok + t.bad, t.bad);
		code = EXIT_TDFS_INTERRUPTED;
	} else if (err) {
		code = complain(err, NULL, NULL);
	} else {
		code = say_summary(&t);
		if (t.bad || t.unreadable || t.n_no_key)
			code = EXIT_TDFS_SOME;
	}
	json_decref(t.failed);
	json_decref(t.incomplete);
	json_decref(t.no_key);
	json_decref(t.live);
	return code;
}

static int run(const void *args, int n, char **pos)
{
	const struct args *a = args;
	struct target t = {0};
	const char **paths = calloc((size_t)n, sizeof(*paths));
	char **owned = calloc((size_t)n, sizeof(*owned));
	int code = paths && owned ? EXIT_TDFS_OK : complain(-ENOMEM, NULL, NULL);

	for (int i = 0; i < n && !code; i++)
		paths[i] = path_meant(pos[i], &owned[i]);
	if (!code)
		code = target_open(&a->keys, paths[0], &t);
	if (!code) {
		interrupt_catch();
		code = verify_paths(a, &t, n, paths);
		target_close(&t);
	}
	for (int i = 0; i < n && owned; i++)
		free(owned[i]);
	free(owned);
	free(paths);
	return code;
}

static const struct option_row rows[] = {
    {OPTION_NUMBER, 'j', "jobs", "N", offsetof(struct args, jobs), "threads; else one for each core"},
    {OPTION_FLAG, 'q', "quiet", NULL, offsetof(struct args, quiet), "no progress"},
    {OPTION_FLAG, 0, "progress-json", NULL, offsetof(struct args, progress_json), "progress on stderr as JSON lines"},
    {OPTION_FLAG, 0, "json", NULL, offsetof(struct args, json), "answer in JSON"},
    KEY_ROWS(struct args, keys),
    {0},
};

const struct command command_verify = {
    .name = "verify",
    .summary = "read and check every byte of files or of a store",
    .usage = "FILE|FOLDER|STORE...",
    .notes = "Exit code 3: some files are bad or could not be verified; they are listed.\n",
    .options = rows,
    .args_size = sizeof(struct args),
    .min_args = 1,
    .max_args = -1,
    .run = run,
};
