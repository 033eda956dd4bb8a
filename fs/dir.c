/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>

#include "attr.h"
#include "dir.h"
#include "plain.h"
#include "report.h"

#define RACES_MAX 8

/* 1: there, 0: not there, -errno */
static int look(const struct tree *t, int fd, const char *stored, struct stat *ret)
{
	if (fstatat(fd, stored, ret, AT_SYMLINK_NOFOLLOW))
		return errno == ENOENT ? 0 : -errno;
	return ret->st_dev == t->nodes->dev || !S_ISREG(ret->st_mode);
}

/* For making a regular file: its own form is left to O_EXCL. */
static int probe_other(const struct tree *t, struct node *dir, int fd, const char *name, struct probe *ret)
{
	int err, there;

	memset(ret, 0, sizeof(*ret));
	if (dir == t->nodes->root && name_reserved(name))
		return -ENOENT;
	err = name_store(name, true, ret->file);
	if (!err)
		err = name_store(name, false, ret->other);
	if (err)
		return err;
	there = look(t, fd, ret->other, &ret->other_st);
	ret->has_other = there > 0 && !S_ISREG(ret->other_st.st_mode) && ret->other_st.st_dev == t->nodes->dev;
	ret->bad_other = there > 0 && !ret->has_other;
	return there < 0 ? there : 0;
}

int dir_probe(const struct tree *t, struct node *dir, int fd, const char *name, struct probe *ret)
{
	int there, err = probe_other(t, dir, fd, name, ret);

	if (err)
		return err;
	there = look(t, fd, ret->file, &ret->file_st);
	ret->has_file = there > 0 && S_ISREG(ret->file_st.st_mode);
	ret->bad_file = there > 0 && !ret->has_file;
	return there < 0 ? there : plain_on(t) ? plain_probe(t, dir, fd, name, ret) : 0;
}

/* The entry for something found or made under @stored; @fmt: S_IFREG, or anything else for what is not regular */
static int enter(const struct tree *t, struct node *dir, int fd, const char *stored, mode_t fmt, struct entry *ret)
{
	struct entry e;
	struct sight s;
	int err = attr_at(t, fd, stored, &s);

	if (!err && S_ISREG(s.st.st_mode) != (fmt == S_IFREG))
		err = -ENOENT; /* put there from outside under a name of the other kind */
	if (!err)
		err = node_enter(t->nodes, dir, stored, &s, &e.node);
	if (err)
		return err;
	e.st = s.st;
	if (S_ISREG(e.st.st_mode) && e.st.st_mode & (S_ISUID | S_ISGID))
		e.node->priv = true;
	*ret = e;
	return 0;
}

/* A sealed or a plain file */
static int enter_file(const struct tree *t, struct node *dir, int fd, const char *name, struct entry *ret)
{
	char stored[NAME_ROOM];
	int err = plain_on(t) ? -EAGAIN : name_store(name, true, stored);

	if (err != -EAGAIN)
		return err ? err : enter(t, dir, fd, stored, S_IFREG, ret);
	for (unsigned i = 0; i < RACES_MAX; i++) {
		err = plain_lookup(t, dir, fd, name, stored);
		if (err)
			return err;
		err = enter(t, dir, fd, stored, S_IFREG, ret);
		if (err != -ENOENT) /* else it was sealed just now */
			return err;
	}
	return err;
}

int dir_lookup(const struct tree *t, struct node *dir, const char *name, struct entry *ret)
{
	char stored[NAME_ROOM];
	int fd, err;

	if (dir == t->nodes->root && name_reserved(name))
		return -ENOENT;
	err = node_dirfd(t->nodes, dir, &fd);
	if (err)
		return err;
	err = enter_file(t, dir, fd, name, ret);
	if (err == -ENOENT) { /* the form of everything but a regular file */
		err = name_store(name, false, stored);
		if (!err)
			err = enter(t, dir, fd, stored, 0, ret);
	}
	node_dirfd_put(t->nodes, dir);
	return err;
}

/* Make it in the store; the caller's identity has been taken */
static int make_entry(const struct tree *t, struct node *dir, int fd, const struct probe *p, const struct make *m, struct inode **ret_f)
{
	char path[PATH_MAX];

	switch (m->mode & S_IFMT) {
	case S_IFREG:
		node_path(t->nodes, dir, p->file, path, sizeof(path));
		return inode_create(t->store, fd, p->file, m->mode & 07777, path, ret_f);
	case S_IFDIR:
		return mkdirat(fd, p->other, m->mode & 07777) ? -errno : 0;
	case S_IFLNK:
		return symlinkat(m->target, fd, p->other) ? -errno : 0;
	default:
		return mknodat(fd, p->other, m->mode, m->rdev) ? -errno : 0;
	}
}

int dir_taken(const char *stored)
{
	return fail(-EBUSY, "its name in the store, %s, is that of a plain file that is still to be converted", stored);
}

static int make_locked(const struct tree *t, struct node *dir, int fd, const char *name, const struct make *m, struct entry *ret,
		       struct inode **ret_f)
{
	struct who_saved saved;
	struct probe p;
	struct inode *f = NULL;
	int err;

	if (dir == t->nodes->root && name_reserved(name))
		return -EPERM;
	err = S_ISREG(m->mode) && !plain_on(t) ? probe_other(t, dir, fd, name, &p) : dir_probe(t, dir, fd, name, &p);
	if (err)
		return err;
	if (p.has_file || p.has_other || (!S_ISREG(m->mode) && p.bad_other))
		return -EEXIST;
	if (S_ISREG(m->mode) && p.taken)
		return dir_taken(p.file);
	if (t->store->opt.read_only)
		return -EROFS;
	err = who_enter(&t->who, &m->who, &saved);
	if (err)
		return err;
	err = make_entry(t, dir, fd, &p, m, &f);
	who_leave(&saved);
	if (err)
		return err;
	err = enter(t, dir, fd, S_ISREG(m->mode) ? p.file : p.other, m->mode & S_IFMT, ret);
	if (!err && f) {
		node_change(t->nodes, ret->node);
		node_changed(t->nodes, ret->node);
	}
	if (!err && f && ret_f) {
		*ret_f = f;
	} else if (f) {
		int sealed = err ? 0 : inode_flush(f);

		if (sealed)
			report(REPORT_DEBUG, "%s: made, but not sealed yet", p.file);
		inode_put(f);
	}
	return err;
}

int dir_make(const struct tree *t, struct node *dir, const char *name, const struct make *m, struct entry *ret, struct inode **ret_f)
{
	int fd, err = node_dirfd(t->nodes, dir, &fd);

	if (err)
		return err;
	mutex_lock(&dir->dir->names);
	err = make_locked(t, dir, fd, name, m, ret, ret_f);
	mutex_unlock(&dir->dir->names);
	node_dirfd_put(t->nodes, dir);
	return err;
}

void dir_keep(const struct tree *t, const struct stat *st)
{
	struct node *n = node_find(t->nodes, st->st_ino);

	if (!n)
		return;
	node_keep(t->nodes, n, S_ISDIR(st->st_mode) || st->st_nlink <= 1);
	node_put(t->nodes, n);
}

void dir_gone(const struct tree *t, struct node *dir, const char *stored, const struct stat *st)
{
	bool last = S_ISDIR(st->st_mode) || st->st_nlink <= 1;
	struct inode *f = S_ISREG(st->st_mode) ? inode_find(t->store, st->st_dev, st->st_ino) : NULL;

	if (f && last) {
		struct node *n = node_find(t->nodes, st->st_ino);

		node_removed(t->nodes, n, f);
		node_put(t->nodes, n);
	} else if (f) {
		inode_changed(f, NULL);
		inode_put(f);
	}
	node_unlink(t->nodes, st->st_ino, dir, stored, last);
}

/* For unlink: where the file's form is there it is what is meant, and the other need not be looked at. */
static int probe_file(const struct tree *t, struct node *dir, int fd, const char *name, struct probe *ret)
{
	int err;

	if (plain_on(t) || (dir == t->nodes->root && name_reserved(name)))
		return dir_probe(t, dir, fd, name, ret);
	memset(ret, 0, sizeof(*ret));
	err = name_store(name, true, ret->file);
	if (err)
		return err;
	err = look(t, fd, ret->file, &ret->file_st);
	ret->has_file = err > 0 && S_ISREG(ret->file_st.st_mode);
	return err < 0 ? err : ret->has_file ? 0 : dir_probe(t, dir, fd, name, ret);
}

static int unlink_locked(const struct tree *t, struct node *dir, int fd, const char *name)
{
	const struct stat *st;
	const char *stored;
	struct probe p;
	int err = probe_file(t, dir, fd, name, &p);

	if (err)
		return err;
	if (!p.has_file && !p.has_other)
		return -ENOENT;
	stored = probe_stored(&p);
	st = p.has_file ? &p.file_st : &p.other_st;
	if (S_ISDIR(st->st_mode))
		return -EISDIR;
	dir_keep(t, st);
	if (unlinkat(fd, stored, 0))
		return -errno;
	dir_gone(t, dir, stored, st);
	return 0;
}

static int rmdir_locked(const struct tree *t, struct node *dir, int fd, const char *name)
{
	struct probe p;
	int err = dir_probe(t, dir, fd, name, &p);

	if (err)
		return err;
	if (!p.has_file && !p.has_other)
		return -ENOENT;
	if (p.has_file || !S_ISDIR(p.other_st.st_mode))
		return -ENOTDIR;
	dir_keep(t, &p.other_st);
	if (unlinkat(fd, p.other, AT_REMOVEDIR))
		return -errno;
	dir_gone(t, dir, p.other, &p.other_st);
	return 0;
}

/* What unlink and rmdir have in common */
static int remove_name(const struct tree *t, struct node *dir, const char *name,
		       int (*locked)(const struct tree *, struct node *, int, const char *))
{
	int fd, err = node_dirfd(t->nodes, dir, &fd);

	if (err)
		return err;
	mutex_lock(&dir->dir->names);
	err = t->store->opt.read_only ? -EROFS : locked(t, dir, fd, name);
	mutex_unlock(&dir->dir->names);
	node_dirfd_put(t->nodes, dir);
	return err;
}

int dir_unlink(const struct tree *t, struct node *dir, const char *name)
{
	return remove_name(t, dir, name, unlink_locked);
}

int dir_rmdir(const struct tree *t, struct node *dir, const char *name)
{
	return remove_name(t, dir, name, rmdir_locked);
}

/* @from: O_PATH descriptor of @n */
static int link_locked(const struct tree *t, struct node *n, int from, struct node *dir, int fd, const char *name, struct entry *ret)
{
	const char *stored;
	char path[40];
	struct probe p;
	struct inode *f;
	int err;

	if (dir == t->nodes->root && name_reserved(name))
		return -EPERM;
	err = dir_probe(t, dir, fd, name, &p);
	if (err)
		return err;
	stored = n->plain ? name : S_ISREG(n->fmt) ? p.file : p.other;
	if (p.has_file || p.has_other)
		return -EEXIST;
	if (S_ISREG(n->fmt) && !n->plain && p.taken)
		return dir_taken(stored);
	if (S_ISREG(n->fmt) ? p.bad_file && !n->plain : p.bad_other)
		return -EEXIST;
	if (t->store->opt.read_only)
		return -EROFS;
	/* by descriptor: its name may come to mean another file at any moment */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", from);
	plain_move(t, n->plain);
	err = linkat(AT_FDCWD, path, fd, stored, AT_SYMLINK_FOLLOW) ? -errno : 0;
	plain_moved(t, n->plain);
	if (err)
		return n->plain && err == -EEXIST ? dir_taken(stored) : err;
	f = S_ISREG(n->fmt) ? inode_find(t->store, t->nodes->dev, n->ino) : NULL;
	if (f)
		inode_changed(f, NULL);
	content_put(f);
	return enter(t, dir, fd, stored, n->fmt, ret);
}

/* The caller holds @n in use */
static int link_used(const struct tree *t, struct node *n, struct node *dir, const char *name, struct entry *ret)
{
	int from CLEANUP_FD = -1, fd, err;

	from = node_open(t->nodes, n, O_PATH);
	if (from < 0)
		return from == -ESTALE ? -ENOENT : from;
	err = node_dirfd(t->nodes, dir, &fd);
	if (err)
		return err;
	mutex_lock(&dir->dir->names);
	err = link_locked(t, n, from, dir, fd, name, ret);
	mutex_unlock(&dir->dir->names);
	node_dirfd_put(t->nodes, dir);
	return err;
}

int dir_link(const struct tree *t, struct node *n, struct node *dir, const char *name, struct entry *ret)
{
	ino_t used;
	int err = S_ISDIR(n->fmt) ? -EPERM : plain_begin(t, n, &used);

	if (err)
		return err;
	err = link_used(t, n, dir, name, ret);
	plain_unuse(t, used);
	return err;
}
