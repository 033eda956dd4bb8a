/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where data keys come from: a set of KAS keys that this process may use, and the two things done with them.
 *
 * Back ends are chosen by key access URL and kid: local private keys (the embedded KAS of a volume, --kas-key), which are tried first, and KASes elsewhere, which are asked only if a key access
 * object's URL is of their origin.  What they give is kept for a while (keycache.h).  Thread-safe after the set-up calls.
 */
#ifndef TDFS_KAS_H
#define TDFS_KAS_H

#include "pubkey.h"

struct kas; /* opaque */

#define KAS_URL_DEFAULT "https://localhost:8443"
#define KAS_TOTAL_MS 10000u /* for keys of files that somebody waits for */

/** kas_new() - no keys yet; NULL if out of memory.  Free with kas_free(). */
struct kas *kas_new(void) MUST_CHECK;
void kas_free(struct kas *k);

/** kas_add_local() - a private key that unwraps
 * @kid: "" = tried for any kid; @url: written into key access objects made with this key, NULL = KAS_URL_DEFAULT.  What a key unwraps depends on kid and type alone: the URL in
 * a file may be outdated or odd.  Takes @key over, also on failure.  Set-up only (not thread-safe).  0, -EINVAL, -ENOMEM */
int kas_add_local(struct kas *k, const char *kid, const char *url, EVP_PKEY *key) MUST_CHECK;

/** kas_add_key_file() - --kas-key: PEM private key, or the JSON list [{"kid","alg","privateKey","cert"}] of OpenTDF test suites
 * Keys in a list that are neither RSA nor EC are skipped with a note.  Set-up only.  0; -EPROTO neither; -ENOTSUP no usable key in it; -errno.  fail() says what. */
int kas_add_key_file(struct kas *k, const char *path) MUST_CHECK;

/** kas_write_key() - which of the local keys new files are wrapped for; the first one added by default.  -ENOKEY no such kid */
int kas_write_key(struct kas *k, const char *kid) MUST_CHECK;

/* A KAS elsewhere, as this file sees it: kas/remote.h, or what a test makes up. */
struct remote_item;
struct kas_remote {
	void *ctx;
	/* does it serve this key access URL?  Decided before any network */
	bool (*serves)(void *ctx, const char *url);
	/* blocks for at most @ms, and for no longer than it would by itself; each item has its own result: 0, -EACCES, -EBADMSG, or an outage.  A failure of the call as a whole is one
	 * of every item. */
	int (*rewrap)(void *ctx, struct remote_item *items, size_t n, unsigned ms);
};
/** kas_add_remote() - @r is copied, its ctx borrowed until kas_free().  Set-up only.  0, -ENOSPC more than 16, -ENOMEM */
int kas_add_remote(struct kas *k, const struct kas_remote *r) MUST_CHECK;

/** kas_add_writer() - a key that every new file gets a key access object for
 * @key: a public key, taken over, also on failure; NULL: the local key of kas_write_key(), and @kid and @url do not count
 * @split: 0 up; writers of one split are alternatives, of each split one is needed.  They are to be added without gaps: 0 first.
 * Without any writer new files are made for the local key.  Set-up only.  0, -EINVAL, -ENOSPC more than 16, -ENOMEM */
int kas_add_writer(struct kas *k, const char *kid, const char *url, EVP_PKEY *key, unsigned split) MUST_CHECK;

/** kas_plan() - what kas_add_writer() is told from now on is for files of one policy alone
 * @policy: SHA-256 of its base64 text; those it had are dropped.  NULL: again for all policies that have none of their own.  Set-up only.  0, -ENOMEM */
int kas_plan(struct kas *k, const uint8_t *policy) MUST_CHECK;

/** kas_times() - seconds: how long a key from a remote KAS is used (default 300), and how much longer while that KAS cannot be asked (0).  Set-up only. */
void kas_times(struct kas *k, unsigned ttl, unsigned grace);
/** kas_is_remote() - is there a KAS elsewhere that may have to be asked? */
bool kas_is_remote(const struct kas *k);
/** kas_wrap_until() - for how long a file just made may be read without asking: CLOCK_MONOTONIC ns, 0: for ever, a local key opens it */
uint64_t kas_wrap_until(const struct kas *k, const char *policy);

/** kas_wrap() - make the keyAccess array of a new file; public keys suffice, so no KAS is asked
 * EC: one ephemeral key per hour or 2^20 files and process, so a call is one AES-GCM and one HMAC for each writer.
 * @policy: base64 text; @ret: JSON text from [ to ], malloc'd
 * Blocks: never.  Return: 0; -ENOKEY no key to write with; -EIO; -ENOMEM */
int kas_wrap(struct kas *k, const struct secret *dek, const char *policy, char **ret) MUST_CHECK;

/** kas_wrap_again() - the same for a fresh key of content that is there already: a remote KAS is asked before it is used longer than the key
 * before */
int kas_wrap_again(struct kas *k, const struct secret *dek, const char *policy, char **ret) MUST_CHECK;

/** kas_is_current() - are its key access objects for those keys, in that arrangement, that kas_wrap() would make them for now? */
bool kas_is_current(const struct kas *k, const struct manifest *m);

/** kas_unwrap() - the DEK of a manifest
 * Key access objects with the same sid are alternatives (any one), different sids are XORed.  Every share's policy binding is checked.  The KEKs of EC keys are cached by
 * (kid, ephemeral key): opening 10,000 files made together costs one ECDH.
 * Blocks: if remote KASes have to be asked, for at most KAS_TOTAL_MS, whoever it is that asks them and however many alternatives there are: each of these gets its part of what is
 * left.
 * Return: 0; -ENOKEY no key access object that these keys serve (or that keys without a kid open), nor a KAS that is trusted; -EBADMSG wrapped key or policy binding forged;
 * -EACCES refused by the KAS; -ETIMEDOUT, -EIO it could not be asked; -ENOMEM.  fail() says which object.  Free with secret_free(). */
int kas_unwrap(struct kas *k, const struct manifest *m, struct secret **ret) MUST_CHECK;
/** kas_unwrap_until() - the same, and until when the DEK may be used: CLOCK_MONOTONIC ns; 0: for ever, no remote KAS had a part in it
 * @end: CLOCK_MONOTONIC ns, when the caller has waited long enough; 0, or later than that: KAS_TOTAL_MS from now */
int kas_unwrap_until(struct kas *k, const struct manifest *m, uint64_t end, struct secret **ret, uint64_t *ret_until) MUST_CHECK;
/** kas_unwrap_local() - one key access object by the local keys alone, its policy binding checked; as kas_unwrap()
 * @policy: base64 text that the binding is over */
int kas_unwrap_local(struct kas *k, const char *policy, const struct key_access *ka, struct secret **ret) MUST_CHECK;
/** kas_unwrap_counted() - the same; @rsa_left: how many operations with an RSA private key (a ms or more each) may still be done, counted down;
 * -EDQUOT: one more would be needed */
int kas_unwrap_counted(struct kas *k, const char *policy, const struct key_access *ka, size_t *rsa_left, struct secret **ret) MUST_CHECK;

struct kas_want { /* one of many */
	const struct manifest *m;
	int err;        /* out: as kas_unwrap_until() */
	uint64_t until; /* out */
};
/** kas_prefetch() - ask for the keys of many files with few requests, so that kas_unwrap() finds them
 * kas_renew() - the same for keys that are in use: also for those that have less than half of their time left.
 * Both fill err and until of each; they block as kas_unwrap_until(). */
void kas_prefetch(struct kas *k, struct kas_want *w, size_t n, uint64_t end);
void kas_renew(struct kas *k, struct kas_want *w, size_t n);
/** kas_known() - can kas_unwrap() answer without asking anybody?  Never blocks */
bool kas_known(struct kas *k, const struct manifest *m);
/** kas_tick() - wipe keys whose time is over; to be called every second or so */
void kas_tick(struct kas *k);

struct kas_stats {
	size_t keys;                              /* in the cache */
	uint64_t hits, asked, waits, refused, bridged; /* look-ups; refused: remembered refusals given; bridged: keys used past their time in an outage */
};
/** kas_stats() - of the cache; zeros without a remote KAS */
void kas_stats(struct kas *k, struct kas_stats *ret);

/** kas_public() - the local key that others wrap with
 * @algorithm: "ec:secp256r1", "rsa:2048" and the like; "": the RSA key, or the one new files are made for if there is none
 * @ret_pem: SPKI, malloc'd; @ret_kid: valid as long as @k.  0; -ENOENT no such key; -ENOMEM */
int kas_public(const struct kas *k, const char *algorithm, char **ret_pem, const char **ret_kid) MUST_CHECK;

#endif
