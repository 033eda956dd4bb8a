/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small secrets in the kernel's keyring of this user (keyctl(2), @u): never on a disk, gone after a restart, for processes of this user
 * alone. Thread-safe; never blocks.
 */
#ifndef TDFS_KEYRING_H
#define TDFS_KEYRING_H

#include "defs.h"

#define KEYRING_MAX ((size_t)32767) /* of a "user" key */

/** keyring_put() - add @name, or put @p in the place of what it holds; 0; -ENOTSUP this kernel (or this container) has no keyring; -EDQUOT;
 * -errno.  fail() tells */
int keyring_put(const char *name, const void *p, size_t len) MUST_CHECK;
/** keyring_get() - as text, NUL added, malloc'd: wipe; 0; -ENOENT it is not there (any more); -ENOTSUP, -ENOMEM, -errno.  fail() tells */
int keyring_get(const char *name, char **ret) MUST_CHECK;
/** keyring_remove() - 0, also if it is not there; -errno */
int keyring_remove(const char *name) MUST_CHECK;

#endif
