/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket STORE/.tdfs/control of a mounted daemon: 0600, peer checked by SO_PEERCRED (same uid or root), one JSON object per
 * line each way.
 *
 * Request {"v":1,"op":"status"|"sync"|"unmount"|"quiesce"|"thaw"|"open"|"convert"}, answer {"v":1,"ok":true,...} or
 * {"v":1,"ok":false,"errno":n,"error":"text"}. status answers: pid, mountpoint, uptime, store, read_only, files {live, dirty}, dirty_bytes,
 * log {half_used, flushes}, counters {commits, seals, fsyncs, bad_segments}, inodes, nodes, state, quiesced (seconds
 * left).  "quiesce" has "seconds", the most it may last.
 *
 * "unmount" is answered twice: when the mount is gone, and when the daemon has sealed everything or could not.
 *
 * "convert" is answered as above and turns the connection into a conversation: any number of requests, one at a time, on a thread of their
 * own: fs/plain_talk.c has them.
 */
#ifndef TDFS_CONTROL_H
#define TDFS_CONTROL_H

#include <jansson.h>

#include "store.h"

#define CONTROL_QUIESCE_MAX (24 * 60 * 60) /* seconds */
#define CONTROL_TALK_MAX ((size_t)1 << 20) /* a request of a conversation: all names of a file */

/* Server side: the mount. */
struct control;
struct control_calls { /* called on the control thread */
	void *arg;
	json_t *(*status)(void *arg);
	int (*sync)(void *arg);
	int (*unmount)(void *arg); /* start leaving; the answer is sent before the daemon goes */
	int (*quiesce)(void *arg, unsigned seconds); /* 0: thaw */
	int (*open)(void *arg);                      /* plain files may lie in the store from now on */
	/* "convert"; on a thread of its own: begin, one call for each request (takes nothing over), end */
	int (*talk_begin)(void *arg, void **ret);
	json_t *(*talk)(void *talk, const json_t *request);
	void (*talk_end)(void *talk);
};
/** control_error() - the answer that says so, with fail_text() if there is one */
json_t *control_error(int err);
/** control_start() - listen in @tdfs_fd (a stale socket is replaced); own thread; 0 or -errno */
int control_start(int tdfs_fd, const struct control_calls *calls, struct control **ret) MUST_CHECK;
/** control_stop() - Return: the connection of who asked for unmounting, for control_leave(), or -1 */
int control_stop(struct control *c, int tdfs_fd) MUST_CHECK;
/** control_leave() - tell who asked for unmounting how it ended (with fail_text() if there is one); closes @fd; -1: nobody */
void control_leave(int fd, int err);

/* Client side: tdfs status, sync, umount. */
/** control_call() - one request; @tdfs_dir: path of STORE/.tdfs; @ret: the answer, json_decref() it
 * Return: 0; -ECONNREFUSED or -ENOENT nobody has this store mounted; -EAGAIN its process is stopped; the daemon's own -errno; -ETIMEDOUT after @timeout_ms */
int control_call(const char *tdfs_dir, const char *op, int timeout_ms, json_t **ret) MUST_CHECK;

/** control_unmount() - as control_call(); @ret_fd: for control_unmounted() */
int control_unmount(const char *tdfs_dir, int timeout_ms, int *ret_fd) MUST_CHECK;
/** control_unmounted() - how it ended, of a daemon that is gone; closes @fd
 * Return: 0; -EPIPE it ended without saying so; its own -errno.  fail() tells */
int control_unmounted(int fd) MUST_CHECK;

/** control_quiesce() - hold the mount still for at most @seconds (0: no more); as control_call() */
int control_quiesce(const char *tdfs_dir, unsigned seconds, int timeout_ms) MUST_CHECK;

/* A conversation. */
struct control_talk;
/** control_talk_open() - @tdfs_fd: of STORE/.tdfs.  As control_call() */
int control_talk_open(int tdfs_fd, int timeout_ms, struct control_talk **ret) MUST_CHECK;
/** control_talk() - one request (its "v" is added; the reference is taken over); as control_call(); after any other error than the daemon's
 * own it is over: -EPIPE.  @ret: NULL: not wanted */
int control_talk(struct control_talk *c, json_t *request, json_t **ret) MUST_CHECK;
void control_talk_close(struct control_talk *c);

#endif
