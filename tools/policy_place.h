/* SPDX-License-Identifier: Apache-2.0 */
/* What `tdfs policy set` is pointed at. */
#ifndef TDFS_POLICY_PLACE_H
#define TDFS_POLICY_PLACE_H

#include <jansson.h>

#include "volume.h"

struct policy_place {
	char *store, *path; /* absolute; from there, as stored: "" the store itself */
	bool file;
};

/** policy_place_find() - a directory of a store or a file in it, x or x.tdf; an exit code, reported: nowhere, or in a mount
 * (EXIT_TDFS_BUSY) */
int policy_place_find(const char *arg, struct policy_place *ret) MUST_CHECK;
void policy_place_free(struct policy_place *p);

/** policy_place_alone() - is the policy that this file gets its own?  Of a file with several names the first that has one counts
 * (CONVERT.md, rewrap --rules).  An exit code, reported: another name's would count (EXIT_TDFS_FAILED) */
int policy_place_alone(const struct volume *v, const struct policy_place *at) MUST_CHECK;

/** policy_says_same() - is @text (JSON) but for its uuid what was set for @path already?  Then a run that was cut short goes on, where
 * another uuid would begin it anew */
bool policy_says_same(const struct volume *v, const char *path, const char *text);

/** policy_parse() - the base64 of a manifest or a volume; NULL: it is none */
json_t *policy_parse(const char *b64) MUST_CHECK;

#endif
