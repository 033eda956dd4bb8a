/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looking at JSON text without building a tree, and the key access objects.  Pure; thread-safe.  For manifest*.c only.
 *
 * The scanner is lenient about syntax (jansson judges that afterwards) but never leaves the text and never recurses.
 */
#ifndef TDFS_MANIFEST_JSON_H
#define TDFS_MANIFEST_JSON_H

#include <jansson.h>

#include "manifest.h"

#define JSON_DEPTH_MAX 32
#define JSON_VALUES_MAX 65536 /* in one tree: a value of two bytes takes a hundred in memory */

/** json_find() - the text of the value of a member of an object
 * @object: text of the object, white space around it allowed; keys are compared as they stand, without undoing escapes
 * Return: 0; -ENOENT no such member; -EPROTO not an object */
int json_find(struct part object, const char *key, struct part *ret) MUST_CHECK;

/** json_next() - walk an array: @pos starts at 0; 1 and the next element's text, 0 at the end, -EPROTO not an array */
int json_next(struct part array, size_t *pos, struct part *ret) MUST_CHECK;

/** json_load() - the tree of a text: depth and number of values bounded first, duplicates refused; NULL on failure (fail() names @what) */
json_t *json_load(struct part text, const char *what) MUST_CHECK;

/** printable() - the start of a text from a file, fit to stand in a message */
#define PRINTABLE_LEN 41
const char *printable(const char *text, char buf[static PRINTABLE_LEN]);

/** json_member() - a member, borrowed; NULL where it is absent or null */
const json_t *json_member(const json_t *obj, const char *key);
/** json_text() - copy of a string member of at most @max bytes; "" if it is absent or null and not @needed; 0, -EPROTO (fail() names it),
 * -ENOMEM */
int json_text(const json_t *obj, const char *key, bool needed, size_t max, char **ret) MUST_CHECK;

/** manifest_key_access() - fill m->ka and m->n_ka from the keyAccess array; 0, -EPROTO, -ENOMEM */
int manifest_key_access(struct part array, struct manifest *m) MUST_CHECK;

#endif
