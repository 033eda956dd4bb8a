/* SPDX-License-Identifier: Apache-2.0 */
/* Damaged, forged and misleading containers. */
#include "read_tdf.h"
#include "report.h" /* before cmocka.h, which has a macro fail() */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static void test_foreign_refused(void **state)
{
	static const struct {
		const char *name;
		struct foreign_opt o;
		int want;
	} cases[] = {
	    {"overlap", {.len = 1000, .s = 300, .overlap = true}, -EPROTO},
	    {"payload twice", {.len = 1000, .s = 300, .duplicate = true}, -EPROTO},
	    {"zip encryption", {.len = 1000, .s = 300, .flags = 1}, -EPROTO},
	    {"root GMAC", {.len = 1000, .s = 300, .edit = {{"\"alg\":\"HS256\",\"sig\"", "\"alg\":\"GMAC\",\"sig\""}}}, -ENOTSUP},
	    {"not encrypted", {.len = 1000, .s = 300, .edit = {{"\"isEncrypted\":true", "\"isEncrypted\":false"}}}, -EPROTO},
	    {"more segments than payload",
	     {.len = 1000, .s = 300, .edit = {{"\"segments\":[", "\"segments\":[{\"hash\":\"AAAAAAAAAAAAAAAAAAAAAA==\"},"}}},
	     -EPROTO},
	    {"one segment less",
	     {.len = 900, .s = 300, .omit_sizes = true, .edit = {{"},{\"hash\":\"", "}],\"x\":[{\"hash\":\""}}},
	     -EBADMSG},
	    {"other root",
	     {.len = 1000, .s = 300, .edit = {{"\"sig\":\"", "\"sig\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\",\"x\":\""}}},
	     -EBADMSG},
	};
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct mem m = foreign_file(&cases[i].o);

		print_message("%s\n", cases[i].name);
		assert_int_equal(read_mem(&m, &test_container_keys, cases[i].o.len), cases[i].want);
		assert_int_not_equal(strlen(fail_text()), 0);
		free(m.p);
	}
}

/* two good segments in each other's place, and an older copy of one: only that segment fails */
static void test_splice(void **state)
{
	struct mem m = native_file(65536, 16384), old = native_file(65536, 16384);
	struct io io = mem_io(&m);
	const size_t stored = 16384 + 28;
	struct container *c;
	uint8_t buf[16384], seg[16384 + 28];

	(void)state;
	assert_int_equal(open_mem(&m, &test_container_keys, &c), 0);
	memcpy(seg, m.p + SECTOR, stored);
	memcpy(m.p + SECTOR, m.p + SECTOR + stored, stored);
	memcpy(m.p + SECTOR + stored, seg, stored);
	memcpy(m.p + SECTOR + 2 * stored, old.p + SECTOR + 2 * stored, stored);
	for (uint64_t i = 0; i < 4; i++) {
		assert_int_equal(container_read_segment(&io, 0, c, i, buf), i < 3 ? -EBADMSG : 0);
		assert_int_equal(container_read(&io, 0, c, buf, 100, i * 16384 + 5), i < 3 ? -EBADMSG : 100);
	}
	assert_int_equal(container_read_segment(&io, 0, c, 4, buf), -EINVAL);
	assert_int_equal(container_read(&io, 0, c, buf, 100, 3 * 16384 - 50), -EBADMSG);
	assert_non_null(strstr(fail_text(), "segment 2 "));
	container_free(c);
	free(m.p);
	free(old.p);
}

/* the same with HS256 hashes: the tag alone would pass */
static void test_splice_hs256(void **state)
{
	static const struct foreign_opt o = {.len = 1000, .s = 300, .hs256 = true};
	struct mem m = foreign_file(&o), other = foreign_file(&o);
	struct container *c, *d;

	(void)state;
	assert_int_equal(open_mem(&m, NULL, &c), 0);
	assert_int_equal(open_mem(&other, NULL, &d), 0);
	/* the same plaintext under the same key with another IV: well encrypted, but not what was signed */
	memcpy(m.p + c->payload_off + 328, other.p + d->payload_off + 328, 328);
	assert_int_equal(read_all(&m, c, 1000), -EBADMSG);
	assert_non_null(strstr(fail_text(), "segment 1 "));
	container_free(c);
	container_free(d);
	free(m.p);
	free(other.p);
}

static void test_truncated_everywhere(void **state)
{
	static const uint64_t sizes[] = {0, 100, 16385};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct mem m = native_file(sizes[i], 16384);
		size_t whole = m.len;

		for (size_t len = 0; len < whole; len++) {
			uint8_t *cut = malloc(len ? len : 1);
			struct mem t = {.p = cut, .len = len};
			int err;

			memcpy(cut, m.p, len);
			err = read_mem(&t, &test_container_keys, sizes[i]);
			assert_true(err < 0);
			if (len >= SECTOR)
				assert_int_equal(err, -EBADMSG);
			assert_true(read_mem(&t, NULL, sizes[i]) < 0);
			free(cut);
		}
		/* and extended */
		m.p = realloc(m.p, whole + 1);
		m.p[whole] = 0;
		m.len = whole + 1;
		assert_int_equal(read_mem(&m, &test_container_keys, sizes[i]), -EBADMSG);
		free(m.p);
	}
}

/* the format is canonical: there is no byte of a native file that may change unnoticed */
static void test_every_byte_flipped(void **state)
{
	static const uint64_t sizes[] = {0, 40, 16385};
	static const uint8_t masks[] = {0x01, 0x20, 0x80, 0xff};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct mem m = native_file(sizes[i], 16384);

		for (size_t at = 0; at < m.len; at++)
			for (size_t k = 0; k < ARRAY_SIZE(masks); k++) {
				int err;

				if (sizes[i] > 1000 && at > 600 && at < 16000 && at % 97)
					continue; /* inside of the first segment a sample will do */
				m.p[at] ^= masks[k];
				err = read_mem(&m, &test_container_keys, sizes[i]);
				if (err != -EBADMSG && err != -ENOTSUP)
					print_message("byte %zu ^ %02x: %d %s\n", at, masks[k], err, fail_text());
				assert_true(err == -EBADMSG || err == -ENOTSUP);
				m.p[at] ^= masks[k];
			}
		assert_int_equal(read_mem(&m, &test_container_keys, sizes[i]), 0);
		free(m.p);
	}
}

/* another writer may have formatted the manifest anew, but not changed it */
static void test_reshaped(void **state)
{
	static const struct {
		const char *name, *from, *to;
		int want;
	} cases[] = {
	    {"white space", ",\"segments\":", ", \"segments\" : ", 0},
	    {"a member more", "{\"schemaVersion\"", "{\"x\":1,\"schemaVersion\"", 0},
	    {"another mime type", "application/octet-stream", "text/plain", 0},
	    {"key access with white space", "[{\"type\":\"wrapped\"", "[ {\"type\":\"wrapped\"",
	     -EBADMSG}, /* the seal covers it as it stands */
	    {"another url", "https://kas.example", "https://kas.evil", -EBADMSG},
	    {"another policy", "eyJ1dWlkIjoiMSJ9", "eyJ1dWlkIjoiMiJ9", -EBADMSG},
	    {"S in the manifest", "\"segmentSizeDefault\":16384,\"encryptedSegmentSizeDefault\":16412",
	     "\"segmentSizeDefault\":32768,\"encryptedSegmentSizeDefault\":32796", -EBADMSG},
	    {"one segment for two", "\"segmentSize\":1,", "\"segmentSize\":2,", -EBADMSG},
	    {"a root that is not base64", "\"sig\":\"", "\"sig\":\"!", -EBADMSG},
	    {"no JSON", "{\"schemaVersion\"", "[\"schemaVersion\"", -EBADMSG},
	    {"a tag", "{\"hash\":\"", "{\"hash\":\"AAAAAAAAAAAAAAAAAAAAAA==\",\"x\":\"", -EBADMSG},
	};
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct mem m = native_reshaped(16385, 16384, cases[i].from, cases[i].to);

		print_message("%s\n", cases[i].name);
		assert_int_equal(read_mem(&m, &test_container_keys, 16385), cases[i].want);
		free(m.p);
	}
	/* one segment fits every S: the record decides */
	struct mem m = native_reshaped(100, 16384, "\"segmentSizeDefault\":16384,\"encryptedSegmentSizeDefault\":16412",
				       "\"segmentSizeDefault\":32768,\"encryptedSegmentSizeDefault\":32796");

	assert_int_equal(read_mem(&m, &test_container_keys, 100), -EBADMSG);
	free(m.p);
}

/* a disk that fails at the n-th read: EIO each time, and nothing is lost (the leak sanitizer watches) */
static void test_read_errors(void **state)
{
	static const struct {
		const char *name;
		struct foreign_opt o;
		unsigned reads; /* at least so many */
	} kinds[] = {
	    {"native, small", {.len = 100}, 2},
	    {"native", {.len = 200000}, 3},
	    {"foreign", {.len = 100, .s = 300, .zip64 = true, .deflate = true}, 8},
	    {"foreign with a comment", {.len = 100, .s = 300, .comment = true}, 8},
	};
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		uint64_t size = kinds[i].o.len;
		struct mem m = kinds[i].o.s ? foreign_file(&kinds[i].o) : native_file(size, 65536);
		unsigned n = 0;
		int err;

		do {
			m.reads = 0;
			m.fail_at = ++n;
			err = read_mem(&m, &test_container_keys, size);
			assert_true(err == -EIO || !err);
		} while (err);
		print_message("%s: %u reads\n", kinds[i].name, n - 1);
		assert_true(n - 1 >= kinds[i].reads);
		free(m.p);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_foreign_refused),    cmocka_unit_test(test_splice),
	    cmocka_unit_test(test_splice_hs256),       cmocka_unit_test(test_truncated_everywhere),
	    cmocka_unit_test(test_every_byte_flipped), cmocka_unit_test(test_reshaped),
	    cmocka_unit_test(test_read_errors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
