/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors of nodes: the LRU of open directories, opening by (directory, name), paths for hints. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "io.h"
#include "node.h"

#define RACES_MAX 64 /* lookups repeated because names change meanwhile */

static void lru_newest(struct nodes *t, struct node *n)
{
	n->dir->newer = NULL;
	n->dir->older = t->newest;
	if (t->newest)
		t->newest->dir->newer = n;
	else
		t->oldest = n;
	t->newest = n;
}

static bool in_lru(const struct nodes *t, const struct node *n)
{
	return n->dir->newer || n->dir->older || t->newest == n;
}

void lru_drop(struct nodes *t, struct node *n)
{
	if (!in_lru(t, n))
		return;
	if (n->dir->newer)
		n->dir->newer->dir->older = n->dir->older;
	else
		t->newest = n->dir->older;
	if (n->dir->older)
		n->dir->older->dir->newer = n->dir->newer;
	else
		t->oldest = n->dir->newer;
	n->dir->newer = n->dir->older = NULL;
	t->n_fds--;
}

/* Takes the least recently used descriptor that nobody uses out of the table, or -1.  Removed directories cannot be opened again: they keep
 * theirs. */
int node_evict(struct nodes *t)
{
	for (struct node *n = t->oldest; n; n = n->dir->newer) {
		int fd = n->fd;

		if (n->fd_users || !n->links)
			continue;
		lru_drop(t, n);
		n->fd = -1;
		return fd;
	}
	return -1;
}

static void lru_use(struct nodes *t, struct node *n)
{
	n->fd_users++;
	if (n == t->root || t->newest == n)
		return;
	lru_drop(t, n);
	lru_newest(t, n);
	t->n_fds++;
}

static bool is_node(const struct nodes *t, const struct node *n, const struct stat *st)
{
	return st->st_ino == n->ino && st->st_dev == t->dev && (st->st_mode & S_IFMT) == n->fmt;
}

/* Open @name in @dirfd and see that it is @n: a descriptor, -ESTALE or -errno */
static int open_checked(const struct nodes *t, const struct node *n, int dirfd, const char *name, int flags)
{
	struct stat st;
	int fd = io_open_beneath(dirfd, name, flags);

	if (fd < 0)
		return fd == -ENOENT || fd == -ENOTDIR || fd == -ELOOP || fd == -EXDEV ? -ESTALE : fd;
	if (fstat(fd, &st) || !is_node(t, n, &st)) {
		close(fd);
		return -ESTALE;
	}
	return fd;
}

struct step {                   /* the next directory to open on the way down to the one wanted */
	struct node *up, *down; /* up is open and in use, down is referenced */
	char name[NAME_ROOM];
	uint64_t n_changes;
};

/* 1: @dir is open and in use; 0: @ret_step has to be done first; -ESTALE a name on the way is gone */
static int next_step(struct nodes *t, struct node *dir, struct step *ret_step)
{
	struct node *n = dir, *below = NULL;
	int done;

	mutex_lock(&t->lock);
	while (n->fd < 0 && n->links) {
		below = n;
		n = n->links->dir;
	}
	done = n->fd < 0 ? -ESTALE : !below;
	if (done >= 0)
		lru_use(t, n);
	if (!done) {
		below->n_refs++;
		ret_step->up = n;
		ret_step->down = below;
		ret_step->n_changes = t->n_changes;
		snprintf(ret_step->name, sizeof(ret_step->name), "%s", below->links->name);
	}
	mutex_unlock(&t->lock);
	return done;
}

/* Close one directory nobody uses: after EMFILE */
static bool make_room(struct nodes *t)
{
	int fd;

	mutex_lock(&t->lock);
	fd = node_evict(t);
	mutex_unlock(&t->lock);
	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

static int do_step(struct nodes *t, struct step *s)
{
	int fd = open_checked(t, s->down, s->up->fd, s->name, O_PATH | O_DIRECTORY), spare = -1, err = 0;

	if (fd == -EMFILE && make_room(t))
		fd = open_checked(t, s->down, s->up->fd, s->name, O_PATH | O_DIRECTORY);
	mutex_lock(&t->lock);
	if (fd < 0) {
		err = fd;
	} else if (s->down->fd >= 0) { /* another thread was faster */
		spare = fd;
	} else {
		s->down->fd = fd;
		lru_newest(t, s->down);
		if (++t->n_fds > t->max_fds) {
			s->down->fd_users++; /* it is wanted in a moment */
			spare = node_evict(t);
			s->down->fd_users--;
		}
	}
	s->up->fd_users--;
	mutex_unlock(&t->lock);
	if (spare >= 0)
		close(spare);
	return err;
}

/* Held while a name of @n changes in the store and then in the table */
static void wait_for_names(struct nodes *t, struct node *n)
{
	struct node *dir;

	mutex_lock(&t->lock);
	dir = n->links ? n->links->dir : NULL;
	if (dir)
		dir->n_refs++;
	mutex_unlock(&t->lock);
	if (!dir)
		return;
	mutex_lock(&dir->dir->names);
	mutex_unlock(&dir->dir->names);
	node_put(t, dir);
}

uint64_t nodes_changes(struct nodes *t)
{
	uint64_t n;

	mutex_lock(&t->lock);
	n = t->n_changes;
	mutex_unlock(&t->lock);
	return n;
}

/* The first name of @n leads elsewhere (taken away from outside, or entered by a look that was overtaken): next time another one */
static bool other_name(struct nodes *t, struct node *n)
{
	struct link *first, **end;
	bool more;

	mutex_lock(&t->lock);
	first = n->links;
	more = first && first->next;
	if (more) {
		n->links = first->next;
		for (end = &n->links; *end;)
			end = &(*end)->next;
		*end = first;
		first->next = NULL;
	}
	mutex_unlock(&t->lock);
	return more;
}

bool node_settle(struct nodes *t, struct node *n, uint64_t since)
{
	wait_for_names(t, n);
	return nodes_changes(t) != since || other_name(t, n);
}

/* @wait: no name lock is held, so that a change of names can be waited for */
static int open_dir(struct nodes *t, struct node *dir, bool wait, int *ret)
{
	struct step s;
	bool again;
	int err;

	if (!dir->dir)
		return -ENOTDIR;
	for (unsigned races = 0;; races++) {
		err = next_step(t, dir, &s);
		if (err < 0)
			return err;
		if (err) {
			*ret = dir->fd; /* in use: stays as it is */
			return 0;
		}
		err = do_step(t, &s);
		again =
		    err == -ESTALE && races < RACES_MAX && (wait ? node_settle(t, s.down, s.n_changes) : nodes_changes(t) != s.n_changes);
		node_put(t, s.down);
		if (err && !again)
			return err;
	}
}

int node_dirfd(struct nodes *t, struct node *dir, int *ret)
{
	return open_dir(t, dir, true, ret);
}

void node_dirfd_put(struct nodes *t, struct node *dir)
{
	mutex_lock(&t->lock);
	dir->fd_users--;
	mutex_unlock(&t->lock);
}

static int find_at(struct nodes *t, struct node *n, bool wait, struct at *ret)
{
	struct node *dir;
	int err, fd;

	if (n == t->root) {
		ret->dir = NULL;
		ret->fd = t->root_fd;
		snprintf(ret->name, sizeof(ret->name), ".");
		return 0;
	}
	mutex_lock(&t->lock);
	dir = n->links ? n->links->dir : NULL;
	if (dir) {
		dir->n_refs++;
		snprintf(ret->name, sizeof(ret->name), "%s", n->links->name);
	}
	mutex_unlock(&t->lock);
	if (!dir)
		return -ESTALE;
	err = open_dir(t, dir, wait, &fd);
	if (err) {
		node_put(t, dir);
		return err;
	}
	ret->dir = dir;
	ret->fd = fd;
	return 0;
}

int node_at(struct nodes *t, struct node *n, struct at *ret)
{
	return find_at(t, n, true, ret);
}

void at_put(struct nodes *t, struct at *at)
{
	if (!at->dir)
		return;
	node_dirfd_put(t, at->dir);
	node_put(t, at->dir);
	at->dir = NULL;
}

int node_kept(struct nodes *t, struct node *n, int flags)
{
	char path[40];
	int fd, kept;

	mutex_lock(&t->lock);
	kept = n != t->root && n->fd >= 0 ? fcntl(n->fd, F_DUPFD_CLOEXEC, 0) : -1;
	mutex_unlock(&t->lock);
	if (kept < 0)
		return -ESTALE;
	if (flags & O_PATH)
		return kept;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", kept);
	fd = open(path, flags | O_CLOEXEC);
	if (fd < 0)
		fd = -errno;
	close(kept);
	return fd;
}

int64_t node_gone_size(struct nodes *t, const struct node *n)
{
	int64_t size;

	mutex_lock(&t->lock);
	size = n->removed && !n->content && n->seen && !n->ours && !n->changing ? n->seen_size : -1;
	mutex_unlock(&t->lock);
	return size;
}

static int open_named(struct nodes *t, struct node *n, bool wait, int flags)
{
	struct at at;
	int fd = find_at(t, n, wait, &at);

	if (fd)
		return fd;
	fd = open_checked(t, n, at.fd, at.name, flags);
	if (fd == -EMFILE && make_room(t))
		fd = open_checked(t, n, at.fd, at.name, flags);
	at_put(t, &at);
	return fd;
}

int node_open(struct nodes *t, struct node *n, int flags)
{
	uint64_t since;
	int fd;

	for (unsigned races = 0; races < RACES_MAX; races++) {
		since = nodes_changes(t);
		fd = open_named(t, n, true, flags);
		if (fd == -ESTALE)
			fd = node_kept(t, n, flags);
		if (fd != -ESTALE || !node_settle(t, n, since))
			return fd;
	}
	return -ESTALE;
}

void node_keep(struct nodes *t, struct node *n, bool last)
{
	bool others;
	int fd = -1;

	mutex_lock(&t->lock);
	others = n->links && n->links->next;
	mutex_unlock(&t->lock);
	if (others && !last)
		return;

	if (n->dir) { /* its place in the LRU does: nameless ones are not evicted */
		if (!open_dir(t, n, false, &fd))
			node_dirfd_put(t, n);
		return;
	}
	for (unsigned i = 0; i < RACES_MAX; i++) {
		fd = open_named(t, n, false, O_PATH);
		if (fd != -ESTALE || !other_name(t, n))
			break;
	}
	if (fd < 0)
		return;
	mutex_lock(&t->lock);
	if (n->fd < 0) {
		n->fd = fd;
		fd = -1;
	}
	mutex_unlock(&t->lock);
	if (fd >= 0)
		close(fd);
}
