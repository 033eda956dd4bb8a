/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rename(2), where source and target may be of either stored form.  A target of the other form cannot be replaced by one rename in the
 * store: the new name is made first, so that the visible name exists at every moment, then the old form is removed.  A crash between the
 * two leaves both forms: the file is shown, `check` tells the other.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>

#include "dir.h"
#include "plain.h"
#include "report.h"

struct side { /* one end of a rename */
	struct node *dir;
	int fd;
	const char *name; /* visible */
	struct probe p;
};

static bool side_there(const struct side *s)
{
	return s->p.has_file || s->p.has_other;
}
/* What the user sees under this name; only if something is there */
static const struct stat *side_stat(const struct side *s)
{
	return s->p.has_file ? &s->p.file_st : &s->p.other_st;
}
/* The stored name that what lies at @from must have at @to */
static const char *side_name(const struct side *from, const struct side *to)
{
	return !from->p.has_file ? to->p.other : from->p.is_plain ? to->name : to->p.file;
}
static const char *side_now(const struct side *s)
{
	return probe_stored(&s->p);
}

/* The content that is to replace another file must not be younger in the store than the name */
static int before_rename(const struct tree *t, const struct side *from)
{
	const struct stat *st = side_stat(from);
	struct inode *f = inode_find(t->store, st->st_dev, st->st_ino);
	const struct io *io = &t->store->io;
	int err, fd;

	if (f) {
		err = inode_before_rename(f);
		inode_put(f);
		return err;
	}
	fd = io->open(io->ctx, from->fd, side_now(from), O_RDONLY | O_NONBLOCK, 0);
	if (fd < 0)
		return fd == -EACCES ? 0 : fd; /* mode 0 under a user's mount: sealed long enough ago that it is not live */
	err = io->sync(io->ctx, fd, false);
	io->close(io->ctx, fd);
	return err;
}

/* Nor may a name that nothing had show content from before the O_TRUNC that came before the rename. */
static int before_move(const struct tree *t, const struct stat *st)
{
	struct inode *f = inode_find(t->store, st->st_dev, st->st_ino);
	int err = f && inode_is_replaced(f) ? inode_before_rename(f) : 0;

	content_put(f);
	return err;
}

/* The source has a new name: tell its content and its node */
static void moved(const struct tree *t, const struct side *from, const struct side *to, const struct stat *st)
{
	bool regular = S_ISREG(st->st_mode);
	struct node *n = node_find(t->nodes, st->st_ino);
	struct inode *f = regular ? inode_find(t->store, st->st_dev, st->st_ino) : NULL;
	char path[PATH_MAX];

	if (n)
		node_move(t->nodes, n, from->dir, side_now(from), to->dir, side_name(from, to));
	if (f) {
		node_path(t->nodes, to->dir, side_name(from, to), path, sizeof(path));
		inode_renamed(f, path);
		inode_changed(f, NULL);
	}
	content_put(f);
	node_put(t->nodes, n);
}

static int exchange(const struct tree *t, const struct side *from, const struct side *to)
{
	struct stat a, b;
	bool moves;
	int err = 0;

	if (!side_there(to))
		return -ENOENT;
	a = *side_stat(from);
	b = *side_stat(to);
	moves = from->p.is_plain || S_ISDIR(a.st_mode) || S_ISDIR(b.st_mode);
	if (S_ISREG(a.st_mode) != S_ISREG(b.st_mode) || from->p.is_plain != to->p.is_plain)
		return -EINVAL; /* two stored forms: there is no way to do it at once */
	if (a.st_ino == b.st_ino)
		return 0;
	if (S_ISREG(a.st_mode))
		err = before_rename(t, from);
	if (!err && S_ISREG(b.st_mode))
		err = before_rename(t, to);
	if (err)
		return err;
	plain_move(t, moves);
	err = renameat2(from->fd, side_now(from), to->fd, side_now(to), RENAME_EXCHANGE) ? -errno : 0;
	plain_moved(t, moves);
	if (err)
		return err;
	moved(t, from, to, &a);
	moved(t, to, from, &b);
	return 0;
}

/* What ext4 would say about @from taking the place of @to */
static int may_replace(const struct stat *from, bool plain, const struct side *to, unsigned flags)
{
	bool regular = S_ISREG(from->st_mode);

	if (regular && to->p.taken && !plain)
		return dir_taken(to->p.file);
	if (regular ? to->p.bad_file && !plain : to->p.bad_other)
		return -EEXIST; /* somebody's file that the mount does not show */
	if (!side_there(to))
		return 0;
	if (flags & RENAME_NOREPLACE)
		return -EEXIST;
	if (S_ISDIR(side_stat(to)->st_mode))
		return S_ISDIR(from->st_mode) ? 0 : -EISDIR;
	return S_ISDIR(from->st_mode) ? -ENOTDIR : 0;
}

/* Two stored forms of one name: the new one first, then the old one goes.  @flags: of the first step */
static int replace_steps(const struct tree *t, const struct side *from, const struct side *to, bool over, const struct stat *old)
{
	const char *now = side_now(from), *as = side_name(from, to), *gone = over ? side_now(to) : as;
	bool two = strcmp(gone, as) != 0;
	/* where nothing of this form may be replaced, say so to the store as well, in case somebody else makes it now */
	unsigned flags = over && !two ? 0 : RENAME_NOREPLACE;
	int err = 0;

	if (two && from->p.has_file && S_ISREG(old->st_mode))
		err = from->p.is_plain ? plain_replaced(t, from->fd, now, true) : plain_replaced(t, to->fd, gone, false);
	if (err)
		return err;
	if (renameat2(from->fd, now, to->fd, as, flags)) {
		if (errno == EEXIST && from->p.is_plain)
			return dir_taken(as);
		if (errno != EINVAL || !flags || renameat(from->fd, now, to->fd, as))
			return -errno;
	}
	if (two && unlinkat(to->fd, gone, 0))
		report(REPORT_WARN, "%s: replaced by rename, but its old entry %s in the store could not be removed: %s", as, gone,
		       strerror(errno));
	return 0;
}

static int replace(const struct tree *t, const struct side *from, const struct side *to, unsigned flags)
{
	const struct stat st = *side_stat(from);
	bool over = side_there(to), moves = from->p.is_plain || S_ISDIR(st.st_mode);
	struct stat old = {0};
	int err = may_replace(&st, from->p.is_plain, to, flags);

	if (!err)
		err = plain_durable(t, st.st_ino);
	if (err)
		return err;
	if (over) {
		old = *side_stat(to);
		if (old.st_ino == st.st_ino)
			return 0; /* two names of one file: POSIX says do nothing */
		if (S_ISREG(st.st_mode)) {
			err = before_rename(t, from);
			if (err)
				return err;
		}
		dir_keep(t, &old);
	} else if (S_ISREG(st.st_mode)) {
		err = before_move(t, &st);
		if (err)
			return err;
	}
	plain_move(t, moves);
	err = replace_steps(t, from, to, over, &old);
	plain_moved(t, moves);
	if (err)
		return err;
	if (over)
		dir_gone(t, to->dir, side_now(to), &old);
	moved(t, from, to, &st);
	return 0;
}

static int rename_locked(const struct tree *t, struct side *from, const char *name, struct side *to, const char *to_name, unsigned flags)
{
	int err = dir_probe(t, from->dir, from->fd, name, &from->p);

	if (err)
		return err;
	if (!side_there(from))
		return -ENOENT;
	if (to->dir == t->nodes->root && name_reserved(to_name))
		return -EPERM;
	err = dir_probe(t, to->dir, to->fd, to_name, &to->p);
	if (err)
		return err;
	if (t->store->opt.read_only)
		return -EROFS;
	return flags & RENAME_EXCHANGE ? exchange(t, from, to) : replace(t, from, to, flags);
}

/* Two name locks: the smaller id first */
static void lock_both(struct node *a, struct node *b)
{
	if (a->id > b->id) {
		struct node *c = a;

		a = b;
		b = c;
	}
	mutex_lock(&a->dir->names);
	if (a != b)
		mutex_lock(&b->dir->names);
}

static void unlock_both(struct node *a, struct node *b)
{
	mutex_unlock(&a->dir->names);
	if (a != b)
		mutex_unlock(&b->dir->names);
}

int dir_rename(const struct tree *t, struct node *dir, const char *name, struct node *to_dir, const char *to_name, unsigned flags)
{
	struct side from = {.dir = dir, .name = name}, to = {.dir = to_dir, .name = to_name};
	int err;

	if (flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE) || flags == (RENAME_NOREPLACE | RENAME_EXCHANGE))
		return -EINVAL;
	err = node_dirfd(t->nodes, dir, &from.fd);
	if (err)
		return err;
	err = node_dirfd(t->nodes, to_dir, &to.fd);
	if (!err) {
		lock_both(dir, to_dir);
		err = rename_locked(t, &from, name, &to, to_name, flags);
		unlock_both(dir, to_dir);
		node_dirfd_put(t->nodes, to_dir);
	}
	node_dirfd_put(t->nodes, dir);
	return err;
}
