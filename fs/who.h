/* SPDX-License-Identifier: Apache-2.0 */
/*
 * In whose name something is made in the store.  Mounted by root: the calling thread takes the caller's fsuid, fsgid and umask for the
 * moment, so that owner, quota, setgid directories and default ACLs come out as the store's file system does them; search permission was
 * checked by the kernel on the mount and is not asked again. Mounted by a user: only that user makes things.
 */
#ifndef TDFS_WHO_H
#define TDFS_WHO_H

#include <sys/types.h>

#include "defs.h"

struct who_rules {          /* set at the start, then fixed */
	bool root;          /* we are root: take the caller's identity */
	_Atomic bool umask; /* the kernel leaves the caller's umask to us (default ACLs) */
	uid_t owner;        /* else the only one who may create */
};

struct who { /* the caller of one request */
	uid_t uid;
	gid_t gid;
	mode_t umask;
};

struct who_saved {
	bool ids;
};

/** who_enter() - become @w for this thread; 0, -EACCES somebody else under a user's mount, -EPERM the kernel did not let us.  On 0
 * who_leave() must follow. */
int who_enter(const struct who_rules *r, const struct who *w, struct who_saved *ret) MUST_CHECK;
/** who_leave() - be ourselves again; aborts if that fails, because a thread in another's name must not go on */
void who_leave(const struct who_saved *s);

#endif
