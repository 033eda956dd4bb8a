/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "attr.h"
#include "report.h"

#define RACES_MAX 8

#define PROC_ROOM 40
/* A descriptor opened with O_PATH, as a path: for the calls that take no such descriptor.  It names the object itself, also a symlink. */
static const char *proc_path(int fd, char buf[static PROC_ROOM])
{
	snprintf(buf, PROC_ROOM, "/proc/self/fd/%d", fd);
	return buf;
}

/* 1: @s->st.st_ino is live and @s was completed from its content */
static int look_live(const struct tree *t, struct sight *s)
{
	struct inode *f = inode_find(t->store, s->st.st_dev, s->st.st_ino);

	if (!f)
		return 0;
	inode_stat(f, &s->st);
	inode_put(f);
	return 1;
}

int attr_at(const struct tree *t, int dirfd, const char *stored, struct sight *ret)
{
	struct sight s = {.at = nodes_clock(t->nodes)};
	uint64_t dropped = t->store->n_dropped;
	ino_t ino;

	if (fstatat(dirfd, stored, &s.st, AT_SYMLINK_NOFOLLOW))
		return -errno;
	for (unsigned i = 0; S_ISREG(s.st.st_mode) && i < RACES_MAX; i++) {
		s.live = look_live(t, &s);
		if (s.live)
			break;
		if (dropped == t->store->n_dropped)
			break;
		/* Again, now that it is known not to be live: it may have been sealed just before. */
		ino = s.st.st_ino;
		if (fstatat(dirfd, stored, &s.st, AT_SYMLINK_NOFOLLOW))
			return -errno;
		if (s.st.st_ino == ino)
			break;
	}
	if (s.st.st_dev != t->nodes->dev)
		return -ENOENT;
	if (S_ISREG(s.st.st_mode) && !s.live && inode_peek(t->store, dirfd, stored, &s.st))
		report(REPORT_DEBUG, "%s: its size cannot be told: %s", stored, fail_text());
	*ret = s;
	return 0;
}

static bool is_node(const struct node *n, const struct stat *st)
{
	return st->st_ino == n->ino && (st->st_mode & S_IFMT) == n->fmt;
}

/* The stat of a live file; the same call for the caller's object and for one found */
static int stat_live(struct inode *f, struct stat *ret)
{
	struct stat st;

	if (fstat(inode_fd(f), &st))
		return -errno;
	inode_stat(f, &st);
	*ret = st;
	return 0;
}

/* An object without a name that is held open */
static int stat_kept(const struct tree *t, struct node *n, struct stat *ret)
{
	int fd CLEANUP_FD = node_open(t->nodes, n, O_PATH);

	if (fd < 0)
		return fd;
	if (fstat(fd, ret))
		return -errno;
	if (S_ISREG(n->fmt))
		ret->st_size = node_seen_size(t->nodes, n);
	return 0;
}

static int stat_named(const struct tree *t, struct node *n, struct stat *ret)
{
	struct sight s;
	struct at at;
	int err;

	for (unsigned i = 0; i < RACES_MAX; i++) {
		err = node_at(t->nodes, n, &at);
		if (err)
			return err;
		err = attr_at(t, at.fd, at.name, &s);
		at_put(t->nodes, &at);
		if (!err && is_node(n, &s.st)) {
			err = node_check(t->nodes, n, &s);
			if (!err)
				*ret = s.st;
			return err;
		}
		if (err && err != -ENOENT)
			return err;
	}
	return -ESTALE;
}

int attr_get(const struct tree *t, struct node *n, struct inode *f, struct stat *ret)
{
	struct inode *found = f || !S_ISREG(n->fmt) ? NULL : inode_find(t->store, t->nodes->dev, n->ino);
	int err;

	if (f || found)
		err = stat_live(f ? f : found, ret);
	else
		err = stat_named(t, n, ret);
	content_put(found);
	if (err == -ESTALE)
		err = stat_kept(t, n, ret);
	if (!err)
		n->priv = S_ISREG(n->fmt) && ret->st_mode & (S_ISUID | S_ISGID);
	return err;
}

/* --- changes --- */

/* What a change is made on: the descriptor of a live file or an O_PATH one as a path. */
struct target {
	struct inode *f; /* live; referenced if @found */
	bool found;
	int fd; /* O_PATH, or -1 */
	char path[PROC_ROOM];
};

static int target_open(const struct tree *t, struct node *n, struct inode *f, struct target *ret)
{
	*ret = (struct target){.f = f, .fd = -1};
	if (!f && S_ISREG(n->fmt)) {
		ret->f = inode_find(t->store, t->nodes->dev, n->ino);
		ret->found = ret->f;
	}
	if (ret->f) {
		proc_path(inode_fd(ret->f), ret->path);
		return 0;
	}
	ret->fd = node_open(t->nodes, n, O_PATH);
	if (ret->fd < 0)
		return ret->fd;
	proc_path(ret->fd, ret->path);
	return 0;
}

/* @changed: tell the content object, so that ctime moves and the next fsync takes it along */
static void target_close(struct target *g, bool changed)
{
	if (g->f && changed)
		inode_changed(g->f);
	if (g->found)
		inode_put(g->f);
	close_fd(&g->fd);
}

static int change_meta(struct target *g, const struct attr_change *c)
{
	int fd = g->f ? inode_fd(g->f) : -1, res = 0;

	if (c->uid || c->gid) {
		uid_t uid = c->uid ? c->st.st_uid : (uid_t)-1;
		gid_t gid = c->gid ? c->st.st_gid : (gid_t)-1;

		res = g->f ? fchown(fd, uid, gid) : fchownat(g->fd, "", uid, gid, AT_EMPTY_PATH);
	}
	if (!res && c->mode)
		res = g->f ? fchmod(fd, c->st.st_mode & 07777) : chmod(g->path, c->st.st_mode & 07777);
	return res ? -errno : 0;
}

/* The content of an object without a name: open already, or by the descriptor that node_keep() left */
static int content_kept(const struct tree *t, struct node *n, bool write, struct inode **ret)
{
	struct inode *f = inode_find(t->store, t->nodes->dev, n->ino);
	int fd CLEANUP_FD = -1, err;
	struct stat st;

	if (f) {
		*ret = f;
		return 0;
	}
	fd = node_open(t->nodes, n, O_PATH);
	if (fd < 0)
		return fd;
	if (fstat(fd, &st))
		return -errno;
	err = inode_get(t->store, fd, "", write, "", &f);
	if (err)
		return err;
	if (!st.st_nlink)
		inode_unlinked(f);
	*ret = f;
	return 0;
}

static int content_named(const struct tree *t, struct node *n, bool write, struct inode **ret)
{
	char path[PATH_MAX];
	struct inode *f;
	struct stat st;
	struct at at;
	int err = node_at(t->nodes, n, &at);

	if (err)
		return err;
	node_path(t->nodes, at.dir, at.name, path, sizeof(path));
	err = inode_get(t->store, at.fd, at.name, write, path, &f);
	at_put(t->nodes, &at);
	if (err)
		return err == -ENOENT ? -ESTALE : err;
	/* a rename may have put another file under this name meanwhile */
	if (fstat(inode_fd(f), &st) || !is_node(n, &st)) {
		inode_put(f);
		return -ESTALE;
	}
	*ret = f;
	return 0;
}

int attr_content(const struct tree *t, struct node *n, bool write, struct inode **ret)
{
	int err = -ESTALE;

	for (unsigned i = 0; i < RACES_MAX && err == -ESTALE; i++) {
		err = content_named(t, n, write, ret);
		if (err == -ESTALE)
			err = content_kept(t, n, write, ret);
	}
	return err;
}

static int change_size(const struct tree *t, struct node *n, struct inode *f, uint64_t size)
{
	struct inode *got = NULL;
	int err = S_ISREG(n->fmt) ? 0 : -EINVAL;

	if (!err && !f)
		err = attr_content(t, n, true, &got);
	if (err)
		return err;
	node_change(t->nodes, n);
	err = inode_truncate(f ? f : got, size);
	node_changed(t->nodes, n);
	content_put(got);
	return err;
}

static int change_times(const struct tree *t, struct node *n, struct inode *f, const struct timespec ts[2])
{
	struct target g;
	int err = target_open(t, n, f, &g);

	if (err)
		return err;
	node_change(t->nodes, n);
	if (g.f)
		err = inode_set_times(g.f, ts);
	else if (utimensat(AT_FDCWD, g.path, ts, 0))
		err = -errno;
	node_changed(t->nodes, n);
	target_close(&g, false);
	return err;
}

int attr_set(const struct tree *t, struct node *n, struct inode *f, const struct attr_change *c)
{
	struct target g;
	int err = 0;

	if (c->mode || c->uid || c->gid) {
		err = target_open(t, n, f, &g);
		if (err)
			return err;
		err = change_meta(&g, c);
		target_close(&g, !err);
		n->priv = n->priv || (c->mode && c->st.st_mode & (S_ISUID | S_ISGID));
	}
	if (!err && c->size)
		err = change_size(t, n, f, (uint64_t)c->st.st_size);
	if (!err && c->times)
		err = change_times(t, n, f, c->ts);
	return err;
}

int attr_drop_priv(const struct tree *t, struct node *n, struct inode *f)
{
	struct attr_change c = {.mode = true};
	struct stat st;
	int err;

	if (!n->priv)
		return 0;
	err = attr_get(t, n, f, &st);
	if (err)
		return err;
	c.st.st_mode = st.st_mode & ~(mode_t)S_ISUID;
	if (st.st_mode & S_IXGRP)
		c.st.st_mode &= ~(mode_t)S_ISGID;
	if (c.st.st_mode != st.st_mode)
		err = attr_set(t, n, f, &c);
	if (err)
		return err;
	n->priv = false;
	return c.st.st_mode != st.st_mode;
}
