/* SPDX-License-Identifier: Apache-2.0 */
/* A whole file, foreign or native, up to where a data key is needed. */
#include "container.h"
#include "fuzz.h"
#include "mem_io.h"
#include "zip.h"

/* those that the native file in the corpus was made with (tests/bad/make_native.c) */
static const struct secret k_rec = {{11, 12}}, k_seal = {{13, 14}};
static const struct container_keys keys = {&k_rec, &k_seal, (const uint8_t *)"volume of tests"};

static void try_open(struct mem *m, const struct container_keys *k)
{
	struct io io = mem_io(m);
	struct container *c;

	if (container_open(&io, 0, k, &c))
		return;
	for (uint64_t i = 0; i < c->m->n_segs; i++) {
		uint64_t plain_off, file_off;
		uint32_t plain_len;

		container_segment(c, i, &plain_off, &plain_len, &file_off);
		CHECK(plain_off + plain_len <= c->m->size && file_off + plain_len + AEAD_OVERHEAD <= m->len);
	}
	CHECK(!c->native == !c->tmpl);
	CHECK(!c->native || (c->m->size == c->rec.size && c->rec.tail_off < m->len));
	container_free(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct mem m = {.p = (uint8_t *)data, .len = size};
	struct io io = mem_io(&m);
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
	try_open(&m, NULL);
	try_open(&m, &keys);
	return 0;
}
