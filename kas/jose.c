/* SPDX-License-Identifier: Apache-2.0 */
#include "jose.h"

#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

#include <errno.h>

#include "encode.h"
#include "json_in.h"
#include "lazy.h"
#include "lazy_i.h"
#include "report.h"

#define HEADER_MAX ((size_t)16 << 10)
#define RSA_BYTES_MIN 256 /* 2048 bits */
#define RSA_BYTES_MAX 1024
#define RSA_E_CHARS_MAX 6 /* base64url of 4 bytes: a bigger exponent makes a check as dear as a signature */
#define SIGNATURE_MAX RSA_BYTES_MAX

static const struct algorithm {
	enum jose_alg alg;
	const char *name, *kty, *crv;
	const char *digest;
	size_t coordinate; /* bytes of r and of s */
} algorithms[] = {
    {JOSE_ES256, "ES256", "EC", "P-256", "SHA256", 32},
    {JOSE_ES384, "ES384", "EC", "P-384", "SHA384", 48},
    {JOSE_RS256, "RS256", "RSA", NULL, "SHA256", 0},
    {JOSE_PS256, "PS256", "RSA", NULL, "SHA256", 0},
};

static const struct algorithm *algorithm_of(enum jose_alg alg)
{
	for (size_t i = 0; i < ARRAY_SIZE(algorithms); i++)
		if (algorithms[i].alg == alg)
			return &algorithms[i];
	return NULL;
}

const char *jose_alg_name(enum jose_alg alg)
{
	const struct algorithm *a = algorithm_of(alg);

	return a ? a->name : NULL;
}

enum jose_alg jose_alg_of(EVP_PKEY *key)
{
	char group[32] = "";

	if (EVP_PKEY_get_base_id(key) == EVP_PKEY_RSA)
		return JOSE_RS256;
	if (EVP_PKEY_get_base_id(key) != EVP_PKEY_EC || EVP_PKEY_get_group_name(key, group, sizeof(group), NULL) != 1)
		return JOSE_OTHER;
	return strcmp(group, "prime256v1") == 0 ? JOSE_ES256 : strcmp(group, "secp384r1") == 0 ? JOSE_ES384 : JOSE_OTHER;
}

char *base64url_encode(const void *p, size_t len)
{
	char *s = malloc(BASE64_LEN(len) + 1);
	size_t n;

	if (!s)
		return NULL;
	base64_encode(p, len, s);
	for (n = 0; s[n] && s[n] != '='; n++)
		s[n] = s[n] == '+' ? '-' : s[n] == '/' ? '_' : s[n];
	s[n] = 0;
	return s;
}

/* libjose prints what it does not like on standard error, where a stranger's token has no business; we have messages of our own. */
static void say_nothing(void *misc, const char *file, int line, uint64_t err, const char *fmt, va_list ap)
{
}

/* 0; -ENOMEM; -ELIBACC: no libjose */
static int quiet(jose_cfg_t **ret)
{
	int err = lazy_jose();

	if (err)
		return err;
	*ret = jose_api->cfg();
	if (!*ret)
		return -ENOMEM;
	jose_api->cfg_set_err_func(*ret, say_nothing, NULL);
	return 0;
}

static void cfg_cleanup(jose_cfg_t **cfg)
{
	if (*cfg)
		jose_api->cfg_decref(*cfg);
}
#define CLEANUP_CFG CLEANUP(cfg_cleanup)

/* --- JWK --- */

static const char *string_member(const json_t *object, const char *name)
{
	const char *s = json_string_value(json_object_get(object, name));

	return s ? s : "";
}

static int rsa_check(const json_t *jwk)
{
	const char *n = string_member(jwk, "n");
	uint8_t modulus[RSA_BYTES_MAX];
	size_t len;

	if (base64_decode(n, strlen(n), true, modulus, sizeof(modulus), &len) || len < RSA_BYTES_MIN || !(modulus[0] & 0x80))
		return fail(-EPROTO, "an RSA key in a JWK that does not have 2048 to 8192 bits");
	if (!*string_member(jwk, "e") || strlen(string_member(jwk, "e")) > RSA_E_CHARS_MAX)
		return fail(-EPROTO, "an RSA key in a JWK whose exponent is missing or too big");
	return 0;
}

int jwk_check(const json_t *jwk)
{
	const char *kty = string_member(jwk, "kty"), *crv = string_member(jwk, "crv");

	if (json_object_get(jwk, "d") || json_object_get(jwk, "k"))
		return fail(-EPROTO, "a JWK with a private part");
	if (strcmp(kty, "RSA") == 0)
		return rsa_check(jwk);
	if (strcmp(kty, "EC"))
		return fail(-ENOTSUP, "a JWK of type \"%.32s\": RSA and EC are taken", kty);
	if (strcmp(crv, "P-256") && strcmp(crv, "P-384"))
		return fail(-ENOTSUP, "a JWK on curve \"%.32s\": P-256 and P-384 are taken", crv);
	return 0;
}

json_t *jwk_from_key(EVP_PKEY *key)
{
	CLEANUP_CFG jose_cfg_t *cfg = NULL;
	uint8_t *der = NULL;
	int len = i2d_PUBKEY(key, &der);
	const uint8_t *p = der;
	/* libjose would write out a private key in full, so it only sees the public half */
	EVP_PKEY *public = len > 0 ? d2i_PUBKEY(NULL, &p, len) : NULL;
	json_t *jwk = public && !quiet(&cfg) ? jose_api->openssl_jwk_from_EVP_PKEY(cfg, public) : NULL;

	EVP_PKEY_free(public);
	OPENSSL_free(der);
	ERR_clear_error();
	return jwk;
}

int jwk_to_key(const json_t *jwk, EVP_PKEY **ret)
{
	CLEANUP_CFG jose_cfg_t *cfg = NULL;
	int err = jwk_check(jwk);
	EVP_PKEY *key;

	if (!err)
		err = quiet(&cfg);
	if (err)
		return err;
	key = jose_api->openssl_jwk_to_EVP_PKEY(cfg, jwk);
	ERR_clear_error();
	if (!key)
		return fail(-EPROTO, "a JWK that is no public key");
	*ret = key;
	return 0;
}

int jwk_thumbprint(const json_t *jwk, char ret[static JWK_THUMBPRINT_LEN + 1])
{
	CLEANUP_CFG jose_cfg_t *cfg = NULL;
	int err = jwk_check(jwk);
	json_t *text;

	if (!err)
		err = quiet(&cfg);
	if (err)
		return err;
	text = jose_api->jwk_thp(cfg, jwk, "S256");
	if (json_string_length(text) != JWK_THUMBPRINT_LEN) {
		json_decref(text);
		return fail(-EIO, "the thumbprint of a JWK could not be computed");
	}
	memcpy(ret, json_string_value(text), JWK_THUMBPRINT_LEN + 1);
	json_decref(text);
	return 0;
}

/* --- JWS --- */

/* A base64url part that holds a JSON object. */
static json_t *part_object(const char *text, size_t len)
{
	size_t max = len / 4 * 3 + 3, n = 0;
	CLEANUP_FREE char *plain = malloc(max);
	json_t *object = NULL;

	if (plain && base64_decode(text, len, true, plain, max, &n) == 0)
		object = json_in(plain, n, JSON_PART_NODES);
	if (json_is_object(object))
		return object;
	json_decref(object);
	return NULL;
}

int jws_parse(const char *text, size_t len, struct jws *ret)
{
	const char *dot = memchr(text, '.', MIN(len, HEADER_MAX)), *dot2, *end = text + len;
	CLEANUP_JWS struct jws j = {0};

	if (len > JWS_MAX)
		return fail(-EPROTO, "a token of %zu bytes is too long", len);
	dot2 = dot ? memchr(dot + 1, '.', (size_t)(end - dot - 1)) : NULL;
	if (!dot2 || memchr(dot2 + 1, '.', (size_t)(end - dot2 - 1)))
		return fail(-EPROTO, "not a token: three parts with dots between are expected");
	j.header = part_object(text, (size_t)(dot - text));
	j.claims = part_object(dot + 1, (size_t)(dot2 - dot - 1));
	if (!j.header || !j.claims)
		return fail(-EPROTO, "the %s of a token is not a JSON object in base64url", j.header ? "body" : "header");
	if (json_object_get(j.header, "crit"))
		return fail(-EPROTO, "a token with critical header members (\"crit\"), which are not supported");
	/* json_stringn() refuses what is not UTF-8; then there is no signature to check */
	j.flat = json_object();
	if (!j.flat || json_object_set_new(j.flat, "protected", json_stringn(text, (size_t)(dot - text))) ||
	    json_object_set_new(j.flat, "payload", json_stringn(dot + 1, (size_t)(dot2 - dot - 1))))
		return -ENOMEM;
	(void)json_object_set_new(j.flat, "signature", json_stringn(dot2 + 1, (size_t)(end - dot2 - 1)));
	for (size_t i = 0; i < ARRAY_SIZE(algorithms); i++)
		if (strcmp(string_member(j.header, "alg"), algorithms[i].name) == 0)
			j.alg = algorithms[i].alg;
	*ret = j;
	memset(&j, 0, sizeof(j));
	return 0;
}

void jws_free(struct jws *j)
{
	json_decref(j->header);
	json_decref(j->claims);
	json_decref(j->flat);
	memset(j, 0, sizeof(*j));
}

int jws_verify(const struct jws *j, const json_t *jwk, unsigned algs)
{
	const struct algorithm *a = algorithm_of(j->alg);
	CLEANUP_CFG jose_cfg_t *cfg = NULL;
	int err = jwk_check(jwk);
	bool good;

	if (!err)
		err = quiet(&cfg);
	if (err)
		return err;
	if (!a || !(j->alg & algs))
		return fail(-EACCES, "a token signed with \"%.32s\", which is not allowed here", string_member(j->header, "alg"));
	if (strcmp(string_member(jwk, "kty"), a->kty) || (a->crv && strcmp(string_member(jwk, "crv"), a->crv)))
		return fail(-EACCES, "a token signed with %s, but its key is of another kind", a->name);
	good = jose_api->jws_ver(cfg, j->flat, NULL, jwk, false);
	ERR_clear_error();
	return good ? 0 : fail(-EACCES, "the signature of a token does not fit its key");
}

/* --- signing --- */

/* OpenSSL's DER form -> r and s, each of a fixed length (RFC 7518 3.4) */
static int signature_raw(const struct algorithm *a, uint8_t *sig, size_t *len)
{
	const uint8_t *p = sig;
	ECDSA_SIG *s = d2i_ECDSA_SIG(NULL, &p, (long)*len);
	bool ok = s && BN_bn2binpad(ECDSA_SIG_get0_r(s), sig, (int)a->coordinate) > 0 &&
		  BN_bn2binpad(ECDSA_SIG_get0_s(s), sig + a->coordinate, (int)a->coordinate) > 0;

	ECDSA_SIG_free(s);
	*len = 2 * a->coordinate;
	return ok ? 0 : -EIO;
}

static int signature_make(EVP_PKEY *key, const struct algorithm *a, const char *text, size_t len, uint8_t ret[static SIGNATURE_MAX],
			  size_t *ret_len)
{
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	EVP_PKEY_CTX *pctx = NULL; /* belongs to md */
	size_t n = SIGNATURE_MAX;
	bool ok;

	ok = md && EVP_PKEY_get_size(key) <= SIGNATURE_MAX && EVP_DigestSignInit_ex(md, &pctx, a->digest, NULL, NULL, key, NULL) == 1;
	if (ok && a->alg == JOSE_PS256)
		ok = EVP_PKEY_CTX_set_rsa_padding(pctx, RSA_PKCS1_PSS_PADDING) == 1 &&
		     EVP_PKEY_CTX_set_rsa_pss_saltlen(pctx, RSA_PSS_SALTLEN_DIGEST) == 1;
	ok = ok && EVP_DigestSign(md, ret, &n, (const uint8_t *)text, len) == 1;
	EVP_MD_CTX_free(md);
	ERR_clear_error();
	if (!ok || (a->coordinate && signature_raw(a, ret, &n)))
		return fail(-EIO, "a token could not be signed with %s", a->name);
	*ret_len = n;
	return 0;
}

/* Compact JSON as base64url. */
static char *part_text(const json_t *object)
{
	CLEANUP_FREE char *text = json_dumps(object, JSON_COMPACT);

	return text ? base64url_encode(text, strlen(text)) : NULL;
}

static char *header_text(const json_t *header, const struct algorithm *a)
{
	json_t *full = header ? json_copy((json_t *)header) : json_object();
	char *text = NULL;

	if (full && json_object_set_new(full, "alg", json_string(a->name)) == 0)
		text = part_text(full);
	json_decref(full);
	return text;
}

int jws_sign(EVP_PKEY *key, enum jose_alg alg, const json_t *header, const json_t *claims, char **ret)
{
	const struct algorithm *a = algorithm_of(alg);
	enum jose_alg natural = jose_alg_of(key);
	CLEANUP_FREE char *head = NULL, *body = NULL, *tail = NULL;
	char *whole;
	uint8_t sig[SIGNATURE_MAX];
	CLEANUP_FREE char *text = NULL;
	size_t sig_len = 0;
	int err;

	if (!a || (natural != alg && !(natural == JOSE_RS256 && alg == JOSE_PS256)))
		return fail(-EINVAL, "a key that does not sign with %s", a ? a->name : "this algorithm");
	head = header_text(header, a);
	body = part_text(claims);
	if (!head || !body)
		return -ENOMEM;
	if (asprintf(&text, "%s.%s", head, body) < 0) {
		text = NULL;
		return -ENOMEM;
	}
	err = signature_make(key, a, text, strlen(text), sig, &sig_len);
	if (err)
		return err;
	tail = base64url_encode(sig, sig_len);
	if (!tail || asprintf(&whole, "%s.%s", text, tail) < 0)
		return -ENOMEM;
	*ret = whole;
	return 0;
}
