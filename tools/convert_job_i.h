/* SPDX-License-Identifier: Apache-2.0 */
/* The journal's inside.  Private to convert_job.c (writing) and convert_past.c (reading). */
#ifndef TDFS_CONVERT_JOB_I_H
#define TDFS_CONVERT_JOB_I_H

#include "convert_job.h"

#define JOURNAL "journal"
#define TEMP_DIR "tmp"
#define MAC_HEX 32 /* 16 bytes of it */

struct open_dir {
	struct open_dir *next;
	char *path;
	struct timespec times[2];
};

struct job_log {
	int dir, fd;
	int tdfs_dir; /* the volume's, borrowed */
	struct secret *key;
	uint8_t chain[MAC_LEN]; /* each line's MAC covers the one before */
	uint64_t off;
	bool failed, half_sets;
	int way;
	char *moved_from;
	struct timespec durable; /* what was made before is */
	/* from the past */
	struct job_past past;
	struct open_dir *dirs;
	struct job_rename *renames;
	size_t n_renames;
	bool renames_complete;
};

/** journal_mac() - MAC of a line and all before it; 0 or -EIO */
int journal_mac(const struct job_log *j, const char *text, size_t len, uint8_t ret[static MAC_LEN]) MUST_CHECK;
/** past_read() - up to the end, or to a line that a crash has cut.  0; -EBADMSG or -EPROTO: it was edited */
int past_read(struct job_log *j) MUST_CHECK;
/** past_forget() - what was read is not to be believed */
void past_forget(struct job_log *j);
int past_dir_remember(struct job_log *j, char *path, const struct timespec times[2]) MUST_CHECK; /* takes @path over */
struct open_dir *past_dir_find(struct job_log *j, const char *path);
void past_dir_forget(struct job_log *j, const char *path);
void past_renames_forget(struct job_log *j);
/** past_temp_clean() - remove what killed runs have left; @rewrap: but what is half in place, else -EBUSY, fail() tells.  0 or -errno */
int past_temp_clean(struct job_log *j, bool rewrap) MUST_CHECK;

#endif
