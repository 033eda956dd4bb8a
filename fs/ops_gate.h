/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between the kernel and the operations: was there any use of the mount, and holding back what would change it (`tdfs quiesce`).
 *
 * While the gate is closed a request that changes something is kept as it was read, and the thread goes on with the next one, so reading
 * goes on.  Its caller waits, as below a frozen file system.  A closed gate opens by itself at its time limit.
 */
#ifndef TDFS_OPS_GATE_H
#define TDFS_OPS_GATE_H

#include <sys/types.h>

#include "defs.h"
#include "lock.h"

struct held; /* a request that waits */

struct gate {
	_Atomic bool closed, active;
	_Atomic unsigned n_held;
	_Atomic unsigned inside; /* requests that change something, being served */
	int event;               /* eventfd, readable while open */

	struct mutex lock;
	/* guarded by lock */
	struct held *first, *last;
	size_t held_bytes;
	uint64_t until; /* ms, monotonic */
	bool over;      /* never to be closed again */

	/* around what the daemon does to its own mount from outside: held requests may be in its way */
	struct mutex helper;
	_Atomic bool closing;
	_Atomic unsigned fetching; /* gate_fetch_begin() */
};

int gate_init(struct gate *g) MUST_CHECK;
void gate_destroy(struct gate *g);

/** gate_read() - the session's read(2): the next request that may be served now */
ssize_t gate_read(struct gate *g, int fd, void *buf, size_t len);
/** gate_changes() - may this request of the kernel's change the store? */
bool gate_changes(const void *request, ssize_t n);
/** gate_was_active() - has there been a request since the last call?  Looking at the root or the free space is none */
bool gate_was_active(struct gate *g);

/** gate_close() - for at most @seconds; returns when nothing that changes anything is being served
 * Return: 0; -EALREADY it is closed; -ESHUTDOWN after gate_finish(); -EAGAIN something took longer than @patience_ms, it is open again.
 * fail() tells */
int gate_close(struct gate *g, unsigned seconds, unsigned patience_ms) MUST_CHECK;
/** gate_open() - was it closed? */
bool gate_open(struct gate *g);
/** gate_finish() - the mount ends: open, and never closed again */
void gate_finish(struct gate *g);
/** gate_left() - seconds until it opens by itself, 0: it is open */
unsigned gate_left(struct gate *g);

/** gate_helper_begin() - false: the gate is closed, keep away; else gate_helper_end() */
bool gate_helper_begin(struct gate *g) MUST_CHECK;
void gate_helper_end(struct gate *g);
/** gate_fetch_begin() - a request that is being served waits for others that change something: the gate is not closed before
 * gate_fetch_end().  false: it is closed, or just being closed; do not wait */
bool gate_fetch_begin(struct gate *g) MUST_CHECK;
void gate_fetch_end(struct gate *g);

#endif
