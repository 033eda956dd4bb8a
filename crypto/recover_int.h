/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of recovery: recover_scan.c reads the log, recover_find.c and recover_path.c find the files, recover_plan.c decides, recover_log.c
 * writes recovery's own records, recover_apply.c changes the files, recover.c leads.
 */
#ifndef TDFS_RECOVER_INT_H
#define TDFS_RECOVER_INT_H

#include "recover.h"

struct log_rec {
	uint64_t lsn, off; /* off: of the record in its half */
	int half;
	uint8_t tag[AEAD_TAG]; /* of an IMAGE; its bytes stay in the log */
	struct redo_rec rec;
	size_t order;
};

struct keep;

struct log {
	const struct io *io;
	const struct recover_keys *keys;
	int fd[2];
	uint64_t half_size;
	struct log_rec *recs; /* what counts, by rising LSN */
	size_t n_recs, cap_recs;
	struct keep *kept; /* memory the records point into */
	uint64_t n_groups, last_lsn, last_epoch, retired;
	int half;     /* of the last group */
	uint64_t end;      /* where the next one goes */
	bool other_needed; /* the other half holds something that is not retired */

	bool damaged;            /* something that was durable cannot be read */
	bool lost_front;         /* ... and it came before what can be read */
	uint8_t (*lost)[ID_LEN]; /* files known to have records there or later */
	size_t n_lost;
};

/** log_open() - read both halves; 0, -ENOENT, -EBADMSG, -ENOTSUP, -errno.  log_close() in any case. */
int log_open(const struct io *io, int dirfd, const struct recover_keys *keys, bool write, struct log *ret) MUST_CHECK;
void log_close(struct log *l);
/** log_image() - the bytes of an IMAGE; 0, -EBADMSG, -errno */
int log_image(const struct log *l, const struct log_rec *r, uint8_t *buf) MUST_CHECK;

struct target { /* a store file with the id of a file in the log */
	char *path;
	ino_t ino;
};

struct file { /* all records of one file id */
	uint8_t id[ID_LEN];
	const struct log_rec *recs;
	size_t n;
	struct target *targets;
	size_t n_targets;
	bool exact; /* found by inode number: there is no other */
	bool at_home; /* the store is where its records were written: only the inode they name is meant, never a copy */
};

/** find_files() - fill in the targets of each; 0 or -errno */
int find_files(const struct io *io, int store_fd, const struct secret *k_rec, struct file *files, size_t n) MUST_CHECK;
/** find_open() - open a store file by its path: no symlinks, no mount points, regular files only; descriptor or -errno */
int find_open(const struct io *io, int store_fd, const char *path, bool write, struct stat *ret) MUST_CHECK;
/** find_dir() - the directory of @path (then @ret_name is the last component), or @path itself where @ret_name is NULL; @root itself for an
 * empty path */
int find_dir(const struct io *io, int root, const char *path, char *ret_name) MUST_CHECK;
void find_dir_close(const struct io *io, int root, int fd);
const char *find_hint(const struct file *f);

struct redo_step { /* a sealed state to be put in place */
	const struct redo_rec *seal;
	const struct log_rec *images; /* candidates */
	size_t n_images;
};

struct plan {
	const struct file *file;
	const struct target *target;
	struct record rec; /* header in place */
	uint32_t crc;
	uint64_t len; /* of the store file */
	struct timespec mtime, ctime;
	struct redo_step *steps;
	size_t n_steps, logged; /* logged: how many of them come from the log */
	bool give_up;           /* VOID */
	bool cut;               /* only INTENT: take away what was grown */
	uint64_t cut_to;
	bool unmark; /* LIVE without a commit */
	/* a COMMIT left over, from which the last step is made */
	const struct log_rec *commit, *since;
	const struct redo_rec *intent;
	struct redo_rec built;
	uint8_t *built_tail, built_sector[SECTOR], built_side[32], built_root[MAC_LEN];
	uint64_t stale;
};

bool base_same(const struct base *a, const struct base *b);
/** plan_make() - decide for one store file, open as @fd; 0, -EBADMSG and the like: leave it alone */
int plan_make(const struct io *io, int fd, const struct recover_keys *keys, const struct file *f, const struct target *t,
	      struct plan *ret) MUST_CHECK;
bool plan_idle(const struct plan *p);
/** plan_build() - make the SEAL of a left-over COMMIT: the last step; 0; -EUCLEAN the sealed state in place is damaged
 * (or was never wholly written before a crash); -EBADMSG, -errno */
int plan_build(const struct io *io, int log_dir, int fd, const struct recover_keys *keys, struct plan *p) MUST_CHECK;
void plan_free(struct plan *p);

/** apply_plan() - put everything in place and sync it; 0 or -errno */
int apply_plan(const struct log *l, int log_dir, int fd, struct plan *p) MUST_CHECK;
/** apply_tail() - the tail of a SEAL, from the record or its side file; malloc'd; 0, -ENOENT side file gone, -EBADMSG, -errno */
int apply_tail(const struct io *io, int log_dir, const struct redo_rec *seal, uint8_t **ret) MUST_CHECK;

struct log_out { /* recovery's own records */
	struct log *l;
	int log_dir;
	uint8_t *p;
	size_t len, cap;
	uint32_t n_recs;
};

/** out_seal() - add the built SEAL of a plan; moves its tail to a side file where the log is too small for it.  0, -ENOSPC, -errno */
int out_seal(struct log_out *o, struct plan *p) MUST_CHECK;
/** out_flush() - write and sync what was added; @retire: and say that everything is applied and synced; 0 or -errno */
int out_flush(struct log_out *o, bool retire) MUST_CHECK;

#endif
