/* SPDX-License-Identifier: Apache-2.0 */
/* What the user does, and what may be seen from then on. */
#include <errno.h>
#include <fcntl.h>

#include "inode_i.h"
#include "reseg.h"
#include "world_i.h"

/* --- what may be seen -------------------------------------------------------------------------------------------------------- */

void world_states_add(struct states *s, uint64_t hash)
{
	for (size_t i = s->n; i-- > 0;)
		if (s->hash[i] == hash)
			return;
	if (s->n == s->cap) {
		s->cap = MAX(16, 2 * s->cap);
		s->hash = realloc(s->hash, s->cap * sizeof(*s->hash));
		if (!s->hash)
			abort();
	}
	s->hash[s->n++] = hash;
}

/* An unsynced rename: a change may still show under the old name. */
static void may_see(struct world *w, int i, uint64_t hash)
{
	for (int k = 0; k < WORLD_FILES; k++)
		if (k == i || w->files[i].aliases & 1u << k)
			world_states_add(&w->files[k].ok, hash);
	if (i == w->syncing && w->n_during < ARRAY_SIZE(w->during))
		w->during[w->n_during++] = hash;
}

static void may_see_current(struct world *w, int i)
{
	may_see(w, i, world_hash(w->files[i].plain, w->files[i].size));
}

void world_only_current(struct world *w, int i)
{
	struct wfile *x = &w->files[i];

	x->ok.n = 0;
	x->ok.absent = x->ok.nothing = x->ok.damaged = false;
	x->aliases = 0;
	world_states_add(&x->ok, world_hash(x->plain, x->size));
}

static void room(struct wfile *x, uint64_t size)
{
	if (size <= x->cap)
		return;
	x->cap = size + size / 2;
	x->plain = realloc(x->plain, x->cap);
	if (!x->plain)
		abort();
}

/* --- operations -------------------------------------------------------------------------------------------------------------- */

void world_create(struct world *w, int i)
{
	struct wfile *x = &w->files[i];

	TRACE(w, "create %s", x->name);
	x->exists = true;
	x->size = 0;
	x->aliases = 0;
	x->seal_step = 0;
	room(x, 1);
	x->ok.absent = x->ok.nothing = true;
	x->ok.damaged |= w->mode == SIM_POSIX;
	may_see_current(w, i);
	TRY(w, inode_create(w->st, w->root, x->name, 0644, x->name, &x->f));
	inode_opened(x->f, true);
}

void world_open(struct world *w, int i)
{
	struct wfile *x = &w->files[i];

	TRACE(w, "open %s", x->name);
	TRY(w, inode_get(w->st, w->root, x->name, true, x->name, &x->f));
	inode_opened(x->f, true);
}

void world_close(struct world *w, int i)
{
	struct wfile *x = &w->files[i];

	TRACE(w, "close %s", x->name);
	TRY(w, inode_flush(x->f));
	inode_closed(x->f, true);
	inode_put(x->f);
	x->f = NULL;
	x->seal_step = 0;
}

void world_write(struct world *w, int i, uint64_t off, size_t len)
{
	struct wfile *x = &w->files[i];

	TRACE(w, "write %s at %llu, %zu, of %llu", x->name, (unsigned long long)off, len, (unsigned long long)x->size);
	room(x, off + len);
	for (size_t k = 0; k < len; k += 8) {
		uint64_t v = simdisk_random(&w->rnd);

		memcpy(x->plain + off + k, &v, MIN(8, len - k));
	}
	x->size = MAX(x->size, off + len);
	may_see_current(w, i);
	TRY(w, inode_write(x->f, x->plain + off, len, off));
}

void world_truncate(struct world *w, int i, uint64_t size)
{
	struct wfile *x = &w->files[i];

	TRACE(w, "truncate %s to %llu", x->name, (unsigned long long)size);
	room(x, size);
	if (size > x->size)
		memset(x->plain + x->size, 0, size - x->size);
	x->size = size;
	/* a file cut to nothing whose new content is large gives its old state up (never an empty file: EIO until committed) */
	if (!size)
		for (int k = 0; k < WORLD_FILES; k++)
			w->files[k].ok.nothing |= k == i || x->aliases & 1u << k;
	may_see_current(w, i);
	TRY(w, inode_truncate(x->f, size));
}

int world_fsync(struct world *w, int i)
{
	struct wfile *x = &w->files[i];
	uint64_t hash = world_hash(x->plain, x->size);
	int err;

	w->syncing = i;
	w->n_during = 0;
	err = inode_fsync(x->f, false);
	w->syncing = -1;
	TRACE(w, "fsync %s: %d", x->name, err);
	if (err)
		return err;
	world_only_current(w, i);
	x->ok.n = 0;
	world_states_add(&x->ok, hash);
	for (size_t k = 0; k < w->n_during; k++)
		world_states_add(&x->ok, w->during[k]);
	return 0;
}

static struct inode *live(struct world *w, const char *name)
{
	const struct io *io = simdisk_io(w->disk);
	int fd = io->open(io->ctx, w->root, name, O_PATH, 0);
	struct stat s;

	MUST(fd);
	MUST(io->stat(io->ctx, fd, &s));
	io->close(io->ctx, fd);
	return inode_find(w->st, s.st_dev, s.st_ino);
}

/* As fs/dir_rename.c does it. */
static void before_rename(struct world *w, int i)
{
	const struct io *io = simdisk_io(w->disk);
	struct inode *f = live(w, w->files[i].name);
	int fd;

	if (f) {
		TRY(w, inode_before_rename(f));
		inode_put(f);
		world_only_current(w, i);
		return;
	}
	fd = io->open(io->ctx, w->root, w->files[i].name, O_RDONLY, 0);
	MUST(fd);
	TRY(w, io->sync(io->ctx, fd, false));
	io->close(io->ctx, fd);
}

/* @f: what live() said before the name went; told when it is gone, as fs/dir.c does */
static void gone(struct world *w, int i, struct inode *f)
{
	struct wfile *x = &w->files[i];

	if (f) {
		inode_unlinked(f);
		inode_put(f);
	}
	if (x->f) {
		inode_closed(x->f, true);
		inode_put(x->f);
	}
	x->f = NULL;
	x->exists = false;
	x->seal_step = 0;
}

void world_rename(struct world *w, int from, int to)
{
	struct wfile *a = &w->files[from], *b = &w->files[to], t;
	const struct io *io = simdisk_io(w->disk);
	struct inode *f, *old = NULL;

	TRACE(w, "rename %s %s", a->name, b->name);
	if (b->exists) {
		before_rename(w, from);
		if (w->failed)
			return;
		old = live(w, b->name);
	}
	/* what is seen under the new name: what was there, or the content that moves in; under the old one also nothing */
	for (size_t k = 0; k < a->ok.n; k++)
		world_states_add(&b->ok, a->ok.hash[k]);
	if (!b->exists)
		b->ok.absent = b->ok.nothing = true;
	b->ok.damaged |= a->ok.damaged;
	a->ok.absent = true;
	f = live(w, a->name);
	if (io->rename(io->ctx, w->root, a->name, w->root, b->name, 0)) {
		if (!w->faults)
			MUST(-EIO);
		w->failed = true;
		if (f)
			inode_put(f);
		if (old)
			inode_put(old);
		return;
	}
	if (b->exists)
		gone(w, to, old);
	if (f) {
		inode_renamed(f, b->name);
		inode_changed(f, NULL);
		inode_put(f);
	}
	/* the content moves, names and what may be seen under them stay */
	t = *b;
	b->f = a->f;
	b->plain = a->plain;
	b->size = a->size;
	b->cap = a->cap;
	b->seal_step = a->seal_step;
	b->seal_lsn = a->seal_lsn;
	b->exists = true;
	b->aliases = a->aliases | 1u << from;
	a->plain = t.plain;
	a->cap = t.cap;
	a->f = NULL;
	a->exists = false;
	a->aliases = 0;
	a->seal_step = 0;
}

void world_unlink(struct world *w, int i)
{
	struct wfile *x = &w->files[i];
	const struct io *io = simdisk_io(w->disk);
	struct inode *f;

	TRACE(w, "unlink %s", x->name);
	x->ok.absent = true;
	f = live(w, x->name);
	MUST(io->unlink(io->ctx, w->root, x->name, 0));
	gone(w, i, f);
}

void world_seal(struct world *w, int i, bool commit)
{
	struct inode *f = live(w, w->files[i].name);

	TRACE(w, "seal %s %d", w->files[i].name, commit);
	if (!f)
		return;
	if (writeback_seal(w->st, &f, 1, commit) && !w->log_full)
		w->failed = true;
	inode_put(f);
}

void world_seal_step(struct world *w, int i, bool commit)
{
	struct wfile *x = &w->files[i];
	const struct io *io = simdisk_io(w->disk);
	int err = 0;

	TRACE(w, "seal step %d of %s", x->seal_step, x->name);
	if (!x->f)
		return;
	mutex_lock(&w->st->seal_lock);
	if (x->seal_step && !seal_pending(x->f))
		x->seal_step = 0; /* somebody else has finished it */
	switch (x->seal_step) {
	case 0:
		err = seal_log(x->f, commit, &x->seal_lsn);
		if (err || !x->seal_lsn)
			x->seal_step = -1;
		break;
	case 1:
		err = redo_flush(w->st->redo, x->seal_lsn);
		break;
	case 2:
		err = seal_apply(x->f);
		break;
	case 3:
		err = io->sync(io->ctx, inode_fd(x->f), true);
		break;
	default:
		seal_done(x->f);
		x->seal_step = -1;
	}
	x->seal_step++;
	mutex_unlock(&w->st->seal_lock);
	if (err && w->faults)
		w->failed = true;
	else if (err && err != -EAGAIN)
		world_violation(w, "step %d of a seal of %s: %s", x->seal_step, x->name, strerror(-err));
}

void world_reseg(struct world *w, int i, unsigned times, uint64_t bytes)
{
	struct wfile *x = &w->files[i];
	bool ready = false;
	int err = 0;

	TRACE(w, "resegment %s, %u times, %llu bytes", x->name, times, (unsigned long long)bytes);
	if (!x->f)
		return;
	mutex_lock(&w->st->seal_lock);
	if (seal_pending(x->f)) {
		err = x->f->apply.whole ? reseg_copy(x->f, bytes) : 0;
	} else {
		if (!x->f->reseg)
			err = reseg_begin(x->f, MIN(x->f->s * times, MAX(x->f->s, 8 * WORLD_S)));
		if (!err)
			err = reseg_build(x->f, bytes, &ready);
	}
	mutex_unlock(&w->st->seal_lock);
	if (err && err != -EINVAL && err != -ECANCELED && !w->faults)
		world_violation(w, "resegmentation of %s: %s: %s", x->name, strerror(-err), fail_text());
	if (w->faults && err && seal_pending(x->f))
		w->failed = true;
}

void world_sync(struct world *w)
{
	TRACE(w, "sync%s", "");
	TRY(w, store_sync(w->st));
	for (int i = 0; i < WORLD_FILES; i++) {
		struct wfile *x = &w->files[i];

		if (x->exists) {
			world_only_current(w, i);
		} else {
			x->ok.n = 0;
			x->ok.absent = true;
			x->ok.nothing = x->ok.damaged = false;
		}
	}
}
