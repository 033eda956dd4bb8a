/* SPDX-License-Identifier: Apache-2.0 */
/* Private to jwks.c (keys) and token.c (tokens). */
#ifndef TDFS_JWKS_I_H
#define TDFS_JWKS_I_H

#include "jwks.h"
#include "lock.h"

#define TOKEN_SETS 256
#define TOKEN_WAYS 4

struct jwks {
	/* fixed after jwks_new() */
	char *issuer, *audience, *jwks_uri, *jwks_file;
	unsigned algs;
	int (*get)(void *ctx, const char *url, size_t max, char **ret);
	void *ctx;
	void (*on_done)(void *arg);
	void *arg;
	pthread_t thread;
	bool has_thread;

	struct mutex lock; /* a leaf */
	struct cond wake;
	/* guarded by lock */
	json_t *discovery;
	json_t *keys;           /* array of public keys; replaced as a whole */
	int64_t fetched, tried; /* CLOCK_MONOTONIC seconds; 0 never */
	bool wanted, busy, stop;

	_Atomic uint64_t generation; /* counts changes of keys; written under lock */

	struct mutex cache_lock; /* a leaf */
	/* guarded by cache_lock */
	struct token *tokens[TOKEN_SETS][TOKEN_WAYS];
	unsigned next[TOKEN_SETS];
};

int64_t jwks_clock(void);
/** jwks_find() - the key a token names, a new reference; @kid NULL: the only one there is.  NULL: not known */
json_t *jwks_find(struct jwks *j, const char *kid, uint64_t *ret_generation) MUST_CHECK;
/** jwks_want() - a key is not among them: have the thread ask, unless it has just done so
 * -EAGAIN on_done will be called; -EACCES the issuer has just said all it has; -EIO the issuer did not answer lately */
int jwks_want(struct jwks *j) MUST_CHECK;
/** tokens_drop() - forget all tokens that were checked */
void tokens_drop(struct jwks *j);

#endif
