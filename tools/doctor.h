/* SPDX-License-Identifier: Apache-2.0 */
/* What `tdfs doctor` finds; the store's place is looked at in doctor_store.c. */
#ifndef TDFS_DOCTOR_H
#define TDFS_DOCTOR_H

#include <jansson.h>

#include "defs.h"

enum doctor_level { DOCTOR_OK, DOCTOR_NOTE, DOCTOR_BAD };

struct doctor {
	json_t *list; /* NULL: print */
	bool bad;
};

/** doctor_tell() - one finding; @fix: the command that mends it, or NULL */
void doctor_tell(struct doctor *d, enum doctor_level level, const char *name, const char *fix, const char *fmt, ...) PRINTF_LIKE(5, 6);

/** doctor_store() - a store (or where one is to be made): its file system, owner, modes, log files */
void doctor_store(struct doctor *d, const char *store);

#endif
