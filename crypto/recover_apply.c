/* SPDX-License-Identifier: Apache-2.0 */
/* Putting sealed states in place.  Everything here may be cut off anywhere and done again: the log has it all. */
#include <errno.h>
#include <fcntl.h>

#include "recover_int.h"
#include "redo_int.h"
#include "report.h"
#include "tail.h"

/* The whole sealed file that a SEAL names: a descriptor, -ENOENT, -EBADMSG, -errno */
static int whole_open(const struct io *io, int log_dir, const struct redo_rec *seal)
{
	char name[REDO_WHOLE_NAME];
	struct stat s;
	int fd, err;

	redo_whole_name(seal->seal.content_id, name);
	fd = io->open(io->ctx, log_dir, name, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
	if (fd < 0)
		return fd;
	err = io->stat(io->ctx, fd, &s);
	if (!err && (!S_ISREG(s.st_mode) || (uint64_t)s.st_size != seal->seal.final_len))
		err = fail(-EBADMSG, "the side file %s has another length than the log says", name);
	if (err)
		io->close(io->ctx, fd);
	return err ? err : fd;
}

static int side_read(const struct io *io, int log_dir, const struct redo_rec *seal, uint8_t **ret)
{
	CLEANUP_FREE uint8_t *tail = NULL;
	char name[REDO_WHOLE_NAME];
	struct part part;
	uint8_t hash[32];
	size_t len = seal->seal.tail_len;
	int err, fd;

	if (seal->seal.whole) {
		redo_whole_name(seal->seal.content_id, name);
		fd = whole_open(io, log_dir, seal);
		tail = fd < 0 ? NULL : malloc(len + 1);
		err = fd < 0 ? fd : tail ? io_pread_full(io, fd, tail, len, seal->seal.tail_off) : -ENOMEM;
		if (fd >= 0)
			io->close(io->ctx, fd);
	} else {
		redo_side_name(seal->seal.side, name);
		err = io_read_file(io, log_dir, name, seal->seal.tail_len, (char **)&tail, &len);
	}
	if (err)
		return err;
	part = (struct part){tail, len};
	err = sha256(&part, 1, hash);
	if (!err && (len != seal->seal.tail_len || !equal_ct(hash, seal->seal.side, 32)))
		err = fail(-EBADMSG, "the side file %s is damaged", name);
	if (!err)
		*ret = STEAL(tail);
	return err;
}

int apply_tail(const struct io *io, int log_dir, const struct redo_rec *seal, uint8_t **ret)
{
	uint8_t *tail;

	if (!seal->seal.tail)
		return side_read(io, log_dir, seal, ret);
	tail = malloc(seal->seal.tail_len + 1);
	if (!tail)
		return -ENOMEM;
	memcpy(tail, seal->seal.tail, seal->seal.tail_len);
	*ret = tail;
	return 0;
}

struct state { /* one step, checked */
	struct record rec;
	uint32_t crc;
	uint8_t *tail, *tags;
};

static void state_free(struct state *s)
{
	free(s->tail);
	free(s->tags);
}

/* Nothing is written before everything fits together. */
static int state_load(const struct log *l, int log_dir, const struct redo_rec *seal, struct state *ret)
{
	CLEANUP_FREE uint8_t *tail = NULL, *tags = NULL;
	struct tail_template *t = NULL;
	uint8_t root[MAC_LEN];
	int err = record_parse(seal->seal.sector, l->keys->k_rec, &ret->rec, &ret->crc);
	const struct record *r = &ret->rec;

	if (!err && (r->state != RECORD_SEALED || r->generation != seal->seal.generation || r->tail_off != seal->seal.tail_off ||
		     !equal_ct(r->content_id, seal->seal.content_id, ID_LEN) || !equal_ct(r->file_id, seal->base.file_id, ID_LEN)))
		err = fail(-EBADMSG, "a SEAL in the log does not fit its header");
	if (!err)
		err = apply_tail(l->io, log_dir, seal, &tail);
	if (!err)
		err = tail_parse(tail, seal->seal.tail_len, r->size, r->s, ret->crc, &t, &tags, root);
	tail_template_free(t);
	if (!err && memcmp(root, r->content_id, ID_LEN))
		err = fail(-EBADMSG, "a SEAL in the log does not fit its manifest");
	if (err)
		return err;
	ret->tail = STEAL(tail);
	ret->tags = STEAL(tags);
	return 0;
}

static int write_images(const struct log *l, int fd, const struct redo_step *step, const struct state *s)
{
	CLEANUP_FREE uint8_t *buf = malloc((size_t)s->rec.s + AEAD_OVERHEAD);
	uint64_t n = seg_count(s->rec.size, s->rec.s);
	int err = buf ? 0 : -ENOMEM;

	for (size_t i = 0; i < step->n_images && !err; i++) {
		const struct log_rec *r = &step->images[i];
		uint64_t seg = r->rec.image.seg;

		if (r->rec.type != REDO_IMAGE || !base_same(&r->rec.base, &step->seal->base) || seg >= n ||
		    !equal_ct(r->tag, s->tags + seg * AEAD_TAG, AEAD_TAG) ||
		    r->rec.image.len != seg_plain(s->rec.size, s->rec.s, seg) + AEAD_OVERHEAD)
			continue;
		err = log_image(l, r, buf);
		if (!err)
			err = io_pwrite(l->io, fd, buf, r->rec.image.len, seg_off(s->rec.s, seg));
	}
	return err;
}

/* All segments, from the whole file beside the log: each must carry the tag that the manifest names. */
static int write_whole(const struct log *l, int log_dir, int fd, const struct redo_rec *seal, const struct state *s)
{
	CLEANUP_FREE uint8_t *buf = malloc((size_t)s->rec.s + AEAD_OVERHEAD);
	uint64_t n = seg_count(s->rec.size, s->rec.s);
	int from = buf ? whole_open(l->io, log_dir, seal) : -ENOMEM, err = from < 0 ? from : 0;

	for (uint64_t i = 0; i < n && !err; i++) {
		size_t len = (size_t)seg_plain(s->rec.size, s->rec.s, i) + AEAD_OVERHEAD;

		err = io_pread_full(l->io, from, buf, len, seg_off(s->rec.s, i));
		if (!err && !equal_ct(buf + len - AEAD_TAG, s->tags + i * AEAD_TAG, AEAD_TAG))
			err = fail(-EBADMSG, "segment %llu of the side file is damaged", (unsigned long long)i);
		if (!err)
			err = io_pwrite(l->io, fd, buf, len, seg_off(s->rec.s, i));
	}
	if (from >= 0)
		l->io->close(l->io->ctx, from);
	return err;
}

/* Size hint and time stamp: a failure costs speed or a time, never data. */
static void set_metadata(const struct log *l, int fd, const struct plan *p, const struct record *r, uint64_t len)
{
	/* this state was in place and somebody has set the time since: that is newer than what the log knows */
	bool touched = p->rec.generation == r->generation && p->ctime.tv_sec > r->made.tv_sec + 2;
	const struct timespec ts[2] = {{.tv_nsec = UTIME_OMIT}, touched ? p->mtime : r->mtime};
	uint8_t hint[HINT_LEN];

	if (!hint_make(r, len, l->keys->k_hint, hint))
		(void)!l->io->set_xattr(l->io->ctx, fd, HINT_XATTR, hint, HINT_LEN);
	(void)!l->io->times(l->io->ctx, fd, ts);
}

static int write_state(const struct log *l, int log_dir, int fd, const struct plan *p, const struct redo_step *step, const struct state *s,
		       bool last)
{
	const struct redo_rec *seal = step->seal;
	int err = seal->seal.whole ? write_whole(l, log_dir, fd, seal, s) : write_images(l, fd, step, s);

	if (!err)
		err = io_pwrite(l->io, fd, s->tail, seal->seal.tail_len, seal->seal.tail_off);
#ifdef TEST_NO_REC_CUT
	last = true;
#endif
	/* behind an earlier state stands what later ones have put there without the log */
	if (!err && last)
		err = l->io->truncate(l->io->ctx, fd, seal->seal.final_len);
	if (!err)
		err = io_pwrite(l->io, fd, seal->seal.sector, SECTOR, 0);
	if (!err && last)
		set_metadata(l, fd, p, &s->rec, seal->seal.final_len);
	return err;
}

static int apply_step(const struct log *l, int log_dir, int fd, const struct plan *p, size_t k)
{
	const struct redo_step *step = &p->steps[k];
	CLEANUP(state_free) struct state s = {0};
	bool last = k + 1 == p->n_steps;
	int err = state_load(l, log_dir, step->seal, &s);

	/* its side file is removed only when this state is in place and synced: what remains is growth and a LIVE mark that came later */
	if (err == -ENOENT && !step->seal->seal.tail && p->rec.generation == step->seal->seal.generation) {
		err = last ? l->io->truncate(l->io->ctx, fd, step->seal->seal.final_len) : 0;
		if (!err && last)
			err = io_pwrite(l->io, fd, step->seal->seal.sector, SECTOR, 0);
		return err ? err : l->io->sync(l->io->ctx, fd, true);
	}
	if (err)
		return err;
	/* a failed sync is reported once and the pages are lost: write again, do not just sync again */
	for (int tries = 0; tries < 2; tries++) {
		err = write_state(l, log_dir, fd, p, step, &s, last);
		if (err)
			return err;
#ifdef TEST_NO_REC_CHAIN
		if (!last)
			return 0;
#endif
		err = l->io->sync(l->io->ctx, fd, true);
		if (!err)
			return 0;
	}
	return fail(err, "the disk does not take the recovered file: %s", strerror(-err));
}

static int unmark(const struct log *l, int fd, const struct plan *p)
{
	struct record r = p->rec;
	uint8_t sector[SECTOR];
	int err;

	r.state = RECORD_SEALED;
	err = record_sector(&r, p->crc, l->keys->k_rec, sector);
	return err ? err : io_pwrite(l->io, fd, sector, SECTOR, 0);
}

int apply_plan(const struct log *l, int log_dir, int fd, struct plan *p)
{
	int err = 0;

	for (size_t k = 0; k < p->n_steps && !err; k++)
		err = apply_step(l, log_dir, fd, p, k);
	if (p->n_steps)
		return err;
	if (p->give_up)
		err = l->io->truncate(l->io->ctx, fd, 0);
	if (!err && p->cut)
		err = l->io->truncate(l->io->ctx, fd, p->cut_to);
	if (!err && p->unmark)
		err = unmark(l, fd, p);
	return err ? err : l->io->sync(l->io->ctx, fd, true);
}
