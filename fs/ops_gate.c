/* SPDX-License-Identifier: Apache-2.0 */
#include "ops_gate.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/eventfd.h>

#include "report.h"

/* What a request is, of the kernel's <linux/fuse.h> */
#define IN_HEADER 40
#define IN_OPCODE 4
#define IN_NODEID 16
#define STATX 52 /* FUSE_STATX, which older headers lack */
#define HELD_MAX ((size_t)64 << 20) /* beyond, threads wait with what they have read */

struct held {
	struct held *next;
	int fd; /* it must be answered through the one it was read from */
	size_t len;
	char bytes[];
};

static _Thread_local bool serving; /* this thread's last request is counted in gate->inside */

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

int gate_init(struct gate *g)
{
	mutex_init(&g->lock);
	mutex_init(&g->helper);
	g->event = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
	return g->event < 0 ? -errno : 0;
}

/* What still waits belongs to a mount that is gone. */
void gate_destroy(struct gate *g)
{
	while (g->first) {
		struct held *h = g->first;

		g->first = h->next;
		free(h);
	}
	if (g->event >= 0)
		close(g->event);
	mutex_destroy(&g->lock);
	mutex_destroy(&g->helper);
}

static uint32_t opcode_of(const char *buf, ssize_t n)
{
	uint32_t op = 0;

	if (n >= IN_HEADER)
		memcpy(&op, buf + IN_OPCODE, sizeof(op));
	return op;
}

/* An open that truncates or may lead to a write is one; a request that this does not know is one too. */
bool gate_changes(const void *request, ssize_t n)
{
	uint32_t flags = O_RDWR;

	switch (opcode_of(request, n)) {
	case FUSE_OPEN:
		if (n >= IN_HEADER + 4)
			memcpy(&flags, (const char *)request + IN_HEADER, sizeof(flags));
		return (flags & O_ACCMODE) != O_RDONLY || flags & O_TRUNC;
	case 0:
	case FUSE_LOOKUP:
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
	case FUSE_GETATTR:
	case STATX:
	case FUSE_ACCESS:
	case FUSE_READLINK:
	case FUSE_READ:
	case FUSE_LSEEK:
	case FUSE_RELEASE:
	case FUSE_FLUSH:
	case FUSE_FSYNC:
	case FUSE_FSYNCDIR:
	case FUSE_SYNCFS:
	case FUSE_STATFS:
	case FUSE_GETXATTR:
	case FUSE_LISTXATTR:
	case FUSE_OPENDIR:
	case FUSE_READDIR:
	case FUSE_READDIRPLUS:
	case FUSE_RELEASEDIR:
	case FUSE_INIT:
	case FUSE_INTERRUPT:
	case FUSE_DESTROY:
	case FUSE_IOCTL: /* isatty(3); we have none */
	case FUSE_POLL:
		return false;
	default:
		return true;
	}
}

/* df, mountpoint and file managers look at every mount there is: that is not using it. */
static bool is_use(uint32_t op, const char *buf, ssize_t n)
{
	uint64_t id = 0;

	if (n < IN_HEADER)
		return false;
	memcpy(&id, buf + IN_NODEID, sizeof(id));
	switch (op) {
	case FUSE_STATFS:
	case FUSE_OPENDIR:
	case FUSE_RELEASEDIR:
	case FUSE_INTERRUPT:
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
		return false;
	case FUSE_GETATTR:
		return id != FUSE_ROOT_ID;
	default:
		return true;
	}
}

/* Counted first, so that gate_close() either sees this one or is seen by it. */
static bool enter(struct gate *g)
{
	g->inside++;
	if (!g->closed)
		return serving = true;
	g->inside--;
	return false;
}

static void leave(struct gate *g)
{
	if (serving)
		g->inside--;
	serving = false;
}

static void nonblocking(int fd, bool on)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags >= 0)
		(void)fcntl(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK);
}

/* From now on @fd does not block: its thread has to see that the gate opens.  false: no room */
static bool hold(struct gate *g, int fd, const void *buf, size_t len)
{
	struct held *h = NULL;

	mutex_lock(&g->lock);
	if (g->held_bytes + len <= HELD_MAX)
		h = malloc(sizeof(*h) + len);
	if (h) {
		*h = (struct held){.fd = fd, .len = len};
		memcpy(h->bytes, buf, len);
		if (g->first)
			g->last->next = h;
		else
			g->first = h;
		g->last = h;
		g->held_bytes += len;
		g->n_held++;
		nonblocking(fd, true);
	}
	mutex_unlock(&g->lock);
	return h;
}

/* The oldest request that was read from @fd, if it may pass; 0: none */
static ssize_t take(struct gate *g, int fd, void *buf, size_t room)
{
	struct held **at, *h, *before = NULL;
	bool more = false;
	ssize_t n = 0;

	mutex_lock(&g->lock);
	for (at = &g->first; *at && (*at)->fd != fd; at = &(*at)->next)
		before = *at;
	h = *at;
	if (h && h->len <= room && enter(g)) {
		*at = h->next;
		if (g->last == h)
			g->last = before;
		for (struct held *o = g->first; o && !more; o = o->next)
			more = o->fd == fd;
		if (!more)
			nonblocking(fd, false);
		g->held_bytes -= h->len;
		g->n_held--;
		n = (ssize_t)h->len;
		memcpy(buf, h->bytes, h->len);
		free(h);
	}
	mutex_unlock(&g->lock);
	return n;
}

/* Until @fd (-1: none) can be read or the gate is open.  Errors are the next read's. */
static void wait_some(struct gate *g, int fd)
{
	struct pollfd p[2] = {{.fd = g->event, .events = POLLIN}, {.fd = fd, .events = POLLIN}};
	unsigned left = gate_left(g);

	(void)poll(p, 2, left ? (int)left * 1000 : -1);
}

ssize_t gate_read(struct gate *g, int fd, void *buf, size_t len)
{
	leave(g);
	for (;;) {
		ssize_t n = g->n_held ? take(g, fd, buf, len) : 0;
		uint32_t op;

		if (n)
			return n;
		n = read(fd, buf, len);
		if (n < 0 && errno == EAGAIN) {
			wait_some(g, fd);
			continue;
		}
		op = opcode_of(buf, n);
		if (!g->active && is_use(op, buf, n))
			g->active = true;
		if (!gate_changes(buf, n) || enter(g))
			return n;
		if (hold(g, fd, buf, (size_t)n))
			continue;
		while (!enter(g))
			wait_some(g, -1);
		return n;
	}
}

bool gate_was_active(struct gate *g)
{
	return atomic_exchange(&g->active, false);
}

/* g->lock is held */
static void open_now(struct gate *g)
{
	uint64_t one = 1;
	ssize_t n;
	int old;

	g->closed = false;
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old); /* a thread of the session may be ended, but not with our lock */
	n = write(g->event, &one, sizeof(one));
	(void)n; /* it fails only where it is readable already */
	pthread_setcancelstate(old, &old);
}

bool gate_open(struct gate *g)
{
	bool was;

	mutex_lock(&g->lock);
	was = g->closed;
	if (was)
		open_now(g);
	mutex_unlock(&g->lock);
	return was;
}

void gate_finish(struct gate *g)
{
	mutex_lock(&g->lock);
	g->over = true;
	open_now(g);
	mutex_unlock(&g->lock);
}

unsigned gate_left(struct gate *g)
{
	uint64_t now = now_ms();
	unsigned left = 0;
	bool late = false;

	if (!g->closed)
		return 0;
	mutex_lock(&g->lock);
	if (g->closed && g->until > now)
		left = (unsigned)((g->until - now + 999) / 1000);
	late = g->closed && !left;
	if (late)
		open_now(g);
	mutex_unlock(&g->lock);
	if (late)
		report(REPORT_WARN,
		       "quiesced for longer than was asked for: writing goes on; a copy of the store not finished by now is not "
		       "consistent");
	return left;
}

int gate_close(struct gate *g, unsigned seconds, unsigned patience_ms)
{
	const struct timespec pause = {.tv_nsec = 1000000};
	uint64_t token, patience = now_ms() + patience_ms;
	bool over;

	if (gate_left(g))
		return fail(-EALREADY, "it is quiesced already, for another %u s", gate_left(g));
	mutex_lock(&g->helper); /* not while the daemon waits for its own mount: that could be for what is held */
	g->closing = true;
	while (g->fetching && now_ms() < patience)
		nanosleep(&pause, NULL);
	mutex_lock(&g->lock);
	if (!g->over && read(g->event, &token, sizeof(token)) < 0)
		report(REPORT_DEBUG, "eventfd: %s", strerror(errno));
	g->until = now_ms() + (uint64_t)seconds * 1000;
	over = g->over;
	g->closed = !over;
	g->closing = false;
	mutex_unlock(&g->lock);
	mutex_unlock(&g->helper);
	if (over)
		return fail(-ESHUTDOWN, "it is being unmounted");
	while (g->inside && now_ms() < patience)
		nanosleep(&pause, NULL);
	if (!g->inside)
		return 0;
	gate_open(g);
	return fail(-EAGAIN, "a change that is under way takes too long; try again");
}

bool gate_helper_begin(struct gate *g)
{
	mutex_lock(&g->helper);
	if (!gate_left(g))
		return true;
	mutex_unlock(&g->helper);
	return false;
}

void gate_helper_end(struct gate *g)
{
	mutex_unlock(&g->helper);
}

/* Not by the helper's lock: that is held while the kernel is asked to forget names, for which it waits for the rename that asks here. */
bool gate_fetch_begin(struct gate *g)
{
	g->fetching++;
	if (!g->closing && !g->closed)
		return true;
	g->fetching--;
	return false;
}

void gate_fetch_end(struct gate *g)
{
	g->fetching--;
}
