/* SPDX-License-Identifier: Apache-2.0 */
#include "convert_walk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "convert_file.h"
#include "report.h"

#define WINDOW ((size_t)4 << 20)       /* bytes of names held of one directory */
#define WINDOW_DEEP ((size_t)64 << 10) /* of one far down: the sum stays small */
#define DEEP 16

struct name {
	uint64_t ino;
	uint32_t off; /* into the arena */
	uint8_t type;
};

struct names {
	char *arena;
	size_t fill, room;
	struct name *each;
	size_t n, room_each;
};

struct level {
	struct level *up;
	struct cdir *dir;
	int fd;
	DIR *stream; /* while there is more to read */
	struct names files, dirs;
	size_t at_file, at_dir;
	unsigned depth;
};

struct walk {
	struct level *top;
	bool one_fs, stats;
	dev_t dev;
	struct walk_calls calls;
	struct cdir *next_dir; /* to be entered at the next call */
};

char *cdir_join(const struct cdir *d, const char *name)
{
	size_t len = strlen(d->path), n = strlen(name);
	char *p = malloc(len + n + 2);

	if (!p)
		return NULL;
	memcpy(p, d->path, len);
	if (len)
		p[len++] = '/';
	memcpy(p + len, name, n + 1);
	return p;
}

struct cdir *cdir_new(struct cdir *parent, const char *name, const struct stat *st)
{
	struct cdir *d = calloc(1, sizeof(*d));

	if (!d)
		return NULL;
	d->path = parent ? cdir_join(parent, name) : strdup("");
	if (!d->path) {
		free(d);
		return NULL;
	}
	d->refs = 1;
	d->st = *st;
	d->parent = parent ? cdir_get(parent) : NULL;
	return d;
}

void cdir_put(struct cdir *d, const struct walk_calls *calls)
{
	while (d && --d->refs == 0) {
		struct cdir *up = d->parent;

		calls->done(calls->arg, d);
		free(d->path);
		free(d);
		d = up;
	}
}

static void names_free(struct names *l)
{
	free(l->arena);
	free(l->each);
	*l = (struct names){0};
}

static int names_add(struct names *l, const char *name, uint64_t ino, uint8_t type)
{
	size_t len = strlen(name) + 1;

	if (l->fill + len > l->room) {
		size_t room = MAX(2 * l->room, l->fill + len + 4000);
		char *more = realloc(l->arena, room);

		if (!more)
			return -ENOMEM;
		l->arena = more;
		l->room = room;
	}
	if (l->n == l->room_each) {
		size_t room = l->room_each ? 2 * l->room_each : 32;
		struct name *more = realloc(l->each, room * sizeof(*more));

		if (!more)
			return -ENOMEM;
		l->each = more;
		l->room_each = room;
	}
	memcpy(l->arena + l->fill, name, len);
	l->each[l->n++] = (struct name){ino, (uint32_t)l->fill, type};
	l->fill += len;
	return 0;
}

static int by_ino(const void *a, const void *b)
{
	const struct name *x = a, *y = b;

	return x->ino < y->ino ? -1 : x->ino > y->ino;
}

/* The next names of a directory, sorted so that inodes are read in the order in which they lie on the disk. */
static int window_read(struct walk *w, struct level *l)
{
	size_t most = l->depth > DEEP ? WINDOW_DEEP : WINDOW;
	struct dirent *d = NULL;
	int err = 0;

	l->files.n = l->files.fill = l->at_file = 0;
	while (!err && l->files.fill + l->files.n * sizeof(struct name) < most && (errno = 0, d = readdir(l->stream)) != NULL) {
		if (d->d_name[0] == '.' && (!d->d_name[1] || (d->d_name[1] == '.' && !d->d_name[2])))
			continue;
		err = names_add(d->d_type == DT_DIR ? &l->dirs : &l->files, d->d_name, d->d_ino, d->d_type);
	}
	if (!err && !d && errno)
		w->calls.bad(w->calls.arg, l->dir->path, -errno);
	if (!err && !d) {
		closedir(l->stream);
		l->stream = NULL;
	}
	if (l->files.n)
		qsort(l->files.each, l->files.n, sizeof(*l->files.each), by_ino);
	return err;
}

static void level_pop(struct walk *w)
{
	struct level *l = w->top;

	w->top = l->up;
	if (l->stream)
		closedir(l->stream);
	close_fd(&l->fd);
	names_free(&l->files);
	names_free(&l->dirs);
	cdir_put(l->dir, &w->calls);
	free(l);
}

/* Takes over @fd and the reference to @dir, also on failure. */
static int level_push(struct walk *w, int fd, struct cdir *dir)
{
	struct level *l = calloc(1, sizeof(*l));
	int again = l ? openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	int err = l ? 0 : -ENOMEM;

	if (l)
		l->stream = again < 0 ? NULL : fdopendir(again);
	if (!l || !l->stream) {
		if (!err)
			w->calls.bad(w->calls.arg, dir->path, -errno);
		close_fd(&again);
		close(fd);
		free(l);
		cdir_put(dir, &w->calls);
		return err;
	}
	l->up = w->top;
	l->depth = w->top ? w->top->depth + 1 : 0;
	l->fd = fd;
	l->dir = dir;
	w->top = l;
	return 0;
}

int walk_open(int root, bool one_fs, bool stats, const struct walk_calls *calls, struct walk **ret)
{
	struct walk *w = calloc(1, sizeof(*w));
	struct cdir *dir = NULL;
	struct stat st;
	int fd, err;

	if (!w)
		return -ENOMEM;
	w->one_fs = one_fs;
	w->stats = stats;
	w->calls = *calls;
	fd = beneath_open(root, "", one_fs);
	err = fd < 0 ? fd : fstat(fd, &st) ? -errno : 0;
	if (!err) {
		w->dev = st.st_dev;
		dir = cdir_new(NULL, "", &st);
		err = dir ? level_push(w, fd, dir) : -ENOMEM;
	} else {
		close_fd(&fd);
	}
	if (err) {
		free(w);
		return err;
	}
	*ret = w;
	return 0;
}

void walk_skip(struct walk *w)
{
	if (w->next_dir)
		cdir_put(w->next_dir, &w->calls);
	w->next_dir = NULL;
}

/* Go into the directory told last. */
static int enter(struct walk *w)
{
	struct cdir *dir = w->next_dir;
	const char *slash = strrchr(dir->path, '/');
	int fd = beneath_open(w->top->fd, slash ? slash + 1 : dir->path, w->one_fs);
	struct stat st;

	w->next_dir = NULL;
	if (fd < 0 || fstat(fd, &st) || st.st_ino != dir->st.st_ino || st.st_dev != dir->st.st_dev) {
		if (fd != -ENOENT && fd != -ENOTDIR && fd != -ELOOP) /* else gone or replaced since it was told */
			w->calls.bad(w->calls.arg, dir->path, fd < 0 ? fd : -ESTALE);
		close_fd(&fd);
		cdir_put(dir, &w->calls);
		return 0;
	}
	return level_push(w, fd, dir);
}

static bool lies_in(const char *path, const char *dir)
{
	size_t n = strlen(dir);

	return strncmp(path, dir, n) == 0 && (!n || !path[n] || path[n] == '/');
}

/* Is the walk to go there?  1, 0, -ENOMEM */
static int is_wanted(const struct walk *w, const struct level *l, const char *name)
{
	const char *below = w->calls.below;
	CLEANUP_FREE char *path = NULL;

	if (!below || lies_in(l->dir->path, below))
		return 1;
	path = cdir_join(l->dir, name);
	return !path ? -ENOMEM : lies_in(path, below) || lies_in(below, path);
}

/* 1 told, 0 not worth telling, -errno */
static int tell(struct walk *w, struct level *l, const struct name *n, bool is_dir, struct walk_entry *ret)
{
	struct names *from = is_dir ? &l->dirs : &l->files;
	int wanted = is_wanted(w, l, from->arena + n->off);

	if (wanted != 1)
		return wanted;
	*ret = (struct walk_entry){.dir = l->dir, .dir_fd = l->fd, .name = from->arena + n->off};
	if (!is_dir && !w->stats && n->type != DT_UNKNOWN) {
		ret->st.st_mode = DTTOIF(n->type);
		ret->st.st_ino = n->ino;
		return !w->calls.only || n->ino == w->calls.only;
	}
	if (fstatat(l->fd, ret->name, &ret->st, AT_SYMLINK_NOFOLLOW)) {
		if (errno != ENOENT) {
			CLEANUP_FREE char *path = cdir_join(l->dir, ret->name);

			w->calls.bad(w->calls.arg, path ? path : ret->name, -errno);
		}
		return 0;
	}
	if (!S_ISDIR(ret->st.st_mode))
		return !w->calls.only || ret->st.st_ino == w->calls.only;
	if (!is_dir) /* a file system that does not tell kinds in listings */
		return names_add(&l->dirs, ret->name, n->ino, DT_DIR);
	if (strcmp(ret->name, TDFS_DIR) == 0)
		return 0;
	if (w->one_fs && ret->st.st_dev != w->dev)
		return 1;
	ret->self = w->next_dir = cdir_new(l->dir, ret->name, &ret->st);
	return ret->self ? 1 : -ENOMEM;
}

int walk_next(struct walk *w, struct walk_entry *ret)
{
	int got = w->next_dir ? enter(w) : 0;

	while (!got && w->top) {
		struct level *l = w->top;

		if (l->at_file < l->files.n) {
			struct name n = l->files.each[l->at_file++];

			got = tell(w, l, &n, false, ret);
		} else if (l->stream) {
			got = window_read(w, l);
		} else if (l->at_dir < l->dirs.n) {
			struct name n = l->dirs.each[l->at_dir++];

			got = tell(w, l, &n, true, ret);
		} else {
			level_pop(w);
		}
	}
	return got;
}

bool walk_is_volume(const struct walk_entry *e)
{
	char probe[NAME_MAX + 16];
	struct stat st;

	snprintf(probe, sizeof(probe), "%s/%s", e->name, TDFS_DIR);
	return fstatat(e->dir_fd, probe, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode);
}

const char *walk_foreign(const struct walk_entry *e)
{
	return !e->self ? "another file system is mounted there" : walk_is_volume(e) ? "is a tdfs volume of its own" : NULL;
}

bool path_is_inside(const char *p)
{
	if (!*p || *p == '/')
		return false;
	while (*p) {
		size_t len = strcspn(p, "/");

		if (!len || (len == 1 && p[0] == '.') || (len == 2 && p[0] == '.' && p[1] == '.'))
			return false;
		p += len;
		if (*p == '/' && !*++p)
			return false;
	}
	return true;
}

bool path_lies_in_tdfs_dir(const char *path)
{
	const char *at = strstr(path, TDFS_DIR "/");

	while (at && at != path && at[-1] != '/')
		at = strstr(at + 1, TDFS_DIR "/");
	return at;
}

void walk_close(struct walk *w)
{
	if (!w)
		return;
	walk_skip(w);
	while (w->top)
		level_pop(w);
	free(w);
}
