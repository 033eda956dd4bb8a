/* SPDX-License-Identifier: Apache-2.0 */
#include "prefetch.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "container.h"
#include "inode_i.h"
#include "lock.h"
#include "name.h"

#define WINDOW_MAX 499u                 /* and the file that is opened: one request */
#define WINDOW_FIRST 127u               /* of a listed directory that needs several: somebody waits for it, the next one comes meanwhile */
#define DIRS 64u                        /* that are walked at a time */
#define SIZE_MAX_READ ((off_t)64 << 20) /* larger files have a manifest that is not read for nothing */
#define WAIT_NS 15000000000u            /* for somebody who asks for this directory */
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
};

struct prefetch {
	struct store *st;
	struct mutex lock; /* a leaf */
	/* guarded by lock */
	struct cond changed;
	struct walk walks[DIRS];
	uint64_t clock;
	bool stop;
	int next_fd; /* for the thread: a directory whose next window is wanted; -1: none */
	struct walk *next;
	pthread_t thread;
};

/* --- one window --- */

struct window {
	struct store *st;
	int fd;           /* of the directory, to be read */
	const char *name; /* begin behind this one; NULL: at the descriptor's offset */
	struct kas_want *want;
	size_t n, max;
	off_t pos; /* out */
};

/* The key of one file, if it is to be asked for */
static void gather_one(struct window *w, const char *name)
{
	struct store *st = w->st;
	struct container_keys keys = inode_keys(st);
	struct container *c CLEANUP(container_cleanup) = NULL;
	int fd = st->io.open(st->io.ctx, w->fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
	struct inode *live;
	struct stat s;

	if (fd < 0)
		return;
	if (!st->io.stat(st->io.ctx, fd, &s) && S_ISREG(s.st_mode) && s.st_size && s.st_size <= SIZE_MAX_READ) {
		live = inode_find(st, s.st_dev, s.st_ino);
		if (live)
			inode_put(live);
		else if (!container_open(&st->io, fd, &keys, &c) && !kas_known(st->keys.kas, c->m)) {
			free(c->m->hashes); /* all that may be large */
			c->m->hashes = NULL;
			w->want[w->n++].m = STEAL(c->m);
		}
	}
	st->io.close(st->io.ctx, fd);
}

/* Fills the window up; the end of the directory is 0. */
static void gather(struct window *w)
{
	CLEANUP_FREE char *buf = malloc(DENTS_LEN);
	bool found = !w->name;
	char shown[NAME_ROOM];
	ssize_t len;

	w->pos = -1;
	while (buf && (len = getdents64(w->fd, buf, DENTS_LEN)) > 0) {
		for (ssize_t at = 0; at < len;) {
			const struct dirent64 *de = (const struct dirent64 *)(buf + at);

			at += de->d_reclen;
			if (!found)
				found = strcmp(de->d_name, w->name) == 0;
			else if ((de->d_type == DT_REG || de->d_type == DT_UNKNOWN) && !name_show(de->d_name, true, shown))
				gather_one(w, de->d_name);
			if (w->n == w->max) {
				w->pos = de->d_off;
				return;
			}
		}
	}
}

/* Gather and ask; the caller has made the walk busy.  @own: the manifest of the file that is opened, or NULL */
static void run(struct prefetch *p, struct walk *walk, struct window *w, const struct manifest *own)
{
	bool got = false;

	w->want = calloc(w->max + 1, sizeof(*w->want));
	if (w->want) {
		gather(w);
		if (own)
			w->want[w->n].m = own;
		if (w->n + !!own)
			kas_prefetch(p->st->keys.kas, w->want, w->n + !!own);
		for (size_t i = 0; i < w->n + !!own; i++)
			got |= !w->want[i].err;
		for (size_t i = 0; i < w->n; i++)
			manifest_free((struct manifest *)w->want[i].m);
	}
	mutex_lock(&p->lock);
	walk->window = (unsigned)w->n;
	walk->left = own ? walk->window : walk->left + walk->window;
	walk->pos = w->want ? w->pos : 0;
	if (w->n + !!own && !got) { /* away: nothing is gathered for nothing until something comes */
		walk->listed = false;
		walk->misses = 0;
		walk->left = 0;
	}
	walk->busy = false;
	cond_broadcast(&p->changed);
	mutex_unlock(&p->lock);
	free(w->want);
}

/* --- which, and when --- */

/* The lock is held.  The walk of a directory; NULL: all are busy */
static struct walk *walk_of(struct prefetch *p, const struct stat *dir)
{
	struct walk *oldest = NULL;

	for (size_t i = 0; i < DIRS; i++) {
		struct walk *w = &p->walks[i];

		if (w->ino == dir->st_ino && w->dev == dir->st_dev) {
			w->used = ++p->clock;
			return w;
		}
		if (!w->busy && (!oldest || w->used < oldest->used))
			oldest = w;
	}
	if (oldest)
		*oldest = (struct walk){.dev = dir->st_dev, .ino = dir->st_ino, .used = ++p->clock};
	return oldest;
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

/* Somebody is asking for this directory: perhaps for this file too. */
static void wait_while_busy(struct prefetch *p, struct walk *w)
{
	uint64_t end = now_ns() + WAIT_NS;
	const struct timespec until = {(time_t)(end / 1000000000u), (long)(end % 1000000000u)};

	while (w->busy && !cond_wait_until(&p->changed, &p->lock, &until))
		;
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

static void missed(struct prefetch *p, const struct stat *dir, int dirfd, const char *name, const struct manifest *m)
{
	struct window win = {.st = p->st, .fd = -1, .name = name};
	struct walk *w;
	bool first = false;

	mutex_lock(&p->lock);
	w = walk_of(p, dir);
	if (w && w->busy) {
		wait_while_busy(p, w);
		w = kas_known(p->st->keys.kas, m) ? NULL : walk_of(p, dir);
	}
	win.max = w && !w->busy ? window_of(w) : 0;
	if (win.max) {
		w->busy = true;
		first = w->listed && w->misses == 1;
	}
	mutex_unlock(&p->lock);
	if (!win.max)
		return;
	win.fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (first && win.fd >= 0 && dir_is_long(win.fd))
		win.max = WINDOW_FIRST;
	run(p, w, &win, m);
	close_fd(&win.fd);
}

void prefetch_note(struct store *st, int dirfd, const char *name, const struct manifest *m)
{
	struct prefetch *p = st->prefetch;
	struct walk *w;
	struct stat dir;
	bool next;

	if (!p || !*name || fstat(dirfd, &dir))
		return;
	if (!kas_known(st->keys.kas, m)) {
		missed(p, &dir, dirfd, name, m);
		return;
	}
	mutex_lock(&p->lock);
	w = walk_of(p, &dir);
	next = w && next_wanted(p, w);
	mutex_unlock(&p->lock);
	if (next)
		go_on(p, w, dirfd);
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
		struct window win = {.st = p->st, .fd = p->next_fd, .max = WINDOW_MAX};
		struct walk *w = p->next;

		if (win.fd < 0) {
			cond_wait(&p->changed, &p->lock);
			continue;
		}
		mutex_unlock(&p->lock);
		run(p, w, &win, NULL);
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
	cond_init(&p->changed);
	err = -pthread_create(&p->thread, NULL, prefetch_main, p);
	if (err) {
		cond_destroy(&p->changed);
		mutex_destroy(&p->lock);
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
	free(p);
	st->prefetch = NULL;
}
