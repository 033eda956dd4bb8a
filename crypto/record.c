/* SPDX-License-Identifier: Apache-2.0 */
#include "record.h"

#include <errno.h>

#include "report.h"

/* The first sector (FORMAT.md section 2) */
#define NAME "0.payload"
#define NAME_LEN 9
#define OFF_CRC 14
#define OFF_NAME 30
#define OFF_ZIP64 39
#define OFF_EXTRA 59 /* header of the record's extra field */
#define OFF_RECORD 63
#define RECORD_LEN 272
#define OFF_PAD 335
#define PAD_LEN 173
#define ID_ZIP64 0x0001
#define ID_RECORD 0x6474
#define ID_PAD 0x6470

/* The record (section 3) */
#define VERSION 1
#define SEAL_HMAC 1
#define KNOWN_INCOMPAT 0u
enum {
	R_VERSION = 0,
	R_STATE = 2,
	R_SEAL_ALG = 3,
	R_INCOMPAT = 4,
	R_ROCOMPAT = 8,
	R_S = 12,
	R_GENERATION = 16,
	R_CONTENT = 24,
	R_VOLUME = 40,
	R_FILE = 56,
	R_SIZE = 72,
	R_TAIL_OFF = 80,
	R_EPOCH = 88,
	R_INVOCATIONS = 96,
	R_SEAL = 104,
	R_BINDING = 168,
	R_MTIME = 184,
	R_CTIME = 196,
	R_MAC = 208,
	R_MADE = 240,
};
_Static_assert(OFF_ZIP64 + 20 == OFF_EXTRA && OFF_RECORD + RECORD_LEN == OFF_PAD && OFF_PAD + 4 + PAD_LEN == SECTOR, "first sector");
_Static_assert(R_MAC + MAC_LEN == R_MADE && R_MADE + 12 + 20 == RECORD_LEN, "record");

static void put_time(uint8_t *p, const struct timespec *t)
{
	put_le64(p, (uint64_t)t->tv_sec);
	put_le32(p + 8, (uint32_t)t->tv_nsec);
}

static struct timespec get_time(const uint8_t *p)
{
	return (struct timespec){.tv_sec = (time_t)get_le64(p), .tv_nsec = get_le32(p + 8)};
}

/* everything but the MAC */
static void record_write(const struct record *r, uint8_t *p)
{
	memset(p, 0, RECORD_LEN);
	put_le16(p + R_VERSION, VERSION);
	p[R_STATE] = (uint8_t)r->state;
	p[R_SEAL_ALG] = SEAL_HMAC;
	put_le32(p + R_INCOMPAT, r->incompat);
	put_le32(p + R_ROCOMPAT, r->rocompat);
	put_le32(p + R_S, r->s);
	put_le64(p + R_GENERATION, r->generation);
	memcpy(p + R_CONTENT, r->content_id, ID_LEN);
	memcpy(p + R_VOLUME, r->volume_id, ID_LEN);
	memcpy(p + R_FILE, r->file_id, ID_LEN);
	put_le64(p + R_SIZE, r->size);
	put_le64(p + R_TAIL_OFF, r->tail_off);
	put_le64(p + R_EPOCH, r->epoch);
	put_le64(p + R_INVOCATIONS, r->invocations);
	memcpy(p + R_SEAL, r->seal, MAC_LEN);
	memcpy(p + R_BINDING, r->dir_binding, ID_LEN);
	put_time(p + R_MTIME, &r->mtime);
	put_time(p + R_CTIME, &r->ctime);
	put_time(p + R_MADE, &r->made);
}

static void record_read(const uint8_t *p, struct record *r)
{
	memset(r, 0, sizeof(*r));
	r->state = (enum record_state)p[R_STATE];
	r->incompat = get_le32(p + R_INCOMPAT);
	r->rocompat = get_le32(p + R_ROCOMPAT);
	r->s = get_le32(p + R_S);
	r->generation = get_le64(p + R_GENERATION);
	memcpy(r->content_id, p + R_CONTENT, ID_LEN);
	memcpy(r->volume_id, p + R_VOLUME, ID_LEN);
	memcpy(r->file_id, p + R_FILE, ID_LEN);
	r->size = get_le64(p + R_SIZE);
	r->tail_off = get_le64(p + R_TAIL_OFF);
	r->epoch = get_le64(p + R_EPOCH);
	r->invocations = get_le64(p + R_INVOCATIONS);
	memcpy(r->seal, p + R_SEAL, MAC_LEN);
	memcpy(r->dir_binding, p + R_BINDING, ID_LEN);
	r->mtime = get_time(p + R_MTIME);
	r->ctime = get_time(p + R_CTIME);
	r->made = get_time(p + R_MADE);
}

/* the whole sector without the record's MAC */
static void sector_write(const struct record *r, uint32_t crc, uint8_t *p)
{
	bool is_new = r->state == RECORD_NEW;
	uint64_t len = is_new ? 0 : payload_len(r->size, r->s);

	memset(p, 0, SECTOR);
	memcpy(p, "PK\3\4", 4);
	put_le16(p + 4, 45);
	put_le16(p + 12, 0x21);
	put_le32(p + OFF_CRC, is_new ? 0 : crc);
	put_le32(p + 18, 0xffffffff);
	put_le32(p + 22, 0xffffffff);
	put_le16(p + 26, NAME_LEN);
	put_le16(p + 28, SECTOR - OFF_ZIP64);
	memcpy(p + OFF_NAME, NAME, NAME_LEN);
	put_le16(p + OFF_ZIP64, ID_ZIP64);
	put_le16(p + OFF_ZIP64 + 2, 16);
	put_le64(p + OFF_ZIP64 + 4, len);
	put_le64(p + OFF_ZIP64 + 12, len);
	put_le16(p + OFF_EXTRA, ID_RECORD);
	put_le16(p + OFF_EXTRA + 2, RECORD_LEN);
	record_write(r, p + OFF_RECORD);
	put_le16(p + OFF_PAD, ID_PAD);
	put_le16(p + OFF_PAD + 2, PAD_LEN);
}

/* @rec: with the MAC field zero */
static int record_mac(const struct secret *k_rec, const uint8_t *rec, uint8_t *ret)
{
	return hmac_sha256(k_rec->b, SECRET_LEN, &(struct part){rec, RECORD_LEN}, 1, ret);
}

int record_sector(const struct record *r, uint32_t crc, const struct secret *k_rec, uint8_t ret[static SECTOR])
{
	uint8_t p[SECTOR];
	int err;

	sector_write(r, crc, p);
	err = record_mac(k_rec, p + OFF_RECORD, p + OFF_RECORD + R_MAC);
	if (err)
		return err;
	memcpy(ret, p, SECTOR);
	return 0;
}

static bool all_zero(const uint8_t *p, size_t len)
{
	return !p[0] && !memcmp(p, p + 1, len - 1);
}

/*
 * Is this a sector of ours?  Two of three signs are enough, so that damage to one of them shows as damage and not as a foreign file;
 * a file of somebody else has two of them by chance once in 2^32.
 */
static bool sector_is_native(const uint8_t *p)
{
	bool zip = !memcmp(p + OFF_NAME, NAME, NAME_LEN) && !memcmp(p, "PK\3\4", 4);
	bool rec = get_le16(p + OFF_EXTRA) == ID_RECORD && get_le16(p + OFF_EXTRA + 2) == RECORD_LEN;
	bool pad = get_le16(p + OFF_PAD) == ID_PAD && get_le16(p + OFF_PAD + 2) == PAD_LEN;

	return zip + rec + pad >= 2;
}

/* can these values be put together into a sector at all? */
static bool record_computable(const struct record *r)
{
	return r->s >= SEG_MIN && r->s <= SEG_MAX && r->size <= PLAIN_MAX;
}

static int record_check(const struct record *r)
{
	bool is_new = r->state == RECORD_NEW;

	if (r->state != RECORD_NEW && r->state != RECORD_SEALED && r->state != RECORD_LIVE)
		return fail(-EPROTO, "the native record has the unknown state %u", (unsigned)r->state);
	if (is_new != !r->generation || is_new != all_zero(r->content_id, ID_LEN))
		return fail(-EPROTO, "the native record's generation and content id do not fit its state");
	if (r->tail_off != tail_offset(r->size, r->s) && !(is_new && !r->tail_off))
		return fail(-EPROTO, "the native record's tail offset %llu does not fit its size %llu", (unsigned long long)r->tail_off,
			    (unsigned long long)r->size);
	if (r->mtime.tv_nsec > 999999999 || r->ctime.tv_nsec > 999999999 || r->made.tv_nsec > 999999999)
		return fail(-EPROTO, "the native record has an impossible time");
	if (r->incompat & ~KNOWN_INCOMPAT)
		return fail(-ENOTSUP, "the file needs features (0x%x) of a later tdfs: use a newer version", (unsigned)r->incompat);
	return 0;
}

int record_parse(const uint8_t sector[static SECTOR], const struct secret *k_rec, struct record *ret, uint32_t *ret_crc)
{
	const uint8_t *rec = sector + OFF_RECORD;
	uint32_t crc = get_le32(sector + OFF_CRC);
	uint8_t want[SECTOR];
	struct record r;
	int err;

	if (all_zero(sector, SECTOR)) {
		memset(ret, 0, sizeof(*ret));
		if (ret_crc)
			*ret_crc = 0;
		return 0;
	}
	if (!sector_is_native(sector))
		return -ENOENT;
	if (get_le16(rec + R_VERSION) != VERSION)
		return fail(-ENOTSUP,
			    "the native record has version %u, this tdfs knows only %u: use a newer version (or the sector is damaged)",
			    get_le16(rec + R_VERSION), VERSION);
	record_read(rec, &r);
	if (!record_computable(&r))
		return fail(-EPROTO, "the native record has an impossible segment size (%u) or size (%llu)", (unsigned)r.s,
			    (unsigned long long)r.size);

	/* Not only the MAC: the sector must be the one that we would write for these values, bit for bit. */
	sector_write(&r, crc, want);
	if (k_rec) {
		err = record_mac(k_rec, want + OFF_RECORD, want + OFF_RECORD + R_MAC);
		if (err)
			return err;
	} else {
		memcpy(want + OFF_RECORD + R_MAC, rec + R_MAC, MAC_LEN);
	}
	if (!equal_ct(want + OFF_RECORD + R_MAC, rec + R_MAC, MAC_LEN))
		return fail(-EBADMSG, "the native record's MAC is wrong: the first sector was damaged or changed");
	if (!equal_ct(want, sector, SECTOR))
		return fail(-EBADMSG, "the zip header around the native record is damaged");
	err = record_check(&r);
	if (err)
		return err;
	*ret = r;
	if (ret_crc)
		*ret_crc = crc;
	return 0;
}

int record_own(const uint8_t sector[static SECTOR], const struct secret *k_rec, const uint8_t volume_id[static ID_LEN], struct record *ret,
	       uint32_t *ret_crc)
{
	uint8_t fixed[SECTOR];
	struct record r;

	if (all_zero(sector, SECTOR) || !memcmp(sector + OFF_RECORD + R_VOLUME, volume_id, ID_LEN))
		return record_parse(sector, k_rec, ret, ret_crc);
	if (!sector_is_native(sector))
		return -ENOENT;
	/* Another volume's, unless our MAC fits once our id is put back: then only the id was damaged. */
	memcpy(fixed, sector, SECTOR);
	memcpy(fixed + OFF_RECORD + R_VOLUME, volume_id, ID_LEN);
	if (!record_parse(fixed, k_rec, &r, NULL))
		return fail(-EBADMSG, "the volume id in the native record is damaged");
	fail_clear();
	return -ENOENT;
}

int record_seal(const struct secret *k_seal, const struct record *r, struct part key_access, struct part policy, const struct secret *dek,
		uint8_t ret[static MAC_LEN])
{
	uint8_t s[4], ka_hash[32], policy_hash[32], commit[MAC_LEN];
	int err;

	put_le32(s, r->s);
	err = sha256(&key_access, 1, ka_hash);
	if (!err)
		err = sha256(&policy, 1, policy_hash);
	if (!err)
		err = hmac_sha256(dek->b, SECRET_LEN, &(struct part){"tdfs commit", 11}, 1, commit);
	if (err)
		return err;
	const struct part parts[] = {
	    {r->volume_id, ID_LEN},   {r->file_id, ID_LEN}, {s, sizeof(s)}, {ka_hash, sizeof(ka_hash)}, {policy_hash, sizeof(policy_hash)},
	    {commit, sizeof(commit)},
	};
	return hmac_sha256(k_seal->b, SECRET_LEN, parts, ARRAY_SIZE(parts), ret);
}

/* The size hint: file id 16 | size 8 | generation 8 | ctime 12 | made 4 | MAC 16 */
enum { H_SIZE = 16, H_GENERATION = 24, H_CTIME = 32, H_MADE = 44, H_MAC = 48 };

static int hint_mac(const uint8_t *p, uint64_t st_size, const struct secret *k_hint, uint8_t ret[static MAC_LEN])
{
	uint8_t len[8];
	const struct part parts[] = {{p, H_MAC}, {len, sizeof(len)}};

	put_le64(len, st_size);
	return hmac_sha256(k_hint->b, SECRET_LEN, parts, ARRAY_SIZE(parts), ret);
}

int hint_make(const struct record *r, uint64_t st_size, const struct secret *k_hint, uint8_t ret[static HINT_LEN])
{
	uint8_t p[H_MAC], mac[MAC_LEN];
	struct timespec now;
	int err;

	clock_gettime(CLOCK_REALTIME, &now);
	memcpy(p, r->file_id, ID_LEN);
	put_le64(p + H_SIZE, r->size);
	put_le64(p + H_GENERATION, r->generation);
	put_time(p + H_CTIME, &r->ctime);
	put_le32(p + H_MADE, (uint32_t)now.tv_sec);
	err = hint_mac(p, st_size, k_hint, mac);
	if (err)
		return err;
	memcpy(ret, p, H_MAC);
	memcpy(ret + H_MAC, mac, HINT_LEN - H_MAC);
	return 0;
}

int hint_parse(const void *p, size_t len, uint64_t st_size, const struct secret *k_hint, struct hint *ret)
{
	const uint8_t *b = p;
	uint8_t mac[MAC_LEN];

	if (len != HINT_LEN || hint_mac(b, st_size, k_hint, mac) || !equal_ct(mac, b + H_MAC, HINT_LEN - H_MAC))
		return -ENOENT;
	memcpy(ret->file_id, b, ID_LEN);
	ret->size = get_le64(b + H_SIZE);
	ret->generation = get_le64(b + H_GENERATION);
	ret->ctime = get_time(b + H_CTIME);
	ret->made = get_le32(b + H_MADE);
	return 0;
}
