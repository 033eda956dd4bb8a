/* SPDX-License-Identifier: Apache-2.0 */
/* The mount table of this process. */
#ifndef TDFS_MOUNTS_H
#define TDFS_MOUNTS_H

#include "defs.h"

struct mountinfo { /* pointers into the line */
	char *device, *mountpoint, *options, *type, *source, *super_options;
};

/** mountinfo_parse() - a line of /proc/self/mountinfo, which is changed; false: not one */
bool mountinfo_parse(char *line, struct mountinfo *ret);

struct mount_place {
	char *store, *mountpoint;
};
/** mounts_list() - every tdfs mount this process sees; free with mounts_free(); 0 or -errno */
int mounts_list(struct mount_place **ret, size_t *ret_n) MUST_CHECK;
void mounts_free(struct mount_place *m, size_t n);

#endif
