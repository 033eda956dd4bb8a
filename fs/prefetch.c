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

struct sought { /* a file that is opened */
	int dirfd;
	const char *name, *path;
	size_t dir_len; /* of @path, without the name */
	ino_t ino;
	struct stat dir;
	const struct manifest *m;
	uint64_t end; /* when it has been waited for long enough */
};

/* The lock is held: is there a thread that is not asking? */
static bool thread_free(const struct prefetch *p)
{
	for (size_t t = 0; t < THREADS; t++)
		if (!p->flights[t])
			return true;
	return false;
}

static bool is_busy(const struct prefetch *p, const struct walk *w, const struct sought *s)
{
	return w->busy ||
	       ((p->front.busy || (front_ready(&p->front) && thread_free(p))) && path_within(s->path, s->dir_len, p->front.scope)) ||
	       in_flight(p, s->ino);
}

/* Somebody is asking for this directory, or looks at those around it: perhaps for this file too. */
static bool wait_while_busy(struct prefetch *p, struct walk *w, const struct sought *s)
{
	uint64_t end = now_ns() + WAIT_NS;
	const struct timespec until = {(time_t)(end / 1000000000u), (long)(end % 1000000000u)};

	while (is_busy(p, w, s))
		if (cond_wait_until(&p->changed, &p->lock, &until))
			return false;
	return true;
}

static int missed(struct prefetch *p, const struct sought *s)
{
	CLEANUP_FREE char *dir_path = strndup(s->path, s->dir_len);
	struct window win = {.fd = -1, .name = s->name, .path = dir_path, .end = s->end};
	unsigned children = 0;
	bool late = false;
	struct walk *w;
	bool first = false;
	ssize_t scope;
	int err;

	mutex_lock(&p->lock);
	w = walk_of(p, &s->dir);
	if (w && is_busy(p, w, s)) {
		late = !wait_while_busy(p, w, s);
		w = kas_known(p->st->keys.kas, s->m) ? NULL : walk_of(p, &s->dir);
	}
	mutex_unlock(&p->lock);
	if (w && late)
		return fail(-ETIMEDOUT, "the KAS is late: somebody waits for the keys of this directory already");
	if (!w || !dir_path)
		return 0;
	scope = scope_of(p, s->path, s->dir_len, &s->dir, &children);
	mutex_lock(&p->lock);
	w = walk_of(p, &s->dir);
	if (w && is_busy(p, w, s)) { /* a thread began meanwhile: nobody may take the front from it */
		(void)wait_while_busy(p, w, s);
		w = kas_known(p->st->keys.kas, s->m) ? NULL : walk_of(p, &s->dir);
	}
	win.max = w && !w->busy ? window_of(w) : 0;
	if (win.max) {
		w->busy = true;
		first = w->listed && w->misses == 1;
		if (w->listed && scope >= 0)
			(void)front_take(p, s->path, (size_t)scope, children, &win);
	}
	mutex_unlock(&p->lock);
	if (!win.max)
		return 0;
	win.fd = io_openat(s->dirfd, ".", O_RDONLY | O_DIRECTORY | O_NOATIME, 0);
	if (first && win.fd >= 0 && dir_is_long(win.fd))
		win.max = WINDOW_FIRST;
	win.wide = MIN(win.wide, win.max);
	err = run_own(p, w, &win, s->m);
	/* what is no verdict was waited for long enough: not once more alone */
	return err == -ETIMEDOUT ? fail(err, "the KAS does not answer") : 0;
}

int prefetch_note(struct store *st, int dirfd, const char *name, const char *path, ino_t ino, const struct manifest *m, uint64_t end)
{
	struct sought s = {.dirfd = dirfd, .name = name, .path = path, .ino = ino, .m = m, .end = end};
	struct prefetch *p = st->prefetch;
	const char *slash = strrchr(path, '/');
	bool next = false, known;
	struct walk *w;

	if (!p || !*name || fstat(dirfd, &s.dir))
		return 0;
	s.dir_len = slash ? (size_t)(slash - path) : 0;
	known = kas_known(st->keys.kas, m);
	mutex_lock(&p->lock);
	if (known || in_flight(p, ino)) {
		w = walk_find(p, &s.dir);
		next = w && next_wanted(p, w);
		if (front_used(p, path, s.dir_len))
			cond_broadcast(&p->changed);
	}
	mutex_unlock(&p->lock);
	if (next)
		go_on(p, w, dirfd);
	return known ? 0 : missed(p, &s);
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
		int fd = p->next_fd;

		if (front_ready(&p->front)) {
			run_front(p);
		} else if (fd >= 0) {
			p->next_fd = -1;
			run_walk(p, p->next, fd);
		} else {
			cond_wait(&p->changed, &p->lock);
		}
	}
	mutex_unlock(&p->lock);
	return NULL;
}

static void prefetch_free(struct prefetch *p)
{
	mutex_lock(&p->lock);
	p->stop = true;
	cond_broadcast(&p->changed);
	mutex_unlock(&p->lock);
	for (unsigned i = 0; i < p->n_threads; i++)
		pthread_join(p->threads[i], NULL);
	close_fd(&p->next_fd);
	cond_destroy(&p->changed);
	mutex_destroy(&p->lock);
	mutex_destroy(&p->seen.lock);
	free(p->front.scope);
	free(p->front.at);
	free(p);
}

int prefetch_start(struct store *st)
{
	struct prefetch *p;
	int err = 0;

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
	for (unsigned i = 0; i < THREADS && !err; i++) {
		err = -pthread_create(&p->threads[i], NULL, prefetch_main, p);
		p->n_threads += !err;
	}
	if (err) {
		prefetch_free(p);
		return fail(err, "no thread to prefetch keys: %s", strerror(-err));
	}
	st->prefetch = p;
	return 0;
}

void prefetch_stop(struct store *st)
{
	if (st->prefetch)
		prefetch_free(STEAL(st->prefetch));
}
