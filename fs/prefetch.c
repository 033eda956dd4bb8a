/* SPDX-License-Identifier: Apache-2.0 */
#include "prefetch.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "inode_i.h"
#include "prefetch_i.h"

#define DIRS 64u               /* that are walked at a time */
#define LEVELS 16u             /* above a file that are looked at */
#define WAIT_NS 5000000000u    /* for somebody who asks for this directory; then the KAS is late */
#define STEADY_NS 10000000000u /* who goes from directory to directory comes to the next one within that time */
#define DENTS_LEN 32768

struct walk { /* of one directory */
	dev_t dev;
	ino_t ino; /* 0: free */
	uint64_t used;
	bool listed;
	bool busy;       /* somebody gathers and asks */
	unsigned misses; /* keys that nobody knew */
	unsigned window; /* keys asked for last time */
	unsigned left;   /* keys that were asked for and have not been used */
	off_t pos;       /* where the next window begins; -1: at the end, 0: not known */
	/* of the directories in it, one after the other: in how many has a key been missed, in which last, when */
	unsigned children;
	ino_t child;
	uint64_t child_when;
};

/* A walk through many directories: the thread is ahead of it. */
struct front {
	char *scope, *at; /* what is walked; where the next window begins: NULL none, or the end */
	off_t pos;
	unsigned left; /* as of a walk */
	bool busy;     /* somebody gathers and asks; what is owned here is his */
	bool wanted;   /* by the thread */
};

struct prefetch {
	struct store *st;
	struct seen seen;
	struct mutex lock; /* a leaf */
	/* guarded by lock */
	struct cond changed;
	struct walk walks[DIRS];
	uint64_t clock;
	bool stop;
	int next_fd; /* for the thread: a directory whose next window is wanted; -1: none */
	struct walk *next;
	struct front front;
	pthread_t thread;
};

/* --- one window --- */

/* Gather and ask.  @own: the manifest of the file that is opened, or NULL; what was said about it is in @ret_own.  Has anything come, or
 * was nothing missing? */
static bool ask(struct prefetch *p, struct window *w, const struct manifest *own, int *ret_own)
{
	CLEANUP_FREE ino_t *inos = NULL;
	bool got = false;

	w->st = p->st;
	w->seen = &p->seen;
	w->pos = 0;
	w->want = calloc(w->max + 1, sizeof(*w->want));
	inos = w->inos = calloc(w->max, sizeof(*inos));
	if (!w->want || !inos) {
		free(STEAL(w->want));
		return false;
	}
	window_gather(w);
	if (own)
		w->want[w->n].m = own;
	if (w->n + !!own)
		kas_prefetch(p->st->keys.kas, w->want, w->n + !!own);
	for (size_t i = 0; i < w->n + !!own; i++)
		got |= !w->want[i].err;
	if (own)
		*ret_own = w->want[w->n].err;
	for (size_t i = 0; i < w->n; i++)
		manifest_free((struct manifest *)w->want[i].m);
	free(STEAL(w->want));
	return got || !(w->n + !!own);
}

/* The lock is held and the front is ours: @w was asked for, the next one begins where it was full.  @own_dir: there its walk goes on by
 * itself */
static void front_end(struct front *f, struct window *w, bool got, const char *own_dir)
{
	free(STEAL(f->at));
	if (got && w->at && (!own_dir || strcmp(w->at, own_dir) != 0)) {
		f->at = STEAL(w->at);
		f->pos = w->pos;
	}
	f->left += (unsigned)w->n;
	f->busy = false;
}

/* The caller has made the walk busy, and the front if the window has a scope */
static int run(struct prefetch *p, struct walk *walk, struct window *w, const struct manifest *own)
{
	int err = 0;
	bool got = ask(p, w, own, &err);
	bool here = w->at && (!w->path || strcmp(w->at, w->path) == 0);

	mutex_lock(&p->lock);
	walk->window = (unsigned)w->n;
	walk->left = own ? walk->window : walk->left + walk->window;
	walk->pos = here || !w->at ? w->pos : -1;
	if (!got) { /* away: nothing is gathered for nothing until something comes */
		walk->listed = false;
		walk->misses = 0;
		walk->left = 0;
	}
	if (w->scope) {
		p->front.left = 0;
		front_end(&p->front, w, got, w->path);
	}
	walk->busy = false;
	cond_broadcast(&p->changed);
	mutex_unlock(&p->lock);
	free(STEAL(w->at));
	return err;
}

/* The thread's next window of the front, which is busy */
static void run_front(struct prefetch *p)
{
	struct front *f = &p->front;
	struct window w = {.path = f->at, .scope = f->scope, .max = WINDOW_MAX, .wide = WINDOW_MAX};
	bool got = false;

	w.fd = dir_beneath(p->st, f->at);
	if (w.fd >= 0 && lseek(w.fd, f->pos, SEEK_SET) == f->pos)
		got = ask(p, &w, NULL, NULL);
	close_fd(&w.fd);
	mutex_lock(&p->lock);
	front_end(f, &w, got, NULL);
	cond_broadcast(&p->changed);
	mutex_unlock(&p->lock);
	free(w.at);
}

/* --- which, and when --- */

/* The last one to be forgotten is the directory whose directories are being walked, one after the other */
static uint64_t walk_worth(const struct walk *w, uint64_t now)
{
	return w->used + (w->children > 1 && now - w->child_when < STEADY_NS ? UINT64_MAX / 2 : 0);
}

/* The lock is held.  NULL: none */
static struct walk *walk_find(struct prefetch *p, const struct stat *dir)
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
static struct walk *walk_of(struct prefetch *p, const struct stat *dir)
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
static unsigned window_of(struct walk *w)
{
	static const unsigned grows[] = {0, 8, 64, WINDOW_MAX};

	w->misses = MIN(w->misses + 1, (unsigned)ARRAY_SIZE(grows));
	return w->listed ? WINDOW_MAX : grows[w->misses - 1];
}

/* The lock is held, for a file whose key is known: is it time for the next window?  Takes the walk. */
static bool next_wanted(struct prefetch *p, struct walk *w)
{
	if (!w->left)
		return false;
	w->left--;
	if (w->busy || w->left > (w->listed ? WINDOW_MAX : w->window / 2) || w->pos <= 0 || p->next_fd >= 0)
		return false;
	w->busy = true;
	return true;
}

static void go_on(struct prefetch *p, struct walk *w, int dirfd)
{
	int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bool taken;

	mutex_lock(&p->lock);
	taken = fd >= 0 && p->next_fd < 0 && lseek(fd, w->pos, SEEK_SET) == w->pos;
	if (taken) {
		p->next_fd = fd;
		p->next = w;
	} else {
		w->busy = false;
	}
	cond_broadcast(&p->changed);
	mutex_unlock(&p->lock);
	if (!taken && fd >= 0)
		close(fd);
}

/* More files than one request takes?  The descriptor is at its beginning afterwards. */
static bool dir_is_long(int fd)
{
	CLEANUP_FREE char *buf = malloc(DENTS_LEN);
	unsigned n = 0;
	ssize_t len;

	while (buf && n <= WINDOW_MAX + 1 && (len = getdents64(fd, buf, DENTS_LEN)) > 0)
		for (ssize_t at = 0; at < len; at += ((const struct dirent64 *)(buf + at))->d_reclen)
			n += ((const struct dirent64 *)(buf + at))->d_type != DT_DIR;
	return lseek(fd, 0, SEEK_SET) == 0 && n > WINDOW_MAX + 1;
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
static ssize_t scope_of(struct prefetch *p, const char *path, size_t len, const struct stat *dir, unsigned *ret_children)
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
static bool front_take(struct prefetch *p, const char *path, size_t scope_len, unsigned children, struct window *win)
{
	struct front *f = &p->front;
	char *scope;
	bool again;

	if (f->busy || f->wanted)
		return false;
	scope = strndup(path, scope_len);
	if (!scope)
		return false;
	again = f->scope && strcmp(f->scope, scope) == 0;
	free(f->scope);
	f->scope = scope;
	f->busy = true;
	win->scope = scope;
	/* who waits for it waits for little if the thread can go on; if the thread was ahead of it in vain it is no walk in this order */
	win->wide = children < 3 ? WINDOW_GUESS : again ? WINDOW_MAX : WINDOW_FIRST;
	return true;
}

/* The lock is held: a key that is known is used; is it time for the front's next window? */
static bool front_wanted(struct prefetch *p, const char *path, size_t len)
{
	struct front *f = &p->front;

	if (!f->scope || !path_within(path, len, f->scope))
		return false;
	f->left -= f->left > 0;
	if (f->busy || f->wanted || !f->at || f->left > WINDOW_MAX)
		return false;
	f->wanted = true;
	return true;
}

/* --- an open --- */

static bool is_busy(const struct prefetch *p, const struct walk *w, const char *path, size_t len)
{
	return w->busy || ((p->front.busy || p->front.wanted) && path_within(path, len, p->front.scope));
}

/* Somebody is asking for this directory, or for those around it: perhaps for this file too. */
static bool wait_while_busy(struct prefetch *p, struct walk *w, const char *path, size_t len)
{
	uint64_t end = now_ns() + WAIT_NS;
	const struct timespec until = {(time_t)(end / 1000000000u), (long)(end % 1000000000u)};

	while (is_busy(p, w, path, len))
		if (cond_wait_until(&p->changed, &p->lock, &until))
			return false;
	return true;
}

static int missed(struct prefetch *p, const struct stat *dir, int dirfd, const char *name, const char *path, const struct manifest *m)
{
	size_t len = strrchr(path, '/') ? (size_t)(strrchr(path, '/') - path) : 0;
	CLEANUP_FREE char *dir_path = strndup(path, len);
	struct window win = {.fd = -1, .name = name, .path = dir_path};
	unsigned children = 0;
	bool late = false;
	struct walk *w;
	bool first = false;
	ssize_t scope;
	int err;

	mutex_lock(&p->lock);
	w = walk_of(p, dir);
	if (w && is_busy(p, w, path, len)) {
		late = !wait_while_busy(p, w, path, len);
		w = kas_known(p->st->keys.kas, m) ? NULL : walk_of(p, dir);
	}
	mutex_unlock(&p->lock);
	if (w && late)
		return fail(-ETIMEDOUT, "the KAS is late: somebody waits for the keys of this directory already");
	if (!w || !dir_path)
		return 0;
	scope = scope_of(p, path, len, dir, &children);
	mutex_lock(&p->lock);
	w = walk_of(p, dir);
	win.max = w && !w->busy ? window_of(w) : 0;
	if (win.max) {
		w->busy = true;
		first = w->listed && w->misses == 1;
		if (w->listed && scope >= 0)
			(void)front_take(p, path, (size_t)scope, children, &win);
	}
	mutex_unlock(&p->lock);
	if (!win.max)
		return 0;
	win.fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (first && win.fd >= 0 && dir_is_long(win.fd))
		win.max = WINDOW_FIRST;
	win.wide = MIN(win.wide, win.max);
	err = run(p, w, &win, m);
	close_fd(&win.fd);
	/* what is no verdict was waited for long enough: not once more alone */
	return err == -ETIMEDOUT ? fail(err, "the KAS does not answer") : 0;
}

int prefetch_note(struct store *st, int dirfd, const char *name, const char *path, const struct manifest *m)
{
	struct prefetch *p = st->prefetch;
	const char *slash = strrchr(path, '/');
	struct walk *w;
	struct stat dir;
	bool next, front;

	if (!p || !*name || fstat(dirfd, &dir))
		return 0;
	if (!kas_known(st->keys.kas, m))
		return missed(p, &dir, dirfd, name, path, m);
	mutex_lock(&p->lock);
	w = walk_find(p, &dir);
	next = w && next_wanted(p, w);
	front = front_wanted(p, path, slash ? (size_t)(slash - path) : 0);
	if (front)
		cond_broadcast(&p->changed);
	mutex_unlock(&p->lock);
	if (next)
		go_on(p, w, dirfd);
	return 0;
}

void prefetch_listed(struct store *st, int dirfd)
{
	struct prefetch *p = st->prefetch;
	struct walk *w;
	struct stat dir;

	if (!p || fstat(dirfd, &dir))
		return;
	mutex_lock(&p->lock);
	w = walk_of(p, &dir);
	if (w)
		w->listed = true;
	mutex_unlock(&p->lock);
}

static void *prefetch_main(void *arg)
{
	struct prefetch *p = arg;

	mutex_lock(&p->lock);
	while (!p->stop) {
		struct window win = {.fd = p->next_fd, .max = WINDOW_MAX};
		struct walk *w = p->next;

		if (p->front.wanted) {
			p->front.wanted = false;
			p->front.busy = true;
			mutex_unlock(&p->lock);
			run_front(p);
			mutex_lock(&p->lock);
			continue;
		}
		if (win.fd < 0) {
			cond_wait(&p->changed, &p->lock);
			continue;
		}
		mutex_unlock(&p->lock);
		(void)run(p, w, &win, NULL);
		close(win.fd);
		mutex_lock(&p->lock);
		p->next_fd = -1;
	}
	close_fd(&p->next_fd);
	mutex_unlock(&p->lock);
	return NULL;
}

int prefetch_start(struct store *st)
{
	struct prefetch *p;
	int err;

	if (st->opt.no_threads || !kas_is_remote(st->keys.kas))
		return 0;
	p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	p->st = st;
	p->next_fd = -1;
	mutex_init(&p->lock);
	mutex_init(&p->seen.lock);
	cond_init(&p->changed);
	err = -pthread_create(&p->thread, NULL, prefetch_main, p);
	if (err) {
		cond_destroy(&p->changed);
		mutex_destroy(&p->lock);
		mutex_destroy(&p->seen.lock);
		free(p);
		return fail(err, "no thread to prefetch keys: %s", strerror(-err));
	}
	st->prefetch = p;
	return 0;
}

void prefetch_stop(struct store *st)
{
	struct prefetch *p = st->prefetch;

	if (!p)
		return;
	mutex_lock(&p->lock);
	p->stop = true;
	cond_broadcast(&p->changed);
	mutex_unlock(&p->lock);
	pthread_join(p->thread, NULL);
	cond_destroy(&p->changed);
	mutex_destroy(&p->lock);
	mutex_destroy(&p->seen.lock);
	free(p->front.scope);
	free(p->front.at);
	free(p);
	st->prefetch = NULL;
}
