/* SPDX-License-Identifier: Apache-2.0 */
/* Taking back what needs a log that is gone: a LIVE file is declared to be its last sealed state. */
#ifndef TDFS_REPAIR_H
#define TDFS_REPAIR_H

#include "target.h"

/** accept_old() - rewrite the header of a LIVE file as SEALED, after checking that its sealed state is whole
 * @v: opened and locked; its log must have been recovered
 * @path: of the store file
 * Return: 0; 1: it is not LIVE, nothing was done; -EBADMSG the sealed state is damaged too; -errno.  fail() tells */
int accept_old(const struct volume *v, const char *path, uint64_t *ret_generation) MUST_CHECK;

#endif
