/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests to the KAS server, from the head on.  The first byte says what the rest is: a whole request, the body of a request token (plain,
 * in protobuf, compressed), an access token's parts, a DPoP proof's parts, or places to change in a good request.  Every answer must be one
 * that a client can read.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <time.h>
#include <zlib.h>

#include "aead.h"
#include "encode.h"
#include "fuzz.h"
#include "report.h"
#include "serve_i.h"

#define PAGES "https://app.example.org" /* pages of this origin may read answers */

static struct serve *server(bool keyed)
{
	static struct serve s[2]; /* one process, one thread */
	static struct serve_config config = {
	    .url = (char *)"http://localhost", .issuer = (char *)"http://i", .audience = (char *)"a", .base_key = (char *)"ec:secp256r1"};
	EVP_PKEY *key = NULL;

	if (s[keyed].kas)
		return &s[keyed];
	s[keyed].config = &config;
	if (!config.cors)
		CHECK((config.cors = json_loads("[\"" PAGES "\"]", 0, NULL)) && !cors_check(config.cors));
	s[keyed].kas = kas_new();
	CHECK((key = pubkey_new_ec()) && !kas_add_local(s[keyed].kas, "e1", NULL, key));
	CHECK((key = pubkey_new_rsa()) && !kas_add_local(s[keyed].kas, "r1", NULL, key));
	CHECK(!audit_open("-", &s[keyed].audit) && (s[keyed].replays = replays_new()) && (s[keyed].limits = limits_new(1e6, 1e9)) &&
	      (s[keyed].sessions = wrappers_new()));
	if (keyed) {
		json_t *rules = json_loads("{\"unrestricted\":\"allow\",\"attributes\":{\"https://x.y/attr/"
					   "a\":{\"rule\":\"hierarchy\",\"claim\":\"g.h\",\"values\":[\"b\",\"c\"]}}}",
					   0, NULL);
		const char *tmp = getenv("TMPDIR");
		char path[PATH_MAX];
		const struct jwks_config j = {.issuer = config.issuer, .audience = config.audience, .jwks_file = path};
		int fd;
		static const char set[] =
		    "{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"kid\":\"k\",\"x\":\"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4\","
		    "\"y\":\"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM\"}]}";

		snprintf(path, sizeof(path), "%.4000s/tdfs-fuzz-jwks-XXXXXX", tmp ? tmp : P_tmpdir);
		fd = mkstemp(path);
		CHECK(fd >= 0 && write(fd, set, sizeof(set) - 1) == sizeof(set) - 1 && !close(fd));
		CHECK(!access_parse(rules, &s[keyed].access) && !jwks_new(&j, &s[keyed].jwks));
		unlink(path);
		json_decref(rules);
	}
	return &s[keyed];
}

static const char *no_argument(void *ctx, const char *name)
{
	return strcmp(name, "message") == 0 || strcmp(name, "algorithm") == 0 ? ctx : NULL;
}

/* Pages of one origin are told that they may read the answer, and no others. */
static void check_readers(const struct call *c)
{
	struct cors_header h[CORS_HEADERS];
	size_t n = cors_headers(c, h);

	CHECK(n <= CORS_HEADERS && (n > 0) == (c->origin && strcmp(c->origin, PAGES) == 0));
	for (size_t i = 0; i < n; i++)
		CHECK(*h[i].value && !strpbrk(h[i].value, "\r\n"));
	CHECK(!n || strcmp(h[0].value, PAGES) == 0);
	CHECK(c->status != 204 || (n && c->preflight));
}

static void ask(struct serve *s, struct call *c, const void *body, size_t len)
{
	int rc = serve_begin(s, c);

	CHECK(rc == 0 || rc == 1 || rc == -EAGAIN);
	if (!rc)
		serve_finish(s, c, body, len);
	if (rc != -EAGAIN) {
		CHECK(c->status >= 200 && c->status < 600);
		check_readers(c);
		if (c->type && strcmp(c->type, "application/json") == 0) {
			json_t *j = json_loadb(c->body.p, c->body.len, JSON_REJECT_DUPLICATES, NULL);

			CHECK(json_is_object(j));
			json_decref(j);
		}
		if (c->status == 200 && c->type && strcmp(c->type, "application/grpc") == 0 && c->code == CODE_OK)
			CHECK(c->body.len >= 5);
	}
	call_free(c);
}

static char *part(const void *p, size_t len)
{
	char *s = base64url_encode(p, len);

	CHECK(s);
	return s;
}

/* header.claims.signature out of bytes that may hold a NUL between header and claims */
static char *token_of(const uint8_t *data, size_t size)
{
	const uint8_t *cut = memchr(data, 0, size);
	size_t n = cut ? (size_t)(cut - data) : 0;
	char *head = cut ? part(data, n) : part("{\"alg\":\"ES256\",\"kid\":\"k\"}", 25),
	     *claims = cut ? part(cut + 1, size - n - 1) : part(data, size), *text;

	CHECK(asprintf(&text, "%s.%s.AAAA", head, claims) > 0);
	free(head);
	free(claims);
	return text;
}

static void ask_rewrap(const void *body, size_t len, int form)
{
	json_t *claims = json_pack("{s:o, s:I}", "requestBody", json_stringn(body, len), "exp", (json_int_t)time(NULL) + 60), *message;
	struct call c = {.method = "POST",
			 .path = "/kas.AccessService/Rewrap",
			 .peer = "fuzz",
			 .content_type = form ? "application/proto" : "application/json",
			 .local = true};
	static const struct proto_field request[] = {{.number = 1, .name = "signedRequestToken", .kind = PROTO_STRING}, {0}};
	struct buffer out = buffer_of(4 << 20);
	char *text = claims ? json_dumps(claims, JSON_COMPACT) : NULL, *token = text ? token_of((uint8_t *)text, strlen(text)) : NULL;
	uint8_t *packed;
	uLongf n;

	message = token ? json_pack("{s:s}", "signedRequestToken", token) : NULL;
	if (message && form) {
		CHECK(!proto_encode(request, message, &out));
	} else if (message) {
		char *json = json_dumps(message, 0);

		buffer_text(&out, json);
		free(json);
	}
	if (message && form == 2) { /* gzip */
		z_stream z = {0};

		n = compressBound(out.len) + 64;
		packed = malloc(n);
		CHECK(packed && deflateInit2(&z, 1, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY) == Z_OK);
		z.next_in = (Bytef *)out.p;
		z.avail_in = (uInt)out.len;
		z.next_out = packed;
		z.avail_out = (uInt)n;
		CHECK(deflate(&z, Z_FINISH) == Z_STREAM_END);
		c.content_encoding = "gzip";
		ask(server(false), &c, packed, z.total_out);
		deflateEnd(&z);
		free(packed);
	} else if (message) {
		ask(server(false), &c, out.p, out.len);
	}
	json_decref(message);
	json_decref(claims);
	buffer_free(&out);
	free(text);
	free(token);
}

/* A good body with @data's changes: two bytes where, one byte what. */
static void ask_changed(const uint8_t *data, size_t size)
{
	static char *good;
	char *body;
	size_t len;

	if (!good) {
		const char *policy =
		    "eyJ1dWlkIjoieCIsImJvZHkiOnsiZGF0YUF0dHJpYnV0ZXMiOlt7ImF0dHJpYnV0ZSI6Imh0dHBzOi8veC55L2F0dHIvYS92YWx1ZS9iIn1dfX0=";
		struct secret *dek = secret_random();
		EVP_PKEY *client = pubkey_new_ec();
		char *ka = NULL, *pem = client ? pubkey_pem(client) : NULL;
		json_t *list, *all;

		CHECK(dek && pem && !kas_wrap(server(false)->kas, dek, policy, &ka));
		list = json_loads(ka, 0, NULL);
		all = json_pack("{s:s, s:[{s:{s:s, s:s}, s:[{s:s, s:O}]}]}", "clientPublicKey", pem, "requests", "policy", "id", "p",
				"body", policy, "keyAccessObjects", "keyAccessObjectId", "k", "keyAccessObject", json_array_get(list, 0));
		good = json_dumps(all, JSON_COMPACT);
		CHECK(good);
		json_decref(all);
		json_decref(list);
		secret_free(dek);
		EVP_PKEY_free(client);
		free(ka);
		free(pem);
	}
	body = strdup(good);
	len = strlen(good);
	for (size_t i = 0; i + 3 <= size; i += 3)
		body[(data[i] | data[i + 1] << 8) % len] = (char)data[i + 2];
	ask_rewrap(body, len, 0);
	free(body);
}

/* Lines: method, path, content type, content encoding, authorization, DPoP, query, and, of a page in a browser, its origin and what it wants to ask
 * with; the rest is the body. */
static void ask_raw(const uint8_t *data, size_t size)
{
	char *line[9] = {0};
	struct call c = {.peer = "fuzz", .argument = no_argument};
	size_t n = 0;

	for (; n < ARRAY_SIZE(line); n++) {
		const uint8_t *end = memchr(data, '\n', size);

		if (!end)
			break;
		line[n] = strndup((const char *)data, (size_t)(end - data));
		size -= (size_t)(end - data) + 1;
		data = end + 1;
	}
	if (n == ARRAY_SIZE(line)) {
		c.method = line[0];
		c.path = line[1];
		c.content_type = *line[2] ? line[2] : NULL;
		c.content_encoding = *line[3] ? line[3] : NULL;
		c.authorization = *line[4] ? line[4] : NULL;
		c.dpop = *line[5] ? line[5] : NULL;
		c.ctx = *line[6] ? line[6] : NULL;
		c.origin = *line[7] ? line[7] : NULL;
		c.preflight = *line[8] ? line[8] : NULL;
		ask(server(true), &c, data, size);
	}
	for (size_t i = 0; i < ARRAY_SIZE(line); i++)
		free(line[i]);
}

static void ask_token(const uint8_t *data, size_t size, bool as_proof)
{
	struct call c = {
	    .method = "POST", .path = "/kas.AccessService/Rewrap", .peer = "fuzz", .content_type = "application/json", .local = false};
	char *text = token_of(data, size), *header, jkt[JWK_THUMBPRINT_LEN + 1];
	json_t *jwk = NULL;

	if (as_proof) {
		const struct dpop_request q = {"POST", "http://localhost", "/kas.AccessService/Rewrap", "t", time(NULL), NULL};

		CHECK(dpop_check(server(true)->replays, &q, text, strlen(text), &jwk, jkt)); /* nobody can guess a signature */
	} else {
		CHECK(asprintf(&header, "Bearer %s", text) > 0);
		c.authorization = header;
		ask(server(true), &c, "{}", 2);
		free(header);
	}
	free(text);
}

static void policy_check(const uint8_t *data, size_t size)
{
	json_t *policy = NULL, *claims = json_pack("{s:{s:[s,s]}, s:s}", "g", "h", "c", "b", "sub", "alice");
	char reason[ACCESS_REASON] = "";

	if (!access_policy((const char *)data, size, &policy)) {
		int err = access_check(server(true)->access, policy, claims, 1000000000, reason);

		CHECK((err == 0 || err == -EACCES) && *reason);
	}
	json_decref(policy);
	json_decref(claims);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static bool moved;

	if (!moved) { /* the audit log is descriptor 1: what is printed goes elsewhere */
		int out = dup(STDOUT_FILENO), null = open("/dev/null", O_WRONLY);

		fflush(stdout);
		CHECK(out >= 0 && null >= 0 && dup2(null, STDOUT_FILENO) == STDOUT_FILENO);
		stdout = fdopen(out, "w");
		moved = stdout != NULL;
	}
	if (!size)
		return 0;
	fail_clear();
	switch (data[0] % 8) {
	case 0:
		ask_raw(data + 1, size - 1);
		break;
	case 1:
	case 2:
	case 3:
		ask_rewrap(data + 1, size - 1, data[0] % 8 - 1);
		break;
	case 4:
	case 5:
		ask_token(data + 1, size - 1, data[0] % 8 == 5);
		break;
	case 6:
		ask_changed(data + 1, size - 1);
		break;
	case 7:
		policy_check(data + 1, size - 1);
		break;
	}
	return 0;
}
