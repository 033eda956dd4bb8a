/* SPDX-License-Identifier: Apache-2.0 */
/* What `tdfs status` is told, see control.h. */
#ifndef TDFS_STATUS_H
#define TDFS_STATUS_H

#include <jansson.h>

#include "ops.h"
#include "start.h"

/** store_dirty() - how many files wait to be sealed; 0 too where there is no memory to count them */
size_t store_dirty(struct store *st);
/** mount_status() - @started: monotonic seconds */
json_t *mount_status(struct mount *m, const struct opened *o, time_t started);

#endif
