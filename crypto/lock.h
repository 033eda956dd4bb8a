/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Locks, and the one order they are taken in.
 *
 * Outer to inner; a thread that holds one may only take locks further down.  Nobody holds a lock across a FUSE reply.
 *
 *   store->room_lock     whose turn it is when the log is full                fs/room.c
 *   store->seal_lock     one checkpoint at a time                           fs/writeback.c
 *   node table           names, nodeids, lookup counts; no I/O under it     fs/node.c
 *   inode->lock          one file's content (rwlock; I/O of that file only) fs/inode.c
 *   inode->sync_lock     one sync of a store file at a time                 fs/fsync.c
 *   store->list_lock     which inodes are open or dirty; no I/O             fs/store.c
 *   redo->lock           the group being filled; no I/O                     crypto/redo.c
 *   leaves: segment cache shard, key cache, buffer pool, report, large files of others (container.c)
 *
 * The wrappers abort on a misuse that pthread reports, because going on would be worse.
 */
#ifndef TDFS_LOCK_H
#define TDFS_LOCK_H

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

struct mutex {
	pthread_mutex_t m;
};
struct rwlock {
	pthread_rwlock_t l;
};
struct cond {
	pthread_cond_t c;
};

#define MUTEX_INIT {PTHREAD_MUTEX_INITIALIZER}

static inline void lock_check(int err)
{
	if (err)
		abort();
}
static inline void mutex_init(struct mutex *m)
{
	lock_check(pthread_mutex_init(&m->m, NULL));
}
static inline void mutex_destroy(struct mutex *m)
{
	pthread_mutex_destroy(&m->m);
}
static inline void mutex_lock(struct mutex *m)
{
	lock_check(pthread_mutex_lock(&m->m));
}
static inline void mutex_unlock(struct mutex *m)
{
	lock_check(pthread_mutex_unlock(&m->m));
}
/* A waiting writer comes before new readers: else readers that never pause keep it out for ever.  So nobody may take a lock for reading that he holds already. */
static inline void rwlock_init(struct rwlock *l)
{
	pthread_rwlockattr_t a;

	lock_check(pthread_rwlockattr_init(&a));
	lock_check(pthread_rwlockattr_setkind_np(&a, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP));
	lock_check(pthread_rwlock_init(&l->l, &a));
	pthread_rwlockattr_destroy(&a);
}
static inline void rwlock_destroy(struct rwlock *l)
{
	pthread_rwlock_destroy(&l->l);
}
static inline void rwlock_read(struct rwlock *l)
{
	lock_check(pthread_rwlock_rdlock(&l->l));
}
static inline void rwlock_write(struct rwlock *l)
{
	lock_check(pthread_rwlock_wrlock(&l->l));
}
static inline void rwlock_unlock(struct rwlock *l)
{
	lock_check(pthread_rwlock_unlock(&l->l));
}
/* Waits use CLOCK_MONOTONIC, so that a step of the wall clock changes nothing. */
static inline void cond_init(struct cond *c)
{
	pthread_condattr_t a;

	lock_check(pthread_condattr_init(&a));
	lock_check(pthread_condattr_setclock(&a, CLOCK_MONOTONIC));
	lock_check(pthread_cond_init(&c->c, &a));
	pthread_condattr_destroy(&a);
}
static inline void cond_destroy(struct cond *c)
{
	pthread_cond_destroy(&c->c);
}
static inline void cond_wait(struct cond *c, struct mutex *m)
{
	lock_check(pthread_cond_wait(&c->c, &m->m));
}
/* @until: CLOCK_MONOTONIC; returns 0 or ETIMEDOUT */
static inline int cond_wait_until(struct cond *c, struct mutex *m, const struct timespec *until)
{
	return pthread_cond_timedwait(&c->c, &m->m, until);
}
static inline void cond_broadcast(struct cond *c)
{
	lock_check(pthread_cond_broadcast(&c->c));
}

#endif
