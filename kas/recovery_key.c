/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A recovery key as text: 8 groups of 5, "XXXXC-XXXXC-...": 4 characters of 5 random bits and a check character each.
 *
 * The check is a weighted sum in GF(32) plus the number of the group.  All weights differ and none is zero, so one wrong character, two
 * swapped characters in a group and two swapped groups are always found, and the group can be named.
 */
#include "recovery_key.h"

#include <ctype.h>
#include <errno.h>

#include "random.h"
#include "report.h"

#define GROUPS 8
#define DATA 4 /* characters of a group without its check */
#define CHARS (GROUPS * (DATA + 1))

static const char alphabet[] = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ";
_Static_assert(sizeof(alphabet) == 33, "5 bits a character");
_Static_assert(CHARS + GROUPS - 1 < RECOVERY_TEXT, "the text fits");
_Static_assert(RECOVERY_BYTES * 8 == GROUPS * DATA * 5, "no bit left over");

/* @v * x in GF(2)[x] / (x^5 + x^2 + 1) */
static unsigned times_x(unsigned v)
{
	v <<= 1;
	return v & 32 ? v ^ 0x25 : v;
}

/* Weights x^4, x^3, x^2, x for the data; the check itself counts once. */
static unsigned group_check(const uint8_t *d, unsigned group)
{
	unsigned sum = 0;

	for (int i = 0; i < DATA; i++)
		sum = times_x(sum ^ d[i]);
	return sum ^ group;
}

int recovery_new(char ret[static RECOVERY_TEXT])
{
	uint8_t bits[GROUPS * DATA];
	char *p = ret;
	int err = random_private(bits, sizeof(bits));

	if (err)
		return err;
	for (size_t i = 0; i < sizeof(bits); i++)
		bits[i] &= 31;
	for (unsigned g = 0; g < GROUPS; g++) {
		if (g)
			*p++ = '-';
		for (int i = 0; i < DATA; i++)
			*p++ = alphabet[bits[g * DATA + (unsigned)i]];
		*p++ = alphabet[group_check(bits + g * DATA, g)];
	}
	*p = '\0';
	wipe(bits, sizeof(bits));
	return 0;
}

/* Characters as values 0..31. */
static int read_chars(const char *text, size_t len, uint8_t v[static CHARS])
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++) {
		int c = toupper((unsigned char)text[i]);
		const char *at = c ? strchr(alphabet, c) : NULL;

		if (c == '-' || isspace(c))
			continue;
		if (!at)
			return fail(-EPROTO, "group %zu of the recovery key has a character that is never in one (0, 1, I and O are not)",
				    n / (DATA + 1) + 1);
		if (n < CHARS)
			v[n] = (uint8_t)(at - alphabet);
		n++;
	}
	return n == CHARS ? 0 : fail(-EPROTO, "the recovery key has %zu characters, %d are right", n, CHARS);
}

int recovery_decode(const char *text, size_t len, uint8_t ret[static RECOVERY_BYTES])
{
	uint8_t v[CHARS];
	uint64_t acc = 0;
	unsigned n_bits = 0;
	size_t out = 0;
	int err = read_chars(text, len, v);

	for (unsigned g = 0; !err && g < GROUPS; g++)
		if (v[g * (DATA + 1) + DATA] != group_check(v + g * (DATA + 1), g))
			err = fail(-EPROTO, "the recovery key is mistyped in group %u", g + 1);
	for (size_t i = 0; !err && i < CHARS; i++) {
		if (i % (DATA + 1) == DATA)
			continue;
		acc = (acc << 5 | v[i]) & 0xffff;
		n_bits += 5;
		if (n_bits >= 8) {
			n_bits -= 8;
			ret[out++] = (uint8_t)(acc >> n_bits);
		}
	}
	wipe(v, sizeof(v));
	wipe(&acc, sizeof(acc));
	return err;
}

int recovery_check(const char *text, size_t len)
{
	uint8_t bytes[RECOVERY_BYTES];
	int err = recovery_decode(text, len, bytes);

	wipe(bytes, sizeof(bytes));
	return err;
}
