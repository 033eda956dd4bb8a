/* SPDX-License-Identifier: Apache-2.0 */
#include "writer.h"

#include <errno.h>

#include "crc.h"
#include "report.h"
#include "tail.h"

#define LEASE ((uint64_t)1 << 20)          /* FORMAT.md section 3: bound on invocations */
#define MANIFEST_WARN ((uint64_t)10 << 20) /* what other clients read */
#define SEGMENTS_MAX ((uint64_t)1 << 31)
#define EXTRA_ZIP64 0x0001
#define EXTRA_PADDING 0x6470

struct writer {
	const struct io *io;
	int fd;
	struct writer_params par;
	struct secret *dek;
	struct tail_template *tmpl;
	uint8_t *plain, *stored;
	size_t fill; /* plain bytes waiting */
	uint64_t size, n;
	uint8_t *tags;
	uint64_t tags_room;
	uint32_t crc;
};

int writer_start(const struct io *io, int fd, const struct writer_params *par, struct writer **ret)
{
	CLEANUP_FREE char *key_access = NULL;
	struct writer *w = calloc(1, sizeof(*w));
	int err;

	if (!w)
		return -ENOMEM;
	w->io = io;
	w->fd = fd;
	w->par = *par;
	w->dek = secret_random();
	w->plain = malloc(par->s);
	w->stored = malloc((size_t)par->s + AEAD_OVERHEAD);
	err = w->dek && w->plain && w->stored ? kas_wrap(par->kas, w->dek, par->policy, &key_access) : -ENOMEM;
	if (!err) {
		w->tmpl = tail_template_new(par->s, key_access, par->policy);
		err = w->tmpl ? 0 : -ENOMEM;
	}
	if (err) {
		writer_free(w);
		return err;
	}
	*ret = w;
	return 0;
}

void writer_free(struct writer *w)
{
	if (!w)
		return;
	secret_free(w->dek);
	tail_template_free(w->tmpl);
	if (w->plain)
		wipe(w->plain, w->par.s);
	free(w->plain);
	free(w->stored);
	free(w->tags);
	free(w);
}

static int tags_grow(struct writer *w)
{
	uint64_t room = w->tags_room ? 2 * w->tags_room : 64;
	uint8_t *more;

	if (w->n < w->tags_room)
		return 0;
	if (w->n >= SEGMENTS_MAX)
		return fail(-EFBIG, "more than 2^31 segments: choose a larger --segment-size");
	more = realloc(w->tags, room * AEAD_TAG);
	if (!more)
		return -ENOMEM;
	w->tags = more;
	w->tags_room = room;
	return 0;
}

static int segment_out(struct writer *w)
{
	size_t len = w->fill + AEAD_OVERHEAD;
	int err = tags_grow(w);

	if (!err)
		err = aead_seal(w->dek, w->plain, w->fill, w->stored);
	if (!err)
		err = io_pwrite(w->io, w->fd, w->stored, len, seg_off(w->par.s, w->n));
	if (err)
		return err;
	memcpy(w->tags + w->n * AEAD_TAG, w->stored + len - AEAD_TAG, AEAD_TAG);
	w->crc = crc_bytes(w->crc, w->stored, len);
	w->size += w->fill;
	w->fill = 0;
	w->n++;
	return 0;
}

int writer_put(struct writer *w, const void *p, size_t len)
{
	const uint8_t *from = p;

	while (len) {
		size_t take = MIN(len, w->par.s - w->fill);

		memcpy(w->plain + w->fill, from, take);
		w->fill += take;
		from += take;
		len -= take;
		if (w->fill == w->par.s) {
			int err = segment_out(w);

			if (err)
				return err;
		}
	}
	return 0;
}

/* The first sector of a TDF without a record: the same local header, padded to the same length. */
static void sector_plain(const struct writer *w, uint8_t ret[static SECTOR])
{
	uint64_t payload = payload_len(w->size, w->par.s);

	memset(ret, 0, SECTOR);
	memcpy(ret, "PK\3\4", 4);
	put_le16(ret + 4, 45);
	put_le16(ret + 12, 0x21);
	put_le32(ret + 14, w->crc);
	put_le32(ret + 18, UINT32_MAX);
	put_le32(ret + 22, UINT32_MAX);
	put_le16(ret + 26, 9);
	put_le16(ret + 28, SECTOR - 39);
	memcpy(ret + 30, "0.payload", 9);
	put_le16(ret + 39, EXTRA_ZIP64);
	put_le16(ret + 41, 16);
	put_le64(ret + 43, payload);
	put_le64(ret + 51, payload);
	put_le16(ret + 59, EXTRA_PADDING);
	put_le16(ret + 61, SECTOR - 63);
}

static int record_fill(struct writer *w, const uint8_t root[static MAC_LEN], struct record *ret)
{
	const struct volume *v = w->par.native;
	struct record r = {.state = RECORD_SEALED, .s = w->par.s, .generation = 1, .size = w->size, .epoch = 1, .mtime = w->par.mtime};
	struct part key_access = {w->tmpl->key_access, strlen(w->tmpl->key_access)};
	struct part policy = {w->tmpl->policy, strlen(w->tmpl->policy)};
	int err = random_bytes(r.file_id, ID_LEN);

	if (err)
		return err;
	memcpy(r.content_id, root, ID_LEN);
	memcpy(r.volume_id, v->id, ID_LEN);
	r.tail_off = tail_offset(w->size, w->par.s);
	r.invocations = (w->n / LEASE + 1) * LEASE;
	clock_gettime(CLOCK_REALTIME, &r.made);
	r.ctime = r.made;
	err = record_seal(v->k_seal, &r, key_access, policy, w->dek, r.seal);
	if (!err)
		*ret = r;
	return err;
}

static int sector_out(struct writer *w, const uint8_t root[static MAC_LEN], uint64_t file_len)
{
	uint8_t sector[SECTOR], hint[HINT_LEN];
	struct record r;
	int err;

	if (!w->par.native) {
		sector_plain(w, sector);
		return io_pwrite(w->io, w->fd, sector, sizeof(sector), 0);
	}
	err = record_fill(w, root, &r);
	if (!err)
		err = record_sector(&r, w->crc, w->par.native->k_rec, sector);
	if (!err)
		err = io_pwrite(w->io, w->fd, sector, sizeof(sector), 0);
	/* the hint only saves a read: a file system without xattrs does without */
	if (!err && hint_make(&r, file_len, w->par.native->k_hint, hint) == 0)
		(void)w->io->set_xattr(w->io->ctx, w->fd, HINT_XATTR, hint, sizeof(hint));
	return err;
}

int writer_finish(struct writer *w)
{
	CLEANUP_FREE uint8_t *tail = NULL;
	uint8_t root[MAC_LEN];
	uint64_t len, off;
	int err = w->fill || !w->n ? segment_out(w) : 0;

	if (!err)
		err = root_signature(w->dek, w->tags, w->n, root);
	if (err)
		return err;
	len = tail_len(w->tmpl, w->size);
	off = tail_offset(w->size, w->par.s);
	if (len > MANIFEST_WARN)
		report(REPORT_WARN, "its manifest is %llu MiB: clients other than tdfs refuse more than 10; a larger --segment-size helps",
		       (unsigned long long)len >> 20);
	tail = malloc(len);
	if (!tail)
		return -ENOMEM;
	tail_build(w->tmpl, w->size, w->tags, root, w->crc, tail);
	err = io_pwrite(w->io, w->fd, tail, len, off);
	return err ? err : sector_out(w, root, off + len);
}
