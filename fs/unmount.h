/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TDFS_UNMOUNT_H
#define TDFS_UNMOUNT_H

#include "defs.h"

/** unmount() - a proper umount(2), as a user through fusermount3; to be called by a thread that serves no requests
 * Return: 0; -EBUSY something is open there; -errno.  Explained with fail(). */
int unmount(const char *mountpoint) MUST_CHECK;
/** unmount_dead() - of a mount that answers ENOTCONN: whoever still has something open there gets that error already; 0 or -errno, fail()
 * tells */
int unmount_dead(const char *mountpoint) MUST_CHECK;

#endif
