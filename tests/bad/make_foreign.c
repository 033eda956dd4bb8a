/* SPDX-License-Identifier: Apache-2.0 */
#include "make_tdf.h"

#include <stdarg.h>
#include <stdio.h>
#include <libdeflate.h>

#include "aead.h"
#include "crc.h"
#include "encode.h"
#include "manifest.h"
#include "report.h"

#define POLICY "eyJ1dWlkIjoiMSJ9"
#define ROOM ((size_t)64 << 10) /* for everything but payload and manifest */

struct text { /* grows */
	char *p;
	size_t len, room;
};

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "make_tdf: %s failed: %s\n", what, fail_text());
	abort();
}

static void PRINTF_LIKE(2, 3) add(struct text *t, const char *fmt, ...)
{
	va_list ap;
	char *s;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&s, fmt, ap);
	va_end(ap);
	must(n >= 0, "vasprintf");
	if (t->len + (size_t)n + 1 > t->room) {
		t->room = 2 * (t->len + (size_t)n + 1);
		t->p = realloc(t->p, t->room);
		must(t->p, "realloc");
	}
	memcpy(t->p + t->len, s, (size_t)n + 1);
	t->len += (size_t)n;
	free(s);
}

static uint32_t seg_len(const struct foreign_opt *o, size_t i, size_t off)
{
	uint32_t want = o->odd_sizes && i % 3 ? o->s / 2 : o->s;

	return (uint32_t)MIN((size_t)want, o->len - off);
}

struct parts { /* of a foreign file */
	uint8_t *payload;
	size_t payload_len;
	struct text segs;
	uint8_t root[MAC_LEN];
};

static void hash_text(const struct foreign_opt *o, const uint8_t *hash, size_t len, struct text *signed_text, char *ret)
{
	char hex[2 * MAC_LEN + 1];

	hex_encode(hash, len, hex);
	/* what is signed is kept in hex throughout; raw hashes are turned back at the end */
	add(signed_text, "%s", hex);
	if (o->hex)
		base64_encode(hex, 2 * len, ret);
	else
		base64_encode(hash, len, ret);
}

static void root_make(const struct foreign_opt *o, const struct text *signed_text, uint8_t *root)
{
	uint8_t *raw = malloc(signed_text->len / 2 + 1);
	struct part p = {signed_text->p, signed_text->len};

	must(raw, "malloc");
	if (!o->hex) {
		must(!signed_text->len || !hex_decode(signed_text->p, signed_text->len, raw, signed_text->len / 2), "hex_decode");
		p = (struct part){raw, signed_text->len / 2};
	}
	must(!hmac_sha256(test_dek.b, SECRET_LEN, &p, 1, root), "hmac");
	free(raw);
}

static struct parts parts_make(const struct foreign_opt *o)
{
	struct parts r = {.payload = malloc(o->len + (o->len / MAX(o->s / 2, 1u) + 2) * AEAD_OVERHEAD + ROOM)};
	struct text hashes = {0};
	uint8_t *plain = malloc(o->len + 1), *p = r.payload, mac[MAC_LEN];
	size_t off = 0, i = 0;
	char hash[BASE64_LEN(2 * MAC_LEN) + 1];

	must(r.payload && plain, "malloc");
	for (size_t k = 0; k < o->len; k++)
		plain[k] = plain_byte(k);
	add(&r.segs, "%s", "");
	while (!o->no_segments && (off < o->len || !i)) {
		uint32_t len = seg_len(o, i, off);
		size_t stored = len + AEAD_OVERHEAD;

		must(!aead_seal(&test_dek, plain + off, len, p), "aead_seal");
		must(!hmac_sha256(test_dek.b, SECRET_LEN, &(struct part){p, stored}, 1, mac), "hmac");
		hash_text(o, o->hs256 ? mac : p + stored - AEAD_TAG, o->hs256 ? MAC_LEN : AEAD_TAG, &hashes, hash);
		add(&r.segs, "%s{\"hash\":\"%s\"", i ? "," : "", hash);
		if (!o->omit_sizes || len != o->s)
			add(&r.segs, ",\"segmentSize\":%u,\"encryptedSegmentSize\":%zu", (unsigned)len, stored);
		add(&r.segs, "}");
		p += stored;
		off += len;
		i++;
	}
	r.payload_len = (size_t)(p - r.payload);
	root_make(o, &hashes, r.root);
	free(hashes.p);
	free(plain);
	return r;
}

static void key_access_add(struct text *t, const struct foreign_opt *o)
{
	for (unsigned i = 0; i < MAX(o->splits, 1u); i++) {
		char binding[89];

		must(!policy_binding(POLICY, o->splits ? &test_shares[i] : &test_dek, binding), "policy_binding");
		add(t,
		    "%s{\"type\":\"wrapped\",\"url\":\"https://"
		    "kas%u.example\",\"protocol\":\"kas\",\"kid\":\"r%u\",\"wrappedKey\":\"AAAA\",",
		    i ? "," : "", i, i);
		if (o->splits)
			add(t, "\"sid\":\"split%u\",", i);
		add(t, o->bare_binding ? "\"policyBinding\":\"%s\"}" : "\"policyBinding\":{\"alg\":\"HS256\",\"hash\":\"%s\"}}", binding);
	}
}

static char *text_make(const struct foreign_opt *o, const struct parts *r)
{
	char sig[BASE64_LEN(2 * MAC_LEN) + 1], hex[2 * MAC_LEN + 1];
	struct text t = {0};

	hex_encode(r->root, MAC_LEN, hex);
	if (o->hex)
		base64_encode(hex, 2 * MAC_LEN, sig);
	else
		base64_encode(r->root, MAC_LEN, sig);
	add(&t, "{\"encryptionInformation\":{\"type\":\"split\",\"policy\":\"" POLICY "\",\"keyAccess\":[");
	key_access_add(&t, o);
	add(&t,
	    "],\"method\":{\"algorithm\":\"AES-256-GCM\",\"%s\":true},\"integrityInformation\":{\"rootSignature\":{\"alg\":\"HS256\","
	    "\"sig\":\"%s\"},",
	    o->hex ? "IsStreamable" : "isStreamable", sig);
	add(&t, "\"segmentHashAlg\":\"%s\",\"segmentSizeDefault\":%u,\"encryptedSegmentSizeDefault\":%u,\"segments\":[%s]}},",
	    o->hs256 ? "HS256" : "GMAC", (unsigned)o->s, (unsigned)o->s + AEAD_OVERHEAD, r->segs.p);
	add(&t,
	    "\"payload\":{\"type\":\"reference\",\"url\":\"0.payload\",\"protocol\":\"zip\",\"isEncrypted\":true,\"mimeType\":\"text/"
	    "plain\"}%s}",
	    o->hex ? "" : ",\"schemaVersion\":\"4.3.0\"");
	for (size_t i = 0; i < ARRAY_SIZE(o->edit); i++) {
		struct text e = {0};
		char *at = o->edit[i].from ? strstr(t.p, o->edit[i].from) : NULL;

		if (!o->edit[i].from)
			continue;
		must(at, "finding the text to edit");
		add(&e, "%.*s%s%s", (int)(at - t.p), t.p, o->edit[i].to, at + strlen(o->edit[i].from));
		free(t.p);
		t = e;
	}
	return t.p;
}

char *manifest_text(const struct foreign_opt *o)
{
	struct parts r = parts_make(o);
	char *text = text_make(o, &r);

	free(r.payload);
	free(r.segs.p);
	return text;
}

struct entry {
	const char *name;
	const void *data;
	size_t len, comp_len, off;
	uint32_t crc;
	uint16_t flags, method;
};

static uint8_t *local_put(const struct foreign_opt *o, struct mem *m, uint8_t *p, struct entry *e)
{
	size_t name_len = strlen(e->name), extra = o->zip64 && !o->java_descriptor ? 20 : 0;
	bool later = e->flags & 8;

	e->off = (size_t)(p - m->p);
	memset(p, 0, 30);
	memcpy(p, "PK\3\4", 4);
	put_le16(p + 4, 45);
	put_le16(p + 6, e->flags);
	put_le16(p + 8, e->method);
	put_le32(p + 14, later ? 0 : e->crc);
	put_le32(p + 18, extra || o->java_descriptor ? 0xffffffff : later ? 0 : (uint32_t)e->comp_len);
	put_le32(p + 22, extra || o->java_descriptor ? 0xffffffff : later ? 0 : (uint32_t)e->len);
	put_le16(p + 26, (uint16_t)name_len);
	put_le16(p + 28, (uint16_t)extra);
	memcpy(p + 30, e->name, name_len);
	p += 30 + name_len;
	if (extra) {
		memset(p, 0, extra);
		put_le16(p, 1);
		put_le16(p + 2, 16);
		put_le64(p + 4, later ? 0 : e->len);
		put_le64(p + 12, later ? 0 : e->comp_len);
		p += extra;
	}
	memcpy(p, e->data, e->comp_len);
	p += e->comp_len;
	if (later) {
		size_t w = o->zip64 ? 8 : 4;

		memset(p, 0, 24);
		memcpy(p, "PK\7\10", 4);
		put_le32(p + 4, e->crc);
		put_le32(p + 8, (uint32_t)e->comp_len);
		put_le32(p + 8 + w, (uint32_t)e->len);
		p += 8 + 2 * w;
	}
	return p;
}

static uint8_t *central_put(const struct foreign_opt *o, uint8_t *p, const struct entry *e)
{
	size_t name_len = strlen(e->name), extra = o->zip64 ? 28 : 0;

	memset(p, 0, 46);
	memcpy(p, "PK\1\2", 4);
	put_le16(p + 4, 45);
	put_le16(p + 6, 45);
	put_le16(p + 8, e->flags);
	put_le16(p + 10, e->method);
	put_le32(p + 16, e->crc);
	put_le32(p + 20, extra ? 0xffffffff : (uint32_t)e->comp_len);
	put_le32(p + 24, extra ? 0xffffffff : (uint32_t)e->len);
	put_le16(p + 28, (uint16_t)name_len);
	put_le16(p + 30, (uint16_t)extra);
	put_le32(p + 42, extra ? 0xffffffff : (uint32_t)e->off);
	memcpy(p + 46, e->name, name_len);
	p += 46 + name_len;
	if (extra) {
		put_le16(p, 1);
		put_le16(p + 2, 24);
		put_le64(p + 4, e->len);
		put_le64(p + 12, e->comp_len);
		put_le64(p + 20, e->off);
		p += extra;
	}
	return p;
}

static uint8_t *end_put(const struct foreign_opt *o, const struct mem *m, uint8_t *p, const uint8_t *central, size_t n)
{
	size_t off = (size_t)(central - m->p), len = (size_t)(p - central), end64 = (size_t)(p - m->p);

	memset(p, 0, 98);
	if (o->zip64) {
		memcpy(p, "PK\6\6", 4);
		put_le64(p + 4, 44);
		put_le64(p + 24, n);
		put_le64(p + 32, n);
		put_le64(p + 40, len);
		put_le64(p + 48, off);
		memcpy(p + 56, "PK\6\7", 4);
		put_le64(p + 64, end64);
		put_le32(p + 72, 1);
		p += 76;
	}
	memcpy(p, "PK\5\6", 4);
	put_le16(p + 8, o->zip64 ? 0xffff : (uint16_t)n);
	put_le16(p + 10, o->zip64 ? 0xffff : (uint16_t)n);
	put_le32(p + 12, o->zip64 ? 0xffffffff : (uint32_t)len);
	put_le32(p + 16, o->zip64 ? 0xffffffff : (uint32_t)off);
	p += 22;
	if (o->comment) {
		put_le16(p - 2, 7);
		memcpy(p, "comment", 7);
		p += 7;
	}
	return p;
}

/* put a complete little entry behind the segments, but inside of the payload */
static size_t embed(struct parts *r, struct entry *x)
{
	size_t off = r->payload_len;
	uint8_t *p = r->payload + off;

	memset(p, 0, 40);
	memcpy(p, "PK\3\4", 4);
	put_le16(p + 4, 45);
	put_le16(p + 26, 1);
	p[30] = 'x';
	r->payload_len += 31;
	*x = (struct entry){.name = "x", .data = ""};
	return off;
}

struct mem foreign_file(const struct foreign_opt *o)
{
	static const char *const names[] = {"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p"};
	struct parts r = parts_make(o);
	char *text = text_make(o, &r);
	struct entry e[20] = {0}, inner = {0};
	size_t n = 2, text_len = strlen(text), at = o->manifest_first, inner_off = o->overlap ? embed(&r, &inner) : 0;
	struct mem m = {.p = malloc(r.payload_len * 2 + text_len * 2 + ROOM)};
	uint8_t *packed = malloc(text_len + 100), *p = m.p, *central;
	uint16_t flags = o->descriptor || o->java_descriptor ? 8 : 0;

	must(m.p && packed, "malloc");
	e[at] = (struct entry){"0.payload",
			       r.payload,
			       r.payload_len,
			       r.payload_len,
			       0,
			       crc_bytes(0, r.payload, r.payload_len),
			       (uint16_t)(flags | o->flags),
			       o->payload_method};
	e[!at] = (struct entry){"0.manifest.json", text, text_len, text_len, 0, crc_bytes(0, text, text_len), flags, 0};
	if (o->deflate) {
		struct libdeflate_compressor *c = libdeflate_alloc_compressor(6);

		e[!at].comp_len = libdeflate_deflate_compress(c, text, text_len, packed, text_len + 100);
		e[!at].data = packed;
		e[!at].method = 8;
		must(e[!at].comp_len && e[!at].comp_len < text_len, "deflating");
		libdeflate_free_compressor(c);
	}
	if (o->duplicate)
		e[n++] = e[at];
	if (o->third_entry)
		e[n++] = (struct entry){
		    .name = "readme.txt", .data = "hello", .len = 5, .comp_len = 5, .crc = crc_bytes(0, "hello", 5), .method = 0};
	for (size_t i = 0; o->many_entries && i < ARRAY_SIZE(names); i++)
		e[n++] = (struct entry){.name = names[i], .data = ""};
	for (size_t i = 0; i < n; i++)
		p = local_put(o, &m, p, &e[i]);
	if (o->overlap) {
		inner.off = e[at].off + 30 + 9 + (o->zip64 ? 20 : 0) + inner_off;
		must(!memcmp(m.p + inner.off, "PK\3\4", 4), "embedding an entry");
		e[n++] = inner;
	}
	central = p;
	for (size_t i = 0; i < n; i++)
		p = central_put(o, p, &e[i]);
	p = end_put(o, &m, p, central, n);
	m.len = (size_t)(p - m.p);
	free(packed);
	free(text);
	free(r.payload);
	free(r.segs.p);
	m.p = realloc(m.p, m.len); /* so that a read beyond the end is seen by the sanitizer */
	return m;
}
