/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the parts of `tdfs convert` have in common: what a run is to do, what is known about a file, what became of it.  CONVERT.md is the
 * protocol.
 */
#ifndef TDFS_CONVERT_H
#define TDFS_CONVERT_H

#include <sys/stat.h>
#include <time.h>

#include "aead.h"
#include "io.h"
#include "record.h"
#include "volume.h"

#define CONVERT_DIR VOLUME_CONVERT_DIR
#define HASH_LEN FINGERPRINT_LEN
/* Names in .tdfs/convert/tmp of what rewrap has made: this and the source's inode number. */
#define REWRAP_ONE 'r'
#define REWRAP_SET 's'     /* of a file with several names */
#define LIVE_WAITS 'l'     /* below a mount, until the daemon gives it its names */
#define CONVERT_LOCK "run" /* .tdfs/convert/: held by a converter below a mount */

enum convert_verb { CONVERT_IN, CONVERT_OUT, CONVERT_REWRAP };
enum verify_policy { VERIFY_POLICY_NONE, VERIFY_POLICY_SAMPLE, VERIFY_POLICY_FULL };
enum busy_policy { BUSY_SKIP, BUSY_WAIT, BUSY_FAIL };

/* One run, fixed once the workers exist. */
struct convert_run {
	enum convert_verb verb;
	bool in_place, one_fs;
	bool live;    /* below a mount: the daemon puts files in place */
	bool recover; /* only finish or take back what an interrupted run has left */
	enum verify_policy verify;
	enum busy_policy busy;
	unsigned workers, batch;
	uint64_t max_rate, max_seconds;
	const char *pressure; /* /proc/pressure/@pressure: wait while "some avg10" is above @max_pressure, per cent */
	unsigned max_pressure;
	bool idle;
	const char *files_from;
	/* rewrap */
	bool new_dek, keep_dek;
	const char *kas_kid; /* the key that files are to be wrapped for */
	const char *policy;  /* base64: the policy they are to have; NULL: each its own */
	bool rules;          /* ... or that of new files where it lies (volume_policy_at()) */
	const char *below;   /* nothing but this directory or file, a path from the store's root; NULL: the whole store */
	ino_t only;          /* nothing but this file, wherever its names are; 0: all */

	pid_t parent;
	const struct volume *v;
	int from_fd, to_fd;           /* roots: of the tree read and the tree written; the same in place */
	dev_t dev;                    /* of from_fd */
	int temp_dir;                 /* .tdfs/convert/tmp, for file systems without O_TMPFILE; on DEST when copying out: -1 */
	struct timespec started;      /* wall clock: headers made since are of this run */
	struct timespec clean_before; /* ctime: what is older has no page left that can be written to without a new one; 0: not known */
	struct timespec suspect_from; /* a run that did not end had no barrier behind what was made since then; 0: none */
};

/* Says whether a file is the one that was read. */
struct stamp {
	uint64_t ino, size;
	int64_t mtime, ctime;
	uint32_t mtime_ns, ctime_ns;
};

enum item_result {
	ITEM_NONE,
	ITEM_STAGED,    /* the new file is complete under its name; durable after the next barrier */
	ITEM_DONE,      /* and the old one is gone (in place) or it was verified (copying) */
	ITEM_ALREADY,   /* was converted before */
	ITEM_OWN,       /* met what this run has made */
	ITEM_PLAIN,     /* not for this verb: out met a plain file in place */
	ITEM_GONE,      /* is not there any more */
	ITEM_BUSY,      /* open elsewhere, or changed while it was read */
	ITEM_COLLISION, /* the name it needs is taken by a file that will move itself */
	ITEM_NO_SPACE,
	ITEM_UNMOUNTED, /* the daemon below whose mount it runs is gone */
	ITEM_LINKED,    /* has more names than were expected: belongs to a set */
	ITEM_SKIPPED,
	ITEM_FAILED,
};

/* A file handed to a worker; its path follows.  Same program at both ends, so the struct is the wire format. */
struct item_order {
	uint32_t path_len;
	uint8_t verify; /* reread it before the original goes */
	uint8_t retry;  /* a worker died in this chunk: part of it may be done */
	uint8_t pad[2];
	uint32_t s, pad2;   /* segment size: the unit of the content hash */
	struct stamp stamp; /* commit: as staged */
	uint64_t out_ino;
	uint8_t hash[HASH_LEN];
};

struct item_answer { /* @text_len bytes of explanation follow */
	uint8_t result;
	uint8_t verified; /* already reread */
	uint8_t unasked;  /* whether somebody has the original open is not known: it has no leases here */
	uint16_t text_len;
	uint32_t s;
	uint64_t bytes; /* plain */
	struct stamp stamp;
	uint64_t out_ino;
	uint8_t hash[HASH_LEN];
};

enum chunk_op { CHUNK_STAGE = 1, CHUNK_COMMIT = 2 };
#define CHUNK_SET 0x100 /* flag of a frame's type: all items are names of one file */

static inline struct stamp stamp_of(const struct stat *st)
{
	return (struct stamp){st->st_ino,         (uint64_t)st->st_size,         st->st_mtim.tv_sec,
			      st->st_ctim.tv_sec, (uint32_t)st->st_mtim.tv_nsec, (uint32_t)st->st_ctim.tv_nsec};
}
static inline bool stamp_same(const struct stamp *a, const struct stamp *b)
{
	return a->ino == b->ino && a->size == b->size && a->mtime == b->mtime && a->ctime == b->ctime && a->mtime_ns == b->mtime_ns &&
	       a->ctime_ns == b->ctime_ns;
}
static inline bool time_before(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec < b->tv_sec || (a->tv_sec == b->tv_sec && a->tv_nsec < b->tv_nsec);
}

#endif
