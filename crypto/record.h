/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The native record and the first sector of a store file (FORMAT.md sections 2 and 3), and the size hint.
 *
 * Pure; thread-safe.  One pair of functions goes between disk and memory; nobody else knows an offset.
 */
#ifndef TDFS_RECORD_H
#define TDFS_RECORD_H

#include <time.h>

#include "segmap.h"

#define ID_LEN 16
#define HINT_XATTR "user.tdfs"
#define HINT_LEN 64

enum record_state { RECORD_VOID = 0, RECORD_NEW = 1, RECORD_SEALED = 2, RECORD_LIVE = 3 };

struct record {
	enum record_state state;
	uint32_t incompat, rocompat;
	uint32_t s; /* segment size, plain bytes */
	uint64_t generation;
	uint8_t content_id[ID_LEN];
	uint8_t volume_id[ID_LEN];
	uint8_t file_id[ID_LEN];
	uint64_t size;	   /* plain */
	uint64_t tail_off; /* = tail_offset(size, s) */
	uint64_t epoch;
	uint64_t invocations; /* bound, FORMAT.md section 3 */
	uint8_t seal[MAC_LEN];
	uint8_t dir_binding[ID_LEN];
	struct timespec mtime, ctime;
	struct timespec made; /* wall clock of this header */
};

/** record_sector() - the whole first sector
 * @k_rec: K_rec; @crc: CRC-32 of the payload (ignored in state NEW)
 * Return: 0 or -EIO */
int record_sector(const struct record *r, uint32_t crc, const struct secret *k_rec, uint8_t ret[static SECTOR]) MUST_CHECK;

/** record_parse() - read a first sector
 * @k_rec: checks the MAC; NULL: the MAC is not checked (inspection without the volume key)
 * @ret_crc: CRC-32 of the payload from the zip header, may be NULL
 * Return: 0, with state RECORD_VOID (all else zero) for a sector of zeros; -ENOENT no native record: foreign or not a TDF at all;
 *	   -EBADMSG the record's MAC does not match or the zip header around it is not the one we write; -EPROTO impossible values;
 *	   -ENOTSUP a later version or an unknown incompatible flag.  fail() tells. */
int record_parse(const uint8_t sector[static SECTOR], const struct secret *k_rec, struct record *ret, uint32_t *ret_crc) MUST_CHECK;

/** record_own() - record_parse() for a file that may belong to another volume
 * Return: as record_parse(); -ENOENT also for a record of another volume (a foreign file for us).  A damaged volume id in a record of ours is -EBADMSG, not foreign. */
int record_own(const uint8_t sector[static SECTOR], const struct secret *k_rec, const uint8_t volume_id[static ID_LEN], struct record *ret,
	       uint32_t *ret_crc) MUST_CHECK;

/** record_seal() - the seal over identity, key access and policy (FORMAT.md section 3); 0 or -EIO */
int record_seal(const struct secret *k_seal, const struct record *r, struct part key_access, struct part policy, const struct secret *dek,
		uint8_t ret[static MAC_LEN]) MUST_CHECK;

struct hint {
	uint8_t file_id[ID_LEN];
	uint64_t size, generation;
	struct timespec ctime;
	uint32_t made; /* low half of record.made seconds */
};

/** hint_make() / hint_parse() - the size hint; @st_size: length of the store file.  hint_parse: 0, or -ENOENT for a hint to ignore
 * `made` is the time of hint_make(): that of the record may lie before a long flush of the log, and what the seal itself does to the store
 * file's ctime is told from what others do by it */
int hint_make(const struct record *r, uint64_t st_size, const struct secret *k_hint, uint8_t ret[static HINT_LEN]) MUST_CHECK;
int hint_parse(const void *p, size_t len, uint64_t st_size, const struct secret *k_hint, struct hint *ret) MUST_CHECK;

#endif
