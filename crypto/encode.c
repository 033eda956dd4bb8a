/* SPDX-License-Identifier: Apache-2.0 */
#include "encode.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char alphabet[64] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* value + 1 of each character, 0 = not in the standard alphabet */
static const uint8_t values[256] = {
    ['A'] = 1,  ['B'] = 2,  ['C'] = 3,  ['D'] = 4,  ['E'] = 5,  ['F'] = 6,  ['G'] = 7,  ['H'] = 8,  ['I'] = 9,  ['J'] = 10, ['K'] = 11,
    ['L'] = 12, ['M'] = 13, ['N'] = 14, ['O'] = 15, ['P'] = 16, ['Q'] = 17, ['R'] = 18, ['S'] = 19, ['T'] = 20, ['U'] = 21, ['V'] = 22,
    ['W'] = 23, ['X'] = 24, ['Y'] = 25, ['Z'] = 26, ['a'] = 27, ['b'] = 28, ['c'] = 29, ['d'] = 30, ['e'] = 31, ['f'] = 32, ['g'] = 33,
    ['h'] = 34, ['i'] = 35, ['j'] = 36, ['k'] = 37, ['l'] = 38, ['m'] = 39, ['n'] = 40, ['o'] = 41, ['p'] = 42, ['q'] = 43, ['r'] = 44,
    ['s'] = 45, ['t'] = 46, ['u'] = 47, ['v'] = 48, ['w'] = 49, ['x'] = 50, ['y'] = 51, ['z'] = 52, ['0'] = 53, ['1'] = 54, ['2'] = 55,
    ['3'] = 56, ['4'] = 57, ['5'] = 58, ['6'] = 59, ['7'] = 60, ['8'] = 61, ['9'] = 62, ['+'] = 63, ['/'] = 64,
};

void base64_encode(const void *p, size_t len, char *ret)
{
	const uint8_t *b = p;

	for (; len >= 3; len -= 3, b += 3) {
		uint32_t v = (uint32_t)b[0] << 16 | (uint32_t)b[1] << 8 | b[2];

		*ret++ = alphabet[v >> 18];
		*ret++ = alphabet[v >> 12 & 63];
		*ret++ = alphabet[v >> 6 & 63];
		*ret++ = alphabet[v & 63];
	}
	if (len) {
		uint32_t v = (uint32_t)b[0] << 16 | (len == 2 ? (uint32_t)b[1] << 8 : 0);

		*ret++ = alphabet[v >> 18];
		*ret++ = alphabet[v >> 12 & 63];
		*ret++ = len == 2 ? alphabet[v >> 6 & 63] : '=';
		*ret++ = '=';
	}
	*ret = 0;
}

/* 0..63, or 64 and up for a character that does not belong */
static inline uint32_t value_of(uint8_t c, bool lax)
{
	if (lax && c == '-')
		return 62;
	if (lax && c == '_')
		return 63;
	return (uint32_t)values[c] - 1;
}

static int decode_unbroken(const char *s, size_t len, bool lax, void *ret, size_t max, size_t *ret_len)
{
	const uint8_t *c = (const uint8_t *)s;
	uint8_t *out = ret;
	size_t pad = 0, n, i;
	uint32_t v[4] = {0};

	while (pad < 2 && pad < len && c[len - 1 - pad] == '=')
		pad++;
	if (len % 4 && !(lax && !pad))
		return -EPROTO;
	len -= pad;
	if (len % 4 == 1 || (pad && (len + pad) % 4))
		return -EPROTO;
	n = len / 4 * 3 + (len % 4 ? len % 4 - 1 : 0);
	if (n > max)
		return -ENOSPC;

	for (i = 0; i + 4 <= len; i += 4, out += 3) {
		uint32_t a = value_of(c[i], lax), b = value_of(c[i + 1], lax), d = value_of(c[i + 2], lax), e = value_of(c[i + 3], lax);

		if ((a | b | d | e) > 63)
			return -EPROTO;
		out[0] = (uint8_t)(a << 2 | b >> 4);
		out[1] = (uint8_t)(b << 4 | d >> 2);
		out[2] = (uint8_t)(d << 6 | e);
	}
	for (size_t k = 0; i + k < len; k++) {
		v[k] = value_of(c[i + k], lax);
		if (v[k] > 63)
			return -EPROTO;
	}
	/* the bits that are left over must be zero: one spelling for each value */
	if (len - i == 2 && v[1] & 15)
		return -EPROTO;
	if (len - i == 3 && v[2] & 3)
		return -EPROTO;
	if (len - i >= 2)
		*out++ = (uint8_t)(v[0] << 2 | v[1] >> 4);
	if (len - i == 3)
		*out++ = (uint8_t)(v[1] << 4 | v[2] >> 2);
	*ret_len = n;
	return 0;
}

int base64_decode(const char *s, size_t len, bool lax, void *ret, size_t max, size_t *ret_len)
{
	CLEANUP_FREE char *joined = NULL;
	size_t n = 0;

	if (!lax || (!memchr(s, '\n', len) && !memchr(s, '\r', len)))
		return decode_unbroken(s, len, lax, ret, max, ret_len);
	joined = malloc(len);
	if (!joined)
		return -ENOMEM;
	for (size_t i = 0; i < len; i++)
		if (s[i] != '\n' && s[i] != '\r')
			joined[n++] = s[i];
	return decode_unbroken(joined, n, true, ret, max, ret_len);
}

void hex_encode(const void *p, size_t len, char *ret)
{
	static const char digits[] = "0123456789abcdef";
	const uint8_t *b = p;

	for (size_t i = 0; i < len; i++) {
		*ret++ = digits[b[i] >> 4];
		*ret++ = digits[b[i] & 15];
	}
	*ret = 0;
}

static int nibble(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

int hex_decode(const char *s, size_t len, void *ret, size_t n)
{
	uint8_t *out = ret;

	if (len != 2 * n)
		return -EPROTO;
	for (size_t i = 0; i < len; i++) /* all checked before anything is written */
		if (nibble(s[i]) < 0)
			return -EPROTO;
	for (size_t i = 0; i < n; i++)
		out[i] = (uint8_t)(nibble(s[2 * i]) << 4 | nibble(s[2 * i + 1]));
	return 0;
}

void uuid_format(const uint8_t id[static 16], char ret[static 37])
{
	static const uint8_t groups[] = {4, 2, 2, 2, 6};

	for (size_t g = 0; g < ARRAY_SIZE(groups); g++) {
		hex_encode(id, groups[g], ret);
		id += groups[g];
		ret += 2 * groups[g];
		*ret++ = '-';
	}
	ret[-1] = 0;
}
