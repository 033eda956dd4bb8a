/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The volume log as recovery reads it.  The input is a list of groups: half, place (in blocks), epoch, LSN, durable LSN, retired LSN (a
 * byte each), flags, length of the records (2 bytes), records.  Headers, CRC and MAC are made here, so that they are no wall for the
 * fuzzer; flags 1, 2 and 4: spoil a byte of the header, of the records, end the half behind the group.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "fuzz.h"
#include "recover_int.h"
#include "report.h"

#define ROOM ((size_t)256 << 10) /* of each half that may hold something */
#define HEAD 9
#define FD 100

static const struct secret key = {{1}};
static const uint8_t volume[ID_LEN] = "volume id 16 by";

struct halves {
	uint8_t b[2][ROOM];
	uint64_t end[2]; /* reads behind it fail */
};

static int h_open(void *ctx, int dirfd, const char *name, int flags, mode_t mode)
{
	return FD + (name[strlen(name) - 1] == '1');
}

static void h_close(void *ctx, int fd)
{
}

static ssize_t h_pread(void *ctx, int fd, void *buf, size_t len, uint64_t off)
{
	struct halves *h = ctx;
	size_t n = off < ROOM ? MIN(len, ROOM - off) : 0;

	if (off + len > h->end[fd - FD])
		return -EIO;
	if (n)
		memcpy(buf, h->b[fd - FD] + off, n);
	memset((uint8_t *)buf + n, 0, len - n);
	return (ssize_t)len;
}

static int h_stat(void *ctx, int fd, struct stat *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->st_mode = S_IFREG | 0600;
	ret->st_size = (off_t)REDO_HALF_MIN;
	return 0;
}

/* One group of the input put into its half: how much of @p it took, 0 at the end */
static size_t put_group(struct halves *h, const uint8_t *p, size_t len)
{
	struct redo_group g = {0};
	unsigned half, flags;
	uint8_t *at;
	size_t n, off;

	if (len < HEAD)
		return 0;
	half = p[0] & 1;
	off = p[1] % (ROOM / REDO_BLOCK) * REDO_BLOCK;
	flags = p[6];
	n = MIN(get_le16(p + 7), MIN(len - HEAD, ROOM - off - REDO_HEADER));
	at = h->b[half] + off;
	memcpy(at + REDO_HEADER, p + HEAD, n);
	for (size_t k = 0, rec; k + REDO_RECORD <= n; k += rec, g.n_recs++) {
		rec = get_le32(at + REDO_HEADER + k + 4);
		if (rec < REDO_RECORD || rec > n - k)
			break;
	}
	g.epoch = p[2];
	g.lsn = p[3];
	g.durable_lsn = p[4];
	g.retired_lsn = p[5];
	g.len = (uint32_t)(REDO_HEADER + n);
	(void)!redo_group_seal(at, &g, volume, &key); /* fails where the records do not fill it: what was there stays */
	if (flags & 1)
		at[n % REDO_HEADER] ^= 1;
	if (flags & 2 && n)
		at[REDO_HEADER + n / 2] ^= 1;
	if (flags & 4)
		h->end[half] = MAX(off + g.len, REDO_BLOCK);
	return HEAD + n;
}

/* What a parsed record says lies inside of it. */
static void check_rec(const struct redo_rec *r)
{
	volatile uint8_t sum = 0;

	switch (r->type) {
	case REDO_INTENT:
		CHECK(strlen(r->intent.path) < REDO_GROUP_MAX);
		break;
	case REDO_PLACE:
		for (size_t i = 0; i < 20 * (size_t)r->place.count; i++)
			sum = sum ^ r->place.raw[i];
		break;
	case REDO_COMMIT:
		CHECK(r->commit.size <= PLAIN_MAX && r->commit.mtime.tv_nsec < 1000000000);
		sum = sum ^ r->commit.root[31];
		break;
	case REDO_SEAL:
		sum = sum ^ r->seal.content_id[15] ^ r->seal.sector[SECTOR - 1];
		for (uint64_t i = 0; r->seal.tail && i < r->seal.tail_len; i++)
			sum = sum ^ r->seal.tail[i];
		if (r->seal.side)
			sum = sum ^ r->seal.side[31];
		CHECK(!r->seal.tail != !r->seal.side);
		break;
	default:
		break;
	}
}

static void one_record(const uint8_t *p, size_t size)
{
	uint8_t *again;
	struct redo_rec r;
	size_t len;

	if (redo_rec_parse(p, size, &r, &len))
		return;
	CHECK(len <= size && len >= REDO_RECORD);
	check_rec(&r);
	if (r.type == REDO_IMAGE)
		CHECK(r.image.bytes >= p && r.image.bytes + r.image.len <= p + len);
	if (r.type == REDO_PLACE || redo_rec_len(&r) > len)
		return;
	again = calloc(1, len); /* what is written of it says the same */
	CHECK(again);
	redo_rec_write(&r, again);
	CHECK(!redo_rec_parse(again, redo_rec_len(&r), &r, &len));
	free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct halves h;
	struct io io = {.ctx = &h, .open = h_open, .close = h_close, .pread = h_pread, .stat = h_stat};
	struct recover_keys keys = {volume, &key, &key, &key};
	uint64_t last = 0;
	struct log l;
	size_t n;

	one_record(data, size);
	memset(&h, 0, sizeof(h));
	h.end[0] = h.end[1] = REDO_HALF_MIN;
	for (; (n = put_group(&h, data, size)); data += n, size -= n)
		;
	if (!log_open(&io, 1, &keys, false, &l)) {
		CHECK(l.end % REDO_BLOCK == 0 && l.end <= REDO_HALF_MIN);
		for (size_t i = 0; i < l.n_recs; i++) {
			const struct log_rec *r = &l.recs[i];

			CHECK(r->lsn >= last && r->lsn > l.retired && r->lsn <= l.last_lsn);
			last = r->lsn;
			if (r->rec.type == REDO_IMAGE) {
				uint8_t *buf = malloc(r->rec.image.len);

				CHECK(buf && !log_image(&l, r, buf));
				free(buf);
			} else {
				check_rec(&r->rec);
			}
		}
	}
	log_close(&l);
	return 0;
}
