/* SPDX-License-Identifier: Apache-2.0 */
/* The converter and plans: making one, and taking files from one instead of walking. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/file.h>

#include "convert_file.h"
#include "convert_i.h"
#include "options.h"
#include "report.h"

/* --- making one --- */

struct making {
	struct convert *cv;
	struct plan *p;
	uint64_t max_files, max_bytes;
	FILE *chunk, *dirs;
	char *chunk_text, *dirs_text;
	size_t chunk_len, dirs_len;
	uint64_t n, bytes; /* in the chunk */
	struct stat root;
};

static int chunk_flush(struct making *m)
{
	int err = 0;

	if (!m->n)
		return 0;
	if (fclose(m->chunk))
		err = -ENOMEM;
	m->chunk = NULL;
	if (!err)
		err = plan_add_chunk(m->p, m->chunk_text, m->chunk_len);
	free(STEAL(m->chunk_text));
	m->n = m->bytes = 0;
	return err;
}

/* @unit: nothing may be cut off here: the names of one file stay together */
static int path_put(struct making *m, const char *path, uint64_t size, bool unit)
{
	if (unit && m->n && (m->n >= m->max_files || m->bytes + size > m->max_bytes)) {
		int err = chunk_flush(m);

		if (err)
			return err;
	}
	if (!m->chunk)
		m->chunk = open_memstream(&m->chunk_text, &m->chunk_len);
	if (!m->chunk)
		return -ENOMEM;
	/* a word that begins with a TAB is no path in a list */
	fprintf(m->chunk, "%s%s%c", *path == '\t' ? "./" : "", path, 0);
	m->n++;
	m->bytes += size;
	return 0;
}

static int set_put(struct making *m, struct chunk *c)
{
	int err = 0;

	for (size_t i = 0; !err && i < c->n; i++)
		err = path_put(m, c->items[i].path, c->items[i].size, i == 0);
	chunk_free(m->cv, c);
	return err;
}

static int regular_put(struct making *m, const struct walk_entry *e)
{
	struct item it = {.path = cdir_join(e->dir, e->name), .dir = cdir_get(e->dir), .size = (uint64_t)e->st.st_size};
	struct chunk *c = NULL;
	bool complete = false;
	int err = it.path ? 0 : -ENOMEM;

	m->p->head.files++;
	m->p->head.bytes += it.size;
	if (!err && e->st.st_nlink > 1) {
		err = sets_add(m->cv, &e->st, &it, &complete, &c);
		return err ? err : complete ? set_put(m, c) : 0;
	}
	if (!err)
		err = path_put(m, it.path, it.size, true);
	convert_item_free(m->cv, &it);
	return err;
}

static void dir_put(struct making *m, const struct stat *st, const char *path)
{
	fprintf(m->dirs, "%lld.%09ld %lld.%09ld %s%c", (long long)st->st_atim.tv_sec, st->st_atim.tv_nsec, (long long)st->st_mtim.tv_sec,
		st->st_mtim.tv_nsec, path, 0);
}

static int entry_put(struct making *m, const struct walk_entry *e)
{
	CLEANUP_FREE char *path = NULL;
	int err;

	if (S_ISREG(e->st.st_mode))
		return regular_put(m, e);
	if (S_ISDIR(e->st.st_mode) && source_is_foreign(m->cv, e))
		return 0;
	path = cdir_join(e->dir, e->name);
	if (!path)
		return -ENOMEM;
	if (S_ISDIR(e->st.st_mode))
		dir_put(m, &e->st, path);
	/* copying makes folders, links and devices too */
	err = m->cv->run.in_place ? 0 : path_put(m, path, 0, true);
	return err;
}

static void ignore_dir(void *arg, struct cdir *d)
{
}

static int plan_walk(struct making *m)
{
	struct convert *cv = m->cv;
	struct walk_entry e;
	struct chunk *c = NULL;
	int got = 0, err;

	cv->walk_calls = (struct walk_calls){cv, source_bad, ignore_dir, NULL, 0};
	dir_put(m, &m->root, "");
	err = walk_open(cv->run.from_fd, cv->run.one_fs, true, &cv->walk_calls, &cv->walk);
	while (!err && (got = walk_next(cv->walk, &e)) > 0) {
		err = entry_put(m, &e);
		if (!err && interrupted())
			err = -EINTR;
	}
	if (!err)
		err = got;
	walk_close(cv->walk);
	cv->walk = NULL;
	while (!err && cv->n_sets && (err = sets_rest(cv, &c)) == 0 && c)
		err = set_put(m, c);
	sets_free(cv);
	return err;
}

int treeplan_make(struct convert *cv, struct plan *p, uint64_t max_files, uint64_t max_bytes)
{
	struct making m = {
	    .cv = cv, .p = p, .max_files = max_files ? max_files : PLAN_FILES, .max_bytes = max_bytes ? max_bytes : PLAN_BYTES};
	int err = 0;

	if (fstat(cv->run.from_fd, &m.root))
		return -errno;
	p->head.root_ino = m.root.st_ino;
	m.dirs = open_memstream(&m.dirs_text, &m.dirs_len);
	if (!m.dirs)
		return -ENOMEM;
	if (cv->run.in_place && cv->run.verb == CONVERT_IN)
		err = names_stage(cv);
	if (!err)
		err = plan_walk(&m);
	if (!err)
		err = chunk_flush(&m);
	if (m.chunk)
		fclose(m.chunk);
	if (fclose(m.dirs) && !err)
		err = -ENOMEM;
	if (!err)
		err = plan_add_dirs(p, m.dirs_text, m.dirs_len);
	if (!err)
		err = treeplan_write(p);
	free(m.chunk_text);
	free(m.dirs_text);
	return err;
}

/* --- working one off --- */

int plan_source_next(struct convert *cv)
{
	struct plan_claim *c = NULL;
	struct stat st;
	size_t len;
	int got;

	free(STEAL(cv->plan_text));
	got = plan_claim_next(cv->plan, &cv->plan_text, &len, &c);
	if (got <= 0) {
		cv->plan_more = false;
		return got;
	}
	if (fstat(cv->run.from_fd, &st))
		return -errno;
	cv->list = fmemopen(cv->plan_text, len, "r");
	cv->list_root = cv->list ? cdir_new(NULL, "", &st) : NULL;
	if (!cv->list_root)
		return -ENOMEM;
	c->root = cv->list_root;
	return 1;
}

static struct plan_claim *claim_of(const struct convert *cv, const struct cdir *d)
{
	struct plan_claim *c = cv->plan->claims;

	while (d->parent)
		d = d->parent;
	while (c && c->root != d)
		c = c->next;
	return c;
}

/* Nothing holds on to its files any more. */
void plan_chunk_ended(struct convert *cv, const struct cdir *root)
{
	struct plan_claim *c = claim_of(cv, root);

	if (!c)
		return;
	c->root = NULL;
	if (cv->draining || cv->fatal)
		c->again = true;
	/* what is to be tried again goes back at the end, or this run would take it again at once */
	if (!c->again && plan_claim_end(cv->plan, c) && !cv->fatal)
		cv->fatal = -EIO;
}

void plan_try_again(struct convert *cv, const struct item *it)
{
	struct plan_claim *c = it->dir ? claim_of(cv, it->dir) : NULL;

	if (c)
		c->again = true;
}

static void dir_end(struct convert *cv, char *path)
{
	struct cdir d = {.refs = 1};
	CLEANUP_FD int fd = -1;

	if (job_time_take(&path, &d.st.st_atim) || job_time_take(&path, &d.st.st_mtim) || !path)
		return;
	fd = beneath_open(cv->run.from_fd, path, cv->run.one_fs);
	if (fd < 0)
		return; /* gone since */
	if (cv->run.in_place) {
		(void)futimens(fd, (struct timespec[2]){d.st.st_atim, d.st.st_mtim});
	} else {
		const struct timespec atime = d.st.st_atim;

		if (fstat(fd, &d.st))
			return;
		d.st.st_atim = atime; /* reading it has changed that */
		d.path = path;
		if (tree_dir_finish(cv, &d))
			report_failed(cv, path, "note", "the folder's own times or attributes could not be kept");
	}
}

/* Nothing is there twice any more. */
static int journal_close(struct convert *cv)
{
	struct job_log *log = NULL;
	struct job_past past;
	int err = syncfs(cv->run.to_fd) ? -errno : job_begin(cv->v, &cv->run, &past, &log);

	if (!err)
		job_end(log, true);
	return err;
}

static int finish_locked(struct convert *cv, bool *ret_all)
{
	CLEANUP_FREE char *text = NULL;
	struct plan_counts n;
	size_t len, at;
	int err = treeplan_count(cv->plan, &n);

	*ret_all = !err && !n.queue && !n.work;
	if (err || !*ret_all)
		return err;
	err = treeplan_dirs(cv->plan, &text, &len);
	/* what is in a folder comes behind it: from the end */
	for (at = err ? 0 : len; at > 0;) {
		size_t begin = at - 1;

		while (begin && text[begin - 1])
			begin--;
		dir_end(cv, text + begin);
		at = begin;
	}
	return err || !cv->run.in_place ? err : journal_close(cv);
}

/* Runs that come to the end at the same time do so one after the other: there is one journal. */
int treeplan_finish(struct convert *cv, bool *ret_all)
{
	int err;

	while (flock(cv->plan->dir, LOCK_EX) && errno == EINTR)
		;
	err = finish_locked(cv, ret_all);
	(void)flock(cv->plan->dir, LOCK_UN);
	return err;
}
