/* SPDX-License-Identifier: Apache-2.0 */
/* What `tdfs check` has found so far; the volume's own files are looked at in check_volume.c. */
#ifndef TDFS_CHECK_H
#define TDFS_CHECK_H

#include <jansson.h>

#include "progress.h"
#include "target.h"

enum check_level { CHECK_NOTE, CHECK_PROBLEM, CHECK_DAMAGE, CHECK_LEVELS };

struct check {
	struct target target;
	json_t *findings; /* NULL: print them */
	uint64_t n[CHECK_LEVELS], n_files, n_foreign, n_live;
	bool in_use;      /* mounted, or another command works on it */
	bool log_pending; /* records wait in the log: side files may belong to them */
	bool volume_damaged;
};

/** check_tell() - one finding */
void check_tell(struct check *c, enum check_level level, const char *path, const char *fmt, ...) PRINTF_LIKE(4, 5);

/** check_volume() - STORE/.tdfs: both copies of volume.json, slots, key, modes, what lies about */
void check_volume(struct check *c);

#endif
