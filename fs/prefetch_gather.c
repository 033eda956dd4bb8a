/* SPDX-License-Identifier: Apache-2.0 */
#include "prefetch_i.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "container.h"
#include "inode_i.h"
#include "name.h"

#define SIZE_MAX_READ ((off_t)64 << 20) /* larger files have a manifest that is not read for nothing */
#define DENTS_LEN 32768
#define DEPTH_MAX 32
#define SEEN_NS 60000000000u
#define LOOK_MAX 2000u /* files and directories of a window, whatever comes of them */
#define BATCH 16u      /* files that the disk is asked for at a time */
#define SMALL_FILE ((off_t)64 << 10)

bool path_within(const char *path, size_t len, const char *dir)
{
	size_t n = strlen(dir);

	return len >= n && memcmp(path, dir, n) == 0 && (!n || len == n || path[n] == '/');
}

int dir_beneath(const struct store *st, const char *path)
{
	return io_open_beneath(st->root_fd, *path ? path : ".", O_RDONLY | O_DIRECTORY);
}

/* Coming from the start again, files of this window are met again */
static bool is_in(const struct window *w, ino_t ino)
{
	for (size_t i = 0; w->again && i < w->n; i++)
		if (w->inos[i] == ino)
			return true;
	return false;
}

/* A thread asks for it already */
static bool is_asked(const struct window *w, ino_t ino)
{
	bool yes;

	mutex_lock(&w->p->lock);
	yes = in_flight(w->p, ino);
	mutex_unlock(&w->p->lock);
	return yes;
}

/* Files that are open, and on their way from the disk */
struct batch {
	struct {
		int fd; /* -1: none that is to be asked for */
		ino_t ino;
	} files[BATCH];
	unsigned n, next;
};

static int open_wanted(struct window *w, int dir, const char *name, ino_t *ret_ino)
{
	struct store *st = w->st;
	int fd = st->io.open(st->io.ctx, dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_NOATIME, 0);
	struct inode *live;
	struct stat s;
	bool wanted;

	if (fd < 0)
		return -1;
	w->looked++;
	wanted = !st->io.stat(st->io.ctx, fd, &s) && S_ISREG(s.st_mode) && s.st_size && s.st_size <= SIZE_MAX_READ;
	live = wanted ? inode_find(st, s.st_dev, s.st_ino) : NULL;
	if (live)
		inode_put(live);
	if (!wanted || live || is_in(w, s.st_ino) || is_asked(w, s.st_ino)) {
		st->io.close(st->io.ctx, fd);
		return -1;
	}
	if (st->io.ahead && s.st_size <= SMALL_FILE)
		st->io.ahead(st->io.ctx, fd, 0, (size_t)s.st_size);
	*ret_ino = s.st_ino;
	return fd;
}

/* The next entries, no more than @room and to the first directory: while that one is gone through none of these is open */
static void batch_open(struct window *w, int dir, const char *entries, ssize_t len, unsigned room, struct batch *b)
{
	char shown[NAME_ROOM];
	bool file = true;

	b->n = b->next = 0;
	for (ssize_t at = 0; at < len && file && b->n < MIN(BATCH, MAX(room, 1)); b->n++) {
		const struct dirent64 *de = (const struct dirent64 *)(entries + at);

		at += de->d_reclen;
		file = de->d_type != DT_DIR;
		b->files[b->n].fd = -1;
		if ((de->d_type == DT_REG || de->d_type == DT_UNKNOWN) && !name_show(de->d_name, true, shown))
			b->files[b->n].fd = open_wanted(w, dir, de->d_name, &b->files[b->n].ino);
	}
}

static void batch_close(struct window *w, struct batch *b)
{
	for (; b->next < b->n; b->next++)
		if (b->files[b->next].fd >= 0)
			w->st->io.close(w->st->io.ctx, b->files[b->next].fd);
}

/* The key of one file, if nobody knows it */
static void gather_one(struct window *w, int fd, ino_t ino)
{
	struct store *st = w->st;
	struct container_keys keys = inode_keys(st);
	struct container *c CLEANUP(container_cleanup) = NULL;

	if (w->n < w->max && !container_open(&st->io, fd, &keys, &c) && !kas_known(st->keys.kas, c->m)) {
		free(c->m->hashes); /* all that may be large */
		c->m->hashes = NULL;
		w->inos[w->n] = ino;
		w->want[w->n++].m = STEAL(c->m);
	}
	st->io.close(st->io.ctx, fd);
}

/* --- directories that are done --- */

static bool seen_lately(struct seen *s, ino_t ino)
{
	bool yes;

	mutex_lock(&s->lock);
	yes = s->dirs[ino % SEEN].ino == ino && now_ns() - s->dirs[ino % SEEN].when < SEEN_NS;
	mutex_unlock(&s->lock);
	return yes;
}

static void seen_set(struct seen *s, ino_t ino)
{
	mutex_lock(&s->lock);
	s->dirs[ino % SEEN].ino = ino;
	s->dirs[ino % SEEN].when = now_ns();
	mutex_unlock(&s->lock);
}

/* --- one directory, and what is in it --- */

static void gather_dir(struct window *w, int fd, const char *path, const char *name, unsigned limit, unsigned depth);

/* A directory that was met on the way: of this volume, and not done? */
static void gather_child(struct window *w, int dir, const char *path, const char *name, unsigned depth)
{
	CLEANUP_FREE char *child = NULL;
	CLEANUP_FD int fd = -1;
	struct stat s;

	if (depth == DEPTH_MAX || strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || strcmp(name, TDFS_DIR) == 0)
		return;
	fd = io_open_beneath(dir, name, O_RDONLY | O_DIRECTORY);
	if (fd < 0 || fstat(fd, &s) || seen_lately(w->seen, s.st_ino) || faccessat(fd, TDFS_DIR, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		return;
	w->looked++;
	if (asprintf(&child, "%s%s%s", path, *path ? "/" : "", name) < 0) {
		child = NULL;
		return;
	}
	gather_dir(w, fd, child, NULL, w->wide, depth + 1);
	if (!w->at)
		seen_set(w->seen, s.st_ino);
}

/* Entries of a directory.  Sets @w->at if @limit is reached, or enough was looked at for one open to wait for. */
static void gather_entries(struct window *w, int fd, const char *path, const char *buf, ssize_t len, unsigned limit, unsigned depth)
{
	struct batch b = {0};

	for (ssize_t at = 0; at < len && !w->at;) {
		const struct dirent64 *de = (const struct dirent64 *)(buf + at);
		int file;

		if (b.next == b.n)
			batch_open(w, fd, buf + at, len - at, limit - MIN(w->n, limit), &b);
		at += de->d_reclen;
		file = b.files[b.next].fd;
		b.next++;
		if (file >= 0)
			gather_one(w, file, b.files[b.next - 1].ino);
		else if (de->d_type == DT_DIR && w->scope)
			gather_child(w, fd, path, de->d_name, depth);
		if ((w->n >= limit || w->looked >= LOOK_MAX) && !w->at) {
			w->pos = de->d_off;
			w->at = strdup(path);
		}
	}
	batch_close(w, &b);
}

/* Behind @name, or from the offset on */
static void gather_dir(struct window *w, int fd, const char *path, const char *name, unsigned limit, unsigned depth)
{
	CLEANUP_FREE char *buf = malloc(DENTS_LEN);
	ssize_t len;

	while (buf && !w->at && (len = getdents64(fd, buf, DENTS_LEN)) > 0) {
		ssize_t at = 0;

		while (name && at < len) {
			const struct dirent64 *de = (const struct dirent64 *)(buf + at);

			at += de->d_reclen;
			if (strcmp(de->d_name, name) == 0)
				name = NULL;
		}
		gather_entries(w, fd, path, buf + at, len - at, limit, depth);
	}
}

/* What comes behind the directory @start, up to the scope */
static void gather_up(struct window *w, const char *start)
{
	CLEANUP_FREE char *path = strdup(start);

	while (path && !w->at && w->n < w->wide && strcmp(path, w->scope)) {
		char *slash = strrchr(path, '/');
		CLEANUP_FREE char *base = strdup(slash ? slash + 1 : path);
		CLEANUP_FD int fd = -1;

		*(slash ? slash : path) = 0;
		fd = base ? dir_beneath(w->st, path) : -ENOMEM;
		if (fd < 0)
			return;
		gather_dir(w, fd, path, base, w->wide, 0);
	}
}

void window_gather(struct window *w)
{
	w->pos = -1;
	w->at = NULL;
	w->again = false;
	gather_dir(w, w->fd, w->path ? w->path : "", w->name, w->max, 0);
	if (!w->scope)
		return;
	gather_up(w, w->path);
	if (!w->at && w->n < w->wide) { /* who goes by names leaves some behind */
		CLEANUP_FD int fd = dir_beneath(w->st, w->scope);

		w->again = true;
		if (fd >= 0)
			gather_dir(w, fd, w->scope, NULL, w->wide, 0);
	}
}
