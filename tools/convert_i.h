/* SPDX-License-Identifier: Apache-2.0 */
/* The parent of a conversion: its state, and what its files call of each other.  Single-threaded. */
#ifndef TDFS_CONVERT_I_H
#define TDFS_CONVERT_I_H

#include <stdio.h>

#include "convert.h"
#include "convert_job.h"
#include "convert_walk.h"
#include "plan.h"
#include "progress.h"
#include "wire.h"
#include "worker.h"

#define WORKERS_MAX 64
#define SENT_MAX 2 /* chunks a worker has at hand: one to work on, one to go on with */
#define BATCH_FILES 1024
#define CHUNK_FILES 64
#define CHUNK_NAMES ((size_t)1 << 20) /* bytes of paths */
#define CHUNKS_AHEAD 8                /* a worker, of what is ready: so many that a folder for each can be chosen from them */
#define CHUNK_BYTES ((uint64_t)4 << 20)
#define FLIGHT_BYTES \
	((uint64_t)256 << 20) /* plain bytes that may exist twice, but for large files: of them one a worker, or as many bytes again */
#define LARGE_BYTES (FLIGHT_BYTES / 8)
#define KILLS_MAX 3
#define REASONS_MAX 16

struct item {
	char *path;
	struct cdir *dir; /* referenced */
	uint64_t size;
	struct stamp stamp;
	uint64_t out_ino;
	uint32_t s;
	uint8_t hash[HASH_LEN];
	bool verify;   /* before the original goes */
	bool verified; /* and it is, what was staged */
	bool collided; /* when it was tried last, another file had the name it needs */
	uint8_t kills, tries;
};

struct chunk {
	struct chunk *next;
	uint64_t id, bytes;
	struct timespec sent; /* wall clock: headers of its files are not older */
	enum chunk_op op;
	bool set, retry;
	uint8_t tries;  /* of a set */
	unsigned owner; /* which worker staged it: that one still has the sources open */
	pid_t owner_pid;
	size_t n, room, names; /* bytes of paths */
	struct item *items;
};

struct queue {
	struct chunk *first, **last;
	size_t n_chunks, n_files, n_large;
	uint64_t bytes, small_bytes; /* of all; of those that are not large */
};

struct worker_proc {
	pid_t pid;
	struct wire wire;
	struct worker_cell *cell;
	struct chunk *sent[SENT_MAX];
	unsigned n_sent;
	uint64_t at; /* inode number of the folder of the last chunk it got */
};

struct reason {
	char text[96];
	uint64_t n;
};

struct counts {
	uint64_t converted, bytes, already, busy, skipped, failed, other, plain, dirs;
	uint64_t read_bytes; /* handed out so far: for the rate */
	uint64_t foreign;    /* of the skipped: folders that are no part of the tree */
	uint64_t unasked;    /* originals that are gone, and whether somebody had them open is not known */
	struct reason reasons[REASONS_MAX];
	size_t n_reasons;
};

struct link_set; /* convert_sets.c */

struct convert {
	struct convert_run run;
	struct volume *v;
	struct job_log *log;
	struct job_past past;
	const char *from_name, *to_name; /* as the user wrote them */

	/* where files come from */
	struct walk *walk; /* NULL: the end, or from a list */
	struct walk_calls walk_calls;
	FILE *list;        /* --files-from, or a chunk of the plan */
	struct plan *plan; /* NULL: none */
	char *plan_text;
	bool plan_more, plan_all; /* there may be more chunks; all of them are done */
	double last_beat;
	struct cdir *list_root, *list_dir;
	struct link_set **sets;
	size_t n_sets_room, n_sets;
	uint64_t total;   /* files, by the first look; 0: not known */
	uint64_t largest; /* of them, in bytes */
	uint64_t *half;   /* inode numbers of files that were met and wait half replaced */
	size_t n_half;

	/* under way */
	struct chunk *filling;
	struct queue ready, staged, to_commit, committed, synced_staged, synced_committed;
	struct queue deferred_sets; /* tried again when nothing else is left */
	struct item *deferred;
	size_t n_deferred, room_deferred;
	uint64_t next_id, n_sampled;
	struct worker_proc workers[WORKERS_MAX];
	struct worker_cell *cells;
	unsigned n_deaths, n_idle_deaths;
	pid_t barrier_pid;
	int barrier_fd, barrier_root;
	bool barrier_running;
	struct timespec barrier_when;
	uint64_t n_barriers;
	uint64_t small_room, large_room; /* bytes for a chunk that is not large, and for one that is */

	/* how it goes */
	struct counts counts;
	struct timespec begin; /* monotonic */
	bool pressed;          /* waits because the machine has other things to do */
	bool draining, paused, space_low, cancelled, out_of_time, unmounted;
	int fatal; /* -errno that stops the run */
	uint64_t converted_at_round;
	FILE *failed_list;
	uint64_t n_told;
	int json; /* progress as JSON */
	bool tty, drawn, quiet;
	double last_draw, last_status;
};

/* convert_chunk.c */
void queue_init(struct queue *q);
void queue_push(struct queue *q, struct chunk *c);
void queue_push_front(struct queue *q, struct chunk *c);
struct chunk *queue_pop(struct queue *q);
/** queue_take() - the first one for which @fits, out of the middle if need be; NULL: none */
struct chunk *queue_take(struct queue *q, bool (*fits)(const struct convert *cv, const struct chunk *c, unsigned i),
			 const struct convert *cv, unsigned i);
struct chunk *chunk_new(struct convert *cv) MUST_CHECK;
/** chunk_add() - takes @it's path and reference over; on -ENOMEM they are freed */
int chunk_add(struct convert *cv, struct chunk *c, const struct item *it) MUST_CHECK;
void convert_item_free(struct convert *cv, struct item *it);
void chunk_free(struct convert *cv, struct chunk *c);
/** chunk_full() - nothing more is to be added */
bool chunk_full(const struct chunk *c);
/** chunk_ready() - into the queue of those that are to be staged; more than a worker can be told at once: settled as skipped */
void chunk_ready(struct convert *cv, struct chunk *c);
/** chunk_send() - 0 or -errno; -EPIPE: the worker is gone */
int chunk_send(const struct convert *cv, struct wire *w, const struct chunk *c) MUST_CHECK;

/* convert_pool.c */
int pool_start(struct convert *cv) MUST_CHECK;
void pool_stop(struct convert *cv);
/** pool_dispatch() - hand out what is ready; pool_read() - take answers of worker @i; both deal with its death.  0 or a fatal -errno */
int pool_dispatch(struct convert *cv) MUST_CHECK;
int pool_read(struct convert *cv, unsigned i) MUST_CHECK;
/** barrier_restart() - the process that syncs has died; 0, or -errno of a sync that failed */
int barrier_restart(struct convert *cv) MUST_CHECK;
size_t pool_busy(const struct convert *cv);

/* convert_settle.c */
/** answers_take() - what a worker says about chunk @c, which is taken over; 0, -EPROTO, -ENOMEM */
int answers_take(struct convert *cv, struct chunk *c, const uint8_t *p, size_t len) MUST_CHECK;
/** settle() - the end of an item's way; frees it */
void settle(struct convert *cv, struct item *it, enum item_result r, const char *text);
int defer(struct convert *cv, struct item *it) MUST_CHECK;
/** barrier_start() / barrier_done() - a syncfs for all that waits for one */
int barrier_start(struct convert *cv) MUST_CHECK;
int barrier_done(struct convert *cv) MUST_CHECK;

/* convert_source.c */
int source_open(struct convert *cv) MUST_CHECK;
/** source_fill() - walk on until enough is ready; 0 or a fatal -errno */
int source_fill(struct convert *cv) MUST_CHECK;
bool source_ended(const struct convert *cv);
void source_close(struct convert *cv);
/** source_is_foreign() - is the directory another file system or a volume of its own?  Then that is told */
bool source_is_foreign(struct convert *cv, const struct walk_entry *e);
void source_bad(void *arg, const char *path, int err);
void dir_finished(void *arg, struct cdir *d);

/* convert_plan.c */
/** treeplan_make() - walk the tree into @p; cv->log is there.  0 or -errno */
int treeplan_make(struct convert *cv, struct plan *p, uint64_t max_files, uint64_t max_bytes) MUST_CHECK;
/** plan_source_next() - the next chunk's list; 1, 0 there is none, -errno */
int plan_source_next(struct convert *cv) MUST_CHECK;
void plan_chunk_ended(struct convert *cv, const struct cdir *root);
/** plan_try_again() - @it was not converted and may be later: its chunk is not done */
void plan_try_again(struct convert *cv, const struct item *it);
/** treeplan_finish() - @ret_all: every chunk is done, and the folders have their times back */
int treeplan_finish(struct convert *cv, bool *ret_all) MUST_CHECK;

/* convert_sets.c */
int sets_add(struct convert *cv, const struct stat *st, struct item *it, bool *ret_complete, struct chunk **ret) MUST_CHECK;
/** sets_rest() - one that stayed incomplete, as a chunk; NULL: none */
int sets_rest(struct convert *cv, struct chunk **ret) MUST_CHECK;
void sets_free(struct convert *cv);

/* convert_tree.c: copying what is no regular file */
int tree_dir(struct convert *cv, const struct walk_entry *e) MUST_CHECK;
int tree_other(struct convert *cv, const struct walk_entry *e) MUST_CHECK;
int tree_dir_finish(struct convert *cv, const struct cdir *d) MUST_CHECK;

/* convert_names.c */
/** names_look() - the first walk: how many files there are; in place: names of other kinds that must be spelled otherwise */
int names_look(struct convert *cv, bool stats, uint64_t *ret_bytes, uint64_t *ret_space) MUST_CHECK;
int names_stage(struct convert *cv) MUST_CHECK;

/* convert_report.c */
void report_failed(struct convert *cv, const char *path, const char *what, const char *text);
void report_reason(struct convert *cv, const char *text);
void report_progress(struct convert *cv, bool last);
void report_status(struct convert *cv, const char *state);
void report_status_to(const struct convert *cv, int dir, const char *state);
void report_end(struct convert *cv, int code);
/** report_dry_run() - count, and tell what it would need; an exit code */
int report_dry_run(struct convert *cv, bool json);
/** status_signal_catch() - SIGUSR1 shows how far it is */
void status_signal_catch(void);
double seconds_now(const struct convert *cv);

/* convert_run.c */
/** rewrap_begin() - the journal is there: make the key that --new-dek asks for, if that was not done; 0 or -errno */
int rewrap_begin(struct convert *cv) MUST_CHECK;
/** convert_run() - everything from the first look to the summary; an exit code, reported */
int convert_run(struct convert *cv);

#endif
