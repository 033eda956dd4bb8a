/* SPDX-License-Identifier: Apache-2.0 */
/* Who uses which plain file: uses, claims, watches, and swaps that are not durable yet. */
#include "plain.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>

#include "attr.h"
#include "report.h"

struct plain_entry {
	struct plain_entry *next;
	ino_t ino;
	unsigned uses;
	bool claimed;
	uint64_t watcher; /* 0: none, or its watch has ended */
};

/* -1: there is none */
static int temp_dir_open(const struct store *st)
{
	int dir CLEANUP_FD = openat(st->tdfs_fd, VOLUME_CONVERT_DIR, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (dir < 0 || st->opt.read_only || (mkdirat(dir, "tmp", 0700) && errno != EEXIST))
		return -1;
	return openat(dir, "tmp", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

int plain_new(struct store *st, bool on, struct plain **ret)
{
	struct plain *p = calloc(1, sizeof(*p));

	if (!p)
		return -ENOMEM;
	mutex_init(&p->lock);
	mutex_init(&p->sync_lock);
	cond_init(&p->released);
	signal(SIGIO, SIG_IGN); /* of a lease that somebody breaks below the mount */
	p->temp_dir = on ? temp_dir_open(st) : -1;
	p->on = st->converting = on;
	p->sync_fd = on ? openat(st->root_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	if (on && p->sync_fd < 0) {
		int err = -errno;

		plain_free(p);
		return err;
	}
	*ret = p;
	return 0;
}

void plain_start(const struct tree *t)
{
	struct plain *p = t->plain;

	if (p->temp_dir < 0) /* else of the conversion before */
		p->temp_dir = temp_dir_open(t->store);
	t->store->converting = true;
	p->on = true;
}

void plain_free(struct plain *p)
{
	if (!p)
		return;
	for (size_t i = 0; i < PLAIN_BUCKETS; i++)
		while (p->buckets[i]) {
			struct plain_entry *e = p->buckets[i];

			p->buckets[i] = e->next;
			free(e);
		}
	close_fd(&p->temp_dir);
	close_fd(&p->sync_fd);
	mutex_destroy(&p->lock);
	mutex_destroy(&p->sync_lock);
	cond_destroy(&p->released);
	free(p);
}

static struct plain_entry **bucket(struct plain *p, ino_t ino)
{
	return &p->buckets[(uint64_t)ino * 0x9E3779B97F4A7C15u >> 40 & (PLAIN_BUCKETS - 1)];
}

static struct plain_entry *find(struct plain *p, ino_t ino)
{
	struct plain_entry *e = *bucket(p, ino);

	while (e && e->ino != ino)
		e = e->next;
	return e;
}

static struct plain_entry *find_or_add(struct plain *p, ino_t ino)
{
	struct plain_entry *e = find(p, ino), **b = bucket(p, ino);

	if (e)
		return e;
	e = calloc(1, sizeof(*e));
	if (!e)
		return NULL;
	e->ino = ino;
	e->next = *b;
	*b = e;
	return e;
}

static void drop_idle(struct plain *p, struct plain_entry *e)
{
	struct plain_entry **at = bucket(p, e->ino);

	if (e->uses || e->claimed || e->watcher)
		return;
	while (*at != e)
		at = &(*at)->next;
	*at = e->next;
	free(e);
}

int plain_use(const struct tree *t, struct node *n, ino_t *ret)
{
	struct plain *p = t->plain;
	struct plain_entry *e;

	*ret = 0;
	if (!p || !n->plain)
		return 0;
	if (!p->on)
		return fail(-EIO, "a plain file, and the volume is strict");
	mutex_lock(&p->lock);
	while ((e = find_or_add(p, n->ino)) && e->claimed)
		cond_wait(&p->released, &p->lock);
	if (e && n->plain) {
		*ret = e->ino;
		e->uses++;
		e->watcher = 0;
	} else if (e) {
		drop_idle(p, e);
	}
	mutex_unlock(&p->lock);
	return e ? 0 : -ENOMEM;
}

int plain_begin(const struct tree *t, struct node *n, ino_t *ret)
{
	int err = plain_use(t, n, ret);

	return err || *ret ? err : plain_durable(t, n->ino);
}

void plain_unuse(const struct tree *t, ino_t ino)
{
	struct plain *p = t->plain;
	struct plain_entry *e;

	if (!ino)
		return;
	mutex_lock(&p->lock);
	e = find(p, ino);
	e->uses--;
	drop_idle(p, e);
	mutex_unlock(&p->lock);
}

uint64_t plain_watcher(struct plain *p)
{
	uint64_t id;

	mutex_lock(&p->lock);
	id = ++p->next_watcher;
	mutex_unlock(&p->lock);
	return id;
}

/* An open handle is a live content object; without one the kernel holds no dirty pages either, since each has a file open. */
static bool is_open(const struct tree *t, ino_t ino)
{
	struct inode *f = inode_find(t->store, t->nodes->dev, ino);

	content_put(f);
	return f;
}

int plain_watch(const struct tree *t, ino_t ino, uint64_t watcher)
{
	struct plain *p = t->plain;
	struct plain_entry *e;
	int err = 0;

	mutex_lock(&p->lock);
	e = find_or_add(p, ino);
	if (!e)
		err = -ENOMEM;
	else if (e->uses || e->claimed || is_open(t, ino))
		err = -EBUSY;
	else
		e->watcher = watcher;
	if (e)
		drop_idle(p, e);
	mutex_unlock(&p->lock);
	return err;
}

void plain_unwatch(struct plain *p, ino_t ino, uint64_t watcher)
{
	mutex_lock(&p->lock);
	for (size_t i = 0; i < PLAIN_BUCKETS; i++)
		for (struct plain_entry *e = p->buckets[i], *next; e; e = next) {
			next = e->next;
			if (e->watcher != watcher || (ino && e->ino != ino))
				continue;
			e->watcher = 0;
			drop_idle(p, e);
		}
	mutex_unlock(&p->lock);
}

int plain_claim(const struct tree *t, ino_t ino, uint64_t watcher)
{
	struct plain *p = t->plain;
	struct plain_entry *e;
	int err = 0;

	mutex_lock(&p->lock);
	e = find(p, ino);
#ifdef TEST_NO_FREEZE /* the build that the stress test must find fault with */
	e = find_or_add(p, ino);
	if (!e)
		err = -ENOMEM;
#else
	if (!e || e->claimed || e->uses || e->watcher != watcher || is_open(t, ino))
		err = -EBUSY;
#endif
	else
		e->claimed = true;
	mutex_unlock(&p->lock);
	return err;
}

void plain_release(struct plain *p, ino_t ino, ino_t fresh)
{
	struct plain_entry *e;

	mutex_lock(&p->lock);
	e = find(p, ino);
	e->claimed = false;
	e->watcher = 0;
	drop_idle(p, e);
	if (fresh)
		p->fresh[p->n_fresh++] = fresh; /* plain_session_swap() has made room */
	cond_broadcast(&p->released);
	mutex_unlock(&p->lock);
}

static bool is_fresh(struct plain *p, ino_t ino)
{
	size_t n;

	mutex_lock(&p->lock);
	for (n = p->n_fresh; n && p->fresh[n - 1] != ino;)
		n--;
	mutex_unlock(&p->lock);
	return n;
}

int plain_durable(const struct tree *t, ino_t ino)
{
	struct plain *p = t->plain;
	size_t before;
	int err = 0;

	if (!p || !p->n_fresh || (ino && !is_fresh(p, ino)))
		return 0;
	mutex_lock(&p->sync_lock);
	if (!ino || is_fresh(p, ino)) { /* else the one before us did it */
		before = p->n_fresh;
		err = syncfs(t->store->root_fd) ? -errno : 0;
		mutex_lock(&p->lock);
		if (!err) {
			p->n_fresh -= before;
			memmove(p->fresh, p->fresh + before, p->n_fresh * sizeof(p->fresh[0]));
		}
		mutex_unlock(&p->lock);
	}
	mutex_unlock(&p->sync_lock);
	return err ? fail(err, "the store could not be synced: %s", strerror(-err)) : 0;
}

int plain_sync(const struct tree *t)
{
	return syncfs(t->plain->sync_fd) ? fail(-errno, "the store could not be synced: %s", strerror(errno)) : 0;
}
