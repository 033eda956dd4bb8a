/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Algorithms are fetched once for the process; contexts are kept per thread and freed by a pthread_key destructor.  OpenSSL wipes a
 * context's key schedule when it is set to the next key and when it is freed.
 */
#include "aead.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <sodium.h>

#include <errno.h>
#include <limits.h>
#include <stdio.h>

#include "keyroom.h"
#include "lock.h"
#include "report.h"

/* set once, then fixed */
static struct {
	EVP_CIPHER *gcm;
	EVP_MD *sha256;
	pthread_key_t key;
	bool ok;
} alg;
static pthread_once_t alg_once = PTHREAD_ONCE_INIT;

struct thread_ctx {
	EVP_CIPHER_CTX *enc, *dec;
	EVP_MD_CTX *md;
	struct keyroom *room; /* of enc and dec; may be NULL */
};

static void ctx_free(void *arg)
{
	struct thread_ctx *c = arg;

	if (!c)
		return;
	EVP_CIPHER_CTX_free(c->enc);
	EVP_CIPHER_CTX_free(c->dec);
	EVP_MD_CTX_free(c->md);
	keyroom_free(c->room);
	free(c);
}

static void alg_setup(void)
{
	alg.gcm = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
	alg.sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
	alg.ok = alg.gcm && alg.sha256 && pthread_key_create(&alg.key, ctx_free) == 0;
}

static bool ctx_setup(struct thread_ctx *c)
{
	bool ok;

	ERR_clear_error(); /* makes what OpenSSL keeps for each thread, which does not belong there */
	c->md = EVP_MD_CTX_new();
	c->room = keyroom_begin();
	c->enc = EVP_CIPHER_CTX_new();
	c->dec = EVP_CIPHER_CTX_new();
	ok = c->enc && c->dec && EVP_EncryptInit_ex2(c->enc, alg.gcm, NULL, NULL, NULL) == 1 &&
	     EVP_DecryptInit_ex2(c->dec, alg.gcm, NULL, NULL, NULL) == 1;
	keyroom_end();
	return ok && c->md;
}

/* This thread's contexts, or NULL with fail() said. */
static struct thread_ctx *ctx_get(void)
{
	struct thread_ctx *c;

	if (pthread_once(&alg_once, alg_setup) || !alg.ok) {
		fail(-EIO, "OpenSSL does not offer AES-256-GCM and SHA-256 here");
		return NULL;
	}
	c = pthread_getspecific(alg.key);
	if (c)
		return c;
	c = calloc(1, sizeof(*c));
	if (!c || !ctx_setup(c) || pthread_setspecific(alg.key, c)) {
		ctx_free(c);
		ERR_clear_error();
		fail(-EIO, "OpenSSL contexts could not be set up");
		return NULL;
	}
	return c;
}

/* OpenSSL keeps a queue of errors per thread; nobody would read it. */
static int crypto_failed(const char *what)
{
	ERR_clear_error();
	return fail(-EIO, "OpenSSL failed: %s", what);
}

static int gcm_seal(const struct secret *key, const uint8_t *iv, struct part aad, const void *pt, size_t len, uint8_t *out)
{
	struct thread_ctx *c = ctx_get();
	uint8_t *ct = out + AEAD_IV;
	int n = 0;

	if (!c)
		return -EIO;
	if (len > INT_MAX || aad.len > INT_MAX)
		return fail(-EIO, "%zu bytes are too many for one AES-GCM call", len);
	memcpy(out, iv, AEAD_IV);
	if (EVP_EncryptInit_ex2(c->enc, NULL, key->b, iv, NULL) != 1 ||
	    (aad.len && EVP_EncryptUpdate(c->enc, NULL, &n, aad.p, (int)aad.len) != 1) ||
	    (len && EVP_EncryptUpdate(c->enc, ct, &n, pt, (int)len) != 1) || EVP_EncryptFinal_ex(c->enc, ct + len, &n) != 1 ||
	    EVP_CIPHER_CTX_ctrl(c->enc, EVP_CTRL_AEAD_GET_TAG, AEAD_TAG, ct + len) != 1) {
		/* never a half-made segment with a good look */
		wipe(out, len + AEAD_OVERHEAD);
		return crypto_failed("AES-GCM encryption");
	}
	return 0;
}

int aead_seal(const struct secret *key, const void *pt, size_t len, uint8_t *out)
{
	uint8_t iv[AEAD_IV];
	int err = random_bytes(iv, sizeof(iv));

	return err ? err : gcm_seal(key, iv, (struct part){NULL, 0}, pt, len, out);
}

int aead_seal_drawn(const struct secret *key, const uint8_t iv[static AEAD_IV], const void *pt, size_t len, uint8_t *out)
{
	return gcm_seal(key, iv, (struct part){NULL, 0}, pt, len, out);
}

int aead_test_iv(const struct secret *key, const uint8_t iv[static AEAD_IV], struct part aad, const void *pt, size_t len, uint8_t *out)
{
	return gcm_seal(key, iv, aad, pt, len, out);
}

int aead_open(const struct secret *key, const uint8_t *in, size_t in_len, const uint8_t *tag, void *pt)
{
	struct thread_ctx *c = ctx_get();
	size_t len = in_len - AEAD_OVERHEAD;
	const uint8_t *own_tag;
	int n = 0;

	if (!c)
		return -EIO;
	if (in_len < AEAD_OVERHEAD)
		return fail(-EPROTO, "an encrypted segment of %zu bytes is too short", in_len);
	if (len > INT_MAX)
		return fail(-EPROTO, "an encrypted segment of %zu bytes is too long", in_len);
	own_tag = in + AEAD_IV + len;
	if (tag && !equal_ct(tag, own_tag, AEAD_TAG)) {
		wipe(pt, len);
		return fail(-EBADMSG, "not the segment that was signed: its tag is another");
	}
	if (EVP_DecryptInit_ex2(c->dec, NULL, key->b, in, NULL) != 1 ||
	    (len && EVP_DecryptUpdate(c->dec, pt, &n, in + AEAD_IV, (int)len) != 1) ||
	    EVP_CIPHER_CTX_ctrl(c->dec, EVP_CTRL_AEAD_SET_TAG, AEAD_TAG, (void *)own_tag) != 1) {
		wipe(pt, len);
		return crypto_failed("AES-GCM decryption");
	}
	if (EVP_DecryptFinal_ex(c->dec, (uint8_t[16]){0}, &n) != 1) {
		wipe(pt, len);
		ERR_clear_error();
		return fail(-EBADMSG, "damaged or forged: the authentication tag does not match");
	}
	return 0;
}

int fingerprint(const struct secret *key, const struct part *parts, size_t n, uint8_t ret[static FINGERPRINT_LEN])
{
	static const uint8_t nonce[AEAD_IV];
	struct thread_ctx *c = ctx_get();
	uint8_t none[AEAD_TAG];
	int len = 0;

	if (!c)
		return -EIO;
	if (EVP_EncryptInit_ex2(c->enc, NULL, key->b, nonce, NULL) != 1)
		return crypto_failed("GMAC key");
	for (size_t i = 0; i < n; i++)
		if (parts[i].len > INT_MAX || (parts[i].len && EVP_EncryptUpdate(c->enc, NULL, &len, parts[i].p, (int)parts[i].len) != 1))
			return crypto_failed("GMAC");
	if (EVP_EncryptFinal_ex(c->enc, none, &len) != 1 || EVP_CIPHER_CTX_ctrl(c->enc, EVP_CTRL_AEAD_GET_TAG, FINGERPRINT_LEN, ret) != 1)
		return crypto_failed("GMAC");
	return 0;
}

#define SHA256_BLOCK 64

/* Out of hashes and not EVP_MAC, which copies contexts about: that costs more than hashing what is authenticated here. */
static int hmac_half(struct thread_ctx *c, uint8_t pad, const uint8_t *key, size_t key_len, const struct part *parts, size_t n,
		     uint8_t ret[static MAC_LEN])
{
	uint8_t block[SHA256_BLOCK];
	unsigned len = 0;
	bool ok;

	memset(block, pad, sizeof(block));
	for (size_t i = 0; i < key_len; i++)
		block[i] ^= key[i];
	ok = EVP_DigestInit_ex2(c->md, alg.sha256, NULL) == 1 && EVP_DigestUpdate(c->md, block, sizeof(block)) == 1;
	for (size_t i = 0; ok && i < n; i++)
		ok = !parts[i].len || EVP_DigestUpdate(c->md, parts[i].p, parts[i].len) == 1;
	ok = ok && EVP_DigestFinal_ex(c->md, ret, &len) == 1 && len == MAC_LEN;
	wipe(block, sizeof(block));
	return ok ? 0 : crypto_failed("HMAC");
}

int hmac_sha256(const void *key, size_t key_len, const struct part *parts, size_t n, uint8_t ret_mac[static MAC_LEN])
{
	struct thread_ctx *c = ctx_get();
	uint8_t hashed[MAC_LEN], inner[MAC_LEN], mac[MAC_LEN];
	int err = c ? 0 : -EIO;

	if (!err && key_len > SHA256_BLOCK) {
		err = sha256(&(struct part){key, key_len}, 1, hashed);
		key = hashed;
		key_len = sizeof(hashed);
	}
	if (!err)
		err = hmac_half(c, 0x36, key, key_len, parts, n, inner);
	if (!err)
		err = hmac_half(c, 0x5c, key, key_len, &(struct part){inner, sizeof(inner)}, 1, mac);
	if (!err)
		memcpy(ret_mac, mac, MAC_LEN);
	if (key == hashed)
		wipe(hashed, sizeof(hashed));
	wipe(inner, sizeof(inner));
	wipe(mac, sizeof(mac)); /* of hkdf() it is a key */
	return err;
}

int sha256(const struct part *parts, size_t n, uint8_t ret_hash[static 32])
{
	struct thread_ctx *c = ctx_get();
	uint8_t hash[32];
	unsigned len = 0;

	if (!c)
		return -EIO;
	if (EVP_DigestInit_ex2(c->md, alg.sha256, NULL) != 1)
		return crypto_failed("SHA-256");
	for (size_t i = 0; i < n; i++)
		if (parts[i].len && EVP_DigestUpdate(c->md, parts[i].p, parts[i].len) != 1)
			return crypto_failed("SHA-256");
	if (EVP_DigestFinal_ex(c->md, hash, &len) != 1 || len != sizeof(hash))
		return crypto_failed("SHA-256");
	memcpy(ret_hash, hash, sizeof(hash));
	return 0;
}

int hkdf(struct part ikm, struct part salt, struct part info, uint8_t *ret_okm, size_t len)
{
	static const uint8_t zero[MAC_LEN];
	uint8_t prk[MAC_LEN], block[MAC_LEN];
	int err;

	if (len > 255 * MAC_LEN)
		return fail(-EIO, "HKDF gives no more than 8160 bytes");
	if (!salt.len)
		salt = (struct part){zero, sizeof(zero)};
	err = hmac_sha256(salt.p, salt.len, &ikm, 1, prk);
	for (size_t done = 0; !err && done < len; done += MAC_LEN) {
		uint8_t i = (uint8_t)(done / MAC_LEN + 1);
		struct part parts[] = {{block, done ? MAC_LEN : 0}, info, {&i, 1}};

		err = hmac_sha256(prk, sizeof(prk), parts, ARRAY_SIZE(parts), block);
		if (!err)
			memcpy(ret_okm + done, block, MIN(len - done, (size_t)MAC_LEN));
	}
	wipe(prk, sizeof(prk));
	wipe(block, sizeof(block));
	if (err)
		wipe(ret_okm, len);
	return err;
}

struct secret *derive(const struct secret *vk, const char *label)
{
	static const char salt[] = "tdfs 1";
	struct secret *s = secret_new();

	if (s && hkdf((struct part){vk->b, SECRET_LEN}, (struct part){salt, sizeof(salt) - 1}, (struct part){label, strlen(label)}, s->b,
		      SECRET_LEN)) {
		secret_free(s);
		return NULL;
	}
	return s;
}

int scrypt(struct part pass, struct part salt, unsigned log_n, unsigned r, unsigned p, uint8_t *ret_key, size_t len)
{
	if (log_n < 1 || log_n > 20 || r < 1 || r > 32 || p < 1 || p > 16)
		return fail(-EINVAL, "scrypt parameters out of range: N = 2^%u, r = %u, p = %u", log_n, r, p);
	/* chooses the vector code; else the portable one is used, a third slower */
	if (sodium_init() < 0)
		return fail(-EIO, "scrypt: libsodium does not start");
	if (!crypto_pwhash_scryptsalsa208sha256_ll(pass.len ? pass.p : (const void *)"", pass.len, salt.len ? salt.p : (const void *)"",
						   salt.len, 1ull << log_n, r, p, ret_key, len))
		return 0;
	if (errno == ENOMEM)
		return fail(-ENOMEM, "scrypt needs %llu MiB of memory and did not get it", (128ull * r << log_n) >> 20);
	return fail(-EIO, "scrypt failed: %s", strerror(errno));
}
