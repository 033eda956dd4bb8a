/* SPDX-License-Identifier: Apache-2.0 */
/* What people and programs are told: the line, the status, the list of what was not converted, the summary. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <sys/statvfs.h>

#include "convert_i.h"
#include "say.h"

#define TOLD_MAX 20 /* problems shown at once; all are in the list */

static volatile sig_atomic_t status_asked; /* by SIGUSR1 */

double seconds_now(const struct convert *cv)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)(t.tv_sec - cv->begin.tv_sec) + (double)(t.tv_nsec - cv->begin.tv_nsec) / 1e9;
}

static void hush(struct convert *cv)
{
	if (cv->drawn)
		fputs("\r\033[K", stderr);
	cv->drawn = false;
}

/* NUL-separated: a path, then a TAB and what became of it.  A path that begins with a TAB gets "./" before it. */
static void list_add(struct convert *cv, const char *path, const char *what, const char *text)
{
	if (!cv->failed_list) {
		int fd = openat(job_dir(cv->log), "failed.new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);

		cv->failed_list = fd < 0 ? NULL : fdopen(fd, "w");
		if (!cv->failed_list) {
			close_fd(&fd);
			return;
		}
	}
	fprintf(cv->failed_list, "%s%s%c\t%s: %s%c", *path == '\t' ? "./" : "", path, 0, what, text, 0);
}

void report_failed(struct convert *cv, const char *path, const char *what, const char *text)
{
	CLEANUP_FREE char *shown = path_text(path);

	list_add(cv, path, what, text);
	if (cv->json) {
		json_t *j = json_pack("{s:i, s:s, s:s, s:o, s:o}", "v", 1, "event", "file", "result", what, "path", json_path(path),
				      "reason", json_path(text));

		if (j)
			json_dumpf(j, stderr, JSON_COMPACT);
		fputc('\n', stderr);
		json_decref(j);
		return;
	}
	if (cv->n_told++ >= TOLD_MAX)
		return;
	hush(cv);
	report(strcmp(what, "failed") == 0 ? REPORT_ERROR : REPORT_WARN, "%s: %s: %s", shown ? shown : "?", what, text);
	if (cv->n_told == TOLD_MAX)
		report(REPORT_NOTE, "and perhaps more: all are in the list that is named at the end");
}

void report_reason(struct convert *cv, const char *text)
{
	struct counts *n = &cv->counts;

	for (size_t i = 0; i < n->n_reasons; i++)
		if (strcmp(n->reasons[i].text, text) == 0) {
			n->reasons[i].n++;
			return;
		}
	if (n->n_reasons == REASONS_MAX) {
		n->reasons[REASONS_MAX - 1].n++; /* a mixture from here on */
		return;
	}
	snprintf(n->reasons[n->n_reasons].text, sizeof(n->reasons[0].text), "%s", text);
	n->reasons[n->n_reasons++].n = 1;
}

static uint64_t seen(const struct convert *cv)
{
	const struct counts *n = &cv->counts;

	return n->converted + n->already + n->plain + n->busy + n->skipped + n->failed;
}

static const char *verb_name(enum convert_verb verb)
{
	return verb == CONVERT_IN ? "in" : verb == CONVERT_OUT ? "out" : "rewrap";
}

static json_t *status_json(const struct convert *cv, const char *state)
{
	const struct counts *n = &cv->counts;
	double took = seconds_now(cv);

	return json_pack("{s:i, s:s, s:s, s:b, s:b, s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:i, s:i}", "v", 1, "state",
			 state, "verb", verb_name(cv->run.verb), "in_place", cv->run.in_place, "mounted", cv->run.live, "pid",
			 (int)getpid(), "files_total", (json_int_t)cv->total, "files_seen", (json_int_t)seen(cv), "converted",
			 (json_int_t)n->converted, "bytes", (json_int_t)n->bytes, "already", (json_int_t)n->already, "busy",
			 (json_int_t)n->busy, "skipped", (json_int_t)n->skipped, "failed", (json_int_t)n->failed, "barriers",
			 (json_int_t)cv->n_barriers, "seconds", took, "workers", (int)cv->run.workers, "workers_lost", (int)cv->n_deaths);
}

void report_status_to(const struct convert *cv, int dir, const char *state)
{
	json_t *j = status_json(cv, state);

	if (j)
		status_write(dir, j);
	json_decref(j);
}

void report_status(struct convert *cv, const char *state)
{
	report_status_to(cv, job_dir(cv->log), state);
}

static void eta_text(const struct convert *cv, double took, char *ret, size_t room)
{
	uint64_t done = seen(cv);
	double left;

	*ret = 0;
	if (!done || done >= cv->total || took < 1)
		return;
	left = took / (double)done * (double)(cv->total - done);
	if (left < 3600)
		snprintf(ret, room, " | ETA %dm%02ds", (int)left / 60, (int)left % 60);
	else
		snprintf(ret, room, " | ETA %dh%02dm", (int)left / 3600, (int)left / 60 % 60);
}

static void status_line(const struct convert *cv)
{
	const struct counts *n = &cv->counts;
	double took = MAX(seconds_now(cv), 0.001);
	char bytes[SAY_TEXT], eta[32];

	size_text(n->bytes, bytes);
	eta_text(cv, took, eta, sizeof(eta));
	fprintf(stderr,
		"%s%" PRIu64 "/%" PRIu64 " files %.1f%% | %s | %.0f files/s | %u workers | busy %" PRIu64 " skipped %" PRIu64
		" failed %" PRIu64 "%s%s",
		cv->tty ? "" : "tdfs: ", seen(cv), cv->total, cv->total ? 100.0 * (double)seen(cv) / (double)cv->total : 0, bytes,
		(double)(n->converted) / took, cv->run.workers, n->busy, n->skipped, n->failed, eta,
		cv->pressed    ? " | waiting for the machine"
		: cv->paused   ? " | paused"
		: cv->draining ? " | stopping"
			       : "");
}

static void usr1_note(int sig)
{
	status_asked = 1;
}

void status_signal_catch(void)
{
	struct sigaction sa = {.sa_handler = usr1_note};

	(void)sigaction(SIGUSR1, &sa, NULL);
}

static bool status_wanted(void)
{
	bool asked = status_asked;

	status_asked = 0;
	return asked;
}

/* On a terminal a line that is drawn again; else a plain line a minute; as JSON an object a second. */
void report_progress(struct convert *cv, bool last)
{
	double now = seconds_now(cv);

	if (status_wanted() && !cv->json) { /* SIGUSR1: on a line of its own, quiet or not */
		hush(cv);
		status_line(cv);
		fputc('\n', stderr);
	}
	if (now - cv->last_status >= 1 && !last) {
		cv->last_status = now;
		report_status(cv, cv->paused ? "paused" : cv->draining ? "stopping" : "running");
	}
	if (cv->quiet || (!last && now - cv->last_draw < (cv->json ? 1 : cv->tty ? 0.5 : 60)))
		return;
	cv->last_draw = now;
	if (cv->json) {
		json_t *j = status_json(cv, last ? "end" : "progress");

		if (j)
			json_dumpf(j, stderr, JSON_COMPACT);
		fputc('\n', stderr);
		json_decref(j);
		return;
	}
	if (last) {
		hush(cv);
		return;
	}
	if (cv->tty)
		fputs("\r\033[K", stderr);
	status_line(cv);
	if (!cv->tty)
		fputc('\n', stderr);
	cv->drawn = cv->tty;
}

static void list_end(struct convert *cv)
{
	int dir = job_dir(cv->log);

	if (!cv->failed_list) {
		(void)unlinkat(dir, "failed", 0);
		return;
	}
	if (fclose(cv->failed_list) == 0)
		(void)renameat(dir, "failed.new", dir, "failed");
	cv->failed_list = NULL;
}

/* The same command again, or for those of a list. */
static void command_again(const struct convert *cv, const char *list)
{
	const char *store = cv->v->path;

	if (cv->plan && !list) {
		printf("Next:  tdfs convert run --plan %s   goes on where it stopped\n", cv->plan->path);
		return;
	}
	if (!list && cv->run.below) {
		printf("Next:  tdfs policy set %s/%s --existing   goes on where it stopped\n", store, cv->run.below);
		return;
	}
	printf("Next:  tdfs convert %s", verb_name(cv->run.verb));
	if (cv->run.verb == CONVERT_REWRAP)
		printf("%s%s%s%s", cv->run.new_dek ? " --new-dek" : "", cv->run.keep_dek ? " --keep-dek" : "",
		       cv->run.rules ? " --rules" : "", cv->run.policy ? " --policy FILE" : "");
	else
		printf("%s", cv->run.in_place ? " --in-place" : "");
	if (list && cv->plan)
		printf(" --files-from %s/run/%s/failed", cv->plan->path, cv->plan->me);
	else if (list)
		printf(" --files-from %s/%s/%s/failed", store, TDFS_DIR, CONVERT_DIR);
	if (cv->run.in_place)
		printf(" %s", store);
	else
		printf(" %s %s", cv->from_name, cv->to_name);
	printf("   %s\n", list ? list : "goes on where it stopped");
}

static void next_step(const struct convert *cv, int code)
{
	const char *store = cv->v->path;

	if (cv->cancelled && cv->run.live) {
		printf("Every file is whole, plain or sealed; the mount shows both.\n");
		command_again(cv, NULL);
	} else if (cv->cancelled && cv->run.in_place && cv->run.verb != CONVERT_REWRAP) {
		printf("Every file is whole, plain or sealed.\nNext:  tdfs convert %s --in-place %s   takes it back\n",
		       cv->run.verb == CONVERT_IN ? "out" : "in", store);
		command_again(cv, NULL);
	} else if (code == EXIT_TDFS_INTERRUPTED || code == EXIT_TDFS_RETRY || code == EXIT_TDFS_FAILED) {
		command_again(cv, NULL);
	} else if (code == EXIT_TDFS_SOME) {
		command_again(cv, "tries those again");
	} else if (cv->plan && !cv->plan_all) {
		printf("Other runs are still at it:  tdfs convert status %s\n", cv->plan->path);
	} else if (cv->plan && cv->run.verb == CONVERT_OUT && cv->run.in_place) {
		printf("Next:  tdfs convert out --in-place %s   gives folders their names back\n", store);
	} else if (cv->run.verb == CONVERT_IN && cv->run.in_place) {
		printf("Next:  tdfs convert finish %s   from then on no plain file is accepted\n", store);
		if (!cv->run.live)
			printf("       tdfs mount %s MOUNTPOINT\n", store);
	} else if (cv->run.verb == CONVERT_IN) {
		printf("Next:  tdfs mount %s MOUNTPOINT\n", store);
	} else if (cv->run.verb == CONVERT_OUT && cv->run.in_place) {
		printf("Next:  check your files, then  rm -r %s/%s\n", store, TDFS_DIR);
	} else if (cv->run.verb == CONVERT_REWRAP && cv->v->n_kas_old && !cv->run.files_from) {
		printf("Next:  tdfs key forget %s %s   when no backup needs it\n", store, cv->v->kas_old[0]);
	}
}

/* Of what was removed: who still has it, and what can be done. */
static void remains(const struct convert *cv, const char *bytes)
{
	if (cv->counts.unasked)
		printf("Whether other programs hold originals open cannot be asked on this file system: %" PRIu64 " files;\n"
		       "what they have open stays readable to them, and on the disk, until they close it.\n",
		       cv->counts.unasked);
	else
		printf("No original was open in another program when it was removed.\n");
	printf("%s of plain bytes may still lie in free blocks, and in snapshots and backups: `fstrim` helps on most SSDs,\n"
	       "filling the free space once on other disks; snapshots and backups are yours to remove.\n",
	       bytes);
}

static void summary(const struct convert *cv, int code)
{
	const struct counts *n = &cv->counts;
	double took = MAX(seconds_now(cv), 0.001);
	char bytes[SAY_TEXT], rate[SAY_TEXT];

	size_text(n->bytes, bytes);
	size_text((uint64_t)((double)n->bytes / took), rate);
	printf("%s %" PRIu64 " files%s (%s) in %.1f s: %.0f files/s, %s/s\n", cv->run.recover ? "finished" : "converted", n->converted,
	       cv->run.live ? " under the mount" : "", bytes, took, (double)n->converted / took, rate);
	if (n->already)
		printf("  already %s: %" PRIu64 "\n",
		       cv->run.verb == CONVERT_IN    ? "sealed"
		       : cv->run.verb == CONVERT_OUT ? "there"
						     : "as wanted",
		       n->already);
	if (n->plain)
		printf("  left as they are: %" PRIu64 "\n", n->plain);
	if (n->busy)
		printf("  busy: %" PRIu64 "\n", n->busy);
	for (size_t i = 0; i < n->n_reasons; i++)
		printf("  skipped: %" PRIu64 ": %s\n", n->reasons[i].n, n->reasons[i].text);
	if (n->failed)
		printf("  failed: %" PRIu64 "\n", n->failed);
	if (cv->n_deaths)
		printf("  workers that died and were replaced: %u\n", cv->n_deaths);
	if ((n->busy || n->skipped || n->failed) && cv->plan)
		printf("  list: %s/run/%s/failed\n", cv->plan->path, cv->plan->me);
	else if (n->busy || n->skipped || n->failed)
		printf("  list: %s/%s/%s/failed\n", cv->v->path, TDFS_DIR, CONVERT_DIR);
	if (cv->run.in_place && cv->run.verb == CONVERT_IN && n->converted)
		remains(cv, bytes);
	next_step(cv, code);
}

void report_end(struct convert *cv, int code)
{
	report_progress(cv, true);
	list_end(cv);
	report_status(cv, cv->cancelled                   ? "cancelled"
			  : code == EXIT_TDFS_OK          ? "done"
			  : code == EXIT_TDFS_SOME        ? "done with failures"
			  : code == EXIT_TDFS_RETRY       ? "stopped"
			  : code == EXIT_TDFS_INTERRUPTED ? "interrupted"
							  : "failed");
	if (!cv->json && !cv->quiet)
		summary(cv, code);
}

int report_dry_run(struct convert *cv, bool json)
{
	struct statvfs fs;
	uint64_t bytes, space, need, twice = FLIGHT_BYTES;
	char b[SAY_TEXT], s[SAY_TEXT], f[SAY_TEXT];
	double seconds;
	int err = names_look(cv, true, &bytes, &space);

	if (err || fstatvfs(cv->run.to_fd, &fs))
		return complain(err ? err : -errno, cv->v->path, NULL);
	if (cv->largest > LARGE_BYTES)
		twice += MAX(cv->run.workers * cv->largest, FLIGHT_BYTES);
	/* in place a batch is there twice and what the sealed form is larger by stays */
	need = cv->run.verb == CONVERT_IN ? cv->run.in_place ? (space > bytes ? space - bytes : 0) + MIN(bytes, twice) : space
	       : cv->run.in_place         ? MIN(bytes, twice)
					  : bytes;
	seconds = (double)cv->total / 10000 + (double)bytes / 8e8;
	if (json)
		return json_say(json_pack("{s:i, s:I, s:I, s:I, s:I, s:I, s:f}", "v", 1, "files", (json_int_t)cv->total, "already",
					  (json_int_t)cv->counts.already, "bytes", (json_int_t)bytes, "space_needed", (json_int_t)need,
					  "space_free", (json_int_t)(fs.f_bavail * fs.f_frsize), "seconds_estimate", seconds));
	size_text(bytes, b);
	size_text(need, s);
	size_text(fs.f_bavail * fs.f_frsize, f);
	printf("%" PRIu64 " files, %s; space needed at most %s, free %s; perhaps %.0f s\n", cv->total, b, s, f, seconds);
	if (cv->counts.already)
		printf("Nothing to do with %" PRIu64 " others.\n", cv->counts.already);
	printf("Nothing was changed.\n");
	if (need > fs.f_bavail * fs.f_frsize)
		printf("That does not fit.\n");
	return EXIT_TDFS_OK;
}
