/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <sys/stat.h>

#include "inode.h"
#include "node.h"

/* A reference or lookup count has gone; free what nobody holds, and then perhaps its directory, upwards.  The lock is held. */
void node_release(struct nodes *t, struct node *n)
{
	while (n && !n->n_lookup && !n->n_refs) {
		struct node *up = NULL;

		if (n->links && !n->links->next) {
			up = n->links->dir; /* the usual case: go on there instead of recursing */
			free(n->links);
			n->links = NULL;
		}
		while (n->links) {
			struct link *l = n->links;

			n->links = l->next;
			if (!--l->dir->n_refs && !l->dir->n_lookup)
				node_release(t, l->dir); /* several names: files only, so this goes one level deep before it loops */
			free(l);
		}
		table_remove(t, n);
		if (n->dir)
			lru_drop(t, n);
		if (n->content || (n->fd >= 0 && !n->dir)) { /* to close the last descriptor of a removed file is to free its blocks */
			n->id_next = t->dead;
			t->dead = n;
		} else {
			node_destroy(n, true);
		}
		n = up;
		if (n)
			n->n_refs--;
	}
}

/* After node_release() of what may be a file */
static void unlock_and_bury(struct nodes *t)
{
	struct node *dead = t->dead;

	t->dead = NULL;
	mutex_unlock(&t->lock);
	while (dead) {
		struct node *n = dead;

		dead = n->id_next;
		node_destroy(n, true);
	}
}

struct node *node_get(struct nodes *t, uint64_t id)
{
	struct node *n;

	mutex_lock(&t->lock);
	n = table_by_id(t, id);
	if (n)
		n->n_refs++;
	mutex_unlock(&t->lock);
	return n;
}

struct node *node_find(struct nodes *t, ino_t ino)
{
	struct node *n;

	mutex_lock(&t->lock);
	n = table_by_ino(t, ino);
	if (n)
		n->n_refs++;
	mutex_unlock(&t->lock);
	return n;
}

void node_put(struct nodes *t, struct node *n)
{
	if (!n)
		return;
	mutex_lock(&t->lock);
	n->n_refs--;
	node_release(t, n);
	unlock_and_bury(t);
}

static struct link *find_link(struct node *n, const struct node *dir, const char *stored)
{
	struct link *l;

	for (l = n->links; l && (l->dir != dir || strcmp(l->name, stored));)
		l = l->next;
	return l;
}

/* Is @n above @dir or @dir itself?  Directories moved in the store behind our back could make it seem so; a loop would be climbed for ever.
 */
static bool is_above(const struct nodes *t, const struct node *n, const struct node *dir)
{
	while (dir != n && dir != t->root && dir->links)
		dir = dir->links->dir;
	return dir == n;
}

static int add_link(struct nodes *t, struct node *n, struct node *dir, const char *stored)
{
	size_t len = strlen(stored) + 1;
	struct link *l;

	if (find_link(n, dir, stored))
		return 0;
	if (n->dir && is_above(t, n, dir))
		return -ELOOP;
	l = malloc(sizeof(*l) + len);
	if (!l)
		return -ENOMEM;
	l->dir = dir;
	memcpy(l->name, stored, len);
	dir->n_refs++;
	/* the newest first: it is the one most likely to be there still */
	l->next = n->links;
	n->links = l;
	if (!n->dir && n->fd >= 0) { /* kept while it had no name */
		close(n->fd);
		n->fd = -1;
	}
	if (n->dir && l->next) { /* a directory has one name */
		struct link *old = l->next;

		l->next = NULL;
		old->dir->n_refs--;
		node_release(t, old->dir);
		free(old);
	}
	t->n_changes++;
	return 0;
}

static void drop_link(struct nodes *t, struct node *n, const struct node *dir, const char *stored)
{
	struct link *l = find_link(n, dir, stored), **p = &n->links;

	if (!l)
		return;
	while (*p != l)
		p = &(*p)->next;
	*p = l->next;
	l->dir->n_refs--;
	node_release(t, l->dir);
	free(l);
	t->n_changes++;
}

static int64_t nanoseconds(const struct timespec *ts)
{
	return (int64_t)((uint64_t)ts->tv_sec * 1000000000 + (uint64_t)ts->tv_nsec);
}

/* Compare with what was seen and remember it; the lock is held.  A look taken before or while we changed the file ourselves proves nothing.
 */
static bool same_content(struct node *n, const struct sight *s)
{
	int64_t mtime = nanoseconds(&s->st.st_mtim);

	if (s->live || !S_ISREG(n->fmt) || n->changing || n->ours_at > s->at)
		return true;
	if (n->seen && !n->ours && (n->seen_size != s->st.st_size || n->seen_mtime != mtime))
		return false;
	n->seen = true;
	n->ours = false;
	n->seen_size = s->st.st_size;
	n->seen_mtime = mtime;
	return true;
}

int node_enter(struct nodes *t, struct node *dir, const char *stored, const struct sight *s, struct node **ret)
{
	const struct stat *st = &s->st;
	struct node *n;
	int err;

	mutex_lock(&t->lock);
	n = table_by_ino(t, st->st_ino);
	if (n && (n->fmt != (st->st_mode & S_IFMT) || n->plain != s->plain || !same_content(n, s))) {
		table_hide(t, n); /* it is another object now, or has other content */
		n = NULL;
	}
	if (!n) {
		n = node_new(t->next_id, st->st_ino, st->st_mode & S_IFMT);
		if (!n) {
			mutex_unlock(&t->lock);
			return -ENOMEM;
		}
		n->plain = s->plain;
		n->ours = s->live;
		(void)same_content(n, s); /* nothing to compare with: remembers */
		t->next_id++;
		table_add(t, n);
	}
	n->n_refs++;
	err = add_link(t, n, dir, stored);
	if (err) {
		n->n_refs--;
		node_release(t, n);
	} else {
		n->n_lookup++;
		*ret = n;
	}
	mutex_unlock(&t->lock);
	return err;
}

void node_forget(struct nodes *t, uint64_t id, uint64_t count)
{
	struct node *n;

	mutex_lock(&t->lock);
	n = table_by_id(t, id);
	if (n && n != t->root) {
		n->n_lookup -= MIN(count, n->n_lookup);
		node_release(t, n);
	}
	unlock_and_bury(t);
}

int node_check(struct nodes *t, struct node *n, const struct sight *s)
{
	bool ok;

	mutex_lock(&t->lock);
	ok = (n->hashed || n->removed) && same_content(n, s);
	mutex_unlock(&t->lock);
	return ok ? 0 : -ESTALE;
}

int64_t node_seen_size(struct nodes *t, struct node *n)
{
	int64_t size;

	mutex_lock(&t->lock);
	size = n->seen ? n->seen_size : 0;
	mutex_unlock(&t->lock);
	return size;
}

bool node_size_fits(struct nodes *t, struct node *n, int64_t size)
{
	bool fits;

	mutex_lock(&t->lock);
	fits = n->plain || !n->seen || n->ours || n->changing || n->seen_size == size;
	mutex_unlock(&t->lock);
	return fits;
}

void node_change(struct nodes *t, struct node *n)
{
	mutex_lock(&t->lock);
	n->changing++;
	mutex_unlock(&t->lock);
}

void node_changed(struct nodes *t, struct node *n)
{
	mutex_lock(&t->lock);
	n->changing--;
	n->ours = true;
	n->ours_at = ++t->clock;
	mutex_unlock(&t->lock);
}

void node_removed(struct nodes *t, struct node *n, struct inode *f)
{
	bool took = false;

	inode_opened(f, false);
	inode_unlinked(f);
	if (n) {
		mutex_lock(&t->lock);
		took = !n->content;
		if (took)
			n->content = f;
		mutex_unlock(&t->lock);
	}
	if (took)
		return;
	inode_closed(f, false);
	inode_put(f);
}

void node_unlink(struct nodes *t, ino_t ino, struct node *dir, const char *stored, bool last)
{
	struct node *n;

	mutex_lock(&t->lock);
	n = table_by_ino(t, ino);
	if (n) {
		drop_link(t, n, dir, stored);
		while (last && n->links) /* names taken away behind our back */
			drop_link(t, n, n->links->dir, n->links->name);
		if (last) {
			n->removed = true;
			table_hide(t, n); /* the number may come back for another object */
		}
	}
	mutex_unlock(&t->lock);
}

void node_move(struct nodes *t, struct node *n, struct node *dir, const char *stored, struct node *to_dir, const char *to)
{
	mutex_lock(&t->lock);
	dir->n_refs++; /* drop_link() must not free it under our caller */
	drop_link(t, n, dir, stored);
	(void)add_link(t, n, to_dir, to); /* without memory: as the header says */
	dir->n_refs--;
	mutex_unlock(&t->lock);
}

void node_swap(struct nodes *t, ino_t ino, ino_t to_ino)
{
	struct node *n, *other;

	mutex_lock(&t->lock);
	n = table_by_ino(t, ino);
	other = table_by_ino(t, to_ino);
	if (other)
		table_hide(t, other); /* removed behind our back, so that its number could be given again */
	if (n) {
		table_renumber(t, n, to_ino);
		n->plain = false;
		n->ours = true;
		n->ours_at = ++t->clock;
		t->n_changes++;
	}
	mutex_unlock(&t->lock);
}

bool node_is_gone(struct nodes *t, const struct node *n)
{
	bool gone;

	mutex_lock(&t->lock);
	gone = n->removed && !n->content;
	mutex_unlock(&t->lock);
	return gone;
}

bool node_owns_ino(struct nodes *t, const struct node *n)
{
	bool owns;

	mutex_lock(&t->lock);
	owns = n->hashed || n->fd >= 0 || n->content;
	mutex_unlock(&t->lock);
	return owns;
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
