/* SPDX-License-Identifier: Apache-2.0 */
#include "pubkey.h"

#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

#include <ctype.h>
#include <errno.h>

#include "encode.h"
#include "report.h"

#define PEM_MAX ((size_t)64 << 10)
#define RSA_BITS_MIN 2048
#define RSA_BITS_MAX (WRAPPED_MAX * 8)
#define ECDH_MAX 66 /* x coordinate on P-521 */

static void pkey_cleanup(EVP_PKEY **k)
{
	EVP_PKEY_free(*k);
}
static void pkey_ctx_cleanup(EVP_PKEY_CTX **c)
{
	EVP_PKEY_CTX_free(*c);
}
#define CLEANUP_PKEY CLEANUP(pkey_cleanup)
#define CLEANUP_PKEY_CTX CLEANUP(pkey_ctx_cleanup)

/* OpenSSL keeps a queue of errors per thread; nobody would read it. */
static int pubkey_fail(int err, const char *what)
{
	ERR_clear_error();
	return fail(err, "%s", what);
}

/* The next block of a PEM text, decoded without regard to line lengths, CR or a missing last newline, which OpenSSL's own reader is
 * particular about.
 * @ret_label, @ret_label_len: what stands behind BEGIN.  0; -ENOENT no further block; -EPROTO. */
static int pem_block(const char **p, const char *end, const char **ret_label, size_t *ret_label_len, uint8_t **ret_der, size_t *ret_len)
{
	static const char begin[] = "-----BEGIN ", stop[] = "-----END ", dashes[] = "-----";
	const char *b = memmem(*p, (size_t)(end - *p), begin, sizeof(begin) - 1), *label, *label_end, *e;
	CLEANUP_FREE char *text = NULL;
	CLEANUP_FREE uint8_t *der = NULL;
	size_t n = 0, max;
	int err;

	if (!b)
		return -ENOENT;
	label = b + sizeof(begin) - 1;
	label_end = memmem(label, (size_t)(end - label), dashes, sizeof(dashes) - 1);
	e = label_end ? memmem(label_end, (size_t)(end - label_end), stop, sizeof(stop) - 1) : NULL;
	n = label_end ? (size_t)(label_end - label) + sizeof(dashes) - 1 : 0; /* label and dashes, which have to come again */
	if (!e || (size_t)(end - e) < sizeof(stop) - 1 + n || memcmp(e + sizeof(stop) - 1, label, n))
		return fail(-EPROTO, "a PEM block has no end");
	n = 0;
	max = (size_t)(e - label_end);
	text = malloc(max + 1);
	der = malloc(max + 1);
	if (!text || !der)
		return -ENOMEM;
	for (const char *c = label_end + sizeof(dashes) - 1; c < e; c++)
		if (!isspace((unsigned char)*c))
			text[n++] = *c;
	err = base64_decode(text, n, true, der, max, ret_len);
	wipe(text, n);
	if (err || !*ret_len) {
		wipe(der, max);
		return fail(-EPROTO, "a PEM block is not base64 (or has a password: remove it with openssl pkey)");
	}
	*p = e + sizeof(stop) - 1;
	*ret_label = label;
	*ret_label_len = (size_t)(label_end - label);
	*ret_der = STEAL(der);
	return 0;
}

static bool label_is(const char *label, size_t len, const char *want)
{
	return len == strlen(want) && memcmp(label, want, len) == 0;
}

/* Is this a key that OpenTDF can wrap with and that we trust? */
static int key_fits(EVP_PKEY *key)
{
	char group[32];
	int bits;

	switch (EVP_PKEY_get_base_id(key)) {
	case EVP_PKEY_RSA:
		bits = EVP_PKEY_get_bits(key);
		if (bits < RSA_BITS_MIN || bits > RSA_BITS_MAX)
			return fail(-ENOTSUP, "an RSA key of %d bits: %d to %d are taken", bits, RSA_BITS_MIN, RSA_BITS_MAX);
		return 0;
	case EVP_PKEY_EC:
		if (EVP_PKEY_get_group_name(key, group, sizeof(group), NULL) != 1)
			return pubkey_fail(-ENOTSUP, "an EC key without a named curve: use P-256, P-384 or P-521");
		if (strcmp(group, "prime256v1") && strcmp(group, "secp384r1") && strcmp(group, "secp521r1"))
			return fail(-ENOTSUP, "an EC key on curve %s: use P-256, P-384 or P-521", group);
		return 0;
	default:
		return fail(-ENOTSUP, "a key that is neither RSA nor EC");
	}
}

/* @der -> key; NULL if it is not one. */
static EVP_PKEY *key_decode(const char *label, size_t label_len, const uint8_t *der, size_t len)
{
	const uint8_t *p = der;
	EVP_PKEY *key = NULL;

	if (label_is(label, label_len, "CERTIFICATE")) {
		X509 *x = d2i_X509(NULL, &p, (long)len);

		key = x ? X509_get_pubkey(x) : NULL;
		X509_free(x);
	} else if (label_is(label, label_len, "PUBLIC KEY")) {
		key = d2i_PUBKEY(NULL, &p, (long)len);
	} else {
		key = d2i_AutoPrivateKey(NULL, &p, (long)len);
	}
	ERR_clear_error();
	if (key && p != der + len) {
		EVP_PKEY_free(key);
		return NULL;
	}
	return key;
}

static int key_from_pem(const char *pem, size_t len, bool private, EVP_PKEY **ret)
{
	static const char *const labels[2][3] = {{"PUBLIC KEY", "CERTIFICATE", "CERTIFICATE"},
						 {"PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY"}};
	const char *p = pem, *label = NULL;
	size_t label_len = 0, der_len = 0;
	CLEANUP_PKEY EVP_PKEY *key = NULL;
	uint8_t *der = NULL;
	bool found = false;
	int err;

	if (len > PEM_MAX)
		return fail(-EPROTO, "a PEM key of %zu bytes is too long", len);
	while (!found) {
		err = pem_block(&p, pem + len, &label, &label_len, &der, &der_len);
		if (err == -ENOENT)
			return fail(-EPROTO, "no PEM %s found", private ? "private key" : "public key or certificate");
		if (err)
			return err;
		if (label_is(label, label_len, "ENCRYPTED PRIVATE KEY"))
			err = fail(-ENOTSUP, "the private key has a password: remove it with openssl pkey");
		for (size_t i = 0; i < 3; i++)
			found |= label_is(label, label_len, labels[private][i]);
		if (found)
			key = key_decode(label, label_len, der, der_len);
		wipe(der, der_len);
		free(der);
		if (err)
			return err;
	}
	if (!key)
		return fail(-EPROTO, "the PEM block is no %s", private ? "private key" : "public key or certificate");
	err = key_fits(key);
	if (err)
		return err;
	*ret = STEAL(key);
	return 0;
}

int pubkey_private(const char *pem, size_t len, EVP_PKEY **ret)
{
	return key_from_pem(pem, len, true, ret);
}

int pubkey_public(const char *pem, size_t len, EVP_PKEY **ret)
{
	return key_from_pem(pem, len, false, ret);
}

char *pubkey_pem(EVP_PKEY *key)
{
	BIO *bio = BIO_new(BIO_s_mem());
	char *text = NULL, *copy = NULL;
	long n;

	if (bio && PEM_write_bio_PUBKEY(bio, key) == 1) {
		n = BIO_get_mem_data(bio, &text);
		if (n > 0)
			copy = strndup(text, (size_t)n);
	}
	BIO_free(bio);
	ERR_clear_error();
	return copy;
}

int pubkey_private_der(EVP_PKEY *key, uint8_t **ret, size_t *ret_len)
{
	PKCS8_PRIV_KEY_INFO *p8 = EVP_PKEY2PKCS8(key);
	int len = p8 ? i2d_PKCS8_PRIV_KEY_INFO(p8, NULL) : -1;
	uint8_t *der = len > 0 ? malloc((size_t)len) : NULL, *end = der;

	if (der && i2d_PKCS8_PRIV_KEY_INFO(p8, &end) != len) {
		wipe(der, (size_t)len);
		free(der);
		der = NULL;
	}
	PKCS8_PRIV_KEY_INFO_free(p8);
	if (!der)
		return pubkey_fail(-EIO, "the private key cannot be exported");
	*ret = der;
	*ret_len = (size_t)len;
	return 0;
}

int pubkey_private_from_der(const uint8_t *der, size_t len, EVP_PKEY **ret)
{
	CLEANUP_PKEY EVP_PKEY *key = NULL;
	int err;

	if (len > PEM_MAX)
		return fail(-EPROTO, "a private key of %zu bytes is too long", len);
	key = key_decode("PRIVATE KEY", strlen("PRIVATE KEY"), der, len);
	if (!key)
		return fail(-EPROTO, "not a private key in PKCS#8 form");
	err = key_fits(key);
	if (err)
		return err;
	*ret = STEAL(key);
	return 0;
}

EVP_PKEY *pubkey_new_ec(void)
{
	EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "prime256v1");

	if (!key)
		pubkey_fail(-EIO, "no EC key could be made");
	return key;
}

EVP_PKEY *pubkey_new_rsa(void)
{
	EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t)RSA_BITS_MIN);

	if (!key)
		pubkey_fail(-EIO, "no RSA key could be made");
	return key;
}

enum wrap_type pubkey_type(EVP_PKEY *key)
{
	switch (EVP_PKEY_get_base_id(key)) {
	case EVP_PKEY_RSA:
		return WRAP_RSA;
	case EVP_PKEY_EC:
		return WRAP_EC;
	default:
		return WRAP_OTHER;
	}
}

static bool oaep_sha1(EVP_PKEY_CTX *c)
{
	return EVP_PKEY_CTX_set_rsa_padding(c, RSA_PKCS1_OAEP_PADDING) > 0 && EVP_PKEY_CTX_set_rsa_oaep_md(c, EVP_sha1()) > 0 &&
	       EVP_PKEY_CTX_set_rsa_mgf1_md(c, EVP_sha1()) > 0;
}

int rsa_wrap(EVP_PKEY *kas, const struct secret *key, uint8_t ret[static WRAPPED_MAX], size_t *ret_len)
{
	CLEANUP_PKEY_CTX EVP_PKEY_CTX *c = EVP_PKEY_CTX_new(kas, NULL);
	uint8_t out[WRAPPED_MAX];
	size_t len = sizeof(out);

	if (!c || EVP_PKEY_encrypt_init(c) <= 0 || !oaep_sha1(c) || EVP_PKEY_encrypt(c, out, &len, key->b, SECRET_LEN) <= 0)
		return pubkey_fail(-EIO, "OpenSSL failed: RSA-OAEP encryption");
	memcpy(ret, out, len);
	*ret_len = len;
	return 0;
}

int rsa_unwrap(EVP_PKEY *kas_private, const uint8_t *p, size_t len, struct secret **ret)
{
	CLEANUP_PKEY_CTX EVP_PKEY_CTX *c = EVP_PKEY_CTX_new(kas_private, NULL);
	uint8_t out[WRAPPED_MAX];
	size_t out_len = sizeof(out);
	struct secret *s = NULL;
	int err = 0;

	if (!c || EVP_PKEY_decrypt_init(c) <= 0 || !oaep_sha1(c))
		return pubkey_fail(-EIO, "OpenSSL failed: RSA-OAEP set-up");
	if (EVP_PKEY_decrypt(c, out, &out_len, p, len) <= 0 || out_len != SECRET_LEN) {
		err = pubkey_fail(-EBADMSG, "the wrapped key does not unwrap with this RSA key");
	} else {
		s = secret_new();
		if (s)
			memcpy(s->b, out, SECRET_LEN);
		else
			err = -ENOMEM;
	}
	wipe(out, sizeof(out));
	if (!err)
		*ret = s;
	return err;
}

/* KEK = HKDF-SHA-256(x coordinate of the common point, salt SHA-256("TDF"), no info) */
static int ecdh_kek(EVP_PKEY *own, EVP_PKEY *peer, struct secret **ret)
{
	CLEANUP_PKEY_CTX EVP_PKEY_CTX *c = EVP_PKEY_CTX_new(own, NULL);
	CLEANUP_SECRET struct secret *kek = secret_new();
	uint8_t x[ECDH_MAX], salt[32];
	size_t len = sizeof(x);
	int err;

	if (!kek)
		return -ENOMEM;
	if (!c || EVP_PKEY_derive_init(c) <= 0 || EVP_PKEY_derive_set_peer(c, peer) <= 0 || EVP_PKEY_derive(c, x, &len) <= 0) {
		wipe(x, sizeof(x));
		return pubkey_fail(-EIO, "OpenSSL failed: ECDH");
	}
	err = sha256(&(struct part){"TDF", 3}, 1, salt);
	if (!err)
		err = hkdf((struct part){x, len}, (struct part){salt, sizeof(salt)}, (struct part){NULL, 0}, kek->b, SECRET_LEN);
	wipe(x, sizeof(x));
	if (!err)
		*ret = STEAL(kek);
	return err;
}

int ec_kek_new(EVP_PKEY *kas, struct secret **ret_kek, char **ret_pem)
{
	CLEANUP_PKEY EVP_PKEY *own = NULL;
	CLEANUP_FREE char *pem = NULL;
	char group[32];
	int err;

	if (EVP_PKEY_get_group_name(kas, group, sizeof(group), NULL) != 1)
		return pubkey_fail(-EIO, "not an EC key");
	own = EVP_PKEY_Q_keygen(NULL, NULL, "EC", group);
	if (!own)
		return pubkey_fail(-EIO, "no ephemeral EC key could be made");
	pem = pubkey_pem(own);
	if (!pem)
		return -ENOMEM;
	err = ecdh_kek(own, kas, ret_kek);
	if (!err)
		*ret_pem = STEAL(pem);
	return err;
}

int ec_kek_of(EVP_PKEY *kas_private, const char *ephemeral_pem, struct secret **ret_kek)
{
	CLEANUP_PKEY EVP_PKEY *peer = NULL;
	char own_group[32], group[32];
	int err = pubkey_public(ephemeral_pem, strlen(ephemeral_pem), &peer);

	if (err)
		return err == -ENOMEM ? err : -EPROTO; /* fail() has said why */
	if (EVP_PKEY_get_group_name(kas_private, own_group, sizeof(own_group), NULL) != 1)
		return pubkey_fail(-EIO, "not an EC key");
	if (EVP_PKEY_get_group_name(peer, group, sizeof(group), NULL) != 1 || strcmp(group, own_group))
		return pubkey_fail(-EPROTO, "the ephemeral key is on another curve than the KAS key");
	return ecdh_kek(kas_private, peer, ret_kek);
}
