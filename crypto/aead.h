/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AES-256-GCM, HMAC-SHA-256, HKDF, scrypt and random bytes: the only callers of OpenSSL's symmetric functions.
 *
 * All functions are thread-safe and never block on disk or network.  Contexts are kept per thread, so a call costs a key set-up (under a microsecond) and no
 * allocation.  -EIO: OpenSSL failed or there is no entropy (nothing was produced).
 */
#ifndef TDFS_AEAD_H
#define TDFS_AEAD_H

#include "secret.h"

#define AEAD_IV 12
#define AEAD_TAG 16
#define AEAD_OVERHEAD (AEAD_IV + AEAD_TAG)
#define MAC_LEN 32

struct part {
	const void *p;
	size_t len;
};

/** aead_seal() - encrypt one segment with a fresh random IV (NIST SP 800-38D, 8.2.2)
 * @pt: @len plain bytes, may be NULL if @len is 0; may not overlap @out
 * @out: @len + AEAD_OVERHEAD bytes: IV, ciphertext, tag
 * Return: 0 or -EIO */
int aead_seal(const struct secret *key, const void *pt, size_t len, uint8_t *out) MUST_CHECK;

/** aead_seal_drawn() - the same with an IV that the caller has drawn, together with those of the segments beside it, in one request of random_bytes() and after he had
 * the plain bytes; each is used once */
int aead_seal_drawn(const struct secret *key, const uint8_t iv[static AEAD_IV], const void *pt, size_t len, uint8_t *out) MUST_CHECK;

/** aead_open() - check and decrypt one segment
 * @in: IV, ciphertext, tag: @in_len bytes
 * @tag: the tag it must carry (compared first), or NULL
 * @pt: @in_len - AEAD_OVERHEAD bytes; wiped and not to be used on failure
 * Return: 0; -EBADMSG forged, damaged or not the segment expected; -EPROTO too short; -EIO */
int aead_open(const struct secret *key, const uint8_t *in, size_t in_len, const uint8_t *tag, void *pt) MUST_CHECK;

/** aead_test_iv() - unit tests only: aead_seal() with the IV given and additional data, for published vectors */
int aead_test_iv(const struct secret *key, const uint8_t iv[static AEAD_IV], struct part aad, const void *pt, size_t len, uint8_t *out) MUST_CHECK;

/** hmac_sha256() - HMAC-SHA-256 (RFC 2104) of @n parts put together; 0 or -EIO */
int hmac_sha256(const void *key, size_t key_len, const struct part *parts, size_t n, uint8_t ret_mac[static MAC_LEN]) MUST_CHECK;
/** sha256() - SHA-256 of @n parts put together; 0 or -EIO */
int sha256(const struct part *parts, size_t n, uint8_t ret_hash[static 32]) MUST_CHECK;

/** fingerprint() - tells whether two contents that one process, or several with the same secret @key, have seen are equal: GMAC with a fixed nonce, several times as
 * fast as SHA-256.  Never to be shown, stored or sent: who sees fingerprints could forge others.  0 or -EIO */
#define FINGERPRINT_LEN 16
int fingerprint(const struct secret *key, const struct part *parts, size_t n, uint8_t ret[static FINGERPRINT_LEN]) MUST_CHECK;

/** hkdf() - HKDF-SHA-256 (RFC 5869), extract and expand
 * @salt may be empty (then 32 zero bytes are meant); 0 or -EIO */
int hkdf(struct part ikm, struct part salt, struct part info, uint8_t *ret_okm, size_t len) MUST_CHECK;
/** derive() - the labelled subkey of the volume key: HKDF(VK, salt "tdfs 1", info = label); NULL on failure.  Labels: seal hint rec conf log kas check names */
struct secret *derive(const struct secret *vk, const char *label) MUST_CHECK;
/** scrypt() - RFC 7914; @log_n 1..20, @r 1..32, @p 1..16, memory 128 * r * 2^log_n; 0, -ENOMEM, -EINVAL, -EIO */
int scrypt(struct part pass, struct part salt, unsigned log_n, unsigned r, unsigned p, uint8_t *ret_key, size_t len) MUST_CHECK;

/** random_bytes() - crypto/FORMAT.md section 6; 0 or -EIO (then nothing in @p may be used) */
int random_bytes(void *p, size_t len) MUST_CHECK;

#endif
