/* SPDX-License-Identifier: Apache-2.0 */
/* A policy as OpenTDF has it, from what a person says. */
#ifndef TDFS_POLICY_MAKE_H
#define TDFS_POLICY_MAKE_H

#include <jansson.h>

#include "defs.h"

#define POLICY_EXPIRY                                                                                                                      \
	"tdfs.expiry" /* 2027-01-01T00:00:00Z; readers that do not know it go on opening the file, a KAS that does refuses it from then on \
		       */
#define POLICY_OWNER "tdfs.owner"

struct policy_words {              /* NULL: not said */
	char *attributes, *dissem; /* with commas between */
	const char *owner, *expiry;
};

/** policy_make() - check every word and build the policy, with a uuid of its own
 * Attributes become lower case, as they are compared.  0; -EINVAL no attribute FQN, nobody's name, no day or one that is over, more than
 * 20; -EIO, -ENOMEM.  fail() tells. Free with json_decref(). */
int policy_make(const struct policy_words *w, json_t **ret) MUST_CHECK;
/** policy_make_base64() - the same as manifests have it: the JSON text in base64, malloc'd */
int policy_make_base64(const struct policy_words *w, char **ret) MUST_CHECK;

#endif
