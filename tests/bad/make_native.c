/* SPDX-License-Identifier: Apache-2.0 */
#include "make_tdf.h"

#include <stdio.h>

#include "crc.h"
#include "report.h"
#include "tail.h"

const struct keys_for_test test_keys = {{{11, 12}}, {{13, 14}}, "volume of tests"};
const struct secret test_dek = {{0x01 ^ 0x04, 0x02 ^ 0x05, 0x03 ^ 0x06}};
const struct secret test_shares[2] = {{{1, 2, 3}}, {{4, 5, 6}}};

#define KEY_ACCESS                                                                                                            \
	"[{\"type\":\"wrapped\",\"url\":\"https://kas.example\",\"protocol\":\"kas\",\"kid\":\"r1\",\"wrappedKey\":\"AAAA\"," \
	"\"policyBinding\":{\"alg\":\"HS256\",\"hash\":\"AAAA\"},\"schemaVersion\":\"1.0\"}]"
#define POLICY "eyJ1dWlkIjoiMSJ9"

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "make_tdf: %s failed: %s\n", what, fail_text());
	abort();
}

uint8_t plain_byte(uint64_t i)
{
	return (uint8_t)(i * 2654435761u >> 9 ^ i >> 16);
}

void patch(struct mem *m, const void *from, const void *to, size_t len)
{
	uint8_t *at = memmem(m->p, m->len, from, len);

	must(at && !memmem(at + 1, m->len - (size_t)(at + 1 - m->p), from, len), "patch");
	memcpy(at, to, len);
}

/* all segments at @p; @tags and CRC of the payload */
static uint32_t payload_make(uint64_t size, uint32_t s, uint8_t *p, uint8_t *tags)
{
	uint8_t *plain = malloc(s);
	uint32_t crc = 0;

	must(plain, "malloc");
	for (uint64_t i = 0; i < seg_count(size, s); i++) {
		uint32_t len = seg_plain(size, s, i);

		for (uint32_t k = 0; k < len; k++)
			plain[k] = plain_byte(i * s + k);
		must(!aead_seal(&test_dek, plain, len, p), "aead_seal");
		memcpy(tags + i * AEAD_TAG, p + AEAD_IV + len, AEAD_TAG);
		crc = crc_bytes(crc, p, len + AEAD_OVERHEAD);
		p += len + AEAD_OVERHEAD;
	}
	free(plain);
	return crc;
}

static void sector_make(uint64_t size, uint32_t s, const char *key_access, const uint8_t *root, uint32_t crc, uint8_t *p)
{
	struct record r = {.state = RECORD_SEALED, .s = s, .generation = 1, .size = size, .tail_off = tail_offset(size, s), .epoch = 1};

	memcpy(r.content_id, root, ID_LEN);
	memcpy(r.volume_id, test_keys.volume_id, ID_LEN);
	memcpy(r.file_id, "file id of tests", ID_LEN);
	must(!record_seal(&test_keys.k_seal, &r, (struct part){key_access, strlen(key_access)}, (struct part){POLICY, strlen(POLICY)},
			  &test_dek, r.seal),
	     "record_seal");
	must(!record_sector(&r, crc, &test_keys.k_rec, p), "record_sector");
}

struct mem native_file(uint64_t size, uint32_t s)
{
	struct tail_template *t = tail_template_new(s, KEY_ACCESS, POLICY);
	uint8_t *tags = malloc(seg_count(size, s) * AEAD_TAG), root[MAC_LEN];
	struct mem m = {0};
	uint32_t crc;

	must(t && tags, "malloc");
	m.len = tail_offset(size, s) + tail_len(t, size);
	m.p = malloc(m.len);
	must(m.p, "malloc");
	crc = payload_make(size, s, m.p + SECTOR, tags);
	must(!root_signature(&test_dek, tags, seg_count(size, s), root), "root_signature");
	tail_build(t, size, tags, root, crc, m.p + tail_offset(size, s));
	sector_make(size, s, KEY_ACCESS, root, crc, m.p);
	tail_template_free(t);
	free(tags);
	return m;
}

struct mem native_reshaped(uint64_t size, uint32_t s, const char *from, const char *to)
{
	struct mem m = native_file(size, s), r = {0};
	uint64_t tail = tail_offset(size, s) + 65;
	size_t text_len = m.len - tail - 270, cut = strlen(from), add = strlen(to);
	uint8_t *at = memmem(m.p + tail, text_len, from, cut), *end;
	uint32_t crc;

	must(at, "finding the text to edit");
	r.len = m.len - cut + add;
	r.p = malloc(r.len);
	must(r.p, "malloc");
	memcpy(r.p, m.p, (size_t)(at - m.p));
	memcpy(r.p + (at - m.p), to, add);
	memcpy(r.p + (at - m.p) + add, at + cut, m.len - (size_t)(at - m.p) - cut);
	text_len += add - cut;
	crc = crc_bytes(0, r.p + tail, text_len);
	end = r.p + tail + text_len;
	/* local header, directory entry, and the offsets in the end records */
	put_le32(r.p + tail - 65 + 14, crc);
	put_le64(r.p + tail - 16, text_len);
	put_le64(r.p + tail - 8, text_len);
	put_le32(end + 83 + 16, crc);
	put_le64(end + 83 + 65, text_len);
	put_le64(end + 83 + 73, text_len);
	put_le64(end + 172 + 48, (uint64_t)(end - r.p));
	put_le64(end + 172 + 56 + 8, (uint64_t)(end - r.p) + 172);
	free(m.p);
	return r;
}
