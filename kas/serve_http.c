/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The server's sockets, over libmicrohttpd: a pool of threads that each wait on their connections with epoll.
 *
 * Time is bounded per phase, not per byte: so long for the head of a request (also between two requests), so long for its body, so long for
 * the answer.  Who is later is cut off by serve_run()'s clock.  When all places are taken, the connection that has waited longest for its
 * next request, or for the body of one without a good token, goes.
 */
#include "serve_http.h"

#include <errno.h>
#include <stdio.h>
#include <strings.h>

#include "aead.h"
#include "lazy.h"
#include "report.h"

#define THREADS_MAX 32
#define HEAD_MAX ((size_t)48 << 10)    /* request line and headers, and what libmicrohttpd keeps of a connection */
#define BODIES_MAX ((size_t)192 << 20) /* of all requests with a token that are under way: strangers are not to fill it */
#define CALLER_MAX (BODIES_MAX / 4)    /* ... of one caller: nor is he, with many connections */
#define DRAIN_MAX ((size_t)128 << 10)  /* of a body that nobody wants is read, so that the client sees the answer */
#define RESERVE 64                     /* places beyond the limit, for those that come while others go */

struct request {
	struct call call;
	struct conn *conn;
	struct buffer body;
	size_t n_read;
	size_t *caller; /* bodies of whoever this is; NULL: no token */
	char peer[INET6_ADDRSTRLEN + 80]; /* behind a proxy: the client, and by which */
	bool begun, answered, last;       /* last: the connection is closed after it */
};

/* --- answers --- */

/* gRPC wants its status behind the body: a chunked answer with a trailer. */
struct stream {
	struct buffer body;
};

static ssize_t stream_read(void *cls, uint64_t pos, char *buf, size_t max)
{
	struct stream *s = cls;
	size_t n;

	if (pos >= s->body.len)
		return MHD_CONTENT_READER_END_OF_STREAM;
	n = MIN(max, s->body.len - (size_t)pos);
	memcpy(buf, s->body.p + pos, n);
	return (ssize_t)n;
}

static void stream_free(void *cls)
{
	struct stream *s = cls;

	buffer_free(&s->body);
	free(s);
}

/* Printable ASCII but "%", the rest as %XX (gRPC over HTTP/2, "Percent-Encoded"). */
static void percent(const char *s, char *ret, size_t max)
{
	size_t n = 0;

	for (; *s && n + 4 < max; s++)
		if (*s >= 0x20 && *s < 0x7f && *s != '%')
			ret[n++] = *s;
		else
			n += (size_t)snprintf(ret + n, 4, "%%%02X", (uint8_t)*s);
	ret[n] = '\0';
}

static struct MHD_Response *response_grpc(struct call *c)
{
	struct stream *s = calloc(1, sizeof(*s));
	struct MHD_Response *r;
	char status[8], text[SERVE_TEXT * 3];

	if (!s)
		return NULL;
	s->body = c->body;
	c->body = (struct buffer){0};
	r = mhd_api->create_response_from_callback(MHD_SIZE_UNKNOWN, 16384, stream_read, s, stream_free);
	if (!r) {
		stream_free(s);
		return NULL;
	}
	snprintf(status, sizeof(status), "%u", code_grpc(c->code));
	percent(c->text, text, sizeof(text));
	if (c->code == CODE_OK) {
		mhd_api->add_response_header(r, "Trailer", "grpc-status");
		mhd_api->add_response_footer(r, "grpc-status", status);
	} else {
		mhd_api->add_response_header(r, "grpc-status", status);
		mhd_api->add_response_header(r, "grpc-message", text);
	}
	return r;
}

static const char *challenge(const struct call *c)
{
	if (!c->challenge)
		return "Bearer error=\"invalid_token\"";
	return c->stale ? "DPoP error=\"use_dpop_nonce\", algs=\"ES256 ES384 RS256 PS256\""
			: "DPoP error=\"invalid_dpop_proof\", algs=\"ES256 ES384 RS256 PS256\"";
}

static struct MHD_Response *response_plain(struct call *c)
{
	struct MHD_Response *r = mhd_api->create_response_from_buffer(c->body.len, c->body.p ? (void *)c->body.p : (void *)"",
								      c->body.p ? MHD_RESPMEM_MUST_FREE : MHD_RESPMEM_PERSISTENT);
	char text[16];

	if (!r)
		return NULL;
	c->body = (struct buffer){0};
	if (c->status == 401)
		mhd_api->add_response_header(r, "WWW-Authenticate", challenge(c));
	if (c->status == 415)
		mhd_api->add_response_header(r, "Accept-Post", "application/json, application/proto, application/grpc");
	if (c->status == 405)
		mhd_api->add_response_header(r, "Allow", c->route->post ? (c->route->get ? "GET, POST" : "POST") : "GET");
	if (c->retry_after) {
		snprintf(text, sizeof(text), "%u", c->retry_after);
		mhd_api->add_response_header(r, "Retry-After", text);
	}
	return r;
}

static enum MHD_Result answer(struct front *f, struct request *q)
{
	struct cors_header cors[CORS_HEADERS];
	struct call *c = &q->call;
	struct MHD_Response *r =
	    c->status == 200 && c->type && strcmp(c->type, "application/grpc") == 0 ? response_grpc(c) : response_plain(c);
	enum MHD_Result yes;

	if (!r)
		return MHD_NO;
	if (c->type)
		mhd_api->add_response_header(r, "Content-Type", c->type);
	mhd_api->add_response_header(r, "Cache-Control", "no-store");
	for (size_t i = cors_headers(c, cors); i-- > 0;)
		mhd_api->add_response_header(r, cors[i].name, cors[i].value);
	if (*c->nonce)
		mhd_api->add_response_header(r, "DPoP-Nonce", c->nonce);
	if (q->last)
		mhd_api->add_response_header(r, "Connection", "close");
	conn_phase(f, q->conn, PHASE_ANSWER, f->config->send);
	yes = mhd_api->queue_response(q->conn->mhd, c->status, r);
	mhd_api->destroy_response(r);
	return yes;
}

/* --- requests --- */

static const char *header(struct MHD_Connection *mc, const char *name)
{
	return mhd_api->lookup_connection_value(mc, MHD_HEADER_KIND, name);
}

static const char *argument(void *ctx, const char *name)
{
	return mhd_api->lookup_connection_value(ctx, MHD_GET_ARGUMENT_KIND, name);
}

/* Behind a proxy each request may be somebody else's. */
static void take_client(struct front *f, struct request *q)
{
	char text[INET6_ADDRSTRLEN];
	uint8_t b[16];

	if (!q->conn->proxy || !proxy_client(f->config, q->conn->mhd, b))
		return;
	peer_text(b, text);
	snprintf(q->peer, sizeof(q->peer), "%s by %s", text, q->conn->peer);
	q->call.peer = q->peer;
	q->call.peer_hash = peer_hash(f, b);
}

static struct request *request_new(struct front *f, struct MHD_Connection *mc, struct conn *conn, const char *url, const char *method)
{
	struct request *q = calloc(1, sizeof(*q));

	if (!q)
		return NULL;
	q->conn = conn;
	q->call = (struct call){
	    .method = method,
	    .path = url,
	    .peer = conn->peer,
	    .content_type = header(mc, "Content-Type"),
	    .content_encoding = header(mc, "Content-Encoding"),
	    .authorization = header(mc, "Authorization"),
	    .dpop = header(mc, "DPoP"),
	    .request_id = header(mc, "X-Request-Id"),
	    .connect_version = header(mc, "Connect-Protocol-Version"),
	    .user_agent = header(mc, "User-Agent"),
	    .origin = header(mc, "Origin"),
	    .preflight = header(mc, "Access-Control-Request-Method"),
	    .argument = argument,
	    .ctx = mc,
	    .peer_hash = conn->peer_hash,
	    .local = conn->local,
	    .uid = conn->uid,
	};
	take_client(f, q);
	return q;
}

/* He has a good token, or the unix socket. */
static bool is_known(const struct request *q)
{
	return q->call.token || q->call.local;
}

static void request_done(void *cls, struct MHD_Connection *mc, void **ctx, enum MHD_RequestTerminationCode why)
{
	struct request *q = *ctx;
	struct front *f = cls;

	if (!q)
		return;
	if (is_known(q))
		__atomic_fetch_sub(&f->bodies, q->body.room, __ATOMIC_RELAXED);
	if (q->caller)
		__atomic_fetch_sub(q->caller, q->body.room, __ATOMIC_RELAXED);
	conn_phase(f, q->conn, PHASE_HEAD, f->config->idle);
	call_free(&q->call);
	buffer_free(&q->body);
	free(q);
	*ctx = NULL;
}

static void too_much(struct request *q, enum serve_code code, const char *text)
{
	q->call.code = call_fail(&q->call, code, "%s", text);
	call_answer_error(&q->call);
	q->answered = true;
}

/* How often the head says where the body ends; more than once also for what is said in an odd way. */
static enum MHD_Result count_lengths(void *cls, enum MHD_ValueKind kind, const char *name, const char *value)
{
	unsigned *n = cls;
	bool coding = strncasecmp(name, "Transfer-Encoding", 17) == 0;

	if (coding || strncasecmp(name, "Content-Length", 14) == 0)
		*n += strpbrk(name, " \t") || (coding && (!value || strcasecmp(value, "chunked"))) ? 2 : 1;
	return MHD_YES;
}

/* Else we and a proxy before us might see two requests begin in different places, and one caller's bytes in another's (RFC 9112 6.3). */
static bool end_is_plain(struct request *q)
{
	unsigned n = 0;

	(void)mhd_api->get_connection_values(q->conn->mhd, MHD_HEADER_KIND, count_lengths, &n);
	if (n > 1) {
		q->begun = q->last = true;
		too_much(q, CODE_INVALID_ARGUMENT, "where the body ends is said twice, or in a way that is not known");
	}
	return n <= 1;
}

/* The head is there.  0: go on; 1: wait, the connection is suspended; 2: answer now */
static int request_begin(struct front *f, struct request *q)
{
	const char *expect = header(q->conn->mhd, "Expect"), *length = header(q->conn->mhd, "Content-Length");
	unsigned long long n = length ? strtoull(length, NULL, 10) : 0;
	uint64_t seen;
	int rc;

	if (!end_is_plain(q))
		return 2;
	do {
		seen = __atomic_load_n(&f->n_done, __ATOMIC_ACQUIRE);
		rc = serve_begin(f->serve, &q->call);
		if (rc == -EAGAIN && conn_suspend(f, q->conn, seen))
			return 1;
	} while (rc == -EAGAIN && !__atomic_load_n(&f->stopping, __ATOMIC_RELAXED));
	q->begun = true;
	q->answered = rc != 0;
	if (rc == -EAGAIN)
		too_much(q, CODE_UNAVAILABLE, "the server is being stopped");
	if (!q->answered && n > q->call.body_max && q->call.route->post)
		too_much(q, CODE_RESOURCE_EXHAUSTED, "the body is too large");
	q->body = buffer_of(q->call.body_max);
	if (q->call.token)
		q->caller = &f->callers[(caller_hash(&q->call) ^ get_le64(f->salt)) % FRONT_CALLERS];
	/* a stranger's body is no reason to stay when places are wanted */
	conn_phase(f, q->conn, is_known(q) ? PHASE_BODY : PHASE_HEAD, f->config->receive);
	/* a small body is read and dropped first: a connection closed with bytes unread may lose the answer on its way */
	return q->answered && (expect || n > DRAIN_MAX) ? 2 : 0;
}

/* A piece of the body. */
static void request_body(struct front *f, struct request *q, const char *p, size_t len)
{
	size_t before = q->body.room;

	q->n_read += len;
	if (q->answered)
		return;
	if (is_known(q) && (__atomic_load_n(&f->bodies, __ATOMIC_RELAXED) + len > BODIES_MAX ||
			    (q->caller && __atomic_load_n(q->caller, __ATOMIC_RELAXED) + len > CALLER_MAX))) {
		too_much(q, CODE_UNAVAILABLE, "too many requests at a time");
		q->call.retry_after = 1;
		return;
	}
	buffer_put(&q->body, p, len);
	if (is_known(q))
		__atomic_fetch_add(&f->bodies, q->body.room - before, __ATOMIC_RELAXED);
	if (q->caller)
		__atomic_fetch_add(q->caller, q->body.room - before, __ATOMIC_RELAXED);
	if (buffer_error(&q->body))
		too_much(q, buffer_error(&q->body) == -EFBIG ? CODE_RESOURCE_EXHAUSTED : CODE_UNAVAILABLE, "the body is too large");
}

static enum MHD_Result handle(void *cls, struct MHD_Connection *mc, const char *url, const char *method, const char *version,
			      const char *data, size_t *len, void **ctx)
{
	const union MHD_ConnectionInfo *info = mhd_api->get_connection_info(mc, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	struct conn *conn = info ? info->socket_context : NULL;
	struct request *q = *ctx;
	struct front *f = cls;
	int rc;

	if (!conn || conn->refused)
		return MHD_NO;
	if (!q) {
		q = request_new(f, mc, conn, url, method);
		*ctx = q;
		if (!q)
			return MHD_NO;
	}
	if (!q->begun) {
		rc = request_begin(f, q);
		return rc == 2 ? answer(f, q) : MHD_YES;
	}
	if (*len) {
		request_body(f, q, data, *len);
		*len = 0;
		return q->answered && q->n_read > DRAIN_MAX + SERVE_BODY_MAX ? MHD_NO : MHD_YES;
	}
	if (!q->answered)
		serve_finish(f->serve, &q->call, q->body.p ? q->body.p : "", q->body.len);
	return answer(f, q);
}

int front_init(struct front *f)
{
	mutex_init(&f->lock);
	return random_bytes(f->salt, sizeof(f->salt));
}

int front_start(struct front *f)
{
	const struct serve_config *c = f->config;
	unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | (c->cert ? MHD_USE_TLS : 0);
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	struct MHD_OptionItem tls[] = {
	    {MHD_OPTION_HTTPS_MEM_CERT, 0, (void *)c->cert},
	    {MHD_OPTION_HTTPS_MEM_KEY, 0, (void *)c->key},
	    {MHD_OPTION_HTTPS_PRIORITIES, 0,
	     (void *)"NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:-RSA:-CIPHER-ALL:+AES-256-GCM:+AES-128-GCM:+CHACHA20-POLY1305"},
	    {MHD_OPTION_END, 0, NULL}};

	int err = lazy_httpd();

	if (err)
		return err;
	f->mhd = mhd_api->start_daemon(flags, 0, NULL, NULL, handle, f, MHD_OPTION_LISTEN_SOCKET, c->listen_fd, MHD_OPTION_THREAD_POOL_SIZE,
				       (unsigned)MAX(2, MIN(cpus, THREADS_MAX)), MHD_OPTION_CONNECTION_LIMIT, c->connections + RESERVE,
				       MHD_OPTION_CONNECTION_MEMORY_LIMIT, HEAD_MAX, MHD_OPTION_STRICT_FOR_CLIENT, 1,
				       MHD_OPTION_NOTIFY_CONNECTION, conn_event, f, MHD_OPTION_NOTIFY_COMPLETED, request_done, f,
				       MHD_OPTION_ARRAY, c->cert ? tls : &tls[3], MHD_OPTION_END);
	return f->mhd ? 0 : fail(-EIO, "the HTTP server does not start%s", c->cert ? ": is the key the certificate's, and both PEM?" : "");
}

void front_stop(struct front *f)
{
	struct timespec tick = {0, 50000000};

	if (!f->mhd)
		return;
	(void)mhd_api->quiesce_daemon(f->mhd);
	mutex_lock(&f->lock);
	__atomic_store_n(&f->stopping, true, __ATOMIC_RELAXED);
	mutex_unlock(&f->lock);
	front_keys_done(f);
	/* answers under way may still go out */
	for (int i = 0; i < 100; i++) {
		size_t busy = 0;

		mutex_lock(&f->lock);
		for (struct conn *c = f->first; c; c = c->next)
			busy += c->phase != PHASE_HEAD && !c->dead;
		mutex_unlock(&f->lock);
		if (!busy)
			break;
		(void)nanosleep(&tick, NULL);
	}
	mhd_api->stop_daemon(f->mhd);
	mutex_destroy(&f->lock);
	close(f->config->listen_fd);
	f->mhd = NULL;
}
