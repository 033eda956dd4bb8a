/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Proofs that the caller holds the key his token is bound to (DPoP), and that each is used once.  The server's side.
 *
 * Thread-safe; never blocks.  Source: RFC 9449 sections 4.3 and 9.
 */
#ifndef TDFS_DPOP_H
#define TDFS_DPOP_H

#include <jansson.h>

#include "defs.h"
#include "jose.h"
#include "secret.h"

#define DPOP_MAX ((size_t)8 << 10)
#define DPOP_AGE 300  /* seconds a proof is good */
#define DPOP_AHEAD 60 /* and how far the caller's clock may be ahead */

struct replays; /* the proofs seen lately: 2^16 sets of 4, 4 MiB; a full set forgets the oldest */

struct replays *replays_new(void) MUST_CHECK;
void replays_free(struct replays *r);

#define DPOP_NONCE_LEN 22
#define DPOP_NONCE_LIFE 150 /* seconds one is handed out; it is taken for as long again */

/** dpop_nonce() - the nonce of this time: the same for every caller, unguessable before, without state; 0, -EIO, -ENOMEM */
int dpop_nonce(const struct secret *key, int64_t now, char ret[static DPOP_NONCE_LEN + 1]) MUST_CHECK;

struct dpop_request {
	const char *method;
	const char *origin; /* "https://kas.example.org", what clients reach us by */
	const char *path;   /* without the query */
	const char *token;
	int64_t now;
	const struct secret *nonce_key; /* NULL: none is demanded */
};

/** dpop_check() - is this proof good for this request, and used for the first time?
 * "htu" is a whole URL of our origin or, as some clients have it, the path alone; its query does not matter.
 * @ret_jwk: the key that signed it, a new reference; @ret_jkt: its thumbprint
 * 0; -ESTALE all is well but that it lacks a nonce of now; -EACCES (fail() says why); -ENOMEM; -EIO */
int dpop_check(struct replays *r, const struct dpop_request *q, const char *proof, size_t len, json_t **ret_jwk,
	       char ret_jkt[static JWK_THUMBPRINT_LEN + 1]) MUST_CHECK;

#endif
