/* SPDX-License-Identifier: Apache-2.0 */
/* Where the files come from: the walk, or a list; packed into chunks, large files alone and first. */
#include <errno.h>
#include <fcntl.h>

#include "convert_one.h"
#include "convert_i.h"
#include "name.h"
#include "report.h"

#define FILES_FROM_MAX ((size_t)1 << 20) /* one path of a list */

void source_bad(void *arg, const char *path, int err)
{
	struct convert *cv = arg;

	cv->counts.failed++;
	report_failed(cv, *path ? path : ".", "failed", strerror(-err));
}

/* Give a directory that was changed its times back, or a copied one all it is to have. */
void dir_finished(void *arg, struct cdir *d)
{
	struct convert *cv = arg;
	const struct timespec times[2] = {d->st.st_atim, d->st.st_mtim};
	int err;

	if (cv->plan) { /* others work in the same folders: the last one does that */
		if (!d->parent)
			plan_chunk_ended(cv, d);
		return;
	}
	if (!d->touched) /* below a mount never: the daemon sees to it */
		return;
	if (cv->run.in_place) {
		CLEANUP_FD int fd = beneath_open(cv->run.from_fd, d->path, cv->run.one_fs);

		err = fd < 0 ? fd : futimens(fd, times) ? -errno : 0;
		if (err != -ENOENT && !err)
			err = job_dir_done(cv->log, d);
	} else {
		err = tree_dir_finish(cv, d);
	}
	if (err)
		report_failed(cv, *d->path ? d->path : ".", "note", "the folder's own times or attributes could not be kept");
}

int source_open(struct convert *cv)
{
	struct stat st;

	cv->plan_more = cv->plan != NULL;
	if (cv->plan)
		return 0;
	if (!cv->run.files_from)
		return walk_open(cv->run.from_fd, cv->run.one_fs, true, &cv->walk_calls, &cv->walk);
	cv->list = fopen(cv->run.files_from, "re");
	if (!cv->list)
		return fail(-errno, "%s: %s", cv->run.files_from, strerror(errno));
	if (fstat(cv->run.from_fd, &st))
		return -errno;
	cv->list_root = cdir_new(NULL, "", &st);
	return cv->list_root ? 0 : -ENOMEM;
}

bool source_ended(const struct convert *cv)
{
	return !cv->walk && !cv->list && !cv->plan_more && !cv->n_sets && !cv->filling && !cv->ready.first;
}

static void list_leave(struct convert *cv)
{
	if (cv->list_dir)
		cdir_put(cv->list_dir, &cv->walk_calls);
	if (cv->list_root)
		cdir_put(cv->list_root, &cv->walk_calls);
	cv->list_dir = cv->list_root = NULL;
}

void source_close(struct convert *cv)
{
	struct chunk *c;

	walk_close(cv->walk);
	cv->walk = NULL;
	if (cv->list)
		fclose(cv->list);
	cv->list = NULL;
	free(STEAL(cv->plan_text));
	cv->plan_more = false;
	list_leave(cv);
	chunk_free(cv, cv->filling);
	cv->filling = NULL;
	while ((c = queue_pop(&cv->ready)) != NULL)
		chunk_free(cv, c);
	sets_free(cv);
}

static void flush(struct convert *cv)
{
	if (!cv->filling)
		return;
	queue_push(&cv->ready, cv->filling);
	cv->filling = NULL;
}

/* Before anything in it changes. */
static int dir_begin(struct convert *cv, struct cdir *d)
{
	if (d->touched || cv->plan || cv->run.live)
		return 0;
	if (cv->run.in_place)
		return job_dir_open(cv->log, d);
	return 0;
}

static bool wants_verify(struct convert *cv)
{
	switch (cv->run.verify) {
	case VERIFY_POLICY_NONE:
		return false;
	case VERIFY_POLICY_SAMPLE:
		return cv->n_sampled++ % 16 == 0;
	default:
		return true;
	}
}

/* A file of which a rewrap that was cut short has replaced other names?  1, 0, -ENOMEM.  Then this may be the only one that is left. */
static int is_half(struct convert *cv, uint64_t ino)
{
	char name[TEMP_ROOM];
	uint64_t *more;

	if (!cv->past.half_sets)
		return 0;
	waiting_name(&cv->run, ino, true, name);
	if (faccessat(cv->run.temp_dir, name, F_OK, AT_SYMLINK_NOFOLLOW))
		return 0;
	more = realloc(cv->half, (cv->n_half + 1) * sizeof(*more));
	if (!more)
		return -ENOMEM;
	cv->half = more;
	cv->half[cv->n_half++] = ino;
	return 1;
}

static int add_regular(struct convert *cv, struct cdir *dir, const char *name, const struct stat *st)
{
	struct item it = {.path = cdir_join(dir, name), .dir = cdir_get(dir), .size = (uint64_t)st->st_size, .verify = wants_verify(cv)};
	struct chunk *c = NULL;
	bool complete = false;
	int err = it.path ? dir_begin(cv, dir) : -ENOMEM;
	int half = err ? err : is_half(cv, st->st_ino);

	if (half < 0) {
		convert_item_free(cv, &it);
		return half;
	}
	if (st->st_nlink > 1 || half) {
		err = sets_add(cv, st, &it, &complete, &c);
		if (!err && complete)
			chunk_ready(cv, c);
		return err;
	}
	if (it.size >= CHUNK_BYTES) { /* alone, and before the small ones: the longest must not begin last */
		c = chunk_new(cv);
		if (!c) {
			convert_item_free(cv, &it);
			return -ENOMEM;
		}
		err = chunk_add(cv, c, &it);
		if (err)
			chunk_free(cv, c);
		else
			queue_push_front(&cv->ready, c);
		return err;
	}
	if (!cv->filling)
		cv->filling = chunk_new(cv);
	if (!cv->filling) {
		convert_item_free(cv, &it);
		return -ENOMEM;
	}
	err = chunk_add(cv, cv->filling, &it);
	/* under a rate limit in pieces that fit it */
	if (!err && (chunk_full(cv->filling) || (cv->run.max_rate && cv->filling->bytes >= cv->run.max_rate / 8)))
		flush(cv);
	return err;
}

static void skip_tree(struct convert *cv, const struct walk_entry *e, const char *why)
{
	CLEANUP_FREE char *path = cdir_join(e->dir, e->name);

	cv->counts.skipped++;
	report_reason(cv, why);
	report_failed(cv, path ? path : e->name, "skipped", why);
	if (cv->walk)
		walk_skip(cv->walk);
}

bool source_is_foreign(struct convert *cv, const struct walk_entry *e)
{
	const char *why = e->self || cv->walk ? walk_foreign(e) : NULL;

	if (why) {
		skip_tree(cv, e, why);
		cv->counts.foreign++;
	}
	return why;
}

static int take(struct convert *cv, const struct walk_entry *e)
{
	int err;

	if (S_ISREG(e->st.st_mode))
		return add_regular(cv, e->dir, e->name, &e->st);
	if (cv->run.in_place && cv->run.verb == CONVERT_IN && !cv->run.recover && strlen(e->name) > NAME_VISIBLE_MAX) {
		skip_tree(cv, e, "its name is longer than 251 bytes: a mount does not show it");
		return 0;
	}
	if (S_ISDIR(e->st.st_mode)) {
		if (!source_is_foreign(cv, e))
			cv->counts.dirs++;
		if (cv->run.in_place || !e->self)
			return 0;
		err = tree_dir(cv, e);
		if (err && cv->walk)
			walk_skip(cv->walk);
		return 0;
	}
	cv->counts.other++;
	return cv->run.in_place ? 0 : tree_other(cv, e);
}

/* --- from a list --- */

/* The directory objects from the root down to @path; copying makes the directories too. */
static int list_enter(struct convert *cv, const char *path)
{
	struct cdir *at = cdir_get(cv->list_root);
	int err = 0;

	if (cv->list_dir && strcmp(cv->list_dir->path, path) == 0) {
		cdir_put(at, &cv->walk_calls);
		return 0;
	}
	if (cv->list_dir)
		cdir_put(cv->list_dir, &cv->walk_calls);
	cv->list_dir = NULL;
	while (*path && !err) {
		size_t len = strcspn(path, "/");
		CLEANUP_FREE char *name = strndup(path, len);
		CLEANUP_FD int up = beneath_open(cv->run.from_fd, at->path, cv->run.one_fs);
		struct walk_entry e = {.dir = at, .dir_fd = up, .name = name};

		err = !name                                           ? -ENOMEM
		      : up < 0                                        ? up
		      : fstatat(up, name, &e.st, AT_SYMLINK_NOFOLLOW) ? -errno
		      : S_ISDIR(e.st.st_mode)                         ? 0
								      : -ENOTDIR;
		if (!err && walk_is_volume(&e))
			err = -EXDEV;
		if (!err) {
			e.self = cdir_new(at, name, &e.st);
			err = e.self ? take(cv, &e) : -ENOMEM;
		}
		cdir_put(at, &cv->walk_calls);
		at = e.self;
		path += len + (path[len] == '/');
	}
	if (err && at)
		cdir_put(at, &cv->walk_calls);
	cv->list_dir = err ? NULL : at;
	return err;
}

/* Is there what @name becomes in place? */
static bool plan_converted(const struct convert *cv, int dir, const char *name)
{
	char target[NAME_ROOM];
	struct stat st;

	return cv->run.in_place && cv->run.verb != CONVERT_REWRAP &&
	       (cv->run.verb == CONVERT_IN ? name_store : name_show)(name, true, target) == 0 &&
	       fstatat(dir, target, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

/* 1 taken, 0 the end of the list, -errno */
static int list_next(struct convert *cv)
{
	CLEANUP_FREE char *text = NULL;
	CLEANUP_FREE char *dir = NULL;
	struct walk_entry e = {0};
	size_t room = 0;
	ssize_t len = getdelim(&text, &room, 0, cv->list);
	const char *path, *slash;
	int err;

	if (len < 0)
		return 0;
	if (!*text || *text == '\t') /* a reason, as our own lists have behind each path */
		return 1;
	path = strncmp(text, "./", 2) == 0 ? text + 2 : text;
	if (!path_is_inside(path) || (size_t)len > FILES_FROM_MAX) {
		cv->counts.failed++;
		report_failed(cv, path, "failed", "is no path inside the tree");
		return 1;
	}
	if (path_lies_in_tdfs_dir(path)) {
		skip_tree(cv, &(struct walk_entry){.dir = cv->list_root, .name = path}, "lies in " TDFS_DIR ", which is a volume's own");
		return 1;
	}
	slash = strrchr(path, '/');
	dir = strndup(path, slash ? (size_t)(slash - path) : 0);
	err = dir ? list_enter(cv, dir) : -ENOMEM;
	if (!err) {
		CLEANUP_FD int fd = beneath_open(cv->run.from_fd, dir, cv->run.one_fs);

		e = (struct walk_entry){.dir = cv->list_dir, .dir_fd = fd, .name = slash ? slash + 1 : path};
		err = fd < 0 ? fd : fstatat(fd, e.name, &e.st, AT_SYMLINK_NOFOLLOW) ? -errno : 0;
		if (err == -ENOENT && cv->plan) { /* a run that was killed has come that far; or it was removed since */
			cv->counts.already += plan_converted(cv, fd, e.name);
			return 1;
		}
		if (!err)
			err = !S_ISDIR(e.st.st_mode) ? take(cv, &e) : cv->plan ? list_enter(cv, path) : 0;
	}
	if (err == -ENOMEM)
		return err;
	if (err)
		source_bad(cv, path, err);
	return 1;
}

/* The end of the walk, of the list, or of one chunk of a plan. */
static int end_of_source(struct convert *cv)
{
	struct chunk *c = NULL;
	int err;

	if (!cv->plan || !cv->plan_more)
		flush(cv);
	walk_close(cv->walk);
	cv->walk = NULL;
	if (cv->list)
		fclose(cv->list);
	cv->list = NULL;
	if (cv->plan) {
		list_leave(cv);
	} else if (cv->list_dir) {
		cdir_put(cv->list_dir, &cv->walk_calls);
		cv->list_dir = NULL;
	}
	while (cv->n_sets) {
		err = sets_rest(cv, &c);
		if (err || !c)
			return err;
		chunk_ready(cv, c);
	}
	return 0;
}

int source_fill(struct convert *cv)
{
	size_t enough = CHUNKS_AHEAD * ((size_t)cv->run.workers + 1);

	while ((cv->walk || cv->list || cv->plan_more) && cv->ready.n_chunks < enough &&
	       (cv->ready.bytes < FLIGHT_BYTES || cv->ready.n_chunks < cv->run.workers)) {
		struct walk_entry e;
		int got = cv->walk ? walk_next(cv->walk, &e) : cv->list ? list_next(cv) : plan_source_next(cv);

		if (got == 0) {
			got = end_of_source(cv);
			if (got || !cv->plan_more)
				return got;
		}
		if (got < 0)
			return got;
		got = cv->walk ? take(cv, &e) : 0;
		if (got < 0)
			return got;
	}
	return 0;
}
