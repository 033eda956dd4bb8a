/* SPDX-License-Identifier: Apache-2.0 */
/* Open files. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "ops_i.h"
#include "report.h"

static void fill_info(struct fuse_file_info *fi, struct handle *h)
{
	fi->fh = (uintptr_t)h;
	fi->keep_cache = 1; /* another content would be another node, see node.h */
}

void ops_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	struct mount *m = req_mount(req);
	struct node *dir = req_node(req, parent);
	struct make make = {.mode = S_IFREG | (mode & 07777), .who = req_who(req)};
	struct fuse_entry_param p;
	struct inode *f;
	struct handle *h;
	struct entry e;
	int err;

	if (!dir)
		return;
	err = dir_make(&m->tree, dir, name, &make, &e, &f);
	if (err == -EEXIST && !(fi->flags & O_EXCL))
		err = -ESTALE; /* made by somebody else since the kernel looked: it looks again and opens */
	if (err) {
		reply_err(req, err, dir, "create");
		node_put(m->tree.nodes, dir);
		return;
	}
	node_put(m->tree.nodes, dir);
	e.node->cached = true;
	h = handle_new(m, e.node, f, fi->flags);
	if (!h) {
		node_forget(m->tree.nodes, e.node->id, 1);
		node_put(m->tree.nodes, e.node);
		inode_put(f);
		fuse_reply_err(req, ENOMEM);
		return;
	}
	fill_info(fi, h);
	p = entry_param(m, &e);
	if (fuse_reply_create(req, &p, fi) == -ENOENT) { /* interrupted: neither release nor forget will come */
		node_forget(m->tree.nodes, p.ino, 1);
		handle_close(m, h);
	}
}

/* What the kernel was told was the hint of another file that was put on this one, or the guess of a foreign one's size; by now it is known.
 * -ESTALE: the kernel looks once more */
static int size_wrong(struct mount *m, struct node *n, struct inode *f)
{
	bool ro = m->tree.store->opt.read_only;
	int fd = inode_fd(f);

	if (ro ? fgetxattr(fd, HINT_XATTR, NULL, 0) >= 0 : !fremovexattr(fd, HINT_XATTR)) {
		(void)fail(-ESTALE, "the size hint (xattr " HINT_XATTR ") was not made for this file%s",
			   ro ? "; it cannot be opened until that is removed" : ", removed");
		log_failure(m, n, "open", -ESTALE);
	}
	return -ESTALE;
}

/* The content of @n for open(2): -ESTALE makes the kernel look the name up again, and find the new content under a new node */
static int open_content(struct mount *m, struct node *n, int flags, struct inode **ret)
{
	bool write = (flags & O_ACCMODE) != O_RDONLY || flags & O_TRUNC;
	struct inode *live = inode_find(m->tree.store, m->tree.nodes->dev, n->ino), *f;
	struct stat st = {0};
	int err = n->refused ? -ESTALE : 0;

	if (!err && !live)
		err = attr_get(&m->tree, n, NULL, &st);
	if (!err)
		err = attr_content(&m->tree, n, write, &f);
	content_put(live);
	if (err)
		return err == -ENODATA ? -EIO : err;
	if (m->tree.foreign_deny && !strcmp(inode_origin(f), "foreign")) {
		inode_put(f);
		return -EACCES;
	}
	inode_stat(f, &st);
	if (!node_size_fits(m->tree.nodes, n, st.st_size)) {
		err = size_wrong(m, n, f);
		inode_put(f);
		return err;
	}
	*ret = f;
	return 0;
}

/* O_TRUNC comes with open here, so the kernel has not taken the privileges away */
static int open_truncate(fuse_req_t req, struct node *n, struct inode *f, int *ret_dropped)
{
	int err = drop_priv(req, n, f);

	if (err < 0)
		return err;
	*ret_dropped = err;
	if (req_mount(req)->tree.who.root && fremovexattr(inode_fd(f), "security.capability") && errno != ENODATA && errno != ENOTSUP)
		report(REPORT_DEBUG, "security.capability: %s", strerror(errno));
	return inode_truncate(f, 0);
}

/* 0 or more: whether privileges were dropped */
static int open_node(fuse_req_t req, struct node *n, struct fuse_file_info *fi, struct handle **ret)
{
	struct mount *m = req_mount(req);
	struct inode *f;
	int err, dropped = 0;

	if (!S_ISREG(n->fmt))
		return -EINVAL;
	if (m->tree.store->opt.read_only && (fi->flags & O_ACCMODE) != O_RDONLY)
		return -EROFS;
	err = open_content(m, n, fi->flags, &f);
	if (err)
		return err;
	if ((fi->flags & O_ACCMODE) != O_RDONLY || fi->flags & O_TRUNC) {
		node_change(m->tree.nodes, n);
		node_changed(m->tree.nodes, n);
	}
	if (fi->flags & O_TRUNC)
		err = open_truncate(req, n, f, &dropped);
	if (!err) {
		*ret = handle_new(m, n, f, fi->flags);
		err = *ret ? 0 : -ENOMEM;
	}
	if (err)
		inode_put(f);
	return err ? err : dropped;
}

void ops_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct mount *m = req_mount(req);
	struct node *n = req_node(req, ino);
	struct handle *h = NULL;
	int err;

	if (!n)
		return;
	err = open_node(req, n, fi, &h);
	if (err < 0) {
		reply_err(req, err, n, "open");
		node_put(m->tree.nodes, n);
		return;
	}
	fill_info(fi, h);
	if (fuse_reply_open(req, fi) == -ENOENT)
		handle_close(m, h);
	priv_dropped(m, ino, err);
}

void ops_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct handle *h = handle_of(fi);
	char *buf = ops_buffer(size);
	ssize_t n;

	fail_clear();
	h->node->cached = false; /* the kernel lacks some of it */
	if (h->reads)
		inode_was_read(h->f);
	n = buf ? inode_read(h->f, buf, size, (uint64_t)off) : -ENOMEM;
	if (n < 0)
		reply_err(req, (int)n, n == -EBADMSG ? NULL : h->node, "read"); /* a bad segment has been reported */
	else
		fuse_reply_buf(req, buf, (size_t)n);
}

/* A page that the kernel writes back, and has told its writer is written */
static int write_back(struct mount *m, struct handle *h, const char *buf, size_t size, uint64_t off)
{
	bool taken;
	int err = inode_write_back(h->f, buf, size, off, &taken);

	if (err && !taken && node_refuse(m->tree.nodes, h->node, err))
		log_failure(m, h->node, "what was written is lost, programs that have it open are told so until they open it again", err);
	/* the kernel keeps only ENOSPC for close(2), and makes EIO, a broken disk, of everything else */
	return err == -EDQUOT ? -ENOSPC : err;
}

void ops_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct mount *m = req_mount(req);
	struct handle *h = handle_of(fi);
	int err, dropped;

	fail_clear();
	err = dropped = fi->writepage ? 0 : drop_priv(req, h->node, h->f);
	if (h->node->refused)
		err = h->node->refused;
	else if (err >= 0 && fi->writepage)
		err = write_back(m, h, buf, size, (uint64_t)off);
	else if (err >= 0)
		err = h->append ? inode_append(h->f, buf, size) : inode_write(h->f, buf, size, (uint64_t)off);
	if (err)
		reply_err(req, err, h->node, "write");
	else
		fuse_reply_write(req, size);
	priv_dropped(m, ino, dropped);
}

/* Only where blocks cannot be reserved at the write: there close(2) is the last who can be told that the disk is full. */
void ops_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct handle *h = handle_of(fi);

	fail_clear();
	if (!req_mount(req)->flush)
		fuse_reply_err(req, ENOSYS); /* and is not asked again */
	else
		reply_err(req, h->node->refused ? h->node->refused : h->write ? inode_flush(h->f) : 0, h->node, "close");
}

void ops_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	handle_close(req_mount(req), handle_of(fi));
	fuse_reply_err(req, 0);
}

void ops_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct handle *h = handle_of(fi);

	fail_clear();
	reply_err(req, h->node->refused ? h->node->refused : inode_fsync(h->f, datasync), h->node, "fsync");
}

void ops_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len, struct fuse_file_info *fi)
{
	struct mount *m = req_mount(req);
	struct handle *h = handle_of(fi);
	int err, dropped;

	fail_clear();
	err = dropped = h->node->refused ? h->node->refused : drop_priv(req, h->node, h->f);
	if (err >= 0)
		err = inode_allocate(h->f, mode, (uint64_t)off, (uint64_t)len);
	reply_err(req, err, h->node, "fallocate");
	priv_dropped(m, ino, dropped);
}
