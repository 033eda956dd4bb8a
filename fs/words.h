/* SPDX-License-Identifier: Apache-2.0 */
/* What people write in options: numbers, sizes, times; and what they meant by a word nobody knows. */
#ifndef TDFS_WORDS_H
#define TDFS_WORDS_H

#include "defs.h"

/** number_parse() - decimal digits only; 0 or -EINVAL */
int number_parse(const char *text, uint64_t *ret) MUST_CHECK;
/** size_parse() - "64K", "1M", "65536"; 0 or -EINVAL */
int size_parse(const char *text, uint64_t *ret) MUST_CHECK;
/** seconds_parse() - "90", "90s", "10m", "2h", "1d", in seconds; 0 or -EINVAL */
int seconds_parse(const char *text, uint64_t *ret) MUST_CHECK;

/** word_nearer() - for "did you mean": keep the nearer of *best (NULL: none yet) and @candidate; what is further from @word than a third of
 * its length is not what was meant */
void word_nearer(const char *word, const char *candidate, const char **best, unsigned *best_distance);

#endif
