/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the engine (fs/inode*.c, commit.c, seal.c, writeback.c); nobody else includes this.
 *
 * Where a segment's bytes are, in the order in which a reader asks: dirty plaintext in memory; an image in the log; in place.
 */
#ifndef TDFS_INODE_I_H
#define TDFS_INODE_I_H

#include <errno.h>
#include <time.h>

#include "container.h"
#include "crc.h"
#include "inode.h"
#include "plain_file.h"
#include "report.h"
#include "seal.h"
#include "writeback.h"

#define NEW_MEMORY_MAX ((uint64_t)1 << 20) /* a new file stays in memory up to here */
#define DIRTY_MAX ((uint64_t)4 << 20)      /* dirty plaintext of one file before it is committed without being asked */
#define GROW_MIN ((uint64_t)1 << 20)       /* unsynced growth from which it goes in place */
#define GROW_OTHER_MAX \
	((uint64_t)512 << 10) /* dirty bytes besides the growth, above which a growing file is committed before more is written ... */
#define GROW_ONE_MAX ((uint64_t)1 << 20)  /* ... and the largest write that comes on top: together they bound what its seal needs */
#define PLACE_MAX 4096u                   /* segments placed and not yet committed */
#define RETRY_AGE ((uint64_t)5000000000u) /* before the background tries again what failed */
#define INVOCATION_MAX ((uint64_t)1 << 31)
#define NEAR ((uint64_t)1 << 20) /* the kernel's read-ahead comes in any order within this */
#define JUMPS_RANDOM 4u
#define GAP_WAITS 40u /* times 250 us */
#define GAP_WAITS_MAX 20000u
#define GAP_MISSES 3u
#ifndef RESEG_TAIL                      /* tests make it smaller */
#define RESEG_TAIL ((uint64_t)10 << 20) /* a manifest that every client reads */
#endif
#ifndef RESEG_KEY_USES
#define RESEG_KEY_USES (INVOCATION_MAX / 4 * 3) /* then a data key is replaced */
#endif
#define RUN_MAX ((size_t)512 << 10) /* ciphertext read or written with one call; also bounds the buffer each thread keeps */
#define STEP ((uint64_t)4 << 20)    /* growth by zeros goes in steps of this */

enum content {
	CONTENT_VOID,     /* on disk: never committed; nothing can be read */
	CONTENT_NEW,      /* no sealed base, all in memory */
	CONTENT_SPILLED,  /* no sealed base, header NEW, whole segments in place; also an unlinked file whose unlink is durable */
	CONTENT_SEALED,   /* a sealed base and what was changed since */
	CONTENT_REPLACED, /* cut to nothing: a sealed base that still counts, and new content under a fresh DEK in memory */
	CONTENT_FOREIGN,
	CONTENT_PLAIN, /* passed through to a plain file, fs/plain_file.c */
};

struct seg { /* dirty plaintext */
	uint64_t no;
	uint32_t len, cap;
	uint8_t *buf;
};

struct image { /* committed, not yet in place */
	uint64_t no;
	struct redo_loc loc;
};

struct apply { /* a SEAL on its way into place; touched under seal_lock */
	bool pending;
	bool applied; /* written, not yet synced */
	struct redo_pin pin;
	struct image *images;
	size_t n_images;
	uint32_t s;
	uint8_t sector[SECTOR];
	uint8_t *tail;
	uint64_t tail_off, tail_len;
	bool side;
	uint8_t side_hash[32];
	/* the whole content stands in a file beside the log; until it is in place that is read */
	bool whole;
	int whole_fd, copy_fd; /* copy_fd: the store file once more */
	char whole_name[REDO_WHOLE_NAME];
	_Atomic uint64_t copied;
	struct record rec;
	uint64_t lsn;
	unsigned meta_seq;
};

/* How long a key from a remote KAS may be used, lease.c.  Atomic: read on every read without a lock. */
enum lease_state {
	LEASE_GOOD,
	LEASE_ENDED, /* nothing is read any more; what the caches hold is still to be dropped, what the kernel holds of writes to be taken
		      */
	LEASE_SHUT,  /* done: nothing is written either */
};
struct lease {
	_Atomic uint64_t until; /* CLOCK_MONOTONIC ns; 0: for ever, the key came from a local one */
	_Atomic uint64_t due;   /* to be renewed; once ended: not to be asked for again before */
	_Atomic enum lease_state state;
	_Atomic int err;      /* why it ended */
	_Atomic bool own;     /* made here: an outage does not end it */
	_Atomic unsigned seq; /* + 1 with each fresh key: an answer for the one before says nothing */
};

struct inode {
	/* set at creation, then fixed */
	struct store *st;
	dev_t dev;
	ino_t ino;
	uint64_t id;
	struct lease lease;
	bool plain; /* CONTENT_PLAIN, now and for ever */

	/* guarded by store->list_lock */
	struct inode *next; /* hash chain */
	unsigned refs;
	struct inode *wb_next, **wb_prev; /* files that need a seal; listed = one reference */

	/* One file's content: taken for writing by whatever changes a field below, for reading by readers. */
	struct rwlock lock;
	int fd, old_fd; /* old_fd: the read-only one, kept until the end because somebody may be syncing it */
	bool fd_write;
	int load_err; /* why it could not be loaded */
	enum content content;
	struct container *foreign;
	char *path; /* hint, as stored */

	/* the base */
	struct record rec; /* header of the base (of the next seal: derived from it) */
	uint64_t base_len; /* length of the sealed store file */
	uint32_t base_crc; /* of the sealed payload */
	bool live;         /* header LIVE is in place */
	bool hinted;       /* the log knows where the file is (INTENT) */
	bool intent;       /* INTENT is durable and space for a growing file's seal is kept: it may grow in place */
	struct redo_pin pin;
	struct redo_pin void_pin; /* REPLACED gave its base up: freed at the next sync of the file */
	uint64_t void_seq;        /* write_seq at that moment */
	uint64_t void_lsn;        /* REPLACED: VOID stands in the log and is not durable yet; nothing more of this base counts */
	bool rewrite;             /* SPILLED: a sync failed, so that what is in place may be only in the kernel's memory */
	bool orphans;             /* the log holds images that no COMMIT counts */
	struct apply apply;
	struct reseg *reseg; /* a copy is being built; touched under seal_lock, or with the lock below for writing */
	bool told;           /* its size, before the first byte: its segments fit that */
	bool reseg_refused;  /* that failed: not tried again while the file is live */

	/* committed state (NEW, SPILLED: nothing is) */
	uint64_t com_size;
	uint32_t com_crc;
	bool crc_unsure;    /* a segment could not be read for it */
	uint64_t number;    /* of the last COMMIT on this base */
	uint64_t first_lsn; /* of the first COMMIT on this base */
	uint64_t last_lsn;  /* of the last record that somebody may have to wait for */

	/* the content now */
	struct tail_template *tmpl;
	struct secret *dek;
	uint32_t s;
	uint64_t size;
	uint8_t *tags;  /* stored segments: committed, in place, or placed and not committed */
	uint64_t *crcs; /* 1 << 32 | CRC-32 where known; allocated when first needed */
	uint64_t n_tags, cap_tags;
	struct seg *segs; /* dirty, sorted */
	size_t n_segs, cap_segs;
	uint64_t dirty;       /* bytes */
	struct image *images; /* sorted */
	size_t n_images, cap_images;
	bool fresh; /* placed segments that no COMMIT covers: [place_first, place_end) */
	uint64_t place_first, place_end;
	uint64_t used_end; /* segments below have been placed on this base once, or lie over its tail: never again in place before the next
			      seal */
	uint64_t invocations;
	uint64_t alloc_end; /* the store file has blocks up to here (fallocate KEEP_SIZE) */
	bool owed;          /* SEALED: grown by what the disk had no blocks for, inode_keep.c */
	struct timespec mtime, ctime;
	struct timespec guess;      /* of both, while the kernel's are not known: inode_times.c */
	struct timespec ctime_told; /* ctime that came last with times from the kernel */
	_Atomic bool guessed;
	time_t heard_at;    /* when the kernel sent a time or a write, or was told a time */
	bool unsent;        /* a write came long after that, guessed: its time was lost */
	bool guess_stored;  /* a commit or a seal has it; also set with the lock held for reading, by who has seal_lock */
	bool times_changed; /* mtime is not in the last COMMIT or seal yet */

	bool unlinked;
	bool durable;       /* base content and name are durable */
	unsigned meta_seq;  /* + 1 whenever durable becomes false */
	uint64_t write_seq; /* + 1 at every change of content */
	int error;          /* a lost write: every fsync says so until the last close */
	struct mutex sync_lock; /* one sync of the store file at a time, inode_sync_file() */
	bool sync_failed;       /* guarded by it */
	_Atomic unsigned n_syncing; /* calls of fsync that sync the store file just now, and say so here when that has failed */
	bool lost; /* ... and for good, because nobody can know what is on the disk: it stays live, so that no later sync is believed */
	unsigned handles, writers;
	_Atomic uint64_t read_end;             /* of the last read */
	_Atomic unsigned jumps;                /* reads far from the one before: up with each, halved by each that is near */
	_Atomic bool random;                   /* the store file is told so */
	_Atomic bool counted;                  /* its atime knows of a reading since the last write */
	_Atomic unsigned n_writing, n_waiting; /* calls of inode_write() under way; of them waiting for a gap to close */
	_Atomic unsigned gap_misses;           /* times that a write beyond the end waited for nothing */
	_Atomic uint64_t retry_at;             /* the background leaves it alone until then: its seal failed */
	uint64_t first_change, last_write, last_close, oldest_uncommitted; /* CLOCK_MONOTONIC ns, 0 = none */
};

/* inode.c */
struct inode *inode_alloc(struct store *st);
struct inode *inode_publish(struct inode *f); /* put it into the table; or the one that is there already, with a reference */
void inode_free(struct inode *f);
void inode_lost(struct inode *f); /* lock held */
bool inode_needs_seal(const struct inode *f);
void inode_forget_content(struct inode *f); /* dirty segments, tags, images in memory */
void inode_not_durable(struct inode *f);

/* inode_times.c */
struct timespec now_wall(void);
void inode_times_loaded(struct inode *f, const struct timespec *mtime, const struct timespec *ctime); /* what the kernel is told */
void inode_touched(struct inode *f);     /* content has changed; lock held for writing */
void inode_times_known(struct inode *f); /* the kernel has no others than those we know; lock held for writing */
/* what is to be stored now; lock held, for writing or together with seal_lock; @ret_ctime may be NULL */
void inode_times_stored(struct inode *f, struct timespec *ret_mtime, struct timespec *ret_ctime);

/* inode.c */
int inode_fresh_key(struct inode *f);          /* new DEK and template */
int inode_sync_names(struct inode *f, int fd); /* make the file and its name durable; @fd: its descriptor; takes no lock */
/* fsync.c: a sync of the store file that is told of what any other one by the same descriptor was told; takes no lock, blocks on the disk */
int inode_sync_file(struct inode *f, int fd, bool full);
void inode_sync_again(struct inode *f); /* what was lost is about to be written again, or given up */

/* foreign_size.c: @s as the store has it; peek replaces st_size by the plain size, 0 if it cannot be told */
void foreign_size_learn(struct store *st, const struct stat *s, uint64_t size);
void foreign_size_peek(struct store *st, int fd, struct stat *s);

/* lease.c */
/** lease_set() - the file has a key that may be used until then; @own: made here.  Caller holds the lock or is the only one who knows @f */
void lease_set(struct inode *f, uint64_t until, bool own);
/* around a question that may have to wait for a KAS: 0, or -ETIMEDOUT because so many wait already */
int ask_begin(struct store *st);
void ask_end(struct store *st);
int lease_renew(struct inode *f); /* no lock held; asks the KAS if need be: 0 or why not */
/** lease_check() - may the content be read?  No lock is held: it may have to ask the KAS */
static inline int lease_check(struct inode *f)
{
	return f->lease.until ? lease_renew(f) : 0;
}
/** lease_check_write() - may it be changed?  Never asks. */
static inline int lease_check_write(const struct inode *f)
{
	return f->lease.state == LEASE_SHUT ? f->lease.err : 0;
}

/* inode_load.c */
int open_store_file(struct store *st, int dirfd, const char *name, bool write);
struct container_keys inode_keys(const struct store *st);

/* inode_peek.c */
/** hint_get() - the size hint as it is stored with an entry of a directory, or with what @dirfd is itself (@name ""); its length, or below
 * 1 if there is none.  @dirfd may be an O_PATH descriptor. */
ssize_t hint_get(struct store *st, int dirfd, const char *name, uint8_t raw[static HINT_LEN + 1]);
void inode_show_ctime(struct stat *s, const struct timespec *user, uint32_t made);

/* inode_read.c; caller holds the lock */
uint8_t *scratch_get(size_t len); /* this thread's buffer; NULL without memory; segment_load() and segment_crc() use it too */
int segment_load(struct inode *f, uint64_t i, void *pt); /* plain bytes of a stored segment, checked */
/* of the stored bytes; len: plain.  @good: only if they are what was stored, else -EBADMSG */
int segment_crc(struct inode *f, uint64_t i, uint32_t len, bool good, uint32_t *ret_crc);
int inode_read_plain(struct inode *f, void *buf, uint64_t off, uint64_t end); /* end <= size; 0 or -errno */
struct image *image_find(struct inode *f, uint64_t no);

/* inode_write.c; caller holds the lock for writing */
struct seg *seg_find(struct inode *f, uint64_t no);
int seg_get(struct inode *f, uint64_t no, bool load, uint32_t need, struct seg **ret); /* dirty segment with room for need bytes */
void seg_drop(struct inode *f, size_t index);
void segs_drop_from(struct inode *f, uint64_t no);
int tags_room(struct inode *f, uint64_t n);
int segment_put(struct inode *f, uint64_t i, const void *pt, uint32_t len, uint8_t *out);     /* encrypt, note tag and CRC; out: len + 28 */
int seg_write(struct inode *f, uint64_t no, uint32_t from, uint32_t len, const uint8_t *buf); /* into a dirty segment */
bool inode_too_dirty(const struct inode *f);

/* inode_keep.c; caller holds the lock for writing */
bool inode_keep(struct inode *f, const uint8_t *buf, size_t len, uint64_t off); /* false: it cannot */
int inode_pay(struct inode *f); /* before a COMMIT: the blocks for what was kept, or -ENOSPC */
uint64_t inode_paid_size(const struct inode *f);
bool inode_owes(struct inode *f); /* no lock held */

/* batch.c; caller holds seal_lock */
int seal_batch(struct store *st, struct inode **files, size_t n, bool commit);

/* inode_grow.c, pressure.c */
int inode_spill(struct inode *f);               /* NEW, lock held: header NEW, whole segments in place */
int inode_grow(struct inode *f, uint64_t size); /* no lock held: as inode_truncate(), but never makes a file shorter */
int inode_new_header(struct inode *f);          /* lock held: header NEW in place */
int inode_pressure(struct inode *f);            /* no lock held: spill, place, commit what is too much for memory */
int inode_place(struct inode *f);               /* lock held, a growing file: what is dirty behind what is placed goes in place too */
int spill_dirty(struct inode *f, bool all);     /* SPILLED, lock held: write dirty segments in place */
int inode_void_base(struct inode *f);           /* REPLACED, lock held: give the base up, go on SPILLED */
int inode_reserve(struct inode *f, uint64_t size,
		  bool exact); /* lock held: blocks for the file as it will be sealed with this plain size */

/* seal.c; lock held for writing */
int spilled_lost(struct inode *f); /* SPILLED: its sync failed; -EIO */
/* seal_new.c: second (low half) in which we last wrote the store file, by its hint; without one that of its header */
uint32_t sealed_when(const struct inode *f, uint64_t file_len);

/* reseg.c; lock held for writing.  Whoever changes content says so: */
void reseg_mark(struct inode *f, uint64_t no); /* this segment is about to change */
void reseg_cut(struct inode *f);               /* the file has become shorter */
void reseg_give_up(struct inode *f);           /* the content is another one altogether */
void reseg_drop(struct inode *f);              /* under seal_lock, or nobody else has the file */
bool reseg_ready(const struct inode *f);
int reseg_seal(struct inode *f);  /* under seal_lock: SEAL whose content is the copy; -EAGAIN no room in the log */
void reseg_free(struct inode *f); /* the inode goes: what is to become of its copy */
void reseg_done(struct inode *f); /* under seal_lock: it is in place and synced */
/* reseg_turn.c */
bool reseg_wanted(const struct inode *f, uint32_t *ret_s);
void reseg_refuse(struct inode *f, int err);      /* under seal_lock, lock held for writing: it goes on as it is; says so once */
bool reseg_busy(const struct inode *f);           /* being copied or waiting for it: stays listed */
bool reseg_copying(const struct inode *f);        /* into its place, a piece at a time: no seal finishes that without need */
void reseg_empty(struct inode *f, uint64_t size); /* a NEW file, empty so far, will have this size */
bool reseg_spilled_wanted(const struct inode *f);
int reseg_spilled(struct inode *f); /* SPILLED: larger segments, in place */

/* commit.c; lock held for writing */
int commit_append(struct inode *f, bool is_seal);
int commit_crc_again(struct inode *f);                /* before a seal: f->com_crc, if a segment could not be read for it */
void commit_mark_live(struct inode *f, uint64_t lsn); /* no lock held; everything up to lsn is durable */
int images_room(struct inode *f, size_t n);           /* for n more */
bool commit_needed(const struct inode *f);
uint32_t seal_estimate(const struct inode *f,
		       bool with_growth); /* what its SEAL takes in the log; with_growth: and the commit before it of a growing file */
void base_of(const struct inode *f, struct base *ret);

#endif
