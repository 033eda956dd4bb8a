/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Wrapping a 256-bit key for a KAS key: `wrapped` (RSA-OAEP, SHA-1 as OpenTDF has it) and `ec-wrapped` (ECDH P-256/384/521, HKDF, AES-GCM).
 *
 * Thread-safe unless said otherwise; never blocks on disk or network.  Source: OpenTDF specification 4.3, FORMAT.md section 4.
 */
#ifndef TDFS_PUBKEY_H
#define TDFS_PUBKEY_H

#include <openssl/evp.h>

#include "manifest.h"

#define EC_WRAPPED_LEN (SECRET_LEN + AEAD_OVERHEAD)
#define WRAPPED_MAX 1024

/** pubkey_private() - a private key from PEM (PKCS#8 or traditional); 0, -EPROTO, -ENOTSUP neither RSA >= 2048 nor EC on a known curve.  Free with EVP_PKEY_free() */
int pubkey_private(const char *pem, size_t len, EVP_PKEY **ret) MUST_CHECK;
/** pubkey_public() - a public key from PEM, SubjectPublicKeyInfo or X.509 certificate; as above */
int pubkey_public(const char *pem, size_t len, EVP_PKEY **ret) MUST_CHECK;
/** pubkey_pem() - the public half as SPKI PEM; malloc'd; NULL on failure */
char *pubkey_pem(EVP_PKEY *key) MUST_CHECK;
/** pubkey_private_der() - PKCS#8 DER of a private key, malloc'd: wipe before free; 0, -EIO */
int pubkey_private_der(EVP_PKEY *key, uint8_t **ret, size_t *ret_len) MUST_CHECK;
int pubkey_private_from_der(const uint8_t *der, size_t len, EVP_PKEY **ret) MUST_CHECK;
/** pubkey_new_ec() - a new P-256 pair; NULL on failure */
EVP_PKEY *pubkey_new_ec(void) MUST_CHECK;
/** pubkey_new_rsa() - a new pair of 2048 bits; NULL on failure.  Takes some tenths of a second */
EVP_PKEY *pubkey_new_rsa(void) MUST_CHECK;
/** pubkey_type() - which wrapping this key does */
enum wrap_type pubkey_type(EVP_PKEY *key);

/** rsa_wrap() / rsa_unwrap() - one key; rsa_unwrap: -EBADMSG for anything that does not unwrap to 32 bytes */
int rsa_wrap(EVP_PKEY *kas, const struct secret *key, uint8_t ret[static WRAPPED_MAX], size_t *ret_len) MUST_CHECK;
int rsa_unwrap(EVP_PKEY *kas_private, const uint8_t *p, size_t len, struct secret **ret) MUST_CHECK;

/** ec_kek_new() - make an ephemeral pair on the KAS key's curve, one ECDH: a KEK that may wrap any number of keys (fresh IV each, by aead_seal())
 * @ret_pem: the ephemeral public key, malloc'd.  Return: 0, -EIO, -ENOMEM */
int ec_kek_new(EVP_PKEY *kas, struct secret **ret_kek, char **ret_pem) MUST_CHECK;
/** ec_kek_of() - the same KEK on the KAS's side; 0, -EPROTO bad PEM or another curve, -EIO */
int ec_kek_of(EVP_PKEY *kas_private, const char *ephemeral_pem, struct secret **ret_kek) MUST_CHECK;

#endif
