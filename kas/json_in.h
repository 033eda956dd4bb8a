/* SPDX-License-Identifier: Apache-2.0 */
/* JSON from people who are not trusted: a node of jansson's takes up to 150 bytes of memory for 2 bytes of text. */
#ifndef TDFS_JSON_IN_H
#define TDFS_JSON_IN_H

#include <jansson.h>

#include "defs.h"

#define JSON_CALL_NODES 100000u /* 1000 files with all their members are 30,000 */
#define JSON_PART_NODES 10000u  /* a policy, a token and what it carries */

/** json_in() - parse an object or array; no name twice
 * @most: values that it may have in all.  Return: a new reference; NULL: malformed, more than that, or no memory */
json_t *json_in(const char *text, size_t len, size_t most) MUST_CHECK;

#endif
