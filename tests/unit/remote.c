/* SPDX-License-Identifier: Apache-2.0 */
/* remote*.c without a server: which files go together, what texts mean, answers cut anywhere, and the breaker. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#undef fail /* ours is another */

#include <errno.h>
#include <stdio.h>

#include "encode.h"
#include "remote_int.h"
#include "report.h"

#define URL "https://kas.example.org/kas"

static struct remote *remote(const char *url)
{
	struct remote *r = NULL;

	assert_int_equal(remote_new(&(struct remote_config){.url = url, .total_ms = 2000}, &r), 0);
	return r;
}

static void test_verdicts(void **state)
{
#define DENIED "permission_denied: request error\nrpc error: code = PermissionDenied desc = forbidden"
	static const struct {
		const char *text;
		enum verdict want;
	} cases[] = {
	    {DENIED, VERDICT_DENIED},
	    {DENIED "\n", VERDICT_DENIED},
	    {DENIED ": pdp-denied", VERDICT_UNDECIDED},
	    {"rpc error: code = Internal desc = internal: auth-service-unavailable", VERDICT_OUTAGE},
	    {"rpc error: code = Internal desc = internal: context-cancelled", VERDICT_OUTAGE},
	    {"unavailable: try later", VERDICT_OUTAGE},
	    {"resource_exhausted: request error\nrpc error: code = ResourceExhausted desc = too many", VERDICT_OUTAGE},
	    {"rpc error: code = InvalidArgument desc = bad request", VERDICT_BAD},
	    {"rpc error: code = InvalidArgument desc = unsupported key type", VERDICT_BAD},
	    {"rpc error: code = InvalidArgument desc = invalid request", VERDICT_INVALID},
	    {"", VERDICT_BAD},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(verdict_of(cases[i].text), cases[i].want);
	/* nothing but a denial ever becomes EACCES */
	for (enum verdict v = VERDICT_NONE; v <= VERDICT_OUTAGE; v++) {
		struct remote_item i = {.err = 1};

		item_fail(&i, v, "\x1b[2J bad request");
		assert_int_equal(i.err == -EACCES, v == VERDICT_DENIED);
		assert_true(i.err < 0);
		assert_null(strchr(i.text, '\x1b'));
	}
}

static enum item_kind kind_of(struct remote *r, const char *policy, struct key_access *ka)
{
	char b64[4000];
	struct remote_item i = {.ka = ka, .policy = b64};

	base64_encode(policy, strlen(policy), b64);
	return item_kind(r, &i, NULL, ITEM_BAD);
}

#define FQN(f) "{\"body\":{\"dataAttributes\":[{\"attribute\":\"" f "\"}]}}"

static void test_kinds(void **state)
{
	static const struct {
		const char *policy;
		enum item_kind want;
	} cases[] = {
	    {"{\"body\":{\"dataAttributes\":[],\"dissem\":[\"a\"]}}", ITEM_PLAIN},
	    {"{\"body\":{\"dataAttributes\":null}}", ITEM_PLAIN},
	    {"{\"body\":{}}", ITEM_PLAIN},
	    {FQN("https://example.com/attr/a/value/b"), ITEM_ATTRIBUTED},
	    {FQN("HTTPS://Example.com/attr/A-1_2/value/b"), ITEM_ATTRIBUTED},
	    {FQN("https://example.com/attr/a/value/"), ITEM_ALONE},
	    {FQN("https://example.com/attr/a"), ITEM_ALONE},
	    {FQN("https://example.com/attr/a/value/b/c"), ITEM_ALONE},
	    {FQN("https:///attr/a/value/b"), ITEM_ALONE},
	    {FQN("https://example.com/attr/a b/value/c"), ITEM_ALONE},
	    {FQN("example.com"), ITEM_ALONE},
	    {FQN(""), ITEM_ALONE},
	    {"{\"body\":{\"dataAttributes\":[{}]}}", ITEM_ALONE},
	    {"{\"body\":{\"dataAttributes\":[7]}}", ITEM_ALONE},
	    {"{\"body\":{\"dataAttributes\":7}}", ITEM_ALONE},
	    {"{\"body\":7}", ITEM_ALONE},
	    {"{}", ITEM_ALONE},
	    {"not JSON", ITEM_ALONE},
	};
	struct remote *r = remote(URL);
	uint8_t wrapped[1] = {0};
	struct key_access ka = {.url = (char *)URL, .wrapped = wrapped, .wrapped_len = 1, .binding = (char *)"x"};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(kind_of(r, cases[i].policy, &ka), cases[i].want);
	assert_int_equal(kind_of(r, "{\"body\":{}}", &(struct key_access){.url = (char *)"https://kas.example.org.evil.example/kas"}),
			 ITEM_BAD);
	/* what is known of another one with this very policy counts, and with another one nothing */
	struct remote_item i = {.ka = &ka, .policy = "e30="}, same = i, other = {.policy = "e31="};

	assert_int_equal(item_kind(r, &i, &same, ITEM_PLAIN), ITEM_PLAIN);
	assert_int_equal(item_kind(r, &i, &other, ITEM_PLAIN), ITEM_ALONE);
	ka.wrapped_len = 0;
	assert_int_equal(item_kind(r, &i, &same, ITEM_PLAIN), ITEM_BAD);
	assert_int_equal(kind_of(r, "{\"body\":{}}", &ka), ITEM_BAD);
	remote_free(r);
}

static void test_serves(void **state)
{
	static const char *const no[] = {"",
					 "kas.example.org",
					 "http://kas.example.org",
					 "https://kas.example.org:8443",
					 "https://kas.example.org.evil.example",
					 "https://kas.example.org@evil.example",
					 "https://evil.example/https://kas.example.org",
					 "https://kas.example.org\\.evil.example",
					 "https://xkas.example.org"};
	struct remote *r = remote(URL);

	assert_true(remote_serves(r, URL));
	assert_true(remote_serves(r, "https://KAS.example.org:443"));
	assert_true(remote_serves(r, "https://kas.example.org/elsewhere"));
	for (size_t i = 0; i < ARRAY_SIZE(no); i++)
		assert_false(remote_serves(r, no[i]));
	remote_free(r);
}

/* The answer of a KAS for @n keys, made here. */
static char *answer_make(EVP_PKEY *client, struct secret *const *deks, size_t n)
{
	CLEANUP_SECRET struct secret *kek = NULL;
	CLEANUP_FREE char *pem = NULL;
	json_t *list = json_array(), *j;
	char *text;

	assert_int_equal(ec_kek_new(client, &kek, &pem), 0);
	for (size_t i = 0; i < n; i++) {
		uint8_t sealed[EC_WRAPPED_LEN];
		char b64[BASE64_LEN(EC_WRAPPED_LEN) + 1], id[20];

		assert_int_equal(aead_seal(kek, deks[i]->b, SECRET_LEN, sealed), 0);
		base64_encode(sealed, sizeof(sealed), b64);
		snprintf(id, sizeof(id), "policy-%zu", i);
		json_array_append_new(list, json_pack("{s:s,s:[{s:s,s:s,s:s}]}", "policyId", id, "results", "keyAccessObjectId", "kao-0",
						      "status", "permit", "kasWrappedKey", b64));
	}
	j = json_pack("{s:o,s:s}", "responses", list, "sessionPublicKey", pem);
	text = json_dumps(j, JSON_COMPACT);
	json_decref(j);
	return text;
}

/* Whatever is cut off or changed in an answer: never a wrong key, never a crash, never a denial. */
static void test_answers(void **state)
{
	EVP_PKEY *client = pubkey_new_ec();
	struct secret *deks[2] = {secret_random(), secret_random()};
	struct key_access ka[2] = {0};
	struct remote_item items[2] = {0}, *list[2] = {&items[0], &items[1]};
	char binding[2][89], *text = answer_make(client, deks, 2);
	enum verdict v[2];
	size_t len = strlen(text);

	for (int i = 0; i < 2; i++) {
		assert_int_equal(policy_binding("e30=", deks[i], binding[i]), 0);
		ka[i].binding = binding[i];
		items[i].ka = &ka[i];
		items[i].policy = "e30=";
	}
	for (size_t cut = 0; cut <= 2 * len; cut++) {
		CLEANUP_FREE char *copy = strdup(text);
		struct http_answer a = {.status = 200, .body = copy, .len = MIN(cut, len)};
		int err;

		if (cut > len)
			copy[cut - len - 1] ^= 1;
		items[0].share = items[1].share = NULL;
		items[0].err = items[1].err = 1;
		err = answer_take(&a, client, list, 2, v);
		assert_true(err == 0 || err == -EPROTO);
		if (cut < len)
			assert_int_equal(err, -EPROTO);
		for (int i = 0; i < 2 && !err; i++) {
			assert_int_not_equal(items[i].err, -EACCES);
			assert_int_equal(v[i] == VERDICT_KEY, items[i].err == 0);
			assert_int_equal(items[i].share != NULL, items[i].err == 0);
			if (items[i].share)
				assert_memory_equal(items[i].share->b, deks[i]->b, SECRET_LEN);
			secret_free(items[i].share);
		}
		if (cut == len)
			assert_true(!err && v[0] == VERDICT_KEY && v[1] == VERDICT_KEY);
	}
	free(text);
	secret_free(deks[0]);
	secret_free(deks[1]);
	EVP_PKEY_free(client);
}

/* Nothing listens there: two failures open the breaker, the next calls fail at once with the same error. */
static void test_breaker(void **state)
{
	struct remote *r = remote("http://localhost:1");
	char *pem = NULL, *kid = NULL;
	struct remote_stats s;
	int64_t t;

	for (int i = 0; i < 2; i++)
		assert_int_equal(remote_public_key(r, "rsa:2048", &pem, &kid), -EIO);
	remote_stats(r, &s);
	assert_int_equal(s.state, REMOTE_OPEN);
	assert_in_range(s.retry_in_ms, 600, 1250);
	t = http_now();
	for (int i = 0; i < 100; i++)
		assert_int_equal(remote_public_key(r, "rsa:2048", &pem, &kid), -EIO);
	assert_true(http_now() - t < 300);
	remote_stats(r, &s);
	assert_int_equal(s.fast_failures, 100);
	assert_int_equal(s.requests, 6);
	assert_true(*s.last_error);
	/* half open: one at a time; its failure doubles the wait */
	r->breaker.open_until = 0;
	assert_int_equal(breaker_enter(r), 0);
	assert_int_equal(breaker_enter(r), -EIO);
	breaker_leave(r, -ETIMEDOUT);
	remote_stats(r, &s);
	assert_int_equal(s.state, REMOTE_OPEN);
	assert_in_range(s.retry_in_ms, 1300, 2500);
	assert_int_equal(breaker_enter(r), -ETIMEDOUT);
	r->breaker.open_until = 0;
	assert_int_equal(breaker_enter(r), 0);
	breaker_leave(r, 0);
	remote_stats(r, &s);
	assert_int_equal(s.state, REMOTE_CLOSED);
	remote_free(r);
}

/* "ANY:A,B ALL:A" = an anyOf definition with values for the keys A and B, then an allOf definition with one for A; "-": a value without a
 * key */
static size_t mappings_of(char *text, struct mapping *m, struct remote_mapped *keys)
{
	size_t n = 0;
	char *at = text, *word;

	while ((word = strsep(&at, " "))) {
		char *definition = strsep(&word, ":"), *key;

		while ((key = strsep(&word, ","))) {
			keys[n] = (struct remote_mapped){.url = key, .kid = (char *)"k"};
			m[n] = (struct mapping){definition, strlen(definition), strncmp(definition, "ANY", 3) == 0, &keys[n], *key != '-'};
			n++;
		}
	}
	return n;
}

static void plan_text(const struct remote_mapped *list, size_t n, char *ret)
{
	for (size_t i = 0; i < n; i++)
		ret += sprintf(ret, "%s%s", !i ? "" : list[i].split == list[i - 1].split ? "|" : "&", list[i].url);
	*ret = '\0';
}

/* As the Go SDK's granter decides: any-of makes alternatives, all else shares; what is there already is not there twice. */
static void test_plan(void **state)
{
	static const struct {
		const char *from, *want;
	} cases[] = {
	    {"ANY:A", "A"},
	    {"ANY:A,B", "A|B"},
	    {"ANY:B,A,B", "A|B"},
	    {"ALL:A,B", "A&B"},
	    {"ALL:B,A,B", "B&A"},
	    {"HIER:A,A", "A"},
	    {"ANY:A,B ALL:A", "A|B&A"},
	    {"ANY1:A,B ANY2:B,A", "A|B"},
	    {"ANY1:A,B ANY2:C", "A|B&C"},
	    {"ANY1:A ANY2:B ANY1:C", "A|C&B"}, /* values of one definition stand together */
	    {"ALL:A ANY:A", "A"},
	    {"ANY:- ALL:-", ""},
	    {"ANY1:- ANY2:B,-", "B"},
	    {"ANY:P,O,N,M,L,K,J,I,H,G,F,E,D,C,B,A", "A|B|C|D|E|F|G|H|I|J|K|L|M|N|O|P"},
	    {"ANY:Q,P,O,N,M,L,K,J,I,H,G,F,E,D,C,B,A", NULL}, /* more than there may be */
	    {"ANY:P,O,N,M,L,K,J,I ALL:H,G,F,E,D,C,B,A,Z", NULL},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct remote_mapped keys[32], *list = NULL;
		struct mapping m[32];
		char from[128], got[256] = "";
		size_t n = 0;
		int err;

		snprintf(from, sizeof(from), "%s", cases[i].from);
		err = mappings_plan(m, mappings_of(from, m, keys), &list, &n);
		assert_int_equal(err, cases[i].want ? 0 : -ENOSPC);
		if (err)
			continue;
		plan_text(list, n, got);
		assert_string_equal(got, cases[i].want);
		for (size_t k = 0; k < n; k++)
			assert_int_equal(list[k].split, k ? list[k - 1].split + (list[k].split != list[k - 1].split) : 0);
		remote_mapped_free(list, n);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_verdicts), cmocka_unit_test(test_kinds),   cmocka_unit_test(test_serves),
					   cmocka_unit_test(test_answers),  cmocka_unit_test(test_breaker), cmocka_unit_test(test_plan)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
