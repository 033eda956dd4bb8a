/* SPDX-License-Identifier: Apache-2.0 */
/* Both ends of the control socket.  Its path is given as /proc/self/fd/N/control, so that no store is too deep for sun_path. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>

#include "control.h"
#include "report.h"

#define NAME "control"
#define REQUEST_MAX 4096
#define ANSWER_MAX ((size_t)1 << 20)
#define PEER_TIMEOUT_MS 5000 /* a client that does not say what it wants */

struct control {
	struct control_calls calls;
	int listen_fd, stop_fd;
	pthread_t thread;
};

static void address(int dirfd, struct sockaddr_un *ret)
{
	*ret = (struct sockaddr_un){.sun_family = AF_UNIX};
	snprintf(ret->sun_path, sizeof(ret->sun_path), "/proc/self/fd/%d/" NAME, dirfd);
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Wait until @fd can be read; 1, 0 at @until, -errno; also 0 when @stop_fd (or -1) becomes readable */
static int wait_for(int fd, short events, int stop_fd, int64_t until)
{
	struct pollfd p[2] = {{.fd = fd, .events = events}, {.fd = stop_fd, .events = POLLIN}};
	int64_t left = until < 0 ? -1 : until - now_ms();
	int n = poll(p, 2, until < 0 ? -1 : (int)MAX(left, 0));

	if (n < 0)
		return errno == EINTR ? wait_for(fd, events, stop_fd, until) : -errno;
	return n > 0 && p[0].revents && !p[1].revents;
}

/* One line of at most @max bytes without its newline, malloc'd; -EPROTO too long or none */
static int read_line(int fd, size_t max, int stop_fd, int64_t until, char **ret)
{
	char *buf CLEANUP_FREE = NULL;
	size_t len = 0, room = 0;

	for (;;) {
		ssize_t n;
		int ready;

		if (len + 1 >= room) {
			char *more = room < max ? realloc(buf, room = MIN(MAX(room * 2, (size_t)1024), max)) : NULL;

			if (!more)
				return room < max ? -ENOMEM : -EPROTO;
			buf = more;
		}
		ready = wait_for(fd, POLLIN, stop_fd, until);
		if (ready <= 0)
			return ready ? ready : -ETIMEDOUT;
		n = recv(fd, buf + len, room - len - 1, MSG_DONTWAIT);
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n <= 0)
			return n ? -errno : -EPROTO;
		len += (size_t)n;
		buf[len] = 0;
		if (memchr(buf + len - n, '\n', (size_t)n)) {
			*strchr(buf, '\n') = 0;
			*ret = STEAL(buf);
			return 0;
		}
	}
}

static int write_line(int fd, const json_t *j, int stop_fd, int64_t until)
{
	char *text CLEANUP_FREE = json_dumps(j, JSON_COMPACT);
	size_t len, at = 0;

	if (!text)
		return -ENOMEM;
	len = strlen(text);
	text[len++] = '\n'; /* in place of the NUL */
	while (at < len) {
		int ready = wait_for(fd, POLLOUT, stop_fd, until);
		ssize_t n;

		if (ready <= 0)
			return ready ? ready : -ETIMEDOUT;
		n = send(fd, text + at, len - at, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno != EINTR && errno != EAGAIN)
			return -errno;
		if (n > 0)
			at += (size_t)n;
	}
	return 0;
}

/* --- server --- */

static json_t *error_answer(int err, const char *text)
{
	return json_pack("{s:i, s:b, s:i, s:s}", "v", 1, "ok", 0, "errno", -err, "error", text);
}

static json_t *call_answer(int err)
{
	return err ? error_answer(err, *fail_text() ? fail_text() : strerror(-err)) : json_pack("{s:i, s:b}", "v", 1, "ok", 1);
}

static json_t *answer(struct control *c, const char *line)
{
	json_t *req = json_loads(line, 0, NULL), *ret;
	const char *op = json_string_value(json_object_get(req, "op"));

	fail_clear();
	if (!op || json_integer_value(json_object_get(req, "v")) != 1)
		ret = error_answer(-EPROTO, "not a request of version 1");
	else if (!strcmp(op, "status"))
		ret = c->calls.status(c->calls.arg);
	else if (!strcmp(op, "sync"))
		ret = call_answer(c->calls.sync(c->calls.arg));
	else if (!strcmp(op, "unmount"))
		ret = call_answer(c->calls.unmount(c->calls.arg));
	else if (!strcmp(op, "quiesce") || !strcmp(op, "thaw"))
		ret = error_answer(-EOPNOTSUPP, "this mount cannot be quiesced");
	else
		ret = error_answer(-EOPNOTSUPP, "unknown request");
	json_decref(req);
	return ret;
}

static bool peer_allowed(int fd)
{
	struct ucred u;
	socklen_t len = sizeof(u);

	return !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &u, &len) && (u.uid == geteuid() || u.uid == 0);
}

static void serve(struct control *c, int fd)
{
	char *line CLEANUP_FREE = NULL;
	json_t *ret;

	if (!peer_allowed(fd) || read_line(fd, REQUEST_MAX, c->stop_fd, now_ms() + PEER_TIMEOUT_MS, &line))
		return;
	ret = answer(c, line);
	if (!ret)
		return;
	/* not broken off by control_stop(): the answer to "unmount" is written while the daemon leaves */
	if (write_line(fd, ret, -1, now_ms() + PEER_TIMEOUT_MS))
		report(REPORT_DEBUG, "control: a client went away before its answer");
	json_decref(ret);
}

static void *control_main(void *arg)
{
	struct control *c = arg;

	for (;;) {
		int fd;

		if (wait_for(c->listen_fd, POLLIN, c->stop_fd, -1) != 1)
			return NULL;
		fd = accept4(c->listen_fd, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0) {
			if (errno != EINTR && errno != ECONNABORTED && errno != EAGAIN)
				nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL); /* out of descriptors: do not spin */
			continue;
		}
		serve(c, fd);
		close(fd);
	}
}

static int listen_on(int tdfs_fd)
{
	struct sockaddr_un a;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), err = 0;

	if (fd < 0)
		return -errno;
	address(tdfs_fd, &a);
	if (unlinkat(tdfs_fd, NAME, 0) && errno != ENOENT)
		err = -errno; /* we hold the volume's lock: whoever made it is gone */
	/* .tdfs is 0700, so nobody gets in before the chmod */
	if (!err && (bind(fd, (struct sockaddr *)&a, sizeof(a)) || fchmodat(tdfs_fd, NAME, 0600, 0) || listen(fd, 16)))
		err = -errno;
	if (err) {
		close(fd);
		return err;
	}
	return fd;
}

int control_start(int tdfs_fd, const struct control_calls *calls, struct control **ret)
{
	struct control *c = calloc(1, sizeof(*c));
	sigset_t all, old;
	int err;

	if (!c)
		return -ENOMEM;
	c->calls = *calls;
	c->stop_fd = eventfd(0, EFD_CLOEXEC);
	c->listen_fd = c->stop_fd < 0 ? -errno : listen_on(tdfs_fd);
	err = c->listen_fd < 0 ? c->listen_fd : 0;
	if (!err) {
		sigfillset(&all);
		pthread_sigmask(SIG_SETMASK, &all, &old);
		err = -pthread_create(&c->thread, NULL, control_main, c);
		pthread_sigmask(SIG_SETMASK, &old, NULL);
	}
	if (err) {
		close_fd(&c->listen_fd);
		close_fd(&c->stop_fd);
		free(c);
		return fail(err, "the control socket could not be made: %s", strerror(-err));
	}
	*ret = c;
	return 0;
}

void control_stop(struct control *c, int tdfs_fd)
{
	uint64_t one = 1;

	if (!c)
		return;
	unlinkat(tdfs_fd, NAME, 0); /* first, so that nobody queues up behind the last request */
	if (write(c->stop_fd, &one, sizeof(one)) != sizeof(one))
		abort(); /* an eventfd takes eight bytes */
	pthread_join(c->thread, NULL);
	close(c->listen_fd);
	close(c->stop_fd);
	free(c);
}

/* --- client --- */

static int connect_to(const char *tdfs_dir)
{
	int dir CLEANUP_FD = open(tdfs_dir, O_PATH | O_DIRECTORY | O_CLOEXEC), fd;
	struct sockaddr_un a;
	struct timeval tv = {.tv_sec = 5}; /* connect(2) waits while the backlog is full */

	if (dir < 0)
		return -errno;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
	address(dir, &a);
	if (connect(fd, (struct sockaddr *)&a, sizeof(a))) {
		int err = errno == EAGAIN ? -ETIMEDOUT : -errno;

		close(fd);
		return err;
	}
	return fd;
}

int control_call(const char *tdfs_dir, const char *op, int timeout_ms, json_t **ret)
{
	int64_t until = now_ms() + timeout_ms;
	char *line CLEANUP_FREE = NULL;
	json_t *req, *got;
	int fd CLEANUP_FD = connect_to(tdfs_dir);
	int err;

	if (fd < 0)
		return fd;
	req = json_pack("{s:i, s:s}", "v", 1, "op", op);
	err = req ? write_line(fd, req, -1, until) : -ENOMEM;
	json_decref(req);
	if (!err)
		err = read_line(fd, ANSWER_MAX, -1, until, &line);
	if (err)
		return fail(err, "the mounted daemon did not answer: %s", strerror(-err));
	got = json_loads(line, 0, NULL);
	if (!got || json_integer_value(json_object_get(got, "v")) != 1) {
		json_decref(got);
		return fail(-EPROTO, "the mounted daemon gave an answer of another version");
	}
	if (!json_is_true(json_object_get(got, "ok"))) {
		const char *text = json_string_value(json_object_get(got, "error"));
		json_int_t code = json_integer_value(json_object_get(got, "errno"));

		err = code > 0 && code < 4096 ? -(int)code : -EIO;
		fail(err, "%s", text ? text : strerror(-err));
		json_decref(got);
		return err;
	}
	*ret = got;
	return 0;
}
