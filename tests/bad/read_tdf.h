/* SPDX-License-Identifier: Apache-2.0 */
/* Reads what make_tdf.h made, the whole way: open, unlock with test_dek, read. */
#ifndef TEST_READ_TDF_H
#define TEST_READ_TDF_H

#include "container.h"
#include "make_tdf.h"

extern const struct container_keys test_container_keys; /* of the volume that native_file() belongs to */

/** open_mem() - open and unlock; the caller frees */
int open_mem(struct mem *m, const struct container_keys *k, struct container **ret) MUST_CHECK;
/** read_all() - every byte through container_read(): 0 if all are right, -EIO if one is not; aborts if a failed read leaves something in
 * the buffer */
int read_all(struct mem *m, const struct container *c, uint64_t size) MUST_CHECK;
/** read_mem() - both */
int read_mem(struct mem *m, const struct container_keys *k, uint64_t size) MUST_CHECK;

#endif
