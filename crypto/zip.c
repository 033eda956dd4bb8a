/* SPDX-License-Identifier: Apache-2.0 */
#include "zip.h"

#include <errno.h>
#include <libdeflate.h>

#include "crc.h"
#include "report.h"

#define PAYLOAD "0.payload"
#define MANIFEST "0.manifest.json"

#define ENTRIES_MAX 16
#define CENTRAL_MAX ((uint64_t)64 << 10)
#define LOCAL_MAX ((size_t)16 << 10) /* name, and what is read of the extra fields: `ls` does so for files of others */
#define EOCD_LEN 22
#define LOCATOR_LEN 20
#define EOCD64_LEN 56
#define COMMENT_MAX 65535
#define FLAG_ENCRYPTED 0x2041u /* encryption, strong encryption, masked headers */
#define FLAG_DESCRIPTOR 8u
#define ALL32 0xffffffffu
#define ALL16 0xffffu

struct central {                  /* where the directory stands */
	uint64_t off, len, limit; /* limit: everything else must end here */
	uint64_t n;
};

struct dir_entry {
	struct zip_entry e;
	const uint8_t *name;
	uint16_t name_len, flags;
};

struct file { /* what is read from */
	const struct io *io;
	int fd;
	uint64_t len;
};

static int malformed(const char *what)
{
	return fail(-EPROTO, "malformed zip: %s", what);
}

/* @len bytes at @off, or malformed */
static int read_at(const struct file *f, void *buf, size_t len, uint64_t off)
{
	if (off > f->len || len > f->len - off)
		return malformed("a header lies outside of the file");
	return io_pread_full(f->io, f->fd, buf, len, off);
}

/* the zip64 end record that belongs to the end record at @eocd */
static int central_find64(const struct file *f, uint64_t eocd, struct central *c)
{
	uint8_t loc[LOCATOR_LEN], end[EOCD64_LEN];
	uint64_t off;
	int err;

	if (eocd < LOCATOR_LEN)
		return malformed("no zip64 locator");
	err = read_at(f, loc, LOCATOR_LEN, eocd - LOCATOR_LEN);
	if (err)
		return err;
	if (memcmp(loc, "PK\6\7", 4) != 0)
		return malformed("no zip64 locator");
	off = get_le64(loc + 8);
	if (get_le32(loc + 4) || get_le32(loc + 16) > 1)
		return malformed("more than one disk");
	if (off > eocd - LOCATOR_LEN || eocd - LOCATOR_LEN - off < EOCD64_LEN)
		return malformed("the zip64 end record lies outside of the file");
	err = read_at(f, end, EOCD64_LEN, off);
	if (err)
		return err;
	if (memcmp(end, "PK\6\6", 4) != 0)
		return malformed("no zip64 end record");
	if (get_le32(end + 16) || get_le32(end + 20) || get_le64(end + 24) != get_le64(end + 32))
		return malformed("more than one disk");
	*c = (struct central){.off = get_le64(end + 48), .len = get_le64(end + 40), .limit = off, .n = get_le64(end + 32)};
	return 0;
}

/* the end record: its comment must reach exactly to the end of the file */
static int eocd_find(const struct file *f, uint8_t ret[static EOCD_LEN], uint64_t *ret_off)
{
	size_t len = (size_t)MIN(f->len, (uint64_t)EOCD_LEN + COMMENT_MAX);
	uint8_t *buf CLEANUP_FREE = NULL;
	int err;

	if (f->len < EOCD_LEN)
		return fail(-ENOEXEC, "no TDF: too short for a zip archive");
	/* nearly every file has no comment */
	err = read_at(f, ret, EOCD_LEN, f->len - EOCD_LEN);
	if (err)
		return err;
	if (!memcmp(ret, "PK\5\6", 4) && !get_le16(ret + 20)) {
		*ret_off = f->len - EOCD_LEN;
		return 0;
	}
	buf = malloc(len);
	if (!buf)
		return -ENOMEM;
	err = read_at(f, buf, len, f->len - len);
	if (err)
		return err;
	for (size_t i = len - EOCD_LEN + 1; i-- > 0;) {
		if (memcmp(buf + i, "PK\5\6", 4) != 0 || get_le16(buf + i + 20) != len - EOCD_LEN - i)
			continue;
		memcpy(ret, buf + i, EOCD_LEN);
		*ret_off = f->len - len + i;
		return 0;
	}
	return fail(-ENOEXEC, "no TDF: no zip directory at the end of the file (not a TDF, or truncated)");
}

static int central_find(const struct file *f, struct central *ret)
{
	uint8_t end[EOCD_LEN];
	struct central c = {0};
	uint64_t eocd = 0;
	int err;

	err = eocd_find(f, end, &eocd);
	if (err)
		return err;
	c = (struct central){.off = get_le32(end + 16), .len = get_le32(end + 12), .limit = eocd, .n = get_le16(end + 10)};
	if (c.n == ALL16 || c.len == ALL32 || c.off == ALL32)
		err = central_find64(f, eocd, &c);
	else if (get_le16(end + 4) || get_le16(end + 6) || get_le16(end + 8) != c.n)
		err = malformed("more than one disk");
	if (err)
		return err;
	if (c.n > ENTRIES_MAX)
		return malformed("more than 16 entries");
	if (c.len > CENTRAL_MAX || c.off > c.limit || c.len > c.limit - c.off)
		return malformed("the directory lies outside of the file or is larger than 64 KiB");
	*ret = c;
	return 0;
}

/* find extra field @id among @len bytes; NULL if it is not there */
static const uint8_t *extra_find(const uint8_t *p, size_t len, uint16_t id, size_t *ret_len)
{
	while (len >= 4) {
		size_t field = get_le16(p + 2);

		if (field > len - 4)
			return NULL;
		if (get_le16(p) == id) {
			*ret_len = field;
			return p + 4;
		}
		p += 4 + field;
		len -= 4 + field;
	}
	return NULL;
}

/* the next of the 64-bit values that stand in for @v where it is all ones */
static int value64(const uint8_t **p, size_t *len, uint64_t *v)
{
	if (*v != ALL32)
		return 0;
	if (!*p || *len < 8)
		return malformed("a zip64 field is missing or too short");
	*v = get_le64(*p);
	*p += 8;
	*len -= 8;
	return 0;
}

/* one entry of the directory at @p of @len bytes */
static int entry_parse(const uint8_t *p, size_t len, struct dir_entry *ret, size_t *ret_len)
{
	struct dir_entry d = {0};
	size_t extra_len, comment_len, field_len = 0;
	const uint8_t *field;
	int err;

	if (len < 46 || memcmp(p, "PK\1\2", 4) != 0)
		return malformed("no directory entry where one should be");
	d.flags = get_le16(p + 8);
	d.name_len = get_le16(p + 28);
	extra_len = get_le16(p + 30);
	comment_len = get_le16(p + 32);
	if (46 + d.name_len + extra_len + comment_len > len)
		return malformed("a directory entry is longer than the directory");
	d.name = p + 46;
	d.e.method = get_le16(p + 10);
	d.e.crc = get_le32(p + 16);
	d.e.comp_len = get_le32(p + 20);
	d.e.len = get_le32(p + 24);
	d.e.local_off = get_le32(p + 42);
	field = extra_find(p + 46 + d.name_len, extra_len, 1, &field_len);
	err = value64(&field, &field_len, &d.e.len);
	if (!err)
		err = value64(&field, &field_len, &d.e.comp_len);
	if (!err)
		err = value64(&field, &field_len, &d.e.local_off);
	if (err)
		return err;
	if (get_le16(p + 34))
		return malformed("more than one disk");
	*ret = d;
	*ret_len = 46 + d.name_len + extra_len + comment_len;
	return 0;
}

/* sizes in the local header, where it has them, against the directory's */
static int local_sizes(const uint8_t *h, const uint8_t *extra, size_t extra_len, const struct dir_entry *d)
{
	uint64_t comp_len = get_le32(h + 18), len = get_le32(h + 22);
	size_t field_len = 0;
	const uint8_t *field = extra_find(extra, extra_len, 1, &field_len);
	bool later = d->flags & FLAG_DESCRIPTOR;

	if (field && field_len >= 16) {
		/* a local zip64 field has both sizes, whichever of them is all ones */
		if (len == ALL32)
			len = get_le64(field);
		if (comp_len == ALL32)
			comp_len = get_le64(field + 8);
	}
	if (later && (!len || len == ALL32) && (!comp_len || comp_len == ALL32))
		return 0;
	if (len != d->e.len || comp_len != d->e.comp_len)
		return malformed("local header and directory disagree on a size");
	return 0;
}

static int local_parse(const struct file *f, struct dir_entry *d, uint64_t limit)
{
	uint8_t h[30], *rest CLEANUP_FREE = NULL;
	size_t name_len, extra_len, looked;
	int err;

	err = read_at(f, h, sizeof(h), d->e.local_off);
	if (err)
		return err;
	if (memcmp(h, "PK\3\4", 4) != 0)
		return malformed("no local header where the directory says");
	if (get_le16(h + 8) != d->e.method || (get_le16(h + 6) ^ d->flags) & (FLAG_ENCRYPTED | FLAG_DESCRIPTOR))
		return malformed("local header and directory disagree on method or flags");
	name_len = get_le16(h + 26);
	extra_len = get_le16(h + 28);
	if (name_len > LOCAL_MAX)
		return malformed("a name is longer than 16 KiB");
	looked = MIN(extra_len, LOCAL_MAX - name_len);
	rest = malloc(name_len + looked + 1);
	if (!rest)
		return -ENOMEM;
	err = read_at(f, rest, name_len + looked, d->e.local_off + sizeof(h));
	if (err)
		return err;
	if (name_len != d->name_len || memcmp(rest, d->name, name_len) != 0)
		return malformed("local header and directory disagree on a name");
	err = local_sizes(h, rest + name_len, looked, d);
	if (err)
		return err;
	d->e.data_off = d->e.local_off + sizeof(h) + name_len + extra_len;
	if (d->e.data_off > limit || d->e.comp_len > limit - d->e.data_off)
		return malformed("an entry reaches into the directory");
	return 0;
}

static bool is_named(const struct dir_entry *d, const char *name)
{
	return d->name_len == strlen(name) && !memcmp(d->name, name, d->name_len);
}

static int entry_take(const struct dir_entry *d, struct zip_entry *e)
{
	if (e->data_off)
		return malformed("two entries of the same name");
	if (d->flags & FLAG_ENCRYPTED)
		return malformed("a zip-encrypted entry");
	*e = d->e;
	return 0;
}

/* entries read so far must not share a byte with @d */
static int overlap_check(const struct dir_entry *dirs, size_t n, const struct dir_entry *d)
{
	for (size_t i = 0; i < n; i++) {
		const struct zip_entry *a = &dirs[i].e, *b = &d->e;

		if (a->local_off < b->data_off + b->comp_len && b->local_off < a->data_off + a->comp_len)
			return malformed("entries overlap");
	}
	return 0;
}

static int entries_parse(const struct file *f, const struct central *c, const uint8_t *dir, struct zip *z)
{
	struct dir_entry dirs[ENTRIES_MAX];
	size_t pos = 0, used = 0;
	int err = 0;

	for (uint64_t i = 0; i < c->n; i++) {
		struct dir_entry *d = &dirs[i];

		err = entry_parse(dir + pos, c->len - pos, d, &used);
		if (!err)
			err = local_parse(f, d, c->off);
		if (!err)
			err = overlap_check(dirs, i, d);
		if (!err && is_named(d, PAYLOAD))
			err = entry_take(d, &z->payload);
		else if (!err && is_named(d, MANIFEST))
			err = entry_take(d, &z->manifest);
		if (err)
			return err;
		pos += used;
	}
	return pos == c->len ? 0 : malformed("the directory is longer than its entries");
}

int zip_find(const struct io *io, int fd, uint64_t file_len, struct zip *ret)
{
	const struct file f = {io, fd, file_len};
	uint8_t *dir CLEANUP_FREE = NULL;
	struct zip z = {0};
	struct central c = {0};
	int err;

	err = central_find(&f, &c);
	if (err)
		return err;
	dir = malloc(c.len + 1);
	if (!dir)
		return -ENOMEM;
	err = read_at(&f, dir, c.len, c.off);
	if (!err)
		err = entries_parse(&f, &c, dir, &z);
	if (err)
		return err;
	if (!z.payload.data_off || !z.manifest.data_off)
		return fail(-EPROTO, "no TDF: the zip archive has no %s", z.payload.data_off ? MANIFEST : PAYLOAD);
	if (z.payload.method || z.payload.comp_len != z.payload.len)
		return malformed("0.payload is compressed");
	if ((z.manifest.method && z.manifest.method != 8) || (!z.manifest.method && z.manifest.comp_len != z.manifest.len))
		return malformed("0.manifest.json is compressed with an unknown method");
	if (z.manifest.len > MANIFEST_MAX || z.manifest.comp_len > MANIFEST_MAX)
		return fail(-EPROTO, "0.manifest.json is larger than %zu bytes", MANIFEST_MAX);
	*ret = z;
	return 0;
}

/* @in: comp_len bytes; exactly len bytes must come out and nothing may be left over */
static int inflate_all(const uint8_t *in, const struct zip_entry *e, char *out)
{
	struct libdeflate_decompressor *d = libdeflate_alloc_decompressor();
	enum libdeflate_result res;
	size_t used = 0, made = 0;

	if (!d)
		return -ENOMEM;
	res = libdeflate_deflate_decompress_ex(d, in, e->comp_len, out, e->len, &used, &made);
	libdeflate_free_decompressor(d);
	if (res != LIBDEFLATE_SUCCESS || used != e->comp_len || made != e->len)
		return malformed("0.manifest.json does not inflate to its size");
	return 0;
}

int zip_manifest(const struct io *io, int fd, const struct zip *z, char **ret, size_t *ret_len)
{
	const struct zip_entry *e = &z->manifest;
	char *text CLEANUP_FREE = malloc(e->len + 1);
	uint8_t *packed CLEANUP_FREE = NULL;
	int err;

	if (!text)
		return -ENOMEM;
	if (!e->method) {
		err = io_pread_full(io, fd, text, e->len, e->data_off);
	} else {
		packed = malloc(e->comp_len + 1);
		if (!packed)
			return -ENOMEM;
		err = io_pread_full(io, fd, packed, e->comp_len, e->data_off);
		if (!err)
			err = inflate_all(packed, e, text);
	}
	if (err)
		return err;
	if (crc_bytes(0, text, e->len) != e->crc)
		return fail(-EBADMSG, "the CRC of 0.manifest.json is wrong: the file is damaged");
	text[e->len] = 0;
	*ret_len = e->len;
	*ret = STEAL(text);
	return 0;
}
