/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where data keys come from: a set of KAS keys that this process may use, and the two things done with them.
 *
 * Back ends are chosen by key access URL and kid.  Today: local private keys (the embedded KAS of a volume, --kas-key).  A remote KAS over HTTPS is a further back end behind
 * the same two calls.  Thread-safe after the set-up calls.
 */
#ifndef TDFS_KAS_H
#define TDFS_KAS_H

#include "pubkey.h"

struct kas; /* opaque */

#define KAS_URL_DEFAULT "https://localhost:8443"

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

/** kas_wrap() - make the keyAccess array of a new file
 * EC: one ephemeral key per hour or 2^20 files and process, so a call is one AES-GCM and one HMAC.
 * @policy: base64 text; @ret: JSON text from [ to ], malloc'd
 * Blocks: never.  Return: 0; -ENOKEY no key to write with; -EIO; -ENOMEM */
int kas_wrap(struct kas *k, const struct secret *dek, const char *policy, char **ret) MUST_CHECK;

/** kas_unwrap() - the DEK of a manifest
 * Key access objects with the same sid are alternatives (any one), different sids are XORed.  Every share's policy binding is checked.  The KEKs of EC keys are cached by
 * (kid, ephemeral key): opening 10,000 files made together costs one ECDH.
 * Return: 0; -ENOKEY no key access object that these keys serve (or that keys without a kid open); -EBADMSG wrapped key or policy binding forged;
 * -EACCES refused by the KAS; -ETIMEDOUT; -EIO; -ENOMEM.  fail() says which object.  Free with secret_free(). */
int kas_unwrap(struct kas *k, const struct manifest *m, struct secret **ret) MUST_CHECK;

#endif
