/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading directories.  Offsets are those of the store's directory (d_off), so they are as stable as the file system below makes them and
 * seekdir(3) works; memory is one buffer a handle.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "ops_i.h"
#include "plain.h"
#include "prefetch.h"

#define DENTS_LEN 32768

struct dir_handle {
	struct node *dir; /* referenced */
	int fd;
	struct mutex lock;
	/* guarded by lock */
	bool reading; /* plain_reading() */
	off_t pos;    /* offset of the entry at buf + at */
	size_t at, len;
	char buf[DENTS_LEN] __attribute__((aligned(16)));
};

static struct dir_handle *dir_handle_of(const struct fuse_file_info *fi)
{
	return (struct dir_handle *)(uintptr_t)fi->fh;
}

/* While the store is converted: between its first and its last entry no name in a directory changes its stored form. */
static void set_reading(const struct tree *t, struct dir_handle *d, bool on)
{
	if (d->reading == on || (on && !plain_on(t)))
		return;
	plain_reading(t, d->dir, on);
	d->reading = on;
}

static void dir_handle_free(struct mount *m, struct dir_handle *d)
{
	set_reading(&m->tree, d, false);
	close(d->fd);
	node_put(m->tree.nodes, d->dir);
	mutex_destroy(&d->lock);
	free(d);
}

static int open_dir(const struct mount *m, struct node *n)
{
	const struct store_options *opt = &m->tree.store->opt;
	int fd = opt->noatime || opt->read_only ? node_open(m->tree.nodes, n, O_RDONLY | O_DIRECTORY | O_NOATIME) : -EPERM;

	return fd == -EPERM ? node_open(m->tree.nodes, n, O_RDONLY | O_DIRECTORY) : fd; /* somebody else's */
}

void ops_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct mount *m = req_mount(req);
	struct node *n = req_node(req, ino);
	struct dir_handle *d;
	int fd;

	if (!n)
		return;
	fd = S_ISDIR(n->fmt) ? open_dir(m, n) : -ENOTDIR;
	d = fd < 0 ? NULL : malloc(sizeof(*d));
	if (!d) {
		if (fd >= 0)
			close(fd);
		reply_err(req, fd < 0 ? fd : -ENOMEM, n, "opendir");
		node_put(m->tree.nodes, n);
		return;
	}
	d->dir = n;
	d->fd = fd;
	d->pos = 0;
	d->at = d->len = 0;
	d->reading = false;
	mutex_init(&d->lock);
	fi->fh = (uintptr_t)d;
	if (fuse_reply_open(req, fi) == -ENOENT)
		dir_handle_free(m, d);
}

void ops_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	dir_handle_free(req_mount(req), dir_handle_of(fi));
	fuse_reply_err(req, 0);
}

void ops_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	fuse_reply_err(req, fsync(dir_handle_of(fi)->fd) ? errno : 0);
}

/* --- filling a reply --- */

struct fill {
	fuse_req_t req;
	struct mount *m;
	struct dir_handle *d;
	bool plus;
	char *buf;
	size_t size, used;
	uint64_t *ids; /* nodes whose lookup count was raised, in case the reply is refused */
	size_t n_ids;
};

static bool is_dots(const char *name)
{
	return name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2]));
}

/* Is the file form of this name there too?  Then that is the one shown. */
static bool file_shadows(const struct tree *t, int fd, const char *name)
{
	char stored[NAME_ROOM];
	struct stat st;

	if (plain_on(t))
		return plain_there(t, fd, name);
	return !name_store(name, true, stored) && !fstatat(fd, stored, &st, AT_SYMLINK_NOFOLLOW) && S_ISREG(st.st_mode);
}

/* The visible name of an entry, if it has one, and its S_IFMT bits */
static bool shown(const struct fill *f, const struct dirent64 *de, char name[static NAME_ROOM], mode_t *ret_fmt)
{
	const struct tree *t = &f->m->tree;
	mode_t fmt = DTTOIF(de->d_type);
	struct stat st;

	if (is_dots(de->d_name)) {
		snprintf(name, NAME_ROOM, "%s", de->d_name);
		*ret_fmt = S_IFDIR;
		return true;
	}
	if (f->d->dir == f->m->tree.nodes->root && name_reserved(de->d_name))
		return false;
	if (de->d_type == DT_UNKNOWN) {
		if (fstatat(f->d->fd, de->d_name, &st, AT_SYMLINK_NOFOLLOW))
			return false;
		fmt = st.st_mode & S_IFMT;
	}
	*ret_fmt = fmt;
	if (S_ISREG(fmt) && plain_on(t))
		return plain_listed(t, f->d->dir, f->d->fd, de->d_name, name);
	return !name_show(de->d_name, S_ISREG(fmt), name) && (S_ISREG(fmt) || !file_shadows(t, f->d->fd, name));
}

/* The entry with its attributes; one that cannot be told goes without, and the kernel will look it up. */
static struct fuse_entry_param look_up(struct fill *f, const struct dirent64 *de, mode_t fmt)
{
	struct fuse_entry_param p = {.attr = {.st_ino = de->d_ino, .st_mode = fmt}};
	struct sight s;
	struct entry e;

	if (is_dots(de->d_name) || attr_at(&f->m->tree, f->d->fd, de->d_name, &s) || (s.st.st_mode & S_IFMT) != fmt ||
	    node_enter(f->m->tree.nodes, f->d->dir, de->d_name, &s, &e.node))
		return p;
	e.st = s.st;
	if (S_ISREG(fmt) && e.st.st_mode & (S_ISUID | S_ISGID))
		e.node->priv = true;
	p = entry_param(f->m, &e);
	f->ids[f->n_ids++] = p.ino;
	node_put(f->m->tree.nodes, e.node); /* the lookup count holds it */
	return p;
}

/* false: no room for it */
static bool add_entry(struct fill *f, const struct dirent64 *de)
{
	char name[NAME_ROOM];
	mode_t fmt;
	size_t need;

	if (!shown(f, de, name, &fmt))
		return true;
	if (f->plus) {
		struct fuse_entry_param p;

		need = fuse_add_direntry_plus(f->req, NULL, 0, name, NULL, 0);
		if (need > f->size - f->used)
			return false;
		p = look_up(f, de, fmt);
		fuse_add_direntry_plus(f->req, f->buf + f->used, need, name, &p, de->d_off);
	} else {
		struct stat st = {.st_ino = de->d_ino, .st_mode = fmt};

		need = fuse_add_direntry(f->req, NULL, 0, name, NULL, 0);
		if (need > f->size - f->used)
			return false;
		fuse_add_direntry(f->req, f->buf + f->used, need, name, &st, de->d_off);
	}
	f->used += need;
	return true;
}

/* 0, also when something was filled in before an error: that comes back with the next call */
static int fill_reply(struct fill *f, off_t off)
{
	struct dir_handle *d = f->d;

	if (off != d->pos || !off) { /* the start is read afresh: rewinddir(3) */
		if (lseek(d->fd, off, SEEK_SET) < 0)
			return -errno;
		d->pos = off;
		d->at = d->len = 0;
		if (!off)
			prefetch_listed(f->m->tree.store, d->fd);
	}
	set_reading(&f->m->tree, d, true); /* also on the way, should the conversion have begun meanwhile */
	for (;;) {
		const struct dirent64 *de = (const struct dirent64 *)(d->buf + d->at);

		if (d->at == d->len) {
			ssize_t n = getdents64(d->fd, d->buf, sizeof(d->buf));

			if (n < 0)
				return f->used ? 0 : -errno;
			d->at = 0;
			d->len = (size_t)n;
			if (!n) {
				set_reading(&f->m->tree, d, false);
				return 0;
			}
			continue;
		}
		if (!add_entry(f, de))
			return f->used ? 0 : -EINVAL;
		d->at += de->d_reclen;
		d->pos = de->d_off;
	}
}

static void read_entries(fuse_req_t req, size_t size, off_t off, struct fuse_file_info *fi, bool plus)
{
	struct mount *m = req_mount(req);
	struct fill f = {.req = req, .m = m, .d = dir_handle_of(fi), .plus = plus, .buf = ops_buffer(size), .size = size};
	uint64_t *ids CLEANUP_FREE = NULL;
	int err;

	if (plus)
		f.ids = ids = calloc(size / 128 + 1, sizeof(*ids)); /* an entry with attributes takes more than 128 bytes */
	if (!f.buf || (plus && !ids)) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	mutex_lock(&f.d->lock);
	err = fill_reply(&f, off);
	mutex_unlock(&f.d->lock);
	if (err)
		fuse_reply_err(req, -err);
	if (err || fuse_reply_buf(req, f.buf, f.used) == -ENOENT)
		for (size_t i = 0; i < f.n_ids; i++)
			node_forget(m->tree.nodes, ids[i], 1);
}

void ops_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	read_entries(req, size, off, fi, false);
}

void ops_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	read_entries(req, size, off, fi, true);
}
