/* SPDX-License-Identifier: Apache-2.0 */
/* Buffers and bytes of a worker.  Private to convert_seal.c and convert_open.c. */
#ifndef TDFS_CONVERT_BYTES_H
#define TDFS_CONVERT_BYTES_H

#include "convert_file.h"

#define STRETCH ((size_t)1 << 20) /* plain bytes read and written at once */

/** room_get() - at least @need bytes at *@p; 0 or -ENOMEM */
int room_get(uint8_t **p, size_t *room, size_t need) MUST_CHECK;
/** plain_room() - the same for the plain buffer, without leaving the old one about */
int plain_room(struct sealer *s, size_t need) MUST_CHECK;
/** content_chain() - one link of the content hash; 0 or -EIO */
int content_chain(const struct sealer *s, uint8_t hash[static HASH_LEN], const void *p, size_t len) MUST_CHECK;
/** read_exact() - exactly @len bytes, and with @end none behind them (as far as one call sees; what comes later changes the file's times)
 */
int read_exact(int fd, uint8_t *buf, size_t len, uint64_t off, bool end) MUST_CHECK;
/** write_begin() - @len bytes at @off were written: let the disk begin with each 4 MiB that are full, not when it is synced */
void write_begin(int fd, uint64_t off, size_t len);
int write_all(int fd, const uint8_t *buf, size_t len, uint64_t off) MUST_CHECK;

#endif
