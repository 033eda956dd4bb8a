/* SPDX-License-Identifier: Apache-2.0 */
/* What a worker does with one file.  Private to worker.c and convert_in.c, convert_out.c. */
#ifndef TDFS_CONVERT_ONE_H
#define TDFS_CONVERT_ONE_H

#include "convert_file.h"
#include "name.h"

struct one { /* a worker's hands */
	const struct convert_run *run;
	struct sealer sealer;
	struct io io;
	/* the directory it is in */
	char *dir;            /* relative path, NULL: none yet */
	int from_dir, to_dir; /* the same descriptor in place */
	bool acl_dir;
	bool flags; /* of the file at hand: it has some that are to be kept, or it is not known */
};

/** one_enter() - make the directory of @path current; @ret_name: the last component; 0 or -errno */
int one_enter(struct one *w, const char *path, const char **ret_name) MUST_CHECK;
void one_leave(struct one *w);

/* All fill in @a; what went wrong is in fail_text(). */
typedef void one_fn(struct one *w, const struct item_order *o, const char *name, unsigned links, struct item_answer *a);
one_fn stage_in, stage_out;   /* @links: names the file is expected to have */
one_fn commit_in, commit_out; /* @links: names that go with it: only the check and the verification when there are more */

/* made from the file as it is now? */
static inline bool stamp_fits(const struct record *r, const struct stat *st)
{
	return r->size == (uint64_t)st->st_size && r->ctime.tv_sec == st->st_ctim.tv_sec && r->ctime.tv_nsec == st->st_ctim.tv_nsec;
}

/** one_target() - the name in the tree written; 0, -ENAMETOOLONG, -ENOENT */
int one_target(const struct convert_run *run, const char *name, char ret[static NAME_ROOM]) MUST_CHECK;
/** one_fail() - result for an error */
enum item_result one_fail(int err);
/** one_is_busy() - has somebody else the file open?  (Where a lease cannot be had it is not known: false) */
bool one_is_busy(int fd);
/** one_source() - open and look at the file to be converted; false: @a says why not */
bool one_source(struct one *w, const char *name, unsigned links, int *ret_fd, struct stat *ret_st, struct item_answer *a);
/** already_in() - a name that ends in .tdf, in place: ours already?  true: @a says what it is */
bool already_in(struct one *w, int fd, const struct stat *st, const char *name, struct item_answer *a);
/** one_drop_target() - take back what was staged, if it still is that */
void one_drop_target(struct one *w, const char *target, uint64_t ino);
/** one_unlink_source() - the end of the original: only if it is still what was read and nobody has it open */
void one_unlink_source(struct one *w, const struct item_order *o, const char *name, unsigned links, const char *target,
		       struct item_answer *a);
/** one_put() - metadata, name; 0; -EEXIST; -ESTALE the original has changed; -errno */
int one_put(struct one *w, int from, const struct stat *st, int temp, const char *temp_name, const char *target,
	    struct item_answer *a) MUST_CHECK;

#endif
