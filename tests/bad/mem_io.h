/* SPDX-License-Identifier: Apache-2.0 */
/* A file in memory behind struct io: reading only, counts its calls. */
#ifndef TEST_MEM_IO_H
#define TEST_MEM_IO_H

#include "io.h"

struct mem {
	uint8_t *p;
	size_t len;
	unsigned reads;
	unsigned fail_at; /* this read fails with EIO; 0: none */
};

/** mem_io() - table over @m, which must outlive it; any descriptor means this file */
struct io mem_io(struct mem *m);

#endif
