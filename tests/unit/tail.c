/* SPDX-License-Identifier: Apache-2.0 */
#include "tail.h"
#include "report.h" /* before cmocka.h, which has a macro fail() */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include <cmocka.h>

#include "encode.h"
#define KEY_ACCESS                                                                                                       \
	"[{\"type\":\"wrapped\",\"url\":\"http://kas]\\\"\",\"protocol\":\"kas\",\"kid\":\"k\",\"wrappedKey\":\"AAAA\"," \
	"\"policyBinding\":{\"alg\":\"HS256\",\"hash\":\"AAAA\"}}]"
#define POLICY "eyJ1dWlkIjoiMSJ9"
#define CRC 0x01020304u

static const struct secret dek = {{3}};

static uint8_t *make_tags(uint64_t n)
{
	uint8_t *tags = malloc(n * AEAD_TAG);

	assert_non_null(tags);
	for (uint64_t i = 0; i < n * AEAD_TAG; i++)
		tags[i] = (uint8_t)(i * 2654435761u >> 11);
	return tags;
}

static uint8_t *make_tail(uint32_t s, uint64_t size, size_t *ret_len)
{
	struct tail_template *t = tail_template_new(s, KEY_ACCESS, POLICY);
	uint8_t *tags = make_tags(seg_count(size, s)), root[MAC_LEN], *p;

	assert_non_null(t);
	*ret_len = tail_len(t, size);
	p = malloc(*ret_len + 1);
	assert_non_null(p);
	p[*ret_len] = 0xa5;
	assert_int_equal(root_signature(&dek, tags, seg_count(size, s), root), 0);
	tail_build(t, size, tags, root, CRC, p);
	assert_int_equal(p[*ret_len], 0xa5); /* not a byte more */
	free(tags);
	tail_template_free(t);
	return p;
}

static void test_round_trip(void **state)
{
	static const uint64_t sizes[] = {0, 1, 65535, 65536, 65537, 131072, 10 << 20};
	static const uint32_t segs[] = {SEG_MIN, SEG_DEFAULT, 99980, 1 << 20, SEG_MAX};

	(void)state;
	for (size_t k = 0; k < ARRAY_SIZE(segs); k++)
		for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
			uint64_t n = seg_count(sizes[i], segs[k]);
			uint8_t *tags = make_tags(n), *got_tags, root[MAC_LEN], got_root[MAC_LEN], *p;
			struct tail_template *t;
			size_t len;

			p = make_tail(segs[k], sizes[i], &len);
			assert_int_equal(tail_parse(p, len, sizes[i], segs[k], CRC, &t, &got_tags, got_root), 0);
			assert_string_equal(t->key_access, KEY_ACCESS);
			assert_string_equal(t->policy, POLICY);
			assert_int_equal(t->s, segs[k]);
			assert_memory_equal(tags, got_tags, n * AEAD_TAG);
			assert_int_equal(root_signature(&dek, tags, n, root), 0);
			assert_memory_equal(root, got_root, MAC_LEN);
			/* other values than those it was built for are refused */
			tail_template_free(t);
			free(got_tags);
			assert_int_equal(tail_parse(p, len, sizes[i] + 1, segs[k], CRC, &t, &got_tags, got_root), -EPROTO);
			assert_int_equal(
			    tail_parse(p, len, sizes[i], segs[k] == SEG_MAX ? SEG_MIN : segs[k] + 1, CRC, &t, &got_tags, got_root),
			    -EPROTO);
			assert_int_equal(tail_parse(p, len, sizes[i], segs[k], CRC + 1, &t, &got_tags, got_root), -EPROTO);
			free(p);
			free(tags);
		}
}

/* the whole tail of an empty file, byte for byte from FORMAT.md */
static void test_layout(void **state)
{
	static const char text[] =
	    "{\"schemaVersion\":\"4.3.0\",\"payload\":{\"type\":\"reference\",\"url\":\"0.payload\",\"protocol\":\"zip\",\"isEncrypted\":"
	    "true,"
	    "\"mimeType\":\"application/octet-stream\"},\"encryptionInformation\":{\"type\":\"split\",\"keyAccess\":" KEY_ACCESS
	    ",\"method\":{\"algorithm\":\"AES-256-GCM\",\"isStreamable\":true,\"iv\":\"\"},\"policy\":\"" POLICY
	    "\",\"integrityInformation\":{\"rootSignature\":{\"alg\":\"HS256\",\"sig\":\"%s\"},\"segmentHashAlg\":\"GMAC\","
	    "\"segmentSizeDefault\":65536,\"encryptedSegmentSizeDefault\":65564,\"segments\":[{\"hash\":\"%s\",\"segmentSize\":0,"
	    "\"encryptedSegmentSize\":28}]}}}";
	char sig[45], hash[25], want[2048];
	uint8_t *tags = make_tags(1), root[MAC_LEN], *p;
	size_t len, n;

	(void)state;
	assert_int_equal(root_signature(&dek, tags, 1, root), 0);
	base64_encode(root, 32, sig);
	base64_encode(tags, 16, hash);
	n = (size_t)snprintf(want, sizeof(want), text, sig, hash);
	p = make_tail(65536, 0, &len);
	assert_int_equal(len, 65 + n + 83 + 89 + 56 + 20 + 22);
	assert_memory_equal(p, "PK\3\4\x2d\0\0\0\0\0\0\0\x21\0", 14);
	assert_memory_equal(p + 18,
			    "\xff\xff\xff\xff\xff\xff\xff\xff\x0f\0\x14\0"
			    "0.manifest.json\1\0\x10\0",
			    31);
	assert_int_equal(get_le64(p + 49), n);
	assert_int_equal(get_le64(p + 57), n);
	assert_memory_equal(p + 65, want, n);
	const uint8_t *cd = p + 65 + n, *end = p + len;

	assert_memory_equal(
	    cd, "PK\1\2\x2d\0\x2d\0\0\0\0\0\0\0\x21\0\4\3\2\1\xff\xff\xff\xff\xff\xff\xff\xff\x09\0\x1c\0\0\0\0\0\0\0\0\0\0\0", 42);
	assert_memory_equal(cd + 42,
			    "\xff\xff\xff\xff"
			    "0.payload\1\0\x18\0",
			    17);
	assert_int_equal(get_le64(cd + 59), 28);
	assert_int_equal(get_le64(cd + 75), 0);
	assert_int_equal(get_le64(cd + 83 + 46 + 15 + 20), 540);
	assert_memory_equal(end - 22, "PK\5\6\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0", 22);
	assert_memory_equal(end - 42, "PK\6\7\0\0\0\0", 8);
	assert_int_equal(get_le64(end - 34), 540 + len - 98);
	assert_memory_equal(end - 98, "PK\6\6\x2c\0\0\0\0\0\0\0\x2d\0\x2d\0\0\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0", 40);
	assert_int_equal(get_le64(end - 58), 172);
	assert_int_equal(get_le64(end - 50), 540 + 65 + n);
	free(p);
	free(tags);
}

/* every bit of a tail is checked by its structure or by the manifest's CRC; every cut and every extra byte is seen */
static void test_damage(void **state)
{
	struct tail_template *t;
	uint8_t *tags, root[MAC_LEN], *p, *longer;
	size_t len;

	(void)state;
	p = make_tail(65536, 65537, &len);
	for (size_t i = 0; i < len * 8; i++) {
		p[i / 8] ^= (uint8_t)(1 << i % 8);
		assert_int_equal(tail_parse(p, len, 65537, 65536, CRC, &t, &tags, root), -EPROTO);
		p[i / 8] ^= (uint8_t)(1 << i % 8);
	}
	for (size_t i = 0; i < len; i++)
		assert_int_equal(tail_parse(p, i, 65537, 65536, CRC, &t, &tags, root), -EPROTO);
	longer = calloc(1, len + 1);
	assert_non_null(longer);
	memcpy(longer, p, len);
	assert_int_equal(tail_parse(longer, len + 1, 65537, 65536, CRC, &t, &tags, root), -EPROTO);
	free(longer);
	free(p);
}

/* texts that are near the native layout, straight to the scanner */
static void test_scanner(void **state)
{
	static const struct {
		const char *name, *from, *to;
	} cases[] = {
	    {"a space", "\"payload\":", "\"payload\": "},
	    {"another schema", "4.3.0", "4.3.1"},
	    {"leading zero", "segmentSize\":1,", "segmentSize\":01,"},
	    {"plus", "segmentSize\":1,", "segmentSize\":+1,"},
	    {"a fraction", "segmentSize\":1,", "segmentSize\":1.0,"},
	    {"sizes apart", "encryptedSegmentSize\":29", "encryptedSegmentSize\":28"},
	    {"larger than S", "segmentSize\":1,\"encryptedSegmentSize\":29", "segmentSize\":65537,\"encryptedSegmentSize\":65565"},
	    {"empty last one", "segmentSize\":1,\"encryptedSegmentSize\":29", "segmentSize\":0,\"encryptedSegmentSize\":28"},
	    {"short one in the middle", "segmentSize\":65536,\"encryptedSegmentSize\":65564",
	     "segmentSize\":65535,\"encryptedSegmentSize\":65563"},
	    {"32-bit overflow", "segmentSize\":1,\"encryptedSegmentSize\":29", "segmentSize\":4294967297,\"encryptedSegmentSize\":29"},
	    {"no segments", "segments\":[{", "segments\":[]}}}"},
	    {"default too small", "segmentSizeDefault\":65536,\"encryptedSegmentSizeDefault\":65564",
	     "segmentSizeDefault\":16383,\"encryptedSegmentSizeDefault\":16411"},
	    {"defaults apart", "encryptedSegmentSizeDefault\":65564", "encryptedSegmentSizeDefault\":65563"},
	    {"policy with an escape", POLICY, "eyJ1\\u003d"},
	    {"open keyAccess", "]\\\"\"", "]\\\"\\\""},
	};
	struct manifest *m;
	uint8_t *p;
	size_t len;

	(void)state;
	p = make_tail(65536, 65537, &len);
	char *text = strndup((char *)p + 65, len - 65 - 270);

	free(p);
	assert_int_equal(manifest_parse(text, strlen(text), true, &m), 0);
	assert_int_equal(m->n_segs, 2);
	assert_int_equal(m->size, 65537);
	assert_int_equal(m->seg_default, 65536);
	assert_null(m->plain_start);
	assert_int_equal(m->n_ka, 1);
	assert_string_equal(m->ka[0].url, "http://kas]\"");
	assert_string_equal(m->key_access_text, KEY_ACCESS);
	assert_int_equal(manifest_root(m, &dek), 0);
	m->hashes[17] ^= 1;
	assert_int_equal(manifest_root(m, &dek), -EBADMSG);
	manifest_free(m);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char *at = strstr(text, cases[i].from), *bad = NULL;

		print_message("%s\n", cases[i].name);
		assert_non_null(at);
		assert_true(asprintf(&bad, "%.*s%s%s", (int)(at - text), text, cases[i].to, at + strlen(cases[i].from)) > 0);
		assert_int_equal(manifest_parse(bad, strlen(bad), true, &m), -EPROTO);
		free(bad);
	}
	for (size_t i = 0; i < strlen(text); i++)
		assert_int_equal(manifest_parse(text, i, true, &m), -EPROTO);
	free(text);
	/* the smallest S, and one less */
	p = make_tail(SEG_MIN, 1, &len);
	text = strndup((char *)p + 65, len - 65 - 270);
	free(p);
	assert_int_equal(manifest_parse(text, strlen(text), true, &m), 0);
	manifest_free(m);
	memcpy(strstr(text, "16384"), "16383", 5);
	memcpy(strstr(text, "16412"), "16411", 5);
	assert_int_equal(manifest_parse(text, strlen(text), true, &m), -EPROTO);
	free(text);
}

/* a 1 GiB file has 16,384 segments: parsing its tail at every open must not be felt.  The bound is lenient (sanitizers, slow machines); the
 * number is printed. */
static void test_speed(void **state)
{
	struct tail_template *t;
	struct timespec a, b;
	uint8_t *tags, root[MAC_LEN], *p;
	size_t len;
	double best = 1e9;

	(void)state;
	p = make_tail(65536, 1 << 30, &len);
	for (int i = 0; i < 5; i++) {
		clock_gettime(CLOCK_MONOTONIC, &a);
		assert_int_equal(tail_parse(p, len, 1 << 30, 65536, CRC, &t, &tags, root), 0);
		clock_gettime(CLOCK_MONOTONIC, &b);
		best = MIN(best, (double)(b.tv_sec - a.tv_sec) * 1e3 + (double)(b.tv_nsec - a.tv_nsec) / 1e6);
		tail_template_free(t);
		free(tags);
	}
	print_message("tail of 1 GiB: %zu bytes, parsed in %.2f ms\n", len, best);
	assert_true(best < 50);
	free(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_round_trip), cmocka_unit_test(test_layout), cmocka_unit_test(test_damage),
	    cmocka_unit_test(test_scanner),    cmocka_unit_test(test_speed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
