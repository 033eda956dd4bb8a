/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 0.manifest.json of any client -> struct manifest.  No crypto: values are only decoded and bounded.
 *
 * Accepts OpenTDF 4.2.x (no schemaVersion: hashes are base64 of hex) and 4.3.x (raw), told apart by the decoded length of a hash as well; applies the size defaults;
 * exact enums only: root HS256, segments GMAC or HS256, AES-256-GCM, isEncrypted true, "reference", "zip" (zipstream taken too), "split".
 * Refuses duplicate members, depth over 32, more than 16 key access objects, numbers that are not exact non-negative integers, sums that overflow.
 * Fuzzed: tests/fuzz/manifest.c.
 */
#ifndef TDFS_MANIFEST_H
#define TDFS_MANIFEST_H

#include "aead.h"

enum wrap_type { WRAP_RSA, WRAP_EC, WRAP_OTHER };

struct key_access {
	enum wrap_type type;
	char *type_name; /* as written */
	char *url, *protocol, *kid, *sid, *ephemeral_pem; /* "" where absent */
	uint8_t *wrapped; /* never NULL */
	size_t wrapped_len;
	char *binding; /* policyBinding.hash as written (object or bare string) */
};

struct manifest {
	bool hex;	       /* 4.2.x: the root signature is over hex strings */
	bool seg_hs256;	       /* segment hash is HMAC over the stored segment, not its tag */
	char *schema_version;  /* "" if absent */
	char *mime_type;       /* "" if absent */
	char *policy;	       /* base64 as it stands */
	char *key_access_text; /* the keyAccess array as it stands, from [ to ] */
	struct key_access *ka;
	size_t n_ka;
	uint8_t root_sig[MAC_LEN];
	size_t hash_len; /* 16 or 32: bytes of one decoded hash */
	uint8_t *hashes; /* n_segs * hash_len */
	uint64_t n_segs;
	uint32_t seg_default;
	/* plain start of each segment, n_segs + 1 entries; NULL when all are seg_default except a shorter last one */
	uint64_t *plain_start;
	uint64_t size; /* plain, all segments */
};

/** manifest_parse() - @text need not end in NUL
 * @native_only: take nothing but the native layout of FORMAT.md section 4 (fixed stride; the caller then tries again without)
 * Return: 0; -EPROTO (fail() says which member); -ENOTSUP something valid that we do not do; -ENOMEM.  Free with manifest_free(). */
int manifest_parse(const char *text, size_t len, bool native_only, struct manifest **ret) MUST_CHECK;
/** manifest_of_keys() - a manifest that holds nothing but key access objects and a policy: enough to unwrap a data key once more
 * @key_access: the array's text; 0, -EPROTO, -ENOMEM */
int manifest_of_keys(const char *key_access, const char *policy, struct manifest **ret) MUST_CHECK;
void manifest_free(struct manifest *m);
/** manifest_keys_free() - the key access objects alone */
void manifest_keys_free(struct manifest *m);

static inline void manifest_cleanup(struct manifest **m)
{
	manifest_free(*m);
}

/** manifest_root() - check the root signature over all segment hashes; 0, -EBADMSG, -EIO */
int manifest_root(const struct manifest *m, const struct secret *dek) MUST_CHECK;
/** manifest_binding() - check one key access object's policy binding under its split key; takes hex and raw forms; 0, -EBADMSG, -EIO */
int manifest_binding(const struct manifest *m, const struct key_access *ka, const struct secret *share) MUST_CHECK;
/** policy_binding() - base64(hex(HMAC(share, policy))): 88 characters and a NUL */
int policy_binding(const char *policy, const struct secret *share, char ret[static 89]) MUST_CHECK;

#endif
