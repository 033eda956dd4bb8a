/* SPDX-License-Identifier: Apache-2.0 */
/* base64 (RFC 4648 section 4, strict), hex and UUIDs.  Pure; thread-safe. */
#ifndef TDFS_ENCODE_H
#define TDFS_ENCODE_H

#include "defs.h"

#define BASE64_LEN(n) (((n) + 2) / 3 * 4)

/** base64_encode() - @ret gets BASE64_LEN(len) characters and a NUL */
void base64_encode(const void *p, size_t len, char *ret);
/** base64_decode() - standard alphabet with padding; with @lax also the URL alphabet, missing padding and line breaks (other
 * clients and a KAS take those)
 * @max: room in @ret.  Return: 0; -EPROTO not base64; -ENOSPC too long; -ENOMEM only with line breaks */
int base64_decode(const char *s, size_t len, bool lax, void *ret, size_t max, size_t *ret_len) MUST_CHECK;
/** hex_encode() - lower case; 2 * len characters and a NUL */
void hex_encode(const void *p, size_t len, char *ret);
/** hex_decode() - exactly @n bytes from 2 * n characters of either case; 0 or -EPROTO */
int hex_decode(const char *s, size_t len, void *ret, size_t n) MUST_CHECK;
/** uuid_format() - 16 bytes as 36 characters and a NUL */
void uuid_format(const uint8_t id[static 16], char ret[static 37]);

#endif
