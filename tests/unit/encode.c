/* SPDX-License-Identifier: Apache-2.0 */
#include "encode.h"
#include "report.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

/* RFC 4648 section 10, and characters of both ends of the alphabet */
static void test_base64_vectors(void **state)
{
	static const struct {
		const char *name, *plain, *text;
	} cases[] = {
	    {"empty", "", ""},
	    {"f", "f", "Zg=="},
	    {"fo", "fo", "Zm8="},
	    {"foo", "foo", "Zm9v"},
	    {"foob", "foob", "Zm9vYg=="},
	    {"fooba", "fooba", "Zm9vYmE="},
	    {"foobar", "foobar", "Zm9vYmFy"},
	    {"62 and 63", "\xfb\xff\xbf", "+/+/"},
	};
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		size_t len = strlen(cases[i].plain), got_len = 99;
		char text[64], plain[64];

		base64_encode(cases[i].plain, len, text);
		print_message("%s\n", cases[i].name);
		assert_string_equal(text, cases[i].text);
		assert_int_equal(strlen(text), BASE64_LEN(len));
		assert_int_equal(base64_decode(text, strlen(text), false, plain, len, &got_len), 0);
		assert_int_equal(got_len, len);
		assert_memory_equal(plain, cases[i].plain, len);
	}
}

static void test_base64_refused(void **state)
{
	static const struct {
		const char *name, *text;
		int strict, lax;
	} cases[] = {
	    {"one character", "Z", -EPROTO, -EPROTO},
	    {"no padding", "Zg", -EPROTO, 0},
	    {"half the padding", "Zg=", -EPROTO, -EPROTO},
	    {"too much padding", "Zg===", -EPROTO, -EPROTO},
	    {"three pads", "Z===", -EPROTO, -EPROTO},
	    {"only padding", "==", -EPROTO, -EPROTO},
	    {"only padding, whole group", "====", -EPROTO, -EPROTO},
	    {"padding inside", "Zg==Zg==", -EPROTO, -EPROTO},
	    {"bits left over in one", "Zh==", -EPROTO, -EPROTO},
	    {"bits left over in two", "Zm9=", -EPROTO, -EPROTO},
	    {"URL alphabet", "-_-_", -EPROTO, 0},
	    {"line break at the end", "Zm9v\n", -EPROTO, 0},
	    {"line breaks inside", "Zm\r\n9v\nZg", -EPROTO, 0},
	    {"nothing but line breaks", "\n\r\n", -EPROTO, 0},
	    {"line break, bits left over", "Zm\n9=", -EPROTO, -EPROTO},
	    {"line breaks, too long", "Zm9vZm9v\nZm9vZm9v", -EPROTO, -ENOSPC},
	    {"tab", "Zm9v\t", -EPROTO, -EPROTO},
	    {"inner space", "Zm 9", -EPROTO, -EPROTO},
	    {"high bit", "Zm\xc3\xa9", -EPROTO, -EPROTO},
	    {"too long for the room", "Zm9vZm9vZm9vZm9vZm9vZm9v", -ENOSPC, -ENOSPC},
	};
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint8_t out[8];
		size_t len = 77;

		print_message("%s\n", cases[i].name);
		assert_int_equal(base64_decode(cases[i].text, strlen(cases[i].text), false, out, sizeof(out), &len), cases[i].strict);
		assert_int_equal(len, 77);
		assert_int_equal(base64_decode(cases[i].text, strlen(cases[i].text), true, out, sizeof(out), &len), cases[i].lax);
		assert_true(len == 77 || !cases[i].lax);
	}
}

static void test_base64_round_trip(void **state)
{
	uint8_t in[200], out[200];
	char text[BASE64_LEN(200) + 1];
	size_t got;

	(void)state;
	for (size_t i = 0; i < sizeof(in); i++)
		in[i] = (uint8_t)(i * 37 + 11);
	for (size_t len = 0; len <= sizeof(in); len++) {
		base64_encode(in, len, text);
		assert_int_equal(base64_decode(text, strlen(text), false, out, len, &got), 0);
		assert_int_equal(got, len);
		assert_memory_equal(in, out, len);
		if (len)
			assert_int_equal(base64_decode(text, strlen(text), false, out, len - 1, &got), -ENOSPC);
	}
}

static void test_hex(void **state)
{
	uint8_t out[4] = {9, 9, 9, 9};
	char text[9];

	(void)state;
	hex_encode("\x00\x7f\xab\xff", 4, text);
	assert_string_equal(text, "007fabff");
	assert_int_equal(hex_decode("007FabFf", 8, out, 4), 0);
	assert_memory_equal(out, "\x00\x7f\xab\xff", 4);
	assert_int_equal(hex_decode("007fab", 6, out, 4), -EPROTO);
	assert_int_equal(hex_decode("007fabfff", 9, out, 4), -EPROTO);
	memset(out, 9, 4);
	assert_int_equal(hex_decode("007fabfg", 8, out, 4), -EPROTO);
	assert_memory_equal(out, "\x09\x09\x09\x09", 4); /* untouched */
}

static void test_uuid(void **state)
{
	static const uint8_t id[16] = {0x12, 0x3e, 0x45, 0x67, 0xe8, 0x9b, 0x12, 0xd3, 0xa4, 0x56, 0x42, 0x66, 0x14, 0x17, 0x40, 0x00};
	char text[37];

	(void)state;
	uuid_format(id, text);
	assert_string_equal(text, "123e4567-e89b-12d3-a456-426614174000");
}

/* What moves the cursor, and how far the next character is */
static void test_text_step(void **state)
{
	static const struct {
		const char *text;
		unsigned n;
		bool control;
	} all[] = {{"a", 1, false},        {"\n", 1, true},        {"\x7f", 1, true},          {"\xc2\x9b", 2, true},
		   {"\xc2\xa0", 2, false}, {"\xc3\x9b", 2, false}, {"\xe2\x82\x9b", 3, false}, {"\xf0\x9f\x9b\x85", 4, false},
		   {"\x9b", 1, true},      {"\x9bx", 1, true},     {"\xe2\x82", 1, false},     {"\xe2\x82x", 1, false},
		   {"\xff", 1, false},     {"\xc2", 1, false}};

	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		bool control = !all[i].control;

		assert_int_equal(text_step(all[i].text, &control), all[i].n);
		assert_int_equal(control, all[i].control);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_base64_vectors),
	    cmocka_unit_test(test_base64_refused),
	    cmocka_unit_test(test_base64_round_trip),
	    cmocka_unit_test(test_hex),
	    cmocka_unit_test(test_uuid),
	    cmocka_unit_test(test_text_step),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
