/* SPDX-License-Identifier: Apache-2.0 */
#include "peek.h"

#include <errno.h>
#include <zlib.h>

#include "aead.h"
#include "manifest.h"
#include "report.h"
#include "zip.h"

#define EXACT_MAX ((uint64_t)4 << 10)
#define START_MAX ((size_t)64 << 10)
#define SEG_MAX ((uint64_t)128 << 20) /* as manifest_parse() */

static int exact_size(const struct io *io, int fd, const struct zip *z, uint64_t *ret)
{
	struct manifest *m CLEANUP(manifest_cleanup) = NULL;
	char *text CLEANUP_FREE = NULL;
	size_t len;
	int err = zip_manifest(io, fd, z, &text, &len);

	if (!err)
		err = manifest_parse(text, len, false, &m);
	if (!err)
		*ret = m->size;
	return err;
}

/* as much as fits of what @in inflates to */
static int inflate_start(uint8_t *in, size_t in_len, char *out, size_t *out_len)
{
	z_stream s = {.next_in = in, .avail_in = (uInt)in_len, .next_out = (Bytef *)out, .avail_out = (uInt)*out_len};
	int res;

	if (inflateInit2(&s, -MAX_WBITS) != Z_OK)
		return -ENOMEM;
	res = inflate(&s, Z_SYNC_FLUSH);
	*out_len -= s.avail_out;
	inflateEnd(&s);
	return res == Z_OK || res == Z_STREAM_END || res == Z_BUF_ERROR ? 0 : fail(-EPROTO, "0.manifest.json does not inflate");
}

/* the first bytes of the manifest and a NUL */
static int manifest_start(const struct io *io, int fd, const struct zip_entry *e, char *text, size_t *ret_len)
{
	size_t in_len = (size_t)MIN(e->comp_len, START_MAX);
	uint8_t *in CLEANUP_FREE = NULL;
	int err;

	*ret_len = (size_t)MIN(e->len, START_MAX);
	if (!e->method)
		return io_pread_full(io, fd, text, *ret_len, e->data_off);
	in = malloc(in_len + 1);
	if (!in)
		return -ENOMEM;
	err = io_pread_full(io, fd, in, in_len, e->data_off);
	return err ? err : inflate_start(in, in_len, text, ret_len);
}

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* the number behind the first "segmentSizeDefault": in @text, which a NUL ends; 0 if there is none that may be one */
static uint64_t default_size(const char *text, size_t len)
{
	static const char key[] = "\"segmentSizeDefault\"";
	const char *p = memmem(text, len, key, sizeof(key) - 1);
	uint64_t v = 0;

	if (!p)
		return 0;
	p += sizeof(key) - 1;
	while (is_space(*p) || *p == ':')
		p++;
	for (; *p >= '0' && *p <= '9' && v <= SEG_MAX; p++)
		v = v * 10 + (uint64_t)(*p - '0');
	return v <= SEG_MAX ? v : 0;
}

int peek_size(const struct io *io, int fd, uint64_t file_len, uint64_t *ret)
{
	char *text CLEANUP_FREE = NULL;
	uint64_t s, n;
	struct zip z;
	size_t len;
	int err = zip_find(io, fd, file_len, &z);

	if (err)
		return err;
	if (z.manifest.len <= EXACT_MAX)
		return exact_size(io, fd, &z, ret);
	text = malloc(START_MAX + 1);
	if (!text)
		return -ENOMEM;
	err = manifest_start(io, fd, &z.manifest, text, &len);
	if (err)
		return err;
	text[len] = 0;
	s = default_size(text, len);
	n = s ? (z.payload.len + s + AEAD_OVERHEAD - 1) / (s + AEAD_OVERHEAD) : 0;
	if (!s || z.payload.len < n * AEAD_OVERHEAD)
		return fail(-EPROTO, "its size is not in the first %zu bytes of its manifest", START_MAX);
	*ret = z.payload.len - n * AEAD_OVERHEAD;
	return 0;
}
