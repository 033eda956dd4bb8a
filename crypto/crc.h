/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CRC-32 (zip) of a payload kept up to date while its segments change.  Pure; thread-safe.
 *
 * CRC-32 is linear: changing a stretch changes the whole by the difference of the stretches' CRCs shifted over what follows.
 */
#ifndef TDFS_CRC_H
#define TDFS_CRC_H

#include "defs.h"

/** crc_bytes() - CRC-32 of @len bytes, continuing @crc (0 to start) */
uint32_t crc_bytes(uint32_t crc, const void *p, size_t len);
/** crc_join() - CRC of A | B from both and the length of B */
uint32_t crc_join(uint32_t a, uint32_t b, uint64_t len_b);
/** crc_replace() - @crc of a whole in which a stretch with CRC @old was replaced by one of the same length with CRC @new; @after bytes follow it */
uint32_t crc_replace(uint32_t crc, uint32_t old, uint32_t new, uint64_t after);
/** crc_cut() - CRC of A from that of A | B and that of B (the inverse of crc_join: the CRC-32 polynomial is primitive, so shifting by 2^32 - 1 - n undoes n) */
uint32_t crc_cut(uint32_t ab, uint32_t b, uint64_t len_b);

#endif
