/* SPDX-License-Identifier: Apache-2.0 */
/* The SEAL that makes the copy the file, and its way into the file's place. */
#include <fcntl.h>

#include "reseg_i.h"
#include "seal_i.h"

#define EXCHANGE(a, b)                \
	do {                          \
		__auto_type x_ = (a); \
		(a) = (b);            \
		(b) = x_;             \
	} while (0)

static void exchange(struct inode *f, struct reseg *r)
{
	EXCHANGE(f->s, r->s);
	EXCHANGE(f->dek, r->dek);
	EXCHANGE(f->tmpl, r->tmpl);
	EXCHANGE(f->tags, r->tags);
	EXCHANGE(f->crcs, r->crcs);
	EXCHANGE(f->n_tags, r->n_tags);
	EXCHANGE(f->cap_tags, r->cap_tags);
	EXCHANGE(f->invocations, r->invocations);
}

/* The rest, with the file's lock held for writing. */
static int build_rest(struct inode *f)
{
	struct reseg *r = f->reseg;
	uint64_t n = seg_count(f->size, r->s);
	uint8_t *buf = copy_buffer(r);
	int err = buf ? 0 : -ENOMEM;

	for (uint64_t k = 0; k < n && !err; k++) {
		if (k < r->done && !r->stale[k])
			continue;
		err = reseg_copy_one(f, k, buf);
		if (!err && k < r->done) {
			r->stale[k] = 0;
			r->n_stale--;
		}
	}
	copy_buffer_free(r, buf);
	r->n_tags = n;
	return err;
}

/* Complete as a sealed file, under its name, durable.  The inode has the new form already. */
static int write_whole(struct inode *f, struct reseg *r, struct sealed *s, uint8_t hash[static 32], uint32_t *ret_crc)
{
	struct store *st = f->st;
	char name[REDO_WHOLE_NAME];
	uint32_t crc = 0;
	int err;

	for (uint64_t i = 0; i < f->n_tags; i++)
		crc = crc_join(crc, (uint32_t)f->crcs[i], (uint64_t)seg_plain(f->size, f->s, i) + AEAD_OVERHEAD);
	*ret_crc = crc;
	err = sealed_make(f, f->size, f->rec.generation + 1, crc, NULL, s);
	if (err)
		return err;
	err = sha256(&(struct part){s->tail, s->tail_len}, 1, hash);
	if (!err)
		err = io_pwrite(&st->io, r->fd, s->tail, s->tail_len, s->rec.tail_off);
	if (!err)
		err = io_pwrite(&st->io, r->fd, s->sector, SECTOR, 0);
	if (!err)
		err = st->io.truncate(st->io.ctx, r->fd, s->rec.tail_off + s->tail_len);
	redo_whole_name(s->rec.content_id, name);
	if (!err)
		err = st->io.rename(st->io.ctx, st->tdfs_fd, r->name, st->tdfs_fd, name, 0);
	if (err)
		return err;
	memcpy(r->name, name, sizeof(name));
#ifdef TEST_NO_WHOLE_FIRST
	return 0;
#endif
	err = st->io.sync(st->io.ctx, r->fd, true);
	return err || st->io.names_with_files ? err : st->io.syncfs(st->io.ctx, st->tdfs_fd);
}

static int log_whole(struct inode *f, const struct sealed *s, const uint8_t hash[static 32])
{
	struct redo_rec recs[2] = {{.type = REDO_INTENT}};
	struct apply a = {.side = true};
	unsigned from = f->hinted ? 1 : 0;
	struct base base;
	uint64_t lsn;
	int err;

	memcpy(a.side_hash, hash, sizeof(a.side_hash));
	base_of(f, &base);
	recs[0].base = base;
	recs[0].intent.sealed_len = f->base_len;
	recs[0].intent.ino = f->ino;
	recs[0].intent.root_ino = f->st->root_ino;
	recs[0].intent.path = f->path ? f->path : "";
	seal_rec(s, &base, &a, &recs[1]);
	recs[1].seal.whole = true;
	err = redo_append(f->st->redo, recs + from, 2 - from, &f->pin, 0, true, &lsn, NULL);
	if (!err)
		f->last_lsn = lsn;
	return err;
}

int reseg_seal(struct inode *f)
{
	struct reseg *r = f->reseg;
	CLEANUP(sealed_cleanup) struct sealed s = {0};
	struct apply *a = &f->apply;
	uint8_t hash[32];
	uint32_t crc;
	int err = build_rest(f);

	if (!err) {
		exchange(f, r);
		err = write_whole(f, r, &s, hash, &crc);
		if (!err)
			err = log_whole(f, &s, hash);
		if (err)
			exchange(f, r);
	}
	if (err == -EAGAIN) /* no room in the log just now */
		return err;
	if (err) { /* a failed sync is not believed a second time */
		reseg_drop(f);
		reseg_refuse(f, err);
		return err;
	}
	segs_drop_from(f, 0);
	segcache_drop_all(f->st->cache, f->id);
	free(a->images);
	a->images = NULL;
	a->n_images = f->n_images = 0;
	f->crc_unsure = false;
	a->side = false;
	a->whole = true;
	a->whole_fd = r->fd;
	a->copy_fd = -1;
	a->copied = SECTOR;
	memcpy(a->whole_name, r->name, sizeof(r->name));
	start_apply(f, &s, crc);
	reseg_forget(f);
	return 0;
}

static int copy_piece(struct inode *f, uint8_t *buf, size_t len, uint64_t off)
{
	const struct io *io = &f->st->io;
	int err = io_pread_full(io, f->apply.whole_fd, buf, len, off);

	return err ? err : io_pwrite(io, f->fd, buf, len, off);
}

/*
 * In pieces only with a descriptor of its own, which hears of every write that is lost between the first piece and the sync; with the
 * file's, which others sync too, all of it at once.  Its header stays the old one until everything else stands.
 */
int reseg_copy(struct inode *f, uint64_t bytes)
{
	struct store *st = f->st;
	struct apply *a = &f->apply;
	uint64_t end = a->tail_off + a->tail_len;
	uint8_t *buf = scratch_get(RUN_MAX);
	int err = buf ? redo_flush(st->redo, a->lsn) : -ENOMEM;

	if (err)
		return err;
	if (a->copy_fd < 0)
		a->copy_fd = MAX(st->io.open(st->io.ctx, f->fd, "", O_RDWR | O_NOCTTY | O_NOATIME, 0), -1);
	if (a->copy_fd < 0 && bytes < end) { /* the seal does it */
		a->copied = end;
		return 0;
	}
	if (a->applied || a->copy_fd < 0) /* again: what was written before was lost */
		a->copied = SECTOR;
	a->applied = false;
	while (a->copied < end && bytes && !err) {
		size_t n = (size_t)MIN(MIN(end - a->copied, RUN_MAX), bytes);

		err = copy_piece(f, buf, n, a->copied);
		a->copied += err ? 0 : n;
		bytes -= n;
	}
#ifdef TEST_NO_WHOLE_KEPT
	(void)!st->io.unlink(st->io.ctx, st->tdfs_fd, a->whole_name, 0);
#endif
	return err;
}

/* An unlinked file's is removed when the unlink is durable, because until then the log may still ask for it; any other is kept for the next
 * mount. */
void reseg_free(struct inode *f)
{
	const struct io *io = &f->st->io;

	reseg_drop(f);
	if (!f->apply.whole)
		return;
	if (f->unlinked && !io->syncfs(io->ctx, f->st->root_fd)) {
		reseg_done(f);
		return;
	}
	io->close(io->ctx, f->apply.whole_fd);
	if (f->apply.copy_fd >= 0)
		io->close(io->ctx, f->apply.copy_fd);
}

void reseg_done(struct inode *f)
{
	const struct io *io = &f->st->io;
	struct apply *a = &f->apply;

	io->close(io->ctx, a->whole_fd);
	if (a->copy_fd >= 0)
		io->close(io->ctx, a->copy_fd);
	if (io->unlink(io->ctx, f->st->tdfs_fd, a->whole_name, 0))
		report(REPORT_WARN, "cannot remove .tdfs/%s, which is not needed any more", a->whole_name);
}
