/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The size of another client's file for `ls`, at a cost that does not depend on what the file claims: a manifest of 64 MiB may take 64 KiB
 * in the store and half a second to parse, and there may be 10,000 names for it.
 */
#ifndef TDFS_PEEK_H
#define TDFS_PEEK_H

#include "io.h"

/** peek_size() - the plain size of a TDF that is not ours, from its zip directory and the first 64 KiB of its manifest
 * Exact where the manifest is at most 4 KiB, or all segments but the last are of the default size, as every known client makes them; else
 * wrong.  The file is believed to be sound: only container_open() tells.
 * Blocks: disk.  Thread-safe.  Return: 0; -EPROTO, -ENOEXEC no TDF or nothing found in it; -ENOMEM, -errno */
int peek_size(const struct io *io, int fd, uint64_t file_len, uint64_t *ret) MUST_CHECK;

#endif
