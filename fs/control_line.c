/* SPDX-License-Identifier: Apache-2.0 */
#include "control_i.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>

void control_address(int dirfd, struct sockaddr_un *ret)
{
	*ret = (struct sockaddr_un){.sun_family = AF_UNIX};
	snprintf(ret->sun_path, sizeof(ret->sun_path), "/proc/self/fd/%d/" CONTROL_NAME, dirfd);
}

int64_t control_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

int control_wait(int fd, short events, int stop_fd, int64_t until)
{
	struct pollfd p[2] = {{.fd = fd, .events = events}, {.fd = stop_fd, .events = POLLIN}};
	int64_t left = until < 0 ? -1 : until - control_now_ms();
	int n = poll(p, 2, until < 0 ? -1 : (int)MAX(left, 0));

	if (n < 0)
		return errno == EINTR ? control_wait(fd, events, stop_fd, until) : -errno;
	return n > 0 && p[0].revents && !p[1].revents;
}

int control_read(int fd, size_t max, int stop_fd, int64_t until, char **ret)
{
	char *buf CLEANUP_FREE = NULL;
	size_t len = 0, room = 0;

	for (;;) {
		ssize_t n;
		char *end;
		int ready;

		if (len + 1 >= room) {
			char *more = room < max ? realloc(buf, room = MIN(MAX(room * 2, (size_t)1024), max)) : NULL;

			if (!more)
				return room < max ? -ENOMEM : -EPROTO;
			buf = more;
		}
		ready = control_wait(fd, POLLIN, stop_fd, until);
		if (ready <= 0)
			return ready ? ready : -ETIMEDOUT;
		n = recv(fd, buf + len, room - len - 1, MSG_DONTWAIT | MSG_PEEK);
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n <= 0)
			return n ? -errno : -EPROTO;
		end = memchr(buf + len, '\n', (size_t)n); /* what comes before it may be any bytes, what comes behind it is the next line */
		n = recv(fd, buf + len, end ? (size_t)(end - buf) - len + 1 : (size_t)n, MSG_DONTWAIT);
		if (n <= 0)
			return n ? -errno : -EPROTO;
		len += (size_t)n;
		if (end) {
			*end = 0;
			*ret = STEAL(buf);
			return 0;
		}
	}
}

int control_write(int fd, const json_t *j, int stop_fd, int64_t until)
{
	char *text CLEANUP_FREE = json_dumps(j, JSON_COMPACT);
	size_t len, at = 0;

	if (!text)
		return -ENOMEM;
	len = strlen(text);
	text[len++] = '\n'; /* in place of the NUL */
	while (at < len) {
		int ready = control_wait(fd, POLLOUT, stop_fd, until);
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
