/* SPDX-License-Identifier: Apache-2.0 */
#include "http_int.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "lazy.h"
#include "lazy_i.h"
#include "lock.h"
#include "report.h"
#include "secret.h"

#define CONNECT_MS 4000
#define IDLE_MS 5000

struct http {
	/* fixed after http_new() */
	char *ca_file, *pin;
	struct address_list listed;
	unsigned connect_ms, idle_ms;

	struct mutex lock; /* a leaf */
	struct cond freed;
	CURL *idle[HTTP_CONNECTIONS]; /* each keeps its connections */
	size_t n_idle, n_busy;
};

int64_t http_now(void)
{
	struct timespec ts = {0};

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* What curl would take for a file name or fail on only at the first connection. */
static int pin_check(const char *pin)
{
	for (const char *p = pin;;) {
		if (strncmp(p, "sha256//", 8) || strcspn(p + 8, ";") != 44)
			return fail(-EINVAL, "%.100s: a pin has to be sha256//BASE64 of a SHA-256, several with ';' between", pin);
		p += 8 + 44;
		if (!*p)
			return 0;
		p++;
	}
}

int http_new(const struct http_config *c, struct http **ret)
{
	struct http *h = calloc(1, sizeof(*h));
	int err;

	if (!h)
		return -ENOMEM;
	mutex_init(&h->lock);
	cond_init(&h->freed);
	h->connect_ms = c->connect_ms ? c->connect_ms : CONNECT_MS;
	h->idle_ms = c->idle_ms ? c->idle_ms : IDLE_MS;
	err = lazy_curl();
	if (!err && c->ca_file && access(c->ca_file, R_OK))
		err = fail(-errno, "%s: %s", c->ca_file, strerror(errno));
	if (!err && c->spki_pin)
		err = pin_check(c->spki_pin);
	if (!err)
		err = address_list_parse(c->allow, &h->listed);
	if (!err && ((c->ca_file && !(h->ca_file = strdup(c->ca_file))) || (c->spki_pin && !(h->pin = strdup(c->spki_pin)))))
		err = -ENOMEM;
	if (err)
		http_free(h);
	else
		*ret = h;
	return err;
}

void http_free(struct http *h)
{
	if (!h)
		return;
	for (size_t i = 0; i < h->n_idle; i++)
		curl_api->easy_cleanup(h->idle[i]);
	free(h->ca_file);
	free(h->pin);
	cond_destroy(&h->freed);
	mutex_destroy(&h->lock);
	free(h);
}

/* --- a pool of handles --- */

static int handle_get(struct http *h, int64_t deadline, CURL **ret)
{
	struct timespec until = {.tv_sec = deadline / 1000, .tv_nsec = deadline % 1000 * 1000000};
	int err = 0;

	mutex_lock(&h->lock);
	while (!h->n_idle && h->n_busy == HTTP_CONNECTIONS && !err)
		err = cond_wait_until(&h->freed, &h->lock, &until);
	if (!err) {
		*ret = h->n_idle ? h->idle[--h->n_idle] : NULL;
		h->n_busy++;
	}
	mutex_unlock(&h->lock);
	if (err)
		return fail(-ETIMEDOUT, "%d requests are under way already", HTTP_CONNECTIONS);
	if (!*ret)
		*ret = curl_api->easy_init();
	if (*ret)
		return 0;
	mutex_lock(&h->lock);
	h->n_busy--;
	mutex_unlock(&h->lock);
	return -ENOMEM;
}

static void handle_put(struct http *h, CURL *curl)
{
	curl_api->easy_reset(curl); /* keeps connections and the TLS session cache */
	mutex_lock(&h->lock);
	h->idle[h->n_idle++] = curl;
	h->n_busy--;
	cond_broadcast(&h->freed);
	mutex_unlock(&h->lock);
}

static curl_socket_t socket_open(void *arg, curlsocktype purpose, struct curl_sockaddr *to)
{
	struct flight *f = arg;

	if (address_check(f->q->url, &f->h->listed, &to->addr)) {
		snprintf(f->refused, sizeof(f->refused), "%s", fail_text());
		return CURL_SOCKET_BAD;
	}
	return socket(to->family, to->socktype | SOCK_CLOEXEC, to->protocol);
}

/* --- one request --- */

/* curl's own check of the value's type does not see a call through a pointer: numbers are longs, or curl_off_t where its manual says so */
#define SET(option, value) (ok = ok && curl_api->easy_setopt(curl, option, value) == CURLE_OK)

static bool set_transport(CURL *curl, const struct http *h, const struct http_request *q, long ms)
{
	bool ok = true;

	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_QUICK_EXIT, 1L); /* or a resolver that hangs holds us past the deadline */
	SET(CURLOPT_PROTOCOLS_STR, q->url->https ? "https" : "http");
	SET(CURLOPT_FOLLOWLOCATION, 0L);
	SET(CURLOPT_PROXY, "");
	SET(CURLOPT_NOPROXY, "*");
	SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	SET(CURLOPT_HTTP09_ALLOWED, 0L);
	SET(CURLOPT_TIMEOUT_MS, ms);
	SET(CURLOPT_CONNECTTIMEOUT_MS, MIN((long)h->connect_ms, ms));
	SET(CURLOPT_LOW_SPEED_LIMIT, 1L);
	SET(CURLOPT_LOW_SPEED_TIME, ((long)h->idle_ms + 999) / 1000);
	SET(CURLOPT_MAXCONNECTS, 2L); /* KAS and issuer */
	SET(CURLOPT_TCP_KEEPALIVE, 1L);
	SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	SET(CURLOPT_SSL_VERIFYPEER, 1L);
	SET(CURLOPT_SSL_VERIFYHOST, 2L);
	SET(CURLOPT_SSL_CIPHER_LIST,
	    "HIGH:!aNULL:!kRSA:!PSK:!SRP:@SECLEVEL=2"); /* no weak keys or signatures, whatever the system's default is */
	if (h->ca_file) {
		SET(CURLOPT_CAINFO, h->ca_file);
		SET(CURLOPT_CAPATH, NULL);
	}
	if (h->pin && q->pinned)
		SET(CURLOPT_PINNEDPUBLICKEY, h->pin);
	return ok;
}

static bool set_request(CURL *curl, struct flight *f, const char *text, struct curl_slist *headers)
{
	const struct http_request *q = f->q;
	bool ok = true;

	SET(CURLOPT_URL, text);
	SET(CURLOPT_PATH_AS_IS, 1L);
	SET(CURLOPT_USERAGENT, "tdfs/" TDFS_VERSION);
	SET(CURLOPT_HTTPHEADER, headers);
	SET(CURLOPT_WRITEFUNCTION, answer_body);
	SET(CURLOPT_WRITEDATA, f);
	SET(CURLOPT_HEADERFUNCTION, answer_header);
	SET(CURLOPT_HEADERDATA, f);
	SET(CURLOPT_OPENSOCKETFUNCTION, socket_open);
	SET(CURLOPT_OPENSOCKETDATA, f);
	if (q->content_type) {
		SET(CURLOPT_POST, 1L);
		SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)q->body_len);
		SET(CURLOPT_POSTFIELDS, q->body);
	}
	return ok;
}

static bool header_add(struct curl_slist **list, const char *line)
{
	struct curl_slist *more = curl_api->slist_append(*list, line);

	if (more)
		*list = more;
	return more != NULL;
}

/* 0 or -ENOMEM; the list is the caller's either way */
static int headers_make(const struct http_request *q, struct curl_slist **list)
{
	char type[128];
	/* "Expect:" - a long body is sent at once, not after a second's wait for a 100 that many servers never send */
	bool ok = header_add(list, "Expect:");

	if (q->content_type) {
		snprintf(type, sizeof(type), "Content-Type: %s", q->content_type);
		ok = ok && header_add(list, type);
	}
	for (size_t i = 0; ok && q->headers && q->headers[i]; i++)
		ok = header_add(list, q->headers[i]);
	return ok ? 0 : -ENOMEM;
}

/* curl's verdict as ours. */
static int flight_fail(const struct flight *f, CURLcode code, const char *why)
{
	const struct url *u = f->q->url;

	if (f->no_memory || code == CURLE_OUT_OF_MEMORY)
		return -ENOMEM;
	if (f->too_long)
		return fail(-EPROTO, "%s:%u: an answer of more than %zu bytes", u->host, u->port, f->q->answer_max);
	switch (code) {
	case CURLE_OPERATION_TIMEDOUT:
		return fail(-ETIMEDOUT, "%s:%u: no answer in time (%s)", u->host, u->port, why);
	case CURLE_COULDNT_CONNECT:
		if (*f->refused)
			return fail(-EPERM, "%s", f->refused);
		return fail(-ECONNREFUSED, "%s:%u: no connection (%s)", u->host, u->port, why);
	case CURLE_COULDNT_RESOLVE_HOST:
		return fail(-EHOSTUNREACH, "%s: the name could not be resolved", u->host);
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CONNECT_ERROR:
	case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
	case CURLE_SSL_ISSUER_ERROR:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_CERTPROBLEM:
	case CURLE_SSL_CIPHER:
		return fail(-EKEYREJECTED, "%s:%u: its certificate or TLS was not accepted (%s); nothing was sent", u->host, u->port, why);
	case CURLE_GOT_NOTHING:
	case CURLE_RECV_ERROR:
	case CURLE_SEND_ERROR:
	case CURLE_PARTIAL_FILE:
		return fail(-ECONNRESET, "%s:%u: the connection broke before a whole answer (%s)", u->host, u->port, why);
	default:
		return fail(-EPROTO, "%s:%u: no usable answer (%s)", u->host, u->port, why);
	}
}

static int flight_run(struct flight *f, CURL *curl, long ms)
{
	CLEANUP_FREE char *text = url_text(f->q->url, f->q->path);
	struct curl_slist *headers = NULL;
	char why[CURL_ERROR_SIZE] = "";
	CURLcode code = CURLE_OUT_OF_MEMORY;
	curl_off_t took = 0;

	if (text && headers_make(f->q, &headers) == 0 && set_transport(curl, f->h, f->q, ms) && set_request(curl, f, text, headers) &&
	    curl_api->easy_setopt(curl, CURLOPT_ERRORBUFFER, why) == CURLE_OK)
		code = curl_api->easy_perform(curl);
	(void)curl_api->easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &f->answer.status);
	(void)curl_api->easy_getinfo(curl, CURLINFO_TOTAL_TIME_T, &took);
	f->answer.took_us = (unsigned)MIN(took, (curl_off_t)UINT32_MAX);
	curl_api->slist_free_all(headers);
	if (code != CURLE_OK)
		return flight_fail(f, code, *why ? why : curl_api->easy_strerror(code));
	return f->answer.status >= 200 && f->answer.status <= 599 ? 0 : flight_fail(f, CURLE_WEIRD_SERVER_REPLY, "odd status");
}

int http_call(struct http *h, const struct http_request *q, struct http_answer *ret)
{
	struct flight f = {.h = h, .q = q, .room = 4096};
	CURL *curl = NULL;
	int64_t ms;
	int err;

	err = handle_get(h, q->deadline, &curl);
	if (err)
		return err;
	ms = q->deadline - http_now();
	f.answer.body = malloc(f.room);
	if (!f.answer.body)
		err = -ENOMEM;
	else if (ms <= 0)
		err = fail(-ETIMEDOUT, "%s: no time left for a request", q->url->host);
	else
		err = flight_run(&f, curl, (long)ms);
	handle_put(h, curl);
	if (err) {
		http_answer_free(&f.answer);
		return err;
	}
	f.answer.body[f.answer.len] = 0;
	*ret = f.answer;
	return 0;
}
