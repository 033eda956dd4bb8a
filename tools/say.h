/* SPDX-License-Identifier: Apache-2.0 */
/* What commands print: errors in one form, sizes and times for people, JSON for programs. */
#ifndef TDFS_SAY_H
#define TDFS_SAY_H

#include <jansson.h>
#include <time.h>

#include "config.h"
#include "report.h"

#define SAY_TEXT 64

/** complain() - "tdfs: PATH: cause; next step" on standard error
 * @path: control characters in it are escaped; NULL: no path
 * @err: -errno; the cause is fail_text() if there is one, else what the errno means.  fail_clear() before the call that failed.
 * @next: what to do now, a format, or NULL
 * Return: the exit code for @err */
int complain(int err, const char *path, const char *next, ...) PRINTF_LIKE(3, 4);

/** complain_file() - the same where a file could not be used: always EXIT_TDFS_FAILED (or _INTERRUPTED), whatever the system's EACCES means
 * elsewhere */
int complain_file(int err, const char *path, const char *next, ...) PRINTF_LIKE(3, 4);

/** cause_text() - fail_text() or what @err means; valid until the next fail() of this thread */
const char *cause_text(int err);

/** path_text() - text from elsewhere (a path, a name in a manifest) with control characters as \n, \t or \x1b; malloc'd, NULL if out of
 * memory */
char *path_text(const char *path) MUST_CHECK;

/** size_text() - "1.5 MiB" */
void size_text(uint64_t n, char ret[static SAY_TEXT]);
/** time_text() - "2026-05-01 10:11:12 UTC" */
void time_text(time_t t, char ret[static SAY_TEXT]);

/** json_say() - @root and a newline to standard output; takes the reference over.  Return: EXIT_TDFS_OK, or EXIT_TDFS_FAILED (reported) */
int json_say(json_t *root);
/** json_path() - a path as a JSON string; bytes that are not UTF-8 become U+FFFD (a second member "raw" is the caller's) */
json_t *json_path(const char *path) MUST_CHECK;
/** json_hex() - bytes as a hex string */
json_t *json_hex(const uint8_t *p, size_t len) MUST_CHECK;

/** output_flush() - end of a command that printed to standard output: a full disk or closed pipe is an error, not silence */
int output_flush(int code);

#endif
