/* SPDX-License-Identifier: Apache-2.0 */
/* tdfs convert: whole trees in and out. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/xattr.h>

#include "commands.h"
#include "convert_file.h"
#include "convert_i.h"
#include "progress.h"
#include "recover.h"
#include "say.h"
#include "target.h"

struct args {
	struct credential_source cred;
	bool in_place, cross, dry_run, json, daemon, idle, quiet;
	uint64_t workers, batch, max_rate;
	const char *verify, *busy, *max_duration, *files_from;
};

static int word_index(const char *word, const char *const *words, const char *option, int fallback, int *ret)
{
	*ret = fallback;
	if (!word)
		return 0;
	for (int i = 0; words[i]; i++)
		if (strcmp(word, words[i]) == 0) {
			*ret = i;
			return 0;
		}
	report(REPORT_ERROR, "--%s: '%s': %s, %s or %s", option, word, words[0], words[1], words[2]);
	return -EINVAL;
}

static int duration_parse(const char *text, uint64_t *ret)
{
	char digits[24];
	size_t len = strlen(text);
	uint64_t unit = 1;

	if (!len || len >= sizeof(digits))
		return -EINVAL;
	memcpy(digits, text, len + 1);
	switch (digits[len - 1]) {
	case 'h':
		unit = 3600;
		break;
	case 'm':
		unit = 60;
		break;
	case 's':
		break;
	default:
		len++;
	}
	digits[len - 1] = 0;
	if (number_parse(digits, ret) || *ret > UINT32_MAX)
		return -EINVAL;
	*ret *= unit;
	return 0;
}

static int run_fill(const struct args *a, enum convert_verb verb, struct convert_run *r)
{
	static const char *const verifies[] = {"none", "sample", "full", NULL}, *const busies[] = {"skip", "wait", "fail", NULL};
	cpu_set_t cpus;
	int verify, busy;

	if (word_index(a->verify, verifies, "verify", a->in_place ? VERIFY_POLICY_FULL : VERIFY_POLICY_SAMPLE, &verify) ||
	    word_index(a->busy, busies, "busy", BUSY_SKIP, &busy))
		return EXIT_TDFS_USAGE;
	if (a->workers > WORKERS_MAX || a->batch > 1 << 20) {
		report(REPORT_ERROR, a->workers > WORKERS_MAX ? "--workers: at most %d" : "--batch: at most %d",
		       a->workers > WORKERS_MAX ? WORKERS_MAX : 1 << 20);
		return EXIT_TDFS_USAGE;
	}
	if (a->max_duration && (duration_parse(a->max_duration, &r->max_seconds) || !r->max_seconds)) {
		report(REPORT_ERROR, "--max-duration: '%s' is no time: 90s, 15m, 2h", a->max_duration);
		return EXIT_TDFS_USAGE;
	}
	if (a->cross && a->in_place) {
		report(REPORT_ERROR,
		       "--cross: what is removed in place must lie on the file system that is synced; convert each file system by itself");
		return EXIT_TDFS_USAGE;
	}
	r->verb = verb;
	r->in_place = a->in_place;
	r->one_fs = !a->cross;
	r->verify = (enum verify_policy)verify;
	r->busy = (enum busy_policy)busy;
	r->workers = (unsigned)a->workers;
	if (!r->workers)
		r->workers = sched_getaffinity(0, sizeof(cpus), &cpus) ? 2 : (unsigned)MIN(CPU_COUNT(&cpus), 16);
	r->batch = a->batch ? (unsigned)a->batch : 256;
	r->max_rate = a->max_rate;
	r->idle = a->idle;
	r->files_from = a->files_from;
	r->parent = getpid();
	return EXIT_TDFS_OK;
}

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
	pid_t pid;

	if (mkdirat(cv->v->dir_fd, CONVERT_DIR, 0700) && errno != EEXIST)
		return -errno;
	if (asprintf(&path, "%s/%s/%s/output", cv->v->path, TDFS_DIR, CONVERT_DIR) < 0)
		return -ENOMEM;
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	fflush(NULL);
	pid = fork();
	if (pid < 0)
		return -errno;
	if (pid > 0) {
		printf("Process %ld works in the background; `tdfs convert status %s` shows how far it is.\nIts output goes to %s\n",
		       (long)pid, cv->v->path, path);
		return 1;
	}
	(void)setsid();
	cv->run.parent = getpid();
	close(STDIN_FILENO);
	if (open("/dev/null", O_RDONLY) != STDIN_FILENO || dup2(fd, STDOUT_FILENO) < 0 || dup2(fd, STDERR_FILENO) < 0)
		_exit(EXIT_TDFS_FAILED);
	/* the lock's file names who holds it */
	if (ftruncate(cv->v->lock_fd, 0) || dprintf(cv->v->lock_fd, "%s", "") < 0)
		_exit(EXIT_TDFS_FAILED);
	{
		char text[32];
		int n = snprintf(text, sizeof(text), "%ld\n", (long)getpid());

		if (pwrite(cv->v->lock_fd, text, (size_t)n, 0) != n)
			_exit(EXIT_TDFS_FAILED);
	}
	return 0;
}

static int convert_locked(struct convert *cv, const struct args *a)
{
	struct stat st;
	int err, code;

	if (fstat(cv->run.from_fd, &st))
		return complain(-errno, cv->from_name, NULL);
	cv->run.dev = st.st_dev;
	cv->json = a->json;
	cv->quiet = a->quiet;
	if (a->dry_run)
		return report_dry_run(cv, a->json);
	code = cv->run.in_place || cv->run.verb == CONVERT_IN ? attributes_check(cv->v->store_fd, cv->v->path) : EXIT_TDFS_OK;
	if (!code && cv->run.verb == CONVERT_OUT)
		code = log_recover(cv->v);
	if (code)
		return code;
	if (a->daemon) {
		err = background(cv);
		if (err)
			return err < 0 ? complain(err, cv->v->path, NULL) : EXIT_TDFS_OK;
	}
	interrupt_catch();
	return convert_run(cv);
}

static int convert_main(const struct args *a, enum convert_verb verb, bool only_recover, int n, char **pos)
{
	CLEANUP(volume_cleanup) struct volume *v = NULL;
	struct convert *cv = calloc(1, sizeof(*cv));
	const char *store = a->in_place          ? pos[0]
			    : verb == CONVERT_IN ? pos[1]
						 : pos[0],
		   *other = a->in_place          ? NULL
			    : verb == CONVERT_IN ? pos[0]
						 : pos[1];
	CLEANUP_FD int fd = -1;
	int code;

	if (!cv)
		return complain(-ENOMEM, NULL, NULL);
	if (n != (a->in_place ? 1 : 2)) {
		report(REPORT_ERROR, a->in_place ? "--in-place takes the STORE alone" : "give both trees: %s",
		       verb == CONVERT_IN ? "SRC STORE" : "STORE DEST");
		free(cv);
		return EXIT_TDFS_USAGE;
	}
	code = run_fill(a, verb, &cv->run);
	if (!code)
		code = volume_get(store, &a->cred, &v);
	if (!code)
		code = volume_hold(v);
	if (!code && other)
		code = tree_open(v, other, verb == CONVERT_OUT && !a->dry_run, &fd);
	if (!code) {
		cv->v = v;
		cv->run.v = v;
		cv->run.recover = only_recover;
		cv->run.from_fd = verb == CONVERT_IN && other ? fd : v->store_fd;
		cv->run.to_fd = verb == CONVERT_OUT && other ? fd : v->store_fd;
		cv->from_name = other && verb == CONVERT_IN ? other : store;
		cv->to_name = other && verb == CONVERT_OUT ? other : store;
		code = convert_locked(cv, a);
	}
	free(cv);
	return code;
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
	struct args all;
	bool out;
};

static int recover_main(const void *args, int n, char **pos)
{
	const struct recover_args *r = args;
	struct args a = r->all;

	a.in_place = true;
	return convert_main(&a, r->out ? CONVERT_OUT : CONVERT_IN, true, n, pos);
}

#define SHARED_ROWS(st, m)                                                                                             \
	{OPTION_NUMBER, 0, "workers", "N", offsetof(st, m workers), "processes (default: the cores, at most 16)"},     \
	    {OPTION_NUMBER, 0, "batch", "N", offsetof(st, m batch), "files per sync of the disk (256)"},               \
	    {OPTION_TEXT, 0, "verify", "HOW", offsetof(st, m verify), "reread: none, sample or full"},                 \
	    {OPTION_TEXT, 0, "busy", "HOW", offsetof(st, m busy), "files in use: skip, wait or fail"},                 \
	    {OPTION_SIZE, 0, "max-rate", "SIZE", offsetof(st, m max_rate), "bytes a second at most"},                  \
	    {OPTION_TEXT, 0, "max-duration", "TIME", offsetof(st, m max_duration), "stop cleanly after 90s, 15m, 2h"}, \
	    {OPTION_FLAG, 0, "idle", NULL, offsetof(st, m idle), "only when nobody else wants CPU or disk"},           \
	    {OPTION_FLAG, 0, "cross", NULL, offsetof(st, m cross), "go into other file systems mounted below"},        \
	    {OPTION_TEXT, 0, "files-from", "FILE", offsetof(st, m files_from), "only these: NUL-separated paths"},     \
	    {OPTION_FLAG, 0, "dry-run", NULL, offsetof(st, m dry_run), "only count, and tell the space needed"},       \
	    {OPTION_FLAG, 0, "daemon", NULL, offsetof(st, m daemon), "go on in the background"},                       \
	    {OPTION_FLAG, 'q', "quiet", NULL, offsetof(st, m quiet), "no progress, no summary"},                       \
	{                                                                                                              \
		OPTION_FLAG, 0, "json", NULL, offsetof(st, m json), "progress and events as JSON lines"                \
	}

static const struct option_row rows[] = {
    {OPTION_FLAG, 0, "in-place", NULL, offsetof(struct args, in_place), "where the store is: x becomes x.tdf or back"},
    SHARED_ROWS(struct args, ),
    CREDENTIAL_ROWS(struct args, cred),
    {0},
};

static const struct command convert_in = {
    .name = "in",
    .summary = "plain files become files of a volume",
    .usage = "SRC STORE | --in-place STORE",
    .notes = "In place: `tdfs init --in-place DIR` first. Each plain file goes when its sealed\n"
	     "form is on the disk and verified. Stopped or killed: the same command goes on.\n",
    .options = rows,
    .args_size = sizeof(struct args),
    .min_args = 1,
    .max_args = 2,
    .run = in_main,
};

static const struct command convert_out = {
    .name = "out",
    .summary = "files of a volume become plain files",
    .usage = "STORE DEST | --in-place STORE",
    .notes = "Stopped or killed: the same command goes on.\n",
    .options = rows,
    .args_size = sizeof(struct args),
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
    .options = recover_rows,
    .args_size = sizeof(struct recover_args),
    .min_args = 1,
    .max_args = 1,
    .run = recover_main,
};

static const struct command *const convert_commands[] = {&convert_in,     &convert_out,    &convert_status,  &convert_pause,
							 &convert_resume, &convert_cancel, &convert_recover, NULL};

const struct command command_convert = {
    .name = "convert",
    .summary = "whole trees in and out of a volume",
    .sub = convert_commands,
};
