/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a run leaves in STORE/.tdfs/convert: a journal whose every line is authenticated, a status for others to read, requests from others,
 * the list of what failed.
 *
 * The journal only saves work and keeps directories' times: files are judged by what is on the disk.  One that was edited is not believed.
 */
#ifndef TDFS_CONVERT_JOB_H
#define TDFS_CONVERT_JOB_H

#include <jansson.h>

#include "convert.h"
#include "convert_walk.h"
#include "options.h"

struct job_log; /* opaque */

/* What the last run has left. */
struct job_past {
	bool any, clean;         /* there was one; it came to its end */
	bool half_sets;          /* rewrap: of some files it has replaced a part of the names */
	char *moved_from;        /* rewrap --new-dek: the KAS key from which files are moved away; borrowed from the log */
	bool names_done;         /* names of directories and others are spelled as the verb wants */
	struct timespec durable; /* unclean: what was made before is durable */
};

/** job_time_take() - the word at *@at, "-12.000000345", which ends in a blank; *@at: behind it.  0 or -EPROTO */
int job_time_take(char **at, struct timespec *ret) MUST_CHECK;

/** job_begin() - open the directory, read the past, start a new journal that carries on what is unfinished
 * Return: 0 or -errno; fail() tells */
int job_begin(const struct volume *v, const struct convert_run *run, struct job_past *ret_past, struct job_log **ret) MUST_CHECK;
/** job_begin_plan() - no journal: the plan says what is done.  @dir: for status and failures, not taken over; @ret_temp_dir:
 * .tdfs/convert/tmp */
int job_begin_plan(const struct volume *v, int dir, int *ret_temp_dir, struct job_log **ret) MUST_CHECK;
/** job_begin_live() - no journal either: what a run below a mount has left is the daemon's to judge */
int job_begin_live(const struct volume *v, int *ret_temp_dir, struct job_log **ret) MUST_CHECK;
/** job_half_sets() - has a rewrap that was cut short replaced a part of the names of some file, so that it is two now?
 * `tdfs convert recover` makes them one again */
bool job_half_sets(const struct volume *v);
/** job_half_end() - the whole store was walked: what waits for none of @inos waits for nobody */
void job_half_end(const struct job_log *j, const uint64_t *inos, size_t n);
/** job_dir() - descriptor of .tdfs/convert; borrowed */
int job_dir(const struct job_log *j);
/** job_barrier() - everything made before @when is durable */
int job_barrier(struct job_log *j, const struct timespec *when);
/** job_dir_open() - before the first change in @d: its times.  If an interrupted run has changed it already its times are taken from there
 */
int job_dir_open(struct job_log *j, struct cdir *d);
int job_dir_done(struct job_log *j, const struct cdir *d);
/** job_dirs_left() - directories that an earlier run has not given their times back: calls @each, then forgets them */
void job_dirs_left(struct job_log *j, void (*each)(void *arg, const char *path, const struct timespec times[2]), void *arg);
/** job_rename() - a name is about to be spelled otherwise; job_renames(): those of an earlier run, in order; job_names_done(): all are */
int job_rename(struct job_log *j, const char *path, const char *to, uint64_t ino);
int job_names_planned(struct job_log *j);
int job_names_done(struct job_log *j);
struct job_rename {
	char *path, *to;
	uint64_t ino;
};
/** job_renames() - planned and not known to be done; @ret_complete: the plan was written to its end */
void job_renames(struct job_log *j, struct job_rename **ret, size_t *ret_n, bool *ret_complete);
/** job_moved_done() - every file of the store is under the present KAS key */
int job_moved_done(struct job_log *j);
/** job_end() - @clean: nothing is under way */
void job_end(struct job_log *j, bool clean);

/** status_write() / status_read() - for other processes; @j is not taken over.  status_read(): NULL: none */
void status_write(int job_dir, const json_t *j);
json_t *status_read(int job_dir);
enum job_request { REQUEST_NONE, REQUEST_PAUSE, REQUEST_CANCEL };
enum job_request request_read(int job_dir);
int request_write(int job_dir, enum job_request r);

/* cmd_convert_watch.c */
extern const struct command convert_status, convert_pause, convert_resume, convert_cancel;

#endif
