/* SPDX-License-Identifier: Apache-2.0 */
/* The name space. */
#include <errno.h>
#include <sys/stat.h>

#include "ops_i.h"

void ops_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct mount *m = req_mount(req);
	struct node *dir = req_node(req, parent);
	struct entry e;
	int err;

	if (!dir)
		return;
	err = dir_lookup(&m->tree, dir, name, &e);
	if (err)
		reply_err(req, err, NULL, NULL);
	else
		reply_entry(req, &e);
	node_put(m->tree.nodes, dir);
}

static void make_node(fuse_req_t req, fuse_ino_t parent, const char *name, const struct make *make)
{
	struct mount *m = req_mount(req);
	struct node *dir = req_node(req, parent);
	struct entry e;
	int err;

	if (!dir)
		return;
	err = dir_make(&m->tree, dir, name, make, &e, NULL);
	if (err)
		reply_err(req, err, dir, "create");
	else
		reply_entry(req, &e);
	node_put(m->tree.nodes, dir);
}

void ops_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	make_node(req, parent, name, &(struct make){.mode = mode, .rdev = rdev, .who = req_who(req)});
}

void ops_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	make_node(req, parent, name, &(struct make){.mode = S_IFDIR | (mode & 07777), .who = req_who(req)});
}

void ops_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	make_node(req, parent, name, &(struct make){.mode = S_IFLNK | 0777, .target = target, .who = req_who(req)});
}

void ops_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct mount *m = req_mount(req);
	struct node *dir = req_node(req, parent);

	if (!dir)
		return;
	reply_err(req, dir_unlink(&m->tree, dir, name), dir, "unlink");
	node_put(m->tree.nodes, dir);
}

void ops_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct mount *m = req_mount(req);
	struct node *dir = req_node(req, parent);

	if (!dir)
		return;
	reply_err(req, dir_rmdir(&m->tree, dir, name), dir, "rmdir");
	node_put(m->tree.nodes, dir);
}

/* The inode number of a regular file, 0: there is none */
static ino_t file_at(struct mount *m, struct node *dir, const char *name)
{
	char stored[NAME_ROOM];
	struct stat st;
	ino_t ino = 0;
	int fd;

	if (name_store(name, true, stored) || node_dirfd(m->tree.nodes, dir, &fd))
		return 0;
	if (!fstatat(fd, stored, &st, AT_SYMLINK_NOFOLLOW) && S_ISREG(st.st_mode))
		ino = st.st_ino;
	node_dirfd_put(m->tree.nodes, dir);
	return ino;
}

/* A file that takes the place of another may still be open, and what was written to it only in the kernel's memory. */
static void fetch_before(struct mount *m, struct node *dir, const char *name, struct node *to_dir, const char *to_name, unsigned flags)
{
	ino_t from, to;
	bool writers;

	mutex_lock(&m->lock);
	writers = m->writeback && m->n_writers;
	mutex_unlock(&m->lock);
	from = writers ? file_at(m, dir, name) : 0;
	to = from ? file_at(m, to_dir, to_name) : 0;
	if (!to || to == from)
		return;
	mount_fetch(m, from);
	if (flags & RENAME_EXCHANGE)
		mount_fetch(m, to);
}

void ops_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent, const char *newname, unsigned flags)
{
	struct mount *m = req_mount(req);
	struct node *dir = req_node(req, parent), *to;

	if (!dir)
		return;
	to = req_node(req, newparent);
	if (to) {
		fetch_before(m, dir, name, to, newname, flags);
		reply_err(req, dir_rename(&m->tree, dir, name, to, newname, flags), dir, "rename");
	}
	node_put(m->tree.nodes, to);
	node_put(m->tree.nodes, dir);
}

void ops_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent, const char *newname)
{
	struct mount *m = req_mount(req);
	struct node *n = req_node(req, ino), *dir;
	struct entry e;
	int err;

	if (!n)
		return;
	dir = req_node(req, newparent);
	if (dir) {
		err = dir_link(&m->tree, n, dir, newname, &e);
		if (err)
			reply_err(req, err, n, "link");
		else
			reply_entry(req, &e);
	}
	node_put(m->tree.nodes, dir);
	node_put(m->tree.nodes, n);
}
