/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes that grow up to a limit.  Errors stick: put what you have to put, then ask once with buffer_error().
 *
 * Not for secrets: growing leaves copies behind.  Not thread-safe.
 */
#ifndef TDFS_BUFFER_H
#define TDFS_BUFFER_H

#include "defs.h"

struct buffer {
	char *p; /* owned; NULL while empty; a NUL follows the bytes */
	size_t len, room, max;
	int err; /* 0, -ENOMEM, -EFBIG */
};

static inline struct buffer buffer_of(size_t max)
{
	return (struct buffer){.max = max};
}
void buffer_free(struct buffer *b);
#define CLEANUP_BUFFER CLEANUP(buffer_free)

/** buffer_put() - @len bytes more */
void buffer_put(struct buffer *b, const void *p, size_t len);
void buffer_text(struct buffer *b, const char *s);
void buffer_printf(struct buffer *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
/** buffer_insert() - @len bytes at @at, which is at most b->len; what is behind moves */
void buffer_insert(struct buffer *b, size_t at, const void *p, size_t len);
/** buffer_json() - text as a JSON string with its quotes, at most @most of its bytes (then "..." follows); bytes that are not UTF-8 and
 * control characters are escaped, so that what somebody sends cannot end the string or the line.  NULL: null */
void buffer_json(struct buffer *b, const char *s, size_t most);
/** buffer_room() - @len bytes to be filled by the caller, counted already; NULL: see buffer_error() */
void *buffer_room(struct buffer *b, size_t len) MUST_CHECK;
static inline int buffer_error(const struct buffer *b)
{
	return b->err;
}

#endif
