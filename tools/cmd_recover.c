/* SPDX-License-Identifier: Apache-2.0 */
/* tdfs recover: apply the volume log without mounting, and what to do when the log is damaged or gone. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>

#include "commands.h"
#include "recover.h"
#include "progress.h"
#include "repair.h"
#include "say.h"

struct args {
	struct credential_source cred;
	const char *accept_old;
	bool salvage;
};

static void on_event(void *arg, const char *path, const char *text)
{
	CLEANUP_FREE char *shown = path && *path ? path_text(path) : NULL;

	report(REPORT_NOTE, "%s%s%s", shown ? shown : "log", ": ", text);
}

static void print_result(const struct recovered *r)
{
	printf("%" PRIu64 " log groups read: %" PRIu64 " files brought up to date (%" PRIu64 " seals finished, %" PRIu64
	       " commits sealed, %" PRIu64 " cut to what was committed)\n",
	       r->groups, r->files, r->sealed, r->committed, r->cut);
	if (r->stale)
		printf("%" PRIu64 " records were of older states or deleted files: ignored\n", r->stale);
	if (r->missing)
		printf("%" PRIu64 " files with records are no longer there\n", r->missing);
}

static void damage_free(struct recover_damage *d, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(d[i].path);
	free(d);
}

/* Say what each file behind the gap has lost, and make its last sealed state readable again. */
static size_t damage_accept(const struct volume *v, const struct recover_damage *d, size_t n)
{
	size_t unsaved = 0;

	for (size_t i = 0; i < n; i++) {
		CLEANUP_FREE char *path = NULL;
		uint64_t generation = 0;
		int err;

		if (!d[i].path || !*d[i].path) /* not known by name: the walk over LIVE files finds it if it is there */
			continue;
		if (asprintf(&path, "%s/%s", v->path, d[i].path) < 0)
			path = NULL;
		fail_clear();
		err = path ? accept_old(v, path, &generation) : -ENOMEM;
		if (err < 0 && err != -ENOENT) {
			complain(err, d[i].path, "it has lost its changes and its sealed state: take it from a backup");
			unsaved++;
		} else if (err == 0) {
			printf("LOST changes of %s since it was last sealed (generation %" PRIu64 "); it is as it was then\n", d[i].path,
			       generation);
		} else {
			printf("LOST perhaps the latest changes of %s; it is as it was last sealed\n", d[i].path);
		}
	}
	return unsaved;
}

/* A last group that retires all there is: from then on nobody looks at the damaged part. */
static int log_retire(const struct volume *v, const struct io *io, const struct recovered *r)
{
	struct redo *redo = NULL;
	int err = redo_open(io, v->dir_fd, v->store_fd, v->id, v->k_log, r->next_lsn, r->next_epoch, r->half, r->other_end, &redo);

	if (err)
		return err;
	err = redo_retire(redo);
	redo_close(redo);
	return err;
}

static int on_whole(void *arg, const char *name, unsigned char type, ino_t ino)
{
	char (*ret)[REDO_WHOLE_NAME] = arg;

	if (strncmp(name, "whole-", 6) || strlen(name) != REDO_WHOLE_LEN)
		return 0;
	memcpy(*ret, name, REDO_WHOLE_LEN + 1);
	return 1;
}

/*
 * A file that was being rewritten with larger segments may be whole only there, and without its record nobody can tell any more: the next
 * mount must not remove it.
 */
static void wholes_keep(const struct volume *v, const struct io *io)
{
	char name[REDO_WHOLE_NAME], kept[REDO_WHOLE_NAME + 4];

	while (io->list(io->ctx, v->dir_fd, on_whole, &name) == 1) {
		snprintf(kept, sizeof(kept), "%s.tdf", name);
		if (io->rename(io->ctx, v->dir_fd, name, v->dir_fd, kept, RENAME_NOREPLACE))
			return;
		printf(TDFS_DIR "/%s is a whole file that was being rewritten: if a file is damaged, this may be its content\n", kept);
	}
}

struct accept {
	const struct volume *v;
	uint64_t done, failed, waiting;
};

static int on_accept(void *arg, const char *path)
{
	struct accept *c = arg;
	CLEANUP_FREE char *shown = path_text(path);
	uint64_t generation = 0;
	int err;

	fail_clear();
	err = accept_old(c->v, path, &generation);
	if (err < 0) {
		complain(err, path, "it was left as it is; take it from a backup");
		c->failed++;
	} else if (!err) {
		printf("LOST changes of %s since it was last sealed (generation %" PRIu64 "); it is as it was then\n", shown ? shown : path,
		       generation);
		c->done++;
	}
	return 0;
}

static int on_waiting(void *arg, const char *path)
{
	struct accept *c = arg;
	CLEANUP_FREE char *shown = path_text(path);

	printf("needs its log: %s\n", shown ? shown : path);
	c->waiting++;
	return 0;
}

/* --accept-old FILE, or all LIVE files below a folder. */
static int accept_below(const struct volume *v, const char *path, bool tell_none)
{
	struct accept c = {.v = v};
	struct stat st;
	int err;

	fail_clear();
	if (stat(path, &st))
		return complain_file(-errno, path, NULL);
	err = S_ISDIR(st.st_mode) ? live_walk(v, path, on_accept, &c) : on_accept(&c, path);
	if (err)
		return complain_file(err, path, NULL);
	if (tell_none && !c.done && !c.failed)
		printf("%s: nothing there waits for a log; nothing was changed\n", path);
	return c.failed ? EXIT_TDFS_SOME : EXIT_TDFS_OK;
}

static int recover_damaged(const struct args *a, const struct volume *v, const struct io *io, const struct recovered *r,
			   const struct recover_damage *d, size_t n)
{
	size_t unsaved;
	int err;

	if (!a->salvage) {
		for (size_t i = 0; i < n; i++)
			printf("needs its log: %s\n", d[i].path && *d[i].path ? d[i].path : "(a file that was not found)");
		report(REPORT_ERROR,
		       "%s: %zu files could not be brought up to date and were left as they are. A whole copy of .tdfs from the same "
		       "moment helps; else `tdfs recover --salvage %s` gives their newest changes up",
		       v->path, n, v->path);
		return EXIT_TDFS_NEEDS_LOG;
	}
	wholes_keep(v, io);
	unsaved = damage_accept(v, d, n);
	unsaved += accept_below(v, v->path, false) != EXIT_TDFS_OK;
	fail_clear();
	err = log_retire(v, io, r);
	if (err)
		err = log_renew(v);
	if (err)
		return complain(err, v->path, "the log could not be started anew");
	printf("the log is whole again\n");
	return unsaved ? EXIT_TDFS_SOME : EXIT_TDFS_OK;
}

/* The log cannot be used at all. */
static int recover_without(const struct args *a, const struct volume *v, const struct io *io, int why)
{
	int code, err;

	if (!a->salvage) {
		complain(why, v->path,
			 "restore .tdfs/log.0 and log.1 from a backup of the same moment, or give up what only they hold: `tdfs recover "
			 "--salvage`");
		return a->accept_old ? accept_below(v, a->accept_old, true) : EXIT_TDFS_NEEDS_LOG;
	}
	wholes_keep(v, io);
	code = accept_below(v, v->path, false);
	fail_clear();
	err = log_renew(v);
	if (err)
		return complain(err, v->path, "the log could not be started anew");
	printf("a new log was made\n");
	return code;
}

/* With the log applied nothing may wait for it any more: what does has lost its log. */
static int look_for_waiting(const struct volume *v)
{
	struct accept c = {.v = v};
	int err = live_walk(v, v->path, on_waiting, &c);

	if (err)
		return complain_file(err, v->path, NULL);
	if (!c.waiting)
		return EXIT_TDFS_OK;
	report(REPORT_ERROR,
	       "%s: the log holds nothing for %" PRIu64 " files that need it: it is not the one they were changed under. Bring that one "
							"back, or take their last sealed state with `tdfs recover --accept-old FILE`",
	       v->path, c.waiting);
	return EXIT_TDFS_NEEDS_LOG;
}

static int recover_locked(const struct args *a, struct volume *v)
{
	struct io io = io_posix(v->store_fd);
	struct recover_keys keys = {v->id, v->k_log, v->k_rec, v->k_hint};
	struct recovered r = {0};
	struct recover_damage *damage = NULL;
	size_t n_damage = 0;
	int code = EXIT_TDFS_OK, err;

	fail_clear();
	err = recover(&io, v->dir_fd, v->store_fd, &keys, true, on_event, NULL, &r, &damage, &n_damage);
	if (err == -ENOENT || err == -EBADMSG)
		return recover_without(a, v, &io, err);
	if (err < 0)
		return complain(err, v->path, NULL);
	print_result(&r);
	if (err == 1)
		code = recover_damaged(a, v, &io, &r, damage, n_damage);
	damage_free(damage, n_damage);
	if (a->accept_old && (!code || code == EXIT_TDFS_NEEDS_LOG))
		return accept_below(v, a->accept_old, true);
	return code ? code : look_for_waiting(v);
}

static int run(const void *args, int n, char **pos)
{
	const struct args *a = args;
	CLEANUP(volume_cleanup) struct volume *v = NULL;
	int code = volume_get(pos[0], &a->cred, &v);

	if (!code)
		code = volume_hold(v);
	interrupt_catch();
	return code ? code : recover_locked(a, v);
}

static const struct option_row rows[] = {
    {OPTION_FLAG, 0, "salvage", NULL, offsetof(struct args, salvage), "log damaged: keep what can be kept, say what is lost"},
    {OPTION_TEXT, 0, "accept-old", "PATH", offsetof(struct args, accept_old), "file or folder whose log is gone: last sealed state"},
    CREDENTIAL_ROWS(struct args, cred),
    {0},
};

const struct command command_recover = {
    .name = "recover",
    .summary = "bring files up to the log after a crash (a mount does it too)",
    .usage = "STORE",
    .notes = "Exit code 6: the log is damaged or gone, and files need it.\n",
    .options = rows,
    .args_size = sizeof(struct args),
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
