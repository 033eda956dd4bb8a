/* SPDX-License-Identifier: Apache-2.0 */
/* proto.c against the encoding's published examples, its limits; buffer.c and serve_limits.c. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <time.h>

#include "proto.h"
#include "serve_i.h"

static const struct proto_field inner[] = {{.number = 1, .name = "a", .kind = PROTO_NUMBER}, {0}};
static const struct proto_field outer[] = {{.number = 1, .name = "a", .kind = PROTO_NUMBER},
					   {.number = 2, .name = "b", .kind = PROTO_STRING},
					   {.number = 3, .name = "c", .kind = PROTO_MESSAGE, .message = inner},
					   {.number = 4, .name = "d", .kind = PROTO_STRING, .repeated = true},
					   {.number = 5, .name = "e", .kind = PROTO_BYTES},
					   {.number = 6, .name = "f", .kind = PROTO_STRUCT},
					   {.number = 7, .name = "g", .kind = PROTO_MAP, .message = inner},
					   {.number = 8, .name = "h", .kind = PROTO_VALUES},
					   {.number = 9, .name = "i", .kind = PROTO_MESSAGE, .message = outer},
					   {0}};

static void encodes(const char *json, const char *want, size_t len)
{
	struct buffer b = buffer_of(1000);
	json_t *j = json_loads(json, 0, NULL);

	assert_non_null(j);
	assert_int_equal(proto_encode(outer, j, &b), 0);
	assert_int_equal(b.len, len);
	if (len)
		assert_memory_equal(b.p, want, len);
	json_decref(j);
	buffer_free(&b);
}
#define ENCODES(json, bytes) encodes(json, bytes, sizeof(bytes) - 1)

/* protobuf.dev/programming-guides/encoding and google/protobuf/struct.proto */
static void examples(void **state)
{
	ENCODES("{\"a\":150}", "\x08\x96\x01");
	ENCODES("{\"b\":\"testing\"}", "\x12\x07testing");
	ENCODES("{\"c\":{\"a\":150}}", "\x1a\x03\x08\x96\x01");
	ENCODES("{\"d\":[\"x\",\"\",\"yz\"]}", "\x22\x01x\x22\x00\x22\x02yz");
	ENCODES("{\"e\":\"AAEC\"}", "\x2a\x03\x00\x01\x02");
	ENCODES("{\"a\":0,\"b\":\"\",\"d\":[],\"e\":null,\"unknown\":1}", "");
	ENCODES("{\"c\":{}}", "\x1a\x00");
	ENCODES("{\"f\":{\"a\":\"b\"}}", "\x32\x0a\x0a\x08\x0a\x01\x61\x12\x03\x1a\x01\x62");
	ENCODES("{\"f\":{\"n\":null}}", "\x32\x09\x0a\x07\x0a\x01n\x12\x02\x08\x00");
	ENCODES("{\"f\":{\"n\":1.5}}", "\x32\x10\x0a\x0e\x0a\x01n\x12\x09\x11\x00\x00\x00\x00\x00\x00\xf8\x3f");
	ENCODES("{\"f\":{\"t\":true}}", "\x32\x09\x0a\x07\x0a\x01t\x12\x02\x20\x01");
	ENCODES("{\"f\":{\"l\":[\"x\"]}}", "\x32\x0e\x0a\x0c\x0a\x01l\x12\x07\x32\x05\x0a\x03\x1a\x01x");
	ENCODES("{\"f\":{\"o\":{}}}", "\x32\x09\x0a\x07\x0a\x01o\x12\x02\x2a\x00");
	ENCODES("{\"g\":{\"k\":{\"a\":1}}}", "\x3a\x07\x0a\x01k\x12\x02\x08\x01");
	ENCODES("{\"h\":{\"k\":\"v\"}}", "\x42\x08\x0a\x01k\x12\x03\x1a\x01v");
}

static void wrong_types(void **state)
{
	static const char *const texts[] = {"{\"a\":\"1\"}", "{\"a\":-1}",    "{\"b\":1}",  "{\"c\":[]}",       "{\"d\":\"x\"}",
					    "{\"d\":[1]}",   "{\"e\":\"%\"}", "{\"f\":[]}", "{\"g\":{\"k\":1}}"};

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		struct buffer b = buffer_of(1000);
		json_t *j = json_loads(texts[i], 0, NULL);

		assert_int_equal(proto_encode(outer, j, &b), -EPROTO);
		json_decref(j);
		buffer_free(&b);
	}
}

static int decodes(const char *p, size_t len, const char *want)
{
	json_t *j = NULL, *w = want ? json_loads(want, 0, NULL) : NULL;
	int err = proto_decode(outer, p, len, &j);

	if (!err && want)
		assert_true(json_equal(j, w));
	json_decref(j);
	json_decref(w);
	return err;
}
#define DECODES(bytes, json) decodes(bytes, sizeof(bytes) - 1, json)

static void reading(void **state)
{
	assert_int_equal(DECODES("", "{}"), 0);
	assert_int_equal(DECODES("\x08\x96\x01", "{\"a\":150}"), 0);
	assert_int_equal(DECODES("\x08\x01\x08\x02", "{\"a\":2}"), 0);                                    /* the last one counts */
	assert_int_equal(DECODES("\x08\x96\x81\x00", "{\"a\":150}"), 0);                                  /* longer than needed */
	assert_int_equal(DECODES("\x22\x01x\x12\x01y\x22\x01z", "{\"b\":\"y\",\"d\":[\"x\",\"z\"]}"), 0); /* any order */
	assert_int_equal(DECODES("\x2a\x03\x00\x01\x02", "{\"e\":\"AAEC\"}"), 0);
	assert_int_equal(DECODES("\xfa\x01\x03xyz\xf8\x01\x05\xf1\x01"
				 "12345678"
				 "\xf5\x01"
				 "1234\x08\x07",
				 "{\"a\":7}"),
			 0); /* unknown, of each kind */
	assert_int_equal(DECODES("\x12\x05test", NULL), -EPROTO);
	assert_int_equal(DECODES("\x08", NULL), -EPROTO);
	assert_int_equal(DECODES("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", NULL), -EPROTO); /* 65 bits */
	assert_int_equal(DECODES("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", NULL), -EPROTO); /* not in JSON's range */
	assert_int_equal(DECODES("\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", NULL), -EPROTO);
	assert_int_equal(DECODES("\x0b\x0c", NULL), -EPROTO);         /* a group */
	assert_int_equal(DECODES("\x00\x01", NULL), -EPROTO);         /* field 0 */
	assert_int_equal(DECODES("\x0a\x00", NULL), -EPROTO);         /* a number as bytes */
	assert_int_equal(DECODES("\x10\x01", NULL), -EPROTO);         /* text as a number */
	assert_int_equal(DECODES("\x12\x02\xc3\x28", NULL), -EPROTO); /* not UTF-8 */
}

static void bounds(void **state)
{
	static char many[2 * (PROTO_REPEATED_MAX + 1)];
	char deep[2 * (PROTO_DEPTH_MAX + 3)];
	size_t n = 0;

	for (size_t i = 0; i < sizeof(many); i += 2)
		memcpy(many + i, "\x22\x00", 2);
	assert_int_equal(decodes(many, sizeof(many) - 2, NULL), 0);
	assert_int_equal(decodes(many, sizeof(many), NULL), -EPROTO);
	for (size_t depth = 0; depth <= PROTO_DEPTH_MAX + 1; depth++) {
		n = 2 * depth;
		for (size_t i = 0; i < depth; i++) {
			deep[2 * i] = 0x4a;
			deep[2 * i + 1] = (char)(2 * (depth - i - 1));
		}
		assert_int_equal(decodes(deep, n, NULL), depth <= PROTO_DEPTH_MAX ? 0 : -EPROTO);
	}
}

static void escaping(void **state)
{
	static const struct {
		const char *in, *out;
		size_t most;
	} t[] = {{"plain", "\"plain\"", 9},
		 {"q\"\\\n\x7f", "\"q\\\"\\\\\\u000a\\u007f\"", 9},
		 {"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", "\"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\"", 9},
		 {"\xff\xc0\x80\xed\xa0\x80", "\"\\ufffd\\ufffd\\ufffd\\ufffd\\ufffd\\ufffd\"", 9},
		 {"\xf4\x90\x80\x80", "\"\\ufffd\\ufffd\\ufffd\\ufffd\"", 9},
		 {"123456", "\"1234...\"", 4},
		 {"123\xc3\xa4", "\"123\\ufffd...\"", 4},
		 {NULL, "null", 4}};

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		struct buffer b = buffer_of(1000);

		buffer_json(&b, t[i].in, t[i].most);
		assert_string_equal(b.p, t[i].out);
		buffer_free(&b);
	}
}

static void growing(void **state)
{
	struct buffer b = buffer_of(1000);
	char p[600] = {0};

	buffer_put(&b, p, 600);
	buffer_insert(&b, 0, "head", 4);
	assert_int_equal(buffer_error(&b), 0);
	assert_memory_equal(b.p, "head", 4);
	buffer_put(&b, p, 397);
	assert_int_equal(buffer_error(&b), -EFBIG); /* and it stays so */
	buffer_put(&b, p, 1);
	assert_int_equal(buffer_error(&b), -EFBIG);
	assert_int_equal(b.len, 604);
	buffer_free(&b);
}

static void limits(void **state)
{
	struct limits *l = limits_new(5, 100);

	assert_int_equal(limits_blocked(l, 1), 0);
	for (int i = 0; i < 51; i++)
		limits_failed(l, 1);
	assert_in_range(limits_blocked(l, 1), 1, 2);
	assert_int_equal(limits_blocked(l, 2), 0);
	/* a call larger than the burst gets through once */
	assert_int_equal(limits_keys(l, 7, 3000), 0);
	assert_in_range(limits_keys(l, 7, 1), 20, 21);
	assert_int_equal(limits_keys(l, 8, 1), 0);
	limits_spent(l, 8, 1999); /* more than he asked for, known afterwards */
	assert_in_range(limits_keys(l, 8, 1), 10, 11);
	/* the table is full of others: who was blocked is still known, as those who did nothing are forgotten first */
	for (uint64_t i = 100; i < 100000; i++)
		assert_int_equal(limits_blocked(l, i * 0x9e3779b97f4a7c15), 0);
	assert_in_range(limits_blocked(l, 1), 1, 2);
	limits_free(l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(examples), cmocka_unit_test(wrong_types), cmocka_unit_test(reading),
					   cmocka_unit_test(bounds),   cmocka_unit_test(escaping),    cmocka_unit_test(growing),
					   cmocka_unit_test(limits)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
