/* SPDX-License-Identifier: Apache-2.0 */
/* The steps of a random walk: what they do to a file, and what it may be after that. */
#include "inode_i.h"
#include "reseg.h"
#include "walk_i.h"

/* A fault during this step, now and then. */
void maybe_fault(struct walk *k)
{
	static const int errors[] = {-EIO, -ENOSPC, -EIO, -EDQUOT};
	struct world *w = k->w;
	static const enum fault_op ops[] = {FAULT_PWRITE, FAULT_PWRITE, FAULT_PWRITE,   FAULT_SYNC,    FAULT_SYNC,
					    FAULT_SYNCFS, FAULT_PREAD,  FAULT_TRUNCATE, FAULT_ALLOCATE};
	enum fault_op op = ops[random_below(w, ARRAY_SIZE(ops))];
	int err = errors[random_below(w, 4)];
	enum fault_where where = op == FAULT_PREAD || random_below(w, 6) ? ON_FILE : ON_LOG;

	if (op == FAULT_SYNC || op == FAULT_SYNCFS || op == FAULT_PREAD)
		err = -EIO;
	if (where == ON_LOG && k->log_failed)
		return;
	/* every fourth walk without errors; a log that fails in both halves is another test's business, and so are two segments that cannot
	 * be read (the CRC-32 of a commit is then put right by the seal, but not by recovery) */
	if (!(k->seed % 4) || !random_below(w, 2))
		return;
	k->log_failed |= where == ON_LOG;
	fault_set(w, op, where, 1 + (unsigned)random_below(w, 3), err,
		  where == ON_LOG || op == FAULT_PREAD ? 1 : 1 + (unsigned)random_below(w, 3));
}

/* The model of truncate and write, into a fresh copy. */
static uint8_t *changed(const struct file *f, uint64_t off, uint64_t len, int fill_seed, uint64_t cut_to, uint64_t *ret_size)
{
	uint8_t *p = room_new();

	memcpy(p, f->plain, f->size);
	*ret_size = f->size;
	if (len) {
		fill(p + off, len, fill_seed);
		*ret_size = MAX(f->size, off + len);
	} else {
		if (cut_to < f->size)
			memset(p + cut_to, 0, f->size - cut_to);
		*ret_size = cut_to;
	}
	return p;
}

static void accept(struct walk *k, struct shadow *s, uint8_t *want, uint64_t size)
{
	room_free(s->file->plain, s->file->size);
	s->file->plain = want;
	s->file->size = size;
	walk_note(k, s);
}

/* A write beyond the end makes two states: the zeros may be committed before the bytes. */
static void note_hole(struct walk *k, struct shadow *s, uint64_t off)
{
	uint64_t size;
	uint8_t *p;

	if (off <= s->file->size)
		return;
	p = changed(s->file, 0, 0, 0, off, &size);
	accept(k, s, p, size);
}

void step_write(struct walk *k, struct shadow *s)
{
	struct world *w = k->w;
	struct file *f = s->file;
	uint64_t most[] = {100, 20000, 300000, 1 << 20}, len = 1 + random_below(w, most[random_below(w, 4)]), off, size, before = f->size;
	uint64_t kind = random_below(w, 7);
	bool taken = false;
	uint8_t *want;
	int seed = (int)k->step, err;

	off = kind == 0   ? f->size
	      : kind == 1 ? random_below(w, SIZE_MOST)
	      : kind == 2 ? random_below(w, SIZE_MOST / S) * S
	      : kind == 3 ? random_below(w, f->size / S + 1) * S
			  : random_below(w, f->size + 1);
	if (kind == 2 || kind == 3)
		len = (1 + random_below(w, 64)) * S;
	if (off + len > SIZE_MOST + (2 << 20)) {
		off = 0;
		kind = 4; /* no append any more */
	}
	if (off > f->size)
		note_hole(k, s, off);
	want = changed(f, off, len, seed, 0, &size);
	snprintf(k->what, sizeof(k->what), "write %s %llu + %llu (size %llu)", f->name, (unsigned long long)off, (unsigned long long)len,
		 (unsigned long long)before);
	if (kind == 0)
		err = inode_append(f->f, want + off, len);
	else if (kind < 5)
		err = inode_write(f->f, want + off, len, off);
	else
		err = inode_write_back(f->f, want + off, len, off, &taken);
	if (!err || taken) {
		accept(k, s, want, size);
		if (err)
			fault_clear(w);
		return;
	}
	WCHECK(k, w->faults.fired || err == -EIO); /* EIO: until the last close */
	fault_clear(w);
	walk_adopt(k, s, want, size);
	room_free(want, size);
}

void step_truncate(struct walk *k, struct shadow *s)
{
	struct world *w = k->w;
	struct file *f = s->file;
	uint64_t size, to = random_below(w, SIZE_MOST);
	uint8_t *want;
	int err;

	switch (random_below(w, 6)) {
	case 0:
		to = 0;
		break;
	case 1:
		to = to / S * S;
		break;
	case 2:
		to = f->size / 2;
		break;
	case 3:
		to = MIN(to, f->size);
		break;
	}
	want = changed(f, 0, 0, 0, to, &size);
	snprintf(k->what, sizeof(k->what), "truncate %s to %llu (size %llu)", f->name, (unsigned long long)to, (unsigned long long)f->size);
	if (!to)
		s->may_be_void = true; /* large new content gives the old one up */
	err = inode_truncate(f->f, to);
	if (!err) {
		accept(k, s, want, size);
		return;
	}
	fault_clear(w);
	walk_adopt(k, s, want, size);
	room_free(want, size);
}

void step_fsync(struct walk *k, struct shadow *s)
{
	int err;

	snprintf(k->what, sizeof(k->what), "fsync %s", s->file->name);
	err = inode_fsync(s->file->f, random_below(k->w, 2));
	fault_clear(k->w);
	if (!err)
		walk_synced(k, s);
	else
		walk_adopt(k, s, NULL, 0);
}

void step_create(struct walk *k, struct shadow *s, unsigned i)
{
	char name[32];

	snprintf(name, sizeof(name), "f%u", i);
	snprintf(k->what, sizeof(k->what), "create %s", name);
	fault_clear(k->w);
	s->file = file_create(k->w, name);
	s->known = true;
	s->may_be_void = true;
	s->n = 0;
	walk_note(k, s);
}

void step_close(struct walk *k, struct shadow *s)
{
	struct file *f = s->file;
	bool last = f->handles == 1 && f->unlinked;

	snprintf(k->what, sizeof(k->what), "close %s", f->name);
	file_close(k->w, f);
	fault_clear(k->w);
	if (last)
		s->file = NULL;
}

/* @s takes the name of @over */
void step_rename(struct walk *k, struct shadow *s, struct shadow *over)
{
	struct world *w = k->w;
	char name[32];
	int err;

	snprintf(k->what, sizeof(k->what), "rename %s over %s", s->file->name, over->file->name);
	err = inode_before_rename(s->file->f);
	fault_clear(w);
	if (err) {
		walk_adopt(k, s, NULL, 0);
		return;
	}
	walk_synced(k, s);
	memcpy(name, over->file->name, sizeof(name));
	WCHECK(k, !renameat(w->bed.root, s->file->name, w->bed.root, name));
	memcpy(s->file->name, name, sizeof(name));
	inode_renamed(s->file->f, name);
	over->file->unlinked = true;
	over->known = false;
	inode_unlinked(over->file->f);
}

/* A seal, one step at a time, perhaps not to its end. */
void step_seal(struct walk *k, struct shadow *s)
{
	struct world *w = k->w;
	struct store *st = w->st;
	uint64_t lsn = 0, stop = random_below(w, 5);
	bool commit = random_below(w, 2);
	int err;

	snprintf(k->what, sizeof(k->what), "seal %s%s, %llu steps", s->file->name, commit ? " with what is dirty" : "",
		 (unsigned long long)stop);
	mutex_lock(&st->seal_lock);
	err = seal_log(s->file->f, commit, &lsn);
	if (!err && lsn && stop > 0)
		err = redo_flush(st->redo, lsn);
	if (!err && lsn && stop > 1)
		err = seal_apply(s->file->f);
	if (!err && lsn && stop > 2)
		err = st->io.sync(st->io.ctx, inode_fd(s->file->f), true);
	if (!err && lsn && stop > 3)
		seal_done(s->file->f);
	mutex_unlock(&st->seal_lock);
}

/* A piece of a re-segmentation, or all of it; an error ends it, and the file is as it was. */
void step_reseg(struct walk *k, struct shadow *s)
{
	struct store *st = k->w->st;
	struct inode *f = s->file->f;
	bool ready;
	int err = 0;

	snprintf(k->what, sizeof(k->what), "resegment %s", s->file->name);
	mutex_lock(&st->seal_lock);
	if (!f->reseg && !f->apply.pending)
		err = reseg_begin(f, (uint32_t)MIN((uint64_t)f->s << random_below(k->w, 3), MAX(f->s, 8 * S)));
	if (!err && f->reseg)
		err = reseg_build(f, random_below(k->w, 1 << 20), &ready);
	else if (!err && f->apply.whole)
		err = reseg_copy(f, random_below(k->w, 1 << 20));
	mutex_unlock(&st->seal_lock);
	WCHECK(k, !err || err == -EINVAL || err == -ECANCELED || k->w->faults.all_fired || st->failed);
}

void step_sync(struct walk *k)
{
	struct world *w = k->w;
	int err;

	snprintf(k->what, sizeof(k->what), "sync");
	err = store_sync(w->st);
	WCHECK(k, !err || w->faults.fired || err == -EIO);
	if (w->faults.fired)
		walk_adopt_all(k);
	for (size_t i = 0; i < FILES && !err; i++) {
		struct shadow *s = &k->s[i];

		if (!s->file || s->file->unlinked)
			continue;
		walk_synced(k, s);
		file_check_at_rest(w, s->file);
	}
}

void step_link(struct walk *k, struct shadow *s)
{
	struct world *w = k->w;
	struct inode *f;

	fault_clear(w);
	snprintf(k->what, sizeof(k->what), "link %s", s->file->name);
	WCHECK(k, !linkat(w->bed.root, s->file->name, w->bed.root, "other", 0));
	inode_changed(s->file->f, NULL);
	WCHECK(k, !inode_get(w->st, w->bed.root, "other", true, "other", &f));
	WCHECK(k, f == s->file->f);
	inode_put(f);
	WCHECK(k, !unlinkat(w->bed.root, "other", 0));
}

void step_restart(struct walk *k, bool kill)
{
	snprintf(k->what, sizeof(k->what), kill ? "kill" : "restart");
	for (size_t i = 0; i < FILES; i++)
		if (k->s[i].file && k->s[i].file->unlinked)
			k->s[i].file = NULL, k->s[i].known = false;
	if (kill)
		world_kill(k->w);
	else
		world_restart(k->w);
	k->log_failed = false;
	walk_recheck(k, !kill);
}
