/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One HTTP/1.1 request and its answer, over libcurl: TLS 1.2 and up with the given CA or the system's, kept connections, and a bound on
 * everything.
 *
 * No redirects, no proxy from the environment, no cookies, no .netrc, no decompression, no other protocol.  An address is checked at the
 * moment it is connected to (address_check()), so a name that resolves differently the second time gains nothing. Thread-safe; up to
 * HTTP_CONNECTIONS requests at a time, further ones wait within their deadline.  Make it after the last fork().
 */
#ifndef TDFS_HTTP_H
#define TDFS_HTTP_H

#include "url.h"

#define HTTP_CONNECTIONS 16
#define HTTP_HEADER_MAX ((size_t)32 << 10) /* of an answer, all of them */

struct http; /* opaque */

struct http_config {
	const char *ca_file;  /* NULL: the system's; given: nothing but this file */
	const char *spki_pin; /* "sha256//BASE64[;...]" besides the CA; NULL: none */
	const char *allow;    /* address_list_parse() */
	unsigned connect_ms;  /* 0: 4 s */
	unsigned idle_ms;     /* without a byte either way; 0: 5 s; counted in whole seconds */
};

/** http_new() - copies all; 0; -EINVAL pin or list; -ENOENT, -EACCES... no such CA file; -ENOMEM.  Free with http_free() when no request
 * runs. */
int http_new(const struct http_config *c, struct http **ret) MUST_CHECK;
void http_free(struct http *h);

struct http_request {
	const struct url *url;
	const char *path;         /* instead of the URL's; NULL: its own */
	const char *content_type; /* NULL: GET; else POST */
	const char *body;         /* of a POST */
	size_t body_len;
	const char *const *headers; /* full lines, NULL-ended; NULL: none */
	bool pinned;                /* demand the SPKI pin of the configuration, if it has one */
	size_t answer_max;          /* bytes of body */
	int64_t deadline;           /* http_now() milliseconds */
};

struct http_answer {
	long status; /* 100..599 */
	char *body;  /* malloc'd, NUL added; never NULL */
	size_t len;
	char content_type[64];  /* lower case, without parameters; "" if absent */
	char dpop_nonce[257];   /* "" if absent or too long */
	char authenticate[257]; /* WWW-Authenticate, cut */
	int64_t date;           /* seconds; 0 if absent */
	unsigned retry_after;   /* seconds; 0 if absent */
	unsigned took_us;
};

/** http_now() - milliseconds of CLOCK_MONOTONIC */
int64_t http_now(void);

/** http_call() - one request
 * A GET or POST on a kept connection that the server has closed meanwhile is sent once more by itself, on a new one.
 * 0: an answer with any status.  -ETIMEDOUT; -ECONNREFUSED not connected; -ECONNRESET no whole answer; -EHOSTUNREACH name not resolved;
 * -EPERM address not allowed; -EKEYREJECTED certificate, name, pin or TLS version not accepted (nothing was sent); -EPROTO not HTTP, or
 * longer than allowed; -ENOMEM.  fail() says what. Free the answer with http_answer_free(). */
int http_call(struct http *h, const struct http_request *q, struct http_answer *ret) MUST_CHECK;
/** http_answer_free() - wipes the body; fine on a zeroed one */
void http_answer_free(struct http_answer *a);
#define CLEANUP_ANSWER CLEANUP(http_answer_free)

/** http_is_json() - application/json */
bool http_is_json(const struct http_answer *a);

#endif
