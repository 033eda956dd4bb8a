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

/** live_walk() - call @each for every LIVE file below @path; unreadable places are reported
 * Return: 0; what @each returned, if not 0; -EINTR; -errno */
int live_walk(const struct volume *v, const char *path, int (*each)(void *arg, const char *path), void *arg) MUST_CHECK;

/** log_renew() - put the log aside as log.N.damaged and make a new, empty one
 * @v: locked.  0 or -errno, fail() tells */
int log_renew(const struct volume *v) MUST_CHECK;

#endif
