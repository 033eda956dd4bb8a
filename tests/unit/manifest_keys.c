/* SPDX-License-Identifier: Apache-2.0 */
/* The key access of native files, which has a parser of its own beside the general one. */
#include "manifest_json.h"
#include "manifest_native.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void keys_equal(const struct key_access *a, const struct key_access *b)
{
	assert_int_equal(a->type, b->type);
	assert_string_equal(a->type_name, b->type_name);
	assert_string_equal(a->url, b->url);
	assert_string_equal(a->protocol, b->protocol);
	assert_string_equal(a->kid, b->kid);
	assert_string_equal(a->sid, b->sid);
	assert_string_equal(a->ephemeral_pem, b->ephemeral_pem);
	assert_string_equal(a->binding, b->binding);
	assert_int_equal(a->wrapped_len, b->wrapped_len);
	assert_memory_equal(a->wrapped, b->wrapped, b->wrapped_len);
}

/* what the short way takes the general one takes too, and understands the same; true: it took it */
static bool keys_agree(const char *text, size_t len)
{
	struct manifest fast = {0}, any = {0};
	char *exact = malloc(len ? len : 1);
	int err;

	assert_non_null(exact);
	memcpy(exact, text, len);
	err = native_key_access((struct part){exact, len}, &fast);
	assert_true(err == 0 || err == -ENOENT);
	assert_int_equal(fast.n_ka, err ? 0 : 1);
	if (!err) {
		assert_int_equal(manifest_key_access((struct part){exact, len}, &any), 0);
		assert_int_equal(any.n_ka, 1);
		keys_equal(fast.ka, any.ka);
	}
	manifest_keys_free(&fast);
	manifest_keys_free(&any);
	free(exact);
	return !err;
}

/* the key access of native files has a parser of its own: one byte changed, removed, or put in anywhere */
static void test_native_keys(void **state)
{
	static const char *const texts[] = {
	    "[{\"type\":\"ec-wrapped\",\"url\":\"https://kas.example\",\"protocol\":\"kas\",\"kid\":\"e1\",\"wrappedKey\":\"AAECAwQFBgc=\","
	    "\"policyBinding\":{\"alg\":\"HS256\",\"hash\":\"MTIzNA==\"},\"schemaVersion\":\"1.0\",\"ephemeralPublicKey\":"
	    "\"-----BEGIN PUBLIC KEY-----\\nMFkw/+==\\n-----END PUBLIC KEY-----\\n\"}]",
	    "[{\"type\":\"wrapped\",\"url\":\"\",\"protocol\":\"kas\",\"kid\":\"\",\"wrappedKey\":\"\",\"policyBinding\":{\"alg\":\"HS256\","
	    "\"hash\":\"\"},\"schemaVersion\":\"1.0\"}]",
	};
	static const char bytes[] = "\"\\{}[],:0-nu/ \n\x7f\x80\xc3";
	char text[600];

	(void)state;
	for (size_t t = 0; t < ARRAY_SIZE(texts); t++) {
		size_t len = strlen(texts[t]);

		assert_true(keys_agree(texts[t], len));
		for (size_t i = 0; i <= len; i++) {
			assert_true(i == len || !keys_agree(texts[t], i));
			for (size_t k = 0; k < sizeof(bytes); k++) {
				memcpy(text, texts[t], len);
				text[i] = bytes[k];
				keys_agree(text, MAX(len, i + 1));
				memmove(text + i + 1, texts[t] + i, len - i);
				keys_agree(text, len + 1);
			}
			memcpy(text, texts[t], i);
			memcpy(text + i, texts[t] + i + 1, i < len ? len - i - 1 : 0);
			if (i < len)
				keys_agree(text, len - 1);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_native_keys),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
