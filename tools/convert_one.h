/* SPDX-License-Identifier: Apache-2.0 */
/* What a worker does with one file.  Private to worker.c and convert_in.c, convert_out.c. */
#ifndef TDFS_CONVERT_ONE_H
#define TDFS_CONVERT_ONE_H

#include "convert_file.h"
#include "name.h"

struct control_talk;
struct closer; /* convert_close.c */

struct one { /* a worker's hands */
	const struct convert_run *run;
	struct control_talk *talk; /* with the daemon, below a mount; NULL: not yet */
	struct sealer sealer;
	struct io io;
	/* the directory it is in */
	char *dir;            /* relative path, NULL: none yet */
	char *to_path;        /* as it is spelled in the tree written; NULL: the same */
	int from_dir, to_dir; /* the same descriptor in place */
	/* sources that wait for their end, by inode number; they are opened once */
	struct kept {
		uint64_t ino, out_ino;
		int fd;     /* -1: nothing is here */
		int out_fd; /* what was made of it, if that is wanted again; -1: not */
	} * kept;
	size_t n_kept, max_kept;
	struct closer *closer; /* of what was removed; NULL: nothing was yet */
	bool acl_dir, inherits, append_dir;
	const char *policy; /* rewrap: the file at hand is to have this one; NULL: its own */
	bool set;           /* of the file at hand all names come together, be it the last one that is left of several */
	bool flags;         /* of the file at hand: it has some that are to be kept, or it is not known */
};

/** one_enter() - make the directory of @path current; @ret_name: the last component; 0 or -errno */
int one_enter(struct one *w, const char *path, const char **ret_name) MUST_CHECK;
void one_leave(struct one *w);

/* All fill in @a; what went wrong is in fail_text(). */
typedef void one_fn(struct one *w, const struct item_order *o, const char *name, unsigned links, struct item_answer *a);
one_fn stage_in, stage_out, stage_rewrap, stage_live; /* @links: names the file is expected to have */
/* @links: names that go with it: only the check and the verification of a set */
one_fn commit_in, commit_out, commit_rewrap, commit_live;
/** live_swap() - commit_live() of all names of a file, the first of which is @name in the directory that is current */
void live_swap(struct one *w, const struct item_order *o, const char *name, char *const *paths, size_t n, struct item_answer *a);
/** rewrap_name() - after commit_rewrap() of a file with several names: each of them; rewrap_set_end(): all have it.  0 or -errno */
int rewrap_name(struct one *w, const struct item_order *o, const char *name) MUST_CHECK;
void rewrap_set_end(struct one *w, const struct item_order *o);

/*
 * What was staged without a name in the tree waits in .tdfs/convert/tmp under its source's inode number.  @set: of a file with several
 * names waiting_open(): a descriptor or -1.  waiting_check(): it is still there, and verified as asked; 0 or -errno
 */
void waiting_name(const struct convert_run *run, uint64_t ino, bool set, char ret[static TEMP_ROOM]);
int waiting_open(struct one *w, const struct item_order *o, bool set);
int waiting_check(struct one *w, const struct item_order *o, bool set) MUST_CHECK;
/* waiting_drop() - but for what has taken over some of the names already: the run that goes on needs it */
void waiting_drop(struct one *w, const struct item_order *o, bool set);

/* made from the file as it is now? */
static inline bool stamp_fits(const struct record *r, const struct stat *st)
{
	return r->size == (uint64_t)st->st_size && r->ctime.tv_sec == st->st_ctim.tv_sec && r->ctime.tv_nsec == st->st_ctim.tv_nsec;
}

/** one_target() - the name in the tree written; 0, -ENAMETOOLONG, -ENOENT */
int one_target(const struct convert_run *run, const char *name, char ret[static NAME_ROOM]) MUST_CHECK;
/** one_policy() - what the new sealed file @target gets in the store; borrowed from the volume.  0 or -ENOMEM */
int one_policy(const struct one *w, const char *target, const char **ret) MUST_CHECK;
/** one_fail() - result for an error */
enum item_result one_fail(int err);
/** one_keep() - @*fd, and @*out_fd (NULL: none), are wanted again when it is committed: taken over if there is room.  Only where it has one
 * name */
void one_keep(struct one *w, int *fd, int *out_fd, const struct item_answer *a);
/** one_kept_out() - the caller's now: the descriptor of what was made for @o; -1: it is not kept */
int one_kept_out(struct one *w, const struct item_order *o);
int one_kept_init(struct one *w) MUST_CHECK;
/** one_kept_take() - the caller's now: the source with this inode number; -1: it is not kept */
int one_kept_take(struct one *w, uint64_t ino);

/**
 * one_close_later() - @*fd is of a file that has no name any more: taken over if it is a small one (@size) and there is room.  The last
 * close(2) frees inode and blocks, a seventh of the work; a thread does it while the worker goes on.  one_close_wait(): all are closed
 */
void one_close_later(struct one *w, int *fd, uint64_t size);
void one_close_wait(struct one *w);

/** one_look() - open the file to be converted; one_ready(): may it be?  It may have to wait, then @st and @a->stamp are new.  false: @a
 * says why not */
bool one_look(struct one *w, const char *name, int *ret_fd, struct stat *ret_st, struct item_answer *a);
bool one_ready(struct one *w, int fd, unsigned links, struct stat *st, struct item_answer *a);
/** one_is_busy() - has somebody else the file open?  (Where a lease cannot be had it is not known: false) */
bool one_is_busy(int fd);
/** one_is_sealed() - by a look at the first sector; false: @a says what it is */
bool one_is_sealed(struct one *w, int fd, const struct stat *st, struct item_answer *a);
/** one_compare() - is the content of the sealed file @fd what @hash says (in units of the file's own segments)?  0; -EBADMSG; -errno */
int one_compare(struct one *w, int fd, uint64_t len, const uint8_t hash[static HASH_LEN], const char *what) MUST_CHECK;
/** one_drop_target() - take back what was staged, if it still is that */
void one_drop_target(struct one *w, const char *target, uint64_t ino);
/** one_take_back() - of a commit that failed; a plain file that somebody has written to or opened since it had its name stays.  That is
 * one_is_touched(), with @fd and @st of it */
void one_take_back(struct one *w, const struct item_order *o, const char *target);
bool one_is_touched(const struct item_order *o, int fd, const struct stat *st);

/* What is converted. */
struct source {
	int fd;
	struct stat st;
	const struct io *io; /* of a sealed one */
	const struct container *c;
};
/* The name that is needed is taken.  1: by this file's converted form, @a is filled in; 0: by debris of ours, which is gone; -errno */
typedef int existing_fn(struct one *w, const struct source *src, const char *target, struct item_answer *a);
/** one_place() - give the finished file @temp all that belongs to the source, and its name.  0: @a is filled in; -errno */
int one_place(struct one *w, const struct source *src, int temp, const char *temp_name, const char *target, existing_fn *existing,
	      struct item_answer *a) MUST_CHECK;

/** one_still() - is the source still what was read, and has nobody else it open?  1: @ret_fd keeps others from opening it; 0 it is gone;
 * -EBUSY: @a says why not */
int one_still(struct one *w, const struct item_order *o, const char *name, unsigned links, int *ret_fd, struct item_answer *a) MUST_CHECK;
/** one_commit() - @check: what was staged is sound (verified if that is wanted), 0 or -errno.  Then the end of the original in place */
typedef int check_fn(struct one *w, const struct item_order *o, const char *target);
void one_commit(struct one *w, const struct item_order *o, const char *name, unsigned links, check_fn *check, struct item_answer *a);

#endif
