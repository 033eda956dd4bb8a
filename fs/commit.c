/* SPDX-License-Identifier: Apache-2.0 */
/* COMMIT: what is dirty goes to the log as whole final segments, with everything recovery needs to make them one state of the file. */
#include "commit_i.h"

#define BATCH (REDO_GROUP_MAX - ((size_t)512 << 10)) /* image bytes per append: leaves room for PLACE and COMMIT */

static void commit_cleanup(struct commit *c)
{
	free(c->staged);
	free(c->buf);
	free(c->recs);
	free(c->places);
	free(c->tags);
}

bool commit_needed(const struct inode *f)
{
	return f->content == CONTENT_SEALED && (f->n_segs || f->fresh || f->size != f->com_size || f->times_changed);
}

/* What the last commit of a growing file may take, and how much longer what it placed makes the tail. */
static uint64_t growth_estimate(const struct inode *f, uint64_t size)
{
	uint64_t most = size + (PLACE_MAX + 512) * (uint64_t)f->s;

	return GROW_OTHER_MAX + GROW_ONE_MAX + 5 * (uint64_t)f->s + 20 * PLACE_MAX + 32768 + tail_len(f->tmpl, most) -
	       tail_len(f->tmpl, size);
}

uint32_t seal_estimate(const struct inode *f, bool with_growth)
{
	uint64_t size = MAX(f->size, f->com_size), tail = tail_len(f->tmpl, size);
	uint64_t n = 48 + 80 + SECTOR + 64 + (redo_side_needed(f->st->redo, tail) ? 32 : tail);

	if (f->intent && with_growth)
		n += growth_estimate(f, size);
	return (uint32_t)MIN(n, UINT32_MAX);
}

/* room was made before */
static void image_note(struct inode *f, uint64_t no, const struct redo_loc *loc)
{
	struct image *img = image_find(f, no);
	size_t at;

	if (img) {
		img->loc = *loc;
		return;
	}
	for (at = f->n_images; at && f->images[at - 1].no > no; at--)
		;
	memmove(&f->images[at + 1], &f->images[at], (f->n_images - at) * sizeof(*f->images));
	f->images[at] = (struct image){.no = no, .loc = *loc};
	f->n_images++;
}

static int stage_one(struct commit *c, size_t k, uint8_t *out)
{
	struct inode *f = c->f;
	struct seg *s = &f->segs[k];
	struct staged *g = &c->staged[k];
	int err;

	if (f->invocations >= INVOCATION_MAX)
		return fail(-EFBIG, "this file's data key has encrypted 2^31 segments; copy the file to give it a new key");
	err = aead_seal(f->dek, s->buf, s->len, out);
	if (err)
		return err;
	f->invocations++;
	g->no = s->no;
	g->len = s->len + AEAD_OVERHEAD;
	g->crc = crc_bytes(0, out, g->len);
	memcpy(g->tag, out + AEAD_IV + s->len, AEAD_TAG);
	memcpy(c->tags + s->no * AEAD_TAG, g->tag, AEAD_TAG);
	return commit_crc_replace(c, g);
}

static void place_recs(struct commit *c, size_t *n_recs)
{
	struct inode *f = c->f;
	uint64_t i = f->place_first;

	while (f->fresh && i < f->place_end) {
		struct redo_rec *r = &c->recs[*n_recs];
		uint64_t first;

		while (i < f->place_end && seg_find(f, i)) /* overwritten since: an IMAGE instead */
			i++;
		first = i;
		for (; i < f->place_end && !seg_find(f, i); i++) {
			struct redo_place *p = &c->places[i - f->place_first];

			p->crc = (uint32_t)f->crcs[i];
			memcpy(p->tag, f->tags + i * AEAD_TAG, AEAD_TAG);
		}
		if (i == first)
			break;
		*r = (struct redo_rec){.type = REDO_PLACE, .base = c->base};
		r->place.first = first;
		r->place.count = (uint32_t)(i - first);
		r->place.each = &c->places[first - f->place_first];
		++*n_recs;
	}
}

/* One append: the images in c->buf, and whatever stands in recs before them. */
static int append(struct commit *c, size_t n_recs, size_t first, size_t n)
{
	struct inode *f = c->f;
	CLEANUP_FREE struct redo_loc *locs = calloc(n + 1, sizeof(*locs));
	int err;

	if (!locs)
		return -ENOMEM;
	err = redo_append(f->st->redo, c->recs, n_recs, &f->pin, seal_estimate(f, !c->is_seal), c->is_seal, &c->lsn, locs);
	for (size_t k = 0; k < n && !err; k++)
		c->staged[first + k].loc = locs[k];
	return err;
}

static void commit_rec(struct commit *c, struct redo_rec *r)
{
	struct inode *f = c->f;

	*r = (struct redo_rec){.type = REDO_COMMIT, .base = c->base};
	r->commit.number = f->number + 1;
	r->commit.size = f->size;
	r->commit.invocations = f->invocations;
	inode_times_stored(f, &r->commit.mtime, &r->commit.ctime);
	r->commit.crc = c->crc;
	r->commit.root = c->root;
}

static int append_all(struct commit *c)
{
	struct inode *f = c->f;
	size_t n_recs = 0, first = 0, at = 0;
	int err;

	if (!f->hinted) {
		c->recs[0] = (struct redo_rec){.type = REDO_INTENT, .base = c->base};
		c->recs[0].intent.sealed_len = f->base_len;
		c->recs[0].intent.ino = f->ino;
		c->recs[0].intent.root_ino = f->st->root_ino;
		c->recs[0].intent.path = f->path ? f->path : "";
		n_recs = 1;
	}
	place_recs(c, &n_recs);
	for (size_t k = 0; k < f->n_segs; k++) {
		struct redo_rec *r = &c->recs[n_recs];

		if (at + f->segs[k].len + AEAD_OVERHEAD > BATCH) {
			err = append(c, n_recs, first, k - first);
			if (err)
				return err;
			f->hinted = f->orphans = true;
			first = k;
			n_recs = at = 0;
			r = c->recs;
		}
		err = stage_one(c, k, c->buf + at);
		if (err)
			return err;
#ifdef TEST_NO_PARTIAL_PLACE
		if (c->staged[k].no + 1 == seg_count(f->com_size, f->s) && f->size > f->com_size)
			(void)!io_pwrite(&f->st->io, f->fd, c->buf + at, c->staged[k].len, seg_off(f->s, c->staged[k].no));
#endif
		*r = (struct redo_rec){.type = REDO_IMAGE, .base = c->base};
		r->image.seg = c->staged[k].no;
		r->image.bytes = c->buf + at;
		r->image.len = c->staged[k].len;
		at += r->image.len;
		n_recs++;
	}
	err = commit_crc_finish(c);
	if (!err)
		err = root_signature(f->dek, c->tags, seg_count(f->size, f->s), c->root);
	if (err)
		return err;
	commit_rec(c, &c->recs[n_recs]);
	return append(c, n_recs + 1, first, f->n_segs - first);
}

/* The COMMIT stands: what was staged is the file's stored state. */
static void adopt(struct commit *c)
{
	struct inode *f = c->f;
	uint64_t n = seg_count(f->size, f->s);

	for (size_t k = 0; k < f->n_segs; k++) {
		struct staged *g = &c->staged[k];

		memcpy(f->tags + g->no * AEAD_TAG, g->tag, AEAD_TAG);
		f->crcs[g->no] = (uint64_t)1 << 32 | g->crc;
		image_note(f, g->no, &g->loc);
		if (f->n_segs <= 4) /* appends and database pages come back to the segment; a bulk overwrite does not */
			segcache_put(f->st->cache, f->id, g->no, f->segs[k].buf, f->segs[k].len);
	}
	segs_drop_from(f, 0);
	while (f->n_images && f->images[f->n_images - 1].no >= n)
		f->n_images--;
	f->n_tags = n;
	f->fresh = f->times_changed = false;
	f->com_size = f->size;
	f->com_crc = c->crc;
	f->crc_unsure = c->crc_unsure;
	if (!f->number++)
		f->first_lsn = c->lsn;
	f->last_lsn = c->lsn;
	f->hinted = true;
	f->orphans = false;
	f->oldest_uncommitted = 0;
	f->st->n_commits++;
}

int images_room(struct inode *f, size_t n)
{
	struct image *p;

	if (f->n_images + n <= f->cap_images)
		return 0;
	p = realloc(f->images, (f->n_images + n) * 2 * sizeof(*p));
	if (!p)
		return -ENOMEM;
	f->images = p;
	f->cap_images = (f->n_images + n) * 2;
	return 0;
}

static int commit_prepare(struct commit *c)
{
	struct inode *f = c->f;
	uint64_t n = seg_count(f->size, f->s), places = f->fresh ? f->place_end - f->place_first : 0;
	size_t bytes = 0;
	int err = tags_room(f, n);

	if (!err)
		err = images_room(f, f->n_segs);
	if (err)
		return err;
	base_of(f, &c->base);
	for (size_t k = 0; k < f->n_segs && bytes < BATCH; k++)
		bytes += f->segs[k].len + AEAD_OVERHEAD;
	c->staged = calloc(f->n_segs + 1, sizeof(*c->staged));
	c->recs = calloc(f->n_segs + (places ? f->n_segs + 1 : 0) + 3, sizeof(*c->recs));
	c->places = calloc(places + 1, sizeof(*c->places));
	c->buf = malloc(MIN(bytes, BATCH) + f->s + AEAD_OVERHEAD);
	c->tags = malloc(n * AEAD_TAG);
	if (!c->staged || !c->recs || !c->places || !c->buf || !c->tags)
		return -ENOMEM;
	memcpy(c->tags, f->tags, n * AEAD_TAG);
	return commit_crc_start(c);
}

/*
 * Back to the last commit.  Where images of a commit that failed half way stand in the log, the next COMMIT would count them: their
 * segments are logged once more with it, as they are.
 */
static void drop_uncommitted(struct inode *f)
{
	uint64_t n = seg_count(f->com_size, f->s);
	CLEANUP_FREE uint64_t *again = f->orphans ? calloc(f->n_segs + 1, sizeof(*again)) : NULL;
	size_t n_again = 0;
	struct seg *s;

	for (size_t k = 0; again && k < f->n_segs && f->segs[k].no < n; k++)
		again[n_again++] = f->segs[k].no;
	reseg_give_up(f);
	f->fresh = false;
	segs_drop_from(f, 0);
	segcache_drop_all(f->st->cache, f->id);
	f->size = f->com_size;
	for (size_t k = 0; k < n_again; k++)
		(void)!seg_get(f, again[k], true, f->s, &s);
}

static int sync_places(struct inode *f)
{
#ifndef TEST_NO_COMMIT_FIRST
	if (f->fresh && inode_sync_file(f, f->fd, false)) {
		f->error = -EIO; /* the placed data may be gone */
		drop_uncommitted(f);
		inode_sync_again(f);
		return fail(-EIO, "the disk did not take what was appended; the file is as it was at the last fsync");
	}
#endif
	return 0;
}

int commit_append(struct inode *f, bool is_seal)
{
	CLEANUP(commit_cleanup) struct commit c = {.f = f, .is_seal = is_seal};
	int err;

	if (!commit_needed(f) || f->unlinked)
		return 0;
	err = inode_pay(f);
	if (!err)
		err = sync_places(f);
	if (!err)
		err = commit_prepare(&c);
	if (!err)
		err = append_all(&c);
	if (!err)
		adopt(&c);
	return err;
}
