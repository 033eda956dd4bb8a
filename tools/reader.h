/* SPDX-License-Identifier: Apache-2.0 */
/* One TDF opened for a command, and its plain bytes sent to a descriptor. */
#ifndef TDFS_READER_H
#define TDFS_READER_H

#include "progress.h"
#include "target.h"

struct reader {
	int fd;
	struct io io;
	struct stat st;
	struct container *c;
};

/** reader_open() - open and unlock @path
 * Warns where the file has newer changes in its volume's log.  Return: an exit code, reported; 0: free with reader_close() */
int reader_open(const struct target *t, const char *path, struct reader *ret) MUST_CHECK;
/** reader_take() - the same for a descriptor, which is taken over also on failure; @path: for messages */
int reader_take(const struct target *t, int fd, const char *path, struct reader *ret) MUST_CHECK;
void reader_close(struct reader *r);

/** reader_copy() - plain bytes [off, off + len), cut at the end, to @out with write(2)
 * Only bytes of segments that verified are written.  Return: 0; -EINTR interrupted(); -EPIPE, -errno of the write (then *ret_output is
 * true); as container_read() */
int reader_copy(const struct reader *r, uint64_t off, uint64_t len, int out, struct progress *p, bool *ret_output) MUST_CHECK;

#endif
