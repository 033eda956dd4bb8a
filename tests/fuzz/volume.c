/* SPDX-License-Identifier: Apache-2.0 */
/* volume.json: what is read is bounded, and what is written of it is read back the same. */
#include "fuzz.h"
#include "secret.h"
#include "volume_file.h"

static const struct secret key = {{1}};

static char *make(struct volume *v, size_t *ret_len)
{
	char *text = NULL;

	v->k_conf = secret_copy(&key);
	CHECK(v->k_conf);
	return volume_text_make(v, &text, ret_len) ? NULL : text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct volume *v = volume_new(), *again = volume_new();
	char *text = NULL, *text2 = NULL;
	size_t len, len2;

	CHECK(v && again);
	CHECK(volume_text_check((const char *)data, size, &key)); /* nobody guesses a MAC */
	if (!volume_text_parse((const char *)data, size, v)) {
		CHECK(v->n_kas_old <= VOLUME_KAS_OLD_MAX);
		text = make(v, &len);
		if (text) {
			CHECK(!volume_text_check(text, len, &key));
			CHECK(!volume_text_parse(text, len, again));
			text2 = make(again, &len2);
			CHECK(text2 && len == len2 && !memcmp(text, text2, len));
		}
	}
	free(text);
	free(text2);
	volume_free(v);
	volume_free(again);
	return 0;
}
