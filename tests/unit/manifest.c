/* SPDX-License-Identifier: Apache-2.0 */
#include "encode.h"
#include "make_tdf.h"
#include "manifest.h"
#include "report.h" /* before cmocka.h, which has a macro fail() */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/resource.h>
#include <time.h>

#include <cmocka.h>

#define BASE .len = 1000, .s = 300
#define EDIT(a, b) .edit = {{a, b}}

static int parse(const char *text, struct manifest **ret)
{
	/* without the NUL, so that a read beyond the end is seen */
	size_t len = strlen(text);
	char *exact = malloc(len ? len : 1);
	int err;

	assert_non_null(exact);
	memcpy(exact, text, len);
	fail_clear();
	err = manifest_parse(exact, len, false, ret);
	free(exact);
	return err;
}

static void test_accepted(void **state)
{
	static const struct {
		const char *name;
		struct foreign_opt o;
		uint64_t n;
		bool uniform;
	} cases[] = {
	    {"4.3.0", {BASE}, 4, true},
	    {"hex, no schemaVersion, IsStreamable", {BASE, .hex = true}, 4, true},
	    {"HS256 segments", {BASE, .hs256 = true}, 4, true},
	    {"HS256 segments, hex", {BASE, .hs256 = true, .hex = true}, 4, true},
	    {"sizes left out where they are the default", {BASE, .omit_sizes = true}, 4, true},
	    {"bare binding", {BASE, .bare_binding = true}, 4, true},
	    {"two splits", {BASE, .splits = 2}, 4, true},
	    {"no segments", {.s = 300, .no_segments = true}, 0, true},
	    {"one empty segment", {.s = 300}, 1, true},
	    {"segments of different sizes", {BASE, .odd_sizes = true}, 5, false},
	    {"zipstream", {BASE, EDIT("\"zip\"", "\"zipstream\"")}, 4, true},
	    {"a later schema", {BASE, EDIT("4.3.0", "4.4.0")}, 4, true},
	    {"explicit 4.2.2 with hex", {BASE, .hex = true, EDIT("{\"enc", "{\"schemaVersion\":\"4.2.2\",\"enc")}, 4, true},
	    {"no mimeType", {BASE, EDIT(",\"mimeType\":\"text/plain\"", "")}, 4, true},
	    {"unknown members", {BASE, EDIT("{\"hash\"", "{\"x\":[{}],\"hash\"")}, 4, true},
	    {"escaped base64", {BASE, EDIT("==\",\"segmentSize\"", "\\u003d\\u003d\",\"segmentSize\"")}, 4, true},
	    {"white space", {BASE, EDIT(",\"segments\":[", " ,\n\"segments\" : [\r\n\t ")}, 4, true},
	    {"no segmentHashAlg", {BASE, EDIT("\"segmentHashAlg\":\"GMAC\",", "")}, 4, true},
	    {"null is absent", {BASE, EDIT("\"kid\"", "\"sid\":null,\"ephemeralPublicKey\":null,\"kid\"")}, 4, true},
	    {"null segmentHashAlg, mimeType", {BASE, .edit = {{"\"GMAC\"", "null"}, {"\"text/plain\"", "null"}}}, 4, true},
	    {"null where the size is the default", {BASE, EDIT(",\"segmentSize\":300", ",\"segmentSize\":null")}, 4, true},
	    {"hash without padding", {BASE, EDIT("==\",\"segmentSize\"", "\",\"segmentSize\"")}, 4, true},
	    {"hash with a line break", {BASE, EDIT("==\",\"segmentSize\"", "\\n==\",\"segmentSize\"")}, 4, true},
	    {"root with a line break", {BASE, EDIT("\"sig\":\"", "\"sig\":\"\\r\\n")}, 4, true},
	    {"byte order mark", {BASE, EDIT("{\"enc", "\xef\xbb\xbf{\"enc")}, 4, true},
	    {"wrapped key with line breaks", {BASE, EDIT("\"AAAA\"", "\"AA\\r\\nAA\\n\"")}, 4, true},
	    {"assertions", {BASE, EDIT(",\"schemaVersion\"", ",\"assertions\":[{\"a\":1.5e3}],\"schemaVersion\"")}, 4, true},
	};
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char *text = manifest_text(&cases[i].o);
		struct manifest *m;

		print_message("%s\n", cases[i].name);
		assert_int_equal(parse(text, &m), 0);
		assert_int_equal(m->size, cases[i].o.len);
		assert_int_equal(m->n_segs, cases[i].n);
		assert_int_equal(m->seg_default, 300);
		assert_int_equal(m->hex, cases[i].o.hex);
		assert_int_equal(m->seg_hs256, cases[i].o.hs256);
		assert_int_equal(m->hash_len, cases[i].o.hs256 ? 32 : 16);
		assert_int_equal(!m->plain_start, cases[i].uniform);
		assert_int_equal(m->n_ka, MAX(cases[i].o.splits, 1u));
		assert_int_equal(manifest_root(m, &test_dek), 0);
		assert_int_equal(manifest_root(m, &test_shares[0]), -EBADMSG);
		for (size_t k = 0; k < m->n_ka; k++) {
			assert_int_equal(m->ka[k].type, WRAP_RSA);
			assert_string_equal(m->ka[k].sid, cases[i].o.splits ? (k ? "split1" : "split0") : "");
			assert_int_equal(m->ka[k].wrapped_len, 3);
			assert_int_equal(manifest_binding(m, &m->ka[k], cases[i].o.splits ? &test_shares[k] : &test_dek), 0);
			assert_int_equal(manifest_binding(m, &m->ka[k], &test_keys.k_rec), -EBADMSG);
		}
		assert_int_equal(m->key_access_text[0], '[');
		assert_int_equal(m->key_access_text[strlen(m->key_access_text) - 1], ']');
		manifest_free(m);
		free(text);
	}
}

static const struct {
	const char *name;
	struct foreign_opt o;
	int want;
	const char *why; /* in the message */
} refused[] = {
    {"GMAC root", {BASE, EDIT("\"alg\":\"HS256\",\"sig\"", "\"alg\":\"GMAC\",\"sig\"")}, -ENOTSUP, "rootSignature.alg"},
    {"no root", {BASE, EDIT("rootSignature", "rootSignaturE")}, -EPROTO, "rootSignature"},
    {"root of 31 bytes", {BASE, EDIT("\"sig\":\"", "\"sig\":\"AAAA\",\"x\":\"")}, -EPROTO, "sig"},
    {"not encrypted", {BASE, EDIT("\"isEncrypted\":true", "\"isEncrypted\":false")}, -EPROTO, "isEncrypted"},
    {"isEncrypted as a string", {BASE, EDIT("\"isEncrypted\":true", "\"isEncrypted\":\"true\"")}, -EPROTO, "isEncrypted"},
    {"isEncrypted missing", {BASE, EDIT("\"isEncrypted\":true,", "")}, -EPROTO, "isEncrypted"},
    {"another cipher", {BASE, EDIT("AES-256-GCM", "AES-128-GCM")}, -ENOTSUP, "algorithm"},
    {"cipher in another case", {BASE, EDIT("AES-256-GCM", "aes-256-gcm")}, -ENOTSUP, "algorithm"},
    {"type not split", {BASE, EDIT("\"split\"", "\"remote\"")}, -ENOTSUP, "type"},
    {"payload type", {BASE, EDIT("\"reference\"", "\"embedded\"")}, -ENOTSUP, "type"},
    {"protocol", {BASE, EDIT("\"zip\"", "\"tar\"")}, -ENOTSUP, "protocol"},
    {"segment hash", {BASE, EDIT("\"GMAC\"", "\"MD5\"")}, -ENOTSUP, "segmentHashAlg"},
    {"segment hash in another case", {BASE, EDIT("\"GMAC\"", "\"gmac\"")}, -ENOTSUP, "segmentHashAlg"},
    {"segment hash no string", {BASE, EDIT("\"GMAC\"", "1")}, -EPROTO, "segmentHashAlg"},
    {"GMAC hashes said to be HS256", {BASE, EDIT("\"GMAC\"", "\"HS256\"")}, -EPROTO, "hash"},
    {"raw hashes with a hex root",
     {BASE, .hex = true, EDIT("\"segments\":[", "\"segments\":[{\"hash\":\"AAAAAAAAAAAAAAAAAAAAAA==\"},")},
     -EPROTO,
     "hash"},
    {"hash not base64", {BASE, EDIT("{\"hash\":\"", "{\"hash\":\"!")}, -EPROTO, "hash"},
    {"hash missing", {BASE, EDIT("{\"hash\":", "{\"hasH\":")}, -EPROTO, "hash"},
    {"duplicate at the top", {BASE, EDIT("{\"enc", "{\"payload\":{},\"enc")}, -EPROTO, "duplicate"},
    {"duplicate encryptionInformation", {BASE, EDIT(",\"payload\"", ",\"encryptionInformation\":{},\"payload\"")}, -EPROTO, "duplicate"},
    {"duplicate segments", {BASE, EDIT("\"segments\":", "\"segments\":[],\"segments\":")}, -EPROTO, "duplicate"},
    {"duplicate segments, escaped", {BASE, EDIT("\"segmentHashAlg\"", "\"s\\u0065gments\":[],\"segmentHashAlg\"")}, -EPROTO, "duplicate"},
    {"duplicate in a segment", {BASE, EDIT("{\"hash\"", "{\"segmentSize\":1,\"hash\"")}, -EPROTO, "duplicate"},
    {"duplicate in keyAccess", {BASE, EDIT("\"url\"", "\"kid\":\"q\",\"url\"")}, -EPROTO, "duplicate"},
    {"duplicate schemaVersion", {BASE, EDIT("{\"enc", "{\"schemaVersion\":\"\",\"enc")}, -EPROTO, "duplicate"},
    {"negative size", {BASE, EDIT("\"segmentSize\":300", "\"segmentSize\":-300")}, -EPROTO, "segmentSize"},
    {"fraction", {BASE, EDIT("\"segmentSize\":300", "\"segmentSize\":300.0")}, -EPROTO, "segmentSize"},
    {"exponent", {BASE, EDIT("\"segmentSize\":300", "\"segmentSize\":3e2")}, -EPROTO, "segmentSize"},
    {"1e400", {BASE, EDIT("\"segmentSize\":300", "\"segmentSize\":1e400")}, -EPROTO, ""},
    {"2^64", {BASE, EDIT("\"segmentSize\":300", "\"segmentSize\":18446744073709551616")}, -EPROTO, ""},
    {"2^63 - 1", {BASE, EDIT("\"segmentSize\":300", "\"segmentSize\":9223372036854775807")}, -EPROTO, "segmentSize"},
    {"2^32 + 300", {BASE, EDIT("\"segmentSize\":300", "\"segmentSize\":4294967596")}, -EPROTO, "segmentSize"},
    {"size as a string", {BASE, EDIT("\"segmentSize\":300", "\"segmentSize\":\"300\"")}, -EPROTO, "segmentSize"},
    {"sizes that do not differ by 28", {BASE, EDIT("\"encryptedSegmentSize\":328", "\"encryptedSegmentSize\":327")}, -EPROTO, "differ"},
    {"stored size shorter than its overhead",
     {BASE, EDIT("\"encryptedSegmentSize\":328", "\"encryptedSegmentSize\":27")},
     -EPROTO,
     "differ"},
    {"default 0",
     {BASE, EDIT("\"segmentSizeDefault\":300,\"encryptedSegmentSizeDefault\":328",
		 "\"segmentSizeDefault\":0,\"encryptedSegmentSizeDefault\":28")},
     -EPROTO,
     "Default"},
    {"huge default", {BASE, EDIT("\"segmentSizeDefault\":300", "\"segmentSizeDefault\":99999999999")}, -EPROTO, "Default"},
    {"defaults apart", {BASE, EDIT("\"encryptedSegmentSizeDefault\":328", "\"encryptedSegmentSizeDefault\":329")}, -EPROTO, "differ"},
    {"no key access", {BASE, EDIT("\"keyAccess\":[", "\"keyAccess\":[],\"x\":[")}, -EPROTO, "keyAccess"},
    {"key access a string", {BASE, EDIT("\"keyAccess\":[", "\"keyAccess\":\"\",\"x\":[")}, -EPROTO, "keyAccess"},
    {"17 key access objects",
     {BASE, .splits = 1, EDIT("\"keyAccess\":[", "\"keyAccess\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,")},
     -EPROTO,
     "keyAccess"},
    {"key access object a number", {BASE, EDIT("\"keyAccess\":[", "\"keyAccess\":[1,")}, -EPROTO, "keyAccess"},
    {"wrapped key missing", {BASE, EDIT("\"wrappedKey\"", "\"wrappedKeY\"")}, -EPROTO, "wrappedKey"},
    {"wrapped key null", {BASE, EDIT("\"AAAA\"", "null")}, -EPROTO, "wrappedKey"},
    {"hash null", {BASE, EDIT("{\"hash\":", "{\"hash\":null,\"x\":")}, -EPROTO, "hash"},
    {"two byte order marks", {BASE, EDIT("{\"enc", "\xef\xbb\xbf\xef\xbb\xbf{\"enc")}, -EPROTO, ""},
    {"wrapped key not base64", {BASE, EDIT("\"AAAA\"", "\"A*AA\"")}, -EPROTO, "wrappedKey"},
    {"binding missing", {BASE, EDIT("\"policyBinding\"", "\"policyBindinG\"")}, -EPROTO, "policyBinding"},
    {"binding with another algorithm",
     {BASE, EDIT("\"policyBinding\":{\"alg\":\"HS256\"", "\"policyBinding\":{\"alg\":\"none\"")},
     -EPROTO,
     "policyBinding"},
    {"policy missing", {BASE, EDIT("\"policy\"", "\"policY\"")}, -EPROTO, "policy"},
    {"segments an object", {BASE, EDIT("\"segments\":[", "\"segments\":{},\"x\":[")}, -EPROTO, "segments"},
    {"segments with a hole", {BASE, EDIT("},{\"hash\"", "},,{\"hash\"")}, -EPROTO, "segments"},
    {"segments with a number", {BASE, EDIT("\"segments\":[", "\"segments\":[7,")}, -EPROTO, ""},
    {"brackets that do not match", {BASE, EDIT("{\"hash\"", "{]}[\"hash\"")}, -EPROTO, ""},
    {"NUL in a string", {BASE, EDIT("text/plain", "text\\u0000plain")}, -EPROTO, ""},
    {"bad UTF-8", {BASE, EDIT("text/plain", "text\xff")}, -EPROTO, ""},
    {"an integrityInformation string", {BASE, EDIT("\"integrityInformation\":", "\"integrityInformation\":\"\",\"x\":")}, -EPROTO, ""},
    {"trailing text", {BASE, EDIT("\"4.3.0\"}", "\"4.3.0\"} x")}, -EPROTO, ""},
};

static void test_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
		char *text = manifest_text(&refused[i].o);
		struct manifest *m;
		int err;

		print_message("%s\n", refused[i].name);
		err = parse(text, &m);
		print_message("   %d %s\n", err, fail_text());
		assert_int_equal(err, refused[i].want);
		assert_int_not_equal(strlen(fail_text()), 0);
		assert_non_null(strstr(fail_text(), refused[i].why));
		free(text);
	}
}

/* deep nesting: at every place where a value may stand, and in a text that is nothing else */
static void test_depth(void **state)
{
	static const struct {
		const char *name, *from, *to;
	} places[] = {
	    {"top", "{\"enc", "{\"x\":%s,\"enc"},
	    {"segment", "{\"hash\"", "{\"x\":%s,\"hash\""},
	    {"key access", "\"url\"", "\"x\":%s,\"url\""},
	    {"segments", "\"segments\":[", "\"segments\":[%s,"},
	};
	const size_t n = 100000;
	char *deep = malloc(2 * n + 1), *to;
	struct manifest *m;

	(void)state;
	assert_non_null(deep);
	memset(deep, '[', n);
	memset(deep + n, ']', n);
	deep[2 * n] = 0;
	assert_int_equal(parse(deep, &m), -EPROTO);
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		assert_true(asprintf(&to, "%.*s%s%s", (int)(strchr(places[i].to, '%') - places[i].to), places[i].to, deep,
				     strchr(places[i].to, '%') + 2) > 0);
		char *text = manifest_text(&(struct foreign_opt){BASE, EDIT(places[i].from, to)});

		print_message("%s\n", places[i].name);
		assert_true(strlen(text) > 2 * n);
		assert_int_equal(parse(text, &m), -EPROTO);
		assert_non_null(strstr(fail_text(), "nested deeper"));
		free(text);
		free(to);
	}
	for (size_t i = 0; i < n; i++)
		memcpy(deep + 2 * i, "{\"", 2);
	assert_int_equal(parse(deep, &m), -EPROTO);
	free(deep);
}

/*
 * Texts as large as we read at all: refused or read without taking much more memory than themselves, and soon.  The bounds are lenient
 * (sanitizers, slow machines); the numbers are printed.
 */
static void test_large(void **state)
{
	static const struct {
		const char *name, *from, *fill;
		size_t len;
		int want;
	} cases[] = {
	    {"a million segments", "\"segments\":[", "{\"hash\":\"AAAAAAAAAAAAAAAAAAAAAA==\",\"segmentSize\":300},", 60 << 20, 0},
	    {"7 MiB of arrays", "{\"enc", "[],", 7 << 20, -EPROTO},
	    {"60 MiB of arrays", "{\"enc", "[],", 60 << 20, -EPROTO},
	    {"60 MiB of numbers in a segment", "{\"hash\"", "0,", 60 << 20, -EPROTO},
	    {"70 MiB", "\"segments\":[", "{\"hash\":\"AAAAAAAAAAAAAAAAAAAAAA==\"},", 70 << 20, -EPROTO},
	};
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		size_t fill = strlen(cases[i].fill), n = cases[i].len / fill, pre;
		char *base = manifest_text(&(struct foreign_opt){BASE}), *at = strstr(base, cases[i].from), *text, *p;
		struct timespec a, b;
		struct rusage before, after;
		struct manifest *m;
		bool in_array = strchr(cases[i].from, '[');

		assert_non_null(at);
		text = malloc(strlen(base) + n * fill + 100);
		assert_non_null(text);
		pre = (size_t)(at - base) + (in_array ? strlen(cases[i].from) : 1);
		memcpy(text, base, pre);
		p = text + pre;
		if (!in_array)
			p = stpcpy(p, "\"x\":[");
		for (size_t k = 0; k < n; k++, p += fill)
			memcpy(p, cases[i].fill, fill);
		if (!in_array)
			p = stpcpy(p - 1, "],");
		p = stpcpy(p, base + pre);
		getrusage(RUSAGE_SELF, &before);
		clock_gettime(CLOCK_MONOTONIC, &a);
		assert_int_equal(manifest_parse(text, (size_t)(p - text), false, &m), cases[i].want);
		clock_gettime(CLOCK_MONOTONIC, &b);
		getrusage(RUSAGE_SELF, &after);
		print_message("%s: %.0f ms, %ld KiB more, %s\n", cases[i].name,
			      (double)(b.tv_sec - a.tv_sec) * 1e3 + (double)(b.tv_nsec - a.tv_nsec) / 1e6,
			      after.ru_maxrss - before.ru_maxrss, fail_text());
		assert_true(after.ru_maxrss - before.ru_maxrss < 200 << 10);
		if (!cases[i].want) {
			assert_int_equal(m->n_segs, n + 4);
			manifest_free(m);
		}
		free(text);
		free(base);
	}
}

/* every cut, and every byte replaced by each of a few that matter: an answer, never a crash, and never a success with a cut text */
static void test_cut_and_flip(void **state)
{
	char *text = manifest_text(&(struct foreign_opt){.len = 600, .s = 300, .splits = 2});
	static const char bytes[] = "\"\\{}[],:0-\x80";
	size_t len = strlen(text);
	struct manifest *m;

	(void)state;
	for (size_t i = 0; i < len; i++)
		assert_int_equal(manifest_parse(text, i, false, &m), -EPROTO);
	for (size_t i = 0; i < len; i++)
		for (size_t k = 0; k < sizeof(bytes); k++) {
			char was = text[i];

			text[i] = bytes[k];
			if (!parse(text, &m))
				manifest_free(m);
			text[i] = was;
		}
	assert_int_equal(parse(text, &m), 0);
	manifest_free(m);
	free(text);
}

/* the offsets of odd segments, and sums that the last one decides */
static void test_odd_sizes(void **state)
{
	char *text = manifest_text(&(struct foreign_opt){BASE, .odd_sizes = true});
	struct manifest *m;
	static const uint64_t starts[] = {0, 300, 450, 600, 900, 1000};

	(void)state;
	assert_int_equal(parse(text, &m), 0);
	for (size_t i = 0; i < ARRAY_SIZE(starts); i++)
		assert_int_equal(m->plain_start[i], starts[i]);
	manifest_free(m);
	free(text);
}

static void test_policy_binding(void **state)
{
	struct manifest m = {.policy = (char *)"eyJ1dWlkIjoiMSJ9"};
	struct key_access ka = {0};
	char text[89], raw_text[45];
	uint8_t raw[MAC_LEN];

	(void)state;
	assert_int_equal(policy_binding(m.policy, &test_dek, text), 0);
	assert_int_equal(strlen(text), 88);
	ka.binding = text;
	assert_int_equal(manifest_binding(&m, &ka, &test_dek), 0);
	text[3] ^= 1;
	assert_int_equal(manifest_binding(&m, &ka, &test_dek), -EBADMSG);
	assert_int_equal(hmac_sha256(test_dek.b, 32, &(struct part){m.policy, strlen(m.policy)}, 1, raw), 0);
	base64_encode(raw, 32, raw_text);
	ka.binding = raw_text;
	assert_int_equal(manifest_binding(&m, &ka, &test_dek), 0);
	ka.binding = (char *)"";
	assert_int_equal(manifest_binding(&m, &ka, &test_dek), -EBADMSG);
	m.policy = (char *)"eyJ1dWlkIjoiMiJ9";
	ka.binding = raw_text;
	assert_int_equal(manifest_binding(&m, &ka, &test_dek), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_accepted),       cmocka_unit_test(test_refused), cmocka_unit_test(test_depth),
	    cmocka_unit_test(test_cut_and_flip),   cmocka_unit_test(test_large),   cmocka_unit_test(test_odd_sizes),
	    cmocka_unit_test(test_policy_binding),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
