/* SPDX-License-Identifier: Apache-2.0 */
/* The table behind node.c: two hashes, growing with what is in them.  Its lock is held by the callers. */
#include <errno.h>
#include <sys/stat.h>

#include "inode.h"
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

void table_hide(struct nodes *t, struct node *n)
{
	struct node **p = &t->by_ino[bucket(t, n->ino)];

	if (!n->hashed)
		return;
	while (*p != n)
		p = &(*p)->ino_next;
	*p = n->ino_next;
	n->hashed = false;
}

bool node_refuse(struct nodes *t, struct node *n, int err)
{
	bool first;

	mutex_lock(&t->lock);
	first = !n->refused;
	n->refused = err;
	table_hide(t, n);
	mutex_unlock(&t->lock);
	return first;
}

void table_renumber(struct nodes *t, struct node *n, ino_t ino)
{
	struct node **to = &t->by_ino[bucket(t, ino)];

	table_hide(t, n);
	n->ino = ino;
	n->hashed = true;
	n->ino_next = *to;
	*to = n;
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

struct node *table_by_id(struct nodes *t, uint64_t id)
{
	struct node *n;

	for (n = t->by_id[bucket(t, id)]; n && n->id != id;)
		n = n->id_next;
	return n;
}

struct node *table_by_ino(struct nodes *t, ino_t ino)
{
	struct node *n;

	for (n = t->by_ino[bucket(t, ino)]; n && n->ino != ino;)
		n = n->ino_next;
	return n;
}

void table_add(struct nodes *t, struct node *n)
{
	hash_in(t, n);
	t->n_nodes++;
	grow(t);
}

void table_remove(struct nodes *t, struct node *n)
{
	table_hide(t, n);
	unhash_id(t, n);
	t->n_nodes--;
}

struct node *node_new(uint64_t id, ino_t ino, mode_t fmt)
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

void node_destroy(struct node *n, bool close_it)
{
	while (n->links) {
		struct link *l = n->links;

		n->links = l->next;
		free(l);
	}
	if (n->content) {
		inode_closed(n->content, false);
		inode_put(n->content);
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

size_t nodes_idle(struct nodes *t, size_t *cursor, struct node_name *ret, size_t max)
{
	size_t found = 0;

	mutex_lock(&t->lock);
	for (; *cursor < t->n_buckets && found < max; ++*cursor) {
		for (struct node *n = t->by_id[*cursor]; n && found < max; n = n->id_next) {
			/* directories stay: dropping one that is somebody's working directory would be seen */
			if (n->dir || n->n_refs || !n->links || name_show(n->links->name, S_ISREG(n->fmt), ret[found].name))
				continue;
			ret[found++].dir = n->links->dir->id;
		}
	}
	mutex_unlock(&t->lock);
	return found;
}
