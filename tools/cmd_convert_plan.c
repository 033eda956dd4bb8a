/* SPDX-License-Identifier: Apache-2.0 */
/* tdfs convert plan, run and start: a job cut into pieces for several processes and machines, or put into the background. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "cmd_convert.h"
#include "convert_i.h"
#include "say.h"
#include "target.h"

static int verb_take(const char *word, enum convert_verb *ret)
{
	static const char *const verbs[] = {"in", "out", "rewrap"};

	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		if (strcmp(word, verbs[i]) == 0) {
			*ret = (enum convert_verb)i;
			return EXIT_TDFS_OK;
		}
	report(REPORT_ERROR, "'%s': in, out or rewrap comes first", word);
	return EXIT_TDFS_USAGE;
}

/* --- plan --- */

static char *absolute(const char *path)
{
	return path ? realpath(path, NULL) : NULL;
}

static int head_fill(struct plan *p, struct session *s, const char *store, const char *other, const struct convert_args *a)
{
	const struct convert_run *r = &s->cv->run;
	struct plan_head *h = &p->head;

	memcpy(h->volume_id, s->v->id, ID_LEN);
	h->verb = r->verb;
	h->in_place = r->in_place;
	h->keep_dek = r->keep_dek;
	h->cross = a->cross;
	h->store = absolute(store);
	h->other = absolute(other);
	h->kas_kid = strdup(r->kas_kid ? r->kas_kid : s->v->kas_kid);
	h->policy = r->policy ? strdup(r->policy) : NULL;
	h->made = time(NULL) - 3600; /* other machines' clocks may be behind */
	return h->store && (h->other || !other) && h->kas_kid && (h->policy || !r->policy) ? 0 : -ENOMEM;
}

static bool lies_in(const char *inner, const char *outer)
{
	size_t n = outer ? strlen(outer) : 0;

	return n && strncmp(inner, outer, n) == 0 && (inner[n] == 0 || inner[n] == '/');
}

static int plan_into(struct session *s, const struct convert_args *a, struct plan *p, const char *store, const char *other)
{
	struct convert *cv = s->cv;
	int err = job_begin(s->v, &cv->run, &cv->past, &cv->log);

	if (!err && cv->run.verb == CONVERT_REWRAP) {
		err = rewrap_begin(cv);
		if (!err)
			err = job_moved_done(cv->log); /* which key is wanted stands in the plan */
	}
	if (!err)
		err = head_fill(p, s, store, other, a);
	if (!err && (lies_in(p->path, p->head.store) || lies_in(p->path, p->head.other)))
		err = fail(-EINVAL, "a plan cannot lie in a tree that is converted");
	if (!err)
		err = treeplan_unlock(p, s->v, false);
	if (!err)
		err = treeplan_make(cv, p, a->max_files, a->max_bytes);
	/* in place the journal stays open until all of the plan is done: a mount, or another run, must know that files may be there twice
	 */
	if (cv->log)
		job_end(cv->log, !err && !cv->run.in_place);
	cv->log = NULL;
	return err;
}

static int plan_begin(const struct convert_args *a, enum convert_verb verb, int n, char **pos)
{
	CLEANUP(session_close) struct session s = SESSION_NEW;
	struct plan *p = NULL;
	const char *store, *other;
	char bytes[SAY_TEXT];
	int err, code = session_trees(a, verb, n, pos, &store, &other);

	if (!code)
		code = s.cv ? session_open(&s, a, verb, store, other) : complain(-ENOMEM, NULL, NULL);
	if (!code)
		code = session_prepare(&s, a);
	if (code)
		return code;
	interrupt_catch();
	clock_gettime(CLOCK_REALTIME, &s.cv->run.started);
	clock_gettime(CLOCK_MONOTONIC, &s.cv->begin);
	fail_clear();
	err = treeplan_new(a->out, &p);
	if (err)
		return complain_file(err, a->out, NULL);
	err = plan_into(&s, a, p, store, other);
	if (err) {
		code = err == -EINTR ? EXIT_TDFS_INTERRUPTED : complain(err, a->out, NULL);
	} else {
		size_text(p->head.bytes, bytes);
		printf("%" PRIu64 " files, %s in %" PRIu64
		       " chunks\nNext:  tdfs convert run --plan %s   any number of them at a time, here or elsewhere\n",
		       p->head.files, bytes, p->head.chunks, a->out);
		if (s.cv->counts.failed || s.cv->counts.skipped)
			code = EXIT_TDFS_SOME;
	}
	treeplan_free(p);
	return output_flush(code);
}

static int plan_main(const void *args, int n, char **pos)
{
	struct convert_args a = *(const struct convert_args *)args;
	enum convert_verb verb = CONVERT_IN;
	int code = verb_take(pos[0], &verb);

	if (code)
		return code;
	if (!a.out || a.files_from || a.dry_run) {
		report(REPORT_ERROR, a.out ? "a plan is of a whole tree, and is one" : "--out PLAN: the directory for it");
		return EXIT_TDFS_USAGE;
	}
	if (verb == CONVERT_REWRAP)
		a.in_place = true;
	return plan_begin(&a, verb, n - 1, pos + 1);
}

/* --- run --- */

/* "3/16"; or what Slurm and others say about a task of an array. */
static int shard_take(const char *text, struct plan *p)
{
	const char *index = getenv("SLURM_ARRAY_TASK_ID"), *count = getenv("SLURM_ARRAY_TASK_COUNT"),
		   *first = getenv("SLURM_ARRAY_TASK_MIN");
	const char *slash = text ? strchr(text, '/') : NULL;
	CLEANUP_FREE char *head = slash ? strndup(text, (size_t)(slash - text)) : NULL;
	uint64_t i, n, min = 0;

	if (text) {
		if (!head || number_parse(head, &i) || number_parse(slash + 1, &n) || !n || i >= n) {
			report(REPORT_ERROR, "--shard: '%s': I/N with I from 0 to N - 1, as 0/4", text);
			return EXIT_TDFS_USAGE;
		}
	} else if (index && count) {
		if (number_parse(index, &i) || number_parse(count, &n) || (first && number_parse(first, &min)) || i < min || !n) {
			report(REPORT_ERROR, "SLURM_ARRAY_TASK_ID, _COUNT and _MIN make no sense; --shard I/N instead");
			return EXIT_TDFS_USAGE;
		}
		i = (i - min) % n;
	} else {
		return EXIT_TDFS_OK;
	}
	p->shard = i;
	p->n_shards = n;
	return EXIT_TDFS_OK;
}

/* The trees are where the plan says, or where the user says they are now. */
static int plan_session(struct session *s, const struct convert_args *a, struct plan *p, int n, char **pos)
{
	const struct plan_head *h = &p->head;
	const char *store = h->store, *other = h->other;
	struct stat st;
	int err, code = n ? session_trees(a, h->verb, n, pos, &store, &other) : EXIT_TDFS_OK;

	s->shared = true;
	if (!code)
		code = session_open(s, a, h->verb, store, other);
	if (code)
		return code;
	fail_clear();
	err = treeplan_unlock(p, s->v, true);
	if (!err && (fstat(s->cv->run.from_fd, &st) || st.st_ino != h->root_ino))
		err = fail(-EBADMSG, "the plan was made of another tree than %s", s->cv->from_name);
	if (err)
		return complain(err, a->plan, NULL);
	s->cv->plan = p;
	s->cv->run.files_from = NULL;
	code = session_prepare(s, a);
	if (code || h->verb != CONVERT_REWRAP)
		return code;
	s->cv->run.keep_dek = h->keep_dek;
	s->cv->run.kas_kid = h->kas_kid;
	s->cv->run.policy = h->policy;
	err = kas_write_key(s->v->kas, h->kas_kid);
	return err ? complain(err, a->plan, NULL) : EXIT_TDFS_OK;
}

static int run_main(const void *args, int n, char **pos)
{
	struct convert_args a = *(const struct convert_args *)args;
	struct plan *p = NULL;
	int err, code;

	if (!a.plan) {
		report(REPORT_ERROR, "--plan PLAN: the directory that `tdfs convert plan` has made");
		return EXIT_TDFS_USAGE;
	}
	fail_clear();
	err = treeplan_read(a.plan, &p);
	if (err)
		return complain_file(err, a.plan, NULL);
	if (request_read(p->dir) == REQUEST_CANCEL) {
		report(REPORT_ERROR, "%s: was cancelled; `tdfs convert resume %s` takes that back", a.plan, a.plan);
		treeplan_free(p);
		return EXIT_TDFS_INTERRUPTED;
	}
	code = shard_take(a.shard, p);
	a.in_place = p->head.in_place;
	a.cross = p->head.cross;
	if (!code) {
		CLEANUP(session_close) struct session s = SESSION_NEW;

		code = s.cv ? plan_session(&s, &a, p, n, pos) : complain(-ENOMEM, NULL, NULL);
		err = code ? 0 : treeplan_join(p);
		if (err)
			code = complain(err, a.plan, NULL);
		if (!code)
			code = session_run(&s, &a);
	}
	treeplan_free(p);
	return code;
}

/* --- start --- */

static int start_main(const void *args, int n, char **pos)
{
	struct convert_args a = *(const struct convert_args *)args;
	enum convert_verb verb = CONVERT_IN;
	int code = verb_take(pos[0], &verb);

	if (code)
		return code;
	if (verb == CONVERT_REWRAP)
		a.in_place = true;
	return convert_main(&a, verb, false, n - 1, pos + 1);
}

#define REWRAP_ROWS                                                                                             \
	{OPTION_TEXT, 0, "kas", NULL, offsetof(struct convert_args, kas), NULL},                                \
	    {OPTION_TEXT, 0, "policy", NULL, offsetof(struct convert_args, policy), NULL},                      \
	    {OPTION_FLAG, 0, "new-dek", NULL, offsetof(struct convert_args, new_dek), NULL},                    \
	{                                                                                                       \
		OPTION_FLAG, 0, "keep-dek", NULL, offsetof(struct convert_args, keep_dek), "as rewrap has them" \
	}

static const struct option_row plan_rows[] = {
    {OPTION_TEXT, 0, "out", "PLAN", offsetof(struct convert_args, out), "directory for the plan: new, outside of both trees"},
    {OPTION_NUMBER, 0, "max-files", "N", offsetof(struct convert_args, max_files), "files of a chunk (2000)"},
    {OPTION_SIZE, 0, "max-bytes", "SIZE", offsetof(struct convert_args, max_bytes), "... and bytes (4G)"},
    {OPTION_FLAG, 0, "in-place", NULL, offsetof(struct convert_args, in_place), "where the store is"},
    {OPTION_FLAG, 0, "cross", NULL, offsetof(struct convert_args, cross), "go into other file systems mounted below"},
    REWRAP_ROWS,
    CREDENTIAL_ROWS(struct convert_args, cred),
    {0},
};

const struct command convert_plan = {
    .name = "plan",
    .summary = "cut a conversion into chunks for several machines",
    .usage = "--out PLAN in|out|rewrap TREES",
    .notes = "TREES as in, out and rewrap have them. Then `tdfs convert run --plan PLAN`, as\n"
	     "often and on as many machines as you like.\n",
    .options = plan_rows,
    .args_size = sizeof(struct convert_args),
    .min_args = 2,
    .max_args = 3,
    .run = plan_main,
};

static const struct option_row run_rows[] = {
    {OPTION_TEXT, 0, "plan", "PLAN", offsetof(struct convert_args, plan), "what `tdfs convert plan` has made"},
    {OPTION_TEXT, 0, "shard", "I/N", offsetof(struct convert_args, shard), "begin with every Nth chunk (a Slurm array: by itself)"},
    SHARED_ROWS(struct convert_args, ),
    CREDENTIAL_ROWS(struct convert_args, cred),
    {0},
};

const struct command convert_run_plan = {
    .name = "run",
    .summary = "work off a plan, beside others that do the same",
    .usage = "--plan PLAN [TREES]",
    .notes = "TREES: if they are not where they were. Exit code 75: run it again.\n",
    .options = run_rows,
    .args_size = sizeof(struct convert_args),
    .min_args = 0,
    .max_args = 2,
    .run = run_main,
};

static const struct option_row start_rows[] = {
    {OPTION_FLAG, 0, "in-place", NULL, offsetof(struct convert_args, in_place), "where the store is"},
    REWRAP_ROWS,
    SHARED_ROWS(struct convert_args, ),
    CREDENTIAL_ROWS(struct convert_args, cred),
    {0},
};

const struct command convert_start = {
    .name = "start",
    .summary = "the same as in, out or rewrap; with --daemon in the background",
    .usage = "in|out|rewrap TREES",
    .options = start_rows,
    .args_size = sizeof(struct convert_args),
    .min_args = 2,
    .max_args = 3,
    .run = start_main,
};
