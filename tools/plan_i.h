/* SPDX-License-Identifier: Apache-2.0 */
/* Private to plan.c and plan_claim.c. */
#ifndef TDFS_PLAN_I_H
#define TDFS_PLAN_I_H

#include "plan.h"

/** plan_list_read() - the whole of @fd without its MAC, checked; malloc'd */
int plan_list_read(const struct plan *p, int fd, uint64_t index, char **ret, size_t *ret_len) MUST_CHECK;

#endif
