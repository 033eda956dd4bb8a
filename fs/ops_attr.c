/* SPDX-License-Identifier: Apache-2.0 */
/* Attributes, extended attributes, statfs. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "ops_i.h"
#include "report.h"

void ops_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct statvfs v;

	if (fstatvfs(req_mount(req)->tree.nodes->root_fd, &v)) {
		fuse_reply_err(req, errno);
		return;
	}
	v.f_namemax = NAME_VISIBLE_MAX;
	fuse_reply_statfs(req, &v);
}

/* --- attributes --- */

static void reply_attr(fuse_req_t req, struct node *n, struct inode *f)
{
	struct mount *m = req_mount(req);
	struct stat st;
	int err = attr_get(&m->tree, n, f, &st);

	if (err)
		reply_err(req, err, n, "stat");
	else
		fuse_reply_attr(req, &st, m->timeout);
}

void ops_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct mount *m = req_mount(req);
	struct node *n = req_node(req, ino);

	if (!n)
		return;
	/* a handle here is of a regular file or, since there is no other way to tell, of a directory */
	reply_attr(req, n, fi && fi->fh && S_ISREG(n->fmt) ? handle_of(fi)->f : NULL);
	node_put(m->tree.nodes, n);
}

static struct timespec wanted_time(int to_set, int set, int now, struct timespec ts)
{
	if (to_set & now)
		ts.tv_nsec = UTIME_NOW;
	else if (!(to_set & set))
		ts.tv_nsec = UTIME_OMIT;
	return ts;
}

/* Asked only where the kernel does not check permissions itself: root may do anything, but not run what nobody may. */
void ops_access(fuse_req_t req, fuse_ino_t ino, int mask)
{
	struct mount *m = req_mount(req);
	struct node *n = req_node(req, ino);
	struct stat st;
	int err = 0;

	if (!n)
		return;
	if (mask & X_OK && S_ISREG(n->fmt)) {
		err = attr_get(&m->tree, n, NULL, &st);
		if (!err && !(st.st_mode & (S_IXUSR | S_IXGRP | S_IXOTH)))
			err = -EACCES;
	}
	reply_err(req, err, NULL, NULL);
	node_put(m->tree.nodes, n);
}

void ops_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int to_set, struct fuse_file_info *fi)
{
	struct mount *m = req_mount(req);
	struct node *n = req_node(req, ino);
	struct inode *f = NULL;
	struct attr_change c = {
	    .mode = to_set & FUSE_SET_ATTR_MODE,
	    .uid = to_set & FUSE_SET_ATTR_UID,
	    .gid = to_set & FUSE_SET_ATTR_GID,
	    .size = to_set & FUSE_SET_ATTR_SIZE,
	    .times = to_set & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_ATIME_NOW | FUSE_SET_ATTR_MTIME_NOW),
	    .st = *st,
	    .ctime = to_set & FUSE_SET_ATTR_CTIME ? &st->st_ctim : NULL, /* of a regular file, with its write-back cache */
	    .ts = {wanted_time(to_set, FUSE_SET_ATTR_ATIME, FUSE_SET_ATTR_ATIME_NOW, st->st_atim),
		   wanted_time(to_set, FUSE_SET_ATTR_MTIME, FUSE_SET_ATTR_MTIME_NOW, st->st_mtim)},
	};
	int err = 0;

	if (!n)
		return;
	if (fi && fi->fh && S_ISREG(n->fmt) && (!c.size || handle_of(fi)->write))
		f = handle_of(fi)->f;
	if (c.size)
		err = n->refused;
	if (!err && (c.size || c.uid || c.gid))
		err = drop_priv(req, n, f); /* 1 does not matter: the reply carries the mode */
	if (c.size)
		(void)!give_enter(m, n, false);
	if (err >= 0)
		err = attr_set(&m->tree, n, f, &c);
	if (c.size)
		give_leave(m, n);
	if (err)
		reply_err(req, err, n, "setattr");
	else
		reply_attr(req, n, f);
	node_put(m->tree.nodes, n);
}

void ops_readlink(fuse_req_t req, fuse_ino_t ino)
{
	struct mount *m = req_mount(req);
	struct node *n = req_node(req, ino);
	char target[PATH_MAX + 1];
	ssize_t len = -1;
	int fd;

	if (!n)
		return;
	fd = node_open(m->tree.nodes, n, O_PATH);
	if (fd >= 0) {
		len = readlinkat(fd, "", target, sizeof(target) - 1);
		if (len < 0)
			fd = (close(fd), -errno);
		else
			close(fd);
	}
	if (len >= 0) {
		target[len] = 0;
		fuse_reply_readlink(req, target);
	} else {
		fuse_reply_err(req, -fd);
	}
	node_put(m->tree.nodes, n);
}

/* --- extended attributes --- */

/* An ACL changes the mode, which the kernel knows only where it is the one that checks ACLs. */
static void mode_may_change(struct mount *m, fuse_ino_t ino, const char *name)
{
	if (!m->shared && !strncmp(name, "system.posix_acl", 16) && fuse_lowlevel_notify_inval_inode(m->se, ino, -1, 0))
		report(REPORT_DEBUG, "the kernel shows the old mode for another second");
}

/* As chmod(2) would, ext4 takes the setgid bit away from who is not in the group; the store's sees only us. */
static int drop_setgid(fuse_req_t req, struct node *n)
{
	struct mount *m = req_mount(req);
	struct attr_change c = {.mode = true};
	int err;

	if (!fuse_req_ctx(req)->uid)
		return 0;
	err = attr_get(&m->tree, n, NULL, &c.st);
	if (err || !(c.st.st_mode & S_ISGID) || req_in_group(req, c.st.st_gid))
		return err;
	c.st.st_mode &= ~(mode_t)S_ISGID;
	return attr_set(&m->tree, n, NULL, &c);
}

void ops_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *val, size_t len, int flags)
{
	struct mount *m = req_mount(req);
	struct node *n = req_node(req, ino);
	int err;

	if (!n)
		return;
	err = xattr_set(&m->tree, n, name, val, len, flags);
	if (!err && !strcmp(name, "system.posix_acl_access"))
		err = drop_setgid(req, n);
	reply_err(req, err, n, "setxattr");
	mode_may_change(m, ino, name);
	node_put(m->tree.nodes, n);
}

void ops_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	struct mount *m = req_mount(req);
	struct node *n = req_node(req, ino);

	if (!n)
		return;
	reply_err(req, xattr_remove(&m->tree, n, name), n, "removexattr");
	mode_may_change(m, ino, name);
	node_put(m->tree.nodes, n);
}

/* @name NULL: list */
static void read_xattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	struct mount *m = req_mount(req);
	struct node *n = req_node(req, ino);
	char *buf = NULL;
	ssize_t len;

	if (!n)
		return;
	if (size)
		buf = ops_buffer(size);
	if (size && !buf)
		len = -ENOMEM;
	else
		len = name ? xattr_get(&m->tree, n, name, buf, size) : xattr_list(&m->tree, n, buf, size);
	if (len < 0)
		reply_err(req, (int)len, NULL, NULL);
	else if (size)
		fuse_reply_buf(req, buf, (size_t)len);
	else
		fuse_reply_xattr(req, (size_t)len);
	node_put(m->tree.nodes, n);
}

void ops_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	read_xattr(req, ino, name, size);
}

void ops_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	read_xattr(req, ino, NULL, size);
}
