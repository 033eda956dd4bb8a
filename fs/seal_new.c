/* SPDX-License-Identifier: Apache-2.0 */
/* Making a sealed file of a new one, in place. */
#include <sys/xattr.h>

#include "seal_i.h"

#define ONE_WRITE_MAX ((uint64_t)64 << 10)

int sealed_make(struct inode *f, uint64_t size, uint64_t generation, uint32_t crc, uint8_t *tail, struct sealed *ret)
{
	struct store *st = f->st;
	struct record *r = &ret->rec;
	int err;

	*r = f->rec;
	r->state = RECORD_SEALED;
	r->s = f->s;
	r->size = size;
	r->tail_off = tail_offset(size, f->s);
	r->generation = generation;
	r->invocations = f->invocations;
	inode_times_stored(f, &r->mtime, &r->ctime);
	clock_gettime(CLOCK_REALTIME, &r->made);
	err = root_signature(f->dek, f->tags, seg_count(size, f->s), ret->root);
	if (err)
		return err;
	memcpy(r->content_id, ret->root, ID_LEN);
	err = record_seal(st->keys.k_seal, r, (struct part){f->tmpl->key_access, strlen(f->tmpl->key_access)},
			  (struct part){f->tmpl->policy, strlen(f->tmpl->policy)}, f->dek, r->seal);
	if (!err)
		err = record_sector(r, crc, st->keys.k_rec, ret->sector);
	if (err)
		return err;
	ret->tail_len = tail_len(f->tmpl, size);
	if (!tail)
		tail = ret->tail = malloc(ret->tail_len);
	if (!tail)
		return -ENOMEM;
	tail_build(f->tmpl, size, f->tags, ret->root, crc, tail);
	return 0;
}

/* Hint and times of a store file that was just written; a failure costs speed or a time stamp, never data. */
void sealed_metadata(struct inode *f, const struct record *r, uint64_t file_len)
{
	struct store *st = f->st;
	struct timespec ts[2] = {{.tv_nsec = UTIME_OMIT}, r->mtime};
	uint8_t hint[HINT_LEN];

	if (!hint_make(r, file_len, st->keys.k_hint, hint))
		(void)!st->io.set_xattr(st->io.ctx, f->fd, HINT_XATTR, hint, HINT_LEN);
	(void)!st->io.times(st->io.ctx, f->fd, ts);
}

uint32_t sealed_when(const struct inode *f, uint64_t file_len)
{
	uint8_t raw[HINT_LEN + 1];
	struct hint h;
	ssize_t n;

	n = fgetxattr(f->fd, HINT_XATTR, raw, sizeof(raw));
	if (n > 0 && !hint_parse(raw, (size_t)n, file_len, f->st->keys.k_hint, &h) && h.generation == f->rec.generation &&
	    !memcmp(h.file_id, f->rec.file_id, ID_LEN))
		return h.made;
	return (uint32_t)f->rec.made.tv_sec;
}

/* The base is now what @r says; everything in memory is clean or belongs to what comes next. */
void sealed_base(struct inode *f, const struct record *r, uint64_t file_len, uint32_t crc)
{
	f->rec = *r;
	f->base_len = file_len;
	f->base_crc = f->com_crc = crc;
	f->com_size = r->size;
	f->alloc_end = MAX(f->alloc_end, file_len);
	f->live = f->hinted = f->intent = f->fresh = f->orphans = f->rewrite = f->times_changed = false;
	f->used_end = f->number = f->first_lsn = 0;
	f->content = CONTENT_SEALED;
	if (!commit_needed(f)) /* else it is as old as it was */
		f->oldest_uncommitted = 0;
	f->first_change = f->oldest_uncommitted;
	f->st->n_seals++;
}

/*
 * A kill, unlike a power cut, may stop a write between two pages (ext4 before Linux 6.16): the header of a larger file comes last, so that
 * a part of one is VOID and not a damaged file.  Below this the moment is too short to be worth a second call.
 */
static int write_new(struct inode *f, const uint8_t *p, uint64_t len)
{
	const struct io *io = &f->st->io;
	int err = len > ONE_WRITE_MAX ? io_pwrite(io, f->fd, p + SECTOR, len - SECTOR, SECTOR) : 0;

	return err ? err : io_pwrite(io, f->fd, p, len > ONE_WRITE_MAX ? SECTOR : len, 0);
}

int seal_new(struct inode *f)
{
	struct store *st = f->st;
	uint64_t n = seg_count(f->size, f->s), p = payload_len(f->size, f->s), len = SECTOR + p + tail_len(f->tmpl, f->size);
	CLEANUP(sealed_cleanup) struct sealed s = {0};
	uint8_t *out = scratch_get(len);
	uint32_t crc;
	int err = out ? tags_room(f, n) : -ENOMEM;

	if (!err)
		err = inode_pay(f);
	for (uint64_t i = 0; i < n && !err; i++) {
		struct seg *seg = seg_find(f, i);

		err = segment_put(f, i, seg ? seg->buf : NULL, seg ? seg->len : 0, out + seg_off(f->s, i));
	}
	if (err)
		return err;
	crc = crc_bytes(0, out + SECTOR, p);
	err = sealed_make(f, f->size, 1, crc, out + SECTOR + p, &s);
	if (err)
		return err;
	memcpy(out, s.sector, SECTOR);
	err = write_new(f, out, len);
	if (err) { /* still NEW and whole in memory: tried again at the next fsync or seal; what there is of it must not look like a damaged
		      file */
		(void)!st->io.truncate(st->io.ctx, f->fd, 0);
		f->alloc_end = 0;
		return err;
	}
	sealed_metadata(f, &s.rec, len);
	segs_drop_from(f, 0);
	f->n_tags = n;
	sealed_base(f, &s.rec, len, crc);
	inode_not_durable(f);
	return 0;
}

static int spilled_make(struct inode *f, uint32_t *ret_crc, struct sealed *ret)
{
	uint64_t n = seg_count(f->size, f->s);
	uint32_t crc = 0;

	for (uint64_t i = 0; i < n; i++)
		crc = crc_join(crc, (uint32_t)f->crcs[i], (uint64_t)seg_plain(f->size, f->s, i) + AEAD_OVERHEAD);
	*ret_crc = crc;
	return sealed_make(f, f->size, 1, crc, NULL, ret);
}

/* A sync failed: a second one would say 0 for pages that are not on the disk.  What can still be read is written once more, what cannot
 * stays as it is and says so when read. */
static int spill_again(struct inode *f)
{
	uint64_t n = seg_count(f->size, f->s);
	struct seg *s;
	int err = 0;

	for (uint64_t i = 0; i < n && !err && f->size; i++) {
		err = seg_get(f, i, true, seg_plain(f->size, f->s, i), &s);
		if (err == -EBADMSG)
			err = 0;
		if (!err && f->dirty > NEW_MEMORY_MAX)
			err = spill_dirty(f, true);
	}
	return err;
}

/* An empty file has one empty segment, which nobody wrote. */
static int spill_rest(struct inode *f)
{
	struct seg *s;
	int err = f->size ? 0 : seg_get(f, 0, false, 0, &s);

	if (!err && f->rewrite) {
		inode_sync_again(f);
		err = spill_again(f);
	}
	if (!err && (f->void_pin.runs || f->rewrite)) /* it may be the old one that stands there */
		err = inode_new_header(f);
	return err ? err : spill_dirty(f, true);
}

int seal_spilled_begin(struct inode *f, uint64_t *ret_seq)
{
	struct store *st = f->st;
	CLEANUP(sealed_cleanup) struct sealed s = {0};
	uint32_t crc;
	int err = spill_rest(f);

	if (!err)
		err = spilled_make(f, &crc, &s);
	if (!err)
		err = io_pwrite(&st->io, f->fd, s.tail, s.tail_len, s.rec.tail_off);
	if (!err)
		err = st->io.truncate(st->io.ctx, f->fd, s.rec.tail_off + s.tail_len);
	if (!err)
		*ret_seq = f->write_seq;
	return err;
}

int seal_spilled_finish(struct inode *f, uint64_t seq)
{
	struct store *st = f->st;
	CLEANUP(sealed_cleanup) struct sealed s = {0};
	uint64_t len;
	uint32_t crc;
	int err;

	if (f->void_seq <= seq)
		redo_unpin(st->redo, &f->void_pin); /* the NEW header is synced: nobody needs the VOID record */
	if (f->content != CONTENT_SPILLED || f->write_seq != seq)
		return -EAGAIN;
	err = spilled_make(f, &crc, &s);
	if (!err)
		err = io_pwrite(&st->io, f->fd, s.sector, SECTOR, 0);
	if (err)
		return err;
	len = s.rec.tail_off + s.tail_len;
	sealed_metadata(f, &s.rec, len);
	f->n_tags = seg_count(f->size, f->s);
	f->alloc_end = 0;
	sealed_base(f, &s.rec, len, crc);
	inode_not_durable(f);
	return 0;
}

int spilled_lost(struct inode *f)
{
	f->rewrite = true;
	if (f->handles) /* somebody who can be told */
		f->error = -EIO;
	return -EIO;
}

int seal_spilled(struct inode *f)
{
	uint64_t seq;
	int err = seal_spilled_begin(f, &seq);

#ifndef TEST_NO_ONE_FLUSH_NEW
	if (!err) {
		err = inode_sync_file(f, f->fd, false);
		if (err)
			return spilled_lost(f);
	}
#endif
	return err ? err : seal_spilled_finish(f, seq);
}
