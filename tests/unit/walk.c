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
#include "faults.h"
#include "inode_i.h"
#include "reseg.h"

#define FILES 4
#define STATES 4096
#define SIZE_MOST (3u << 20)

struct shadow {
	struct file *file;
	bool known; /* there is a name */
	bool may_be_void;
	struct {
		uint64_t size;
		uint32_t crc;
	} state[STATES]; /* since the last fsync; the first is the synced one */
	size_t n;
};

struct walk {
	struct world *w;
	struct shadow s[FILES];
	unsigned seed, step;
	bool log_failed; /* since the last start: twice may be once too often for its two halves */
	char what[200];
};

#define WCHECK(k, x)                                                                                                                      \
	do {                                                                                                                              \
		if (!(x)) {                                                                                                               \
			fprintf(stderr, "seed %u step %u, %s: %s:%d: %s (%s)\n", (k)->seed, (k)->step, (k)->what, __FILE__, __LINE__, #x, \
				fail_text());                                                                                             \
			abort();                                                                                                          \
		}                                                                                                                         \
	} while (0)

static void note(struct walk *k, struct shadow *s)
{
	WCHECK(k, s->n < STATES);
	s->state[s->n].size = s->file->size;
	s->state[s->n++].crc = crc_bytes(0, s->file->plain, s->file->size);
}

static void synced(struct walk *k, struct shadow *s)
{
	s->n = 0;
	s->may_be_void = false;
	note(k, s);
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
static void adopt(struct walk *k, struct shadow *s, const uint8_t *want, uint64_t want_size)
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
	note(k, s);
}

static void open_file(struct walk *k, struct shadow *s)
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
static void adopt_all(struct walk *k)
{
	fault_clear(k->w);
	for (size_t i = 0; i < FILES; i++) {
		struct shadow *s = &k->s[i];

		if (!s->file)
			continue;
		if (!s->file->handles)
			open_file(k, s);
		adopt(k, s, NULL, 0);
	}
}

/* A fault during this step, now and then. */
static void maybe_fault(struct walk *k)
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
	note(k, s);
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

static void step_write(struct walk *k, struct shadow *s)
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
	adopt(k, s, want, size);
	room_free(want, size);
}

static void step_truncate(struct walk *k, struct shadow *s)
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
	adopt(k, s, want, size);
	room_free(want, size);
}

static void step_fsync(struct walk *k, struct shadow *s)
{
	int err;

	snprintf(k->what, sizeof(k->what), "fsync %s", s->file->name);
	err = inode_fsync(s->file->f, random_below(k->w, 2));
	fault_clear(k->w);
	if (!err)
		synced(k, s);
	else
		adopt(k, s, NULL, 0);
}

static void step_create(struct walk *k, struct shadow *s, unsigned i)
{
	char name[32];

	snprintf(name, sizeof(name), "f%u", i);
	snprintf(k->what, sizeof(k->what), "create %s", name);
	fault_clear(k->w);
	s->file = file_create(k->w, name);
	s->known = true;
	s->may_be_void = true;
	s->n = 0;
	note(k, s);
}

static void step_close(struct walk *k, struct shadow *s)
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
static void step_rename(struct walk *k, struct shadow *s, struct shadow *over)
{
	struct world *w = k->w;
	char name[32];
	int err;

	snprintf(k->what, sizeof(k->what), "rename %s over %s", s->file->name, over->file->name);
	err = inode_before_rename(s->file->f);
	fault_clear(w);
	if (err) {
		adopt(k, s, NULL, 0);
		return;
	}
	synced(k, s);
	memcpy(name, over->file->name, sizeof(name));
	WCHECK(k, !renameat(w->bed.root, s->file->name, w->bed.root, name));
	memcpy(s->file->name, name, sizeof(name));
	inode_renamed(s->file->f, name);
	over->file->unlinked = true;
	over->known = false;
	inode_unlinked(over->file->f);
}

/* A seal, one step at a time, perhaps not to its end. */
static void step_seal(struct walk *k, struct shadow *s)
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
static void step_reseg(struct walk *k, struct shadow *s)
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

static void step_sync(struct walk *k)
{
	struct world *w = k->w;
	int err;

	snprintf(k->what, sizeof(k->what), "sync");
	err = store_sync(w->st);
	WCHECK(k, !err || w->faults.fired || err == -EIO);
	if (w->faults.fired)
		adopt_all(k);
	for (size_t i = 0; i < FILES && !err; i++) {
		struct shadow *s = &k->s[i];

		if (!s->file || s->file->unlinked)
			continue;
		synced(k, s);
		file_check_at_rest(w, s->file);
	}
}

static void step_link(struct walk *k, struct shadow *s)
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

/* After a kill or a clean restart. */
static void recheck(struct walk *k, bool clean)
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
			open_file(k, s);
			memset(s->file->plain, 0, s->file->size);
			s->file->size = 0;
			note(k, s);
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
		synced(k, s); /* a state at rest */
		file_check_at_rest(k->w, s->file);
	}
}

static void step_restart(struct walk *k, bool kill)
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
	recheck(k, !kill);
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
			open_file(k, s);
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
		open_file(k, s);
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
		adopt_all(k);
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
