/* SPDX-License-Identifier: Apache-2.0 */
/* The worker processes: started, fed, listened to, replaced when they die. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "convert_i.h"
#include "report.h"

#define FRAME_SMALL ((size_t)64 << 10)
#define IDLE_DEATHS_MAX 5 /* of workers that had nothing to do: something is wrong with the machine */

static void close_pool(struct convert *cv)
{
	for (unsigned i = 0; i < cv->run.workers; i++)
		if (cv->workers[i].pid)
			close(cv->workers[i].wire.fd);
}

static int worker_start(struct convert *cv, unsigned i)
{
	struct worker_proc *w = &cv->workers[i];
	int pair[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return fail(-errno, "starting a worker: %s", strerror(errno));
	w->cell = &cv->cells[i];
	atomic_store(&w->cell->chunk, 0);
	atomic_store(&w->cell->item, 0);
	fflush(NULL);
	pid = fork();
	if (pid < 0) {
		int err = -errno;

		close(pair[0]);
		close(pair[1]);
		return fail(err, "starting a worker: %s", strerror(-err));
	}
	if (pid == 0) {
		close_pool(cv);
		close(pair[0]);
		if (cv->barrier_fd >= 0)
			close(cv->barrier_fd);
		close_fd(&cv->barrier_root);
		worker_main(&cv->run, cv->v, pair[1], w->cell);
	}
	close(pair[1]);
	w->pid = pid;
	w->n_sent = 0;
	wire_init(&w->wire, pair[0]);
	return 0;
}

static int barrier_process(struct convert *cv)
{
	int pair[2];

	/* A description of its own: the kernel tells each about a failed write once, and the parent's must keep what it has not asked for.
	 */
	close_fd(&cv->barrier_root);
	cv->barrier_root = openat(cv->run.to_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (cv->barrier_root < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return -errno;
	fflush(NULL);
	cv->barrier_pid = fork();
	if (cv->barrier_pid < 0) {
		cv->barrier_pid = 0;
		close(pair[0]);
		close(pair[1]);
		return -errno;
	}
	if (cv->barrier_pid == 0) {
		close_pool(cv); /* it may be a later one */
		close(pair[0]);
		close_fd(&cv->v->lock_fd);
		barrier_main(cv->barrier_root, pair[1], cv->run.parent);
	}
	close(pair[1]);
	cv->barrier_fd = pair[0];
	return 0;
}

int barrier_restart(struct convert *cv)
{
	int err;

	close_fd(&cv->barrier_fd);
	cv->barrier_fd = -1;
	(void)kill(cv->barrier_pid, SIGKILL);
	while (waitpid(cv->barrier_pid, NULL, 0) < 0 && errno == EINTR)
		;
	cv->barrier_pid = 0;
	if (++cv->n_deaths > IDLE_DEATHS_MAX * WORKERS_MAX)
		return fail(-EIO, "the process that syncs dies again and again");
	/* it may have been told of an error and died before it said so: ask through the descriptor that has been open since before the
	 * first file */
	err = syncfs(cv->run.to_fd) ? -errno : 0;
	return err ? fail(err, "syncing the file system: %s", strerror(-err)) : barrier_process(cv);
}

int pool_start(struct convert *cv)
{
	int err;

	signal(SIGPIPE, SIG_IGN);
	cv->barrier_fd = cv->barrier_root = -1;
	cv->cells = mmap(NULL, sizeof(*cv->cells) * WORKERS_MAX, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (cv->cells == MAP_FAILED) {
		cv->cells = NULL;
		return -errno;
	}
	err = barrier_process(cv);
	for (unsigned i = 0; !err && i < cv->run.workers; i++)
		err = worker_start(cv, i);
	return err;
}

void pool_stop(struct convert *cv)
{
	for (unsigned i = 0; i < cv->run.workers; i++) {
		struct worker_proc *w = &cv->workers[i];

		if (!w->pid)
			continue;
		/* it ends when it reads the end, whoever else has inherited this descriptor */
		(void)shutdown(w->wire.fd, SHUT_RDWR);
		close(w->wire.fd);
		wire_free(&w->wire);
		while (waitpid(w->pid, NULL, 0) < 0 && errno == EINTR)
			;
		w->pid = 0;
		for (unsigned k = 0; k < w->n_sent; k++)
			chunk_free(cv, w->sent[k]);
		w->n_sent = 0;
	}
	if (cv->barrier_pid > 0) {
		(void)shutdown(cv->barrier_fd, SHUT_RDWR);
		close_fd(&cv->barrier_fd);
		while (waitpid(cv->barrier_pid, NULL, 0) < 0 && errno == EINTR)
			;
		cv->barrier_pid = 0;
	}
	close_fd(&cv->barrier_root);
	if (cv->cells)
		munmap(cv->cells, sizeof(*cv->cells) * WORKERS_MAX);
	cv->cells = NULL;
}

/* The file it was at has one death more on its account; the third is the last. */
static void blame(struct convert *cv, struct chunk *c, uint32_t at, int status)
{
	struct item *it;
	char text[80];

	if (at >= c->n)
		return;
	it = &c->items[at];
	if (++it->kills < KILLS_MAX)
		return;
	snprintf(text, sizeof(text), "killed %d workers (the last by %s %d)", KILLS_MAX, WIFSIGNALED(status) ? "signal" : "exit",
		 WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	c->bytes -= it->size;
	settle(cv, it, ITEM_FAILED, text);
	memmove(it, it + 1, (c->n - at - 1) * sizeof(*it));
	c->n--;
	if (c->set) /* the other names go with it */
		while (c->n)
			settle(cv, &c->items[--c->n], ITEM_FAILED, text);
}

static int worker_died(struct convert *cv, unsigned i)
{
	struct worker_proc *w = &cv->workers[i];
	uint64_t id = atomic_load(&w->cell->chunk);
	uint32_t at = atomic_load(&w->cell->item);
	bool guilty = false;
	int status = 0;

	close(w->wire.fd);
	wire_free(&w->wire);
	(void)kill(w->pid, SIGKILL);
	while (waitpid(w->pid, &status, 0) < 0 && errno == EINTR)
		;
	w->pid = 0;
	cv->n_deaths++;
	for (unsigned k = w->n_sent; k-- > 0;) {
		struct chunk *c = w->sent[k];

		c->retry = true;
		if (c->id == id) {
			guilty = true;
			blame(cv, c, at, status);
		}
		if (c->n)
			queue_push_front(c->op == CHUNK_STAGE ? &cv->ready : &cv->to_commit, c);
		else
			chunk_free(cv, c);
	}
	w->n_sent = 0;
	if (!guilty && ++cv->n_idle_deaths > IDLE_DEATHS_MAX)
		return fail(-EIO, "workers die before they have begun");
	return worker_start(cv, i);
}

size_t pool_busy(const struct convert *cv)
{
	size_t n = 0;

	for (unsigned i = 0; i < cv->run.workers; i++)
		n += cv->workers[i].n_sent;
	return n;
}

/* What exists twice, or is about to, leaves room for what?  Each worker may have a large file, which ends with its original. */
static void room_count(struct convert *cv)
{
	const struct queue *const all[] = {&cv->staged, &cv->synced_staged, &cv->to_commit, &cv->committed, &cv->synced_committed};
	uint64_t small = 0, all_bytes = 0;
	size_t large = 0;

	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		small += all[i]->small_bytes;
		all_bytes += all[i]->bytes;
		large += i < 3 ? all[i]->n_large : 0;
	}
	for (unsigned i = 0; i < cv->run.workers; i++)
		for (unsigned k = 0; k < cv->workers[i].n_sent; k++) {
			uint64_t bytes = cv->workers[i].sent[k]->bytes;

			large += bytes > LARGE_BYTES;
			small += bytes > LARGE_BYTES ? 0 : bytes;
			all_bytes += bytes;
		}
	cv->small_room = FLIGHT_BYTES - MIN(small, FLIGHT_BYTES);
	cv->large_room = large < cv->run.workers ? UINT64_MAX : FLIGHT_BYTES - MIN(all_bytes, FLIGHT_BYTES);
}

static bool has_room(const struct convert *cv, const struct chunk *c)
{
	return c->bytes <= (c->bytes > LARGE_BYTES ? cv->large_room : cv->small_room);
}

/* May another chunk be started, if it has room? */
static bool may_stage(struct convert *cv)
{
	if (!cv->ready.first || cv->draining || cv->paused || cv->space_low || cv->fatal)
		return false;
	if (cv->staged.n_files + cv->synced_staged.n_files + cv->to_commit.n_files > 4 * (size_t)cv->run.batch)
		return false;
	if (cv->run.max_rate && (double)cv->counts.read_bytes >= (double)cv->run.max_rate * seconds_now(cv))
		return false;
	room_count(cv);
	return true;
}

/* More than goes into a socket waits until the worker has nothing else: he might be waiting for us to read his answer. */
static bool may_send(const struct convert *cv, const struct chunk *c, unsigned i)
{
	return !cv->workers[i].n_sent || c->n * sizeof(struct item_order) + c->names <= FRAME_SMALL;
}

static bool may_take(const struct convert *cv, const struct chunk *c, unsigned i)
{
	return has_room(cv, c) && may_send(cv, c, i);
}

static bool may_commit(const struct convert *cv, const struct chunk *c, unsigned i)
{
	return may_send(cv, c, i) && (c->owner == i || cv->workers[c->owner].pid != c->owner_pid);
}

/* In the folder in which worker @i is, or at least in none in which another one is? */
static bool goes_on(const struct convert *cv, const struct chunk *c, unsigned i)
{
	return may_take(cv, c, i) && c->items[0].dir->st.st_ino == cv->workers[i].at;
}

static bool is_apart(const struct convert *cv, const struct chunk *c, unsigned i)
{
	if (!may_take(cv, c, i))
		return false;
	for (unsigned k = 0; k < cv->run.workers; k++)
		if (k != i && cv->workers[k].at == c->items[0].dir->st.st_ino)
			return false;
	return true;
}

static struct chunk *stage_next(struct convert *cv, unsigned i)
{
	struct chunk *c = NULL;

	/* a large one was put first; else two workers in one folder would wait for its lock */
	if (cv->ready.first->bytes < CHUNK_BYTES || !may_take(cv, cv->ready.first, i)) {
		c = queue_take(&cv->ready, goes_on, cv, i);
		if (!c)
			c = queue_take(&cv->ready, is_apart, cv, i);
	}
	if (!c)
		c = queue_take(&cv->ready, may_take, cv, i);
	if (c) {
		cv->workers[i].at = c->items[0].dir->st.st_ino;
		cv->counts.read_bytes += c->bytes;
	}
	return c;
}

static struct chunk *next_chunk(struct convert *cv, unsigned i)
{
	struct chunk *c = queue_take(&cv->to_commit, may_commit, cv, i);

	return c || !may_stage(cv) ? c : stage_next(cv, i);
}

int pool_dispatch(struct convert *cv)
{
	/* one round for each place at hand, so that the first to be free does not take all */
	for (unsigned round = 0; round < SENT_MAX; round++)
		for (unsigned i = 0; i < cv->run.workers; i++) {
			struct worker_proc *w = &cv->workers[i];
			struct chunk *c = w->n_sent <= round ? next_chunk(cv, i) : NULL;
			int err;

			if (!c)
				continue;
			w->sent[w->n_sent++] = c;
			if (c->op == CHUNK_STAGE) {
				c->owner = i;
				c->owner_pid = w->pid;
			}
			clock_gettime(CLOCK_REALTIME, &c->sent);
			err = chunk_send(cv, &w->wire, c);
			if (err == -EPIPE)
				err = worker_died(cv, i);
			if (err)
				return err;
		}
	return 0;
}

int pool_read(struct convert *cv, unsigned i)
{
	struct worker_proc *w = &cv->workers[i];

	do {
		struct wire_frame f;
		struct chunk *c = w->n_sent ? w->sent[0] : NULL;
		int err = wire_recv(&w->wire, &f);

		/* answers come in the order in which the chunks were sent; anything else comes from a process that is out of its mind */
		if (err == -ENOMEM)
			return err;
		if (err || !c || f.id != c->id || (f.type & 0xff) != c->op)
			return worker_died(cv, i);
		memmove(w->sent, w->sent + 1, sizeof(w->sent[0]) * (--w->n_sent));
		err = answers_take(cv, c, f.p, f.len);
		if (err)
			return err;
	} while (wire_waiting(&w->wire));
	return 0;
}
