/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The name space: look up, make, remove, rename, link.  Names are visible names; the answers are those of ext4, although a file and a
 * directory of one name are two entries in the store: under the name lock of the directory both forms are looked at before anything is
 * changed.
 *
 * Errors are -errno as the application shall see them, except EBADMSG, EPROTO, ENODATA, ENOTSUP and the like from the content (fs/ops.c
 * maps those).
 */
#ifndef TDFS_DIR_H
#define TDFS_DIR_H

#include <sys/sysmacros.h>

#include "vtree.h"

/* Both stored forms of one visible name. */
struct probe {
	char file[NAME_ROOM], other[NAME_ROOM]; /* stored names */
	struct stat file_st, other_st;
	bool has_file, has_other; /* the form is there and is shown (the file, if both are) */
	bool bad_file, bad_other; /* something else lies under that stored name, put there from outside */
	/* while the store is converted: */
	char plain[NAME_ROOM];
	bool is_plain; /* has_file, and it lies there as plain[] */
	bool taken;    /* bad_file, because a plain file of another visible name has that stored name until it is sealed */
};
/* The stored name of what is there */
static inline const char *probe_stored(const struct probe *p)
{
	return !p->has_file ? p->other : p->is_plain ? p->plain : p->file;
}
/** dir_probe() - look at both; 0, -ENAMETOOLONG, -ENOENT in the root for `.tdfs`, -errno */
int dir_probe(const struct tree *t, struct node *dir, int fd, const char *name, struct probe *ret) MUST_CHECK;

/** dir_lookup() - 0, -ENOENT, -errno */
int dir_lookup(const struct tree *t, struct node *dir, const char *name, struct entry *ret) MUST_CHECK;

struct make {        /* what to make */
	mode_t mode; /* with the S_IFMT bits: any kind */
	dev_t rdev;
	const char *target; /* symlink */
	struct who who;
};
/** dir_make() - mknod, mkdir, symlink, create
 * @ret_f: for a regular file its content with one reference; NULL: a regular file is made empty and left alone
 * 0; -EEXIST; -EPERM `.tdfs` in the root; -ENAMETOOLONG; -EACCES; -errno */
int dir_make(const struct tree *t, struct node *dir, const char *name, const struct make *m, struct entry *ret,
	     struct inode **ret_f) MUST_CHECK;

/** dir_unlink() / dir_rmdir() - 0, -ENOENT, -EISDIR, -ENOTDIR, -ENOTEMPTY, -errno */
int dir_unlink(const struct tree *t, struct node *dir, const char *name) MUST_CHECK;
int dir_rmdir(const struct tree *t, struct node *dir, const char *name) MUST_CHECK;

/** dir_link() - one more name for @n; 0, -EEXIST, -EPERM, -errno */
int dir_link(const struct tree *t, struct node *n, struct node *dir, const char *name, struct entry *ret) MUST_CHECK;

/** dir_rename() - @flags: 0, RENAME_NOREPLACE, RENAME_EXCHANGE (unlike kinds: -EINVAL)
 * Before a file takes the place of another its content is made durable enough.  fs/dir_rename.c */
int dir_rename(const struct tree *t, struct node *dir, const char *name, struct node *to_dir, const char *to, unsigned flags) MUST_CHECK;

/* between dir.c and dir_rename.c */
/** dir_gone() - @stored, whose stat was @st, is no name any more: tells the content and the nodes */
void dir_gone(const struct tree *t, struct node *dir, const char *stored, const struct stat *st);
/** dir_taken() - -EBUSY: a plain file has the stored name that is needed */
int dir_taken(const char *stored);
/** dir_keep() - before its last name goes: see node_keep() */
void dir_keep(const struct tree *t, const struct stat *st);

#endif
