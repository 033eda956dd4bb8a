/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store that is being converted under the mount: plain and sealed files side by side, and the one moment in which a plain file becomes a
 * sealed one (DESIGN.md "Conversion").
 *
 * Whoever opens or changes a plain file by its name holds it "in use" meanwhile, as an open handle does by its live content.  A swap claims
 * the inode number: it fails while the file is in use, and who wants to use it waits until the claim is over and finds the sealed one.
 * No lock is held over either.
 */
#ifndef TDFS_PLAIN_H
#define TDFS_PLAIN_H

#include <stdatomic.h>

#include "vtree.h"

#define PLAIN_BUCKETS 1024
#define FRESH_MAX 1024

struct plain_entry; /* one inode number that something is going on with */

struct plain {
	int temp_dir; /* where the converter puts sealed files that have no name yet; -1: there is none */
	int sync_fd;  /* plain_sync()'s own: the kernel tells each description about a failed write once */
	_Atomic bool on;
	/* names that plain files and folders get through us: a scan meanwhile may have missed one */
	_Atomic uint64_t n_moves;
	_Atomic unsigned n_moving;
	_Atomic size_t n_fresh;
	_Atomic ino_t told; /* named last as lying beside a sealed one */

	struct mutex lock;
	/* guarded by lock */
	struct cond released;
	struct plain_entry *buckets[PLAIN_BUCKETS];
	uint64_t next_watcher;
	ino_t fresh[FRESH_MAX]; /* sealed files whose plain originals are removed, but not durably */
	uint64_t fresh_seq;
	struct mutex sync_lock; /* one syncfs for all who wait; outside of lock */
};

/** plain_new() - @on: the volume's state; 0 or -errno */
int plain_new(struct store *st, bool on, struct plain **ret) MUST_CHECK;
void plain_free(struct plain *p);
/** plain_start() - plain files are served from now on; everything of the volume is sealed, and nothing changes until this returns */
void plain_start(const struct tree *t);
static inline bool plain_on(const struct tree *t)
{
	return t->plain && t->plain->on;
}

/* --- fs/plain.c --- */
/** plain_use() - @n is about to be opened or changed by its name; if it is plain it stays so until plain_unuse()
 * @ret: its inode number; 0: it is not plain.  0 or -ENOMEM */
int plain_use(const struct tree *t, struct node *n, ino_t *ret) MUST_CHECK;
/** plain_begin() - plain_use(), and what is no plain file any more is going to be changed: plain_durable() */
int plain_begin(const struct tree *t, struct node *n, ino_t *ret) MUST_CHECK;
/* Around giving a plain file or a folder (@what) another name */
static inline void plain_move(const struct tree *t, bool what)
{
	if (t->plain && what)
		t->plain->n_moving++;
}
static inline void plain_moved(const struct tree *t, bool what)
{
	if (!t->plain || !what)
		return;
	t->plain->n_moves++;
	t->plain->n_moving--;
}
void plain_unuse(const struct tree *t, ino_t ino);
/** plain_durable() - before the sealed file @ino changes: the removal of its plain original is durable; 0 or -errno of syncfs */
int plain_durable(const struct tree *t, ino_t ino) MUST_CHECK;
/** plain_sync() - everything written to plain files is durable; 0 or -errno */
int plain_sync(const struct tree *t) MUST_CHECK;
/* A watch ends with the first use: what it stood for is not certain any more. */
uint64_t plain_watcher(struct plain *p);
int plain_watch(const struct tree *t, ino_t ino, uint64_t watcher) MUST_CHECK; /* 0; -EBUSY in use; -ENOMEM */
void plain_unwatch(struct plain *p, ino_t ino, uint64_t watcher);              /* @ino 0: all of this watcher */
/** plain_claim() - 0: nobody uses it and nobody will until plain_release(); -EBUSY in use, or was since the watch began */
int plain_claim(const struct tree *t, ino_t ino, uint64_t watcher) MUST_CHECK;
void plain_release(struct plain *p, ino_t ino, ino_t fresh); /* @fresh: the sealed file that took its place, 0: none */

/* --- fs/plain_dir.c --- */
/** plain_is() - is the regular file @stored plain?  Its visible name is then the stored one.  1, 0, -errno */
int plain_is(const struct tree *t, int dirfd, const char *stored, const struct stat *st) MUST_CHECK;
/** plain_probe() - complete dir_probe(); the name lock of @dir is held.  0 or -errno */
struct probe;
int plain_probe(const struct tree *t, struct node *dir, int fd, const char *name, struct probe *p) MUST_CHECK;
/** plain_lookup() - the stored name of what visible @name is; 0; -ENOENT neither a sealed nor a plain file; -errno */
int plain_lookup(const struct tree *t, struct node *dir, int fd, const char *name, char ret[static NAME_ROOM]) MUST_CHECK;
/** plain_listed() - readdir: is the regular file @stored shown, and as what? */
bool plain_listed(const struct tree *t, struct node *dir, int fd, const char *stored, char ret[static NAME_ROOM]);
/** plain_there() - is visible @name a regular file? */
bool plain_there(const struct tree *t, int fd, const char *name);
/** plain_replaced() - before @fd's other form takes its place: a mark by which a crash between the two steps is decided; @wins: @fd is the
 * one to stay.  0 or -errno */
int plain_replaced(const struct tree *t, int dirfd, const char *stored, bool wins) MUST_CHECK;
/** plain_reading() - a directory is read from its start (@begin) or has been: no swap in it meanwhile */
void plain_reading(const struct tree *t, struct node *dir, bool begin);

/* --- fs/plain_session.c --- */
struct plain_session; /* one connection of a converter */
struct plain_session *plain_session_new(const struct tree *t);
void plain_session_free(struct plain_session *s);
/** plain_session_begin() - @path (below the store's root, as stored), a file with @links names, is going to be sealed
 * 0; -EBUSY in use; -ENOENT no plain file; -EMLINK it has not so many names; -ENOTUNIQ a sealed file of other content lies beside it;
 * -errno */
int plain_session_begin(struct plain_session *s, const char *path, uint64_t links) MUST_CHECK;
struct plain_swap {
	const char *const *paths; /* all names of the file */
	size_t n_paths;
	const char *temp; /* in temp_dir: the whole sealed file, durable, made from @st */
	uint64_t temp_ino;
	struct stat st; /* of the plain file when it was read: ino, size, mtime and ctime count */
};
/** plain_session_swap() - 0; -EBUSY in use or changed meanwhile; -ENOENT gone; -EEXIST the name is taken; -errno.  fail() tells */
int plain_session_swap(struct plain_session *s, const struct plain_swap *w) MUST_CHECK;
/** plain_moves() - for plain_strict(), before a scan; -EAGAIN: not just now */
int plain_moves(const struct tree *t, uint64_t *ret) MUST_CHECK;
/** plain_strict() - no plain file is left, as a scan said that began at @moves: 0; -EAGAIN one may have moved since.  @end: writes the new
 * state */
int plain_strict(const struct tree *t, uint64_t moves, int (*end)(void *arg), void *arg) MUST_CHECK;

#endif
