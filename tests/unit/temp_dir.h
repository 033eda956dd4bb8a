/* SPDX-License-Identifier: Apache-2.0 */
/* A test's folder for what it writes, below $TMPDIR: tests/run looks there for what was forgotten. */
#ifndef TDFS_TEST_TEMP_DIR_H
#define TDFS_TEST_TEMP_DIR_H

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

static inline bool temp_dir_make(char ret_path[PATH_MAX])
{
	const char *tmp = getenv("TMPDIR");

	snprintf(ret_path, PATH_MAX, "%.4000s/tdfs-unit-XXXXXX", tmp && *tmp ? tmp : P_tmpdir);
	return mkdtemp(ret_path);
}

/* With all that is in it. */
static inline bool temp_dir_remove(const char *path)
{
	char cmd[PATH_MAX + 16];

	snprintf(cmd, sizeof(cmd), "rm -rf '%s'", path);
	return !system(cmd);
}

#endif
