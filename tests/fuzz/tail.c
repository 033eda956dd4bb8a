/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tails of native files.  The input is the manifest's text, 16 bytes behind which say size and S; the zip headers around it are made here,
 * so that their CRC is no wall for the fuzzer.  What parses is exactly what tail_build() writes.
 */
#include "crc.h"
#include "fuzz.h"
#include "tail.h"

#define CRC 0x11223344

static const char key_access[] = "[]";

/* the headers that tail_build() puts around a text, of a native tail with another text */
static uint8_t *frame(const uint8_t *text, size_t len, uint64_t size, uint32_t s, size_t *ret_len)
{
	struct tail_template *t = tail_template_new(s, key_access, "");
	uint8_t root[MAC_LEN] = {0}, *tags = calloc(seg_count(size, s), AEAD_TAG), *p, *r, *end;
	size_t own_len, own_text;
	uint32_t crc = crc_bytes(0, text, len);

	CHECK(t && tags);
	own_len = tail_len(t, size);
	own_text = own_len - 65 - 270;
	p = malloc(own_len);
	*ret_len = 65 + len + 270;
	r = malloc(*ret_len);
	CHECK(p && r);
	tail_build(t, size, tags, root, CRC, p);
	memcpy(r, p, 65);
	memcpy(r + 65, text, len);
	end = r + 65 + len;
	memcpy(end, p + 65 + own_text, 270);
	put_le32(r + 14, crc);
	put_le64(r + 49, len);
	put_le64(r + 57, len);
	put_le32(end + 83 + 16, crc);
	put_le64(end + 83 + 65, len);
	put_le64(end + 83 + 73, len);
	put_le64(end + 172 + 48, tail_offset(size, s) + 65 + len);
	put_le64(end + 172 + 56 + 8, tail_offset(size, s) + 65 + len + 172);
	free(p);
	free(tags);
	tail_template_free(t);
	return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct tail_template *t;
	uint8_t *p, *again, *tags, root[MAC_LEN];
	uint64_t plain;
	struct part text;
	size_t len;
	uint32_t s;

	/* as it is: almost never gets past the headers */
	if (!tail_parse(data, size, size, SEG_DEFAULT, CRC, &t, &tags, root)) {
		tail_template_free(t);
		free(tags);
	}
	if (size < 16)
		return 0;
	size -= 16;
	plain = get_le64(data + size) & 0xfffff;
	s = SEG_MIN + get_le32(data + size + 8) % (SEG_MAX - SEG_MIN + 1);
	p = frame(data, size, plain, s, &len);
	CHECK(!tail_manifest(p, len, plain, s, CRC, &text) && text.len == size);
	if (!tail_parse(p, len, plain, s, CRC, &t, &tags, root)) {
		CHECK(tail_len(t, plain) == len);
		again = malloc(len);
		CHECK(again);
		tail_build(t, plain, tags, root, CRC, again);
		CHECK(!memcmp(p, again, len));
		free(again);
		tail_template_free(t);
		free(tags);
	}
	free(p);
	return 0;
}
