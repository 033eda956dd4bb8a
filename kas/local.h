/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The back end behind kas.h that has the private keys itself; and wrapping, for which a public key will do.  Private to kas/.
 *
 * Thread-safe after local_key_new(); never blocks on disk or network.
 */
#ifndef TDFS_LOCAL_H
#define TDFS_LOCAL_H

#include "pubkey.h"

struct local_key;   /* a key, its name, and the ephemeral key that files written now are wrapped with */
struct local_cache; /* KEKs of ephemeral keys met lately */

/** local_key_new() - takes @key over, also on failure; @kid, @url: copied.  0; -EINVAL not UTF-8 or a key type that does not wrap; -ENOMEM
 */
int local_key_new(const char *kid, const char *url, EVP_PKEY *key, struct local_key **ret) MUST_CHECK;
void local_key_free(struct local_key *k);
const char *local_key_id(const struct local_key *k);
const char *local_key_url(const struct local_key *k);
/** local_key_pkey() - the key itself, borrowed */
EVP_PKEY *local_key_pkey(const struct local_key *k);

enum local_fit { LOCAL_NO, LOCAL_MAYBE, LOCAL_YES }; /* MAYBE: one of the two has no kid, so only trying tells */
enum local_fit local_fits(const struct local_key *k, const struct key_access *ka);

struct wrap_made { /* an object as it reads when it is parsed */
	uint8_t wrapped[WRAPPED_MAX];
	size_t wrapped_len;
	char binding[89];
	char *ephemeral_pem; /* malloc'd; NULL without one */
};
struct wrap_frame { /* what stands around an object in its array; sid: with its quotes, NULL: none */
	const char *before, *sid, *after;
	struct wrap_made *made; /* filled if not NULL */
};
/** local_wrap() - one key access object; the public half of the key suffices
 * @ret: malloc'd: before, the object, after */
int local_wrap(struct local_key *k, const struct secret *share, const char *policy, const struct wrap_frame *f, char **ret) MUST_CHECK;

/** local_unwrap() - one share; 0; -EBADMSG it does not unwrap with this key; -EPROTO malformed; -EIO; -ENOMEM */
int local_unwrap(struct local_key *k, struct local_cache *cache, const struct key_access *ka, struct secret **ret) MUST_CHECK;

struct local_cache *local_cache_new(void) MUST_CHECK;
void local_cache_free(struct local_cache *c);

#endif
