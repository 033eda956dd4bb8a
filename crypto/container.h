/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sealed TDF opened for reading, native or foreign: what cat, decrypt, verify and a foreign file in the mount use, and where a native file's live state starts.
 *
 * Opening: container bounds, manifest, (caller unwraps the DEK), container_unlock(): policy binding was checked by the unwrapper, root signature, seal.  Only then does
 * container_read_segment() give plaintext, and only of segments whose tag stands in the signed list.
 * A container is immutable after unlock: any number of threads may read.
 */
#ifndef TDFS_CONTAINER_H
#define TDFS_CONTAINER_H

#include "io.h"
#include "manifest.h"
#include "record.h"
#include "tail.h"

struct container_keys { /* of the volume; NULL pointers: no volume, everything is foreign */
	const struct secret *k_rec, *k_seal;
	const uint8_t *volume_id;
};

struct container {
	bool native; /* record of this volume, MAC right (the seal is checked by unlock) */
	struct record rec;
	uint32_t crc;		    /* native: payload CRC from the first sector */
	struct tail_template *tmpl; /* native only */
	struct manifest *m;	    /* key access, policy, hashes (native: tags) and geometry */
	uint64_t payload_off;
	uint64_t file_len;
	struct secret *dek; /* after unlock; owned */
};

/** container_open() - parse and bound everything that needs no data key
 * @fd: borrowed, must stay open while the container is read
 * Blocks: disk.  Return: 0; -ENOEXEC not a TDF; -EPROTO malformed; -EBADMSG a record of this volume that does not match its file (truncated, extended, MAC);
 * -ENODATA native but NEW or VOID: never sealed; -ENOTSUP; -ENOMEM; -errno.  fail() says what.  Free with container_free(). */
int container_open(const struct io *io, int fd, const struct container_keys *keys, struct container **ret) MUST_CHECK;

/** container_unlock() - take the DEK (copied) and check root signature, content id and, for a native file, the seal
 * Return: 0; -EBADMSG; -EIO; -ENOMEM */
int container_unlock(struct container *c, const struct container_keys *keys, const struct secret *dek) MUST_CHECK;

/** container_segment() - which plain bytes segment @i holds and where it is stored */
void container_segment(const struct container *c, uint64_t i, uint64_t *ret_plain_off, uint32_t *ret_plain_len, uint64_t *ret_file_off);

/** container_read_segment() - read, check and decrypt one whole segment into @pt (its plain length)
 * Return: 0; -EBADMSG (fail() names segment and offset); -EIO; -errno */
int container_read_segment(const struct io *io, int fd, const struct container *c, uint64_t i, void *pt) MUST_CHECK;

/** container_read() - plain bytes [off, off + len), cut at the end of the file
 * Whole segments are decrypted straight into @buf.  Return: bytes, or as container_read_segment() (nothing of @buf may be used then) */
ssize_t container_read(const struct io *io, int fd, const struct container *c, void *buf, size_t len, uint64_t off) MUST_CHECK;

void container_free(struct container *c);

static inline void container_cleanup(struct container **c)
{
	container_free(*c);
}

#endif
