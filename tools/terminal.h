/* SPDX-License-Identifier: Apache-2.0 */
/* Asking for a secret on the controlling terminal. */
#ifndef TDFS_TERMINAL_H
#define TDFS_TERMINAL_H

#include "defs.h"

/** terminal_ask() - print @prompt on /dev/tty and read a line without echo
 * A signal that ends or stops the process meanwhile first gets the terminal restored.  Call before threads exist.
 * @ret_line: malloc'd, without newline, not NUL-ended; wipe before free
 * Return: 0; -EINVAL nothing typed; -EINTR interrupted or end of input; -ENXIO no terminal; -errno.  fail() tells. */
int terminal_ask(const char *prompt, uint8_t **ret_line, size_t *ret_len) MUST_CHECK;

#endif
