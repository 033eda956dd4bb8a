/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One sink for messages, and the cause of the last failure.
 *
 * A function deep down that knows why something failed says so once with fail() and returns the error; whoever knows the file's name
 * prints it with report().  Never given key bytes, passphrases or plaintext.
 */
#ifndef TDFS_REPORT_H
#define TDFS_REPORT_H

#include "defs.h"

enum report_level { REPORT_ERROR, REPORT_WARN, REPORT_NOTE, REPORT_DEBUG };

/** fail() - remember the cause of a failure for this thread
 * @err: -errno
 * Return: @err.  Thread-safe (thread-local text, at most 511 bytes); does not touch errno. */
int fail(int err, const char *fmt, ...) PRINTF_LIKE(2, 3);

/** fail_text() - the cause given with the last fail() of this thread, "" if none; valid until the next fail() or fail_clear() */
const char *fail_text(void);
void fail_clear(void);

/** report() - print "tdfs: <text>" and a newline to standard error, or hand the line to the sink set with report_to()
 * Thread-safe; one write per line. */
void report(enum report_level level, const char *fmt, ...) PRINTF_LIKE(2, 3);

/** text_step() - how many bytes the character at @s has (a byte that begins no UTF-8: 1), and may it move the cursor: C0, DEL, C1 (U+0080 to
 * U+009F, or one such byte by itself)?  @s is not empty */
unsigned text_step(const char *s, bool *ret_control);

/** report_limit() - print only messages up to this level (default REPORT_NOTE) */
void report_limit(enum report_level most);

/** report_to() - send lines elsewhere (the daemon: syslog or journal); NULL = standard error.  Call before threads start. */
void report_to(void (*sink)(enum report_level level, const char *line));

#endif
