/* SPDX-License-Identifier: Apache-2.0 */
/* Plain bytes to a sealed file.  A small file is one read and one write. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/xattr.h>

#include "convert_bytes.h"
#include "crc.h"
#include "report.h"

#define SEGMENTS_GOOD ((uint64_t)100000) /* a manifest that every client reads (FORMAT.md section 7) */
#define SEG_LARGEST ((uint32_t)2 << 20)
#define LEASE ((uint64_t)1 << 20) /* FORMAT.md section 3: bound on invocations */

static uint32_t segment_size(const struct volume *v, uint64_t size)
{
	uint32_t s = v->segment_size;

	while (s < SEG_LARGEST && seg_count(size, s) > SEGMENTS_GOOD)
		s = MIN(s * 4, SEG_LARGEST);
	return s;
}

/* What stays the same over one sealing. */
struct sealing {
	struct sealer *s;
	const struct seal_from *from;
	const struct stat *st;
	uint64_t size, n;
	uint32_t seg, crc;
	int out;
	uint8_t *hash; /* or NULL */
	bool keep;     /* data key and payload stay */
	uint8_t file_id[ID_LEN];
	struct secret *dek;
	struct tail_template *tmpl;
};

/* @len plain bytes from @off on. */
static int plain_take(struct sealing *w, size_t len, uint64_t off)
{
	const struct seal_from *f = w->from;
	ssize_t n;

	if (!f->c)
		return read_exact(f->fd, w->s->plain, len, off, off + len == w->size);
	if (!len) /* the empty segment has a tag too */
		return container_read_segment(f->io, f->fd, f->c, 0, w->s->plain);
	n = container_read(f->io, f->fd, f->c, w->s->plain, len, off);
	return n < 0 ? (int)n : (size_t)n == len ? 0 : -EIO;
}

/* Segments @first .. (as many as fit a stretch): read, seal to @to, remember tags and CRC.  @ret_next, @ret_len: what was made */
static int stretch_seal(struct sealing *w, uint64_t first, uint8_t *to, uint64_t *ret_next, size_t *ret_len)
{
	uint64_t count = MIN(MAX(STRETCH / w->seg, 1), w->n - first), plain_off = first * w->seg;
	size_t plain = (size_t)MIN(count * w->seg, w->size - plain_off), done = 0;
	uint8_t drawn[ID_LEN + (STRETCH / SEG_MIN) * AEAD_IV], *iv = drawn + ID_LEN, *out = to;
	int err = plain_take(w, plain, plain_off);

	/* one request for all of them: it costs as much as encrypting 4 KiB */
	if (!err)
		err = random_bytes(drawn, ID_LEN + count * AEAD_IV);
	if (!err && !first)
		memcpy(w->file_id, drawn, ID_LEN);
	for (uint64_t i = first; !err && i < first + count; i++, iv += AEAD_IV) {
		size_t len = seg_plain(w->size, w->seg, i);

		err = aead_seal_drawn(w->dek, iv, w->s->plain + done, len, out);
		if (!err && w->hash)
			err = content_chain(w->s, w->hash, w->s->plain + done, len);
		done += len;
		out += len + AEAD_OVERHEAD;
		memcpy(w->s->tags + i * AEAD_TAG, out - AEAD_TAG, AEAD_TAG);
	}
	if (err)
		return err;
	w->crc = crc_bytes(w->crc, to, (size_t)(out - to));
	*ret_next = first + count;
	*ret_len = (size_t)(out - to);
	return 0;
}

static int header_make(struct sealing *w, const uint8_t root[static MAC_LEN], uint64_t file_len, uint8_t sector[static SECTOR],
		       uint8_t hint[static HINT_LEN])
{
	const struct volume *v = w->s->v;
	const struct record *old = w->from->c ? &w->from->c->rec : NULL; /* a file that stays the same one */
	struct record r = {.state = RECORD_SEALED,
			   .s = w->seg,
			   .generation = old ? old->generation + 1 : 1,
			   .size = w->size,
			   .epoch = 1,
			   .mtime = old ? old->mtime : w->st->st_mtim,
			   .ctime = old ? old->ctime : w->st->st_ctim};
	int err;

	memcpy(r.file_id, old ? old->file_id : w->file_id, ID_LEN);
	memcpy(r.content_id, root, ID_LEN);
	memcpy(r.volume_id, v->id, ID_LEN);
	r.tail_off = tail_offset(w->size, w->seg);
	r.invocations = w->keep ? old->invocations : (w->n / LEASE + 1) * LEASE;
	clock_gettime(CLOCK_REALTIME, &r.made);
	err = record_seal(v->k_seal, &r, (struct part){w->tmpl->key_access, strlen(w->tmpl->key_access)},
			  (struct part){w->tmpl->policy, strlen(w->tmpl->policy)}, w->dek, r.seal);
	if (!err)
		err = record_sector(&r, w->crc, v->k_rec, sector);
	if (!err)
		err = hint_make(&r, file_len, v->k_hint, hint);
	return err;
}

/* Tail and header once all segments are made: @stored: where the tail may be built, @head: where the header goes */
static int finish_make(struct sealing *w, uint8_t *tail, uint64_t tail_bytes, uint8_t *head, uint8_t hint[static HINT_LEN])
{
	uint8_t root[MAC_LEN];
	int err = root_signature(w->dek, w->s->tags, w->n, root);

	if (err)
		return err;
	tail_build(w->tmpl, w->size, w->s->tags, root, w->crc, tail);
	return header_make(w, root, tail_offset(w->size, w->seg) + tail_bytes, head, hint);
}

static int seal_small(struct sealing *w, uint64_t tail_bytes, uint8_t hint[static HINT_LEN])
{
	uint64_t next, off = tail_offset(w->size, w->seg);
	size_t len;
	int err = room_get(&w->s->stored, &w->s->stored_room, off + tail_bytes);

	if (!err)
		err = stretch_seal(w, 0, w->s->stored + SECTOR, &next, &len);
	if (!err)
		err = finish_make(w, w->s->stored + off, tail_bytes, w->s->stored, hint);
	return err ? err : write_all(w->out, w->s->stored, off + tail_bytes, 0);
}

static int seal_large(struct sealing *w, uint64_t tail_bytes, uint8_t hint[static HINT_LEN])
{
	uint64_t next = 0, off = SECTOR;
	uint8_t head[SECTOR];
	int err;

	/* a full disk shows now, not after an hour; where it cannot be done the writes will tell */
	if (fallocate(w->out, 0, 0, (off_t)(tail_offset(w->size, w->seg) + tail_bytes)) &&
	    (errno == ENOSPC || errno == EDQUOT || errno == EFBIG))
		return fail(-errno, "room for %llu bytes: %s", (unsigned long long)w->size, strerror(errno));
	err = room_get(&w->s->stored, &w->s->stored_room, MAX(STRETCH, w->seg) + (STRETCH / w->seg + 1) * AEAD_OVERHEAD);
	while (!err && next < w->n) {
		size_t len;

		err = stretch_seal(w, next, w->s->stored, &next, &len);
		if (!err)
			err = write_all(w->out, w->s->stored, len, off);
		write_begin(w->out, off, len);
		off += len;
	}
	if (!err)
		err = room_get(&w->s->stored, &w->s->stored_room, tail_bytes);
	if (!err)
		err = finish_make(w, w->s->stored, tail_bytes, head, hint);
	if (!err)
		err = write_all(w->out, w->s->stored, tail_bytes, off);
	return err ? err : write_all(w->out, head, SECTOR, 0);
}

int seal_fd(struct sealer *s, const struct seal_from *from, const struct stat *st, int out, uint8_t *ret_hash, uint32_t *ret_s)
{
	struct sealing w = {
	    .s = s, .from = from, .st = st, .size = from->c ? from->c->m->size : (uint64_t)st->st_size, .out = out, .hash = ret_hash};
	CLEANUP_FREE char *key_access = NULL;
	uint8_t hint[HINT_LEN];
	int err;

	if (w.size > PLAIN_MAX)
		return fail(-EFBIG, "larger than a file of a volume can be");
	w.seg = segment_size(s->v, w.size);
	w.n = seg_count(w.size, w.seg);
	if (w.n > (uint64_t)1 << 31)
		return fail(-EFBIG, "more than 2^31 segments");
	if (ret_hash)
		memset(ret_hash, 0, HASH_LEN);
	w.dek = secret_random();
	err = w.dek ? kas_wrap(s->v->kas, w.dek, from->policy, &key_access) : fail(-EIO, "no data key: no memory or no randomness");
	if (!err) {
		w.tmpl = tail_template_new(w.seg, key_access, from->policy);
		err = w.tmpl ? 0 : -ENOMEM;
	}
	if (!err)
		err = room_get(&s->tags, &s->tags_room, w.n * AEAD_TAG);
	if (!err)
		err = plain_room(s, MAX(STRETCH, w.seg) + 1);
	if (!err)
		err = w.size <= STRETCH / w.seg * w.seg ? seal_small(&w, tail_len(w.tmpl, w.size), hint)
							: seal_large(&w, tail_len(w.tmpl, w.size), hint);
	/* not only a saved read here: it says whose this is if the content is lost with the power */
	if (!err && fsetxattr(out, HINT_XATTR, hint, HINT_LEN, 0))
		err = fail(-errno, "its " HINT_XATTR " attribute: %s", strerror(errno));
	secret_free(w.dek);
	tail_template_free(w.tmpl);
	if (!err)
		*ret_s = w.seg;
	return err;
}

static int payload_copy(struct sealing *w, uint64_t end)
{
	off_t from = SECTOR, to = SECTOR;

	while ((uint64_t)from < end) {
		ssize_t n = copy_file_range(w->from->fd, &from, w->out, &to, end - (uint64_t)from, 0);

		if (n < 0 && errno != EINTR)
			return fail(-errno, "copying its payload: %s", strerror(errno));
		if (n == 0)
			return fail(-ESTALE, "its length changed while it was read");
	}
	return 0;
}

int reseal_fd(struct sealer *s, const struct seal_from *from, int out, uint8_t ret_hash[static HASH_LEN], uint32_t *ret_s)
{
	const struct container *c = from->c;
	struct sealing w = {
	    .s = s, .from = from, .size = c->m->size, .n = c->m->n_segs, .seg = c->rec.s, .crc = c->crc, .out = out, .keep = true};
	CLEANUP_FREE char *key_access = NULL;
	uint8_t hint[HINT_LEN], head[SECTOR];
	uint64_t off = tail_offset(w.size, w.seg), tail = 0;
	int err = sealed_read(s, from->io, from->fd, c, -1, ret_hash);

	w.dek = err ? NULL : secret_copy(c->dek);
	if (!err)
		err = w.dek ? kas_wrap(s->v->kas, w.dek, from->policy, &key_access) : -ENOMEM;
	if (!err) {
		w.tmpl = tail_template_new(w.seg, key_access, from->policy);
		err = w.tmpl ? 0 : -ENOMEM;
	}
	if (!err) {
		tail = tail_len(w.tmpl, w.size);
		err = room_get(&s->tags, &s->tags_room, w.n * AEAD_TAG) || room_get(&s->stored, &s->stored_room, tail) ? -ENOMEM : 0;
	}
	if (!err) {
		memcpy(s->tags, c->m->hashes, w.n * AEAD_TAG);
		err = finish_make(&w, s->stored, tail, head, hint);
	}
	if (!err)
		err = payload_copy(&w, off);
	if (!err)
		err = write_all(out, s->stored, tail, off);
	if (!err)
		err = write_all(out, head, SECTOR, 0);
	if (!err && fsetxattr(out, HINT_XATTR, hint, HINT_LEN, 0))
		err = fail(-errno, "its " HINT_XATTR " attribute: %s", strerror(errno));
	secret_free(w.dek);
	tail_template_free(w.tmpl);
	if (!err)
		*ret_s = w.seg;
	return err;
}
