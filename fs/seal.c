/* SPDX-License-Identifier: Apache-2.0 */
/* Making a sealed file of a changed one, through the log. */
#include <fcntl.h>

#include "reseg.h"
#include "seal_i.h"

void seal_rec(const struct sealed *s, const struct base *base, const struct apply *a, struct redo_rec *r)
{
	*r = (struct redo_rec){.type = REDO_SEAL, .base = *base};
	r->seal.generation = s->rec.generation;
	r->seal.content_id = s->rec.content_id;
	r->seal.final_len = s->rec.tail_off + s->tail_len;
	r->seal.mtime = s->rec.mtime;
	r->seal.tail_off = s->rec.tail_off;
	r->seal.tail_len = s->tail_len;
	r->seal.sector = s->sector;
	r->seal.tail = a->side ? NULL : s->tail;
	r->seal.side = a->side ? a->side_hash : NULL;
#ifdef TEST_NO_NO_TAIL_REDO
	r->type = REDO_INTENT;
	r->intent.sealed_len = 0;
	r->intent.ino = 0;
	r->intent.path = "";
#endif
}

void start_apply(struct inode *f, struct sealed *s, uint32_t crc)
{
	struct apply *a = &f->apply;

	a->pending = true;
	a->applied = false;
	a->pin = f->pin;
	a->s = f->s;
	memset(&f->pin, 0, sizeof(f->pin));
	memcpy(a->sector, s->sector, SECTOR);
	a->tail = STEAL(s->tail);
	a->tail_off = s->rec.tail_off;
	a->tail_len = s->tail_len;
	a->rec = s->rec;
	sealed_base(f, &s->rec, a->tail_off + a->tail_len, crc);
	a->lsn = f->last_lsn;
}

static int copy_images(struct inode *f)
{
	struct apply *a = &f->apply;

	free(a->images);
	a->n_images = f->n_images;
	a->images = malloc((f->n_images + 1) * sizeof(*a->images));
	if (!a->images)
		return -ENOMEM;
	if (f->n_images)
		memcpy(a->images, f->images, f->n_images * sizeof(*a->images));
	return 0;
}

static int side_tail(struct inode *f, const struct sealed *s)
{
	struct apply *a = &f->apply;

	a->side = redo_side_needed(f->st->redo, s->tail_len);
	return a->side ? redo_side_write(f->st->redo, s->tail, s->tail_len, a->side_hash) : 0;
}

int seal_replaced(struct inode *f)
{
	uint64_t n = seg_count(f->size, f->s), p = payload_len(f->size, f->s);
	CLEANUP(sealed_cleanup) struct sealed s = {0};
	CLEANUP_FREE uint8_t *out = malloc(p);
	CLEANUP_FREE struct redo_rec *recs = calloc(n + 2, sizeof(*recs));
	CLEANUP_FREE struct redo_loc *locs = calloc(n, sizeof(*locs));
	struct image *images = malloc(n * sizeof(*images));
	struct base base;
	uint32_t crc;
	size_t k = 0;
	int err = out && recs && locs && images ? tags_room(f, n) : -ENOMEM;

	free(f->apply.images);
	f->apply.images = images;
	f->apply.n_images = n;
	if (!err)
		err = images_room(f, n); /* nothing may fail once the SEAL stands in the log */
	if (err)
		return err;

	base_of(f, &base);
	if (!f->hinted) {
		recs[k] = (struct redo_rec){.type = REDO_INTENT, .base = base};
		recs[k].intent.sealed_len = f->base_len;
		recs[k].intent.ino = f->ino;
		recs[k].intent.root_ino = f->st->root_ino;
		recs[k++].intent.path = f->path ? f->path : "";
	}
	for (uint64_t i = 0; i < n && !err; i++) {
		struct seg *seg = seg_find(f, i);
		uint32_t len = seg ? seg->len : 0;
		uint8_t *at = out + (seg_off(f->s, i) - SECTOR);

		err = segment_put(f, i, seg ? seg->buf : NULL, len, at);
		recs[k] = (struct redo_rec){.type = REDO_IMAGE, .base = base};
		recs[k].image.seg = i;
		recs[k].image.bytes = at;
		recs[k++].image.len = len + AEAD_OVERHEAD;
	}
	if (err)
		return err;
	crc = crc_bytes(0, out, p);
	err = sealed_make(f, f->size, f->rec.generation + 1, crc, NULL, &s);
	f->apply.side = false; /* at most 1 MiB of content: the tail is small */
	if (!err) {
		seal_rec(&s, &base, &f->apply, &recs[k++]);
		err = redo_append(f->st->redo, recs, k, &f->pin, 0, false, &f->last_lsn, locs);
	}
	if (err)
		return err;
	f->n_images = n;
	for (uint64_t i = 0; i < n; i++)
		f->images[i] = images[i] = (struct image){.no = i, .loc = locs[i]};
	segs_drop_from(f, 0);
	f->n_tags = n;
	start_apply(f, &s, crc);
	return 0;
}

bool seal_too_large(const struct inode *f)
{
	return f->size > NEW_MEMORY_MAX || f->void_lsn;
}

int seal_voided(struct inode *f)
{
	int err = inode_void_base(f);

	return err ? err : seal_spilled(f);
}

/* SEAL of the committed state of a sealed file. */
static int seal_committed(struct inode *f)
{
	CLEANUP(sealed_cleanup) struct sealed s = {0};
	struct redo_rec rec;
	struct base base;
	uint64_t lsn;
	int err = commit_crc_again(f);

	if (!err)
		err = sealed_make(f, f->com_size, f->rec.generation + 1, f->com_crc, NULL, &s);
	if (!err)
		err = copy_images(f);
	if (!err)
		err = side_tail(f, &s);
	if (err)
		return err;
	base_of(f, &base);
	seal_rec(&s, &base, &f->apply, &rec);
	err = redo_append(f->st->redo, &rec, 1, &f->pin, 0, true, &lsn, NULL);
	if (err)
		return err;
	f->last_lsn = lsn;
	start_apply(f, &s, f->com_crc);
	return 0;
}

static int seal_log_locked(struct inode *f, bool commit, uint64_t *ret_lsn)
{
	int err = 0;

	*ret_lsn = 0;
	if (f->unlinked || f->load_err || f->content == CONTENT_VOID || f->content == CONTENT_FOREIGN)
		return 0;
	if (f->apply.pending) {
		*ret_lsn = f->apply.lsn;
		return 0;
	}
	switch (f->content) {
	case CONTENT_NEW:
		return seal_new(f);
	case CONTENT_SPILLED:
		return seal_spilled(f);
	case CONTENT_REPLACED:
		if (seal_too_large(f))
			return seal_voided(f);
		err = seal_replaced(f);
		if (err == -EAGAIN && f->pin.runs) /* it holds the very space: then without the old content as a way back */
			return seal_voided(f);
		break;
	default:
		if (reseg_ready(f) && f->st->held_until <= now_ns()) {
			err = reseg_seal(f);
			if (!err) {
				*ret_lsn = f->apply.lsn;
				return 0;
			}
			err = 0; /* no room, perhaps because of this file's own records; or given up: in its old form, then */
			fail_clear();
		}
		/* what is dirty may not spend the room kept for the SEAL; what was placed must be committed, and room is kept for that */
		if (!commit && f->fresh)
			err = inode_place(f);
		if (!err && (commit || f->fresh))
			err = commit_append(f, !commit);
		if (!err && !f->pin.runs)
			return 0;
		if (!err)
			err = seal_committed(f);
	}
	if (!err)
		*ret_lsn = f->apply.lsn;
	return err;
}

int seal_log(struct inode *f, bool commit, uint64_t *ret_lsn)
{
	int err;

	rwlock_write(&f->lock);
	err = seal_log_locked(f, commit, ret_lsn);
	rwlock_unlock(&f->lock);
	return err;
}

bool seal_pending(struct inode *f)
{
	bool pending;

	rwlock_read(&f->lock);
	pending = f->apply.pending;
	rwlock_unlock(&f->lock);
	return pending;
}

/* Neighbouring images with one write. */
static int write_images(struct inode *f, const struct image *img, size_t n, uint32_t s)
{
	struct store *st = f->st;
	size_t room = MAX(RUN_MAX, (size_t)s + AEAD_OVERHEAD), len = 0, first = 0;
	uint8_t *buf = scratch_get(room);
	int err = buf ? 0 : -ENOMEM;

	for (size_t k = 0; k < n && !err; k++) {
		err = redo_read(st->redo, &img[k].loc, buf + len);
		if (err)
			break;
		len += img[k].loc.len;
		if (k + 1 < n && img[k + 1].no == img[k].no + 1 && len + img[k + 1].loc.len <= room)
			continue;
		err = io_pwrite(&st->io, f->fd, buf, len, seg_off(s, img[first].no));
		len = 0;
		first = k + 1;
	}
	return err;
}

/* The cut to the sealed length gave blocks back that were taken for growth acknowledged since: take them again at once.  @len: the store
 * file's length */
static void reserve_again(struct inode *f, uint64_t len)
{
	struct store *st = f->st;
	uint64_t size = inode_paid_size(f);
	uint64_t need = f->content == CONTENT_SEALED ? tail_offset(size, f->s) + tail_len(f->tmpl, size) : 0;
	int err = need > len ? st->io.allocate(st->io.ctx, f->fd, FALLOC_FL_KEEP_SIZE, len, need - len) : 0;

	if (err && err != -EOPNOTSUPP)
		report(REPORT_WARN,
		       "%s: the disk was filled by others while it was sealed (%s); make room: what was written since waits for it",
		       f->path ? f->path : "file", strerror(-err));
}

int seal_apply(struct inode *f)
{
	struct store *st = f->st;
	struct apply *a = &f->apply;
	uint64_t len = a->tail_off + a->tail_len;
	int err;

	if (!a->pending)
		return 0;
	err = a->whole ? reseg_copy(f, UINT64_MAX) : write_images(f, a->images, a->n_images, a->s);
	if (!err && !a->whole)
		err = io_pwrite(&st->io, f->fd, a->tail, a->tail_len, a->tail_off);
	if (!err)
		err = st->io.truncate(st->io.ctx, f->fd, len);
	if (err)
		return err;
	rwlock_read(&f->lock);
	reserve_again(f, len);
	rwlock_unlock(&f->lock);
	err = io_pwrite(&st->io, f->fd, a->sector, SECTOR, 0);
	if (err)
		return err;
	rwlock_read(&f->lock); /* inode_set_times() comes before or after */
	inode_times_stored(f, &a->rec.mtime, NULL);
	a->meta_seq = f->meta_seq;
	sealed_metadata(f, &a->rec, len);
	rwlock_unlock(&f->lock);
	a->applied = true;
	return 0;
}

void seal_done(struct inode *f)
{
	struct apply *a = &f->apply;
	size_t kept = 0;

	rwlock_write(&f->lock);
	if (a->pending && a->applied) {
		uint64_t size = inode_paid_size(f);

		for (size_t i = 0, k = 0; i < f->n_images; i++) {
			struct image *img = &f->images[i];

			while (k < a->n_images && a->images[k].no < img->no)
				k++;
			if (k == a->n_images || a->images[k].no != img->no || a->images[k].loc.lsn != img->loc.lsn ||
			    a->images[k].loc.off != img->loc.off)
				f->images[kept++] = *img;
		}
		f->n_images = kept;
		f->alloc_end = a->tail_off + a->tail_len;
		if (size > f->com_size || f->com_size > a->rec.size) { /* grown while it was being sealed */
			reserve_again(f, f->alloc_end);
			f->alloc_end = MAX(f->alloc_end, tail_offset(size, f->s) + tail_len(f->tmpl, size));
		}
		if (f->meta_seq == a->meta_seq)
			f->durable = true;
		redo_unpin(f->st->redo, &a->pin);
		if (a->side)
			redo_side_drop(f->st->redo, a->side_hash);
		if (a->whole)
			reseg_done(f);
		free(a->tail);
		free(a->images);
		memset(a, 0, sizeof(*a));
	}
	rwlock_unlock(&f->lock);
}

int seal_gone(struct inode *f)
{
	int err = seal_apply(f);

	if (err)
		return err;
	seal_done(f);
	rwlock_write(&f->lock);
	if (f->unlinked && f->content == CONTENT_REPLACED) { /* all in memory: the old content is not needed as a way back */
		redo_unpin(f->st->redo, &f->pin);
		f->content = CONTENT_NEW;
	}
	if (f->unlinked)
		redo_unpin(f->st->redo, &f->void_pin);
	if (f->unlinked && f->content == CONTENT_SEALED) {
		err = write_images(f, f->images, f->n_images, f->s);
		if (!err) {
			f->n_images = 0;
			redo_unpin(f->st->redo, &f->pin);
			f->fresh = false;
			f->content = CONTENT_SPILLED;
		}
	}
	rwlock_unlock(&f->lock);
	return err;
}
