/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who may open what: a file's policy held against the claims of the caller's token, by the rules of one small JSON document.
 *
 * PROTOCOL.md ("Access rules") has its form.  What is not understood is refused: an attribute no rule speaks of, a value that its rule does
 * not list, a policy that is malformed.  Immutable after access_parse(), so thread-safe; never blocks.  Source: OpenTDF specification
 * (policy object, attribute rules).
 */
#ifndef TDFS_ACCESS_H
#define TDFS_ACCESS_H

#include <jansson.h>

#include "defs.h"

struct access; /* opaque */

#define ACCESS_POLICY_MAX ((size_t)64 << 10) /* of a policy's JSON text */
#define ACCESS_ATTRIBUTES_MAX 64             /* in one policy */
#define ACCESS_DISSEM_MAX 1024
#define ACCESS_REASON 160

/** access_parse() - @rules: the members "people", "unrestricted", "attributes" of the server's configuration; others are not looked at
 * 0; -EPROTO (fail() names the member and what is wrong); -ENOMEM */
int access_parse(const json_t *rules, struct access **ret) MUST_CHECK;
void access_free(struct access *a);

/** access_policy() - a policy object out of its text; 0; -EPROTO malformed; -ENOMEM.  Free with json_decref(). */
int access_policy(const char *text, size_t len, json_t **ret) MUST_CHECK;

/** access_check() - may the holder of @claims open files with this policy?
 * @policy: of access_policy(); @now: seconds, for "tdfs.expiry"
 * @ret_reason: always set: which rule decided, for the audit log
 * Return: 0 yes; -EACCES no */
int access_check(const struct access *a, const json_t *policy, const json_t *claims, int64_t now,
		 char ret_reason[static ACCESS_REASON]) MUST_CHECK;

/** access_rule() - how the values of an attribute count: 1 all of, 2 any of, 3 hierarchy (as OpenTDF numbers them); 0 no rule speaks of
 * this value
 * @fqn: https://NAMESPACE/attr/NAME/value/VALUE */
int access_rule(const struct access *a, const char *fqn) MUST_CHECK;

#endif
