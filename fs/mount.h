/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `tdfs mount`: from options to a running daemon.  The only door from tools/ to the FUSE part.
 */
#ifndef TDFS_MOUNT_H
#define TDFS_MOUNT_H

#include "config.h"
#include "slot.h"

/** mount_run() - mount and serve
 * Unless cfg->foreground the process forks before any secret or thread exists; the parent waits on a pipe for "mounted" or the error and
 * returns it, the child keeps the terminal until it has the credential, recovers, mounts, reports, then setsid()s and serves.  The KDF runs
 * in a short-lived grandchild, so its memory is not the daemon's.
 * @get: asks for the credential (prompt, passfile ...); called once in the process that serves
 * Return: an exit code of fs/config.h (EXIT_TDFS_*), already reported to standard error. */
int mount_run(const struct config *cfg, int (*get)(void *arg, struct credential *ret), void *arg);

#endif
