/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The audit log of the KAS: one JSON object a line, appended with one write(2), never a key or a token in it.
 *
 * A decision is on record before its answer is given: if the log cannot be written, no key is given out.  Thread-safe.
 */
#ifndef TDFS_AUDIT_H
#define TDFS_AUDIT_H

#include "buffer.h"

struct audit; /* opaque */

#define AUDIT_TEXT 256                /* bytes of one value from outside */
#define AUDIT_BATCH ((size_t)8 << 20) /* bytes of the lines of one request */

/** audit_open() - @path: appended to, made with mode 0600; "-": standard output.  0; -errno, fail() tells */
int audit_open(const char *path, struct audit **ret) MUST_CHECK;
void audit_free(struct audit *a);
/** audit_reopen() - after the file was renamed (logrotate); the old one is kept if that fails.  0, -errno */
int audit_reopen(struct audit *a) MUST_CHECK;

/** audit_begin() - "{"time":...,"event":@event": put ,"name":value behind it, then audit_end() */
void audit_begin(struct buffer *b, const char *event);
/** audit_member() - ,"name":"value"; @value is from outside and cut at AUDIT_TEXT; NULL: nothing is put */
void audit_member(struct buffer *b, const char *name, const char *value);
void audit_end(struct buffer *b);
/** audit_write() - all lines in @b; 0; -ENOMEM or -EFBIG of the buffer; -EIO, -ENOSPC and the like (reported once a minute) */
int audit_write(struct audit *a, const struct buffer *b) MUST_CHECK;

#endif
