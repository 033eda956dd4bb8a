/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <sys/stat.h>

#include "node.h"

#define BUCKETS_MIN 1024

static size_t bucket(const struct nodes *t, uint64_t key)
{
	return (key * 0x9e3779b97f4a7c15) >> 20 & (t->n_buckets - 1);
}

static void hash_in(struct nodes *t, struct node *n)
{
	struct node **id = &t->by_id[bucket(t, n->id)], **ino = &t->by_ino[bucket(t, n->ino)];

	n->id_next = *id;
	*id = n;
	if (n->hashed) {
		n->ino_next = *ino;
		*ino = n;
	}
}

static void unhash_ino(struct nodes *t, struct node *n)
{
	struct node **p = &t->by_ino[bucket(t, n->ino)];

	if (!n->hashed)
		return;
	while (*p != n)
		p = &(*p)->ino_next;
	*p = n->ino_next;
	n->hashed = false;
}

static void unhash_id(struct nodes *t, struct node *n)
{
	struct node **p = &t->by_id[bucket(t, n->id)];

	while (*p != n)
		p = &(*p)->id_next;
	*p = n->id_next;
}

/* One node for each bucket on average; without memory the chains get longer and nothing else happens. */
static void grow(struct nodes *t)
{
	struct node **old = t->by_id, **by_id, **by_ino;
	size_t n_old = t->n_buckets;

	if (t->n_nodes < n_old)
		return;
	by_id = calloc(2 * n_old, sizeof(struct node *));
	by_ino = calloc(2 * n_old, sizeof(struct node *));
	if (!by_id || !by_ino) {
		free(by_id);
		free(by_ino);
		return;
	}
	free(t->by_ino);
	t->by_id = by_id;
	t->by_ino = by_ino;
	t->n_buckets = 2 * n_old;
	for (size_t i = 0; i < n_old; i++) {
		for (struct node *n = old[i], *next; n; n = next) {
			next = n->id_next;
			hash_in(t, n);
		}
	}
	free(old);
}

static struct node *node_new(uint64_t id, ino_t ino, mode_t fmt)
{
	struct node *n = calloc(1, sizeof(*n));

	if (!n)
		return NULL;
	if (S_ISDIR(fmt)) {
		n->dir = calloc(1, sizeof(*n->dir));
		if (!n->dir) {
			free(n);
			return NULL;
		}
		mutex_init(&n->dir->names);
	}
	n->id = id;
	n->ino = ino;
	n->fmt = fmt;
	n->fd = -1;
	n->hashed = true;
	return n;
}

static void node_destroy(struct node *n, bool close_it)
{
	while (n->links) {
		struct link *l = n->links;

		n->links = l->next;
		free(l);
	}
	if (close_it && n->fd >= 0)
		close(n->fd);
	if (n->dir)
		mutex_destroy(&n->dir->names);
	free(n->dir);
	free(n);
}

int nodes_new(int root_fd, size_t max_fds, struct nodes **ret)
{
	struct nodes *t;
	struct stat st;

	if (fstat(root_fd, &st))
		return -errno;
	t = calloc(1, sizeof(*t));
	if (!t)
		return -ENOMEM;
	t->root_fd = root_fd;
	t->dev = st.st_dev;
	t->max_fds = max_fds;
	t->n_buckets = BUCKETS_MIN;
	t->next_id = NODE_ROOT + 1;
	t->by_id = calloc(t->n_buckets, sizeof(struct node *));
	t->by_ino = calloc(t->n_buckets, sizeof(struct node *));
	t->root = node_new(NODE_ROOT, st.st_ino, S_IFDIR);
	mutex_init(&t->lock);
	if (!t->by_id || !t->by_ino || !t->root) {
		if (t->root)
			node_destroy(t->root, false);
		free(t->by_id);
		free(t->by_ino);
		free(t);
		return -ENOMEM;
	}
	t->root->n_lookup = t->root->n_refs = 1; /* never freed before the table */
	t->root->fd = root_fd;
	t->root->fd_users = 1; /* never evicted */
	t->n_nodes = 1;
	hash_in(t, t->root);
	*ret = t;
	return 0;
}

void nodes_free(struct nodes *t)
{
	if (!t)
		return;
	for (size_t i = 0; i < t->n_buckets; i++) {
		for (struct node *n = t->by_id[i], *next; n; n = next) {
			next = n->id_next;
			node_destroy(n, n != t->root);
		}
	}
	free(t->by_id);
	free(t->by_ino);
	mutex_destroy(&t->lock);
	free(t);
}

size_t nodes_count(struct nodes *t)
{
	size_t n;

	mutex_lock(&t->lock);
	n = t->n_nodes;
	mutex_unlock(&t->lock);
	return n;
}

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
		unhash_ino(t, n);
		unhash_id(t, n);
		if (n->dir)
			lru_drop(t, n);
		t->n_nodes--;
		node_destroy(n, true);
		n = up;
		if (n)
			n->n_refs--;
	}
}

struct node *node_get(struct nodes *t, uint64_t id)
{
	struct node *n;

	mutex_lock(&t->lock);
	for (n = t->by_id[bucket(t, id)]; n && n->id != id;)
		n = n->id_next;
	if (n)
		n->n_refs++;
	mutex_unlock(&t->lock);
	return n;
}

static struct node *find_ino(struct nodes *t, ino_t ino)
{
	struct node *n;

	for (n = t->by_ino[bucket(t, ino)]; n && n->ino != ino;)
		n = n->ino_next;
	return n;
}

struct node *node_find(struct nodes *t, ino_t ino)
{
	struct node *n;

	mutex_lock(&t->lock);
	n = find_ino(t, ino);
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
	mutex_unlock(&t->lock);
}

static struct link *find_link(struct node *n, const struct node *dir, const char *stored)
{
	struct link *l;

	for (l = n->links; l && (l->dir != dir || strcmp(l->name, stored));)
		l = l->next;
	return l;
}

/* Is @n above @dir or @dir itself?  Directories moved in the store behind our back could make it seem so; a loop would be climbed for ever. */
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

/* Compare with what was seen and remember it; the lock is held. */
static bool same_content(struct node *n, const struct stat *st)
{
	int64_t mtime = nanoseconds(&st->st_mtim);
	bool same = !n->seen || n->ours || (n->seen_size == st->st_size && n->seen_mtime == mtime);

	if (!same || !S_ISREG(n->fmt))
		return same;
	n->seen = true;
	n->ours = false;
	n->seen_size = st->st_size;
	n->seen_mtime = mtime;
	return true;
}

int node_enter(struct nodes *t, struct node *dir, const char *stored, const struct stat *st, bool live, struct node **ret)
{
	struct node *n;
	int err;

	mutex_lock(&t->lock);
	n = find_ino(t, st->st_ino);
	if (n && (n->fmt != (st->st_mode & S_IFMT) || (!live && S_ISREG(n->fmt) && !same_content(n, st)))) {
		unhash_ino(t, n); /* it is another object now, or has other content */
		n = NULL;
	}
	if (!n) {
		n = node_new(t->next_id, st->st_ino, st->st_mode & S_IFMT);
		if (!n) {
			mutex_unlock(&t->lock);
			return -ENOMEM;
		}
		if (live)
			n->ours = true;
		else
			same_content(n, st);
		t->next_id++;
		t->n_nodes++;
		hash_in(t, n);
		grow(t);
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
	for (n = t->by_id[bucket(t, id)]; n && n->id != id;)
		n = n->id_next;
	if (n && n != t->root) {
		n->n_lookup -= MIN(count, n->n_lookup);
		node_release(t, n);
	}
	mutex_unlock(&t->lock);
}

int node_check(struct nodes *t, struct node *n, const struct stat *st)
{
	bool ok;

	mutex_lock(&t->lock);
	ok = n->hashed && same_content(n, st);
	mutex_unlock(&t->lock);
	return ok ? 0 : -ESTALE;
}

void node_ours(struct nodes *t, struct node *n)
{
	mutex_lock(&t->lock);
	n->ours = true;
	mutex_unlock(&t->lock);
}

void node_unlink(struct nodes *t, ino_t ino, struct node *dir, const char *stored, bool last)
{
	struct node *n;

	mutex_lock(&t->lock);
	n = find_ino(t, ino);
	if (n) {
		drop_link(t, n, dir, stored);
		if (last) {
			unhash_ino(t, n); /* the number may come back for another object */
			n->removed = true;
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
