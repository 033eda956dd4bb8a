/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Load for `tdfs kas serve`: clients that do all a client does: request tokens made and signed, keys unwrapped and compared.
 *
 *	kas-load PORT TOKEN-FILE PUBLIC-KEY-PEM KID CONNECTIONS KEYS-PER-CALL SECONDS
 *
 * Prints {"keys_per_s","calls_per_s","p50_ms","p99_ms"}.  The files' keys are wrapped with one ephemeral key, as those of files made
 *together are.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>

#include "buffer.h"
#include "encode.h"
#include "io.h"
#include "jose.h"
#include "lock.h"
#include "pubkey.h"
#include "report.h"

#define POLICY "eyJ1dWlkIjoiMDAwMDAwMDAtMDAwMC00MDAwLTgwMDAtMDAwMDAwMDAwMDAwIiwiYm9keSI6eyJkYXRhQXR0cmlidXRlcyI6W10sImRpc3NlbSI6W119fQ=="
#define CALLS_MAX 200000

#define MUST(cond)                                                                                       \
	do {                                                                                             \
		if (!(cond)) {                                                                           \
			fprintf(stderr, "kas-load: %s: %s (%s)\n", #cond, strerror(errno), fail_text()); \
			abort();                                                                         \
		}                                                                                        \
	} while (0)

static struct {
	int port;
	char *token, *kid;
	size_t per_call;
	struct secret **deks;
	char *items; /* the requests array, as JSON */
	double until;
} work;

struct client {
	pthread_t thread;
	size_t n_calls;
	float *ms;
};

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void make_files(EVP_PKEY *kas)
{
	struct buffer b = buffer_of((size_t)64 << 20);
	struct secret *kek;
	char *pem, b64[BASE64_LEN(EC_WRAPPED_LEN) + 1], binding[89];
	uint8_t wrapped[EC_WRAPPED_LEN];

	MUST(!ec_kek_new(kas, &kek, &pem));
	work.deks = calloc(work.per_call, sizeof(*work.deks));
	buffer_text(&b, "[");
	for (size_t i = 0; i < work.per_call; i++) {
		work.deks[i] = secret_random();
		MUST(work.deks[i] && !aead_seal(kek, work.deks[i]->b, SECRET_LEN, wrapped) &&
		     !policy_binding(POLICY, work.deks[i], binding));
		base64_encode(wrapped, sizeof(wrapped), b64);
		buffer_printf(&b,
			      "%s{\"policy\":{\"id\":\"p%zu\",\"body\":\"" POLICY
			      "\"},\"keyAccessObjects\":[{\"keyAccessObjectId\":\"k\",\"keyAccessObject\":",
			      i ? "," : "", i);
		buffer_printf(&b,
			      "{\"type\":\"ec-wrapped\",\"url\":\"https://"
			      "kas.example.org\",\"protocol\":\"kas\",\"kid\":\"%s\",\"wrappedKey\":\"%s\",",
			      work.kid, b64);
		buffer_printf(
		    &b, "\"policyBinding\":{\"alg\":\"HS256\",\"hash\":\"%s\"},\"schemaVersion\":\"1.0\",\"ephemeralPublicKey\":", binding);
		buffer_json(&b, pem, 4096);
		buffer_text(&b, "}}]}");
	}
	buffer_text(&b, "]");
	MUST(!buffer_error(&b));
	work.items = b.p;
	free(pem);
	secret_free(kek);
}

/* One answer's body; malloc'd. */
static char *answer_read(int fd, size_t *ret_len)
{
	static _Thread_local char head[65536];
	size_t n = 0, want;
	char *end = NULL, *length, *body;

	while (!end) {
		ssize_t got = recv(fd, head + n, sizeof(head) - 1 - n, 0);

		MUST(got > 0);
		n += (size_t)got;
		head[n] = '\0';
		end = strstr(head, "\r\n\r\n");
	}
	MUST(strncmp(head, "HTTP/1.1 200", 12) == 0 || (fprintf(stderr, "%s\n", head), false));
	length = strcasestr(head, "content-length:");
	MUST(length);
	want = strtoul(length + 15, NULL, 10);
	body = malloc(want + 1);
	n -= (size_t)(end + 4 - head);
	memcpy(body, end + 4, n);
	while (n < want) {
		ssize_t got = recv(fd, body + n, want - n, 0);

		MUST(got > 0);
		n += (size_t)got;
	}
	body[n] = '\0';
	*ret_len = n;
	return body;
}

/* What own key and the server's session key make; the server keeps its one for a minute. */
struct agreed {
	char *pem;
	struct secret *kek;
};

static void agree(EVP_PKEY *own, const char *pem, struct agreed *a)
{
	if (a->pem && strcmp(a->pem, pem) == 0)
		return;
	secret_free(a->kek);
	free(a->pem);
	a->pem = strdup(pem);
	MUST(a->pem && !ec_kek_of(own, pem, &a->kek));
}

static void check_answer(EVP_PKEY *own, struct agreed *a, const char *body, size_t len)
{
	json_t *j = json_loadb(body, len, 0, NULL), *list = json_object_get(j, "responses"), *each;
	const char *session = json_string_value(json_object_get(j, "sessionPublicKey"));
	struct secret *dek = secret_new();
	size_t i, n;

	MUST(session && json_array_size(list) == work.per_call && dek);
	agree(own, session, a);
	json_array_foreach(list, i, each)
	{
		const char *w = json_string_value(json_object_get(json_array_get(json_object_get(each, "results"), 0), "kasWrappedKey"));
		uint8_t wrapped[EC_WRAPPED_LEN];

		MUST(w && !base64_decode(w, strlen(w), false, wrapped, sizeof(wrapped), &n) &&
		     !aead_open(a->kek, wrapped, n, NULL, dek->b));
		MUST(equal_ct(dek->b, work.deks[i]->b, SECRET_LEN));
	}
	secret_free(dek);
	json_decref(j);
}

static char *request_make(EVP_PKEY *own, const char *own_pem, size_t *ret_len)
{
	struct buffer body = buffer_of((size_t)64 << 20), out = buffer_of((size_t)64 << 20);
	json_t *claims;
	char *srt;

	buffer_text(&body, "{\"clientPublicKey\":");
	buffer_json(&body, own_pem, 4096);
	buffer_text(&body, ",\"requests\":");
	buffer_text(&body, work.items);
	buffer_text(&body, "}");
	claims = json_pack("{s:s, s:I, s:I}", "requestBody", body.p, "iat", (json_int_t)time(NULL), "exp", (json_int_t)time(NULL) + 60);
	MUST(claims && !jws_sign(own, JOSE_ES256, NULL, claims, &srt));
	buffer_printf(&out,
		      "POST /kas.AccessService/Rewrap HTTP/1.1\r\nHost: localhost:%d\r\nContent-Type: application/json\r\nContent-Length: "
		      "%zu\r\nAuthorization: Bearer ",
		      work.port, strlen(srt) + 25);
	buffer_text(&out, work.token);
	buffer_text(&out, "\r\n\r\n{\"signedRequestToken\":\"");
	buffer_text(&out, srt);
	buffer_text(&out, "\"}");
	MUST(!buffer_error(&out));
	json_decref(claims);
	free(srt);
	buffer_free(&body);
	*ret_len = out.len;
	return out.p;
}

static void *run(void *arg)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)work.port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
	int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
	EVP_PKEY *own = pubkey_new_ec();
	struct agreed agreed = {0};
	struct client *c = arg;
	char *pem;

	MUST(own && fd >= 0 && !connect(fd, (struct sockaddr *)&a, sizeof(a)));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	pem = pubkey_pem(own);
	c->ms = calloc(CALLS_MAX, sizeof(*c->ms));
	while (now() < work.until && c->n_calls < CALLS_MAX) {
		double began = now();
		size_t len, sent = 0;
		char *text = request_make(own, pem, &len);

		while (sent < len) {
			ssize_t n = send(fd, text + sent, len - sent, MSG_NOSIGNAL);

			MUST(n > 0);
			sent += (size_t)n;
		}
		free(text);
		text = answer_read(fd, &len);
		check_answer(own, &agreed, text, len);
		free(text);
		c->ms[c->n_calls++] = (float)((now() - began) * 1000);
	}
	close(fd);
	secret_free(agreed.kek);
	free(agreed.pem);
	free(pem);
	EVP_PKEY_free(own);
	return NULL;
}

static int by_size(const void *a, const void *b)
{
	float d = *(const float *)a - *(const float *)b;

	return (d > 0) - (d < 0);
}

int main(int argc, char **argv)
{
	struct io io = io_posix(AT_FDCWD);
	struct client *clients;
	EVP_PKEY *kas = NULL;
	size_t len, n, total = 0, at = 0;
	double began, took;
	char *pem;
	float *all;

	MUST(argc == 8);
	work.port = (int)strtol(argv[1], NULL, 10);
	MUST(!io_read_file(&io, AT_FDCWD, argv[2], 1 << 20, &work.token, &len) &&
	     !io_read_file(&io, AT_FDCWD, argv[3], 1 << 20, &pem, &len));
	MUST(!pubkey_public(pem, len, &kas));
	work.kid = argv[4];
	n = strtoul(argv[5], NULL, 10);
	work.per_call = strtoul(argv[6], NULL, 10);
	make_files(kas);
	clients = calloc(n, sizeof(*clients));
	began = now();
	work.until = began + strtod(argv[7], NULL);
	for (size_t i = 0; i < n; i++)
		MUST(!pthread_create(&clients[i].thread, NULL, run, &clients[i]));
	for (size_t i = 0; i < n; i++) {
		pthread_join(clients[i].thread, NULL);
		total += clients[i].n_calls;
	}
	took = now() - began;
	MUST(total);
	all = calloc(total, sizeof(*all));
	for (size_t i = 0; i < n; at += clients[i++].n_calls)
		memcpy(all + at, clients[i].ms, clients[i].n_calls * sizeof(*all));
	qsort(all, total, sizeof(*all), by_size);
	printf("{\"keys_per_s\":%.0f,\"calls_per_s\":%.0f,\"p50_ms\":%.2f,\"p99_ms\":%.2f}\n", (double)(total * work.per_call) / took,
	       (double)total / took, all[total / 2], all[total * 99 / 100]);
	return 0;
}
