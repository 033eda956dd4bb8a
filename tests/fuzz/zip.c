/* SPDX-License-Identifier: Apache-2.0 */
/* A whole file that anybody may have written, up to where a data key is needed. */
#include "container.h"
#include "fuzz.h"
#include "mem_io.h"
#include "zip.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct mem m = {(uint8_t *)data, size, 0};
	struct io io = mem_io(&m);
	struct container *c;
	struct zip z;
	char *text;
	size_t len;

	if (!zip_find(&io, 0, size, &z)) {
		CHECK(z.payload.data_off <= size && z.payload.comp_len <= size - z.payload.data_off);
		CHECK(z.manifest.data_off <= size && z.manifest.comp_len <= size - z.manifest.data_off);
		CHECK(z.payload.data_off >= z.manifest.data_off + z.manifest.comp_len ||
		      z.manifest.data_off >= z.payload.data_off + z.payload.comp_len);
		if (!zip_manifest(&io, 0, &z, &text, &len)) {
			CHECK(len == z.manifest.len && !text[len]);
			free(text);
		}
	}
	if (!container_open(&io, 0, NULL, &c)) {
		for (uint64_t i = 0; i < c->m->n_segs; i++) {
			uint64_t plain_off, file_off;
			uint32_t plain_len;

			container_segment(c, i, &plain_off, &plain_len, &file_off);
			CHECK(plain_off + plain_len <= c->m->size && file_off + plain_len + AEAD_OVERHEAD <= size);
		}
		container_free(c);
	}
	return 0;
}
