/* SPDX-License-Identifier: Apache-2.0 */
/* Visible and stored names: a table, and that the mapping is one to one. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

#include "name.h"

static const struct {
	const char *visible;
	bool regular;
	const char *stored;
} pairs[] = {
    {"report.odt", true, "report.odt.tdf"},
    {"report.odt", false, "report.odt"},
    {"a.tdf", true, "a.tdf.tdf"},
    {"a.tdf", false, "a.tdf_"},
    {"a.tdf_", true, "a.tdf_.tdf"},
    {"a.tdf_", false, "a.tdf__"},
    {"a.tdf___", false, "a.tdf____"},
    {"a.tdfx", false, "a.tdfx"},
    {"a.tdfx_", false, "a.tdfx_"},
    {"a.TDF", false, "a.TDF"},
    {"tdf", false, "tdf"},
    {".tdf", false, ".tdf_"},
    {".tdf", true, ".tdf.tdf"},
    {".tdfs", true, ".tdfs.tdf"},
    {"_", false, "_"},
    {"...", true, "....tdf"},
    {"\xff\xfe\n", true, "\xff\xfe\n.tdf"},
};

static void test_pairs(void **state)
{
	char got[NAME_ROOM];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(pairs); i++) {
		assert_int_equal(name_store(pairs[i].visible, pairs[i].regular, got), 0);
		assert_string_equal(got, pairs[i].stored);
		assert_int_equal(name_show(pairs[i].stored, pairs[i].regular, got), 0);
		assert_string_equal(got, pairs[i].visible);
	}
}

/* What a store may hold that must not be shown; most of all names that would read as "." or "..". */
static void test_hidden(void **state)
{
	static const struct {
		const char *stored;
		bool regular;
	} hidden[] = {
	    {"plain.txt", true}, {"x.tdf", false}, {".tdf", true}, {"..tdf", true}, {"...tdf", true},
	    {"x.tdf_", true},    {".", false},     {"..", false},  {"", false},     {"", true},
	};
	char got[NAME_ROOM] = "untouched";

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(hidden); i++) {
		assert_int_equal(name_show(hidden[i].stored, hidden[i].regular, got), -ENOENT);
		assert_string_equal(got, "untouched");
	}
}

static void test_length(void **state)
{
	char name[300], got[NAME_ROOM], back[NAME_ROOM];

	(void)state;
	for (int regular = 0; regular < 2; regular++) {
		memset(name, 'n', sizeof(name));
		name[NAME_VISIBLE_MAX] = 0;
		assert_int_equal(name_store(name, regular, got), 0);
		assert_int_equal(strlen(got), NAME_VISIBLE_MAX + (regular ? 4 : 0));
		assert_int_equal(name_show(got, regular, back), 0);
		assert_string_equal(back, name);
		memset(name, 'n', sizeof(name));
		name[NAME_VISIBLE_MAX + 1] = 0;
		assert_int_equal(name_store(name, regular, got), -ENAMETOOLONG);
		name[NAME_VISIBLE_MAX + 1] = 'n';
		name[sizeof(name) - 1] = 0;
		assert_int_equal(name_store(name, regular, got), -ENAMETOOLONG);
	}
	/* the longest name that needs the escape */
	memset(name, 'n', sizeof(name));
	memcpy(name + NAME_VISIBLE_MAX - 5, ".tdf_", 6);
	assert_int_equal(name_store(name, false, got), 0);
	assert_int_equal(strlen(got), NAME_VISIBLE_MAX + 1);
	assert_int_equal(name_show(got, false, back), 0);
	assert_string_equal(back, name);
	/* a planted directory whose name the mount could never look up */
	memset(name, 'n', sizeof(name));
	name[255] = 0;
	assert_int_equal(name_show(name, false, got), -ENOENT);
}

static void test_refused(void **state)
{
	char got[NAME_ROOM];

	(void)state;
	for (int regular = 0; regular < 2; regular++) {
		assert_int_equal(name_store("", regular, got), -EINVAL);
		assert_int_equal(name_store(".", regular, got), -EINVAL);
		assert_int_equal(name_store("..", regular, got), -EINVAL);
		assert_int_equal(name_store("a/b", regular, got), -EINVAL);
	}
	assert_true(name_reserved(".tdfs"));
	assert_false(name_reserved(".tdfs2"));
	assert_false(name_reserved("x.tdfs"));
}

/* All strings of up to 6 letters over an alphabet that provokes: no two (name, kind) may share a stored name, and each comes back. */
static void test_one_to_one(void **state)
{
	static const char *const atoms[] = {".tdf", "_", ".", "a", "tdf"};
	char name[64], stored[NAME_ROOM], back[NAME_ROOM];
	unsigned count = 0;

	(void)state;
	for (unsigned n = 1; n < 5 * 5 * 5 * 5 * 5; n++) {
		name[0] = 0;
		for (unsigned rest = n; rest; rest /= 5)
			strcat(name, atoms[rest % 5]);
		for (int regular = 0; regular < 2; regular++) {
			if (name_store(name, regular, stored))
				continue;
			assert_int_equal(name_show(stored, regular, back), 0);
			assert_string_equal(back, name);
			/* the other kind never claims it */
			assert_int_equal(name_show(stored, !regular, back), -ENOENT);
			count++;
		}
	}
	assert_true(count > 5000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_pairs),   cmocka_unit_test(test_hidden),     cmocka_unit_test(test_length),
	    cmocka_unit_test(test_refused), cmocka_unit_test(test_one_to_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
