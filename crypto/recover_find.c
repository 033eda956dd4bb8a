/* SPDX-License-Identifier: Apache-2.0 */
/* Finding the store files that the log speaks of: by the path they had, else by one walk over the store. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>

#include "recover_int.h"
#include "report.h"

struct wanted {
	ino_t ino;
	struct file *file;
};

struct finder {
	const struct io *io;
	int store_fd;
	const struct secret *k_rec;
	struct file *files;
	size_t n;
	struct wanted *wanted; /* by inode number */
	size_t n_wanted;
	/* the walk */
	bool headers; /* second pass: look into every file */
	char **dirs;  /* still to be read */
	size_t n_dirs;
	const char *dir;
	int dir_fd;
};

/* The id in the header of an open file; 0, -ENOENT there is none, other: it cannot be known */
static int read_id(const struct finder *fi, int fd, uint8_t ret[static ID_LEN])
{
	uint8_t sector[SECTOR];
	struct record rec;
	ssize_t n = fi->io->pread(fi->io->ctx, fd, sector, SECTOR, 0);
	int err;

	if (n < 0)
		return (int)n;
	if (n < SECTOR)
		return -ENOENT;
	err = record_parse(sector, fi->k_rec, &rec, NULL);
	if (err || rec.state == RECORD_VOID)
		return err ? err : -ENOENT;
	memcpy(ret, rec.file_id, ID_LEN);
	return 0;
}

static int add_target(struct file *f, const char *path, ino_t ino)
{
	struct target *t;

	for (size_t i = 0; i < f->n_targets; i++)
		if (f->targets[i].ino == ino)
			return 0; /* another name of the same file */
	t = reallocarray(f->targets, f->n_targets + 1, sizeof(*t));
	if (!t)
		return -ENOMEM;
	f->targets = t;
	t[f->n_targets] = (struct target){strdup(path), ino};
	if (!t[f->n_targets].path)
		return -ENOMEM;
	f->n_targets++;
	return 0;
}

static bool wants_ino(const struct file *f, ino_t ino)
{
	for (size_t i = f->n; i-- > 0;)
		if (f->recs[i].rec.type == REDO_INTENT && f->recs[i].rec.intent.ino == ino)
			return true;
	return false;
}

const char *find_hint(const struct file *f)
{
	for (size_t i = f->n; i-- > 0;)
		if (f->recs[i].rec.type == REDO_INTENT)
			return f->recs[i].rec.intent.path;
	return "";
}

/* A file that cannot be opened is none of those that are looked for, but where that passes nothing follows from it: taken for gone, it
 * would lose what was acknowledged. */
static int unopened(const char *path, int err)
{
	switch (err) {
	case -EAGAIN: /* a lease that nobody lets go of */
	case -EMFILE:
	case -ENFILE:
	case -ENOMEM:
		return fail(err, "%s: cannot be opened, and it may be one that the log has changes of: %s; try again", path,
			    err == -EAGAIN ? "another program has a lease on it" : strerror(-err));
	default:
		return 0;
	}
}

/* The file at @path is @f?  Then it is a target, and the only one if the inode number is right. */
static int consider(struct finder *fi, struct file *f, const char *path)
{
	uint8_t id[ID_LEN];
	struct stat s;
	int fd = find_open(fi->io, fi->store_fd, path, false, &s), err;

	if (fd < 0)
		return unopened(path, fd);
	err = read_id(fi, fd, id);
	/* the right inode with a header that cannot be read is taken, so that it fails loudly */
	if (err ? err != -ENOENT && wants_ino(f, s.st_ino) : !memcmp(id, f->id, ID_LEN)) {
		if (wants_ino(f, s.st_ino)) {
			for (size_t i = 0; i < f->n_targets; i++)
				free(f->targets[i].path);
			f->n_targets = 0;
			f->exact = true;
		}
		err = f->exact || !f->at_home ? add_target(f, path, s.st_ino) : 0;
	} else {
		err = 0;
	}
	fi->io->close(fi->io->ctx, fd);
	return err;
}

static int by_hints(struct finder *fi, struct file *f)
{
	int err = 0;

	for (size_t i = f->n; i-- > 0 && !f->exact && !err;)
		if (f->recs[i].rec.type == REDO_INTENT)
			err = consider(fi, f, f->recs[i].rec.intent.path);
	return err;
}

static int by_id_cmp(const void *key, const void *elem)
{
	return memcmp(key, ((const struct file *)elem)->id, ID_LEN);
}

/* A file met on the second pass: whose is it? */
static int consider_header(struct finder *fi, const char *path)
{
	uint8_t id[ID_LEN];
	struct file *f;
	struct stat s;
	int fd = find_open(fi->io, fi->store_fd, path, false, &s);
	bool got;

	if (fd < 0)
		return unopened(path, fd);
	got = !read_id(fi, fd, id);
	fi->io->close(fi->io->ctx, fd);
	f = got ? bsearch(id, fi->files, fi->n, sizeof(*fi->files), by_id_cmp) : NULL;
	return f && !f->exact && !f->at_home ? add_target(f, path, s.st_ino) : 0;
}

static int wanted_cmp(const void *a, const void *b)
{
	ino_t x = ((const struct wanted *)a)->ino, y = ((const struct wanted *)b)->ino;

	return (x > y) - (x < y);
}

static int list_wanted(struct finder *fi)
{
	size_t n = 0;

	for (size_t i = 0; i < fi->n; i++)
		for (size_t k = 0; k < fi->files[i].n; k++)
			n += fi->files[i].recs[k].rec.type == REDO_INTENT;
	fi->wanted = calloc(n + 1, sizeof(*fi->wanted));
	if (!fi->wanted)
		return -ENOMEM;
	for (size_t i = 0; i < fi->n; i++)
		for (size_t k = 0; k < fi->files[i].n; k++)
			if (fi->files[i].recs[k].rec.type == REDO_INTENT)
				fi->wanted[fi->n_wanted++] = (struct wanted){fi->files[i].recs[k].rec.intent.ino, &fi->files[i]};
	qsort(fi->wanted, fi->n_wanted, sizeof(*fi->wanted), wanted_cmp);
	return 0;
}

static const struct wanted *first_wanted(const struct finder *fi, ino_t ino)
{
	struct wanted key = {.ino = ino};
	const struct wanted *w = bsearch(&key, fi->wanted, fi->n_wanted, sizeof(key), wanted_cmp);

	while (w && w > fi->wanted && w[-1].ino == ino)
		w--;
	return w;
}

static int walk_entry(void *arg, const char *name, unsigned char type, ino_t ino)
{
	struct finder *fi = arg;
	CLEANUP_FREE char *path = NULL;
	int err = 0;

	if (!*fi->dir && !strcmp(name, ".tdfs"))
		return 0;
	if (asprintf(&path, "%s%s%s", fi->dir, *fi->dir ? "/" : "", name) < 0) {
		path = NULL;
		return -ENOMEM;
	}
	if (type == DT_UNKNOWN) {
		int fd = fi->io->open(fi->io->ctx, fi->dir_fd, name, O_PATH, 0);
		struct stat s;

		if (fd < 0)
			return 0;
		type = fi->io->stat(fi->io->ctx, fd, &s) ? DT_UNKNOWN
		       : S_ISDIR(s.st_mode)              ? DT_DIR
		       : S_ISREG(s.st_mode)              ? DT_REG
							 : DT_UNKNOWN;
		fi->io->close(fi->io->ctx, fd);
	}
	if (type == DT_DIR) {
		char **d = reallocarray(fi->dirs, fi->n_dirs + 1, sizeof(*d));

		if (!d)
			return -ENOMEM;
		fi->dirs = d;
		fi->dirs[fi->n_dirs++] = STEAL(path);
	} else if (type == DT_REG && fi->headers) {
		err = consider_header(fi, path);
	} else if (type == DT_REG) {
		for (const struct wanted *w = first_wanted(fi, ino); w && w < fi->wanted + fi->n_wanted && w->ino == ino && !err; w++)
			if (!w->file->exact)
				err = consider(fi, w->file, path);
	}
	return err;
}

/* A directory that cannot be read (another user's, or a disk error) must not end recovery. */
static int walk(struct finder *fi)
{
	int err = 0;

	fi->dirs = malloc(sizeof(*fi->dirs));
	if (!fi->dirs)
		return -ENOMEM;
	fi->dirs[0] = strdup("");
	fi->n_dirs = fi->dirs[0] ? 1 : 0;
	if (!fi->n_dirs)
		err = -ENOMEM;
	while (fi->n_dirs && !err) {
		CLEANUP_FREE char *dir = fi->dirs[--fi->n_dirs];
		int fd = find_dir(fi->io, fi->store_fd, dir, NULL);

		if (fd < 0)
			continue;
		fi->dir = dir;
		fi->dir_fd = fd;
		err = fi->io->list(fi->io->ctx, fd, walk_entry, fi);
		if (err && err != -ENOMEM) {
			report(REPORT_WARN, "recovery cannot read the directory %s: %s", *dir ? dir : ".", strerror(-err));
			err = 0;
		}
		find_dir_close(fi->io, fi->store_fd, fd);
	}
	while (fi->n_dirs)
		free(fi->dirs[--fi->n_dirs]);
	free(fi->dirs);
	fi->dirs = NULL;
	return err;
}

static bool all_exact(const struct finder *fi)
{
	for (size_t i = 0; i < fi->n; i++)
		if (!fi->files[i].exact)
			return false;
	return true;
}

/* In a store that was not copied a file is its inode number: what is not found by that is gone, and a copy of it keeps what it has. */
static bool all_known(const struct finder *fi)
{
	for (size_t i = 0; i < fi->n; i++)
		if (!fi->files[i].exact && !fi->files[i].at_home)
			return false;
	return true;
}

static int mark_at_home(struct finder *fi)
{
	struct stat s;
	int err = fi->io->stat(fi->io->ctx, fi->store_fd, &s);

	for (size_t i = 0; i < fi->n && !err; i++) {
		struct file *f = &fi->files[i];

		for (size_t k = 0; k < f->n; k++)
			f->at_home |= f->recs[k].rec.type == REDO_INTENT && f->recs[k].rec.intent.root_ino == (uint32_t)s.st_ino;
	}
	return err;
}

int find_files(const struct io *io, int store_fd, const struct secret *k_rec, struct file *files, size_t n)
{
	struct finder fi = {.io = io, .store_fd = store_fd, .k_rec = k_rec, .files = files, .n = n};
	int err = mark_at_home(&fi);

	for (size_t i = 0; i < n && !err; i++)
		err = by_hints(&fi, &files[i]);
	if (err || all_exact(&fi))
		return err;
	err = list_wanted(&fi);
	if (!err)
		err = walk(&fi);
	free(fi.wanted);
	if (err || all_known(&fi))
		return err;
	fi.headers = true;
	return walk(&fi);
}
