/* SPDX-License-Identifier: Apache-2.0 */
/* The threads and their queue; what they do to a file is in verify_item.c. */
#include "verify.h"

#include <errno.h>
#include <time.h>

#include "report.h"
#include "verify_item.h"

#define QUEUE_MAX 256
#define TRIES 4 /* of a file in a mounted store */

struct job {
	struct job *next;
	struct verify_item *file;
	uint64_t range; /* of an opened file */
};

struct verify {
	struct verify_params par;
	pthread_t *threads;
	unsigned n_threads;

	struct mutex lock;
	struct cond change;
	/* guarded by lock */
	struct job *first, *last;
	size_t n_files; /* files waiting to be opened */
	size_t n_busy;  /* threads at work: they may add jobs */
	bool closing;

	struct mutex result_lock;
};

/* @front: ranges of an open file go before new files, so that few files are open at a time */
static int job_put(struct verify *v, struct verify_item *f, uint64_t range, bool front)
{
	struct job *j = calloc(1, sizeof(*j));

	if (!j)
		return -ENOMEM;
	j->file = f;
	j->range = range;
	mutex_lock(&v->lock);
	if (front) {
		j->next = v->first;
		v->first = j;
		if (!v->last)
			v->last = j;
	} else {
		if (v->last)
			v->last->next = j;
		else
			v->first = j;
		v->last = j;
	}
	if (!f->c)
		v->n_files++;
	cond_broadcast(&v->change);
	mutex_unlock(&v->lock);
	return 0;
}

/* In a mounted store a file may have been read while the daemon was sealing it. */
static bool look_again(struct verify *v, struct verify_item *f)
{
	const struct timespec second = {1, 0};

	if (!v->par.in_use || ++f->tries >= TRIES || interrupted())
		return false;
	nanosleep(&second, NULL);
	item_close(f);
	if (job_put(v, f, 0, true) == 0)
		return true;
	item_problem(f, -ENOMEM);
	return false;
}

/* By place, what is wrong with the whole last: the threads found them in any order. */
static int by_place(const void *a, const void *b)
{
	const struct verify_problem *x = a, *y = b;

	if (x->whole != y->whole)
		return x->whole - y->whole;
	return (x->file_off > y->file_off) - (x->file_off < y->file_off);
}

static void item_done(struct verify *v, struct verify_item *f, int open_err)
{
	struct verify_result r = {.path = f->path};

	if (open_err == -ENODATA) {
		r.state = VERIFY_INCOMPLETE;
	} else if (open_err == -ENOKEY) {
		r.state = VERIFY_NO_KEY;
	} else if (open_err) {
		item_problem(f, open_err);
	} else {
		item_crc(f);
		r.native = f->c->native;
		r.live = f->c->native && f->c->rec.state == RECORD_LIVE;
		r.size = f->c->m->size;
	}
	if (f->n_problems) {
		r.state = VERIFY_BAD;
		if (look_again(v, f))
			return;
	}
	if (!interrupted()) {
		qsort(f->problems, MIN(f->n_problems, VERIFY_SHOWN), sizeof(*f->problems), by_place);
		r.n_problems = f->n_problems;
		r.problems = f->problems;
		mutex_lock(&v->result_lock);
		v->par.result(v->par.arg, &r);
		mutex_unlock(&v->result_lock);
		progress_add(v->par.progress, 0, 1);
	}
	item_free(f);
}

static void range_done(struct verify *v, struct verify_item *f)
{
	if (atomic_fetch_sub(&f->ranges_left, 1) == 1)
		item_done(v, f, 0);
}

static void job_run(struct verify *v, struct verify_buffers *w, const struct job *j)
{
	struct verify_item *f = j->file;
	uint64_t n;

	if (f->c) {
		item_range(f, w, j->range, v->par.progress);
		range_done(v, f);
		return;
	}
	int err = interrupted() ? -EINTR : item_open(f, v->par.target);

	if (err) {
		item_done(v, f, err);
		return;
	}
	n = f->n_ranges; /* once the last range is out, the file may be gone */
	for (uint64_t i = n; --i > 0;)
		if (job_put(v, f, i, true)) { /* no memory for the job: do it here */
			item_range(f, w, i, v->par.progress);
			range_done(v, f);
		}
	item_range(f, w, 0, v->par.progress);
	range_done(v, f);
}

/* The next job; NULL: no more will come. */
static struct job *job_get(struct verify *v)
{
	struct job *j;

	mutex_lock(&v->lock);
	while (!v->first && !(v->closing && !v->n_busy))
		cond_wait(&v->change, &v->lock);
	j = v->first;
	if (j) {
		v->first = j->next;
		if (!v->first)
			v->last = NULL;
		if (!j->file->c)
			v->n_files--;
		v->n_busy++;
	}
	cond_broadcast(&v->change);
	mutex_unlock(&v->lock);
	return j;
}

static void *worker_run(void *arg)
{
	struct verify *v = arg;
	struct verify_buffers w = {0};
	struct job *j;

	while ((j = job_get(v)) != NULL) {
		job_run(v, &w, j);
		free(j);
		mutex_lock(&v->lock);
		v->n_busy--;
		cond_broadcast(&v->change);
		mutex_unlock(&v->lock);
	}
	buffers_free(&w);
	return NULL;
}

int verify_start(const struct verify_params *par, struct verify **ret)
{
	struct verify *v = calloc(1, sizeof(*v));
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned want = par->threads ? par->threads : (unsigned)MAX(cores, 1);

	if (!v)
		return -ENOMEM;
	v->par = *par;
	mutex_init(&v->lock);
	mutex_init(&v->result_lock);
	cond_init(&v->change);
	v->threads = calloc(want, sizeof(*v->threads));
	while (v->threads && v->n_threads < want && pthread_create(&v->threads[v->n_threads], NULL, worker_run, v) == 0)
		v->n_threads++;
	if (!v->n_threads) {
		int err = v->threads ? -EAGAIN : -ENOMEM;

		verify_finish(v);
		return err;
	}
	*ret = v;
	return 0;
}

int verify_file(struct verify *v, const char *path, size_t named)
{
	struct verify_item *f = NULL;
	int err = item_new(path, named, &f);

	if (err)
		return err;
	mutex_lock(&v->lock);
	while (v->n_files >= QUEUE_MAX)
		cond_wait(&v->change, &v->lock);
	mutex_unlock(&v->lock);
	err = interrupted() ? -EINTR : job_put(v, f, 0, false);
	if (err)
		item_free(f);
	return err;
}

void verify_finish(struct verify *v)
{
	mutex_lock(&v->lock);
	v->closing = true;
	cond_broadcast(&v->change);
	mutex_unlock(&v->lock);
	for (unsigned i = 0; i < v->n_threads; i++)
		pthread_join(v->threads[i], NULL);
	cond_destroy(&v->change);
	mutex_destroy(&v->lock);
	mutex_destroy(&v->result_lock);
	free(v->threads);
	free(v);
}
