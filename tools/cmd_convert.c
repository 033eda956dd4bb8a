/* SPDX-License-Identifier: Apache-2.0 */
/* tdfs convert: whole trees in and out. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/xattr.h>

#include "cmd_convert.h"
#include "commands.h"
#include "convert_file.h"
#include "convert_i.h"
#include "convert_live.h"
#include "progress.h"
#include "recover.h"
#include "say.h"
#include "target.h"

static bool lies_in(const char *inner, const char *outer)
{
	size_t n = strlen(outer);

	return strncmp(inner, outer, n) == 0 && (inner[n] == 0 || inner[n] == '/' || n == 1);
}

/* The other tree.  @make: it may be new */
static int tree_open(const struct volume *v, const char *path, bool make, int *ret_fd)
{
	CLEANUP_FREE char *real = NULL;
	int fd;

	fail_clear();
	if (make && mkdir(path, 0777) && errno != EEXIST)
		return complain_file(-errno, path, NULL);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	real = fd < 0 ? NULL : realpath(path, NULL);
	if (!real) {
		int err = -errno;

		close_fd(&fd);
		return complain_file(err, path, NULL);
	}
	if (lies_in(real, v->path)) {
		close(fd);
		report(REPORT_ERROR, "%s: lies in the store %s itself; --in-place converts that where it is", path, v->path);
		return EXIT_TDFS_USAGE;
	}
	*ret_fd = fd;
	return EXIT_TDFS_OK;
}

/* What is copied in is plain: sealed files would need the keys that stay behind. */
static int source_check(int fd, const char *path)
{
	if (faccessat(fd, TDFS_DIR, F_OK, AT_SYMLINK_NOFOLLOW) || !faccessat(fd, TDFS_DIR "/" VOLUME_NAMES_MARK, F_OK, AT_SYMLINK_NOFOLLOW))
		return EXIT_TDFS_OK;
	report(REPORT_ERROR,
	       "%s: is a tdfs volume itself, and the keys in its " TDFS_DIR " would not come along: mount it and copy from the mount, or "
	       "`tdfs convert out` first",
	       path);
	return EXIT_TDFS_USAGE;
}

/* A file in the store may wait for what is in the log. */
static int log_recover(struct volume *v)
{
	struct io io = io_posix(v->store_fd);
	struct recover_keys keys = {v->id, v->k_log, v->k_rec, v->k_hint};
	struct recover_damage *damage = NULL;
	struct recovered r = {0};
	size_t n = 0;
	int err = recover(&io, v->dir_fd, v->store_fd, &keys, true, NULL, NULL, &r, &damage, &n);

	for (size_t i = 0; i < n; i++)
		free(damage[i].path);
	free(damage);
	if (err == 1) {
		report(REPORT_ERROR, "%s: its log is damaged; `tdfs recover %s` tells more", v->path, v->path);
		return EXIT_TDFS_NEEDS_LOG;
	}
	return err ? complain(err, v->path, "`tdfs recover` tells more") : EXIT_TDFS_OK;
}

/* Work that was interrupted is told from files of the user by an attribute: without them nothing may be removed. */
static int attributes_check(int fd, const char *path)
{
	CLEANUP_FD int temp = open(path, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (temp < 0 && (errno == EROFS || errno == ENOSPC || errno == EDQUOT || errno == EACCES)) {
		fail_clear();
		return complain_file(-errno, path, NULL);
	}
	if (temp >= 0 && fsetxattr(temp, HINT_XATTR, "", 0, 0) && errno == ENOTSUP) {
		report(REPORT_ERROR,
		       "%s: this file system has no user attributes, by which interrupted work is recognised; choose another one", path);
		return EXIT_TDFS_FAILED;
	}
	return EXIT_TDFS_OK;
}

/* From here on without the terminal; what it would have said goes to a file. */
static int background(struct convert *cv)
{
	CLEANUP_FREE char *path = NULL;
	CLEANUP_FD int fd = -1;
	CLEANUP_FD int dir = -1;
	int ready[2];
	char byte;
	pid_t pid;

	if (mkdirat(cv->v->dir_fd, CONVERT_DIR, 0700) && errno != EEXIST)
		return -errno;
	if ((cv->plan ? asprintf(&path, "%s/run/%s/output", cv->plan->path, cv->plan->me)
		      : asprintf(&path, "%s/%s/%s/output", cv->v->path, TDFS_DIR, CONVERT_DIR)) < 0)
		return -ENOMEM;
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	clock_gettime(CLOCK_MONOTONIC, &cv->begin);
	dir = openat(cv->v->dir_fd, CONVERT_DIR, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	fflush(NULL);
	if (pipe2(ready, O_CLOEXEC))
		return -errno;
	pid = fork();
	close(ready[pid != 0]);
	if (pid < 0) {
		int err = -errno;

		close(ready[0]);
		return err;
	}
	if (pid > 0) {
		(void)!read(ready[0], &byte, 1); /* so that a status can be asked for as soon as the terminal is free */
		close(ready[0]);
		printf("Process %ld works in the background; `tdfs convert status %s` shows how far it is.\nIts output goes to %s\n",
		       (long)pid, cv->plan ? cv->plan->path : cv->v->path, path);
		return 1;
	}
	(void)setsid();
	cv->run.parent = getpid();
	close(STDIN_FILENO);
	if (open("/dev/null", O_RDONLY) != STDIN_FILENO || dup2(fd, STDOUT_FILENO) < 0 || dup2(fd, STDERR_FILENO) < 0)
		_exit(EXIT_TDFS_FAILED);
	/* the lock's file names who holds it */
	if (volume_lock_sign(cv->v))
		_exit(EXIT_TDFS_FAILED);
	if (dir >= 0)
		report_status_to(cv, cv->plan ? cv->plan->run_dir : dir, "running");
	close(ready[1]); /* says so */
	return 0;
}

/* Of a run before this one; ours begins now, and may be asked for something as soon as it is in the background. */
static void request_forget(const struct volume *v)
{
	CLEANUP_FD int dir = openat(v->dir_fd, CONVERT_DIR, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (dir >= 0)
		(void)request_write(dir, REQUEST_NONE);
}

int session_prepare(struct session *s, const struct convert_args *a)
{
	struct convert *cv = s->cv;
	struct stat st;
	int code;

	if (fstat(cv->run.from_fd, &st))
		return complain(-errno, cv->from_name, NULL);
	cv->run.dev = st.st_dev;
	cv->json = a->json;
	cv->quiet = a->quiet;
	if (a->dry_run)
		return EXIT_TDFS_OK;
	if (!cv->plan)
		request_forget(cv->v);
	code = cv->run.in_place || cv->run.verb == CONVERT_IN ? attributes_check(cv->v->store_fd, cv->v->path) : EXIT_TDFS_OK;
	/* with a plan others may be at work already */
	if (!code && cv->run.verb != CONVERT_IN && !cv->plan)
		code = log_recover(cv->v);
	if (!code && cv->run.verb == CONVERT_REWRAP)
		code = rewrap_prepare(cv, a);
	return code;
}

/* The daemon has the volume's lock; this one keeps other converters away.  Its file names who holds it, as the volume's does. */
static int hold_live(struct volume *v)
{
	int err = live_hold(v);

	if (err >= 0) {
		v->lock_fd = err;
		err = volume_lock_sign(v);
	}
	return err ? complain(err, v->path, NULL) : EXIT_TDFS_OK;
}

int session_open(struct session *s, const struct convert_args *a, enum convert_verb verb, const char *store, const char *other)
{
	int code = convert_args_use(a, verb, &s->cv->run);

	s->cv->run.live = s->live;
	if (!code)
		code = volume_get(store, &a->cred, &s->v);
	fail_clear();
	if (!code)
		code = s->live ? hold_live(s->v) : s->shared ? volume_share(s->v) : volume_hold(s->v);
	if (!code && other)
		code = tree_open(s->v, other, verb == CONVERT_OUT && !a->dry_run, &s->other_fd);
	if (!code && other && verb == CONVERT_IN)
		code = source_check(s->other_fd, other);
	if (code)
		return code;
	s->cv->v = s->v;
	s->cv->run.v = s->v;
	s->cv->run.from_fd = verb == CONVERT_IN && other ? s->other_fd : s->v->store_fd;
	s->cv->run.to_fd = verb == CONVERT_OUT && other ? s->other_fd : s->v->store_fd;
	s->cv->from_name = other && verb == CONVERT_IN ? other : store;
	s->cv->to_name = other && verb == CONVERT_OUT ? other : store;
	return EXIT_TDFS_OK;
}

void session_close(struct session *s)
{
	volume_free(s->v);
	close_fd(&s->other_fd);
	free(s->cv);
}

int session_trees(const struct convert_args *a, enum convert_verb verb, int n, char **pos, const char **ret_store, const char **ret_other)
{
	if (n != (a->in_place ? 1 : 2)) {
		report(REPORT_ERROR, a->in_place ? "--in-place takes the STORE alone" : "give both trees: %s",
		       verb == CONVERT_IN ? "SRC STORE" : "STORE DEST");
		return EXIT_TDFS_USAGE;
	}
	*ret_store = pos[!a->in_place && verb == CONVERT_IN];
	*ret_other = a->in_place ? NULL : pos[verb != CONVERT_IN];
	return EXIT_TDFS_OK;
}

int session_run(struct session *s, const struct convert_args *a)
{
	int err = a->daemon ? background(s->cv) : 0;

	if (err)
		return err < 0 ? complain(err, s->v->path, NULL) : EXIT_TDFS_OK;
	interrupt_catch();
	status_signal_catch();
	return convert_run(s->cv);
}

/* What a rewrap that was cut short has made of a file with several names: two files.  Before anything else they become one again. */
static int rejoin(const struct session *s)
{
	struct convert *cv = calloc(1, sizeof(*cv));
	int code = cv ? log_recover(s->v) : complain(-ENOMEM, NULL, NULL);

	if (!code) {
		cv->v = s->v;
		cv->run = s->cv->run;
		cv->run.verb = CONVERT_REWRAP;
		cv->run.recover = true;
		cv->run.new_dek = false;
		cv->from_name = cv->to_name = s->cv->from_name;
		cv->json = s->cv->json;
		cv->quiet = s->cv->quiet;
		code = convert_run(cv);
	}
	free(cv);
	return code;
}

int convert_main(const struct convert_args *a, enum convert_verb verb, bool only_recover, int n, char **pos)
{
	CLEANUP(session_close) struct session s = SESSION_NEW;
	const char *store, *other;
	int code = session_trees(a, verb, n, pos, &store, &other);

	s.live = !code && verb == CONVERT_IN && a->in_place && !only_recover && live_serves(store);
	if (!code && !s.live)
		code = live_refuse(store, only_recover ? CONVERT_REWRAP : verb, a->in_place);
	if (!code)
		code = s.cv ? session_open(&s, a, verb, store, other) : complain(-ENOMEM, NULL, NULL);
	if (!code)
		code = session_prepare(&s, a);
	if (code)
		return code;
	s.cv->run.recover = only_recover;
	/* what is half replaced was made for an earlier run's policy, and is one file before it is looked at for this one's */
	if ((only_recover || (verb == CONVERT_REWRAP && (a->policy || a->rules) && !a->dry_run)) && job_half_sets(s.v)) {
		code = rejoin(&s);
		if (code)
			return code;
	}
	code = rewrap_scope(s.cv, a);
	if (code)
		return code;
	return a->dry_run ? report_dry_run(s.cv, a->json) : session_run(&s, a);
}

static int in_main(const void *args, int n, char **pos)
{
	return convert_main(args, CONVERT_IN, false, n, pos);
}

static int out_main(const void *args, int n, char **pos)
{
	return convert_main(args, CONVERT_OUT, false, n, pos);
}

struct recover_args {
	struct convert_args all;
	bool out;
};

static int recover_main(const void *args, int n, char **pos)
{
	const struct recover_args *r = args;
	struct convert_args a = r->all;

	a.in_place = true;
	return convert_main(&a, r->out ? CONVERT_OUT : CONVERT_IN, true, n, pos);
}

static const struct option_row rows[] = {
    {OPTION_FLAG, 0, "in-place", NULL, offsetof(struct convert_args, in_place), "where the store is: x becomes x.tdf or back"},
    SHARED_ROWS(struct convert_args, ),
    CREDENTIAL_ROWS(struct convert_args, cred),
    {0},
};

static const struct command convert_in = {
    .name = "in",
    .summary = "plain files become files of a volume",
    .usage = "SRC STORE | --in-place STORE",
    .notes = "In place (also below a mount): `tdfs init --in-place DIR` first. A file goes\n"
	     "when it is sealed and verified on the disk. Stopped or killed: run it again.\n",
    .options = rows,
    .args_size = sizeof(struct convert_args),
    .min_args = 1,
    .max_args = 2,
    .run = in_main,
};

static const struct command convert_out = {
    .name = "out",
    .summary = "files of a volume become plain files",
    .usage = "STORE DEST | --in-place STORE",
    .notes = "Stopped or killed: the same command goes on. The store must not be mounted: a\n"
	     "mount is copied out of with cp -a.\n",
    .options = rows,
    .args_size = sizeof(struct convert_args),
    .min_args = 1,
    .max_args = 2,
    .run = out_main,
};

static const struct option_row recover_rows[] = {
    {OPTION_FLAG, 0, "out", NULL, offsetof(struct recover_args, out), "what `convert out --in-place` has left"},
    CREDENTIAL_ROWS(struct recover_args, all.cred),
    {0},
};

static const struct command convert_recover = {
    .name = "recover",
    .summary = "finish or take back what a killed conversion left, no more",
    .usage = "STORE",
    .notes = "Names of one file, of which a killed rewrap has replaced a part, become one file\n"
	     "again. The store must not be mounted.\n",
    .options = recover_rows,
    .args_size = sizeof(struct recover_args),
    .min_args = 1,
    .max_args = 1,
    .run = recover_main,
};

static const struct command *const convert_commands[] = {
    &convert_in,     &convert_out,     &convert_rewrap, &convert_plan,   &convert_run_plan,
    &convert_start,  &convert_status,  &convert_pause,  &convert_resume, &convert_cancel,
    &command_verify, &convert_recover, &convert_open,   &convert_finish, NULL};

const struct command command_convert = {
    .name = "convert",
    .summary = "whole trees in and out of a volume",
    .sub = convert_commands,
};
