/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process around the mount: fork and report to the parent, limits and protections, where messages go, opening volume and store.  No
 * FUSE here.
 */
#ifndef TDFS_START_H
#define TDFS_START_H

#include "mount.h"
#include "store.h"

/** start_fork() - 0 in the child, *ret_fd: tell it start_report(); 1 in the parent, *ret_code: what the child reported; -errno */
int start_fork(int *ret_fd, int *ret_code) MUST_CHECK;
/** start_report() - tell the parent, which then ends, and leave its terminal if @code is 0; @fd < 0: running in the foreground, nothing to
 * do */
void start_report(int fd, enum exit_code code);
/** start_harden() - no core dump, no ptrace by others, all the descriptors the system allows, umask 0, messages to syslog once
 * start_report() left the terminal */
void start_harden(const struct config *c);

struct opened {
	struct volume *volume;
	struct store *store;
	bool read_only;
	bool converting; /* volume_state.h */
};
/** start_open() - volume, lock and store (recovered); everything that fails is reported.  An exit code. */
enum exit_code start_open(const struct config *c, int (*get)(void *arg, struct credential *ret), void *arg, struct opened *ret) MUST_CHECK;
/** start_close() - seal everything, tell @leaver (control_leave()), and let go; an exit code */
enum exit_code start_close(struct opened *o, int leaver);

#endif
