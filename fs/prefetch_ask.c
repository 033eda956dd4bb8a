/* SPDX-License-Identifier: Apache-2.0 */
/* Asking for what was gathered: for an open, which waits for it, and ahead of those who will. */
#include <unistd.h>

#include "inode_i.h"
#include "prefetch_i.h"

/* --- one window --- */

/* false: no memory */
static bool gather(struct prefetch *p, struct window *w)
{
	w->st = p->st;
	w->p = p;
	w->seen = &p->seen;
	w->pos = 0;
	w->want = calloc(w->max + 1, sizeof(*w->want));
	w->inos = calloc(w->max, sizeof(*w->inos));
	if (!w->want || !w->inos)
		return false;
	window_gather(w);
	return true;
}

/* @own: the manifest of the file that is opened, or NULL; what was said about it is in @ret_own.  Has anything come, or was nothing
 * missing? */
static bool ask(struct prefetch *p, struct window *w, const struct manifest *own, int *ret_own)
{
	size_t n = w->n + !!own;
	bool got = !n;

	if (own)
		w->want[w->n].m = own;
	if (n)
		kas_prefetch(p->st->keys.kas, w->want, n, w->end);
	for (size_t i = 0; i < n; i++)
		got |= !w->want[i].err;
	if (own)
		*ret_own = w->want[w->n].err;
	return got;
}

static void window_free(struct window *w)
{
	for (size_t i = 0; i < w->n && w->want; i++)
		manifest_free((struct manifest *)w->want[i].m);
	free(STEAL(w->want));
	free(STEAL(w->inos));
	free(STEAL(w->at));
	close_fd(&w->fd);
}

/* The lock is held and the front is ours: @w was gathered, the next one begins where it was full, if @go_on */
static void front_end(struct front *f, struct window *w, bool go_on)
{
	free(STEAL(f->at));
	if (go_on && w->n && w->at) {
		f->at = strdup(w->at);
		f->pos = w->pos;
	}
	f->left += (unsigned)w->n;
	f->busy = false;
}

/* The lock is held and the walk is ours: likewise */
static void walk_end(struct walk *walk, struct window *w)
{
	bool here = w->at && (!w->path || strcmp(w->at, w->path) == 0);

	walk->window = (unsigned)w->n;
	walk->left += walk->window;
	walk->pos = here || !w->at ? w->pos : -1;
	walk->size = MAX(w->max, walk->size);
	walk->busy = false;
}

/* Away: nothing is gathered for nothing until something comes */
static void walk_away(struct walk *walk)
{
	walk->listed = false;
	walk->misses = 0;
	walk->left = 0;
}

/* An open's own: whoever else misses something there waits for it.  The caller has made the walk busy, and the front if the window has a
 * scope */
int run_own(struct prefetch *p, struct walk *walk, struct window *w, const struct manifest *own)
{
	bool got = false;
	int err = 0;

	if (gather(p, w))
		got = ask(p, w, own, &err);
	mutex_lock(&p->lock);
	walk->left = walk->size = 0;
	walk_end(walk, w);
	if (!got)
		walk_away(walk);
	if (w->scope) {
		p->front.left = 0;
		front_end(&p->front, w, got);
		if (p->front.at)
			walk->pos = -1; /* the front goes on, here too */
	}
	cond_broadcast(&p->changed);
	mutex_unlock(&p->lock);
	window_free(w);
	return err;
}

/* --- a thread's windows --- */

/* The lock is held, now and at the end: what was gathered is asked for, while the next thread gathers what comes then.  Has it come? */
static bool fly(struct prefetch *p, struct window *w)
{
	unsigned slot = 0;
	bool got;

	cond_broadcast(&p->changed);
	if (!w->n)
		return true;
	while (p->flights[slot]) /* as many as threads */
		slot++;
	p->flights[slot] = w;
	mutex_unlock(&p->lock);
	got = ask(p, w, NULL, NULL);
	mutex_lock(&p->lock);
	p->flights[slot] = NULL;
	p->failures += !got;
	cond_broadcast(&p->changed);
	return got;
}

void run_walk(struct prefetch *p, struct walk *walk, int fd)
{
	const struct stat dir = {.st_dev = walk->dev, .st_ino = walk->ino};
	struct window w = {.fd = fd, .max = walk->listed ? size_next(walk->size) : WINDOW_MAX};

	mutex_unlock(&p->lock);
	if (!gather(p, &w))
		w.pos = -1;
	mutex_lock(&p->lock);
	walk_end(walk, &w);
	if (!fly(p, &w)) {
		walk = walk_find(p, &dir); /* it may have been forgotten meanwhile */
		if (walk)
			walk_away(walk);
	}
	mutex_unlock(&p->lock);
	window_free(&w);
	mutex_lock(&p->lock);
}

void run_front(struct prefetch *p)
{
	struct front *f = &p->front;
	struct window w = {.path = f->at, .scope = f->scope, .fd = -1};
	uint64_t failures = p->failures;
	off_t pos = f->pos;
	bool ok;

	w.max = w.wide = f->size = size_next(f->size);
	f->busy = true;
	mutex_unlock(&p->lock);
	w.fd = dir_beneath(p->st, w.path);
	ok = w.fd >= 0 && lseek(w.fd, pos, SEEK_SET) == pos && gather(p, &w);
	mutex_lock(&p->lock);
	front_end(f, &w, ok && failures == p->failures);
	w.path = w.scope = NULL; /* are the front's */
	if (!fly(p, &w) && !f->busy)
		free(STEAL(f->at));
	mutex_unlock(&p->lock);
	window_free(&w);
	mutex_lock(&p->lock);
}
