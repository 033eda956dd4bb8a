/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store in use: the volume's keys, the log, all live files.  Knows nothing of FUSE: the mount, the crash tests and the converter use it
 * alike.
 */
#ifndef TDFS_STORE_H
#define TDFS_STORE_H

#include "kas.h"
#include "lock.h"
#include "recover.h"
#include "segcache.h"
#include "volume.h"

struct inode;

#define STORE_ASKING_MAX 200u /* who would be one more is told at once that the KAS is late */

struct store_keys { /* borrowed from struct volume, or made up by a test */
	uint8_t volume_id[ID_LEN];
	const struct secret *k_seal, *k_hint, *k_rec, *k_log;
	struct kas *kas;
	const char *policy;            /* base64, for new files */
	const struct volume *policies; /* asked for that of a path; NULL: all have the one above */
	/* the key of @f may not be used any more: what the kernel has of its content has to go.  Called by a thread of the store's, no lock
	 * held; may block; NULL: nothing to do */
	void (*lost)(void *arg, struct inode *f);
	void *lost_arg;
};

struct store_options {
	uint32_t segment_size;
	bool read_only;
	bool strict;        /* cache=strict: every write is handed to the log before it returns */
	bool live_mark;     /* durability 11 */
	bool noatime;       /* reading moves no atime */
	size_t cache_bytes; /* plaintext segment cache */
	size_t dirty_bytes; /* all dirty plaintext of the store */
	bool no_threads;    /* crash tests: nothing happens unless called */
};

#define FOREIGN_SIZES 256

struct foreign_size { /* known since it was opened, see foreign_size.c */
	ino_t ino;
	off_t stored;
	struct timespec ctime;
	uint64_t size;
};

struct store {
	/* set at creation, then fixed */
	struct io io;
	int root_fd, tdfs_fd;
	uint32_t root_ino;    /* low half, for INTENT */
	int seal_fd, sync_fd; /* the root once more, for the syncfs of writeback.c alone: each descriptor is told of a lost write once */
	struct store_keys keys;
	struct store_options opt;
	struct redo *redo; /* NULL when read-only */
	struct segcache *cache;
	struct recovered recovered;

	struct mutex list_lock;
	/* guarded by list_lock */
	struct inode **buckets; /* live inodes by (dev, ino) */
	size_t n_buckets, n_inodes;
	struct recover_damage *damaged;
	size_t n_damaged;
	struct foreign_size foreign_sizes[FOREIGN_SIZES];

	bool strict_atime; /* on the store's file system every reading moves it (strictatime) */
	bool may_defer; /* no quota can refuse a write that the free space allows: sealing a small new file may wait for its last close */

	/* atomic */
	_Atomic int64_t room; /* bytes that may be promised before the disk is asked again */
	_Atomic uint64_t room_at;
	_Atomic bool kernel_times;   /* mtime and ctime are the kernel's to say, see inode_times.c */
	_Atomic bool converting;     /* plain files lie beside ours: see plain_file.h */
	_Atomic unsigned n_creating; /* meanwhile: files that are there already and cannot be told from a user's yet */
	_Atomic bool changed;        /* anything, since the start: it has to be made durable at the end */
	_Atomic bool failed;         /* the log is dead: every write answers EIO, sealed files stay readable */
	_Atomic bool no_getxattrat;  /* the kernel is older */
	_Atomic uint64_t dirty;      /* bytes of dirty plaintext in memory */
	_Atomic uint64_t n_dropped;  /* inodes that left the table: tells whether a stat taken before can have missed a seal */
	_Atomic uint64_t n_seals, n_commits, n_fsyncs, n_bad_segments;

	_Atomic unsigned n_asking; /* threads that may be waiting for a remote KAS */

	struct mutex room_lock;     /* one at a time makes room in a full log and uses it; outside of seal_lock */
	_Atomic bool short_of_room; /* ... and needs it all */

	struct mutex seal_lock; /* one checkpoint at a time */
	/* guarded by seal_lock */
	uint64_t held_until; /* no re-segmentation until then */
	struct reseg_past {
		uint8_t file_id[ID_LEN];
		bool for_good;
	} reseg_past[32]; /* files for which it was refused; a ring */
	size_t n_reseg_past;

	struct writeback *wb;                 /* NULL with no_threads */
	struct leases *leases;                /* NULL with no_threads or without a remote KAS */
	struct prefetch *prefetch;            /* likewise */
	_Atomic uint64_t n_revoked, n_lapsed; /* open files that the KAS took the key of; whose key could not be renewed in time */
};

/** store_open() - recover, then open the log for writing
 * @root_fd, @tdfs_fd, @keys' pointers: borrowed for the store's life.  @event as recover().
 * Return: 0; 1 = damage in the log, opened read-only; -EBADMSG, -errno.  Close with store_close(). */
int store_open(const struct io *io, int root_fd, int tdfs_fd, const struct store_keys *keys, const struct store_options *opt,
	       void (*event)(void *arg, const char *path, const char *text), void *arg, struct store **ret) MUST_CHECK;

/** store_sync() - everything written so far is sealed and durable when this returns (tdfs sync, quiesce, unmount); 0 or the first error */
int store_sync(struct store *st) MUST_CHECK;

/** store_may_take() - is there room on the disk for so many bytes of our own, and a little more for everybody else?  Blocks: statvfs */
bool store_may_take(const struct store *st, uint64_t bytes);

/** store_close() - seal everything, retire the log, free.  No inode may be referenced any more.  0 or what store_sync() said (the store is
 * gone all the same) */
int store_close(struct store *st);

/** now_ns() - CLOCK_MONOTONIC, of which all moments of a store are */
uint64_t now_ns(void);

/** inode_free_all() - for store_close() alone: free every live inode, whoever holds it */
void inode_free_all(struct store *st);

#endif
