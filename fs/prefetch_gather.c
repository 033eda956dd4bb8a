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

/* The key of one file, if it is to be asked for */
static void gather_one(struct window *w, int dir, const char *name)
{
	struct store *st = w->st;
	struct container_keys keys = inode_keys(st);
	struct container *c CLEANUP(container_cleanup) = NULL;
	int fd = st->io.open(st->io.ctx, dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_NOATIME, 0);
	struct inode *live;
	struct stat s;

	if (fd < 0)
		return;
	w->looked++;
	if (w->n < w->max && !st->io.stat(st->io.ctx, fd, &s) && S_ISREG(s.st_mode) && s.st_size && s.st_size <= SIZE_MAX_READ) {
		live = inode_find(st, s.st_dev, s.st_ino);
		if (live)
			inode_put(live);
		else if (!is_in(w, s.st_ino) && !container_open(&st->io, fd, &keys, &c) && !kas_known(st->keys.kas, c->m)) {
			free(c->m->hashes); /* all that may be large */
			c->m->hashes = NULL;
			w->inos[w->n] = s.st_ino;
			w->want[w->n++].m = STEAL(c->m);
		}
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

/* Behind @name, or from the offset on.  Sets @w->at if @limit is reached, or enough was looked at for one open to wait for. */
static void gather_dir(struct window *w, int fd, const char *path, const char *name, unsigned limit, unsigned depth)
{
	CLEANUP_FREE char *buf = malloc(DENTS_LEN);
	bool found = !name;
	char shown[NAME_ROOM];
	ssize_t len;

	while (buf && (len = getdents64(fd, buf, DENTS_LEN)) > 0) {
		for (ssize_t at = 0; at < len;) {
			const struct dirent64 *de = (const struct dirent64 *)(buf + at);

			at += de->d_reclen;
			if (!found)
				found = strcmp(de->d_name, name) == 0;
			else if ((de->d_type == DT_REG || de->d_type == DT_UNKNOWN) && !name_show(de->d_name, true, shown))
				gather_one(w, fd, de->d_name);
			else if (de->d_type == DT_DIR && w->scope)
				gather_child(w, fd, path, de->d_name, depth);
			if ((w->n >= limit || w->looked >= LOOK_MAX) && !w->at) {
				w->pos = de->d_off;
				w->at = strdup(path);
			}
			if (w->at)
				return;
		}
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
