/* SPDX-License-Identifier: Apache-2.0 */
#include "crc.h"

#include <libdeflate.h>
#include <zlib.h>

/* Shifting a CRC over n bytes multiplies it by x^(8n); x is primitive, so n counts modulo 2^32 - 1 only. */
#define SHIFT_PERIOD 0xffffffffu

/* CRC of what @crc is of, followed by @n zero bytes, without the pre- and post-conditioning: the linear part */
static uint32_t shift(uint32_t crc, uint64_t n)
{
	n %= SHIFT_PERIOD;
	if (!n || !crc)
		return crc;
#if ZLIB_VERNUM >= 0x12c0
	/* Nearly all joins are by the length of one whole segment: keep the last operator of each thread. */
	static _Thread_local struct {
		uint64_t n;
		uint32_t op;
	} last;

	if (last.n != n) {
		last.op = (uint32_t)crc32_combine_gen((z_off_t)n);
		last.n = n;
	}
	return (uint32_t)crc32_combine_op(crc, 0, last.op);
#else
	return (uint32_t)crc32_combine(crc, 0, (z_off_t)n);
#endif
}

uint32_t crc_bytes(uint32_t crc, const void *p, size_t len)
{
	return len ? libdeflate_crc32(crc, p, len) : crc;
}

uint32_t crc_join(uint32_t a, uint32_t b, uint64_t len_b)
{
	return shift(a, len_b) ^ b;
}

uint32_t crc_replace(uint32_t crc, uint32_t old, uint32_t new, uint64_t after)
{
	return crc ^ shift(old ^ new, after);
}

uint32_t crc_cut(uint32_t ab, uint32_t b, uint64_t len_b)
{
	return shift(ab ^ b, SHIFT_PERIOD - len_b % SHIFT_PERIOD);
}
