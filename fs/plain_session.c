/* SPDX-License-Identifier: Apache-2.0 */
/* What a converter asks for: begin with a plain file, put the sealed one in its place, end the conversion. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "attr.h"
#include "plain_i.h"
#include "report.h"

struct plain_session {
	const struct tree *t;
	uint64_t watcher;
	char *path; /* of the directory used last */
	struct node *dir;
};

struct plain_session *plain_session_new(const struct tree *t)
{
	struct plain_session *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->t = t;
	s->watcher = plain_watcher(t->plain);
	return s;
}

void plain_session_free(struct plain_session *s)
{
	if (!s)
		return;
	plain_unwatch(s->t->plain, 0, s->watcher);
	node_put(s->t->nodes, s->dir);
	free(s->path);
	free(s);
}

/* One step down; @dir's reference is given back */
static int step(const struct tree *t, struct node *dir, const char *name, struct node **ret)
{
	struct sight s;
	int fd, err;

	if (!*name || !strcmp(name, ".") || !strcmp(name, "..") || (dir == t->nodes->root && name_reserved(name)))
		err = -EINVAL;
	else
		err = node_dirfd(t->nodes, dir, &fd);
	if (!err) {
		err = attr_at(t, fd, name, &s);
		if (!err)
			err = S_ISDIR(s.st.st_mode) ? node_enter(t->nodes, dir, name, &s, ret) : -ENOTDIR;
		node_dirfd_put(t->nodes, dir);
	}
	node_put(t->nodes, dir);
	if (!err)
		node_forget(t->nodes, (*ret)->id, 1); /* our reference holds it */
	return err;
}

/* What was remembered of a directory may be out of date */
static void leave_dir(struct plain_session *s)
{
	node_put(s->t->nodes, STEAL(s->dir));
	free(STEAL(s->path));
}

/* The directory of @path as a node, so that its name lock is the one that everybody takes; @ret_name: the last component */
static int enter_dir(struct plain_session *s, const char *path, const char **ret_name)
{
	const char *slash = strrchr(path, '/');
	CLEANUP_FREE char *copy = strndup(path, slash ? (size_t)(slash - path) : 0);
	CLEANUP_FREE char *key = copy ? strdup(copy) : NULL;
	struct node *n;
	int err = 0;

	if (!key)
		return -ENOMEM;
	*ret_name = slash ? slash + 1 : path;
	if (s->path && !strcmp(s->path, key))
		return 0;
	leave_dir(s);
	n = node_get(s->t->nodes, NODE_ROOT);
	for (char *at = copy; !err && *at;) {
		size_t len = strcspn(at, "/");
		bool more = at[len];

		at[len] = 0;
		err = step(s->t, n, at, &n);
		at += len + more;
	}
	if (err)
		return err;
	s->dir = n;
	s->path = STEAL(key);
	return 0;
}

int place_look(const struct tree *t, int fd, const char *name, struct stat *ret)
{
	int plain;

	if (!*name || strlen(name) >= NAME_ROOM)
		return -EINVAL;
	if (fstatat(fd, name, ret, AT_SYMLINK_NOFOLLOW))
		return -errno;
	if (!S_ISREG(ret->st_mode) || ret->st_dev != t->nodes->dev)
		return -ENOENT;
	plain = plain_is(t, fd, name, ret);
	return plain < 0 ? plain : plain ? 0 : -ENOENT;
}

/* A sealed file beside the plain one: left by a crash, which is settled now, or put there by somebody: -ENOTUNIQ */
static int settle_name(const struct tree *t, struct node *dir, int fd, const char *name)
{
	char stored[NAME_ROOM];
	int err = plain_lookup(t, dir, fd, name, stored);

	if (err || !strcmp(stored, name))
		return err;
	return fail(-ENOTUNIQ, "the sealed %s lies beside it and has other content: remove from the store the one that is not wanted",
		    stored);
}

static int begin_look(struct plain_session *s, int fd, const char *name, struct stat *ret)
{
	char stored[NAME_ROOM];
	struct stat st;
	int err = place_look(s->t, fd, name, ret);

	if (err)
		return err;
	if (name_store(name, true, stored))
		return fail(-ENAMETOOLONG, "its name is longer than %d bytes: .tdf would not fit behind it", NAME_VISIBLE_MAX);
	if (fstatat(fd, stored, &st, AT_SYMLINK_NOFOLLOW))
		return 0;
	return settle_name(s->t, s->dir, fd, name);
}

int plain_session_begin(struct plain_session *s, const char *path, uint64_t links)
{
	const struct tree *t = s->t;
	const char *name;
	struct stat st;
	int fd, err = plain_on(t) ? enter_dir(s, path, &name) : -EROFS;

	if (!err)
		err = node_dirfd(t->nodes, s->dir, &fd);
	if (err) {
		leave_dir(s);
		return err == -ESTALE ? -ENOENT : err;
	}
	err = begin_look(s, fd, name, &st);
	node_dirfd_put(t->nodes, s->dir);
	if (!err && st.st_nlink != links)
		err = fail(-EMLINK, "has %lu names, and not all of them are in the tree", (unsigned long)st.st_nlink);
	if (!err)
		err = plain_watch(t, st.st_ino, s->watcher);
	return err == -EBUSY ? fail(err, "is open in another program") : err;
}

static int place_open(struct plain_session *s, const char *path, struct place *p)
{
	const struct tree *t = s->t;
	int err = enter_dir(s, path, &p->name), fd;

	if (!err)
		err = node_dirfd(t->nodes, s->dir, &fd);
	if (err)
		return err;
	p->dir = node_get(t->nodes, s->dir->id);
	p->fd = fd;
	return 0;
}

static int by_id(const void *a, const void *b)
{
	const struct node *x = *(struct node *const *)a, *y = *(struct node *const *)b;

	return x->id < y->id ? -1 : x->id > y->id;
}

/* All name locks, each once, in their order; @dirs: room for @n */
static void lock_all(struct place *p, size_t n, struct node **dirs, bool lock)
{
	for (size_t i = 0; i < n; i++)
		dirs[i] = p[i].dir;
	qsort(dirs, n, sizeof(*dirs), by_id);
	for (size_t i = 0; i < n; i++)
		if (!i || dirs[i] != dirs[i - 1]) {
			if (lock)
				mutex_lock(&dirs[i]->dir->names);
			else
				mutex_unlock(&dirs[i]->dir->names);
		}
}

static int swap_locked(struct plain_session *s, struct place *p, size_t n, const struct plain_swap *w)
{
	const struct tree *t = s->t;
	struct stat st;
	int err = 0;

	for (size_t i = 0; i < n; i++) {
		err = place_look(t, p[i].fd, p[i].name, &st);
		if (err)
			return err;
		if (st.st_ino != w->st.st_ino)
			return fail(-EBUSY, "was replaced after it had been read");
		if (p[i].dir->dir->reading)
			return fail(-EBUSY, "its folder is being read");
	}
	err = plain_claim(t, st.st_ino, s->watcher);
	if (err)
		return err == -EBUSY ? fail(err, "was used after it had been read") : err;
	err = plain_swap_claimed(t, p, n, w);
	plain_release(t->plain, st.st_ino, err ? 0 : w->temp_ino);
	return err;
}

static int swap_all(struct plain_session *s, const struct plain_swap *w, struct place *p, struct node **dirs)
{
	const struct tree *t = s->t;
	size_t n = 0;
	int err = 0;

	while (n < w->n_paths && !err) {
		err = place_open(s, w->paths[n], &p[n]);
		n += !err;
	}
	if (!err) {
		lock_all(p, n, dirs, true);
		err = swap_locked(s, p, n, w);
		lock_all(p, n, dirs, false);
	}
	/* of several names begin has looked at one */
	for (size_t i = 0; i < n && n > 1 && err == -EEXIST; i++)
		if (settle_name(t, p[i].dir, p[i].fd, p[i].name) == -ENOTUNIQ)
			err = -ENOTUNIQ;
	if (err == -EEXIST)
		(void)fail(err, "a name that it needs is taken");
	while (n-- > 0) {
		node_dirfd_put(t->nodes, p[n].dir);
		node_put(t->nodes, p[n].dir);
	}
	return err;
}

int plain_session_swap(struct plain_session *s, const struct plain_swap *w)
{
	const struct tree *t = s->t;
	CLEANUP_FREE struct place *p = calloc(w->n_paths, sizeof(*p));
	CLEANUP_FREE struct node **dirs = calloc(w->n_paths, sizeof(struct node *));
	int err = 0;

	if (!plain_on(t) || t->plain->temp_dir < 0)
		return -EROFS;
	if (!*w->temp || strchr(w->temp, '/') || !w->n_paths)
		return -EINVAL;
	if (!p || !dirs)
		return -ENOMEM;
	t->store->changed = true;
	if (t->plain->n_fresh >= FRESH_MAX / 2)
		err = plain_durable(t, 0);
	if (!err)
		err = swap_all(s, w, p, dirs);
	if (err)
		leave_dir(s);
	plain_unwatch(t->plain, w->st.st_ino, s->watcher);
	return err == -ESTALE ? -ENOENT : err;
}

int plain_moves(const struct tree *t, uint64_t *ret)
{
	*ret = t->plain->n_moves;
	return t->plain->n_moving ? -EAGAIN : 0;
}

int plain_strict(const struct tree *t, uint64_t moves, int (*end)(void *arg), void *arg)
{
	struct plain *p = t->plain;
	int err = 0;

	if (p->n_moving || p->n_moves != moves)
		return -EAGAIN;
	if (!p->on)
		return 0;
	p->on = false;
	err = end(arg);
	if (err)
		p->on = true;
	else
		t->store->converting = false;
	return err;
}
