/* SPDX-License-Identifier: Apache-2.0 */
#include "words.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>

int number_parse(const char *text, uint64_t *ret)
{
	uint64_t v = 0;

	if (!*text)
		return -EINVAL;
	for (; *text; text++) {
		unsigned digit = (unsigned)(*text - '0');

		if (digit > 9 || v > (UINT64_MAX - digit) / 10)
			return -EINVAL;
		v = v * 10 + digit;
	}
	*ret = v;
	return 0;
}

int size_parse(const char *text, uint64_t *ret)
{
	static const char units[] = "kmgt";
	char digits[24];
	uint64_t v;
	size_t len = strlen(text);
	unsigned shift = 0;
	const char *unit;

	if (!len || len >= sizeof(digits))
		return -EINVAL;
	unit = strchr(units, text[len - 1] | 0x20);
	if (unit && *unit) {
		shift = 10 * (unsigned)(unit - units + 1);
		len--;
	}
	memcpy(digits, text, len);
	digits[len] = 0;
	if (number_parse(digits, &v) || v > UINT64_MAX >> shift)
		return -EINVAL;
	*ret = v << shift;
	return 0;
}

int seconds_parse(const char *text, uint64_t *ret)
{
	static const char units[] = "smhd";
	static const unsigned seconds[] = {1, 60, 60 * 60, 24 * 60 * 60};
	uint64_t n = 0, unit = 1;
	const char *u;

	if (!isdigit((unsigned char)*text))
		return -EINVAL;
	for (; isdigit((unsigned char)*text); text++) {
		if (n > UINT32_MAX)
			return -EINVAL;
		n = n * 10 + (uint64_t)(*text - '0');
	}
	if (*text) {
		u = strchr(units, *text | 0x20);
		if (!u || !*u || text[1])
			return -EINVAL;
		unit = seconds[u - units];
	}
	*ret = n * unit;
	return 0;
}

/* Edit distance of two short words; two neighbours exchanged are one edit. */
static unsigned distance(const char *a, const char *b)
{
	unsigned rows[3][40], la = (unsigned)strlen(a), lb = (unsigned)strlen(b);
	unsigned *row = rows[0], *last = rows[1], *before = rows[2];

	if (la >= ARRAY_SIZE(rows[0]) || lb >= ARRAY_SIZE(rows[0]))
		return UINT_MAX;
	for (unsigned j = 0; j <= lb; j++)
		row[j] = j;
	for (unsigned i = 1; i <= la; i++) {
		unsigned *spare = before;

		before = last;
		last = row;
		row = spare;
		row[0] = i;
		for (unsigned j = 1; j <= lb; j++) {
			row[j] = MIN(MIN(last[j], row[j - 1]) + 1, last[j - 1] + (a[i - 1] != b[j - 1]));
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				row[j] = MIN(row[j], before[j - 2] + 1);
		}
	}
	return row[lb];
}

void word_nearer(const char *word, const char *candidate, const char **best, unsigned *best_distance)
{
	unsigned d = distance(word, candidate);

	if ((!*best || d < *best_distance) && d <= 1 + strlen(word) / 3) {
		*best = candidate;
		*best_distance = d;
	}
}
