/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The CRC-32 of the payload after a commit.  It is linear: what is replaced or cut off is taken out, what is new is put in, and the rest of
 * the file need not be read; but only what is still as it was stored can be taken out.
 */
#include "commit_i.h"

/* Leading segments whose stored length is the same before and after. */
static uint64_t segments_kept(const struct inode *f)
{
	return f->size == f->com_size ? seg_count(f->size, f->s) : MIN(f->size, f->com_size) / f->s;
}

/* CRC of the first @keep segments of the committed payload: take the rest off, or put the start together, whichever is less. */
static int crc_prefix(struct inode *f, uint64_t keep, uint32_t *ret)
{
	uint64_t n = seg_count(f->com_size, f->s);
	uint32_t crc = f->com_crc, part;
	int err;

	if (n - keep > keep) {
		crc = 0;
		for (uint64_t i = 0; i < keep; i++) {
			err = segment_crc(f, i, f->s, true, &part);
			if (err)
				return err;
			crc = crc_join(crc, part, (uint64_t)f->s + AEAD_OVERHEAD);
		}
	} else {
		for (uint64_t i = n; i-- > keep;) {
			uint32_t len = seg_plain(f->com_size, f->s, i);

			err = segment_crc(f, i, len, true, &part);
			if (err)
				return err;
			crc = crc_cut(crc, part, len + AEAD_OVERHEAD);
		}
	}
	*ret = crc;
	return 0;
}

/*
 * The CRC of a payload of @size plain bytes from what is stored, read once, but for what @c (may be NULL) has staged.  A segment that
 * cannot be read counts as 0: no reader gets as far as to compare, and the next commit or seal comes here again.
 */
static int crc_anew(struct inode *f, const struct commit *c, uint64_t size, uint32_t *ret, bool *ret_unsure)
{
	uint64_t n = seg_count(size, f->s);
	bool unsure = false;
	uint32_t crc = 0;
	size_t k = 0;

	f->crc_unsure = true; /* if this comes to nothing: f->crcs may hold what does not stand in f->com_crc */
	for (uint64_t i = 0; i < n; i++) {
		uint32_t len = seg_plain(size, f->s, i), part = 0;
		int err;

		if (c && k < f->n_segs && f->segs[k].no == i) {
			part = c->staged[k++].crc;
		} else {
			err = segment_crc(f, i, len, false, &part);
			if (err == -ENOMEM)
				return err;
			if (!err)
				f->crcs[i] = (uint64_t)1 << 32 | part;
			unsure |= err != 0;
		}
		crc = crc_join(crc, part, (uint64_t)len + AEAD_OVERHEAD);
	}
	*ret = crc;
	*ret_unsure = unsure;
	return 0;
}

int commit_crc_again(struct inode *f)
{
	bool unsure;
	int err = f->crc_unsure ? crc_anew(f, NULL, f->com_size, &f->com_crc, &unsure) : 0;

	if (!err && f->crc_unsure)
		f->crc_unsure = unsure;
	return err;
}

/* @err of reading what is to be taken out of the CRC: damage is no reason to refuse what may mend it */
static int crc_damaged(struct commit *c, int err)
{
	struct inode *f = c->f;

	if (!err || err == -ENOMEM)
		return err;
	if (!c->crc_anew)
		report(REPORT_WARN, "%s: what is overwritten is damaged; the file is read once for a new checksum",
		       f->path ? f->path : "file");
	c->crc_anew = true;
	return 0;
}

int commit_crc_start(struct commit *c)
{
	struct inode *f = c->f;

	c->crc_anew = f->crc_unsure;
	return c->crc_anew ? 0 : crc_damaged(c, crc_prefix(f, segments_kept(f), &c->crc));
}

int commit_crc_replace(struct commit *c, const struct staged *g)
{
	struct inode *f = c->f;
	uint64_t keep = segments_kept(f), kept_len = payload_len(f->size == f->com_size ? f->size : keep * f->s, f->s);
	uint32_t old;
	int err;

	if (g->no >= keep || c->crc_anew)
		return 0;
	err = crc_damaged(c, segment_crc(f, g->no, g->len - AEAD_OVERHEAD, true, &old));
	if (!err && !c->crc_anew)
		c->crc = crc_replace(c->crc, old, g->crc, kept_len - (g->no * ((uint64_t)f->s + AEAD_OVERHEAD) + g->len));
	return err;
}

int commit_crc_finish(struct commit *c)
{
	struct inode *f = c->f;
	uint64_t n = seg_count(f->size, f->s);
	size_t k = 0;

	if (c->crc_anew)
		return crc_anew(f, c, f->size, &c->crc, &c->crc_unsure);
	for (uint64_t i = segments_kept(f); i < n; i++) {
		while (k < f->n_segs && c->staged[k].no < i)
			k++;
		if (k < f->n_segs && c->staged[k].no == i)
			c->crc = crc_join(c->crc, c->staged[k].crc, c->staged[k].len);
		else
			c->crc = crc_join(c->crc, (uint32_t)f->crcs[i], (uint64_t)f->s + AEAD_OVERHEAD);
	}
	return 0;
}
