/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames between the converter and its workers, over a stream socket: a fixed head, then @len bytes.
 *
 * Both ends are the same program on the same machine, yet every length is checked on arrival: a peer that was hit by a stray write must not
 * take the other with it.
 */
#ifndef TDFS_WIRE_H
#define TDFS_WIRE_H

#include "defs.h"

#define WIRE_MAX ((size_t)64 << 20) /* bytes behind the head: a file with as many names as ext4 allows, and what is said about each */

struct wire {
	int fd;       /* blocking; owned by whoever made the pair */
	uint8_t *buf; /* of the frame received last, and of what was read beyond it */
	size_t room, have, used;
};

struct wire_frame {
	uint16_t type;
	uint64_t id;
	const uint8_t *p; /* valid until the next wire_recv() */
	size_t len;
};

void wire_init(struct wire *w, int fd);
void wire_free(struct wire *w);

/** wire_send() - one frame; 0; -EMSGSIZE too long; -EPIPE the peer is gone; -errno.  Blocks while the socket is full. */
int wire_send(struct wire *w, uint16_t type, uint64_t id, const void *p, size_t len) MUST_CHECK;

/** wire_recv() - the next frame, waiting for it
 * Return: 0; -EPIPE the peer closed, at a frame's end or inside one; -EPROTO what came is no frame; -errno */
int wire_recv(struct wire *w, struct wire_frame *ret) MUST_CHECK;

/** wire_peek() - the frame behind the one received last, if it is there already; it stays to be received.  What the last one pointed to is
 * gone.  1; 0 it has not come; -EPROTO; -ENOMEM */
int wire_peek(struct wire *w, struct wire_frame *ret) MUST_CHECK;

/** wire_waiting() - a whole frame was read ahead already: poll(2) will not tell about it */
bool wire_waiting(const struct wire *w);

#endif
