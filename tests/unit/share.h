/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sanitizer takes three times as long: of what the plain build does wholly in the same run, its default run does every third step,
 * another third each time.  tests/run long does all of them.
 */
#ifndef TDFS_TEST_SHARE_H
#define TDFS_TEST_SHARE_H

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static inline unsigned share_step(void)
{
#ifdef __SANITIZE_ADDRESS__
	const char *budget = getenv("TDFS_BUDGET");

	return budget && !strcmp(budget, "short") ? 3 : 1;
#else
	return 1;
#endif
}

/* below share_step() */
static inline unsigned share_first(void)
{
	return (unsigned)getpid() % share_step();
}

#endif
