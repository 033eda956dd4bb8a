/* SPDX-License-Identifier: Apache-2.0 */
/* The attributes of a policy that is about to be set, as the platforms of the volume's KASes know them. */
#ifndef TDFS_POLICY_KEYS_H
#define TDFS_POLICY_KEYS_H

#include "volume_remote.h"

/** policy_keys_set() - are the attributes known, and for which KAS keys are files with them to be made?  That becomes the plan of the
 * policy, so that nobody is asked when files are made. Asks the KASes that new files are made for.  One that cannot be asked is a note; one
 * that does not know an attribute, maps it to a KAS that the volume does not trust, or to a key that it does not unwrap for, is an error.
 * @policy: base64; the volume is locked; @unasked: nobody is asked, the policy has no plan.  An exit code, reported */
int policy_keys_set(struct volume *v, const char *policy, bool unasked) MUST_CHECK;
/** policy_keys_tell() - to standard output: for whom files with the policy (base64) are made, if it has a plan */
void policy_keys_tell(const struct volume *v, const char *policy);

#endif
