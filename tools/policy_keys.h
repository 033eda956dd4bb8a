/* SPDX-License-Identifier: Apache-2.0 */
/* The attributes of a policy that is about to be set, as the platforms of the volume's KASes know them. */
#ifndef TDFS_POLICY_KEYS_H
#define TDFS_POLICY_KEYS_H

#include "volume_remote.h"

#define UNCHECKED_HELP "ask no KAS for the attributes, nor for keys of theirs"

enum policy_keys_how {
	POLICY_KEYS_ASK,
	POLICY_KEYS_KEEP, /* this very policy is set already: if nobody can be asked it stays as it is */
	POLICY_KEYS_UNASKED,
};

/** policy_keys_set() - are the attributes known, and for which KAS keys are files with them to be made?  That becomes the plan of the
 * policy, so that nobody is asked when files are made.  Asks the KASes that new files are made for.  An error: one of them does not know an
 * attribute, maps it to a KAS that the volume does not trust or to a key that it does not unwrap for; none of them can be asked (one that
 * cannot beside one that answers is a note).
 * @policy: base64; the volume is locked; POLICY_KEYS_UNASKED: the policy has no plan.  An exit code, reported */
int policy_keys_set(struct volume *v, const char *policy, enum policy_keys_how how) MUST_CHECK;
/** policy_keys_use() - the same for files that this process makes with the policy; the volume is not changed and need not be locked */
int policy_keys_use(struct volume *v, const char *policy) MUST_CHECK;
/** policy_keys_tell() - to standard output: for whom files with the policy (base64) are made, if it has a plan */
void policy_keys_tell(const struct volume *v, const char *policy);

#endif
