/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "attr.h"
#include "plain.h"
#include "plain_file.h"
#include "report.h"

#define RACES_MAX 64

#define PROC_ROOM 40
/* A descriptor opened with O_PATH, as a path: for the calls that take no such descriptor.  It names the object itself, also a symlink. */
static const char *proc_path(int fd, char buf[static PROC_ROOM])
{
	snprintf(buf, PROC_ROOM, "/proc/self/fd/%d", fd);
	return buf;
}

struct inode *attr_live(const struct tree *t, struct node *n)
{
	return S_ISREG(n->fmt) && node_owns_ino(t->nodes, n) ? inode_find(t->store, t->nodes->dev, n->ino) : NULL;
}

/* 1: @s->st.st_ino is live and @s was completed from its content */
static int look_live(const struct tree *t, struct sight *s)
{
	struct inode *f = inode_find(t->store, s->st.st_dev, s->st.st_ino);

	if (!f)
		return 0;
	inode_stat(f, &s->st);
	s->plain = plain_file_is(f);
	inode_put(f);
	return 1;
}

/* 0; -ESTALE the name has another object by now */
static int look(const struct tree *t, int dirfd, const char *stored, struct sight *s)
{
	uint64_t dropped = t->store->n_dropped;
	ino_t ino;
	int err;

	if (fstatat(dirfd, stored, &s->st, AT_SYMLINK_NOFOLLOW))
		return -errno;
	if (s->st.st_dev != t->nodes->dev)
		return -ENOENT;
	if (!S_ISREG(s->st.st_mode))
		return 0;
	s->live = look_live(t, s);
	if (s->live)
		return 0;
	if (dropped != t->store->n_dropped) { /* now that it is known not to be live: it may have been sealed just before */
		ino = s->st.st_ino;
		if (fstatat(dirfd, stored, &s->st, AT_SYMLINK_NOFOLLOW))
			return -errno;
		if (s->st.st_ino != ino)
			return -ESTALE;
	}
	err = plain_on(t) ? plain_is(t, dirfd, stored, &s->st) : 0;
	s->plain = err == 1;
	if (!err)
		err = inode_peek(t->store, dirfd, stored, &s->st);
	if (err < 0 && err != -ESTALE)
		report(REPORT_DEBUG, "%s: its size cannot be told: %s", stored, fail_text());
	return err == -ESTALE ? err : 0;
}

int attr_at(const struct tree *t, int dirfd, const char *stored, struct sight *ret)
{
	struct sight s = {.at = nodes_clock(t->nodes)};
	int err = -ESTALE;

	for (unsigned i = 0; i < RACES_MAX && err == -ESTALE; i++)
		err = look(t, dirfd, stored, &s);
	if (!err)
		*ret = s;
	return err;
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

/* What node_kept() has */
static int stat_kept(const struct tree *t, struct node *n, struct stat *ret)
{
	int fd CLEANUP_FD = node_kept(t->nodes, n, O_PATH);
	struct stat st;
	int64_t size = node_gone_size(t->nodes, n); /* else each unlink would cost a look for it: the kernel sends a time */

	if (fd < 0)
		return fd;
	if (fstat(fd, &st))
		return -errno;
	if (size >= 0)
		st.st_size = size;
	else if (S_ISREG(n->fmt) && !n->plain && inode_peek(t->store, fd, "", &st))
		report(REPORT_DEBUG, "(removed file): its size cannot be told: %s", fail_text());
	*ret = st;
	return 0;
}

/* 0; -ESTALE the name leads elsewhere; anything else is final */
static int stat_named(const struct tree *t, struct node *n, struct sight *ret)
{
	struct at at;
	int err = node_at(t->nodes, n, &at);

	if (err)
		return err;
	err = attr_at(t, at.fd, at.name, ret);
	at_put(t->nodes, &at);
	if (err == -ENOENT || (!err && !is_node(n, &ret->st)))
		err = -ESTALE;
	return err;
}

static int stat_stored(const struct tree *t, struct node *n, struct stat *ret)
{
	struct sight s;
	uint64_t since;
	int err;

	for (unsigned i = 0; i < RACES_MAX; i++) {
		since = nodes_changes(t->nodes);
		err = stat_named(t, n, &s);
		if (!err) {
			err = node_check(t->nodes, n, &s);
			if (!err)
				*ret = s.st;
			return err;
		}
		if (err == -ESTALE)
			err = stat_kept(t, n, ret);
		if (err != -ESTALE || !node_settle(t->nodes, n, since))
			return err;
	}
	return -ESTALE;
}

int attr_get(const struct tree *t, struct node *n, struct inode *f, struct stat *ret)
{
	struct inode *found = f ? NULL : attr_live(t, n);
	int err;

	if (f || found)
		err = stat_live(f ? f : found, ret);
	else
		err = stat_stored(t, n, ret);
	content_put(found);
	if (!err)
		n->priv = S_ISREG(n->fmt) && ret->st_mode & (S_ISUID | S_ISGID);
	return err;
}

/* --- changes --- */

/* What a change is made on: the descriptor of a live file or an O_PATH one as a path. */
struct target {
	struct inode *f; /* live; referenced if @found */
	bool found;
	int fd;     /* O_PATH, or -1 */
	ino_t used; /* plain_use() */
	char path[PROC_ROOM];
};

static int target_open(const struct tree *t, struct node *n, struct inode *f, struct target *ret)
{
	int err;

	*ret = (struct target){.f = f, .fd = -1};
	err = f ? 0 : plain_begin(t, n, &ret->used);
	if (err)
		return err;
	if (!f) {
		ret->f = attr_live(t, n);
		ret->found = ret->f;
	}
	if (ret->f) {
		proc_path(inode_fd(ret->f), ret->path);
		return 0;
	}
	ret->fd = node_open(t->nodes, n, O_PATH);
	if (ret->fd < 0) {
		plain_unuse(t, ret->used);
		return ret->fd;
	}
	proc_path(ret->fd, ret->path);
	return 0;
}

static void target_close(const struct tree *t, struct target *g)
{
	if (g->found)
		inode_put(g->f);
	close_fd(&g->fd);
	plain_unuse(t, g->used);
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

static int content_get(const struct tree *t, struct node *n, int dirfd, const char *name, bool write, const char *path, struct inode **ret)
{
	return n->plain ? plain_file_get(t->store, dirfd, name, n->ino, write, ret) : inode_get(t->store, dirfd, name, write, path, ret);
}

/* By a descriptor: that of its live content or the one kept */
static int content_kept(const struct tree *t, struct node *n, bool write, struct inode **ret)
{
	struct inode *live = attr_live(t, n);
	int kept CLEANUP_FD = -1, err;

	if (live && !write) {
		*ret = live;
		return 0;
	}
	if (!live)
		kept = node_kept(t->nodes, n, O_PATH);
	err = !live && kept < 0 ? kept : content_get(t, n, live ? inode_fd(live) : kept, "", write, "", ret);
	content_put(live);
	return err;
}

static int content_named(const struct tree *t, struct node *n, bool write, struct inode **ret)
{
	char path[PATH_MAX];
	struct at at;
	int err = node_at(t->nodes, n, &at);

	if (err)
		return err;
	node_path(t->nodes, at.dir, at.name, path, sizeof(path));
	err = content_get(t, n, at.fd, at.name, write, path, ret);
	at_put(t->nodes, &at);
	return err == -ENOENT ? -ESTALE : err;
}

/* Is it @n's and not that of what a rename put under its name meanwhile?  0 or -ESTALE, given back */
static int content_check(const struct tree *t, struct node *n, struct inode *f)
{
	struct stat st;

	if (fstat(inode_fd(f), &st) || !is_node(n, &st)) {
		inode_put(f);
		return -ESTALE;
	}
	if (!st.st_nlink)
		node_removed(t->nodes, n, inode_find(t->store, st.st_dev, st.st_ino)); /* one more reference */
	return 0;
}

static int content_find(const struct tree *t, struct node *n, bool write, struct inode **ret)
{
	struct inode *f;
	uint64_t since;
	int err;

	for (unsigned i = 0; i < RACES_MAX; i++) {
		since = nodes_changes(t->nodes);
		err = content_named(t, n, write, &f);
		if (!err)
			err = content_check(t, n, f);
		if (err == -ESTALE) {
			err = content_kept(t, n, write, &f);
			if (!err)
				err = content_check(t, n, f);
		}
		if (!err)
			*ret = f;
		if (err != -ESTALE || !node_settle(t->nodes, n, since))
			return err;
	}
	return -ESTALE;
}

int attr_content(const struct tree *t, struct node *n, bool write, struct inode **ret)
{
	ino_t used;
	int err = write ? plain_begin(t, n, &used) : plain_use(t, n, &used);

	if (err)
		return err;
	err = content_find(t, n, write, ret);
	plain_unuse(t, used);
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

static int change_times(const struct tree *t, struct node *n, struct inode *f, const struct attr_change *c)
{
	struct inode *live;
	struct target g;
	int err;

	if (!f && S_ISREG(n->fmt) && node_is_gone(t->nodes, n)) { /* the kernel's last word, after the unlink */
		live = attr_live(t, n);
		content_put(live);
		if (!live) /* nobody will see it */
			return 0;
	}
	err = target_open(t, n, f, &g);
	if (err)
		return err;
	node_change(t->nodes, n);
	if (g.f)
		err = inode_set_times(g.f, c->ts, c->ctime);
	else if (utimensat(AT_FDCWD, g.path, c->ts, 0))
		err = -errno;
	node_changed(t->nodes, n);
	target_close(t, &g);
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
		if (!err && g.f)
			inode_changed(g.f, c->ctime);
		target_close(t, &g);
		n->priv = n->priv || (c->mode && c->st.st_mode & (S_ISUID | S_ISGID));
	}
	if (!err && c->size)
		err = change_size(t, n, f, (uint64_t)c->st.st_size);
	if (!err && c->times)
		err = change_times(t, n, f, c);
	return err;
}

int attr_drop_priv(const struct tree *t, struct node *n, struct inode *f, bool (*in_group)(void *arg, gid_t gid), void *arg)
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
	if (st.st_mode & S_IXGRP || !(st.st_mode & S_ISGID) || !in_group(arg, st.st_gid))
		c.st.st_mode &= ~(mode_t)S_ISGID;
	if (c.st.st_mode != st.st_mode)
		err = attr_set(t, n, f, &c);
	if (err)
		return err;
	n->priv = c.st.st_mode & S_ISGID;
	return c.st.st_mode != st.st_mode;
}
