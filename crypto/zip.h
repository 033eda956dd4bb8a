/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The zip container of a TDF that anybody may have written.  Only finds the two entries; nothing is decrypted here.
 *
 * Every field is checked against the file's length before it is used.  Fuzzed: tests/fuzz/zip.c.
 */
#ifndef TDFS_ZIP_H
#define TDFS_ZIP_H

#include "io.h"

#define MANIFEST_MAX ((size_t)64 << 20) /* what we read; other clients stop at 10 MiB */

struct zip_entry {
	uint64_t local_off; /* of the local header */
	uint64_t data_off;  /* first byte of the data */
	uint64_t comp_len;  /* stored bytes */
	uint64_t len;	    /* bytes after inflation (= comp_len for STORED) */
	uint32_t crc;
	uint16_t method; /* 0 or 8 */
};
struct zip {
	struct zip_entry payload;  /* always STORED */
	struct zip_entry manifest; /* STORED or deflated, <= MANIFEST_MAX */
};

/** zip_find() - locate 0.payload and 0.manifest.json
 * Takes zip32 and zip64, either order, data descriptors, a comment, at most 16 entries, a directory of 64 KiB (of a local header the
 * first 16 KiB are looked at); refuses duplicates of the two names, overlaps,
 * encryption flags, methods but 0 (and 8 for the manifest), local and central headers that disagree on name, method or (where the local header has them) sizes.
 * Blocks: disk.  Thread-safe.  Return: 0; -ENOEXEC not a zip; -EPROTO malformed or not a TDF (fail() says what); -errno of the read */
int zip_find(const struct io *io, int fd, uint64_t file_len, struct zip *ret) MUST_CHECK;

/** zip_manifest() - the manifest's text, inflated, CRC checked; malloc'd, NUL added; 0, -EBADMSG wrong CRC, -EPROTO, -ENOMEM, -errno */
int zip_manifest(const struct io *io, int fd, const struct zip *z, char **ret, size_t *ret_len) MUST_CHECK;

#endif
