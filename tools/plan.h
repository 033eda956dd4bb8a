/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A plan: the files of a conversion in chunks that lie in a directory, for any number of processes on any number of machines.
 *
 *   plan.json       what is to be done; made last
 *   queue/000042    a chunk: paths, each ended by NUL, then TAB "mac " and hex
 *   work/000042.HOST.PID   claimed, and locked (flock) as long as that process lives
 *   done/000042     every file of it was dealt with
 *   dirs            times of the folders, given back at the end
 *   run/HOST.PID/   status and list of failures of one run
 *
 * Everything that is believed is authenticated with a key of the volume.
 */
#ifndef TDFS_PLAN_H
#define TDFS_PLAN_H

#include <stdio.h>

#include "convert.h"

#define PLAN_FILES 2000
#define PLAN_BYTES ((uint64_t)4 << 30)

struct plan_head {
	uint8_t id[ID_LEN], volume_id[ID_LEN];
	enum convert_verb verb;
	bool in_place, new_dek, keep_dek, cross;
	char *store, *other; /* absolute */
	char *kas_kid, *policy;
	uint64_t root_ino; /* of the tree that is read */
	uint64_t chunks, files, bytes;
	int64_t made;
};
void plan_head_free(struct plan_head *h);

struct plan { /* one that is being written, or worked off */
	int dir;
	char *path;
	char *text; /* plan.json as it was read: what treeplan_unlock() checks is what was taken from it */
	struct secret *key;
	struct plan_head head;
	char me[80]; /* HOST.PID */
	int run_dir;
	struct plan_claim *claims;
	uint64_t shard, n_shards; /* n_shards 0: take any */
};

/* A chunk of ours. */
struct plan_claim {
	struct plan_claim *next;
	uint64_t index;
	int fd;           /* locked */
	bool again;       /* some of it is to be tried again by a later run */
	const void *root; /* the directory object all of its files hold on to */
};

/** treeplan_new() - an empty plan in the new or empty directory @path; 0, -EEXIST, -ENOTEMPTY, -errno.  Free with treeplan_free() */
int treeplan_new(const char *path, struct plan **ret) MUST_CHECK;
/** treeplan_read() - what plan.json says, not yet to be believed; 0; -ENOENT no plan; -EPROTO; -errno */
int treeplan_read(const char *path, struct plan **ret) MUST_CHECK;
void treeplan_free(struct plan *p);
/** treeplan_unlock() - the volume is known: set the key; @check: and see that plan.json is what was written for it.  0; -EBADMSG; -ENOMEM
 */
int treeplan_unlock(struct plan *p, const struct volume *v, bool check) MUST_CHECK;

/** plan_add_chunk() / plan_add_dirs() - @text: NUL-ended words; 0 or -errno */
int plan_add_chunk(struct plan *p, const char *text, size_t len) MUST_CHECK;
int plan_add_dirs(struct plan *p, const char *text, size_t len) MUST_CHECK;
/** treeplan_write() - the last step: plan.json, everything synced */
int treeplan_write(struct plan *p) MUST_CHECK;

/** treeplan_join() - make a directory of our own in it; 0 or -errno */
int treeplan_join(struct plan *p) MUST_CHECK;
/** plan_claim_next() - 1: @ret_text (malloc'd, @ret_len, without the MAC) is ours now; 0: nothing is left to be begun; -EBADMSG edited;
 * -errno */
int plan_claim_next(struct plan *p, char **ret_text, size_t *ret_len, struct plan_claim **ret) MUST_CHECK;
/** plan_claim_end() - done, or back to the queue; frees @c */
int plan_claim_end(struct plan *p, struct plan_claim *c);
/** plan_claims_end() - what is still ours goes back to the queue */
void plan_claims_end(struct plan *p);
/** treeplan_beat() - say that we live */
void treeplan_beat(struct plan *p);
/** treeplan_dirs() - the folders' list, checked; 0 or as above */
int treeplan_dirs(struct plan *p, char **ret_text, size_t *ret_len) MUST_CHECK;

struct plan_counts {
	uint64_t queue, work, done;
};
/** treeplan_count() - how many chunks are where; 0 or -errno */
int treeplan_count(const struct plan *p, struct plan_counts *ret) MUST_CHECK;

#endif
