/* SPDX-License-Identifier: Apache-2.0 */
#include "wire.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define MAGIC 0x77666474u /* "tdfw" */
#define AHEAD ((size_t)64 << 10)

struct head {
	uint32_t magic;
	uint16_t type, zero;
	uint64_t id;
	uint32_t len, len_check; /* the same inverted */
};
_Static_assert(sizeof(struct head) == 24, "no padding on the wire");

void wire_init(struct wire *w, int fd)
{
	*w = (struct wire){.fd = fd};
}

void wire_free(struct wire *w)
{
	free(w->buf);
	w->buf = NULL;
}

int wire_send(struct wire *w, uint16_t type, uint64_t id, const void *p, size_t len)
{
	struct head h = {.magic = MAGIC, .type = type, .id = id, .len = (uint32_t)len, .len_check = ~(uint32_t)len};
	struct iovec v[2] = {{&h, sizeof(h)}, {(void *)p, len}};
	struct msghdr m = {.msg_iov = v, .msg_iovlen = 2};

	if (len > WIRE_MAX)
		return -EMSGSIZE;
	while (m.msg_iovlen) {
		ssize_t n = sendmsg(w->fd, &m, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == ECONNRESET ? -EPIPE : -errno;
		while (m.msg_iovlen && (size_t)n >= m.msg_iov->iov_len) {
			n -= (ssize_t)m.msg_iov->iov_len;
			m.msg_iov++;
			m.msg_iovlen--;
		}
		if (m.msg_iovlen) {
			m.msg_iov->iov_base = (char *)m.msg_iov->iov_base + n;
			m.msg_iov->iov_len -= (size_t)n;
		}
	}
	return 0;
}

/* The head of what waits in the buffer: 1 it is all there, 0 more must come, -EPROTO */
static int head_look(const struct wire *w, struct head *ret)
{
	if (w->have - w->used < sizeof(*ret))
		return 0;
	memcpy(ret, w->buf + w->used, sizeof(*ret));
	if (ret->magic != MAGIC || ret->zero || ret->len != ~ret->len_check || ret->len > WIRE_MAX)
		return -EPROTO;
	return w->have - w->used - sizeof(*ret) >= ret->len;
}

bool wire_waiting(const struct wire *w)
{
	struct head h;

	return w->buf && head_look(w, &h) != 0; /* a broken one too: wire_recv() will tell */
}

/* Room for @need bytes from ->used on. */
static int room_make(struct wire *w, size_t need)
{
	uint8_t *more;

	memmove(w->buf, w->buf + w->used, w->have - w->used);
	w->have -= w->used;
	w->used = 0;
	if (need <= w->room)
		return 0;
	more = realloc(w->buf, need);
	if (!more)
		return -ENOMEM;
	w->buf = more;
	w->room = need;
	return 0;
}

int wire_recv(struct wire *w, struct wire_frame *ret)
{
	struct head h = {0};
	int err;

	if (!w->buf) {
		w->buf = malloc(AHEAD);
		if (!w->buf)
			return -ENOMEM;
		w->room = AHEAD;
	}
	while ((err = head_look(w, &h)) == 0) {
		size_t need = w->have - w->used < sizeof(h) ? AHEAD : sizeof(h) + h.len;
		ssize_t n;

		if (w->room - w->used < need || w->have == w->room) {
			err = room_make(w, MAX(need, AHEAD));
			if (err)
				return err;
		}
		n = recv(w->fd, w->buf + w->have, w->room - w->have, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == ECONNRESET ? -EPIPE : -errno;
		if (n == 0)
			return -EPIPE;
		w->have += (size_t)n;
	}
	if (err < 0)
		return err;
	*ret = (struct wire_frame){h.type, h.id, w->buf + w->used + sizeof(h), h.len};
	w->used += sizeof(h) + h.len;
	return 0;
}

int wire_peek(struct wire *w, struct wire_frame *ret)
{
	struct head h = {0};
	int got = head_look(w, &h);

	if (!got) {
		ssize_t n;
		int err = room_make(w, MAX(w->room, w->have - w->used + AHEAD));

		if (err)
			return err;
		n = recv(w->fd, w->buf + w->have, w->room - w->have, MSG_DONTWAIT);
		if (n > 0) /* all else wire_recv() will meet too */
			w->have += (size_t)n;
		got = head_look(w, &h);
	}
	if (got > 0)
		*ret = (struct wire_frame){h.type, h.id, w->buf + w->used + sizeof(h), h.len};
	return got;
}
