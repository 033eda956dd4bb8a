/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The FUSE operations: each decodes, calls one function of dir.c, attr.c or inode.h, and replies.  No lock is held over a reply; what a
 * reply could not hand over (-ENOENT: the caller was interrupted) is undone.
 */
#ifndef TDFS_OPS_H
#define TDFS_OPS_H

#include "config.h"
#include "ops_gate.h"
#include "vtree.h"

struct fuse_session;
struct fuse_lowlevel_ops;

struct handle {                     /* an open regular file */
	struct handle *next, *prev; /* guarded by mount->lock */
	struct node *node;          /* referenced */
	struct inode *f;            /* referenced */
	bool write, append;
	bool reads; /* reading through it counts for the atime */
};

struct mount {
	/* set before the session starts, then fixed */
	struct tree tree;
	const struct config *cfg;
	struct fuse_session *se;
	dev_t dev;              /* of the mounted file system itself */
	bool flush;             /* the store cannot reserve blocks: close(2) has to be asked */
	double timeout;         /* of attributes and entries, seconds */
	_Atomic bool writeback; /* the kernel caches writes */
	bool shared; /* others than its owner may come in: the kernel checks permissions, and for each asks for fresh attributes */
	bool acl;    /* the store keeps POSIX ACLs: the umask is left to us */

	struct mutex lock;
	/* guarded by lock */
	struct handle *handles;
	size_t n_handles, n_writers;
	unsigned n_fetching; /* mount_fetch() */
	struct cond given; /* give.c */
	unsigned n_waiting;
	bool wrote;             /* a writable handle was there since mount_wrote() was asked last */
	struct handle *closing; /* released, for the closer thread */
	unsigned n_closing;
	bool closer_runs;
	struct cond closing_some;
	pthread_t closer;

	struct gate gate;
	time_t used; /* for idle_for() alone */

	/* the INIT exchange, see ops_custom_io() */
	_Atomic uint64_t init_unique;
	bool spin;             /* more than one processor: look_before_sleeping() */
	_Atomic bool spinning; /* a thread does */
	_Atomic bool init_done;
};

/** ops_table() - for fuse_session_new(); the user data is the struct mount */
const struct fuse_lowlevel_ops *ops_table(size_t *ret_size);
/** ops_custom_io() - give the session its read and write, which set FUSE_HANDLE_KILLPRIV_V2 in the INIT reply: libfuse 3.14 cannot, and
 * without it every write asks for security.capability */
int ops_custom_io(struct fuse_session *se);

/** mount_wrote() - is there, or was there since the last call, a writable handle: may the kernel hold dirty pages? */
bool mount_wrote(struct mount *m);
/** closer_start() / closer_stop() - the thread that closes what was released; the session's threads do it themselves without it.  When the
 * latter returns all is closed */
int closer_start(struct mount *m) MUST_CHECK;
void closer_stop(struct mount *m);
/** mount_key_lost() - store_keys.lost of a mount: @arg; what the kernel has of @f's content is dropped (give.c) */
void mount_key_lost(void *arg, struct inode *f);
/** mount_drop_handles() - after the session ended: close what the kernel never released */
void mount_drop_handles(struct mount *m);

#endif
