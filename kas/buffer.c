/* SPDX-License-Identifier: Apache-2.0 */
#include "buffer.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

void buffer_free(struct buffer *b)
{
	free(b->p);
	b->p = NULL;
	b->len = b->room = 0;
}

void *buffer_room(struct buffer *b, size_t len)
{
	void *at;

	if (!b->err && (len > b->max || b->len > b->max - len))
		b->err = -EFBIG;
	if (!b->err && b->room - b->len < len + 1) { /* room >= len, and both are small against SIZE_MAX: max is */
		size_t room = MAX(b->room * 2, b->len + len + 256);
		char *more = realloc(b->p, room);

		if (more) {
			b->p = more;
			b->room = room;
		} else {
			b->err = -ENOMEM;
		}
	}
	if (b->err)
		return NULL;
	at = b->p + b->len;
	b->len += len;
	b->p[b->len] = '\0';
	return at;
}

void buffer_put(struct buffer *b, const void *p, size_t len)
{
	void *at = buffer_room(b, len);

	if (at && len)
		memcpy(at, p, len);
}

void buffer_text(struct buffer *b, const char *s)
{
	buffer_put(b, s, strlen(s));
}

void buffer_printf(struct buffer *b, const char *fmt, ...)
{
	char text[512];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= sizeof(text))
		b->err = b->err ? b->err : -EFBIG;
	else
		buffer_put(b, text, (size_t)n);
}

void buffer_insert(struct buffer *b, size_t at, const void *p, size_t len)
{
	size_t behind = b->len - at;

	if (!buffer_room(b, len))
		return;
	memmove(b->p + at + len, b->p + at, behind);
	memcpy(b->p + at, p, len);
}

/* Length of the UTF-8 sequence at @s, 0 if it is none (RFC 3629: no overlong forms, no surrogates). */
static size_t utf8_len(const uint8_t *s, size_t left)
{
	uint32_t c;
	size_t n;

	if (s[0] < 0xc2)
		return s[0] < 0x80;
	n = s[0] < 0xe0 ? 2 : (s[0] < 0xf0 ? 3 : 4);
	if (s[0] > 0xf4 || n > left)
		return 0;
	c = s[0] & (0xffU >> (n + 1));
	for (size_t i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (s[i] & 0x3f);
	}
	if (n == 3 && (c < 0x800 || (c >= 0xd800 && c < 0xe000)))
		return 0;
	return n == 4 && (c < 0x10000 || c > 0x10ffff) ? 0 : n;
}

void buffer_json(struct buffer *b, const char *s, size_t most)
{
	const uint8_t *p = (const uint8_t *)s;
	size_t len = s ? strnlen(s, most + 1) : 0, end = MIN(len, most);

	if (!s) {
		buffer_text(b, "null");
		return;
	}
	buffer_put(b, "\"", 1);
	for (size_t i = 0; i < end;) {
		size_t n = utf8_len(p + i, end - i);

		if (p[i] == '"' || p[i] == '\\')
			buffer_printf(b, "\\%c", p[i]);
		else if (n == 2 && p[i] == 0xc2 && p[i + 1] < 0xa0) /* C1: a terminal that shows the log would obey */
			buffer_printf(b, "\\u%04x", p[i + 1]);
		else if (!n || p[i] < 0x20 || p[i] == 0x7f)
			buffer_printf(b, "\\u%04x", n ? p[i] : 0xfffd);
		else
			buffer_put(b, p + i, n);
		i += n ? n : 1;
	}
	buffer_text(b, len > most ? "...\"" : "\"");
}
