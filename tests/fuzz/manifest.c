/* SPDX-License-Identifier: Apache-2.0 */
/* The manifest's text: the general parser, and that the native scanner never says anything else than it. */
#include "fuzz.h"
#include "manifest.h"

static void check_one(const struct manifest *m)
{
	CHECK(m->n_ka >= 1 && m->n_ka <= 16);
	CHECK(m->hash_len == (m->seg_hs256 ? MAC_LEN : AEAD_TAG));
	CHECK(m->seg_default > 0);
	if (m->plain_start) {
		CHECK(!m->plain_start[0] && m->plain_start[m->n_segs] == m->size);
		for (uint64_t i = 0; i < m->n_segs; i++)
			CHECK(m->plain_start[i] <= m->plain_start[i + 1]);
	} else if (m->n_segs) {
		CHECK(m->size <= m->n_segs * m->seg_default && m->size >= (m->n_segs - 1) * m->seg_default);
	} else {
		CHECK(!m->size);
	}
	for (size_t i = 0; i < m->n_ka; i++)
		CHECK(m->ka[i].type_name && m->ka[i].url && m->ka[i].protocol && m->ka[i].kid && m->ka[i].sid && m->ka[i].ephemeral_pem &&
		      m->ka[i].wrapped && m->ka[i].binding);
	CHECK(m->policy && m->key_access_text && m->mime_type && m->schema_version);
}

static void check_same(const struct manifest *a, const struct manifest *b)
{
	CHECK(a->n_segs == b->n_segs && a->size == b->size && a->seg_default == b->seg_default && !a->plain_start == !b->plain_start);
	CHECK(a->hash_len == b->hash_len && !memcmp(a->hashes, b->hashes, a->n_segs * a->hash_len));
	CHECK(!memcmp(a->root_sig, b->root_sig, MAC_LEN) && !strcmp(a->policy, b->policy) && a->n_ka == b->n_ka);
	CHECK(a->hex == b->hex && a->seg_hs256 == b->seg_hs256);
}

/* with a space in every segment the parser has to take its slow way: the answer must be the same (@m: NULL if the text was refused) */
static void check_slow(const uint8_t *data, size_t size, const struct manifest *m)
{
	static const char seg[] = "{\"hash\":";
	char *spaced = malloc(2 * size + 1), *p = spaced;
	struct manifest *slow;
	int err;

	CHECK(spaced);
	for (size_t i = 0; i < size; i++) {
		*p++ = (char)data[i];
		if (size - i >= sizeof(seg) - 1 && !memcmp(data + i, seg, sizeof(seg) - 1))
			*p++ = ' ';
	}
	err = manifest_parse(spaced, (size_t)(p - spaced), false, &slow);
	free(spaced);
	CHECK(!err == !!m);
	if (err)
		return;
	check_same(m, slow);
	manifest_free(slow);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct manifest *native, *any;
	char *spaced;

	if (!manifest_parse((const char *)data, size, false, &any)) {
		check_one(any);
		check_slow(data, size, any);
		manifest_free(any);
	} else {
		check_slow(data, size, NULL);
	}
	if (manifest_parse((const char *)data, size, true, &native))
		return 0;
	/* the native layout: one more space and the general parser has to do it, with the same result */
	spaced = malloc(size + 1);
	CHECK(spaced);
	memcpy(spaced, data, size);
	spaced[size] = ' ';
	CHECK(!manifest_parse(spaced, size + 1, false, &any));
	check_same(native, any);
	CHECK(!strcmp(native->key_access_text, any->key_access_text));
	CHECK(!any->hex && !any->seg_hs256);
	manifest_free(any);
	manifest_free(native);
	free(spaced);
	return 0;
}
