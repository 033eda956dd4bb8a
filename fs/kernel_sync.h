/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The thread that makes the kernel send what it holds: with the write-back cache a page may stay dirty for 30 s, and the daemon hears of no
 * sync(2).  So every 4 s, while files are open for writing, it calls syncfs(2) on the mount.  It also waits for SIGTERM, SIGINT and SIGHUP:
 * on one of them the kernel's pages are fetched first, then the session ends.
 */
#ifndef TDFS_KERNEL_SYNC_H
#define TDFS_KERNEL_SYNC_H

#include <pthread.h>

#include "ops.h"

struct kernel_sync;

struct kernel_calls {
	void (*leave)(struct mount *m); /* end the session */
	void (*tick)(struct mount *m);  /* every interval */
};
/** kernel_sync_start() - call it on the thread that will run the session, SIGTERM, SIGINT, SIGHUP and SIGUSR1 blocked in all threads
 * @calls: made on the new thread; after leave() the calling thread gets SIGUSR1, which it lets through, until kernel_sync_stop() */
int kernel_sync_start(struct mount *m, const struct kernel_calls *calls, struct kernel_sync **ret) MUST_CHECK;
/** kernel_sync_stop() - after the session ended */
void kernel_sync_stop(struct kernel_sync *k);
/** mount_is_there() - is our mount still where it was made?  Not after umount -l, while files are open */
bool mount_is_there(const struct mount *m);
/** kernel_read_ahead() - after INIT: reads in sequence come in larger requests than the 128 KiB a FUSE mount gets.  Only root may say so (sysfs); refused, all
 * works as before */
void kernel_read_ahead(const struct mount *m);
/** kernel_sync_now() - the kernel has sent everything written so far when this returns 0; also 0 when the mount is gone; never call it on a
 * thread of the session */
int kernel_sync_now(const struct mount *m) MUST_CHECK;

#endif
