/* SPDX-License-Identifier: Apache-2.0 */
#include "verify.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <time.h>

#include "crc.h"
#include "lock.h"
#include "say.h"
#include "zip.h"

#define RANGE_BYTES ((uint64_t)32 << 20) /* one thread's piece of a large file */
#define CHUNK ((size_t)1 << 20)
#define QUEUE_MAX 256
#define TRIES 4 /* of a file in a mounted store */

struct file {
	char *path;
	int tries;
	/* set when it is opened, then fixed */
	int fd;
	struct io io;
	struct container *c;
	uint64_t per_range, n_ranges;
	uint32_t crc; /* what the zip says */
	/* each written by the thread that has the range */
	uint32_t *range_crc;
	uint64_t *range_len;
	_Atomic uint64_t ranges_left;

	struct mutex lock;
	/* guarded by lock */
	struct verify_problem problems[VERIFY_SHOWN];
	size_t n_problems;
	bool crc_known; /* every stored byte could be read */
};

struct job {
	struct job *next;
	struct file *file;
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
	size_t n_busy;	/* threads at work: they may add jobs */
	bool closing;

	struct mutex result_lock;
};

/* One thread's buffers. */
struct worker {
	uint8_t *stored, *plain;
	size_t stored_room, plain_room;
};

static int room_get(uint8_t **p, size_t *room, size_t need)
{
	uint8_t *more;

	if (*room >= need)
		return 0;
	more = realloc(*p, need);
	if (!more)
		return -ENOMEM;
	*p = more;
	*room = need;
	return 0;
}

static void problem_add(struct file *f, const struct verify_problem *p, int err)
{
	mutex_lock(&f->lock);
	if (f->n_problems < VERIFY_SHOWN) {
		f->problems[f->n_problems] = *p;
		f->problems[f->n_problems].reason = strdup(cause_text(err));
	}
	f->n_problems++;
	mutex_unlock(&f->lock);
}

static void problem_whole(struct file *f, int err)
{
	struct verify_problem p = {.whole = true};

	problem_add(f, &p, err);
}

static void file_close(struct file *f)
{
	for (size_t i = 0; i < MIN(f->n_problems, VERIFY_SHOWN); i++)
		free(f->problems[i].reason);
	f->n_problems = 0;
	container_free(f->c);
	f->c = NULL;
	free(STEAL(f->range_crc));
	free(STEAL(f->range_len));
	if (f->fd >= 0)
		close(f->fd);
	f->fd = -1;
}

static void file_free(struct file *f)
{
	file_close(f);
	mutex_destroy(&f->lock);
	free(f->path);
	free(f);
}

static int file_new(const char *path, struct file **ret)
{
	struct file *f = calloc(1, sizeof(*f));

	if (!f)
		return -ENOMEM;
	f->fd = -1;
	f->path = strdup(path);
	mutex_init(&f->lock);
	if (!f->path) {
		file_free(f);
		return -ENOMEM;
	}
	*ret = f;
	return 0;
}

/* @front: ranges of an open file go before new files, so that few files are open at a time */
static int job_put(struct verify *v, struct file *f, uint64_t range, bool front)
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

static int file_open(const struct verify *v, struct file *f)
{
	uint64_t s;
	struct stat st;
	struct zip z;
	int err;

	fail_clear();
	f->fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (f->fd < 0 || fstat(f->fd, &st))
		return -errno;
	if (!S_ISREG(st.st_mode))
		return fail(-EINVAL, "not a regular file");
	posix_fadvise(f->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
	f->io = io_posix(f->fd);
	err = target_container(v->par.target, &f->io, f->fd, &f->c);
	if (err)
		return err;
	f->crc = f->c->crc;
	if (!f->c->native) {
		err = zip_find(&f->io, f->fd, (uint64_t)st.st_size, &z);
		if (err)
			return err;
		f->crc = z.payload.crc;
	}
	s = f->c->m->seg_default ? f->c->m->seg_default : CHUNK;
	f->per_range = MAX(RANGE_BYTES / s, 1);
	f->n_ranges = f->c->m->n_segs ? (f->c->m->n_segs - 1) / f->per_range + 1 : 1;
	f->range_crc = calloc(f->n_ranges, sizeof(*f->range_crc));
	f->range_len = calloc(f->n_ranges, sizeof(*f->range_len));
	f->crc_known = true;
	f->ranges_left = f->n_ranges;
	return f->range_crc && f->range_len ? 0 : -ENOMEM;
}

/* Stored length of segments [i, end) and where they start; they lie one behind the other. */
static void extent(const struct container *c, uint64_t i, uint64_t end, uint64_t *ret_off, uint64_t *ret_len)
{
	uint64_t plain_off, last_off;
	uint32_t plain_len;

	container_segment(c, i, &plain_off, &plain_len, ret_off);
	container_segment(c, end - 1, &plain_off, &plain_len, &last_off);
	*ret_len = last_off + plain_len + AEAD_OVERHEAD - *ret_off;
}

static int segment_check(const struct file *f, struct worker *w, uint64_t i, const uint8_t *stored, uint32_t plain_len)
{
	const struct manifest *m = f->c->m;
	int err = room_get(&w->plain, &w->plain_room, MAX(plain_len, 1));

	if (err)
		return err;
	/* the same check that container_read_segment() makes, without reading the bytes a second time */
	if (!m->seg_hs256 && m->hash_len == AEAD_TAG)
		return aead_open(f->c->dek, stored, (size_t)plain_len + AEAD_OVERHEAD, m->hashes + i * AEAD_TAG, w->plain);
	return container_read_segment(&f->io, f->fd, f->c, i, w->plain);
}

/* Check segments [i, end), which are read at once. */
static void chunk_run(struct verify *v, struct file *f, struct worker *w, uint64_t range, uint64_t i, uint64_t end)
{
	uint64_t off, len, at;
	int err;

	extent(f->c, i, end, &off, &len);
	fail_clear();
	err = room_get(&w->stored, &w->stored_room, (size_t)len);
	if (!err)
		err = io_pread_full(&f->io, f->fd, w->stored, (size_t)len, off);
	if (err) {
		struct verify_problem p = {.segment = i, .file_off = off};

		p.whole = err == -ENOMEM;
		problem_add(f, &p, err);
		mutex_lock(&f->lock);
		f->crc_known = false;
		mutex_unlock(&f->lock);
		return;
	}
	f->range_crc[range] = crc_bytes(f->range_crc[range], w->stored, (size_t)len);
	f->range_len[range] += len;
	for (at = off; i < end; i++) {
		struct verify_problem p = {.segment = i};
		uint32_t plain_len;

		container_segment(f->c, i, &p.plain_off, &plain_len, &p.file_off);
		fail_clear();
		err = segment_check(f, w, i, w->stored + (p.file_off - at), plain_len);
		if (err)
			problem_add(f, &p, err);
		progress_add(v->par.progress, (uint64_t)plain_len + AEAD_OVERHEAD, 0);
	}
}

static void range_run(struct verify *v, struct file *f, struct worker *w, uint64_t range)
{
	uint64_t i = range * f->per_range, end = MIN(i + f->per_range, f->c->m->n_segs);

	while (i < end && !interrupted()) {
		uint64_t stop = i + 1, off, len;

		/* as many segments as fit, at least one */
		while (stop < end) {
			extent(f->c, i, stop + 1, &off, &len);
			if (len > CHUNK)
				break;
			stop++;
		}
		chunk_run(v, f, w, range, i, stop);
		i = stop;
	}
}

static void crc_check(struct file *f)
{
	uint32_t crc = 0;

	if (!f->crc_known)
		return;
	for (uint64_t i = 0; i < f->n_ranges; i++)
		crc = crc_join(crc, f->range_crc[i], f->range_len[i]);
	if (crc == f->crc)
		return;
	problem_whole(f, fail(-EBADMSG, f->n_problems ? "the CRC-32 of the payload is wrong too" : "the CRC-32 of the payload is wrong (the content verified): zip programs will refuse it"));
}

/* In a mounted store a file may have been read while the daemon was sealing it. */
static bool look_again(struct verify *v, struct file *f)
{
	const struct timespec second = {1, 0};

	if (!v->par.in_use || ++f->tries >= TRIES || interrupted())
		return false;
	nanosleep(&second, NULL);
	file_close(f);
	if (job_put(v, f, 0, true) == 0)
		return true;
	problem_whole(f, -ENOMEM);
	return false;
}

static void file_done(struct verify *v, struct file *f, int open_err)
{
	struct verify_result r = {.path = f->path};

	if (open_err == -ENODATA) {
		r.state = VERIFY_INCOMPLETE;
	} else if (open_err == -ENOKEY) {
		r.state = VERIFY_NO_KEY;
	} else if (open_err) {
		problem_whole(f, open_err);
	} else {
		crc_check(f);
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
		r.n_problems = f->n_problems;
		r.problems = f->problems;
		mutex_lock(&v->result_lock);
		v->par.result(v->par.arg, &r);
		mutex_unlock(&v->result_lock);
		progress_add(v->par.progress, 0, 1);
	}
	file_free(f);
}

static void range_done(struct verify *v, struct file *f)
{
	if (atomic_fetch_sub(&f->ranges_left, 1) == 1)
		file_done(v, f, 0);
}

static void job_run(struct verify *v, struct worker *w, const struct job *j)
{
	struct file *f = j->file;
	uint64_t n;

	if (f->c) {
		range_run(v, f, w, j->range);
		range_done(v, f);
		return;
	}
	int err = interrupted() ? -EINTR : file_open(v, f);

	if (err) {
		file_done(v, f, err);
		return;
	}
	n = f->n_ranges; /* once the last range is out, the file may be gone */
	for (uint64_t i = n; --i > 0;)
		if (job_put(v, f, i, true)) { /* no memory for the job: do it here */
			range_run(v, f, w, i);
			range_done(v, f);
		}
	range_run(v, f, w, 0);
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
	struct worker w = {0};
	struct job *j;

	while ((j = job_get(v)) != NULL) {
		job_run(v, &w, j);
		free(j);
		mutex_lock(&v->lock);
		v->n_busy--;
		cond_broadcast(&v->change);
		mutex_unlock(&v->lock);
	}
	if (w.plain)
		wipe(w.plain, w.plain_room);
	free(w.plain);
	free(w.stored);
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

int verify_file(struct verify *v, const char *path)
{
	struct file *f = NULL;
	int err = file_new(path, &f);

	if (err)
		return err;
	mutex_lock(&v->lock);
	while (v->n_files >= QUEUE_MAX)
		cond_wait(&v->change, &v->lock);
	mutex_unlock(&v->lock);
	err = interrupted() ? -EINTR : job_put(v, f, 0, false);
	if (err)
		file_free(f);
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
