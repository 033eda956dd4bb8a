/* SPDX-License-Identifier: Apache-2.0 */
/* Between the remote*.c files. */
#ifndef TDFS_REMOTE_INT_H
#define TDFS_REMOTE_INT_H

#include <jansson.h>

#include "lock.h"
#include "oidc.h"
#include "remote.h"

#define REST_REWRAP "/v2/rewrap"
#define REST_PUBLIC_KEY "/v2/kas_public_key"
#define ANSWER_BASE ((size_t)64 << 10)
#define ANSWER_ITEM ((size_t)2 << 10)

struct breaker {
	enum remote_state state;
	unsigned fails; /* in a row */
	unsigned backoff_ms;
	int64_t open_until;
	bool probing; /* half open: the one call that finds out is under way */
	int err;
	char text[200];
};

struct remote {
	/* fixed after remote_new() */
	char *name; /* the URL as configured */
	struct url url;
	struct http *http;
	struct oidc *oidc; /* NULL: public calls only */
	unsigned total_ms;

	struct mutex lock; /* a leaf */
	struct breaker breaker;
	struct remote_stats stats;
	char nonce[257];  /* the KAS's last one */
	int64_t skew;     /* seconds its clock is ahead of ours */
	bool rest;        /* an older server: REST v2 below our path */
	bool session_rsa; /* it cannot do EC session keys, or is not to */
	EVP_PKEY *rsa;    /* made when first needed */
};

/* --- remote_breaker.c --- */

/* May a call go out?  0, or at once the error of the outage.  A 0 must be answered by one breaker_leave(). */
int breaker_enter(struct remote *r) MUST_CHECK;
/* @err: 0 = it answered, whatever it said; else the outage, with fail_text() */
void breaker_leave(struct remote *r, int err);
/* not an outage: the KAS was not asked after all */
void breaker_cancel(struct remote *r);

/* --- remote_send.c --- */

struct exchange {
	const char *connect;  /* path at the origin */
	bool get;             /* that by GET */
	const char *rest;     /* what follows our own path on an older server; NULL: there is no such thing */
	const char *rest_get; /* not NULL: by GET, with this query */
	const char *body;     /* of a public call: JSON; of a rewrap: the requestBody, to be signed; NULL with get */
	bool sign;            /* a rewrap: with token and signed request token */
	bool token;           /* with token, the body as it is */
	bool may_lack;        /* where the server has no such path its answer is taken as it is: remote_lacks() */
	size_t answer_max;
	int64_t deadline;
};

/* With tries, tokens, nonces, and the older protocol where needed.
 * 0: an answer to be read, its status is 200 or a verdict in JSON (400, 403, 404...); -EACCES our login; -ETIMEDOUT, -EIO: outage; -ENOMEM
 */
int remote_exchange(struct remote *r, const struct exchange *x, struct http_answer *ret) MUST_CHECK;

/* Not the path of anything on that server: neither a verdict nor an outage */
bool remote_lacks(const struct http_answer *a);

/* "code: message" of a Connect error, printable; "" if it is none */
void connect_error(const struct http_answer *a, char *ret, size_t room);

/* --- remote.c --- */

/* @j's "kid" and @member as a public key for @algorithm; 0; -ENOTSUP no algorithm of ours; -EPROTO */
int remote_key_take(const struct remote *r, const json_t *j, const char *member, const char *algorithm, char **ret_pem, char **ret_kid) MUST_CHECK;

/* --- remote_plan.c --- */

struct mapping {                  /* of one attribute value */
	const char *definition;   /* its FQN up to the value's name */
	size_t definition_len;
	bool any;                 /* the definition's rule is anyOf */
	struct remote_mapped *keys; /* none: no wish */
	size_t n;
};
/* Which of the keys, in which splits; both out parameters as remote_mappings().  0, -ENOSPC, -ENOMEM */
int mappings_plan(const struct mapping *m, size_t n, struct remote_mapped **ret, size_t *ret_n) MUST_CHECK;

/* --- remote_message.c --- */

enum item_kind { ITEM_PLAIN, ITEM_ATTRIBUTED, ITEM_ALONE, ITEM_BAD };

/* How @i has to be sent; ITEM_BAD: its err and text are set, there is nothing to ask.  @like: an item that is of @kind, so that the same
 * policy is not read again; or NULL */
enum item_kind item_kind(const struct remote *r, struct remote_item *i, const struct remote_item *like, enum item_kind kind);
/* requestBody; malloc'd; NULL if out of memory */
char *request_make(struct remote_item *const *items, size_t n, const char *client_pem, bool rsa) MUST_CHECK;

enum verdict { VERDICT_NONE, VERDICT_KEY, VERDICT_DENIED, VERDICT_UNDECIDED, VERDICT_BAD, VERDICT_INVALID, VERDICT_OUTAGE };
/* what an error text about one key means; UNDECIDED = pdp-denied, INVALID = "invalid request" */
enum verdict verdict_of(const char *text);
/* a verdict other than KEY and NONE as the item's result */
void item_fail(struct remote_item *i, enum verdict v, const char *text);

/* Read a 200: @verdicts gets one each; an item whose verdict is KEY has its share, any other its err and text.  0; -EPROTO not an answer
 * (then nothing is set) */
int answer_take(const struct http_answer *a, EVP_PKEY *client, struct remote_item *const *items, size_t n,
		enum verdict *verdicts) MUST_CHECK;

#endif
