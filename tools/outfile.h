/* SPDX-License-Identifier: Apache-2.0 */
/* A file that appears under its name only when it is complete, and leaves nothing behind when it is not. */
#ifndef TDFS_OUTFILE_H
#define TDFS_OUTFILE_H

#include "io.h"

struct outfile {
	int fd, dir_fd;
	char *name, *temp; /* temp: NULL while the file has no name at all (O_TMPFILE) */
	bool force;
};

/** outfile_open() - start writing; mode 0600 until outfile_commit()
 * @force: may replace a file.  Return: 0; -EEXIST it is there already; -EISDIR; -errno.  fail() tells */
int outfile_open(const char *path, bool force, struct outfile *ret) MUST_CHECK;
/** outfile_commit() - set mode and times, sync, give it its name, sync the directory; then closed in any case
 * @times: atime, mtime; NULL: now.  0 or -errno, fail() tells */
int outfile_commit(struct outfile *o, mode_t mode, const struct timespec times[2]) MUST_CHECK;
/** outfile_abort() - forget it; fine after outfile_commit() and on a zeroed struct with fd -1 */
void outfile_abort(struct outfile *o);

#endif
