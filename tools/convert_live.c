/* SPDX-License-Identifier: Apache-2.0 */
/* The parent of a live conversion: it starts the workers, shows how far they are, and sums up. */
#include "convert_live.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "progress.h"
#include "say.h"
#include "target.h"

#define LOCK "run"
#define TICK_MS 100
#define DEATHS_MAX 5 /* of workers, then it is given up */
#define ANSWER_MS 10000

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
	fd = dir < 0 ? -1 : openat(dir, LOCK, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600);
	if (fd < 0)
		return fail(-errno, "%s/" TDFS_DIR "/" CONVERT_DIR "/" LOCK ": %s", v->path, strerror(errno));
	if (flock(fd, LOCK_EX | LOCK_NB)) {
		err = errno == EWOULDBLOCK ? fail(-EBUSY, "it is being converted by another process") : -errno;
		return err;
	}
	err = fd;
	fd = -1;
	return err;
}

static int temp_remove(void *arg, const char *name, unsigned char d_type, ino_t ino)
{
	(void)unlinkat(*(const int *)arg, name, 0);
	return 0;
}

/* What killed runs have left there; ours is the only one. */
static int temp_open_dir(const struct volume *v)
{
	CLEANUP_FD int dir = openat(v->dir_fd, CONVERT_DIR, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct io io = io_posix(v->store_fd);
	int fd;

	if (dir < 0 || (mkdirat(dir, "tmp", 0700) && errno != EEXIST))
		return -errno;
	fd = openat(dir, "tmp", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	(void)io.list(io.ctx, fd, temp_remove, &fd);
	return fd;
}

static double seconds_since(const struct timespec *from)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)(t.tv_sec - from->tv_sec) + (double)(t.tv_nsec - from->tv_nsec) / 1e9;
}

static void draw(const struct live_board *b, const struct timespec *begin)
{
	char bytes[SAY_TEXT];

	size_text(b->bytes, bytes);
	fprintf(stderr,
		"\r\033[Ktdfs: %" PRIu64 " files | %s | %.0f files/s | already %" PRIu64 " busy %" PRIu64 " skipped %" PRIu64
		" failed %" PRIu64,
		b->converted, bytes, (double)b->converted / MAX(seconds_since(begin), 0.001), b->already, b->busy, b->skipped, b->failed);
}

static int sum_up(const struct live_board *b, double took, const char *store, bool json, int code)
{
	char bytes[SAY_TEXT];

	if (json)
		return json_say(json_pack("{s:i, s:s, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:i}", "v", 1, "verb", "in", "mounted", 1,
					  "converted", (json_int_t)b->converted, "bytes", (json_int_t)b->bytes, "already",
					  (json_int_t)b->already, "busy", (json_int_t)b->busy, "skipped", (json_int_t)b->skipped, "failed",
					  (json_int_t)b->failed, "seconds", took, "exit", code))
			   ? EXIT_TDFS_FAILED
			   : code;
	size_text(b->bytes, bytes);
	printf("%" PRIu64 " files converted under the mount (%s) in %.1f s; %" PRIu64 " were already, %" PRIu64 " busy, %" PRIu64
	       " skipped, %" PRIu64 " failed\n",
	       b->converted, bytes, took, b->already, b->busy, b->skipped, b->failed);
	printf("What was removed may still stand in free blocks of the disk, in snapshots and in backups.\n");
	if (code == EXIT_TDFS_OK)
		printf("Next:  tdfs convert finish %s\n", store);
	else
		printf("Next:  the same command again\n");
	return output_flush(code);
}

static int start_one(const struct convert_run *run, unsigned i, struct live_board *b, pid_t *ret)
{
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (!pid)
		live_worker(run, i, b);
	if (pid < 0)
		return fail(-errno, "starting a worker: %s", strerror(errno));
	*ret = pid;
	return 0;
}

static int start_all(const struct convert_run *run, struct live_board *b, pid_t *pids)
{
	int err = 0;

	for (unsigned i = 0; i < run->workers && !err; i++) {
		err = start_one(run, i, b, &pids[i]);
		if (err) {
			b->stop = true;
			while (i-- > 0)
				(void)waitpid(pids[i], NULL, 0);
			break;
		}
	}
	return err;
}

/* One that was killed is replaced and looks at its share again: what it had not finished is plain, or it was finished.  false: it ended
 * badly */
static bool ended(const struct convert_run *run, unsigned i, struct live_board *b, pid_t *pids, int status, unsigned *left)
{
	(*left)--;
	if (WIFEXITED(status) && !WEXITSTATUS(status))
		return true;
	if (WIFEXITED(status) || b->stop || b->gone)
		return WIFSIGNALED(status) && b->stop;
	if (b->deaths++ >= DEATHS_MAX) {
		report(REPORT_ERROR, "workers are killed again and again (the last by signal %d)", WTERMSIG(status));
		return false;
	}
	report(REPORT_WARN, "a worker was killed by signal %d; another one goes on", WTERMSIG(status));
	if (start_one(run, i, b, &pids[i]))
		return false;
	(*left)++;
	return true;
}

/* Until all have ended; true: all as they should */
static bool wait_all(const struct convert_run *run, pid_t *pids, struct live_board *b, bool show)
{
	struct timespec begin;
	unsigned left = run->workers;
	bool good = true;
	double drawn = 0;

	clock_gettime(CLOCK_MONOTONIC, &begin);
	while (left) {
		int status;
		pid_t pid = waitpid(-1, &status, WNOHANG);

		for (unsigned i = 0; pid > 0 && i < run->workers; i++)
			if (pids[i] == pid) {
				good = ended(run, i, b, pids, status, &left) && good;
				break;
			}
		if (pid > 0)
			continue;
		if (pid < 0 && errno == ECHILD)
			break;
		b->stop = b->stop || interrupted();
		if (show && seconds_since(&begin) - drawn >= 0.5) {
			drawn = seconds_since(&begin);
			draw(b, &begin);
		}
		(void)poll(NULL, 0, TICK_MS);
	}
	if (show && drawn > 0)
		fputs("\r\033[K", stderr);
	return good;
}

static int exit_of(const struct live_board *b, bool good)
{
	if (b->gone || b->stop)
		return b->stop ? EXIT_TDFS_INTERRUPTED : EXIT_TDFS_RETRY;
	if (!good)
		return EXIT_TDFS_FAILED;
	return b->failed || b->skipped ? EXIT_TDFS_SOME : b->busy ? EXIT_TDFS_RETRY : EXIT_TDFS_OK;
}

int live_run(const struct convert_run *given, const char *store, bool quiet, bool json)
{
	struct convert_run run = *given;
	CLEANUP_FREE pid_t *pids = calloc(run.workers, sizeof(*pids));
	CLEANUP_FD int temp = -1;
	struct live_board *b = mmap(NULL, sizeof(*b), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct timespec begin;
	struct stat st;
	bool good;
	int err = !pids || b == MAP_FAILED ? -ENOMEM : 0, code;

	if (!err && (fstat(run.v->store_fd, &st) || (temp = temp_open_dir(run.v)) < 0))
		err = temp < 0 ? temp : -errno;
	run.from_fd = run.to_fd = run.v->store_fd;
	run.dev = st.st_dev;
	run.temp_dir = temp;
	run.parent = getpid();
	clock_gettime(CLOCK_REALTIME, &run.started);
	clock_gettime(CLOCK_MONOTONIC, &begin);
	interrupt_catch();
	if (!err)
		err = start_all(&run, b, pids);
	if (err)
		return complain(err, store, NULL);
	good = wait_all(&run, pids, b, !quiet && !json && isatty(STDERR_FILENO));
	if (b->gone)
		report(REPORT_ERROR, "%s: its mount has ended meanwhile; every file is whole; mount it again or go on without", store);
	code = exit_of(b, good);
	if (!quiet)
		code = sum_up(b, seconds_since(&begin), store, json, code);
	munmap(b, sizeof(*b));
	return code;
}

/* Of the daemon that has @store mounted, if one has */
static bool serves_plain(const char *store)
{
	CLEANUP_FREE char *dir = tdfs_dir(store);
	json_t *status = NULL;
	const char *state;
	bool yes;

	if (!dir || control_call(dir, "status", ANSWER_MS, &status))
		return false;
	state = json_string_value(json_object_get(status, "state"));
	yes = state && strcmp(state, "converting") == 0;
	json_decref(status);
	return yes;
}

int live_main(const struct convert_args *a, int n, char **pos)
{
	CLEANUP(volume_cleanup) struct volume *v = NULL;
	struct convert_run run = {0};
	CLEANUP_FD int lock = -1;
	int code;

	fail_clear();
	if (!a->in_place || n != 1 || !serves_plain(pos[0])) {
		fail_clear();
		return -1;
	}
	if (a->max_rate || a->max_duration || a->pressure || a->files_from || a->dry_run || a->daemon) {
		report(REPORT_ERROR,
		       "%s: is mounted; under a mount only --workers, --batch, --verify, --busy, --json and --quiet can be given", pos[0]);
		return EXIT_TDFS_USAGE;
	}
	code = convert_args_use(a, CONVERT_IN, &run);
	if (!code)
		code = volume_get(pos[0], &a->cred, &v);
	if (code)
		return code;
	fail_clear();
	lock = live_hold(v);
	if (lock < 0)
		return complain(lock, v->path, NULL);
	run.v = v;
	return live_run(&run, pos[0], a->quiet, a->json);
}
