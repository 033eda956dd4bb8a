/* SPDX-License-Identifier: Apache-2.0 */
/* Which directories are being walked, and how much is asked for when: what prefetch.c knows about them. */
#include <errno.h>
#include <sys/stat.h>

#include "inode_i.h"
#include "prefetch_i.h"

#define LEVELS 16u             /* above a file that are looked at */
#define STEADY_NS 10000000000u /* who goes from directory to directory comes to the next one within that time */

/* --- which, and when --- */

/* The last one to be forgotten is the directory whose directories are being walked, one after the other */
static uint64_t walk_worth(const struct walk *w, uint64_t now)
{
	return w->used + (w->children > 1 && now - w->child_when < STEADY_NS ? UINT64_MAX / 2 : 0);
}

/* The lock is held.  NULL: none */
struct walk *walk_find(struct prefetch *p, const struct stat *dir)
{
	for (size_t i = 0; i < DIRS; i++) {
		struct walk *w = &p->walks[i];

		if (w->ino == dir->st_ino && w->dev == dir->st_dev) {
			w->used = ++p->clock;
			return w;
		}
	}
	return NULL;
}

/* The lock is held.  The walk of a directory; NULL: all are busy */
struct walk *walk_of(struct prefetch *p, const struct stat *dir)
{
	struct walk *oldest = NULL, *is = walk_find(p, dir);
	uint64_t now = now_ns();

	for (size_t i = 0; i < DIRS && !is; i++) {
		struct walk *w = &p->walks[i];

		if (!w->busy && (!oldest || walk_worth(w, now) < walk_worth(oldest, now)))
			oldest = w;
	}
	if (oldest)
		*oldest = (struct walk){.dev = dir->st_dev, .ino = dir->st_ino, .used = ++p->clock};
	return is ? is : oldest;
}

/* The lock is held: how many besides the one that is opened */
unsigned window_of(struct walk *w)
{
	static const unsigned grows[] = {0, 8, 64, WINDOW_MAX};

	w->misses = MIN(w->misses + 1, (unsigned)ARRAY_SIZE(grows));
	return w->listed ? WINDOW_MAX : grows[w->misses - 1];
}

/* Of the window after one of @size: so that the first ones are there before what came before them is used up */
unsigned size_next(unsigned size)
{
	return MIN(2 * MAX(size, WINDOW_GUESS), WINDOW_MAX);
}

/* The next window begins when no more are left: a walk that has only begun may end */
unsigned ahead_of(unsigned size)
{
	return size < WINDOW_MAX ? size : AHEAD;
}

/* The lock is held, for a file whose key is known or on its way: is it time for the next window?  Takes the walk. */
bool next_wanted(struct prefetch *p, struct walk *w)
{
	if (!w->left)
		return false;
	w->left--;
	if (w->busy || w->left > (w->listed ? ahead_of(w->size) : w->window / 2) || w->pos <= 0 || p->next_fd >= 0)
		return false;
	w->busy = true;
	return true;
}

/* The lock is held: does a thread ask for this file just now? */
bool in_flight(const struct prefetch *p, ino_t ino)
{
	for (size_t t = 0; t < THREADS; t++)
		for (size_t i = 0; p->flights[t] && i < p->flights[t]->n; i++)
			if (p->flights[t]->inos[i] == ino)
				return true;
	return false;
}

/* --- walks through many directories --- */

/* The lock is held: a key was missed below @w, in @child or deeper.  In how many of its directories now, one after the other? */
static unsigned child_note(struct walk *w, ino_t child)
{
	uint64_t now = now_ns();

	if (now - w->child_when > STEADY_NS)
		w->children = 0;
	if (!w->children || w->child != child)
		w->children++;
	w->child = child;
	w->child_when = now;
	return w->children;
}

/*
 * A key is missed in the directory @path, which is @dir.  Is this a walk through the directories beside it too: has a key been missed in
 * others of a directory above, which was listed?  The highest of these: the length of its path, and in how many; -1: no
 */
ssize_t scope_of(struct prefetch *p, const char *path, size_t len, const struct stat *dir, unsigned *ret_children)
{
	ino_t child = dir->st_ino;
	ssize_t scope = -1;

	for (unsigned i = 0; i < LEVELS && len; i++) {
		CLEANUP_FREE char *up = NULL;
		CLEANUP_FD int fd = -1;
		struct walk *w;
		struct stat s;
		unsigned n;

		while (len && path[--len] != '/')
			;
		up = strndup(path, len);
		fd = up ? dir_beneath(p->st, up) : -ENOMEM;
		if (fd < 0 || fstat(fd, &s))
			break;
		mutex_lock(&p->lock);
		w = walk_of(p, &s);
		n = w && w->listed ? child_note(w, child) : 0;
		mutex_unlock(&p->lock);
		if (!n)
			break;
		if (n > 1) {
			scope = (ssize_t)len;
			*ret_children = n;
		}
		child = s.st_ino;
	}
	return scope;
}

/* The lock is held: the front becomes that of a window from @dir on; false: somebody is at it, or no memory */
bool front_take(struct prefetch *p, const char *path, size_t scope_len, unsigned children, struct window *win)
{
	struct front *f = &p->front;
	uint64_t now = now_ns();
	char *scope;
	bool again;

	if (f->busy)
		return false;
	scope = strndup(path, scope_len);
	if (!scope)
		return false;
	again = f->scope && strcmp(f->scope, scope) == 0 && now - f->when < STEADY_NS;
	free(f->scope);
	f->scope = scope;
	f->busy = true;
	f->going = false;
	f->when = now;
	win->scope = scope;
	/* who waits for it waits for little if the threads can go on; if they were ahead of it in vain it is a walk in another order, and
	 * each of its misses would be the start of one: it grows as if they had asked */
	win->wide = f->size = again ? size_next(f->size) : children < 3 ? WINDOW_GUESS : WINDOW_FIRST;
	return true;
}

/* The lock is held: will a thread take the next window now? */
bool front_ready(const struct front *f)
{
	return f->going && f->at && !f->busy && f->left <= ahead_of(f->size);
}

/* The lock is held: a key that is known, or on its way, is used; true: there is something to do for a thread */
bool front_used(struct prefetch *p, const char *path, size_t len)
{
	struct front *f = &p->front;

	if (!f->scope || !path_within(path, len, f->scope))
		return false;
	f->left -= f->left > 0;
	f->going = true;
	return front_ready(f);
}
