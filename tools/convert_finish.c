/* SPDX-License-Identifier: Apache-2.0 */
/* tdfs convert open and finish: the state in which plain files lie beside sealed ones, and its end. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "convert_i.h"
#include "convert_live.h"
#include "convert_file.h"
#include "say.h"
#include "target.h"
#include "tree.h"
#include "volume_state.h"

#define TOLD_MAX 20
#define TRIES 10
#define ASK_MS 700000 /* everything in a mount is sealed first */

struct args {
	struct credential_source cred;
	bool json;
};

struct scan {
	struct volume *v;
	struct control_talk *talk; /* NULL: not mounted */
	struct sealer sealer;
	json_t *left; /* paths */
	uint64_t n_left, n_sealed;
	int bad; /* something could not be looked at */
};

static void scan_bad(void *arg, const char *path, int err)
{
	struct scan *s = arg;

	s->bad = err;
	complain_file(err, *path ? path : s->v->path, NULL);
}

static void scan_done(void *arg, struct cdir *d)
{
}

/* 1 plain, 0 not, -errno.  Under a mount a file that was just made there has nothing yet by which it is known: the daemon knows. */
static int is_plain(struct scan *s, const struct walk_entry *e, const char *path)
{
	CLEANUP_FD int fd = -1;
	enum sibling kind;
	struct record r;
	struct stat st;
	int err;

	if (name_is_tdf(e->name)) {
		fd = content_open(e->dir_fd, e->name);
		if (fd < 0 || fstat(fd, &st))
			return errno == ENOENT ? 0 : fail(-errno, "%s", strerror(errno));
		err = sibling_look(&s->sealer, fd, (uint64_t)st.st_size, &kind, &r);
		if (err || kind != SIBLING_OTHER)
			return err;
	}
	if (!s->talk)
		return 1;
	err = live_begin(s->talk, path, 1);
	if (err == -EPIPE)
		return err;
	return err != -ENOENT;
}

static int left_add(struct scan *s, const char *path)
{
	if (s->n_left++ < TOLD_MAX)
		json_array_append_new(s->left, json_path(path));
	return 0;
}

static int scan_entry(struct scan *s, struct walk *w, const struct walk_entry *e)
{
	CLEANUP_FREE char *path = NULL;
	int plain;

	if (!S_ISREG(e->st.st_mode) && !S_ISDIR(e->st.st_mode))
		return 0;
	path = cdir_join(e->dir, e->name);
	if (!path)
		return -ENOMEM;
	fail_clear();
	if (S_ISDIR(e->st.st_mode)) { /* never converted, and what is plain in it would not be shown any more */
		if (e->self && walk_is_volume(e)) {
			CLEANUP_FREE char *shown = path_text(path);

			report(REPORT_WARN, "%s: is a tdfs volume of its own: move it out of the store", shown ? shown : "?");
			walk_skip(w);
			return left_add(s, path);
		}
		return 0;
	}
	plain = is_plain(s, e, path);
	if (plain < 0) {
		scan_bad(s, path, plain);
		return plain == -EPIPE ? plain : 0;
	}
	s->n_sealed += !plain;
	return plain ? left_add(s, path) : 0;
}

static int scan_all(struct scan *s)
{
	const struct walk_calls calls = {s, scan_bad, scan_done, NULL, 0};
	struct walk_entry e;
	struct walk *w;
	int got, err = walk_open(s->v->store_fd, true, false, &calls, &w);

	json_array_clear(s->left);
	s->n_left = s->n_sealed = 0;
	s->bad = 0;
	while (!err && (got = walk_next(w, &e)) != 0)
		err = got < 0 ? got : scan_entry(s, w, &e);
	walk_close(w);
	return err ? err : s->bad;
}

/* 0, with plain files left or the volume strict; -errno */
static int finish(struct scan *s)
{
	json_t *answer = NULL;
	json_int_t moves = 0;
	int err = -EAGAIN;

	for (unsigned i = 0; i < TRIES && err == -EAGAIN; i++) {
		err = s->talk ? live_ask(s->talk, "moves", NULL, &answer) : 0;
		if (!err && s->talk) {
			moves = json_integer_value(json_object_get(answer, "moves"));
			json_decref(answer);
		}
		if (!err)
			err = scan_all(s);
		if (err || s->n_left)
			continue;
		if (s->talk)
			err = live_ask(s->talk, "strict", json_pack("{s:I}", "moves", moves), NULL);
		else
			err = volume_state_write(s->v, VOLUME_STRICT);
	}
	return err == -EAGAIN ? fail(err, "folders or plain files are being renamed all the time, so it is never certain that none is left")
			      : err;
}

static int tell(const struct scan *s, bool json)
{
	json_t *j;
	size_t i;

	if (json)
		return json_say(json_pack("{s:i, s:s, s:I, s:I, s:O}", "v", 1, "state", s->n_left ? "converting" : "strict", "sealed",
					  (json_int_t)s->n_sealed, "plain", (json_int_t)s->n_left, "files", s->left))
			   ? EXIT_TDFS_FAILED
		       : s->n_left ? EXIT_TDFS_SOME
				   : EXIT_TDFS_OK;
	json_array_foreach(s->left, i, j)
	{
		CLEANUP_FREE char *shown = path_text(json_string_value(j));

		report(REPORT_WARN, "%s: is still plain", shown ? shown : "?");
	}
	if (!s->n_left) {
		printf("%s: all %llu files are sealed; the volume is strict: a plain file that somebody puts into the store is not shown "
		       "and is named by `tdfs check`.\n",
		       s->v->path, (unsigned long long)s->n_sealed);
		return output_flush(EXIT_TDFS_OK);
	}
	report(REPORT_ERROR, "%s: %llu files are still plain, so it stays open for them; `tdfs convert in --in-place %s` converts them",
	       s->v->path, (unsigned long long)s->n_left, s->v->path);
	return EXIT_TDFS_SOME;
}

/* The store's own lock, or the daemon's ear; an exit code */
static int take(struct volume *v, int *ret_lock, struct control_talk **ret)
{
	int err = live_hold(v);

	if (err < 0)
		return complain(err, v->path, NULL);
	*ret_lock = err;
	err = live_mounted(v);
	if (err > 0)
		err = live_talk_open(v, ret);
	else if (!err)
		return volume_hold(v);
	return err ? complain(err, v->path, NULL) : EXIT_TDFS_OK;
}

static int finish_main(const void *args, int n, char **pos)
{
	const struct args *a = args;
	CLEANUP(volume_cleanup) struct volume *v = NULL;
	CLEANUP_FD int lock = -1;
	struct scan s = {0};
	int code = volume_get(pos[0], &a->cred, &v), err;

	if (!code)
		code = take(v, &lock, &s.talk);
	if (code)
		return code;
	fail_clear();
	s.v = v;
	s.left = json_array();
	err = s.left ? sealer_init(&s.sealer, v) : -ENOMEM;
	if (!err)
		err = finish(&s);
	code = err ? complain(err, v->path, NULL) : tell(&s, a->json);
	sealer_free(&s.sealer);
	control_talk_close(s.talk);
	json_decref(s.left);
	return code;
}

/*
 * Before a mount: what an unmounted run that was killed has left is for `tdfs convert` to judge, which reads whole files; and folders are
 * spelled as in a store, so that the mount has one spelling to know (@spell: they may be changed to that).
 */
static int prepare(struct convert *cv, bool spell)
{
	const struct job_past *past = &cv->past;
	int err;

	clock_gettime(CLOCK_REALTIME, &cv->run.started);
	err = job_begin(cv->v, &cv->run, &cv->past, &cv->log);
	if (err)
		return err;
	if (past->any && !past->clean)
		err = fail(-EBUSY, "a conversion was cut short; `tdfs convert recover %s` first", cv->v->path);
	else if (!past->names_done)
		err = spell ? names_stage(cv) : fail(-EBUSY, "its folders have plain names: unmount it first");
	if (!err && cv->counts.failed)
		err = fail(-EEXIST, "a folder could not be given the name that it has in a store");
	job_end(cv->log, !err);
	return err;
}

static int prepare_volume(struct volume *v, bool spell)
{
	struct convert *cv = calloc(1, sizeof(*cv));
	struct stat st;
	int err = !cv ? -ENOMEM : fstat(v->store_fd, &st) ? -errno : 0;

	if (!err) {
		cv->v = v;
		cv->run = (struct convert_run){
		    .verb = CONVERT_IN, .in_place = true, .one_fs = true, .v = v, .from_fd = v->store_fd, .to_fd = v->store_fd};
		cv->run.dev = st.st_dev;
		cv->from_name = cv->to_name = v->path;
		fail_clear();
		err = prepare(cv, spell);
	}
	if (cv && cv->failed_list)
		fclose(cv->failed_list);
	free(cv);
	return err;
}

/* By the daemon that has it mounted; 1: nobody has */
static int open_mounted(struct volume *v)
{
	CLEANUP_FREE char *dir = tdfs_dir(v->path);
	json_t *answer = NULL;
	int err = dir ? control_call(dir, "status", ASK_MS, &answer) : -ENOMEM;

	json_decref(answer);
	answer = NULL;
	if (err == -ENOENT || err == -ECONNREFUSED)
		return 1;
	if (!err)
		err = prepare_volume(v, false);
	if (!err)
		err = control_call(dir, "open", ASK_MS, &answer);
	json_decref(answer);
	return err;
}

static int open_main(const void *args, int n, char **pos)
{
	const struct args *a = args;
	CLEANUP(volume_cleanup) struct volume *v = NULL;
	CLEANUP_FD int lock = -1;
	int code = volume_get(pos[0], &a->cred, &v), err;

	if (code)
		return code;
	fail_clear();
	lock = live_hold(v);
	err = lock < 0 ? lock : open_mounted(v);
	if (err == 1) {
		fail_clear();
		code = volume_hold(v);
		if (code)
			return code;
		err = volume_state_write(v, VOLUME_CONVERTING);
	}
	if (err)
		return complain(err, v->path, NULL);
	if (a->json)
		return json_say(json_pack("{s:i, s:s}", "v", 1, "state", "converting"));
	printf("%s: plain files in the store are shown by a mount and can be converted, also under it, until `tdfs convert finish %s`.\n",
	       v->path, v->path);
	return output_flush(EXIT_TDFS_OK);
}

static const struct option_row rows[] = {
    {OPTION_FLAG, 0, "json", NULL, offsetof(struct args, json), "answer in JSON"},
    CREDENTIAL_ROWS(struct args, cred),
    {0},
};

const struct command convert_open = {
    .name = "open",
    .summary = "let plain files lie beside sealed ones until `finish`",
    .usage = "STORE",
    .notes = "`tdfs init --in-place` does it too. A mount shows them meanwhile, also one that\n"
	     "is there already: it is held still for a second or two.\n",
    .options = rows,
    .args_size = sizeof(struct args),
    .min_args = 1,
    .max_args = 1,
    .run = open_main,
};

const struct command convert_finish = {
    .name = "finish",
    .summary = "the end of it: name what is still plain, or be strict again",
    .usage = "STORE",
    .options = rows,
    .args_size = sizeof(struct args),
    .min_args = 1,
    .max_args = 1,
    .run = finish_main,
};

int live_prepare(struct volume *v)
{
	enum volume_state state;
	int err;

	fail_clear();
	if (job_half_sets(v)) /* who writes to one of its names would not be seen at the others */
		return complain(
		    fail(-EBUSY,
			 "a `tdfs convert rewrap` was cut short in a file with several names; `tdfs convert recover %s` makes it "
			 "one again",
			 v->path),
		    v->path, NULL);
	if (volume_state_read(v, &state) || state != VOLUME_CONVERTING) {
		fail_clear();
		return EXIT_TDFS_OK;
	}
	err = prepare_volume(v, true);
	return err ? complain(err, v->path, NULL) : EXIT_TDFS_OK;
}
