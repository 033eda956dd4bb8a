/* SPDX-License-Identifier: Apache-2.0 */
/* Hex to bytes; a test's own, so that it does not lean on what it might test.  After cmocka.h. */
#ifndef TDFS_TEST_HEX_H
#define TDFS_TEST_HEX_H

#include <stdio.h>
#include <string.h>

static inline size_t unhex(const char *hex, uint8_t *out)
{
	size_t n = strlen(hex) / 2;

	for (size_t i = 0; i < n; i++) {
		unsigned v;

		assert_int_equal(sscanf(hex + 2 * i, "%2x", &v), 1);
		out[i] = (uint8_t)v;
	}
	return n;
}

#endif
