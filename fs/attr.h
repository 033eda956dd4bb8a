/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attributes and extended attributes: read from the store, or from the content object while a file is live, and changed in both.
 */
#ifndef TDFS_ATTR_H
#define TDFS_ATTR_H

#include "vtree.h"

/** attr_at() - the entry @stored in @dirfd as the user sees it: 0; -ENOENT, also for what lies on another file system; -errno.  A size that
 * cannot be told is 0. */
int attr_at(const struct tree *t, int dirfd, const char *stored, struct sight *ret) MUST_CHECK;
/** attr_live() - the content object of a node if it is live, with a reference, else NULL */
struct inode *attr_live(const struct tree *t, struct node *n);
/** attr_get() - stat of a node; @f: its content if the caller has it, else NULL.  0; -ESTALE another object, or other content behind our
 * back; -errno */
int attr_get(const struct tree *t, struct node *n, struct inode *f, struct stat *ret) MUST_CHECK;

/** attr_content() - the content object of a regular file, loaded by one of its names, with a reference
 * 0; -ESTALE another object lies there by now, or no name is left and nobody has it open; else as inode_get() */
int attr_content(const struct tree *t, struct node *n, bool write, struct inode **ret) MUST_CHECK;

struct attr_change {
	bool mode, uid, gid, size, times;
	struct stat st;        /* st_mode, st_uid, st_gid, st_size */
	struct timespec ts[2]; /* atime and mtime, UTIME_NOW and UTIME_OMIT as for utimensat(2) */
	const struct timespec *ctime; /* that the kernel shows from now on; NULL: it has none of its own */
};
/** attr_set() - change what is asked for, in the order owner, mode, size, times; stops at the first error
 * @f: the content if the caller has it (its handle may write), else NULL */
int attr_set(const struct tree *t, struct node *n, struct inode *f, const struct attr_change *c) MUST_CHECK;
/** attr_drop_priv() - content changed by somebody who is not root: clear setuid, and setgid of an executable or of a group that he is
 * not in; cheap when there is nothing to do
 * Return: 1 something was cleared, which the kernel does not know yet; 0; -errno */
int attr_drop_priv(const struct tree *t, struct node *n, struct inode *f, bool (*in_group)(void *arg, gid_t gid), void *arg) MUST_CHECK;

/* Extended attributes of the store file.  `user.tdfs` and `user.tdfs.*` are ours: readable, never listed, not to be set or removed
 * (-EPERM). xattr_get() and xattr_list() return the length, with @len 0 without copying, -ERANGE if @len is too small. */
ssize_t xattr_get(const struct tree *t, struct node *n, const char *name, void *buf, size_t len) MUST_CHECK;
ssize_t xattr_list(const struct tree *t, struct node *n, char *buf, size_t len) MUST_CHECK;
int xattr_set(const struct tree *t, struct node *n, const char *name, const void *val, size_t len, int flags) MUST_CHECK;
int xattr_remove(const struct tree *t, struct node *n, const char *name) MUST_CHECK;

#endif
