/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keys that an issuer signs its access tokens with, kept fresh by a thread of their own, and the tokens that were checked lately.
 *
 * Nobody waits for the issuer here: a token whose key is not known is -EAGAIN, the thread asks the issuer (at most once in JWKS_RETRY
 * seconds, however many ask) and says so through @on_done.  Without the issuer the last keys go on for JWKS_STALE_MAX seconds. Thread-safe.
 * Source: RFC 7517, RFC 7519, RFC 9068, OpenID Connect Discovery 1.0.
 */
#ifndef TDFS_JWKS_H
#define TDFS_JWKS_H

#include <jansson.h>

#include "defs.h"
#include "jose.h"

#define JWKS_KEYS_MAX 64
#define JWKS_TEXT_MAX ((size_t)256 << 10)
#define JWKS_REFRESH 300     /* seconds between two refreshes */
#define JWKS_RETRY 10        /* at least, between two attempts */
#define JWKS_STALE_MAX 86400 /* seconds that keys are believed without the issuer */
#define TOKEN_MAX ((size_t)16 << 10)
#define TOKEN_SKEW 60 /* seconds */

struct jwks; /* opaque */

struct jwks_config { /* strings are copied */
	const char *issuer, *audience;
	const char *jwks_uri;  /* NULL: from the issuer's discovery document */
	const char *jwks_file; /* instead of asking anybody; read again at jwks_refresh() */
	unsigned algs;         /* JOSE_ES256 | ...; 0 = JOSE_ALL */
	/* GET @url, at most @max bytes, malloc'd and NUL-terminated; 0 or -errno with fail().  Called by the thread */
	int (*get)(void *ctx, const char *url, size_t max, char **ret);
	void *ctx;
	void (*on_done)(void *arg); /* after each attempt, by the thread; may be NULL */
	void *arg;
};

/** jwks_new() - without keys yet: the thread starts to fetch them at once.  With a file: read before it returns.
 * 0; -EPROTO, -errno of the file; -ENOMEM.  fail() tells */
int jwks_new(const struct jwks_config *c, struct jwks **ret) MUST_CHECK;
void jwks_free(struct jwks *j);
/** jwks_refresh() - ask now; returns at once */
void jwks_refresh(struct jwks *j);
/** jwks_keys() - how many keys are known; @ret_age: seconds since the issuer gave them, -1 never */
size_t jwks_keys(struct jwks *j, int64_t *ret_age);
/** jwks_discovery() - the issuer's discovery document, a new reference; NULL: not fetched */
json_t *jwks_discovery(struct jwks *j);

struct token { /* one that was good when it was checked; immutable but for its count */
	_Atomic unsigned refs;
	json_t *claims;
	const char *subject;              /* sub, else client_id, azp, or ""; points into claims */
	const char *client;               /* client_id, azp, or NULL */
	char jkt[JWK_THUMBPRINT_LEN + 1]; /* the key it is bound to (RFC 9449), "" if it is not */
	int64_t exp;
	uint64_t generation; /* of the keys */
	uint8_t hash[32];    /* SHA-256 of its text */
};
void token_put(struct token *t);
static inline void token_cleanup(struct token **t)
{
	token_put(*t);
}
#define CLEANUP_TOKEN CLEANUP(token_cleanup)

/** token_check() - signature, issuer, audience and times of an access token; without "exp" it is refused
 * @ret: token_put() it.  0; -EACCES (fail() says why); -EAGAIN its key is not known, and asking has begun;
 * -EIO its key is not known and the issuer does not answer; -ENOMEM */
int token_check(struct jwks *j, const char *text, size_t len, int64_t now, struct token **ret) MUST_CHECK;

#endif
