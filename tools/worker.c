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

#include "convert_one.h"
#include "report.h"
#include "wire.h"

#define ITEMS_MAX 4096
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

struct job { /* an item as it came */
	struct item_order order;
	const char *path; /* NUL-ended, in the chunk's copy */
};

/* Split a chunk; paths are copied to @names so that they end in NUL.  0 or -EPROTO, -ENOMEM */
static int chunk_parse(const struct wire_frame *f, struct job **ret_jobs, char **ret_names, size_t *ret_n)
{
	CLEANUP_FREE struct job *jobs = NULL;
	CLEANUP_FREE char *names = malloc(f->len + ITEMS_MAX);
	size_t at = 0, n = 0, fill = 0;

	jobs = malloc(sizeof(*jobs) * ITEMS_MAX);
	if (!names || !jobs)
		return -ENOMEM;
	while (at < f->len) {
		if (n == ITEMS_MAX || f->len - at < sizeof(jobs[n].order))
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

static void one_do(struct worker *w, enum chunk_op op, const struct job *j, unsigned links, struct item_answer *a)
{
	static one_fn *const steps[][2] = {[CONVERT_IN] = {stage_in, commit_in},
					   [CONVERT_OUT] = {stage_out, commit_out},
					   [CONVERT_REWRAP] = {stage_rewrap, commit_rewrap}};
	const char *name;
	int err;

	fail_clear();
	err = one_enter(&w->one, j->path, &name);
	if (err) {
		a->result = (uint8_t)(err == -ENOENT || err == -ENOTDIR ? ITEM_GONE : one_fail(err));
		return;
	}
	steps[w->one.run->verb][op == CHUNK_COMMIT](&w->one, &j->order, name, links, a);
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
		if (w->one.run->verb == CONVERT_REWRAP)
			fd = rewrap_open(&w->one, &jobs[i].order, set);
		else
			fd = openat(w->one.to_dir, target, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
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
		one_do(w, op, &jobs[i], 1, &a);
		err = answer_add(w, &a);
	}
	return err;
}

/* --- all names of one file --- */

/* Was this made by a run that did not get to its end, from the very file that is here still?  Then it can go. */
static bool set_is_stale(struct worker *w, const char *target, const struct stat *source)
{
	CLEANUP_FD int fd = openat(w->one.to_dir, target, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	struct record r = {0};
	enum sibling kind;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) || !S_ISREG(st.st_mode))
		return false;
	if (w->one.run->verb == CONVERT_OUT)
		return stage_marked(w->one.run->v, fd, &st, &source->st_mtim);
	return sibling_look(&w->one.sealer, fd, (uint64_t)st.st_size, &kind, &r) == 0 &&
	       (kind == SIBLING_TORN || (kind == SIBLING_SEALED && r.state == RECORD_SEALED && r.generation == 1)) &&
	       stamp_fits(&r, source);
}

/* Give the converted file its name beside @path too.  0 or -errno */
static int set_link(struct worker *w, const struct job *j, uint64_t from_ino, int first_dir, const char *first, uint64_t out_ino)
{
	char target[NAME_ROOM];
	const char *name;
	struct stat st, there;
	int err = one_enter(&w->one, j->path, &name);

	if (!err)
		err = one_target(w->one.run, name, target);
	if (err)
		return err;
	if (fstatat(w->one.from_dir, name, &st, AT_SYMLINK_NOFOLLOW))
		return fail(-errno, "its other name %s: %s", name, strerror(errno));
	if (st.st_ino != from_ino)
		return fail(-ESTALE, "its other name %s was replaced", name);
	if (linkat(first_dir, first, w->one.to_dir, target, 0) == 0)
		return 0;
	if (errno != EEXIST)
		return fail(-errno, "linking %s: %s", target, strerror(errno));
	if (fstatat(w->one.to_dir, target, &there, AT_SYMLINK_NOFOLLOW) == 0 && there.st_ino == out_ino)
		return 0;
	if (!set_is_stale(w, target, &st))
		return fail(-EEXIST, "the name %s is taken by another file", target);
	if (unlinkat(w->one.to_dir, target, 0) || linkat(first_dir, first, w->one.to_dir, target, 0))
		return fail(-errno, "linking %s: %s", target, strerror(errno));
	return 0;
}

static void set_take_back(struct worker *w, const struct job *jobs, size_t n, uint64_t ino)
{
	char target[NAME_ROOM];
	const char *name;

	for (size_t i = 0; i < n; i++)
		if (one_enter(&w->one, jobs[i].path, &name) == 0 && one_target(w->one.run, name, target) == 0)
			one_drop_target(&w->one, target, ino);
}

static void set_stage(struct worker *w, const struct job *jobs, size_t n, struct item_answer *a)
{
	CLEANUP_FD int dir = -1;
	char first[NAME_ROOM], why[512];
	const char *name;
	int err;

	/* copying may take a part of the names; in place it must be all */
	one_do(w, CHUNK_STAGE, &jobs[0], w->one.run->in_place ? (unsigned)n : (unsigned)MAX(n, 2), a);
	if (a->result != ITEM_STAGED && (a->result != ITEM_ALREADY || w->one.run->in_place))
		return;
	if (w->one.run->verb == CONVERT_REWRAP) /* the names come with the commit */
		return;
	err = one_enter(&w->one, jobs[0].path, &name);
	if (!err)
		err = one_target(w->one.run, name, first);
	if (!err) {
		dir = fcntl(w->one.to_dir, F_DUPFD_CLOEXEC, 0);
		err = dir < 0 ? -errno : 0;
	}
	for (size_t i = 1; !err && i < n; i++)
		err = set_link(w, &jobs[i], a->stamp.ino, dir, first, a->out_ino);
	if (!err)
		return;
	snprintf(why, sizeof(why), "%s", fail_text());
	if (a->result == ITEM_STAGED && !a->verified)
		set_take_back(w, jobs, n, a->out_ino);
	fail(err, "%s", why);
	a->result = (uint8_t)one_fail(err);
}

static void set_rewrap(struct worker *w, const struct job *jobs, size_t n, struct item_answer *a)
{
	const char *name;

	for (size_t i = 0; i < n; i++) {
		int err = one_enter(&w->one, jobs[i].path, &name);

		if (!err)
			err = rewrap_name(&w->one, &jobs[i].order, name);
		if (err)
			a->result = (uint8_t)one_fail(err);
	}
	if (a->result == ITEM_DONE)
		rewrap_set_end(&w->one, &jobs[0].order);
}

/*
 * Before the names go: what they lead to is what was read, and nobody has it open until @ret_fd is closed.  The first name may be gone
 * (one_still() leaves that to us): removed by somebody, who may have changed the file too, or by a worker that died; then its ctime is
 * another one.  -EBUSY, fail() tells; @ret_begun: a worker has removed names already
 */
static int set_hold(struct worker *w, const struct job *jobs, size_t n, int *ret_fd, bool *ret_begun)
{
	const struct item_order *o = &jobs[0].order;

	*ret_begun = false;
	for (size_t i = 0; i < n; i++) {
		CLEANUP_FD int fd = -1;
		struct stamp now;
		const char *name;
		struct stat st;

		if (one_enter(&w->one, jobs[i].path, &name) == 0)
			fd = openat(w->one.from_dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
		if (fd < 0 || fstat(fd, &st) || st.st_ino != o->stamp.ino) {
			if (!o->retry)
				return fail(-EBUSY, "one of its names was removed or replaced after it had been read");
			*ret_begun = true;
			continue;
		}
		if (fcntl(fd, F_SETLEASE, F_WRLCK) && errno == EAGAIN)
			return fail(-EBUSY, "is open in another program");
		if (fstat(fd, &st))
			return fail(-EBUSY, "looking at it again: %s", strerror(errno));
		now = stamp_of(&st);
		if (*ret_begun) {
			now.ctime = o->stamp.ctime;
			now.ctime_ns = o->stamp.ctime_ns;
		}
		if (!stamp_same(&now, &o->stamp))
			return fail(-EBUSY, "was changed after it had been read");
		*ret_fd = fd;
		fd = -1;
		return 0;
	}
	return 0; /* all are gone: a worker came to the end and died before it said so */
}

static void set_unlink(struct worker *w, const struct job *jobs, size_t n, struct item_answer *a)
{
	CLEANUP_FD int held = -1;
	const char *name;
	char why[512];
	bool begun;

	if (set_hold(w, jobs, n, &held, &begun)) {
		snprintf(why, sizeof(why), "%s", fail_text());
		if (begun) { /* what took the place of names that are gone must stay */
			fail(-EBUSY, "%s; its sealed form holds what was read, and both stay", why);
			a->result = ITEM_FAILED;
			return;
		}
		set_take_back(w, jobs, n, jobs[0].order.out_ino);
		fail(-EBUSY, "%s", why);
		a->result = ITEM_BUSY;
		return;
	}
	fail_clear();
	for (size_t i = 0; i < n; i++) {
		struct stat st;

		if (one_enter(&w->one, jobs[i].path, &name))
			continue;
		if (fstatat(w->one.from_dir, name, &st, AT_SYMLINK_NOFOLLOW) || st.st_ino != jobs[0].order.stamp.ino)
			continue; /* gone, or somebody else's by now */
		if (unlinkat(w->one.from_dir, name, 0)) {
			fail(-errno, "removing %s: %s", name, strerror(errno));
			a->result = ITEM_FAILED;
		}
	}
}

static void set_commit(struct worker *w, const struct job *jobs, size_t n, struct item_answer *a)
{
	char why[512];

	one_do(w, CHUNK_COMMIT, &jobs[0], (unsigned)n, a);
	if (w->one.run->verb == CONVERT_REWRAP) {
		if (a->result == ITEM_DONE)
			set_rewrap(w, jobs, n, a);
		return;
	}
	if (a->result != ITEM_DONE) {
		snprintf(why, sizeof(why), "%s", fail_text());
		set_take_back(w, jobs + 1, n - 1, jobs[0].order.out_ino);
		fail(-EBUSY, "%s", why);
		return;
	}
	if (w->one.run->in_place)
		set_unlink(w, jobs, n, a);
}

/* One answer stands for all names. */
static int set_do(struct worker *w, enum chunk_op op, const struct job *jobs, size_t n)
{
	struct item_answer a = {0};
	int err = 0;

	atomic_store_explicit(&w->cell->item, 0, memory_order_release);
	(op == CHUNK_STAGE ? set_stage : set_commit)(w, jobs, n, &a);
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
	struct wire_frame f;
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
