/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The remote KASes of a volume: member "remotes" of volume.json, which an older tdfs refuses.
 *
 *   "remotes":{"embedded":SPLIT,"list":[{"url","split","issuer","audience","client_id","secret_file","token_file","session_file","ca_file","spki_pin","allow","key":{"algorithm","kid","pem"}},...]}
 *
 * Each is a trust set: a key access URL of another origin is never asked, and no token goes elsewhere.  The public key is pinned here,
 * under the volume's MAC: new files are made for it without asking anybody, and it changes only when somebody says so.  Splits: of each
 * number from 0 on one of those that carry it is needed; -1: it opens files, new ones are not made for it. Secrets are never in here, only
 * paths: absolute, or "~/..." below $HOME; not inside the store.
 */
#ifndef TDFS_VOLUME_REMOTE_H
#define TDFS_VOLUME_REMOTE_H

#include <stdio.h>

#include "remote.h"
#include "volume.h"

#define VOLUME_REMOTES_MAX 8
#define VOLUME_REMOTE_KID_MAX 255

struct volume_remote {
	/* as struct remote_config; NULL where not given */
	char *url, *issuer, *audience, *client_id, *secret_file, *token_file, *session_file, *ca_file, *spki_pin, *allow;
	char *algorithm, *kid, *pem; /* the pinned public key, all or none of them */
	int split;
	struct volume_remote_use *use; /* once it is in v->kas; borrowed */
};

/* --- with a volume that is open --- */

/** volume_remote_find() - by its URL, exactly; NULL: there is none */
struct volume_remote *volume_remote_find(const struct volume *v, const char *url);
/** volume_remote_at() - the one whose origin @url is of: who would be asked for a key access object with that URL; NULL: nobody */
struct volume_remote *volume_remote_at(const struct volume *v, const char *url);
/** volume_remote_new() - a struct remote as configured here; 0, -errno as remote_new().  fail() tells */
int volume_remote_new(const struct volume_remote *r, struct remote **ret) MUST_CHECK;
/** volume_remote_stats() - of the one that this process uses; false: it was not needed yet */
bool volume_remote_stats(const struct volume_remote *r, struct remote_stats *ret);
/** volume_remotes_check() - make all of them ready, without network; 0 or the first error.  fail() tells.  Files that need no KAS can be
 * used all the same. */
int volume_remotes_check(struct volume *v) MUST_CHECK;

/* Changing them.  The caller holds volume_lock(): a mounted daemon would go on with the old ones.  v->kas does not change: open the volume
 * again to use them.
 * @r is copied.  -EEXIST, -ENOENT, -ENOSPC, -EINVAL a path that is not absolute or lies in the store, -EBADMSG both copies damaged, -errno.
 * fail() tells. */
int volume_remote_add(struct volume *v, const struct volume_remote *r) MUST_CHECK;
/** volume_remote_remove() - -EBUSY new files are made for it: volume_remotes_wrap() first */
int volume_remote_remove(struct volume *v, const char *url) MUST_CHECK;
int volume_remote_pin(struct volume *v, const char *url, const char *algorithm, const char *kid, const char *pem) MUST_CHECK;
/** volume_remotes_wrap() - for whom new files are made from now on
 * @splits: of each text one is needed: URLs, or "embedded", with commas between.  -EINVAL one twice, none, or one without a pinned key;
 * -ENOENT; -ENOSPC together with a plan there are too many keys */
int volume_remotes_wrap(struct volume *v, const char *const *splits, size_t n) MUST_CHECK;

/* Plans: member "plans" of volume.json, which an older tdfs refuses: [{"policy":SHA-256 of its base64 text in hex,"keys":[{"url","split","key":{...}},...]},...].  A file with that very
 * policy is made for these keys instead of those that volume_remotes_wrap() says: now, and whenever it gets a fresh key, wherever it lies; so a plan stays when its policy is set no
 * longer. */
#define VOLUME_PLANS_MAX 256
struct volume_plan {
	uint8_t policy[32];
	struct volume_remote *keys; /* url, split and the three of the key; in the order of the splits */
	size_t n;
};

/** volume_plan_of() - NULL: files with that policy (base64) are made as all others */
const struct volume_plan *volume_plan_of(const struct volume *v, const char *policy);
/** volume_plan_keeps() - does this split of volume_remotes_wrap() stand beside the plan?  Of several splits each does whose KASes do not make up, or include, a share of the plan:
 * what every file needs is not dropped for attributes.  An only split is replaced by the plan. */
bool volume_plan_keeps(const struct volume *v, const struct volume_plan *p, int split);
/** volume_plan_set() - on disk and in v->kas; to be called before the policy itself is set
 * @policy: base64; @keys are copied, their splits count from 0 up; none: the plan it has is dropped.  -EINVAL keys not like that; -ENOKEY a key's KAS is none of the volume's;
 * -ENOSPC more plans, or keys of a file, than there may be; -errno.  fail() tells */
int volume_plan_set(struct volume *v, const char *policy, const struct volume_remote *keys, size_t n) MUST_CHECK;

/** volume_plan_use() - the same in v->kas alone: of files that this process makes; set-up only, errors as volume_plan_set() */
int volume_plan_use(struct volume *v, const char *policy, const struct volume_remote *keys, size_t n) MUST_CHECK;

/* --- for volume*.c --- */

struct json_t;
/** volume_plans_parse() - 0, -EPROTO, -ENOTSUP, -ENOMEM; volume_plans_put() - the member with a comma before it, or nothing; 0, -EINVAL; volume_plans_load() - into v->kas; 0, -EPROTO,
 * -ENOMEM; volume_plans_drop() - all that have a key of the KAS at @url, in memory; -EBUSY a policy that is set has one */
int volume_plans_parse(struct json_t *list, struct volume *v) MUST_CHECK;
int volume_plans_put(const struct volume *v, FILE *f) MUST_CHECK;
int volume_plans_load(struct volume *v) MUST_CHECK;
int volume_plans_drop(struct volume *v, const char *url) MUST_CHECK;
/** volume_plans_fit() - with the splits as they are; 0, -ENOSPC a file of one would be made for more keys than it may have */
int volume_plans_fit(const struct volume *v) MUST_CHECK;
void volume_plans_free(struct volume_plan *p, size_t n);
/** volume_remote_entry_parse() - one member of a list; 0, -EPROTO, -ENOTSUP, -ENOMEM; volume_remote_entry_json() - the same back; NULL: no memory, or not UTF-8; volume_remote_writer() -
 * files are made for it, as kas_add_writer() */
int volume_remote_entry_parse(struct json_t *o, struct volume_remote *r) MUST_CHECK;
struct json_t *volume_remote_entry_json(const struct volume_remote *r) MUST_CHECK;
int volume_remote_writer(struct volume *v, const struct volume_remote *r) MUST_CHECK;

/** volume_remote_first() - of a volume that is being made: new files are for it alone; 0, -EINVAL, -ENOMEM */
int volume_remote_first(struct volume *v, const struct volume_remote *r) MUST_CHECK;
struct json_t;
/** volume_remotes_parse() - @o: the member or NULL; 0, -EPROTO, -ENOTSUP, -ENOMEM */
int volume_remotes_parse(struct json_t *o, struct volume *v) MUST_CHECK;
/** volume_remote_parse(), volume_remote_json() - one without split and key: whom to trust; 0, -EPROTO, -ENOTSUP, -ENOMEM (then volume_remote_clear() it);
 * NULL: not UTF-8 or out of memory */
int volume_remote_parse(struct json_t *o, struct volume_remote *r) MUST_CHECK;
struct json_t *volume_remote_json(const struct volume_remote *r) MUST_CHECK;
/** volume_remotes_put() - the member with a comma before it, or nothing; 0 or -EINVAL not UTF-8 */
int volume_remotes_put(const struct volume *v, FILE *f) MUST_CHECK;
/** volume_remotes_load() - add them, and the pinned keys, to v->kas; 0, -EPROTO, -ENOMEM */
int volume_remotes_load(struct volume *v) MUST_CHECK;
void volume_remotes_free(struct volume_remote *r, size_t n);
/** volume_remote_check() - nothing that decides about keys is read from where somebody with write access to the data could put it; 0,
 * -EINVAL */
int volume_remote_check(const struct volume *v, const struct volume_remote *r) MUST_CHECK;
/** volume_remotes_valid() - splits count from 0 without a gap, at least one; no KAS twice; 0, -EPROTO */
int volume_remotes_valid(const struct volume *v) MUST_CHECK;
/** volume_remote_copy() - all but its use; 0 or -ENOMEM */
int volume_remote_copy(const struct volume_remote *r, struct volume_remote *ret) MUST_CHECK;
/** volume_remote_clear() - free what it holds */
void volume_remote_clear(struct volume_remote *r);
void volume_remote_uses_free(struct volume_remote_use *u);

#endif
