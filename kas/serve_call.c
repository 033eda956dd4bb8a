/* SPDX-License-Identifier: Apache-2.0 */
/* From a request to its answer, whatever carried it: route, codec, who is asking, the message in and out.  No sockets: fuzzed as it is
 * (tests/fuzz/serve.c). */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <strings.h>
#include <time.h>
#include <zlib.h>

#include "encode.h"
#include "json_in.h"
#include "report.h"
#include "serve_i.h"

enum serve_code call_fail(struct call *c, enum serve_code code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(c->text, sizeof(c->text), fmt, ap);
	va_end(ap);
	return code;
}

void call_free(struct call *c)
{
	token_put(c->token);
	json_decref(c->proof_key);
	buffer_free(&c->body);
	memset(c, 0, sizeof(*c));
}

const json_t *member(const json_t *o, const char *camel, const char *snake)
{
	const json_t *v = json_object_get(o, camel);

	return v ? v : json_object_get(o, snake);
}

/* --- before the body --- */

static const struct route *route_find(const char *path)
{
	for (int strip = 0; strip < 2; strip++) {
		for (const struct route *r = serve_routes; r->path; r++)
			if (strcmp(path, r->path) == 0)
				return r;
		if (strncmp(path, "/kas/", 5))
			break;
		path += 4; /* some clients keep the path of the KAS's URL */
	}
	return NULL;
}

static bool type_is(const char *have, const char *want)
{
	size_t n = have ? strcspn(have, "; \t") : 0;

	return n == strlen(want) && strncasecmp(have, want, n) == 0;
}

/* An answer without a body.  415: its reader is one that does not know what we speak */
static int refuse(struct call *c, unsigned status)
{
	c->status = status;
	c->type = NULL;
	return 1;
}

static int pick_codec(struct call *c)
{
	const char *encoding = c->argument ? c->argument(c->ctx, "encoding") : NULL;

	if (c->route->bare) {
		c->codec = CODEC_BARE;
		return strcmp(c->method, "POST") == 0 && !type_is(c->content_type, "application/json") ? refuse(c, 415) : 0;
	}
	if (strcmp(c->method, "GET") == 0) {
		c->codec = encoding && strcmp(encoding, "proto") == 0 ? CODEC_PROTO : CODEC_JSON;
		return encoding && c->codec == CODEC_JSON && strcmp(encoding, "json") ? refuse(c, 415) : 0;
	}
	if (type_is(c->content_type, "application/json"))
		c->codec = CODEC_JSON;
	else if (type_is(c->content_type, "application/proto"))
		c->codec = CODEC_PROTO;
	else if (type_is(c->content_type, "application/grpc") || type_is(c->content_type, "application/grpc+proto"))
		c->codec = CODEC_GRPC;
	else
		return refuse(c, 415);
	return 0;
}

void call_answer_error(struct call *c)
{
	buffer_free(&c->body);
	c->body = buffer_of(SERVE_ANSWER_MAX);
	c->status = c->codec == CODEC_GRPC ? 200 : code_http(c->code);
	c->type = c->codec == CODEC_GRPC ? "application/grpc" : "application/json";
	if (c->codec == CODEC_GRPC) /* code and text go into headers */
		return;
	buffer_printf(&c->body, "{\"code\":\"%s\",\"message\":", code_name(c->code));
	buffer_json(&c->body, c->text, sizeof(c->text));
	buffer_text(&c->body, "}");
}

static int answer_error(struct call *c, enum serve_code code)
{
	c->code = code;
	call_answer_error(c);
	return 1;
}

/* "Bearer X" or "DPoP X" -> X; NULL: neither */
static const char *token_text(const char *authorization)
{
	static const char *const schemes[] = {"Bearer ", "DPoP "};

	for (size_t i = 0; authorization && i < ARRAY_SIZE(schemes); i++)
		if (strncasecmp(authorization, schemes[i], strlen(schemes[i])) == 0) {
			authorization += strlen(schemes[i]);
			return authorization + strspn(authorization, " ");
		}
	return NULL;
}

/* The proof that the caller holds the key his token is bound to, or says that he has. */
static int check_proof(struct serve *s, struct call *c, const char *token, int64_t now)
{
	const struct dpop_request q = {c->method, s->config->url, c->path, token, now, s->nonce_key};
	char jkt[JWK_THUMBPRINT_LEN + 1] = "";
	int err = s->nonce_key && (c->dpop || *c->token->jkt) ? dpop_nonce(s->nonce_key, now, c->nonce) : 0;

	if (err)
		return err;
	if (c->dpop)
		err = dpop_check(s->replays, &q, c->dpop, strlen(c->dpop), &c->proof_key, jkt);
	else if (*c->token->jkt || s->config->dpop_required)
		err = fail(-EACCES, "a DPoP proof is needed");
	if (!err && s->config->dpop_required && !*c->token->jkt) /* whoever took it would make a proof of his own */
		err = fail(-EACCES, "the access token is bound to no key, and DPoP is demanded");
	if (!err && *c->token->jkt && strcmp(jkt, c->token->jkt))
		err = fail(-EACCES, "the DPoP proof is by another key than the token is bound to");
	c->stale = err == -ESTALE;
	c->challenge = err == -EACCES || c->stale;
	return err;
}

uint64_t caller_hash(const struct call *c)
{
	uint8_t hash[32] = {0};

	if (c->token)
		(void)!sha256(&(struct part){c->token->subject, strlen(c->token->subject)}, 1, hash);
	return get_le64(hash);
}

uint64_t caller_failures(const struct call *c)
{
	return ~caller_hash(c); /* in the table of peers, whose hashes are salted */
}

/* Has whoever this is failed too often?  0 or 1 */
static int check_failures(struct serve *s, struct call *c, uint64_t who)
{
	unsigned wait = limits_blocked(s->limits, who);

	if (!wait)
		return 0;
	c->retry_after = wait;
	audit_refusal(s, c, "too many failures");
	call_fail(c, CODE_RESOURCE_EXHAUSTED, "too many failures: try again in %u s", wait);
	return answer_error(c, CODE_RESOURCE_EXHAUSTED);
}

/*
 * Failures of those with a good token are theirs, wherever they are: behind a proxy that is not told of they shut out nobody else.  But a
 * bad proof is the peer's: it may be somebody who has taken the token.
 */
static int check_caller(struct serve *s, struct call *c)
{
	const char *text = token_text(c->authorization);
	int64_t now = time(NULL);
	int err;

	if (!s->jwks) /* a unix socket: who may connect is known already */
		return 0;
	if (check_failures(s, c, c->peer_hash))
		return 1;
	err = text ? token_check(s->jwks, text, strlen(text), now, &c->token) : fail(-EACCES, "no access token");
	if (err == -EAGAIN)
		return err;
	if (!err)
		err = check_proof(s, c, text, now);
	if (!err)
		return check_failures(s, c, caller_failures(c));
	call_fail(c, CODE_UNAVAILABLE, "%s", err == -ENOMEM ? "out of memory" : fail_text());
	if (err == -EACCES)
		limits_failed(s->limits, c->peer_hash);
	if (err != -ESTALE) /* that is how every caller begins */
		audit_refusal(s, c, c->text);
	return answer_error(c, err == -EACCES || err == -ESTALE ? CODE_UNAUTHENTICATED : CODE_UNAVAILABLE);
}

int serve_begin(struct serve *s, struct call *c)
{
	bool get = strcmp(c->method, "GET") == 0, post = strcmp(c->method, "POST") == 0;
	int err;

	fail_clear();
	c->route = route_find(c->path);
	c->readers = cors_allowed(s->config->cors, c->origin);
	if (c->route && c->readers && c->preflight && strcmp(c->method, "OPTIONS") == 0)
		return refuse(c, 204); /* says which methods and headers, and needs no token: there is none with it */
	if (!c->route) {
		call_fail(c, CODE_NOT_FOUND, "there is nothing here: this is a KAS (OpenTDF key access service)");
		return answer_error(c, CODE_NOT_FOUND);
	}
	if ((get && !c->route->get) || (post && !c->route->post) || (!get && !post))
		return refuse(c, 405);
	err = pick_codec(c);
	if (err)
		return err;
	c->body_max = post ? c->route->body_max : 0;
	if (c->connect_version && strcmp(c->connect_version, "1")) {
		call_fail(c, CODE_INVALID_ARGUMENT, "Connect-Protocol-Version must be 1");
		return answer_error(c, CODE_INVALID_ARGUMENT);
	}
	if (c->content_encoding && strcasecmp(c->content_encoding, "gzip") && strcasecmp(c->content_encoding, "identity")) {
		call_fail(c, CODE_UNIMPLEMENTED, "a body may be compressed with gzip, nothing else");
		return answer_error(c, CODE_UNIMPLEMENTED);
	}
	return c->route->keyed ? check_caller(s, c) : 0;
}

/* --- the message in --- */

static enum serve_code inflate_body(struct call *c, const void *body, size_t len, struct buffer *ret)
{
	z_stream z = {.next_in = (Bytef *)body, .avail_in = (uInt)len};
	size_t room = MIN(c->body_max, len * 4 + 4096);
	char *at = buffer_room(ret, room);
	int rc = at && inflateInit2(&z, 15 + 16) == Z_OK ? Z_OK : Z_MEM_ERROR;

	while (rc == Z_OK && at) {
		z.next_out = (Bytef *)at;
		z.avail_out = (uInt)room;
		rc = inflate(&z, Z_NO_FLUSH);
		if (rc != Z_OK || z.avail_out)
			break;
		room = MIN(c->body_max - ret->len, ret->len);
		at = room ? buffer_room(ret, room) : NULL;
	}
	ret->len -= rc == Z_MEM_ERROR ? 0 : z.avail_out;
	if (rc != Z_MEM_ERROR)
		inflateEnd(&z);
	if (rc == Z_MEM_ERROR || buffer_error(ret))
		return call_fail(c, CODE_UNAVAILABLE, "out of memory");
	if (rc == Z_OK && !at)
		return call_fail(c, CODE_RESOURCE_EXHAUSTED, "the body is larger than %zu bytes", c->body_max);
	return rc == Z_STREAM_END && !z.avail_in ? CODE_OK : call_fail(c, CODE_INVALID_ARGUMENT, "the body is not gzip, as it says");
}

/* What a GET carries in its query. */
static enum serve_code query_message(struct call *c, struct buffer *ret)
{
	const char *text = c->argument(c->ctx, "message"), *b64 = c->argument(c->ctx, "base64"), *comp = c->argument(c->ctx, "compression");
	size_t len = text ? strlen(text) : 0, n = 0;
	char *at;

	if (comp && strcmp(comp, "identity") && *comp)
		return call_fail(c, CODE_UNIMPLEMENTED, "a message in the query may not be compressed");
	if (!b64 || strcmp(b64, "1")) {
		buffer_put(ret, text ? text : "", len);
		return buffer_error(ret) ? call_fail(c, CODE_INVALID_ARGUMENT, "the message is too long") : CODE_OK;
	}
	at = buffer_room(ret, len / 4 * 3 + 3);
	if (!at || base64_decode(text ? text : "", len, true, at, len / 4 * 3 + 3, &n))
		return call_fail(c, CODE_INVALID_ARGUMENT, "the message is not base64");
	ret->len = n;
	return CODE_OK;
}

static enum serve_code decode(struct call *c, const char *p, size_t len, json_t **ret)
{
	int err = 0;

	if (c->codec == CODEC_GRPC) {
		const uint8_t *h = (const uint8_t *)p;

		if (len < 5 || len - 5 != ((size_t)h[1] << 24 | h[2] << 16 | h[3] << 8 | h[4]))
			return call_fail(c, CODE_INVALID_ARGUMENT, "not one gRPC message");
		if (h[0])
			return call_fail(c, CODE_UNIMPLEMENTED, "a gRPC message may not be compressed");
		p += 5;
		len -= 5;
	}
	if (c->codec == CODEC_JSON || c->codec == CODEC_BARE)
		*ret = len ? json_in(p, len, JSON_CALL_NODES) : json_object();
	else
		err = proto_decode(c->route->request, p, len, ret);
	if (err == -ENOMEM)
		return call_fail(c, CODE_UNAVAILABLE, "out of memory");
	if (json_is_object(*ret))
		return CODE_OK;
	json_decref(*ret);
	*ret = NULL;
	return call_fail(c, CODE_INVALID_ARGUMENT, "the message is malformed");
}

static enum serve_code read_message(struct call *c, const void *body, size_t len, json_t **ret)
{
	struct buffer plain = buffer_of(MAX(c->body_max, SERVE_SMALL_MAX));
	enum serve_code code = CODE_OK;

	if (strcmp(c->method, "GET") == 0 && c->codec != CODEC_BARE)
		code = query_message(c, &plain);
	else if (c->content_encoding && strcasecmp(c->content_encoding, "gzip") == 0 && len)
		code = inflate_body(c, body, len, &plain);
	else
		code = len <= c->body_max ? decode(c, body, len, ret)
					  : call_fail(c, CODE_RESOURCE_EXHAUSTED, "the body is larger than %zu bytes", c->body_max);
	if (code == CODE_OK && !*ret)
		code = decode(c, plain.p ? plain.p : "", plain.len, ret);
	buffer_free(&plain);
	return code;
}

/* --- the message out --- */

static void answer_message(struct call *c, const json_t *message)
{
	uint8_t head[5] = {0};
	char *text;
	int err = 0;

	c->body = buffer_of(SERVE_ANSWER_MAX);
	c->status = 200;
	if (c->codec == CODEC_JSON || c->codec == CODEC_BARE) {
		text = json_dumps(message, JSON_COMPACT | JSON_ENCODE_ANY);
		if (text)
			buffer_text(&c->body, text);
		err = text ? buffer_error(&c->body) : -ENOMEM;
		free(text);
		c->type = "application/json";
	} else {
		if (c->codec == CODEC_GRPC)
			buffer_put(&c->body, head, sizeof(head));
		err = proto_encode(c->route->response, message, &c->body);
		c->type = c->codec == CODEC_GRPC ? "application/grpc" : "application/proto";
	}
	if (!err && c->codec == CODEC_GRPC)
		for (size_t i = 0; i < 4; i++)
			c->body.p[1 + i] = (char)((c->body.len - 5) >> (24 - 8 * i));
	if (err) {
		call_fail(c, CODE_INTERNAL, "the answer could not be made");
		answer_error(c, CODE_INTERNAL);
	}
}

void serve_finish(struct serve *s, struct call *c, const void *body, size_t len)
{
	json_t *request = NULL, *message = NULL;

	fail_clear();
	c->code = read_message(c, body, len, &request);
	if (c->code == CODE_OK)
		c->code = c->route->run(s, c, request, &message);
	if (c->code == CODE_OK)
		answer_message(c, message);
	else
		call_answer_error(c);
	json_decref(message);
	json_decref(request);
}
