/* SPDX-License-Identifier: Apache-2.0 */
#include "worker.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "control.h"
#include "report.h"
#include "wire.h"
#include "worker_i.h"

#define PREFETCH ((uint64_t)1 << 20) /* larger files are read ahead by the kernel as they are read */
#define IOPRIO_IDLE (3 << 13)

struct worker {
	struct one one;
	struct wire wire;
	struct worker_cell *cell;
	uint64_t prefetched; /* the chunk whose files are being read from the disk already */
	uint8_t *out;        /* answers of a chunk */
	size_t out_len, out_room;
};

/* Split a chunk; paths are copied to @names so that they end in NUL.  0 or -EPROTO, -ENOMEM */
static int chunk_parse(const struct wire_frame *f, struct job **ret_jobs, char **ret_names, size_t *ret_n)
{
	const size_t most = f->len / sizeof(struct item_order);
	CLEANUP_FREE struct job *jobs = malloc(sizeof(*jobs) * (most + 1));
	CLEANUP_FREE char *names = malloc(f->len + 1);
	size_t at = 0, n = 0, fill = 0;

	if (!names || !jobs)
		return -ENOMEM;
	while (at < f->len) {
		if (n == most || f->len - at < sizeof(jobs[n].order))
			return -EPROTO;
		memcpy(&jobs[n].order, f->p + at, sizeof(jobs[n].order));
		at += sizeof(jobs[n].order);
#ifdef TEST_NO_VERIFY /* the build that tests/convert/unwritten must find fault with */
		jobs[n].order.verify = false;
#endif
		if (jobs[n].order.path_len > f->len - at || memchr(f->p + at, 0, jobs[n].order.path_len))
			return -EPROTO;
		memcpy(names + fill, f->p + at, jobs[n].order.path_len);
		jobs[n].path = names + fill;
		at += jobs[n].order.path_len;
		fill += jobs[n].order.path_len;
		names[fill++] = 0;
		n++;
	}
	*ret_jobs = STEAL(jobs);
	*ret_names = STEAL(names);
	*ret_n = n;
	return n ? 0 : -EPROTO;
}

static int answer_add(struct worker *w, struct item_answer *a)
{
	const char *text = a->result >= ITEM_BUSY || a->result == ITEM_DONE ? fail_text() : "";
	size_t len = strlen(text), need = w->out_len + sizeof(*a) + len;
	uint8_t *more;

	if (need > w->out_room) {
		more = realloc(w->out, 2 * need);
		if (!more)
			return -ENOMEM;
		w->out = more;
		w->out_room = 2 * need;
	}
	a->text_len = (uint16_t)len;
	memcpy(w->out + w->out_len, a, sizeof(*a));
	memcpy(w->out + w->out_len + sizeof(*a), text, len);
	w->out_len = need;
	return 0;
}

/*
 * What is going to be reread comes from the disk, not from what the cache remembers of writing it.  For all files of the chunk at once, so
 * that the disk has many requests at hand and not one after the other.
 */
static void chunk_prefetch(struct worker *w, const struct job *jobs, size_t n, bool set)
{
	char target[NAME_ROOM];
	const char *name;

	for (size_t i = 0; i < n; i++) {
		CLEANUP_FD int fd = -1;

		if (!jobs[i].order.verify || one_enter(&w->one, jobs[i].path, &name) || one_target(w->one.run, name, target))
			continue;
		if (one_waits(&w->one))
			fd = waiting_open(&w->one, &jobs[i].order, set);
		else
			fd = content_open(w->one.to_dir, target);
		if (fd < 0)
			continue;
		(void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
		if (jobs[i].order.stamp.size <= PREFETCH)
			(void)posix_fadvise(fd, 0, 0, POSIX_FADV_WILLNEED);
	}
}

/* The chunk that comes next, if it is to be verified: its bytes come from the disk while this one is worked on. */
static void prefetch_next(struct worker *w)
{
	CLEANUP_FREE struct job *jobs = NULL;
	CLEANUP_FREE char *names = NULL;
	struct wire_frame f;
	size_t n = 0;

	if (wire_peek(&w->wire, &f) <= 0 || (f.type & 0xff) != CHUNK_COMMIT || f.id == w->prefetched || chunk_parse(&f, &jobs, &names, &n))
		return;
	w->prefetched = f.id;
	chunk_prefetch(w, jobs, f.type & CHUNK_SET ? 1 : n, f.type & CHUNK_SET);
}

static int chunk_do(struct worker *w, enum chunk_op op, const struct job *jobs, size_t n)
{
	int err = 0;

	for (size_t i = 0; !err && i < n; i++) {
		struct item_answer a = {0};

		if (i == n / 2 && w->one.run->verify != VERIFY_POLICY_NONE)
			prefetch_next(w);
		atomic_store_explicit(&w->cell->item, (uint32_t)i, memory_order_release);
		w->one.set = false;
		one_do(&w->one, op, &jobs[i], 1, &a);
		err = answer_add(w, &a);
	}
	return err;
}

/* One answer stands for all names. */
static int set_do(struct worker *w, enum chunk_op op, const struct job *jobs, size_t n)
{
	struct item_answer a = {0};
	int err = 0;

	atomic_store_explicit(&w->cell->item, 0, memory_order_release);
	w->one.set = true;
	(op == CHUNK_STAGE ? set_stage : set_commit)(&w->one, jobs, n, &a);
	for (size_t i = 0; !err && i < n; i++) {
		err = answer_add(w, &a);
		if (a.result == ITEM_DONE)
			fail_clear(); /* a note once, a reason for each */
		a.bytes = 0;
	}
	return err;
}

static int serve(struct worker *w)
{
	struct wire_frame f, next;
	int err;

	while ((err = wire_recv(&w->wire, &f)) == 0) {
		CLEANUP_FREE struct job *jobs = NULL;
		CLEANUP_FREE char *names = NULL;
		enum chunk_op op = f.type & 0xff;
		size_t n = 0;

		err = op == CHUNK_STAGE || op == CHUNK_COMMIT ? chunk_parse(&f, &jobs, &names, &n) : -EPROTO;
		if (err)
			return err;
		atomic_store_explicit(&w->cell->item, 0, memory_order_relaxed);
		atomic_store_explicit(&w->cell->chunk, f.id, memory_order_release);
		w->out_len = 0;
		if (op == CHUNK_COMMIT && f.id != w->prefetched)
			chunk_prefetch(w, jobs, f.type & CHUNK_SET ? 1 : n, f.type & CHUNK_SET);
		err = f.type & CHUNK_SET ? set_do(w, op, jobs, n) : chunk_do(w, op, jobs, n);
		if (wire_peek(&w->wire, &next) <= 0) /* who looks for free space once all is through finds it */
			one_close_wait(&w->one);
		one_leave(&w->one); /* a descriptor kept would keep a directory that somebody wants to remove */
		if (!err)
			err = wire_send(&w->wire, f.type, f.id, w->out, w->out_len);
		if (err)
			return err;
	}
	return err == -EPIPE ? 0 : err;
}

/* What a terminal or a lease sends is for the parent to decide on. */
static void detach(pid_t parent)
{
	static const int quiet[] = {SIGINT, SIGHUP, SIGTERM, SIGIO, SIGPIPE, SIGUSR1, SIGQUIT};

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	for (size_t i = 0; i < ARRAY_SIZE(quiet); i++)
		signal(quiet[i], SIG_IGN);
}

static void forget_keys(struct volume *v)
{
	secret_free(STEAL(v->vk));
	secret_free(STEAL(v->k_conf));
	secret_free(STEAL(v->k_log));
	secret_free(STEAL(v->k_kas));
	close_fd(&v->lock_fd); /* the parent's alone */
	v->lock_fd = -1;
}

void worker_main(const struct convert_run *run, struct volume *v, int fd, struct worker_cell *cell)
{
	struct worker w = {.one = {.run = run, .from_dir = -1, .to_dir = -1}, .cell = cell};
	const struct sched_param none = {0};
	int err;

	detach(run->parent);
	forget_keys(v);
	umask(0);
	if (run->idle) {
		(void)sched_setscheduler(0, SCHED_IDLE, &none);
		(void)syscall(SYS_ioprio_set, 1, 0, IOPRIO_IDLE);
	}
	w.one.io = io_posix(run->from_fd);
	/* buffers of a megabyte come and go with each read of a container: not by mmap and 256 page faults each */
	(void)mallopt(M_MMAP_THRESHOLD, 16 << 20);
	(void)mallopt(M_TRIM_THRESHOLD, 32 << 20);
	wire_init(&w.wire, fd);
	err = sealer_init(&w.one.sealer, v);
	if (!err)
		err = one_kept_init(&w.one);
	if (!err)
		err = serve(&w);
	control_talk_close(w.one.talk);
	sealer_free(&w.one.sealer);
	wire_free(&w.wire);
	free(w.one.kept);
	free(w.out);
	_exit(err ? 1 : 0);
}

void barrier_main(int root, int fd, pid_t parent)
{
	char go;

	detach(parent);
	while (read(fd, &go, 1) == 1) {
#ifdef TEST_NO_BARRIER /* the build that the power-cut test must find fault with */
		int32_t err = 0;
#else
		int32_t err = syncfs(root) ? -errno : 0;
#endif

		if (write(fd, &err, sizeof(err)) != sizeof(err))
			break;
	}
	_exit(0);
}
