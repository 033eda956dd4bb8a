/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scrypt in a process of its own.  Private to kas/.
 *
 * It takes up to 1 GiB and leaves copies of the passphrase in memory that is not ours to wipe. Both end with the child: a daemon that
 * opens a volume neither grows by it nor keeps them.
 */
#ifndef TDFS_KDF_H
#define TDFS_KDF_H

#include "aead.h"

/** kdf_scrypt() - as scrypt(), with SECRET_LEN bytes into @ret
 * Forks: to be called before threads start.  Blocks: about a second.
 * Return: 0; -ENOMEM not enough memory, or killed for it; -EINTR ended by a signal that was meant for us; -EINVAL; -EIO; -errno of fork()
 * or pipe().  fail() tells. */
int kdf_scrypt(struct part pass, struct part salt, unsigned log_n, unsigned r, unsigned p, struct secret *ret) MUST_CHECK;

#endif
