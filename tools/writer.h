/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing one TDF from front to back, outside of the engine: segments as they come, the tail, and last the first sector.
 *
 * Memory: two segments and 16 bytes a segment for the tags.  The layout is FORMAT.md section 1; without a volume the record is left out, so
 * the file is an ordinary TDF.
 */
#ifndef TDFS_WRITER_H
#define TDFS_WRITER_H

#include "io.h"
#include "volume.h"

struct writer_params {
	uint32_t s; /* segment size */
	struct kas *kas;
	const char *policy;          /* base64 */
	const struct volume *native; /* make it a native file of this volume; NULL: an ordinary TDF */
	struct timespec mtime;       /* native: of the plain file */
};

struct writer; /* opaque; not thread-safe */

/** writer_start() - @fd: an empty file, borrowed; 0; -ENOKEY no key to wrap for; -EIO; -ENOMEM */
int writer_start(const struct io *io, int fd, const struct writer_params *par, struct writer **ret) MUST_CHECK;
/** writer_put() - more plain bytes; 0; -EFBIG; -ENOSPC, -errno of the write */
int writer_put(struct writer *w, const void *p, size_t len) MUST_CHECK;
/** writer_finish() - last segment, tail, first sector; nothing is synced; 0 or -errno */
int writer_finish(struct writer *w) MUST_CHECK;
void writer_free(struct writer *w);

#endif
