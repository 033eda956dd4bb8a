/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by ops.c, ops_dir.c and ops_file.c only. */
#ifndef TDFS_OPS_I_H
#define TDFS_OPS_I_H

#define FUSE_USE_VERSION 314
#include <fuse_lowlevel.h>

#include "attr.h"
#include "dir.h"
#include "ops.h"

static inline struct mount *req_mount(fuse_req_t req)
{
	return fuse_req_userdata(req);
}
struct who req_who(fuse_req_t req);
/** req_node() - with a reference; NULL: ESTALE was replied */
struct node *req_node(fuse_req_t req, fuse_ino_t ino);

/* One line in the log: the path of @n, @what failed, and why: fail_text(), or @err where that is empty */
void log_failure(struct mount *m, struct node *n, const char *what, int err);
/** reply_err() - @err: 0 or -errno, mapped to what an application sees; @n and @what: for the log, once, if it is a failure of the content;
 * NULL: nothing to log */
void reply_err(fuse_req_t req, int err, struct node *n, const char *what);
/** entry_param() - what the kernel gets to know of an entry */
struct fuse_entry_param entry_param(const struct mount *m, const struct entry *e);
/** reply_entry() - hands the entry over, or takes its lookup count back; drops the reference */
void reply_entry(fuse_req_t req, struct entry *e);
/** req_in_group() - is the caller in group @gid? */
bool req_in_group(void *req, gid_t gid);
/** drop_priv() - attr_drop_priv() if the caller is not root; priv_dropped(), with its result and after the reply, makes the kernel ask for
 * the mode again */
int drop_priv(fuse_req_t req, struct node *n, struct inode *f) MUST_CHECK;
void priv_dropped(struct mount *m, uint64_t id, int dropped);
/** ops_buffer() - a buffer of this thread, at least @len bytes, kept until the thread ends; NULL: no memory */
void *ops_buffer(size_t len);

/* handle.c */
/** handle_new() - opens @f, whose reference and that of @n it takes over; NULL: no memory, nothing was taken
 * @flags: of open(2) */
struct handle *handle_new(struct mount *m, struct node *n, struct inode *f, int flags);
/** handle_close() - at once, or a moment later by the closer thread */
void handle_close(struct mount *m, struct handle *h);

/** mount_fetch() - if somebody has @ino open for writing, what the kernel holds of writes to it is taken now.  Waits for other requests: no
 * lock may be held.  Where half of the threads wait for that already, or the mount is just being quiesced, nothing is done. */
void mount_fetch(struct mount *m, ino_t ino);

/* give.c */
/** give_enter() - before anything that opens @n or changes its size; waits while content is given.  true (only if @may_give): the caller is
 * the first and must call give_content().  give_leave() - it is closed, or over */
bool give_enter(struct mount *m, struct node *n, bool may_give);
void give_leave(struct mount *m, struct node *n);
void give_content(struct mount *m, struct node *n, struct inode *f, bool counts);

/* ops_attr.c */
void ops_access(fuse_req_t req, fuse_ino_t ino, int mask);
void ops_statfs(fuse_req_t req, fuse_ino_t ino);
void ops_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ops_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int to_set, struct fuse_file_info *fi);
void ops_readlink(fuse_req_t req, fuse_ino_t ino);
void ops_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *val, size_t len, int flags);
void ops_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name);
void ops_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void ops_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
/* ops_dir.c */
void ops_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void ops_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev);
void ops_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void ops_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name);
void ops_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void ops_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void ops_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent, const char *newname, unsigned flags);
void ops_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent, const char *newname);
/* ops_readdir.c */
void ops_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ops_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void ops_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void ops_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ops_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
/* ops_file.c */
void ops_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi);
void ops_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ops_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void ops_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off, struct fuse_file_info *fi);
void ops_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ops_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ops_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
void ops_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len, struct fuse_file_info *fi);

static inline struct handle *handle_of(const struct fuse_file_info *fi)
{
	return (struct handle *)(uintptr_t)fi->fh;
}

#endif
