/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors of nodes: the LRU of open directories, opening by (directory, name), paths for hints. */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "node.h"

#define RACES_MAX 64 /* lookups repeated because names change meanwhile */

/* O_NOFOLLOW alone guards the last component, which is all there is here; openat2() adds that nothing mounted in the store is entered. */
static int open_beneath(int dirfd, const char *name, int flags)
{
	struct open_how how = {
	    .flags = (uint64_t)flags | O_NOFOLLOW | O_CLOEXEC,
	    .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV,
	};
	int fd;

	do {
		fd = (int)syscall(SYS_openat2, dirfd, name, &how, sizeof(how));
	} while (fd < 0 && (errno == EINTR || errno == EAGAIN));
	if (fd < 0 && (errno == ENOSYS || errno == EPERM)) /* EPERM: old container filters */
		fd = openat(dirfd, name, flags | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

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
	int fd = open_beneath(dirfd, name, flags);

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

static bool names_changed(struct nodes *t, uint64_t since)
{
	bool changed;

	mutex_lock(&t->lock);
	changed = t->n_changes != since;
	mutex_unlock(&t->lock);
	return changed;
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
	s->down->n_refs--;
	node_release(t, s->down);
	mutex_unlock(&t->lock);
	if (spare >= 0)
		close(spare);
	return err;
}

int node_dirfd(struct nodes *t, struct node *dir, int *ret)
{
	unsigned races = 0;
	struct step s;
	int err;

	if (!dir->dir)
		return -ENOTDIR;
	for (;;) {
		err = next_step(t, dir, &s);
		if (err < 0)
			return err;
		if (err) {
			*ret = dir->fd; /* in use: stays as it is */
			return 0;
		}
		err = do_step(t, &s);
		if (err && !(err == -ESTALE && races++ < RACES_MAX && names_changed(t, s.n_changes)))
			return err;
	}
}

void node_dirfd_put(struct nodes *t, struct node *dir)
{
	mutex_lock(&t->lock);
	dir->fd_users--;
	mutex_unlock(&t->lock);
}

int node_at(struct nodes *t, struct node *n, struct at *ret)
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
	err = node_dirfd(t, dir, &fd);
	if (err) {
		node_put(t, dir);
		return err;
	}
	ret->dir = dir;
	ret->fd = fd;
	return 0;
}

void at_put(struct nodes *t, struct at *at)
{
	if (!at->dir)
		return;
	node_dirfd_put(t, at->dir);
	node_put(t, at->dir);
	at->dir = NULL;
}

/* The descriptor kept of an object without a name, as one more; -ESTALE if there is none */
static int open_kept(struct nodes *t, struct node *n, int flags)
{
	char path[40];
	int fd, kept;

	mutex_lock(&t->lock);
	kept = n != t->root && !n->links && n->fd >= 0 ? fcntl(n->fd, F_DUPFD_CLOEXEC, 0) : -1;
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

int node_open(struct nodes *t, struct node *n, int flags)
{
	struct at at;
	int err, fd = -1;

	for (unsigned races = 0; races < RACES_MAX; races++) {
		uint64_t since;

		fd = open_kept(t, n, flags);
		if (fd != -ESTALE)
			return fd;
		mutex_lock(&t->lock);
		since = t->n_changes;
		mutex_unlock(&t->lock);
		err = node_at(t, n, &at);
		if (err)
			return err;
		fd = open_checked(t, n, at.fd, at.name, flags);
		if (fd == -EMFILE && make_room(t))
			fd = open_checked(t, n, at.fd, at.name, flags);
		at_put(t, &at);
		if (fd != -ESTALE || !names_changed(t, since))
			break;
	}
	return fd;
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
		if (!node_dirfd(t, n, &fd))
			node_dirfd_put(t, n);
		return;
	}
	fd = node_open(t, n, O_PATH);
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

void node_path(struct nodes *t, struct node *dir, const char *name, char *ret, size_t len)
{
	size_t at = len;

	ret[0] = 0;
	if (!len)
		return;
	mutex_lock(&t->lock);
	ret[--at] = 0;
	for (;;) {
		size_t n = strlen(name);

		if (n + 1 > at) {
			at = len - 1; /* too long for a hint */
			break;
		}
		at -= n;
		memcpy(ret + at, name, n);
		if (dir == t->root)
			break;
		if (!dir->links || at < 2) {
			at = len - 1;
			break;
		}
		ret[--at] = '/';
		name = dir->links->name;
		dir = dir->links->dir;
	}
	mutex_unlock(&t->lock);
	memmove(ret, ret + at, len - at);
}
