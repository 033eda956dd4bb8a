/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of the KAS server: what a call is, and who does what with it.  Private to kas/serve*.c.
 *
 *   serve_conn.c    connections: peers, deadlines, waiting for the issuer's keys
 *   serve_http.c    libmicrohttpd: bodies and answers; makes a struct call of each request
 *   serve_call.c    HTTP-free: route, content type, codec, who is asking; hands the message to its handler, makes the answer
 *   serve_cors.c    pages of other origins
 *   serve_public.c  the calls that anybody may make
 *   serve_srt.c     request tokens
 *   serve_rewrap.c  the call that gives keys out
 *   serve_volume.c  the volume key, over the unix socket alone
 *   serve_wrapper.c clients' keys
 *   serve_audit.c   result codes, callers in the audit log
 *   serve_limits.c  how often a caller may fail, how many keys he gets
 */
#ifndef TDFS_SERVE_I_H
#define TDFS_SERVE_I_H

#include <sys/types.h>

#include "access.h"
#include "audit.h"
#include "dpop.h"
#include "jwks.h"
#include "kas.h"
#include "key_socket.h"
#include "proto.h"
#include "serve.h"

#define SERVE_BODY_MAX ((size_t)2 << 20) /* a rewrap, before and after inflation: 1000 files and more */
#define SERVE_SMALL_MAX ((size_t)64 << 10) /* other calls with a token */
#define SERVE_PUBLIC_MAX ((size_t)4 << 10) /* those without: times the connections, that is what strangers can fill */
#define SERVE_ANSWER_MAX ((size_t)4 << 20)
#define SERVE_POLICIES_MAX 1000 /* in one call */
#define SERVE_OBJECTS_MAX 16    /* key access objects of one policy */
#define SERVE_RSA_MAX 2000      /* operations with an RSA private key in one call: an object without a known kid takes one for each key */
#define SERVE_TEXT 256

enum serve_code {
	CODE_OK,
	CODE_INVALID_ARGUMENT,
	CODE_UNAUTHENTICATED,
	CODE_PERMISSION_DENIED,
	CODE_NOT_FOUND,
	CODE_RESOURCE_EXHAUSTED,
	CODE_UNIMPLEMENTED,
	CODE_INTERNAL,
	CODE_UNAVAILABLE,
};

enum codec { CODEC_JSON, CODEC_PROTO, CODEC_GRPC, CODEC_BARE /* JSON of the older REST interface */ };

struct serve {
	struct serve_config *config;
	struct kas *kas;       /* borrowed */
	struct access *access; /* NULL: a unix socket, whoever may connect may open everything */
	struct jwks *jwks;     /* NULL: likewise */
	struct audit *audit;
	struct replays *replays;
	struct limits *limits;
	struct wrappers *sessions;
	struct secret *nonce_key; /* proofs need a nonce made with it; NULL: none */
};

/* One request, whatever carried it. */
struct call {
	/* in, borrowed; NULL: not there */
	const char *method, *path, *peer;
	const char *content_type, *content_encoding, *authorization, *dpop, *request_id, *connect_version, *user_agent;
	const char *origin, *preflight; /* of a page in a browser, and what it wants to ask with: the method, when it asks whether it may */
	const char *(*argument)(void *ctx, const char *name); /* of the query */
	void *ctx;
	uint64_t peer_hash; /* whom failures are counted for */
	bool local;         /* over the unix socket, from @uid */
	uid_t uid;

	/* after serve_begin() */
	const struct route *route;
	enum codec codec;
	size_t body_max;
	struct token *token; /* owned; NULL: a public call, or a local one */
	json_t *proof_key;   /* owned; the key that signed the DPoP proof; NULL: none */

	/* the answer, when serve_begin() says 1 and after serve_finish() */
	enum serve_code code;
	unsigned status;
	const char *type;    /* content type; NULL: no body */
	const char *readers; /* the origin whose pages may read it; NULL: none is told */
	struct buffer body;
	char text[SERVE_TEXT];
	bool challenge;       /* 401: say that a DPoP proof is what is missing or wrong */
	bool stale;           /* ... that it is the nonce */
	char nonce[DPOP_NONCE_LEN + 1]; /* for the next proof; "": none is needed */
	unsigned retry_after; /* seconds; 0: not said */
};

struct route {
	const char *path;
	bool get, post, keyed; /* keyed: needs a token */
	bool bare;             /* no Connect call: plain JSON */
	size_t body_max;
	const struct proto_field *request, *response;
	/* @request: the message, an object; @ret: a new reference.  Anything but CODE_OK: call_fail() was called */
	enum serve_code (*run)(struct serve *s, struct call *c, const json_t *request, json_t **ret);
};

/** serve_begin() - all that can be said before the body is there
 * 0: read at most c->body_max bytes, then serve_finish(); 1: the answer is there; -EAGAIN: ask again when the issuer's keys have come */
int serve_begin(struct serve *s, struct call *c) MUST_CHECK;
/** serve_finish() - the answer to a call with this body */
void serve_finish(struct serve *s, struct call *c, const void *body, size_t len);
/** cors_check() - the member "cors" of the configuration; 0 or -EPROTO, fail() tells */
int cors_check(const json_t *list) MUST_CHECK;
/** cors_allowed() - what a page of this origin is answered with; borrowed from @list; NULL: it may not read the answer */
const char *cors_allowed(const json_t *list, const char *origin);
#define CORS_HEADERS 5
struct cors_header {
	const char *name, *value;
};
/** cors_headers() - what a browser is to be told with this answer; how many */
size_t cors_headers(const struct call *c, struct cors_header ret[static CORS_HEADERS]);
/** call_free() - what it owns; begins anew as zeroed */
void call_free(struct call *c);
/** call_fail() - @text: what the caller is told; the answer of a handler that failed */
enum serve_code call_fail(struct call *c, enum serve_code code, const char *fmt, ...) PRINTF_LIKE(3, 4);
/** call_answer_error() - the answer out of c->code and c->text */
void call_answer_error(struct call *c);
const char *code_name(enum serve_code code);
unsigned code_http(enum serve_code code);
unsigned code_grpc(enum serve_code code);

extern const struct route serve_routes[];

/** srt_open() - the request body out of a rewrap request's token; a new reference, an object */
enum serve_code srt_open(struct call *c, const json_t *request, int64_t now, json_t **ret) MUST_CHECK;
/* serve_volume.c: the volume key, for processes of this user */
enum serve_code volume_key_run(struct serve *s, struct call *c, const json_t *request, json_t **ret);
enum serve_code rewrap_run(struct serve *s, struct call *c, const json_t *request, json_t **ret);

/** Members of a request as Connect has them: camelCase, or the field's own name with underscores. */
const json_t *member(const json_t *o, const char *camel, const char *snake);

/** audit_caller() - who asks: ,"request":...,"peer":...,"sub":... */
void audit_caller(struct buffer *b, const struct call *c);
/** audit_refusal() - a call that was refused before anything was asked of a key, unless there were many lately; audit_refused_keys() - one that
 * was refused after that, always */
void audit_refusal(struct serve *s, const struct call *c, const char *why);
void audit_refused_keys(struct serve *s, const struct call *c, const char *why);

struct wrapper {            /* all owned */
	EVP_PKEY *key;      /* of the client */
	struct secret *kek; /* EC: what it makes with our session key; NULL: RSA */
	char *pem;          /* our session key's public half */
};
struct wrappers;
struct wrappers *wrappers_new(void) MUST_CHECK;
void wrappers_free(struct wrappers *v);
/** wrappers_expire() - wipe those whose minute is over, or all */
void wrappers_expire(struct wrappers *v, bool all);
/** wrapper_get() - for a client's public key; 0; -EPROTO, -ENOTSUP it is none; -EIO; -ENOMEM.  Free with wrapper_free(), fine on a zeroed
 * one */
int wrapper_get(struct wrappers *v, const char *pem, size_t len, struct wrapper *ret) MUST_CHECK;
void wrapper_free(struct wrapper *s);

struct limits;
struct limits *limits_new(double failures, double keys) MUST_CHECK;
void limits_free(struct limits *l);
/** caller_hash() - whom keys are counted for: the token's subject, whichever token he shows; 0: no token.  caller_failures(): whom failures
 * with good tokens are counted for */
uint64_t caller_hash(const struct call *c);
uint64_t caller_failures(const struct call *c);
/** limits_failed() - one failure more of this peer or caller; limits_blocked(): has he had too many?  Then the seconds to wait, else 0 */
void limits_failed(struct limits *l, uint64_t peer);
unsigned limits_blocked(struct limits *l, uint64_t peer) MUST_CHECK;
/** limits_keys() - may this caller have @n keys now?  0, or the seconds to wait */
unsigned limits_keys(struct limits *l, uint64_t who, size_t n) MUST_CHECK;
/** limits_spent() - he had the work of @n keys more than he asked for */
void limits_spent(struct limits *l, uint64_t who, size_t n);
/** limits_note() - may another line about refusals be written now? */
bool limits_note(struct limits *l);

#endif
