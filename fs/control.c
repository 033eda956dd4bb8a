/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon's end of the control socket. */
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

#include "control_i.h"
#include "report.h"

#define REQUEST_MAX 4096
#define PEER_TIMEOUT_MS 5000 /* a client that does not say what it wants */

#define TALKS_MAX 128 /* converters' connections at a time */

struct control {
	struct control_calls calls;
	int listen_fd, stop_fd;
	pthread_t thread;

	struct mutex lock;
	struct cond talk_ended;
	unsigned n_talks; /* guarded by lock */
	int leaver;       /* the control thread's, then control_stop()'s: who asked for unmounting; -1: nobody */
};

struct talk { /* handed to its thread */
	struct control *c;
	int fd;
};

static json_t *error_answer(int err, const char *text)
{
	return json_pack("{s:i, s:b, s:i, s:s}", "v", 1, "ok", 0, "errno", -err, "error", text);
}

static json_t *call_answer(int err)
{
	return err ? error_answer(err, *fail_text() ? fail_text() : strerror(-err)) : json_pack("{s:i, s:b}", "v", 1, "ok", 1);
}

json_t *control_error(int err)
{
	return call_answer(err);
}

static bool is_op(const char *line, const char *op)
{
	json_t *req = json_loads(line, 0, NULL);
	const char *is = json_string_value(json_object_get(req, "op"));
	bool same = is && !strcmp(is, op);

	json_decref(req);
	return same;
}

static json_t *quiesce_answer(struct control *c, json_int_t seconds)
{
	if (seconds < 1 || seconds > CONTROL_QUIESCE_MAX)
		return error_answer(-EINVAL, "how long it may last at most must be said, in seconds");
	return call_answer(c->calls.quiesce(c->calls.arg, (unsigned)seconds));
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
	else if (!strcmp(op, "quiesce"))
		ret = quiesce_answer(c, json_integer_value(json_object_get(req, "seconds")));
	else if (!strcmp(op, "thaw"))
		ret = call_answer(c->calls.quiesce(c->calls.arg, 0));
	else if (!strcmp(op, "open"))
		ret = call_answer(c->calls.open(c->calls.arg));
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

/* Takes @ret over */
static int send_answer(int fd, json_t *ret)
{
	/* not broken off by control_stop(): the answer to "unmount" is written while the daemon leaves */
	int err = ret ? control_write(fd, ret, -1, control_now_ms() + PEER_TIMEOUT_MS) : -ENOMEM;

	if (err)
		report(REPORT_DEBUG, "control: a client went away before its answer");
	json_decref(ret);
	return err;
}

static json_t *talk_answer(struct control *c, void *with, const char *line)
{
	json_t *req = json_loads(line, 0, NULL), *ret;

	fail_clear();
	ret = req ? c->calls.talk(with, req) : error_answer(-EPROTO, "not a request");
	json_decref(req);
	return ret;
}

static void *talk_main(void *arg)
{
	struct talk *t = arg;
	struct control *c = t->c;
	void *with = NULL;
	int err;

	fail_clear();
	err = c->calls.talk_begin(c->calls.arg, &with);
	if (!send_answer(t->fd, call_answer(err)) && !err) {
		char *line = NULL;

		while (!control_read(t->fd, CONTROL_TALK_MAX, c->stop_fd, -1, &line)) {
			err = send_answer(t->fd, talk_answer(c, with, line));
			free(STEAL(line));
			if (err)
				break;
		}
	}
	if (with)
		c->calls.talk_end(with);
	close(t->fd);
	free(t);
	mutex_lock(&c->lock);
	c->n_talks--;
	cond_broadcast(&c->talk_ended);
	mutex_unlock(&c->lock);
	return NULL;
}

/* 0: the thread has @fd */
static int talk_start(struct control *c, int fd)
{
	struct talk *t = malloc(sizeof(*t));
	pthread_attr_t attr;
	pthread_t thread;
	int err = t ? 0 : -ENOMEM;

	mutex_lock(&c->lock);
	if (!err && c->n_talks >= TALKS_MAX)
		err = -EBUSY;
	c->n_talks += !err;
	mutex_unlock(&c->lock);
	if (!err) {
		*t = (struct talk){c, fd};
		lock_check(pthread_attr_init(&attr));
		pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
		err = -pthread_create(&thread, &attr, talk_main, t); /* signals are blocked here */
		pthread_attr_destroy(&attr);
		if (err) {
			mutex_lock(&c->lock);
			c->n_talks--;
			mutex_unlock(&c->lock);
		}
	}
	if (err)
		free(t);
	return err;
}

/* false: @fd is somebody else's now */
static bool serve(struct control *c, int fd)
{
	char *line CLEANUP_FREE = NULL;
	int err;

	if (!peer_allowed(fd) || control_read(fd, REQUEST_MAX, c->stop_fd, control_now_ms() + PEER_TIMEOUT_MS, &line))
		return true;
	if (c->calls.talk && is_op(line, "convert")) {
		err = talk_start(c, fd);
		if (!err)
			return false;
		fail_clear();
		(void)send_answer(fd, call_answer(err));
	} else {
		json_t *ret = answer(c, line);
		bool leaving = json_is_true(json_object_get(ret, "ok")) && is_op(line, "unmount");

		if (!send_answer(fd, ret) && leaving) {
			close_fd(&c->leaver);
			c->leaver = fd;
			return false;
		}
	}
	return true;
}

static void *control_main(void *arg)
{
	struct control *c = arg;

	for (;;) {
		int fd;

		if (control_wait(c->listen_fd, POLLIN, c->stop_fd, -1) != 1)
			return NULL;
		fd = accept4(c->listen_fd, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0) {
			if (errno != EINTR && errno != ECONNABORTED && errno != EAGAIN)
				nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL); /* out of descriptors: do not spin */
			continue;
		}
		if (serve(c, fd))
			close(fd);
	}
}

static int listen_on(int tdfs_fd)
{
	struct sockaddr_un a;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), err = 0;

	if (fd < 0)
		return -errno;
	control_address(tdfs_fd, &a);
	if (unlinkat(tdfs_fd, CONTROL_NAME, 0) && errno != ENOENT)
		err = -errno; /* we hold the volume's lock: whoever made it is gone */
	/* .tdfs is 0700, so nobody gets in before the chmod */
	if (!err && (bind(fd, (struct sockaddr *)&a, sizeof(a)) || fchmodat(tdfs_fd, CONTROL_NAME, 0600, 0) || listen(fd, 16)))
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
	c->leaver = -1;
	mutex_init(&c->lock);
	cond_init(&c->talk_ended);
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

int control_stop(struct control *c, int tdfs_fd)
{
	uint64_t one = 1;
	int leaver;

	if (!c)
		return -1;
	unlinkat(tdfs_fd, CONTROL_NAME, 0); /* first, so that nobody queues up behind the last request */
	if (write(c->stop_fd, &one, sizeof(one)) != sizeof(one))
		abort(); /* an eventfd takes eight bytes */
	pthread_join(c->thread, NULL);
	mutex_lock(&c->lock);
	while (c->n_talks)
		cond_wait(&c->talk_ended, &c->lock);
	mutex_unlock(&c->lock);
	close(c->listen_fd);
	close(c->stop_fd);
	leaver = c->leaver;
	free(c);
	return leaver;
}

void control_leave(int fd, int err)
{
	if (fd < 0)
		return;
	(void)send_answer(fd, call_answer(err));
	close(fd);
}
