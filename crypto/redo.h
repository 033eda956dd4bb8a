/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The volume log: records, groups, group commit, space (FORMAT.md section 5, fs/DESIGN.md "Durability").
 *
 * Writers append records to the group being filled (memory only) and then flush; whoever comes first writes and syncs the group for all
 * (leader), the rest wait. Space: a half is free again when no pin holds it.  A pin stands for one file's records on one base; it is
 * released when that base has been replaced by a seal that is applied *and synced*, or buried when the file was unlinked or replaced
 * (released once the name change is durable). redo->lock is taken inside; callers may hold inode->lock.  Thread-safe.
 */
#ifndef TDFS_REDO_H
#define TDFS_REDO_H

#include "io.h"
#include "record.h"

#define REDO_HALF_DEFAULT ((uint64_t)32 << 20)
#ifndef REDO_HALF_MIN /* the crash tests make it smaller */
#define REDO_HALF_MIN ((uint64_t)16 << 20)
#endif
#define REDO_HALF_MAX ((uint64_t)512 << 20)
#define REDO_BLOCK 4096u /* groups start on it */
#define REDO_HEADER 96u  /* group header */
#define REDO_RECORD 48u  /* record header */
#define REDO_GROUP_MAX       \
	(((size_t)4 << 20) + \
	 ((size_t)64 << 10)) /* the most that one redo_append() may add: an image of the largest segment and a COMMIT fit */

enum redo_type { REDO_INTENT = 1, REDO_IMAGE, REDO_PLACE, REDO_COMMIT, REDO_SEAL, REDO_VOID };

struct redo; /* opaque */

struct base { /* a sealed state */
	uint8_t file_id[ID_LEN];
	uint64_t generation;
	uint8_t content_id[ID_LEN];
};

struct redo_place {
	uint32_t crc;
	uint8_t tag[AEAD_TAG];
};

/* One record in memory.  Pointers are borrowed for the call (writing) or point into the caller's buffer (reading). */
struct redo_rec {
	enum redo_type type;
	struct base base;
	union {
		struct {
			uint64_t sealed_len, ino;
			uint32_t root_ino; /* low half of the store root's: the same store in the same place, so ino means what it says */
			const char *path;  /* NUL ended */
		} intent;
		struct {
			uint64_t seg;
			const uint8_t *bytes;
			uint32_t len;
		} image;
		struct {
			uint64_t first;
			const struct redo_place *each; /* writing */
			const uint8_t *raw;            /* reading: 20 bytes each, as on disk */
			uint32_t count;
		} place;
		struct {
			uint64_t number, size, invocations;
			struct timespec mtime, ctime;
			uint32_t crc;
			const uint8_t *root; /* 32 */
		} commit;
		struct {
			uint64_t generation;
			const uint8_t *content_id; /* 16 */
			uint64_t final_len;
			struct timespec mtime;
			uint64_t tail_off, tail_len;
			const uint8_t *sector; /* 512 */
			const uint8_t *tail;   /* tail_len bytes; NULL when side */
			const uint8_t *side;   /* SHA-256 of the tail in its side file, else NULL */
			bool whole;            /* with side: the side file is the whole sealed file, `whole-<hex of the content id>` */
		} seal;
	};
};

/* Where an image stands; stays right when a failed group moves to the other half. */
struct redo_loc {
	uint64_t lsn;
	uint32_t off; /* of the image bytes from the start of the group */
	uint32_t len;
};

/* Embedded in whatever owns the records of one base; zeroed at start; touched only by redo.c.  May be moved (copied, the old one zeroed).
 */
struct redo_pin {
	uint8_t runs;      /* bit per stretch of the log that holds records of it (struct redo_run) */
	uint32_t reserved; /* bytes kept free for this pin's SEAL */
};

/** redo_create() - make both halves in @dirfd, written full of zeros and synced; 0, -EEXIST, -errno */
int redo_create(const struct io *io, int dirfd, uint64_t half) MUST_CHECK;

/** redo_open() - start logging; the log must have been recovered: starts a new epoch in the half recovery left free
 * @store_fd: for syncfs before a half is reused.  Both descriptors borrowed.  @k_log: copied
 * @next_lsn, @next_epoch, @half, @other_end: from recover() (struct recovered)
 * Return: 0, -errno.  Close with redo_close(). */
int redo_open(const struct io *io, int dirfd, int store_fd, const uint8_t volume_id[static ID_LEN], const struct secret *k_log,
	      uint64_t next_lsn, uint64_t next_epoch, int half, uint64_t other_end, struct redo **ret) MUST_CHECK;

/** redo_append() - put records into the group being filled, all in one group; no I/O
 * @pin: of the base they change; @reserve: bytes the later SEAL of this pin will need (kept free for it; the largest value given so far
 *counts)
 * @is_seal: may use the space kept free.  With @reserve 0 these are the SEAL itself and the rest of the reservation is given back; else
 *they are on the way to it (the last COMMIT) and what they take is taken from the reservation
 * @ret_lsn: pass it to redo_flush(); @ret_locs: one per IMAGE record in order, may be NULL
 * Return: 0; -EAGAIN no room: the caller drops its locks, seals files (fs/writeback.c), tries again; -EFBIG more than REDO_GROUP_MAX; -EIO
 *the log is dead; -ENOMEM */
int redo_append(struct redo *r, const struct redo_rec *recs, size_t n, struct redo_pin *pin, uint32_t reserve, bool is_seal,
		uint64_t *ret_lsn, struct redo_loc *ret_locs) MUST_CHECK;

/** redo_flush() - wait until every record up to @lsn is durable
 * Blocks: disk.  Return: 0; -EIO this group, or an earlier one, could not be made durable on either half: the log is dead for good;
 * -ENOSPC, -EDQUOT: the disk has no room for a write into the log (btrfs).  Nothing is lost, the next call tries again: records stay in
 * their order, and what was appended counts as it did */
int redo_flush(struct redo *r, uint64_t lsn) MUST_CHECK;

/** redo_read() - the bytes of an image, from memory or the log; @buf: loc->len.  Blocks: disk.  0 or -errno */
int redo_read(struct redo *r, const struct redo_loc *loc, void *buf) MUST_CHECK;

/** redo_unpin() - the base was replaced by a seal that is applied and synced */
void redo_unpin(struct redo *r, struct redo_pin *pin);
/** redo_bury() - the file was unlinked or replaced; its records stay pinned until redo_names_durable() or the syncfs before a change of
 * half.  Takes @pin's content over */
void redo_bury(struct redo *r, struct redo_pin *pin);
/** redo_names_durable() - every unlink and rename so far is durable (after syncfs or a directory sync of all); nothing may have been buried
 * since that sync began */
void redo_names_durable(struct redo *r);

/** redo_must_seal() - this pin holds the half that is needed next */
bool redo_must_seal(struct redo *r, const struct redo_pin *pin);
/** redo_half_used() - how full the current half is, 0..1000; a background seal starts at 500 */
unsigned redo_half_used(struct redo *r);
/** redo_is_dead() */
bool redo_is_dead(struct redo *r);
/** redo_stats() - flushes (disk syncs of the log) and groups so far */
void redo_stats(struct redo *r, uint64_t *ret_flushes, uint64_t *ret_bytes);

/** redo_retire() - at a clean unmount, nothing pinned: a last group that retires everything; 0, -EBUSY something is pinned, else
 * as redo_flush() */
int redo_retire(struct redo *r) MUST_CHECK;
void redo_close(struct redo *r);

/** redo_side_write() - a tail too large for the log (> a quarter of a half): write and sync `tail-<hex>` in the log's directory, @ret_hash
 * for the SEAL */
int redo_side_write(struct redo *r, const void *tail, uint64_t len, uint8_t ret_hash[static 32]) MUST_CHECK;
/** redo_side_drop() - the seal is applied and synced: remove it (errors are only reported) */
void redo_side_drop(struct redo *r, const uint8_t hash[static 32]);
bool redo_side_needed(struct redo *r, uint64_t tail_len);

/* A whole sealed file beside the log, for a SEAL of a content with other segments or another key (fs/DESIGN.md "Re-segmentation"). */
#define REDO_WHOLE_LEN 38
#define REDO_WHOLE_NAME 44 /* "whole-", 32 digits, ".new" while it is being made */
/** redo_whole_name() - its name for a content id */
void redo_whole_name(const uint8_t content_id[static ID_LEN], char ret[static REDO_WHOLE_NAME]);
/** redo_sides_drop() - remove every side file and whole file in the log's directory: after a recovery, when no record counts any more */
void redo_sides_drop(const struct io *io, int dirfd);

/* What recovery needs (crypto/recover.c): parsing, shared with redo.c so that one file knows the format. */
struct redo_group {
	uint64_t epoch, lsn, durable_lsn, retired_lsn;
	uint32_t n_recs, len; /* header and records */
	int half;
	uint64_t off;
};
/** redo_group_len() - length of header and records that the group at @p (96 bytes available) claims, at most @max; 0 if there is no group
 */
uint32_t redo_group_len(const uint8_t *p, uint64_t max);
/** redo_group_lsn() - the LSN it claims, unchecked */
uint64_t redo_group_lsn(const uint8_t *p);
/** redo_group_parse() - check magic, volume, length, CRC and MAC of a group in @p (@len bytes available); 0; -ENOENT no group here;
 * -EBADMSG CRC or MAC wrong; -EXDEV a whole group of another volume; -ENOTSUP version */
int redo_group_parse(const uint8_t *p, size_t len, const uint8_t volume_id[static ID_LEN], const struct secret *k_log,
		     struct redo_group *ret) MUST_CHECK;
/** redo_rec_parse() - the record at @p; @ret_len: its whole length; 0 or -EPROTO */
int redo_rec_parse(const uint8_t *p, size_t len, struct redo_rec *ret, size_t *ret_len) MUST_CHECK;
/** redo_rec_len() / redo_rec_write() - on-disk length, and the bytes */
size_t redo_rec_len(const struct redo_rec *rec);
void redo_rec_write(const struct redo_rec *rec, uint8_t *p);
/** redo_group_seal() - fill in header, CRC and MAC of a group whose records stand at p + 96 */
int redo_group_seal(uint8_t *p, const struct redo_group *g, const uint8_t volume_id[static ID_LEN], const struct secret *k_log) MUST_CHECK;

#endif
