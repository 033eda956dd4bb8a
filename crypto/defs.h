/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small things every file needs.  No code that does anything.
 *
 * Errors: functions return 0 (or a count) or -errno.  Meanings inside tdfs: EBADMSG forged or damaged (a MAC or tag does not match),
 * EPROTO malformed, ENOKEY no way to a key, EACCES the KAS refused, ETIMEDOUT the KAS is late, ENOTSUP a future version.
 * Results come last, are called ret_x and are untouched on failure.
 */
#ifndef TDFS_DEFS_H
#define TDFS_DEFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MUST_CHECK __attribute__((warn_unused_result))
#define PRINTF_LIKE(f, a) __attribute__((format(printf, f, a)))
#define CLEANUP(f) __attribute__((cleanup(f)))
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

static inline void free_ptr(void *p)
{
	free(*(void **)p);
}
static inline void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}
#define CLEANUP_FREE CLEANUP(free_ptr)
#define CLEANUP_FD CLEANUP(close_fd)

#if defined(__SANITIZE_ADDRESS__)
#define ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ADDRESS_SANITIZER 1
#endif
#endif

/* steal a pointer out of a CLEANUP_FREE variable */
#define STEAL(p)                                                                                                                           \
	({                                                                                                                                 \
		__typeof__(p) steal_ = (p);                                                                                                \
		(p) = NULL;                                                                                                                \
		steal_;                                                                                                                    \
	})

static inline uint16_t get_le16(const void *p)
{
	const uint8_t *b = p;
	return (uint16_t)(b[0] | b[1] << 8);
}
static inline uint32_t get_le32(const void *p)
{
	return get_le16(p) | (uint32_t)get_le16((const uint8_t *)p + 2) << 16;
}
static inline uint64_t get_le64(const void *p)
{
	return get_le32(p) | (uint64_t)get_le32((const uint8_t *)p + 4) << 32;
}
static inline void put_le16(void *p, uint16_t v)
{
	uint8_t *b = p;
	b[0] = (uint8_t)v;
	b[1] = (uint8_t)(v >> 8);
}
static inline void put_le32(void *p, uint32_t v)
{
	put_le16(p, (uint16_t)v);
	put_le16((uint8_t *)p + 2, (uint16_t)(v >> 16));
}
static inline void put_le64(void *p, uint64_t v)
{
	put_le32(p, (uint32_t)v);
	put_le32((uint8_t *)p + 4, (uint32_t)(v >> 32));
}

#endif
