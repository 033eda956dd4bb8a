/* SPDX-License-Identifier: Apache-2.0 */
/* The other end: commands that ask the daemon. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "control_i.h"
#include "report.h"

#define ANSWER_MAX ((size_t)1 << 20)

struct control_talk {
	int fd, timeout_ms;
};

static int connect_to(int dir)
{
	int fd;
	struct sockaddr_un a;
	struct timeval tv = {.tv_sec = 5}; /* connect(2) waits while the backlog is full */

	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
	control_address(dir, &a);
	if (connect(fd, (struct sockaddr *)&a, sizeof(a))) {
		int err = errno == EAGAIN ? -ETIMEDOUT : -errno;

		close(fd);
		return err;
	}
	return fd;
}

/* The daemon's process if it is stopped (SIGSTOP, a debugger): it would not answer, however long one waits.  0: it runs */
static pid_t peer_stopped(int fd)
{
	char path[40], text[256] = "";
	struct ucred u;
	socklen_t len = sizeof(u);
	CLEANUP_FD int stat_fd = -1;
	const char *state;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &u, &len))
		return 0;
	snprintf(path, sizeof(path), "/proc/%d/stat", (int)u.pid);
	stat_fd = open(path, O_RDONLY | O_CLOEXEC);
	if (stat_fd < 0 || read(stat_fd, text, sizeof(text) - 1) <= 0)
		return 0;
	state = strrchr(text, ')');
	return state && (!strncmp(state, ") T", 3) || !strncmp(state, ") t", 3)) ? u.pid : 0;
}

static int no_answer(int err)
{
	fail(err, "the mounted daemon did not answer: %s", strerror(-err));
	return err == -ETIMEDOUT ? err : -EPIPE;
}

/* -EPIPE: the connection is no use any more; or the daemon's -errno */
static int hear(int fd, int64_t until, json_t **ret)
{
	char *line CLEANUP_FREE = NULL;
	const char *text;
	json_int_t code;
	json_t *got;
	int err = control_read(fd, ANSWER_MAX, -1, until, &line);

	if (err)
		return no_answer(err);
	got = json_loads(line, 0, NULL);
	if (!got || json_integer_value(json_object_get(got, "v")) != 1) {
		json_decref(got);
		return fail(-EPROTO, "the mounted daemon gave an answer of another version");
	}
	if (json_is_true(json_object_get(got, "ok"))) {
		*ret = got;
		return 0;
	}
	text = json_string_value(json_object_get(got, "error"));
	code = json_integer_value(json_object_get(got, "errno"));
	err = code > 0 && code < 4096 ? -(int)code : -EIO;
	fail(err, "%s", text ? text : strerror(-err));
	json_decref(got);
	return err;
}

/* One request and its answer; the reference to @req is taken over; as hear() */
static int ask(int fd, json_t *req, int timeout_ms, json_t **ret)
{
	int64_t until = control_now_ms() + timeout_ms;
	int err = req ? control_write(fd, req, -1, until) : -ENOMEM;

	json_decref(req);
	return err ? no_answer(err) : hear(fd, until, ret);
}

/* A connection to a daemon that runs; or -errno */
static int connect_running(const char *tdfs_dir)
{
	int dir CLEANUP_FD = open(tdfs_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	int fd = dir < 0 ? -errno : connect_to(dir);
	pid_t stopped = fd < 0 ? 0 : peer_stopped(fd);

	if (!stopped)
		return fd;
	close(fd);
	return fail(-EAGAIN, "its daemon, process %d, is stopped; let it go on with: kill -CONT %d", (int)stopped, (int)stopped);
}

static int ask_once(const char *tdfs_dir, json_t *req, int timeout_ms, json_t **ret)
{
	int fd CLEANUP_FD = connect_running(tdfs_dir);

	if (fd >= 0)
		return ask(fd, req, timeout_ms, ret);
	json_decref(req);
	return fd;
}

int control_call(const char *tdfs_dir, const char *op, int timeout_ms, json_t **ret)
{
	return ask_once(tdfs_dir, json_pack("{s:i, s:s}", "v", 1, "op", op), timeout_ms, ret);
}

int control_unmount(const char *tdfs_dir, int timeout_ms, int *ret_fd)
{
	int fd CLEANUP_FD = connect_running(tdfs_dir);
	json_t *got = NULL;
	int err = fd < 0 ? fd : ask(fd, json_pack("{s:i, s:s}", "v", 1, "op", "unmount"), timeout_ms, &got);

	json_decref(got);
	if (err)
		return err;
	*ret_fd = fd;
	fd = -1;
	return 0;
}

int control_unmounted(int fd)
{
	json_t *got = NULL;
	int err = hear(fd, control_now_ms() + 5000, &got); /* it is gone: what it said is there, or its end is closed */

	json_decref(got);
	close(fd);
	return err == -EPIPE || err == -ETIMEDOUT ? fail(-EPIPE, "its daemon ended before it had said that everything is sealed") : err;
}

int control_quiesce(const char *tdfs_dir, unsigned seconds, int timeout_ms)
{
	json_t *got = NULL;
	int err = ask_once(tdfs_dir, json_pack("{s:i, s:s, s:i}", "v", 1, "op", seconds ? "quiesce" : "thaw", "seconds", (int)seconds),
			   timeout_ms, &got);

	json_decref(got);
	return err;
}

int control_talk_open(int tdfs_fd, int timeout_ms, struct control_talk **ret)
{
	int fd CLEANUP_FD = connect_to(tdfs_fd), err;
	struct control_talk *c;
	json_t *answer;

	if (fd < 0)
		return fd;
	err = ask(fd, json_pack("{s:i, s:s}", "v", 1, "op", "convert"), timeout_ms, &answer);
	if (err)
		return err;
	json_decref(answer);
	c = malloc(sizeof(*c));
	if (!c)
		return -ENOMEM;
	*c = (struct control_talk){fd, timeout_ms};
	fd = -1;
	*ret = c;
	return 0;
}

int control_talk(struct control_talk *c, json_t *request, json_t **ret)
{
	json_t *answer = NULL;
	int err;

	if (request)
		json_object_set_new(request, "v", json_integer(1));
	if (c->fd < 0) {
		json_decref(request);
		return -EPIPE;
	}
	err = ask(c->fd, request, c->timeout_ms, &answer);
	if (err == -EPIPE || err == -ETIMEDOUT || err == -EPROTO) { /* what comes now could be the answer to another question */
		close(c->fd);
		c->fd = -1;
		err = -EPIPE;
	}
	if (!err && ret)
		*ret = answer;
	else
		json_decref(answer);
	return err;
}

void control_talk_close(struct control_talk *c)
{
	if (!c)
		return;
	close_fd(&c->fd);
	free(c);
}
