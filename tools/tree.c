/* SPDX-License-Identifier: Apache-2.0 */
#include "tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "volume.h"

bool name_is_tdf(const char *name)
{
	size_t len = strlen(name);

	return len > 4 && strcmp(name + len - 4, ".tdf") == 0;
}

struct names {
	char **each;
	size_t n, room;
};

static void names_free(struct names *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->each[i]);
	free(l->each);
}

static int compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int names_add(struct names *l, const char *name)
{
	if (l->n == l->room) {
		size_t room = l->room ? 2 * l->room : 64;
		char **more = realloc(l->each, room * sizeof(*more));

		if (!more)
			return -ENOMEM;
		l->each = more;
		l->room = room;
	}
	l->each[l->n] = strdup(name);
	return l->each[l->n++] ? 0 : -ENOMEM;
}

/* All names first, the descriptor of the listing closed at once: one descriptor per level. */
static int names_read(int dir_fd, struct names *ret)
{
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *d;
	int err = 0;

	if (!dir) {
		err = -errno;
		if (fd >= 0)
			close(fd);
		return err;
	}
	while (errno = 0, !err && (d = readdir(dir)) != NULL)
		if (strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0)
			err = names_add(ret, d->d_name);
	if (!err)
		err = -errno;
	closedir(dir);
	if (!err && ret->n)
		qsort(ret->each, ret->n, sizeof(*ret->each), compare);
	return err;
}

/* A volume's own folder; in a mount anybody may have a folder called .tdfs further down, which is an ordinary one. */
static bool is_volume_dir(int dir_fd, const char *name)
{
	return strcmp(name, TDFS_DIR) == 0 && (faccessat(dir_fd, TDFS_DIR "/volume.json", F_OK, AT_SYMLINK_NOFOLLOW) == 0 ||
					       faccessat(dir_fd, TDFS_DIR "/volume.json.bak", F_OK, AT_SYMLINK_NOFOLLOW) == 0);
}

static int walk(int dir_fd, const char *path, dev_t dev, const struct tree_calls *calls);

static int visit(int dir_fd, const char *dir_path, const char *name, dev_t dev, const struct tree_calls *calls)
{
	CLEANUP_FREE char *path = NULL;
	CLEANUP_FD int fd = -1;
	struct tree_entry e = {.dir_fd = dir_fd, .name = name};
	int err;

	if (asprintf(&path, "%s%s%s", dir_path, dir_path[strlen(dir_path) - 1] == '/' ? "" : "/", name) < 0)
		return -ENOMEM;
	e.path = path;
	if (fstatat(dir_fd, name, &e.st, AT_SYMLINK_NOFOLLOW)) {
		if (errno != ENOENT) /* gone since it was listed */
			calls->bad(calls->arg, path, -errno);
		return 0;
	}
	if (S_ISDIR(e.st.st_mode) && (e.st.st_dev != dev || is_volume_dir(dir_fd, name)))
		return 0;
	err = calls->each(calls->arg, &e);
	if (err || !S_ISDIR(e.st.st_mode))
		return err;
	fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0) {
		if (errno != ENOENT)
			calls->bad(calls->arg, path, -errno);
		return 0;
	}
	return walk(fd, path, dev, calls);
}

static int walk(int dir_fd, const char *path, dev_t dev, const struct tree_calls *calls)
{
	struct names list = {0};
	int err = names_read(dir_fd, &list);

	if (err && err != -ENOMEM) {
		calls->bad(calls->arg, path, err);
		err = 0;
	}
	for (size_t i = 0; !err && i < list.n; i++)
		err = visit(dir_fd, path, list.each[i], dev, calls);
	names_free(&list);
	return err;
}

int tree_walk(const char *path, const struct tree_calls *calls)
{
	CLEANUP_FD int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st))
		return -errno;
	return walk(fd, path, st.st_dev, calls);
}
