/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A random walk: every kind of change, seal steps one by one, errors, kills and restarts, on a few files, compared with a plain copy after
 * every step.
 *
 * For each file the walk remembers a fingerprint of every state since the last successful fsync.  After a kill, and after an error, the
 * file must be in one of them (a write that failed may have been done in part); a file whose first content was never synced may also be
 * VOID.  Anything may fail with an error while errors are injected, but nothing may ever give bytes that no state had.
 */
#include "crc.h"
#include "inode_i.h"
#include "walk_i.h"

void walk_note(struct walk *k, struct shadow *s)
{
	WCHECK(k, s->n < STATES);
	s->state[s->n].size = s->file->size;
	s->state[s->n++].crc = crc_bytes(0, s->file->plain, s->file->size);
}

void walk_synced(struct walk *k, struct shadow *s)
{
	s->n = 0;
	s->may_be_void = false;
	walk_note(k, s);
}

static bool was(const struct shadow *s, const uint8_t *p, uint64_t size)
{
	uint32_t crc = crc_bytes(0, p, size);

	for (size_t i = s->n; i-- > 0;)
		if (s->state[i].size == size && s->state[i].crc == crc)
			return true;
	return false;
}

static ssize_t read_whole(struct file *f, uint8_t *p)
{
	struct stat st = {0};
	ssize_t n;

	inode_stat(f->f, &st);
	n = inode_read(f->f, p, (size_t)st.st_size + 1, 0);
	CHECK(n < 0 || n == st.st_size);
	return n;
}

/* The file as it must be. */
static void verify(struct walk *k, struct shadow *s)
{
	struct file *f = s->file;
	uint8_t *p = k->w->scratch;
	struct stat st = {0};

	inode_stat(f->f, &st);
	WCHECK(k, (uint64_t)st.st_size == f->size);
	WCHECK(k, inode_read(f->f, p, f->size + 1, 0) == (ssize_t)f->size);
	WCHECK(k, !memcmp(p, f->plain, f->size));
	for (int i = 0; i < 4 && f->size; i++) {
		uint64_t off = random_below(k->w, f->size), len = 1 + random_below(k->w, MIN(f->size - off, 40000));

		WCHECK(k, inode_read(f->f, p, len, off) == (ssize_t)len);
		WCHECK(k, !memcmp(p, f->plain + off, len));
	}
}

/* After an error: take over what the file is now, if it may be that.  @from, @to: bytes that may be of the old or of the new content @want
 */
void walk_adopt(struct walk *k, struct shadow *s, const uint8_t *want, uint64_t want_size)
{
	struct file *f = s->file;
	uint8_t *p = room_new();
	ssize_t n = read_whole(f, p);
	bool mixed = true;

	WCHECK(k, n >= 0); /* errors have ended, and this disk has lost nothing */
	if (!was(s, p, (uint64_t)n)) {
		mixed = want && (uint64_t)n >= MIN(f->size, want_size) && (uint64_t)n <= MAX(f->size, want_size);
		for (ssize_t i = 0; i < n && mixed; i++)
			mixed = p[i] == want[i] || p[i] == f->plain[i];
	}
	WCHECK(k, mixed);
	room_free(f->plain, f->size);
	f->plain = p;
	f->size = (uint64_t)n;
	walk_note(k, s);
}

void walk_open_file(struct walk *k, struct shadow *s)
{
	struct inode *f;
	int err;

	fault_clear(k->w);
	err = inode_get(k->w->st, k->w->bed.root, s->file->name, true, s->file->name, &f);

	WCHECK(k, !err);
	WCHECK(k, !s->file->f || s->file->f == f);
	s->file->f = f;
	inode_opened(f, true);
	s->file->handles++;
}

/* An error may have met a file that the step was not about. */
void walk_adopt_all(struct walk *k)
{
	fault_clear(k->w);
	for (size_t i = 0; i < FILES; i++) {
		struct shadow *s = &k->s[i];

		if (!s->file)
			continue;
		if (!s->file->handles)
			walk_open_file(k, s);
		walk_adopt(k, s, NULL, 0);
	}
}

/* After a kill or a clean restart. */
void walk_recheck(struct walk *k, bool clean)
{
	for (size_t i = 0; i < FILES; i++) {
		struct shadow *s = &k->s[i];
		struct inode *f;
		uint8_t *p;
		ssize_t n;
		int err;

		if (!s->known)
			s->file = NULL;
		if (!s->file)
			continue;
		err = inode_get(k->w->st, k->w->bed.root, s->file->name, false, s->file->name, &f);
		if (err == -ENODATA && s->may_be_void && !clean) {
			walk_open_file(k, s);
			memset(s->file->plain, 0, s->file->size);
			s->file->size = 0;
			walk_note(k, s);
			continue;
		}
		WCHECK(k, !err);
		p = room_new();
		n = inode_read(f, p, PLAIN_ROOM, 0);
		WCHECK(k, n >= 0);
		if (clean)
			WCHECK(k, (uint64_t)n == s->file->size && !memcmp(p, s->file->plain, (size_t)n));
		else
			WCHECK(k, was(s, p, (uint64_t)n));
		inode_put(f);
		room_free(s->file->plain, s->file->size);
		s->file->plain = p;
		s->file->size = (uint64_t)n;
		walk_synced(k, s); /* a state at rest */
		file_check_at_rest(k->w, s->file);
	}
}

/* The disk failed to sync it: it cannot be sealed, and an unmount says so. */
static bool any_lost(const struct store *st)
{
	for (size_t i = 0; i < st->n_buckets; i++)
		for (const struct inode *f = st->buckets[i]; f; f = f->next)
			if (f->lost)
				return true;
	return false;
}

static void one_step(struct walk *k)
{
	struct world *w = k->w;
	unsigned i = (unsigned)random_below(w, FILES);
	struct shadow *s = &k->s[i], *other = &k->s[random_below(w, FILES)];
	uint64_t what = random_below(w, 100);
	unsigned fired = w->faults.all_fired;

	k->what[0] = 0;
	fault_clear(w);
	if (w->st->failed || redo_is_dead(w->st->redo))
		what = 99;
	if (!s->file) {
		if (faccessat(w->bed.root, (char[]){'f', (char)('0' + i), 0}, F_OK, 0))
			step_create(k, s, i);
		return;
	}
	if (!s->file->handles && what < 92) {
		if (!s->file->unlinked)
			walk_open_file(k, s);
		return;
	}
	if (what < 96)
		maybe_fault(k);
	if (what < 36)
		step_write(k, s);
	else if (what < 40)
		step_reseg(k, s);
	else if (what < 55)
		step_truncate(k, s);
	else if (what < 64)
		step_fsync(k, s);
	else if (what < 73)
		step_seal(k, s);
	else if (what < 81)
		step_close(k, s);
	else if (what < 85 && !s->file->unlinked)
		walk_open_file(k, s);
	else if (what < 87 && !s->file->unlinked)
		step_link(k, s);
	else if (what < 88 && !s->file->unlinked) {
		snprintf(k->what, sizeof(k->what), "unlink %s", s->file->name);
		fault_clear(w);
		file_unlink(w, s->file);
		s->known = false;
	} else if (what < 90 && !s->file->unlinked && other != s && other->file && !other->file->unlinked && other->file->handles)
		step_rename(k, s, other);
	else if (what < 96)
		step_sync(k);
	else
		step_restart(k, what > 98 || w->st->failed || any_lost(w->st));
	if (fired != w->faults.all_fired)
		walk_adopt_all(k);
}

void walk(unsigned seed, unsigned steps)
{
	struct walk *k = calloc(1, sizeof(*k));
	bool verbose = getenv("TDFS_VERBOSE");

	k->w = world_new();
	k->w->quiet = true;
	k->w->rand = seed;
	k->seed = seed;
	random_below(k->w, 2);
	if (random_below(k->w, 2))
		k->w->faults.io.names_with_files = k->w->st->io.names_with_files = true;
	for (k->step = 0; k->step < steps; k->step++) {
		one_step(k);
		if (verbose && k->what[0])
			fprintf(stderr, "%u %s (%u errors so far)\n", k->step, k->what, k->w->faults.all_fired);
		fault_clear(k->w);
		for (size_t i = 0; i < FILES; i++)
			if (k->s[i].file && k->s[i].file->handles)
				verify(k, &k->s[i]);
	}
	step_restart(k, true);
	world_free(k->w);
	free(k);
}
