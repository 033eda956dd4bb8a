/* SPDX-License-Identifier: Apache-2.0 */
/* The rules as they are kept.  Private to access*.c. */
#ifndef TDFS_ACCESS_I_H
#define TDFS_ACCESS_I_H

#include "access.h"

#define ACCESS_FQN_MAX 1024
#define ACCESS_PEOPLE_MAX 8

enum rule { RULE_ANY_OF, RULE_ALL_OF, RULE_HIERARCHY };

struct value {
	char *name;     /* lower case */
	json_t *claims; /* strings in the claim that stand for it; NULL: its name, in any case */
};

struct definition {
	char *fqn; /* https://namespace/attr/name, lower case */
	enum rule rule;
	char *claim;
	struct value *values; /* hierarchy: the highest first */
	size_t n_values;
};

struct access {
	char *people[ACCESS_PEOPLE_MAX]; /* claims that say who somebody is in a dissemination list */
	size_t n_people;
	bool unrestricted;
	struct definition *defs;
	size_t n_defs;
};

#endif
