/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket STORE/.tdfs/control of a mounted daemon: 0600, peer checked by SO_PEERCRED (same uid or root), one JSON object per
 * line each way.
 *
 * Request {"v":1,"op":"status"|"sync"|"unmount"|"quiesce"|"thaw"}, answer {"v":1,"ok":true,...} or
 * {"v":1,"ok":false,"errno":n,"error":"text"}. status answers: pid, mountpoint, uptime, store, read_only, files {live, dirty}, dirty_bytes,
 * log {half_used, flushes}, counters {commits, seals, fsyncs, bad_segments}, inodes, nodes.
 */
#ifndef TDFS_CONTROL_H
#define TDFS_CONTROL_H

#include <jansson.h>

#include "store.h"

/* Server side: the mount. */
struct control;
struct control_calls { /* called on the control thread */
	void *arg;
	json_t *(*status)(void *arg);
	int (*sync)(void *arg);
	int (*unmount)(void *arg); /* start leaving; the answer is sent before the daemon goes */
};
/** control_start() - listen in @tdfs_fd (a stale socket is replaced); own thread; 0 or -errno */
int control_start(int tdfs_fd, const struct control_calls *calls, struct control **ret) MUST_CHECK;
void control_stop(struct control *c, int tdfs_fd);

/* Client side: tdfs status, sync, umount. */
/** control_call() - one request; @tdfs_dir: path of STORE/.tdfs; @ret: the answer, json_decref() it
 * Return: 0; -ECONNREFUSED or -ENOENT nobody has this store mounted; the daemon's own -errno; -ETIMEDOUT after @timeout_ms */
int control_call(const char *tdfs_dir, const char *op, int timeout_ms, json_t **ret) MUST_CHECK;

#endif
