/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first look over the tree, and (in place) folders, links and devices whose names are spelled otherwise in a store.
 *
 * `d.tdf` becomes `d.tdf_` and `d.tdf_` becomes `d.tdf__`, so whether a name was done already cannot be seen in the name.  Hence all are
 * listed in the journal and synced before the first changes; they are renamed from the last to the first, children before parents, each
 * only if the listed inode has the listed name.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/statvfs.h>

#include "convert_file.h"
#include "convert_i.h"
#include "name.h"
#include "report.h"
#include "tree.h"

static void nothing_done(void *arg, struct cdir *d)
{
}

/* What is closed to us the walk that converts tells, and the rest goes on.  Else a name that was not seen would count as done. */
static void unseen(void *arg, const char *path, int err)
{
	int *first = arg;

	if (!*first && err != -EACCES && err != -EPERM)
		*first = fail(err, "%s: cannot be listed: %s; no name is changed before all are known, run it again", *path ? path : ".",
			      strerror(-err));
}

static bool respelled(const struct convert *cv, const char *name, char ret[static NAME_ROOM])
{
	if (cv->run.verb == CONVERT_IN)
		return (!cv->past.names_done || name_is_tdf(name)) && name_store(name, false, ret) == 0 && strcmp(name, ret) != 0;
	return !cv->past.names_done && name_show(name, false, ret) == 0 && strcmp(name, ret) != 0;
}

static int plan_rename(struct convert *cv, const struct walk_entry *e, struct job_rename **list, size_t *n)
{
	char to[NAME_ROOM];
	struct job_rename *more;
	struct stat st = e->st;

	if (!respelled(cv, e->name, to))
		return 0;
	if (!st.st_ino && fstatat(e->dir_fd, e->name, &st, AT_SYMLINK_NOFOLLOW))
		return 0;
	more = realloc(*list, (*n + 1) * sizeof(*more));
	if (!more)
		return -ENOMEM;
	*list = more;
	more[*n] = (struct job_rename){cdir_join(e->dir, e->name), strdup(to), st.st_ino};
	(*n)++;
	return more[*n - 1].path && more[*n - 1].to ? 0 : -ENOMEM;
}

static uint64_t space_of(const struct convert *cv, uint64_t size)
{
	uint64_t tail = 2048 + seg_count(size, cv->v->segment_size) * 88; /* manifest and zip records */

	return (tail_offset(size, cv->v->segment_size) + tail + 4095) / 4096 * 4096;
}

/* For --dry-run: is there anything to be done with it?  By its record, as the run itself tells. */
static bool is_to_do(const struct convert *cv, const struct walk_entry *e)
{
	const bool in = cv->run.verb == CONVERT_IN;
	CLEANUP_FD int fd = -1;
	uint8_t sector[SECTOR];
	struct record r;
	bool ours;

	if (cv->run.verb == CONVERT_REWRAP || (in && !cv->run.in_place))
		return true;
	if (!name_is_tdf(e->name))
		return in;
	fd = content_open(e->dir_fd, e->name);
	ours = fd >= 0 && pread(fd, sector, SECTOR, 0) == SECTOR && !record_own(sector, cv->v->k_rec, cv->v->id, &r, NULL);
	fail_clear();
	return in != ours;
}

static int look(struct convert *cv, bool stats, struct job_rename **ret_list, size_t *ret_n, uint64_t *ret_bytes, uint64_t *ret_space)
{
	int bad = 0;
	const struct walk_calls calls = {&bad, unseen, nothing_done, cv->run.below, cv->run.only};
	struct walk_entry e;
	struct walk *w;
	int got, err = walk_open(cv->run.from_fd, cv->run.one_fs, stats, &calls, &w);

	if (err)
		return err;
	cv->total = 0;
	while (!err && (got = walk_next(w, &e)) != 0) {
		if (got < 0) {
			err = got;
		} else if (S_ISREG(e.st.st_mode) && stats && !is_to_do(cv, &e)) {
			cv->counts.already++;
		} else if (S_ISREG(e.st.st_mode)) {
			cv->total++;
			cv->largest = MAX(cv->largest, (uint64_t)e.st.st_size);
			/* of a file with several names each stands for its part */
			*ret_bytes += (uint64_t)e.st.st_size / MAX(e.st.st_nlink, 1);
			*ret_space += space_of(cv, (uint64_t)e.st.st_size) / MAX(e.st.st_nlink, 1);
		} else if (S_ISDIR(e.st.st_mode) && e.self && walk_is_volume(&e)) {
			walk_skip(w); /* left alone, as by the walk that converts */
		} else if (ret_list && (!S_ISDIR(e.st.st_mode) || e.self)) {
			err = plan_rename(cv, &e, ret_list, ret_n);
		}
	}
	walk_close(w);
	return err || !ret_list ? err : bad;
}

int names_look(struct convert *cv, bool stats, uint64_t *ret_bytes, uint64_t *ret_space)
{
	uint64_t bytes = 0, space = 0;
	int err = look(cv, stats, NULL, NULL, &bytes, &space);

	*ret_bytes = bytes;
	*ret_space = space;
	return err;
}

static int rename_one(struct convert *cv, const struct job_rename *r)
{
	const char *slash = strrchr(r->path, '/'), *name = slash ? slash + 1 : r->path;
	CLEANUP_FREE char *dir_path = strndup(r->path, slash ? (size_t)(slash - r->path) : 0);
	CLEANUP_FD int dir = dir_path ? beneath_open(cv->run.from_fd, dir_path, cv->run.one_fs) : -ENOMEM;
	struct stat st, old;
	int err = 0;

	if (dir == -ENOENT) /* its folder has its new name, and folders come after what is in them */
		return 0;
	if (dir < 0)
		return dir;
	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) || st.st_ino != r->ino || fstat(dir, &old))
		return 0; /* done, or somebody else's by now */
	if (renameat2(dir, name, dir, r->to, RENAME_NOREPLACE)) {
		err = errno;
		cv->counts.failed++;
		report_failed(cv, r->path, "failed", err == EEXIST ? "the name it must have in the other tree is taken" : strerror(err));
	}
	(void)futimens(dir, (struct timespec[2]){old.st_atim, old.st_mtim});
	return 0;
}

static size_t depth_of(const char *path)
{
	size_t n = 0;

	for (; *path; path++)
		n += *path == '/';
	return n;
}

/* The list is worked off from its end: what is deeper first, and of one folder the name first that the next one needs. */
static int by_depth(const struct job_rename *a, const struct job_rename *b, bool in)
{
	size_t x = depth_of(a->path), y = depth_of(b->path), m = strlen(a->path), n = strlen(b->path);

	if (x != y)
		return x < y ? -1 : 1;
	return m == n ? 0 : (m < n) == in ? -1 : 1;
}

static int order_in(const void *a, const void *b)
{
	return by_depth(a, b, true);
}

static int order_out(const void *a, const void *b)
{
	return by_depth(a, b, false);
}

static void renames_free(struct job_rename *list, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free(list[i].path);
		free(list[i].to);
	}
	free(list);
}

int names_stage(struct convert *cv)
{
	struct job_rename *list = NULL, *old;
	uint64_t bytes = 0, space = 0;
	uint64_t failed = cv->counts.failed;
	size_t n = 0, n_old;
	bool complete;
	int err = 0;

	job_renames(cv->log, &old, &n_old, &complete);
	for (size_t i = n_old; complete && i-- > 0 && !err;)
		err = rename_one(cv, &old[i]);
	if (!err && cv->counts.failed > failed) /* the list stays: what it holds cannot be told from the names */
		return 0;
	if (!err && complete && n_old) {
		err = syncfs(cv->run.from_fd) ? -errno : job_names_done(cv->log);
		cv->past.names_done = true;
	}
	if (!err)
		err = look(cv, false, &list, &n, &bytes, &space);
	if (n)
		qsort(list, n, sizeof(*list), cv->run.verb == CONVERT_IN ? order_in : order_out);
	for (size_t i = 0; i < n && !err; i++)
		err = job_rename(cv->log, list[i].path, list[i].to, list[i].ino);
	if (!err && n)
		err = job_names_planned(cv->log);
	for (size_t i = n; i-- > 0 && !err;)
		err = rename_one(cv, &list[i]);
	if (!err && n && syncfs(cv->run.from_fd))
		err = -errno;
	if (!err && cv->counts.failed == failed && (n || !cv->past.names_done)) {
		err = job_names_done(cv->log);
		cv->past.names_done = true;
	}
	renames_free(list, n);
	return err;
}
