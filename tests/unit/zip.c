/* SPDX-License-Identifier: Apache-2.0 */
#include "zip.h"
#include "make_tdf.h"
#include "report.h" /* before cmocka.h, which has a macro fail() */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define BASE .len = 1000, .s = 300

static void test_accepted(void **state)
{
	static const struct {
		const char *name;
		struct foreign_opt o;
	} cases[] = {
	    {"zip32, real sizes", {BASE}},
	    {"zip64", {BASE, .zip64 = true}},
	    {"descriptor, zip32 (Go)", {BASE, .descriptor = true}},
	    {"descriptor, zip64 (web-sdk)", {BASE, .descriptor = true, .zip64 = true}},
	    {"descriptor, all-ones sizes and no extra field (Java)", {BASE, .java_descriptor = true, .zip64 = true}},
	    {"deflated manifest", {BASE, .deflate = true}},
	    {"manifest first", {BASE, .manifest_first = true, .deflate = true}},
	    {"comment", {BASE, .comment = true, .zip64 = true}},
	    {"third entry", {BASE, .third_entry = true}},
	    {"UTF-8 flag", {BASE, .flags = 0x800}},
	};
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct mem m = foreign_file(&cases[i].o);
		struct io io = mem_io(&m);
		char *text;
		struct zip z;
		size_t len;

		print_message("%s\n", cases[i].name);
		assert_int_equal(zip_find(&io, 0, m.len, &z), 0);
		assert_int_equal(z.payload.len, 1000 + 4 * 28);
		assert_int_equal(zip_manifest(&io, 0, &z, &text, &len), 0);
		assert_int_equal(strlen(text), len);
		assert_int_equal(text[0], '{');
		assert_int_equal(text[len - 1], '}');
		assert_non_null(strstr(text, "\"segments\":[{"));
		free(text);
		free(m.p);
	}
}

static void test_refused(void **state)
{
	static const struct {
		const char *name;
		struct foreign_opt o;
		const char *why;
	} cases[] = {
	    {"0.payload twice", {BASE, .duplicate = true}, "same name"},
	    {"an entry inside of another", {BASE, .overlap = true}, "overlap"},
	    {"an entry inside of another, zip64", {BASE, .overlap = true, .zip64 = true}, "overlap"},
	    {"encrypted", {BASE, .flags = 1}, "zip-encrypted"},
	    {"strong encryption", {BASE, .flags = 0x40}, "zip-encrypted"},
	    {"masked headers", {BASE, .flags = 0x2000}, "zip-encrypted"},
	    {"payload with method 8", {BASE, .payload_method = 8}, "0.payload is compressed"},
	    {"payload with method 12", {BASE, .payload_method = 12}, "0.payload is compressed"},
	    {"18 entries", {BASE, .many_entries = true}, "more than 16"},
	};
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct mem m = foreign_file(&cases[i].o);
		struct io io = mem_io(&m);
		struct zip z;

		print_message("%s\n", cases[i].name);
		fail_clear();
		assert_int_equal(zip_find(&io, 0, m.len, &z), -EPROTO);
		assert_non_null(strstr(fail_text(), cases[i].why));
		free(m.p);
	}
}

/* patches of a good file, found by their surroundings */
static void test_patched(void **state)
{
	static const struct {
		const char *name;
		size_t len;
		const char *from, *to;
		int want;
	} cases[] = {
	    {"other name in the directory", 13,
	     "\0\0\0\0"
	     "0.payload",
	     "\0\0\0\0"
	     "1.payload",
	     -EPROTO},
	    {"no manifest at all", 10, "PK\5\6\0\0\0\0\2\0", "PK\5\6\0\0\0\0\1\0", -EPROTO},
	    {"another disk", 6, "PK\5\6\0\0", "PK\5\6\1\0", -EPROTO},
	    {"end record gone", 4, "PK\5\6", "PK\5\7", -ENOEXEC},
	};
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct mem m = foreign_file(&(struct foreign_opt){BASE});
		struct io io = mem_io(&m);
		struct zip z;

		print_message("%s\n", cases[i].name);
		patch(&m, cases[i].from, cases[i].to, cases[i].len);
		assert_int_equal(zip_find(&io, 0, m.len, &z), cases[i].want);
		free(m.p);
	}
}

/* offsets and sizes that lead outside, in the end record and in the zip64 records */
static void test_wild_offsets(void **state)
{
	static const uint64_t wild[] = {1,         0x7fffffff, 0xfffffffe, 0x100000000ull, 0x7fffffffffffffffull, 0xffffffffffffff00ull,
					UINT64_MAX};
	static const struct {
		const char *name;
		int off, width; /* from the end of the file */
		bool zip64;
	} fields[] = {
	    {"directory offset", -6, 4, false},
	    {"directory size", -10, 4, false},
	    {"directory offset, zip64", -22 - 20 - 8, 8, true},
	    {"directory size, zip64", -22 - 20 - 16, 8, true},
	    {"entries, zip64", -22 - 20 - 24, 8, true},
	    {"end record, zip64", -22 - 12, 8, true},
	};
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++)
		for (size_t k = 0; k < ARRAY_SIZE(wild); k++) {
			struct mem m = foreign_file(&(struct foreign_opt){BASE, .zip64 = fields[i].zip64});
			struct io io = mem_io(&m);
			struct zip z;

			if (fields[i].width == 4)
				put_le32(m.p + m.len + fields[i].off, (uint32_t)wild[k]);
			else
				put_le64(m.p + m.len + fields[i].off, wild[k]);
			print_message("%s %llx\n", fields[i].name, (unsigned long long)wild[k]);
			assert_int_equal(zip_find(&io, 0, m.len, &z), -EPROTO);
			free(m.p);
		}
}

/* sizes of 0.payload: local header and directory must say the same, and the entry must end before the directory */
static void test_sizes(void **state)
{
	static const size_t entry_len = 1000 + 4 * 28;
	struct mem m = foreign_file(&(struct foreign_opt){BASE});
	struct io io = mem_io(&m);
	uint8_t *central;
	struct zip z;

	(void)state;
	assert_int_equal(get_le32(m.p + 18), entry_len);
	put_le32(m.p + 18, entry_len - 1);
	put_le32(m.p + 22, entry_len - 1);
	assert_int_equal(zip_find(&io, 0, m.len, &z), -EPROTO);
	assert_non_null(strstr(fail_text(), "disagree on a size"));
	free(m.p);
	/* with a descriptor the local header says nothing */
	m = foreign_file(&(struct foreign_opt){BASE, .descriptor = true});
	central = memmem(m.p, m.len, "PK\1\2", 4);
	assert_non_null(central);
	assert_int_equal(get_le32(central + 20), entry_len);
	for (uint32_t more = (uint32_t)m.len; more; more = more == 0xfffffff0 ? 0 : 0xfffffff0) {
		put_le32(central + 20, more);
		put_le32(central + 24, more);
		assert_int_equal(zip_find(&io, 0, m.len, &z), -EPROTO);
		assert_non_null(strstr(fail_text(), "reaches into the directory"));
	}
	free(m.p);
}

/* every cut of a file, and every byte of its directory changed: an error or a sane answer, never a wild one (the sanitizers watch) */
static void test_cut_and_flip(void **state)
{
	struct mem m = foreign_file(&(struct foreign_opt){.len = 100, .s = 300, .zip64 = true});
	struct io io = mem_io(&m);
	size_t whole = m.len, len;
	struct zip z;
	char *text;

	(void)state;
	for (m.len = 0; m.len < whole; m.len++)
		assert_true(zip_find(&io, 0, m.len, &z) < 0);
	for (size_t i = 0; i < m.len; i++) {
		m.p[i] ^= 0xff;
		if (!zip_find(&io, 0, m.len, &z)) {
			assert_true(z.payload.data_off + z.payload.comp_len <= m.len);
			assert_true(z.manifest.data_off + z.manifest.comp_len <= m.len);
			if (!zip_manifest(&io, 0, &z, &text, &len))
				free(text);
		}
		m.p[i] ^= 0xff;
	}
	free(m.p);
}

static void test_junk_behind_the_end(void **state)
{
	struct mem m = foreign_file(&(struct foreign_opt){BASE});
	struct io io = mem_io(&m);
	struct zip z;

	(void)state;
	m.p = realloc(m.p, m.len + 1);
	m.p[m.len++] = 0;
	assert_int_equal(zip_find(&io, 0, m.len, &z), -ENOEXEC);
	free(m.p);
}

static void test_manifest_damage(void **state)
{
	struct mem m = foreign_file(&(struct foreign_opt){BASE});
	struct io io = mem_io(&m);
	struct zip z;
	char *text;
	size_t len;

	(void)state;
	patch(&m, "\"split\"", "\"spliT\"", 7);
	assert_int_equal(zip_find(&io, 0, m.len, &z), 0);
	assert_int_equal(zip_manifest(&io, 0, &z, &text, &len), -EBADMSG);
	free(m.p);
	/* a deflated manifest that is said to be longer or shorter than it is */
	for (int d = -1; d <= 1; d += 2) {
		m = foreign_file(&(struct foreign_opt){BASE, .deflate = true});
		io = mem_io(&m);
		assert_int_equal(zip_find(&io, 0, m.len, &z), 0);
		z.manifest.len += (uint64_t)d;
		assert_int_equal(zip_manifest(&io, 0, &z, &text, &len), -EPROTO);
		z.manifest.len -= (uint64_t)d;
		z.manifest.comp_len += (uint64_t)d;
		assert_int_equal(zip_manifest(&io, 0, &z, &text, &len), -EPROTO);
		free(m.p);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_accepted),        cmocka_unit_test(test_refused),
	    cmocka_unit_test(test_patched),         cmocka_unit_test(test_wild_offsets),
	    cmocka_unit_test(test_sizes),           cmocka_unit_test(test_cut_and_flip),
	    cmocka_unit_test(test_manifest_damage), cmocka_unit_test(test_junk_behind_the_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
