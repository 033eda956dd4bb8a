/* SPDX-License-Identifier: Apache-2.0 */
/* The bytes of the volume log: records and groups (FORMAT.md section 5). */
#include <errno.h>

#include "aead.h"
#include "crc.h"
#include "redo.h"
#include "report.h"

#define MAGIC "TDFSLOG1"
#define VERSION 1
#define VERSION_WHOLE 2 /* of a group with a SEAL whose whole content stands beside the log: earlier programs must not skip it */
#define MAC_SHORT 16
#define FLAG_SIDE 1
#define FLAG_WHOLE 2

/* offsets in the group header */
enum {
	G_MAGIC = 0,
	G_VERSION = 8,
	G_LEN = 12,
	G_VOLUME = 16,
	G_EPOCH = 32,
	G_LSN = 40,
	G_DURABLE = 48,
	G_RETIRED = 56,
	G_RECS = 64,
	G_FLAGS = 68,
	G_CRC = 72,
	G_MAC = 80
};
/* lengths of the fixed part of each body */
enum { INTENT_BODY = 24, IMAGE_BODY = 16, PLACE_BODY = 16, PLACE_EACH = 20, COMMIT_BODY = 88, SEAL_BODY = 64 + SECTOR };

static size_t align8(size_t n)
{
	return (n + 7) & ~(size_t)7;
}

static size_t body_len(const struct redo_rec *rec)
{
	switch (rec->type) {
	case REDO_INTENT:
		return INTENT_BODY + strlen(rec->intent.path) + 1; /* at least one zero behind the path: readers use it in place */
	case REDO_IMAGE:
		return IMAGE_BODY + rec->image.len;
	case REDO_PLACE:
		return PLACE_BODY + (size_t)PLACE_EACH * rec->place.count;
	case REDO_COMMIT:
		return COMMIT_BODY;
	case REDO_SEAL:
		return SEAL_BODY + (rec->seal.tail ? rec->seal.tail_len : 32);
	case REDO_VOID:
		return 0;
	}
	return 0;
}

size_t redo_rec_len(const struct redo_rec *rec)
{
	return align8(REDO_RECORD + body_len(rec));
}

static void put_time(uint8_t *p, const struct timespec *t)
{
	put_le64(p, (uint64_t)t->tv_sec);
	put_le32(p + 8, (uint32_t)t->tv_nsec);
}

static int get_time(const uint8_t *p, struct timespec *ret)
{
	uint32_t ns = get_le32(p + 8);

	if (ns >= 1000000000)
		return -EPROTO;
	*ret = (struct timespec){(time_t)get_le64(p), (long)ns};
	return 0;
}

static void write_place(const struct redo_rec *rec, uint8_t *b)
{
	put_le64(b, rec->place.first);
	put_le32(b + 8, rec->place.count);
	for (uint32_t i = 0; i < rec->place.count; i++) {
		put_le32(b + PLACE_BODY + (size_t)PLACE_EACH * i, rec->place.each[i].crc);
		memcpy(b + PLACE_BODY + (size_t)PLACE_EACH * i + 4, rec->place.each[i].tag, AEAD_TAG);
	}
}

static void write_commit(const struct redo_rec *rec, uint8_t *b)
{
	put_le64(b, rec->commit.number);
	put_le64(b + 8, rec->commit.size);
	put_time(b + 16, &rec->commit.mtime);
	put_time(b + 28, &rec->commit.ctime);
	put_le32(b + 40, rec->commit.crc);
	put_le64(b + 48, rec->commit.invocations);
	memcpy(b + 56, rec->commit.root, MAC_LEN);
}

static void write_seal(const struct redo_rec *rec, uint8_t *b)
{
	put_le64(b, rec->seal.generation);
	memcpy(b + 8, rec->seal.content_id, ID_LEN);
	put_le64(b + 24, rec->seal.final_len);
	put_time(b + 32, &rec->seal.mtime);
	put_le64(b + 48, rec->seal.tail_off);
	put_le64(b + 56, rec->seal.tail_len);
	memcpy(b + 64, rec->seal.sector, SECTOR);
	if (rec->seal.tail)
		memcpy(b + SEAL_BODY, rec->seal.tail, rec->seal.tail_len);
	else
		memcpy(b + SEAL_BODY, rec->seal.side, 32);
}

void redo_rec_write(const struct redo_rec *rec, uint8_t *p)
{
	size_t body = body_len(rec), len = align8(REDO_RECORD + body);
	uint8_t *b = p + REDO_RECORD;
	/* images are large: zero only what is not copied over */
	size_t fixed = rec->type == REDO_IMAGE ? REDO_RECORD + IMAGE_BODY : len;

	memset(p, 0, fixed);
	memset(p + REDO_RECORD + body, 0, len - REDO_RECORD - body);
	put_le16(p, (uint16_t)rec->type);
	put_le16(p + 2, rec->type != REDO_SEAL || rec->seal.tail ? 0 : rec->seal.whole ? FLAG_SIDE | FLAG_WHOLE : FLAG_SIDE);
	put_le32(p + 4, (uint32_t)len);
	memcpy(p + 8, rec->base.file_id, ID_LEN);
	put_le64(p + 24, rec->base.generation);
	memcpy(p + 32, rec->base.content_id, ID_LEN);
	switch (rec->type) {
	case REDO_INTENT:
		put_le64(b, rec->intent.sealed_len);
		put_le64(b + 8, rec->intent.ino);
		put_le32(b + 16, rec->intent.root_ino);
		put_le32(b + 20, (uint32_t)strlen(rec->intent.path));
		memcpy(b + INTENT_BODY, rec->intent.path, strlen(rec->intent.path));
		break;
	case REDO_IMAGE:
		put_le64(b, rec->image.seg);
		put_le32(b + 8, rec->image.len);
		memcpy(b + IMAGE_BODY, rec->image.bytes, rec->image.len);
		break;
	case REDO_PLACE:
		write_place(rec, b);
		break;
	case REDO_COMMIT:
		write_commit(rec, b);
		break;
	case REDO_SEAL:
		write_seal(rec, b);
		break;
	case REDO_VOID:
		break;
	}
}

static int parse_seal(const uint8_t *b, size_t len, uint16_t flags, struct redo_rec *ret)
{
	bool side = flags & FLAG_SIDE;

	if ((flags & FLAG_WHOLE && !side) || len < SEAL_BODY + (side ? 32u : 0u) || get_time(b + 32, &ret->seal.mtime))
		return -EPROTO;
	ret->seal.generation = get_le64(b);
	ret->seal.content_id = b + 8;
	ret->seal.final_len = get_le64(b + 24);
	ret->seal.tail_off = get_le64(b + 48);
	ret->seal.tail_len = get_le64(b + 56);
	ret->seal.sector = b + 64;
	ret->seal.whole = flags & FLAG_WHOLE;
	ret->seal.side = side ? b + SEAL_BODY : NULL;
	ret->seal.tail = side ? NULL : b + SEAL_BODY;
	if (ret->seal.tail_off > PLAIN_MAX || ret->seal.tail_len > PLAIN_MAX ||
	    ret->seal.tail_off + ret->seal.tail_len != ret->seal.final_len)
		return -EPROTO;
	return side || ret->seal.tail_len <= len - SEAL_BODY ? 0 : -EPROTO;
}

static int parse_commit(const uint8_t *b, size_t len, struct redo_rec *ret)
{
	if (len < COMMIT_BODY || get_time(b + 16, &ret->commit.mtime) || get_time(b + 28, &ret->commit.ctime))
		return -EPROTO;
	ret->commit.number = get_le64(b);
	ret->commit.size = get_le64(b + 8);
	ret->commit.crc = get_le32(b + 40);
	ret->commit.invocations = get_le64(b + 48);
	ret->commit.root = b + 56;
	return ret->commit.size <= PLAIN_MAX ? 0 : -EPROTO;
}

static int parse_intent(const uint8_t *b, size_t len, struct redo_rec *ret)
{
	uint32_t path_len;

	if (len <= INTENT_BODY)
		return -EPROTO;
	ret->intent.sealed_len = get_le64(b);
	ret->intent.ino = get_le64(b + 8);
	ret->intent.root_ino = get_le32(b + 16);
	ret->intent.path = (const char *)b + INTENT_BODY;
	path_len = get_le32(b + 20);
	if (path_len >= len - INTENT_BODY || strnlen(ret->intent.path, len - INTENT_BODY) != path_len)
		return -EPROTO;
	return 0;
}

static int parse_body(const uint8_t *b, size_t len, uint16_t flags, struct redo_rec *ret)
{
	if (flags & ~(ret->type == REDO_SEAL ? FLAG_SIDE | FLAG_WHOLE : 0))
		return -EPROTO;
	switch (ret->type) {
	case REDO_INTENT:
		return parse_intent(b, len, ret);
	case REDO_IMAGE:
		if (len < IMAGE_BODY)
			return -EPROTO;
		ret->image.seg = get_le64(b);
		ret->image.len = get_le32(b + 8);
		ret->image.bytes = b + IMAGE_BODY;
		if (ret->image.len < AEAD_OVERHEAD || ret->image.len > SEG_MAX + AEAD_OVERHEAD || ret->image.len > len - IMAGE_BODY)
			return -EPROTO;
		return 0;
	case REDO_PLACE:
		if (len < PLACE_BODY)
			return -EPROTO;
		ret->place.first = get_le64(b);
		ret->place.count = get_le32(b + 8);
		ret->place.each = NULL;
		ret->place.raw = b + PLACE_BODY;
		if (ret->place.count > (len - PLACE_BODY) / PLACE_EACH || ret->place.first > PLAIN_MAX)
			return -EPROTO;
		return 0;
	case REDO_COMMIT:
		return parse_commit(b, len, ret);
	case REDO_SEAL:
		return parse_seal(b, len, flags, ret);
	case REDO_VOID:
		return 0;
	}
	return -EPROTO;
}

int redo_rec_parse(const uint8_t *p, size_t len, struct redo_rec *ret, size_t *ret_len)
{
	struct redo_rec rec;
	uint32_t rec_len;

	if (len < REDO_RECORD)
		return -EPROTO;
	rec_len = get_le32(p + 4);
	if (rec_len < REDO_RECORD || rec_len > len || rec_len % 8)
		return -EPROTO;
	memset(&rec, 0, sizeof(rec));
	rec.type = get_le16(p);
	memcpy(rec.base.file_id, p + 8, ID_LEN);
	rec.base.generation = get_le64(p + 24);
	memcpy(rec.base.content_id, p + 32, ID_LEN);
	if (parse_body(p + REDO_RECORD, rec_len - REDO_RECORD, get_le16(p + 2), &rec))
		return -EPROTO;
	*ret = rec;
	*ret_len = rec_len;
	return 0;
}

/* The version that a group with these records has; the records were checked or are ours. */
static uint32_t group_version(const uint8_t *p, size_t len)
{
	struct redo_rec rec;
	size_t rec_len;

	for (size_t off = REDO_HEADER; off < len; off += rec_len) {
		if (redo_rec_parse(p + off, len - off, &rec, &rec_len))
			break;
		if (rec.type == REDO_SEAL && rec.seal.whole)
			return VERSION_WHOLE;
	}
	return VERSION;
}

/* The MAC covers header and records but for the ciphertext inside images.  Also checks that the records fill the group exactly. */
static int group_mac(const uint8_t *header, const uint8_t *p, const struct secret *k_log, uint8_t ret[static MAC_LEN])
{
	uint32_t len = get_le32(header + G_LEN), n = get_le32(header + G_RECS);
	CLEANUP_FREE struct part *part = NULL;
	size_t off = REDO_HEADER, from = REDO_HEADER, k = 0, rec_len;
	struct redo_rec rec;

	if (n > (len - REDO_HEADER) / REDO_RECORD)
		return -EBADMSG;
	part = malloc((2 + 2 * (size_t)n) * sizeof(*part));
	if (!part)
		return -ENOMEM;
	part[k++] = (struct part){header, REDO_HEADER};
	for (uint32_t i = 0; i < n; i++, off += rec_len) {
		if (redo_rec_parse(p + off, len - off, &rec, &rec_len))
			return -EBADMSG;
		if (rec.type != REDO_IMAGE)
			continue;
		const uint8_t *end = rec.image.bytes + rec.image.len;

		part[k++] = (struct part){p + from, (size_t)(rec.image.bytes + AEAD_IV - (p + from))};
		part[k++] = (struct part){end - AEAD_TAG, AEAD_TAG};
		from = off + rec_len;
	}
	if (off != len)
		return -EBADMSG;
	part[k++] = (struct part){p + from, len - from};
	return hmac_sha256(k_log->b, SECRET_LEN, part, k, ret);
}

int redo_group_seal(uint8_t *p, const struct redo_group *g, const uint8_t volume_id[static ID_LEN], const struct secret *k_log)
{
	uint8_t mac[MAC_LEN];
	int err;

	memset(p, 0, REDO_HEADER);
	memcpy(p + G_MAGIC, MAGIC, 8);
	put_le32(p + G_VERSION, group_version(p, g->len));
	put_le32(p + G_LEN, g->len);
	memcpy(p + G_VOLUME, volume_id, ID_LEN);
	put_le64(p + G_EPOCH, g->epoch);
	put_le64(p + G_LSN, g->lsn);
	put_le64(p + G_DURABLE, g->durable_lsn);
	put_le64(p + G_RETIRED, g->retired_lsn);
	put_le32(p + G_RECS, g->n_recs);
	err = group_mac(p, p, k_log, mac);
	if (err)
		return err == -EBADMSG ? -EINVAL : err;
	put_le32(p + G_CRC, crc_bytes(0, p, g->len));
	memcpy(p + G_MAC, mac, MAC_SHORT);
	return 0;
}

uint32_t redo_group_len(const uint8_t *p, uint64_t max)
{
	uint32_t len = get_le32(p + G_LEN);

	if (memcmp(p + G_MAGIC, MAGIC, 8) || len < REDO_HEADER || len > max || len % 8)
		return 0;
	return len;
}

uint64_t redo_group_lsn(const uint8_t *p)
{
	return get_le64(p + G_LSN);
}

int redo_group_parse(const uint8_t *p, size_t len, const uint8_t volume_id[static ID_LEN], const struct secret *k_log,
		     struct redo_group *ret)
{
	uint8_t header[REDO_HEADER], mac[MAC_LEN];
	struct redo_group g = {0};
	int err;

	if (len < REDO_HEADER || memcmp(p + G_MAGIC, MAGIC, 8))
		return -ENOENT;
	if (get_le32(p + G_VERSION) != VERSION && get_le32(p + G_VERSION) != VERSION_WHOLE)
		return fail(-ENOTSUP, "the volume log has version %u, this program knows %u and %u", get_le32(p + G_VERSION), VERSION,
			    VERSION_WHOLE);
	g.len = redo_group_len(p, len);
	if (!g.len)
		return -EBADMSG;
	memcpy(header, p, REDO_HEADER);
	memset(header + G_CRC, 0, 4);
	memset(header + G_MAC, 0, MAC_SHORT);
	if (crc_bytes(crc_bytes(0, header, REDO_HEADER), p + REDO_HEADER, g.len - REDO_HEADER) != get_le32(p + G_CRC))
		return -EBADMSG;
	if (get_le32(p + G_FLAGS))
		return fail(-ENOTSUP, "the volume log uses a later version's flags");
	if (memcmp(p + G_VOLUME, volume_id, ID_LEN))
		return fail(-EXDEV, "the log belongs to another volume");
	err = group_mac(header, p, k_log, mac);
	if (err)
		return err;
	if (!equal_ct(mac, p + G_MAC, MAC_SHORT))
		return fail(-EBADMSG, "a group of the log was not written with this volume's key");
	if (group_version(p, g.len) != get_le32(p + G_VERSION))
		return fail(-EBADMSG, "a group of the log has another version than its records");
	g.epoch = get_le64(p + G_EPOCH);
	g.lsn = get_le64(p + G_LSN);
	g.durable_lsn = get_le64(p + G_DURABLE);
	g.retired_lsn = get_le64(p + G_RETIRED);
	g.n_recs = get_le32(p + G_RECS);
	*ret = g;
	return 0;
}
