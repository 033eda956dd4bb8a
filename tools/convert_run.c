/* SPDX-License-Identifier: Apache-2.0 */
/* The parent's loop.  It never waits for a disk but in the walk; syncing has a process of its own. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/vfs.h>

#include "convert_file.h"
#include "convert_i.h"
#include "progress.h"
#include "say.h"

#define TICK_MS 100
#define BUSY_WAIT_MS 1000
#define BUSY_LIVE_MS 500
#define BEAT_SECONDS 15

static bool pipeline_empty(const struct convert *cv)
{
	return !cv->staged.first && !cv->to_commit.first && !cv->committed.first && !cv->barrier_running && !pool_busy(cv);
}

/* When enough waits for it, or when nothing else can move. */
static bool barrier_due(const struct convert *cv)
{
	size_t waiting = cv->staged.n_files + cv->committed.n_files;

	if (cv->barrier_running || !waiting)
		return false;
	if (cv->staged.n_files >= cv->run.batch || cv->staged.bytes >= FLIGHT_BYTES / 2)
		return true;
	return !pool_busy(cv) && !cv->to_commit.first;
}

/* Of the files that came back: is one in use, so that waiting makes sense? */
static bool some_busy(const struct convert *cv)
{
	for (size_t i = 0; i < cv->n_deferred; i++)
		if (!cv->deferred[i].collided)
			return true;
	for (const struct chunk *c = cv->deferred_sets.first; c; c = c->next)
		if (!c->items[0].collided)
			return true;
	return false;
}

#define TAKEN "the name it needs is taken by a file that does not go away"

static void sets_again(struct convert *cv, bool hopeless)
{
	struct queue back = cv->deferred_sets;
	struct chunk *c;

	if (!back.first)
		return;
	queue_init(&cv->deferred_sets);
	while ((c = queue_pop(&back)) != NULL) {
		if (!hopeless || c->tries < 2 || !c->items[0].collided) {
			queue_push(&cv->ready, c);
			continue;
		}
		while (c->n)
			settle(cv, &c->items[--c->n], ITEM_COLLISION, TAKEN);
		chunk_free(cv, c);
	}
}

/* All that came back is tried again once everything else is through; collisions as long as something moves. */
static int next_round(struct convert *cv)
{
	bool moved = cv->counts.converted != cv->converted_at_round;
	/* nothing has moved since they were tried last, and it is not worth waiting for */
	bool hopeless = !moved && !(cv->run.busy == BUSY_WAIT && some_busy(cv));
	struct item *list = STEAL(cv->deferred);
	size_t n = cv->n_deferred, i;
	struct chunk *c = NULL;
	int err = 0;

	cv->n_deferred = cv->room_deferred = 0;
	if (!moved && cv->space_low) {
		err = fail(-ENOSPC, "the disk (or a quota) is full: free some space and run it again; every file is whole");
	} else if (!moved && cv->run.busy == BUSY_WAIT) {
		(void)poll(NULL, 0, BUSY_WAIT_MS);
	} else if (cv->run.live) {
		(void)poll(NULL, 0, BUSY_LIVE_MS);
	}
	if (!err)
		sets_again(cv, hopeless);
	for (i = 0; i < n && !err; i++) {
		if (hopeless && list[i].tries > 1 && list[i].collided) {
			settle(cv, &list[i], ITEM_COLLISION, TAKEN);
			continue;
		}
		if (!c)
			c = chunk_new(cv);
		err = c ? chunk_add(cv, c, &list[i]) : -ENOMEM;
		if (!err && chunk_full(c)) {
			queue_push(&cv->ready, c);
			c = NULL;
		}
	}
	if (c && c->n)
		queue_push(&cv->ready, c);
	for (; err && i < n; i++)
		convert_item_free(cv, &list[i]);
	free(list);
	cv->converted_at_round = cv->counts.converted;
	cv->space_low = false;
	return err;
}

static int poll_once(struct convert *cv, int timeout)
{
	struct pollfd p[WORKERS_MAX + 1];
	unsigned n = cv->run.workers;
	int err = 0;

	for (unsigned i = 0; i < n; i++)
		p[i] = (struct pollfd){.fd = cv->workers[i].wire.fd, .events = POLLIN};
	p[n] = (struct pollfd){.fd = cv->barrier_fd, .events = POLLIN};
	if (poll(p, n + 1, timeout) < 0)
		return errno == EINTR ? 0 : -errno;
	if (p[n].revents)
		err = barrier_done(cv);
	for (unsigned i = 0; i < n && !err; i++)
		if (p[i].revents)
			err = pool_read(cv, i);
	return err;
}

/* How long somebody had to wait for it in the last ten seconds, in per cent; 0: not known */
static uint64_t pressure_now(const char *what)
{
	static const char some[] = "some avg10=";
	char path[40], text[80] = "";
	CLEANUP_FD int fd = -1;
	uint64_t percent;

	snprintf(path, sizeof(path), "/proc/pressure/%s", what);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0 || strncmp(text, some, sizeof(some) - 1) != 0)
		return 0;
	text[strcspn(text, ".")] = 0;
	return number_parse(text + sizeof(some) - 1, &percent) ? 0 : percent;
}

/* What others want: a signal, `tdfs convert pause` or cancel, the clock, the machine. */
static void listen_out(struct convert *cv)
{
	enum job_request r = request_read(cv->plan ? cv->plan->dir : job_dir(cv->log));
	bool stop = interrupted();

	if (cv->plan && seconds_now(cv) - cv->last_beat >= BEAT_SECONDS) {
		cv->last_beat = seconds_now(cv);
		treeplan_beat(cv->plan);
	}
	cv->pressed = cv->run.pressure && pressure_now(cv->run.pressure) >= cv->run.max_pressure;
	cv->paused = r == REQUEST_PAUSE || cv->pressed;
	if (r == REQUEST_CANCEL)
		stop = cv->cancelled = true;
	stop |= cv->unmounted;
	if (cv->run.max_seconds && seconds_now(cv) >= (double)cv->run.max_seconds && !cv->draining)
		stop = cv->out_of_time = true;
	if (stop && !cv->draining) {
		cv->draining = true;
		source_close(cv);
	}
}

/* Everything that is under way has an end before it returns, unless that fails. */
static int loop(struct convert *cv)
{
	double heard = -1;
	int err = 0;

	for (;;) {
		if (seconds_now(cv) - heard >= 0.1) {
			heard = seconds_now(cv);
			listen_out(cv);
			report_progress(cv, false);
		} else if (interrupted() && !cv->draining) {
			listen_out(cv);
		}
		if (!cv->draining)
			err = source_fill(cv);
		if (!err)
			err = pool_dispatch(cv);
		if (!err && barrier_due(cv))
			err = barrier_start(cv);
		if (err)
			return err;
		if (pipeline_empty(cv) && (cv->draining || !cv->paused)) {
			if (cv->draining)
				return 0;
			if ((cv->n_deferred || cv->deferred_sets.first) && (source_ended(cv) || cv->space_low))
				err = next_round(cv);
			else if (source_ended(cv))
				return 0;
			else
				cv->space_low = false; /* all that could give space back has done so */
			if (err)
				return err;
			if (cv->ready.first && !cv->run.max_rate)
				continue;
		}
		err = poll_once(cv, TICK_MS);
		if (err)
			return err;
	}
}

static void dir_left(void *arg, const char *path, const struct timespec times[2])
{
	struct convert *cv = arg;
	CLEANUP_FD int fd = beneath_open(cv->run.from_fd, path, cv->run.one_fs);

	if (fd >= 0)
		(void)futimens(fd, times);
}

static int exit_of(const struct convert *cv, int err)
{
	if (err)
		return err == -EBUSY ? EXIT_TDFS_BUSY : EXIT_TDFS_FAILED;
	if (cv->unmounted)
		return EXIT_TDFS_RETRY;
	if (cv->draining && !cv->out_of_time)
		return EXIT_TDFS_INTERRUPTED;
	if (cv->counts.failed || cv->counts.skipped)
		return EXIT_TDFS_SOME;
	return cv->counts.busy || cv->out_of_time ? EXIT_TDFS_RETRY : EXIT_TDFS_OK;
}

/*
 * A sync makes every page clean, and the first store to a clean one through a mapping faults and gives its file a new ctime, on these file
 * systems.  So what is older needs no lease before it is read.  Two ticks of the clock that ctime comes from are left between.
 */
static void pages_clean(struct convert_run *run)
{
	struct timespec now;
	struct statfs s;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	if (fstatfs(run->from_fd, &s) ||
	    (s.f_type != EXT4_SUPER_MAGIC && s.f_type != XFS_SUPER_MAGIC && (unsigned long)s.f_type != BTRFS_SUPER_MAGIC) || syncfs(run->from_fd))
		return;
	run->clean_before = (struct timespec){now.tv_sec - (now.tv_nsec < 20000000), (now.tv_nsec + 980000000) % 1000000000};
}

static int work(struct convert *cv)
{
	uint64_t bytes, space;
	struct chunk *c;
	int err = 0;

	if (cv->plan)
		cv->total = cv->plan->head.files;
	else if (cv->run.in_place && cv->run.verb == CONVERT_IN && !cv->run.recover && !cv->run.live) /* a mount has done it */
		err = names_stage(cv);
	else if (!cv->run.files_from)
		err = names_look(cv, false, &bytes, &space);
	if (cv->run.in_place && cv->run.one_fs && cv->run.verb == CONVERT_IN)
		pages_clean(&cv->run);
	if (!err)
		err = pool_start(cv);
	if (!err)
		err = source_open(cv);
	if (!err)
		err = loop(cv);
	/* what went wrong comes first; the rest is left as a run that was killed leaves it */
	if (err)
		cv->fatal = err;
	source_close(cv);
	for (size_t i = 0; i < cv->n_deferred; i++)
		settle(cv, &cv->deferred[i], cv->draining || err ? ITEM_GONE : ITEM_BUSY, "still in use");
	free(STEAL(cv->deferred));
	cv->n_deferred = 0;
	while ((c = queue_pop(&cv->deferred_sets)) != NULL) {
		while (c->n)
			settle(cv, &c->items[--c->n], cv->draining || err ? ITEM_GONE : ITEM_BUSY, "still in use");
		chunk_free(cv, c);
	}
	return err;
}

static int finish(struct convert *cv)
{
	bool whole = !cv->run.files_from && !cv->run.below && !cv->run.only;
	int err = 0;

	if (cv->plan) {
		err = treeplan_finish(cv, &cv->plan_all);
		return err ? err : syncfs(cv->run.to_fd) ? -errno : 0;
	}
	if (!cv->run.files_from && cv->run.in_place)
		job_dirs_left(cv->log, dir_left, cv);
	if (whole && cv->run.verb == CONVERT_REWRAP && !cv->counts.failed) /* it has seen every file */
		job_half_end(cv->log, cv->half, cv->n_half);
	if (whole && cv->run.verb == CONVERT_REWRAP && !cv->run.recover && !cv->counts.failed && !cv->counts.busy &&
	    cv->counts.skipped == cv->counts.foreign)
		err = job_moved_done(cv->log);
	/* while sealed files are left the tree stays a store, in its spelling */
	if (cv->run.in_place && cv->run.verb == CONVERT_OUT && !cv->run.recover && !cv->run.files_from && !cv->counts.failed &&
	    !cv->counts.busy && cv->counts.skipped == cv->counts.foreign)
		err = names_stage(cv);
	return err ? err : syncfs(cv->run.to_fd) ? -errno : 0;
}

static void queues_free(struct convert *cv)
{
	struct queue *const all[] = {&cv->ready, &cv->staged, &cv->to_commit, &cv->committed, &cv->synced_staged, &cv->synced_committed};
	struct chunk *c;

	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		while ((c = queue_pop(all[i])) != NULL)
			chunk_free(cv, c);
}

/* A fresh KAS key, if that is what --new-dek still lacks. */
int rewrap_begin(struct convert *cv)
{
	if (cv->run.new_dek && strcmp(cv->past.moved_from, cv->v->kas_kid) == 0)
		return volume_kas_rotate(cv->v);
	return 0;
}

/* The journal, or a part in a plan. */
static int begin(struct convert *cv)
{
	int err;

	if (cv->plan) {
		/* a run that was killed may have made what is not durable: it is compared with what it was made from */
		cv->run.suspect_from = (struct timespec){cv->plan->head.made, 0};
		cv->past.half_sets = cv->run.verb == CONVERT_REWRAP; /* perhaps */
		return job_begin_plan(cv->v, cv->plan->run_dir, &cv->run.temp_dir, &cv->log);
	}
	if (cv->run.live)
		return job_begin_live(cv->v, &cv->run.temp_dir, &cv->log);
	err = job_begin(cv->v, &cv->run, &cv->past, &cv->log);
	if (err)
		return err;
	if (cv->past.any && !cv->past.clean)
		cv->run.suspect_from = cv->past.durable;
	cv->run.temp_dir =
	    cv->run.in_place || cv->run.verb == CONVERT_IN ? openat(job_dir(cv->log), "tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	return rewrap_begin(cv);
}

int convert_run(struct convert *cv)
{
	struct queue *const all[] = {&cv->ready,         &cv->staged,           &cv->to_commit,    &cv->committed,
				     &cv->synced_staged, &cv->synced_committed, &cv->deferred_sets};
	int err, code;

	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		queue_init(all[i]);
	cv->barrier_fd = cv->barrier_root = -1;
	cv->tty = isatty(STDERR_FILENO) && !cv->json;
	clock_gettime(CLOCK_MONOTONIC, &cv->begin);
	clock_gettime(CLOCK_REALTIME, &cv->run.started);
	fail_clear();
	err = begin(cv);
	if (err)
		return complain(err, cv->v->path, NULL);
	cv->run.kas_kid = cv->run.kas_kid ? cv->run.kas_kid : cv->v->kas_kid;
	cv->walk_calls = (struct walk_calls){cv, source_bad, dir_finished, cv->run.below, cv->run.only};
	report_status(cv, "running");
	err = work(cv);
	pool_stop(cv);
	queues_free(cv);
	if (!err && !cv->draining)
		err = finish(cv);
	if (cv->plan)
		plan_claims_end(cv->plan);
	if (!err)
		err = cv->fatal;
	if (err)
		complain(err, cv->v->path, NULL);
	if (cv->unmounted)
		report(REPORT_ERROR, "%s: its mount has ended meanwhile; every file is whole; mount it again or go on without",
		       cv->v->path);
	code = exit_of(cv, err);
	report_end(cv, code);
	job_end(cv->log, !err);
	cv->log = NULL;
	free(STEAL(cv->half));
	close_fd(&cv->run.temp_dir);
	return code;
}
