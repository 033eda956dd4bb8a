/* SPDX-License-Identifier: Apache-2.0 */
#include "prefetch.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "inode_i.h"
#include "prefetch_i.h"

#define WAIT_NS 5000000000u /* for somebody who asks for this directory; then the KAS is late */
#define DENTS_LEN 32768

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
		kas_prefetch(p->st->keys.kas, w->want, w->n + !!own, w->end);
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
	if (got && w->n && w->at && (!own_dir || strcmp(w->at, own_dir) != 0)) {
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

/* --- the next window --- */

static void go_on(struct prefetch *p, struct walk *w, int dirfd)
{
	int fd = io_openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_NOATIME, 0);
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

static int missed(struct prefetch *p, const struct stat *dir, int dirfd, const char *name, const char *path, const struct manifest *m,
		  uint64_t wait_end)
{
	size_t len = strrchr(path, '/') ? (size_t)(strrchr(path, '/') - path) : 0;
	CLEANUP_FREE char *dir_path = strndup(path, len);
	struct window win = {.fd = -1, .name = name, .path = dir_path, .end = wait_end};
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
	win.fd = io_openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_NOATIME, 0);
	if (first && win.fd >= 0 && dir_is_long(win.fd))
		win.max = WINDOW_FIRST;
	win.wide = MIN(win.wide, win.max);
	err = run(p, w, &win, m);
	close_fd(&win.fd);
	/* what is no verdict was waited for long enough: not once more alone */
	return err == -ETIMEDOUT ? fail(err, "the KAS does not answer") : 0;
}

int prefetch_note(struct store *st, int dirfd, const char *name, const char *path, const struct manifest *m, uint64_t end)
{
	struct prefetch *p = st->prefetch;
	const char *slash = strrchr(path, '/');
	struct walk *w;
	struct stat dir;
	bool next, front;

	if (!p || !*name || fstat(dirfd, &dir))
		return 0;
	if (!kas_known(st->keys.kas, m))
		return missed(p, &dir, dirfd, name, path, m, end);
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
