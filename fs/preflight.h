/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What can be said before anything is asked for or opened: is this mount possible here?
 */
#ifndef TDFS_PREFLIGHT_H
#define TDFS_PREFLIGHT_H

#include "config.h"

/** preflight() - mount point, store and FUSE itself; 0 or -errno with fail() naming the path, the cause and the next step: -EINVAL,
 * -ENOENT, -ENOTDIR, -EBUSY mounted already, -ELOOP one inside the other, -ENODEV no FUSE, -EACCES */
int preflight(const struct config *c) MUST_CHECK;

#endif
