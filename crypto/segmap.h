/* SPDX-License-Identifier: Apache-2.0 */
/* Geometry of a native file (FORMAT.md section 1).  Pure arithmetic. */
#ifndef TDFS_SEGMAP_H
#define TDFS_SEGMAP_H

#include "aead.h"

#define SECTOR 512
#define SEG_MIN 16384u
#define SEG_MAX 4194276u
#define SEG_DEFAULT 32768u
#define PLAIN_MAX ((uint64_t)1 << 56) /* far beyond any disk; keeps all sums in 64 bits */

static inline uint64_t seg_count(uint64_t size, uint32_t s)
{
	return size ? (size - 1) / s + 1 : 1;
}
/* plain bytes of segment @i of a file of @size */
static inline uint32_t seg_plain(uint64_t size, uint32_t s, uint64_t i)
{
	uint64_t rest = size - i * s;

	return rest < s ? (uint32_t)rest : s;
}
/* file offset where segment @i is stored */
static inline uint64_t seg_off(uint32_t s, uint64_t i)
{
	return SECTOR + i * ((uint64_t)s + AEAD_OVERHEAD);
}
static inline uint64_t payload_len(uint64_t size, uint32_t s)
{
	return size + AEAD_OVERHEAD * seg_count(size, s);
}
static inline uint64_t tail_offset(uint64_t size, uint32_t s)
{
	return SECTOR + payload_len(size, s);
}

#endif
