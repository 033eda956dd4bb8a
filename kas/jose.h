/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Signed tokens: JWS in the compact form (RFC 7515), public keys as JWK (RFC 7517), thumbprints (RFC 7638).  Over libjose, which does the
 * JWK and checks signatures; signing is done with OpenSSL, so that a private key is never written out as JSON.
 *
 * Algorithms are the four below and nothing else: no "none", no HMAC, no other curve.  Which of them a token may have is the caller's list,
 * never the token's own word; the key has to be of the type (and, for ECDSA, on the curve) that the algorithm names.  A header with "crit"
 * is refused (RFC 7515 4.1.11). Thread-safe; never blocks.
 */
#ifndef TDFS_JOSE_H
#define TDFS_JOSE_H

#include <jansson.h>
#include <openssl/evp.h>

#include "defs.h"

enum jose_alg { JOSE_OTHER = 0, JOSE_ES256 = 1, JOSE_ES384 = 2, JOSE_RS256 = 4, JOSE_PS256 = 8 };
#define JOSE_ALL (JOSE_ES256 | JOSE_ES384 | JOSE_RS256 | JOSE_PS256)

#define JWS_MAX ((size_t)4 << 20) /* a bulk rewrap request; callers bound other tokens themselves */
#define JWK_THUMBPRINT_LEN 43     /* characters */

/** jose_alg_name() - "ES256"...; NULL for JOSE_OTHER */
const char *jose_alg_name(enum jose_alg alg);
/** jose_alg_of() - the algorithm a key signs with by default: ES256, ES384 or RS256; JOSE_OTHER if it cannot */
enum jose_alg jose_alg_of(EVP_PKEY *key);

/** base64url_encode() - without padding, NUL-terminated; malloc'd; NULL if out of memory */
char *base64url_encode(const void *p, size_t len) MUST_CHECK;

/** jwk_check() - a public key that signs and that we would trust: RSA 2048 to 8192 bits with a public exponent of at most 32 bits, or EC on
 * P-256 or P-384 0; -EPROTO malformed or with a private part; -ENOTSUP another kind of key.  fail() says what. */
int jwk_check(const json_t *jwk) MUST_CHECK;
/** jwk_from_key() - the public half; a new reference; NULL on failure */
json_t *jwk_from_key(EVP_PKEY *key) MUST_CHECK;
/** jwk_to_key() - 0; as jwk_check(); -ENOMEM.  Free with EVP_PKEY_free(). */
int jwk_to_key(const json_t *jwk, EVP_PKEY **ret) MUST_CHECK;
/** jwk_thumbprint() - base64url of SHA-256 (RFC 7638), as in cnf.jkt; 0; as jwk_check(); -EIO */
int jwk_thumbprint(const json_t *jwk, char ret[static JWK_THUMBPRINT_LEN + 1]) MUST_CHECK;

struct jws {
	json_t *header, *claims; /* objects */
	enum jose_alg alg;       /* of the header; says nothing before jws_verify() */
	json_t *flat;            /* private: the three parts as they stand */
};

/** jws_parse() - take a token apart; nothing in it is to be believed yet
 * Both parts must be JSON objects without duplicate members; the signature may be missing, garbage, or of an unknown algorithm
 * (jws_verify() then refuses). 0; -EPROTO (fail() says why); -ENOMEM.  Free with jws_free(). */
int jws_parse(const char *text, size_t len, struct jws *ret) MUST_CHECK;
/** jws_free() - the contents, not the struct; fine on a zeroed one */
void jws_free(struct jws *j);
#define CLEANUP_JWS CLEANUP(jws_free)

/** jws_verify() - check the signature
 * @algs: the allowed ones, JOSE_ES256 | ...
 * 0; -EACCES algorithm not allowed, wrong key or bad signature; -EPROTO or -ENOTSUP @jwk is no usable key.  fail() says which.  A JWK with
 * "alg", "use" or "key_ops" is held to them. */
int jws_verify(const struct jws *j, const json_t *jwk, unsigned algs) MUST_CHECK;

/** jws_sign() - a compact token
 * @alg: one that fits the key; @header: further members ("typ", "jwk", "kid"), NULL for none; "alg" is set here
 * @ret: malloc'd, NUL-terminated.  0; -EINVAL the key does not fit @alg; -EIO; -ENOMEM */
int jws_sign(EVP_PKEY *key, enum jose_alg alg, const json_t *header, const json_t *claims, char **ret) MUST_CHECK;

#endif
