/* SPDX-License-Identifier: Apache-2.0 */
#include "tail.h"

#include <errno.h>

#include "crc.h"
#include "manifest_native.h"
#include "report.h"

#define PAYLOAD "0.payload"
#define PAYLOAD_LEN 9
#define MANIFEST "0.manifest.json"
#define MANIFEST_LEN 15

#define LOCAL_LEN (30 + MANIFEST_LEN + 20)
#define CENTRAL_LEN (46 + PAYLOAD_LEN + 28 + 46 + MANIFEST_LEN + 28)
#define END_LEN (CENTRAL_LEN + 56 + 20 + 22)
_Static_assert(LOCAL_LEN == 65, "FORMAT.md section 1");

struct tail_template *tail_template_new(uint32_t s, const char *key_access, const char *policy)
{
	struct tail_template *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->s = s;
	t->key_access = strdup(key_access);
	t->policy = strdup(policy);
	if (t->key_access && t->policy)
		return t;
	tail_template_free(t);
	return NULL;
}

void tail_template_free(struct tail_template *t)
{
	if (!t)
		return;
	free(t->key_access);
	free(t->policy);
	free(t);
}

static void template_cleanup(struct tail_template **t)
{
	tail_template_free(*t);
}

uint64_t tail_len(const struct tail_template *t, uint64_t size)
{
	return LOCAL_LEN + native_len(strlen(t->key_access), strlen(t->policy), t->s, size) + END_LEN;
}

/* version needed .. extra length of both kinds of header: zip64, stored, the DOS epoch, sizes in the extra field */
static void put_common(uint8_t *p, uint32_t crc, uint16_t name_len, uint16_t extra_len)
{
	put_le16(p, 45);
	put_le16(p + 2, 0);
	put_le16(p + 4, 0);
	put_le16(p + 6, 0);
	put_le16(p + 8, 0x21);
	put_le32(p + 10, crc);
	put_le32(p + 14, 0xffffffff);
	put_le32(p + 18, 0xffffffff);
	put_le16(p + 22, name_len);
	put_le16(p + 24, extra_len);
}

static void put_local(uint8_t *p, uint64_t len, uint32_t crc)
{
	memcpy(p, "PK\3\4", 4);
	put_common(p + 4, crc, MANIFEST_LEN, 20);
	memcpy(p + 30, MANIFEST, MANIFEST_LEN);
	p += 30 + MANIFEST_LEN;
	put_le16(p, 1);
	put_le16(p + 2, 16);
	put_le64(p + 4, len);
	put_le64(p + 12, len);
}

static uint8_t *put_central(uint8_t *p, const char *name, uint16_t name_len, uint64_t off, uint64_t len, uint32_t crc)
{
	memset(p, 0, 46);
	memcpy(p, "PK\1\2", 4);
	put_le16(p + 4, 45); /* made by: MS-DOS, so that no Unix mode is meant */
	put_common(p + 6, crc, name_len, 28);
	put_le32(p + 42, 0xffffffff);
	memcpy(p + 46, name, name_len);
	p += 46 + name_len;
	put_le16(p, 1);
	put_le16(p + 2, 24);
	put_le64(p + 4, len);
	put_le64(p + 12, len);
	put_le64(p + 20, off);
	return p + 28;
}

/* central directory and end records; @manifest_off: of its local header */
static void put_end(uint8_t *p, uint64_t payload, uint32_t crc, uint64_t manifest_off, uint64_t manifest_len, uint32_t manifest_crc)
{
	uint64_t central = manifest_off + LOCAL_LEN + manifest_len;

	p = put_central(p, PAYLOAD, PAYLOAD_LEN, 0, payload, crc);
	p = put_central(p, MANIFEST, MANIFEST_LEN, manifest_off, manifest_len, manifest_crc);
	memset(p, 0, 56 + 20 + 22);
	memcpy(p, "PK\6\6", 4);
	put_le64(p + 4, 56 - 12);
	put_le16(p + 12, 45);
	put_le16(p + 14, 45);
	put_le64(p + 24, 2);
	put_le64(p + 32, 2);
	put_le64(p + 40, CENTRAL_LEN);
	put_le64(p + 48, central);
	p += 56;
	memcpy(p, "PK\6\7", 4);
	put_le64(p + 8, central + CENTRAL_LEN);
	put_le32(p + 16, 1);
	p += 20;
	memcpy(p, "PK\5\6", 4);
	put_le16(p + 8, 0xffff);
	put_le16(p + 10, 0xffff);
	put_le32(p + 12, 0xffffffff);
	put_le32(p + 16, 0xffffffff);
}

void tail_build(const struct tail_template *t, uint64_t size, const uint8_t *tags, const uint8_t root[static MAC_LEN], uint32_t crc,
		uint8_t *ret)
{
	struct part key_access = {t->key_access, strlen(t->key_access)}, policy = {t->policy, strlen(t->policy)};
	uint8_t *text = ret + LOCAL_LEN, *end;
	uint32_t text_crc;
	uint64_t len;

	end = native_write(key_access, policy, t->s, size, tags, root, text);
	len = (uint64_t)(end - text);
	text_crc = crc_bytes(0, text, len);
	put_local(ret, len, text_crc);
	put_end(end, payload_len(size, t->s), crc, tail_offset(size, t->s), len, text_crc);
}

int tail_manifest(const uint8_t *p, size_t len, uint64_t size, uint32_t s, uint32_t crc, struct part *ret)
{
	uint8_t local[LOCAL_LEN], end[END_LEN];
	uint32_t text_crc;
	uint64_t text_len;

	if (len < LOCAL_LEN + END_LEN)
		return fail(-EPROTO, "the file ends inside its manifest: it was truncated");
	text_len = len - LOCAL_LEN - END_LEN;
	text_crc = crc_bytes(0, p + LOCAL_LEN, text_len);
	put_local(local, text_len, text_crc);
	if (memcmp(p, local, LOCAL_LEN) != 0)
		return fail(-EPROTO, "the manifest or its zip header is damaged, or the file was truncated or extended");
	put_end(end, payload_len(size, s), crc, tail_offset(size, s), text_len, text_crc);
	if (memcmp(p + LOCAL_LEN + text_len, end, END_LEN) != 0)
		return fail(-EPROTO, "the zip directory at the end of the file is damaged, or the file was truncated or extended");
	*ret = (struct part){p + LOCAL_LEN, text_len};
	return 0;
}

int tail_parse(const uint8_t *p, size_t len, uint64_t size, uint32_t s, uint32_t crc, struct tail_template **ret, uint8_t **ret_tags,
	       uint8_t ret_root[static MAC_LEN])
{
	struct tail_template *t CLEANUP(template_cleanup) = NULL;
	char *key_access CLEANUP_FREE = NULL, *policy CLEANUP_FREE = NULL;
	uint8_t *tags CLEANUP_FREE = NULL;
	struct native_manifest n;
	struct part text;
	int err;

	err = tail_manifest(p, len, size, s, crc, &text);
	if (err)
		return err;
	err = native_scan(text.p, text.len, &n);
	if (err)
		return err == -EPROTO ? fail(err, "the manifest does not have the layout that tdfs writes") : err;
	tags = n.tags;
	if (n.s != s || n.size != size)
		return fail(-EPROTO, "the manifest's sizes do not fit the file");
	if (memchr(n.key_access.p, 0, n.key_access.len))
		return fail(-EPROTO, "the manifest's key access holds a NUL byte");
	key_access = strndup(n.key_access.p, n.key_access.len);
	policy = strndup(n.policy.p, n.policy.len);
	t = key_access && policy ? tail_template_new(s, key_access, policy) : NULL;
	if (!t)
		return -ENOMEM;
	*ret = STEAL(t);
	*ret_tags = STEAL(tags);
	memcpy(ret_root, n.root, MAC_LEN);
	return 0;
}

int root_signature(const struct secret *dek, const uint8_t *tags, uint64_t n, uint8_t ret[static MAC_LEN])
{
	return hmac_sha256(dek->b, SECRET_LEN, &(struct part){tags, n * AEAD_TAG}, 1, ret);
}
