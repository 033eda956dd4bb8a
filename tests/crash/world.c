/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>

#include "random.h"
#include "report.h"
#include "world.h"

#define POLICY                                                                                                                             \
	"eyJ1dWlkIjoiMDAwMDAwMDAtMDAwMC00MDAwLTgwMDAtMDAwMDAwMDAwMDAwIiwiYm9keSI6eyJkYXRhQXR0cmlidXRlcyI6W10sImRpc3NlbSI6W119fQ=="

static struct {
	struct secret *seal, *hint, *rec, *log;
	struct kas *kas;
	uint8_t volume_id[ID_LEN];
	struct simdisk *fresh[2];
} common;

#define MUST(call)                                                                                                                         \
	do {                                                                                                                               \
		int must_ = (call);                                                                                                        \
		if (must_ < 0) {                                                                                                           \
			fprintf(stderr, "%s:%d: %s: %s %s\n", __FILE__, __LINE__, #call, strerror(-must_), fail_text());                   \
			abort();                                                                                                           \
		}                                                                                                                          \
	} while (0)

/* Instead of crypto/random.c, so that a seed gives the same run again: files are recovered in the order of their random ids. */
static uint64_t random_state;

int random_bytes(void *p, size_t len)
{
	for (uint8_t *b = p; len; len--)
		*b++ = (uint8_t)simdisk_random(&random_state);
	return 0;
}

int random_private(void *p, size_t len)
{
	return random_bytes(p, len);
}

struct secret *secret_random(void)
{
	struct secret *s = secret_new();

	if (s)
		(void)!random_bytes(s->b, SECRET_LEN);
	return s;
}

static struct store_keys store_keys(void)
{
	struct store_keys k = {.k_seal = common.seal, .k_hint = common.hint, .k_rec = common.rec, .k_log = common.log, .kas = common.kas, .policy = POLICY};

	memcpy(k.volume_id, common.volume_id, ID_LEN);
	return k;
}

void world_setup(void)
{
	struct secret *vk = secret_random();

	report_limit(REPORT_ERROR);
	common.seal = derive(vk, "seal");
	common.hint = derive(vk, "hint");
	common.rec = derive(vk, "rec");
	common.log = derive(vk, "log");
	secret_free(vk);
	memset(common.volume_id, 7, ID_LEN);
	common.kas = kas_new();
	MUST(kas_add_local(common.kas, "e1", KAS_URL_DEFAULT, pubkey_new_ec()));
	for (int m = 0; m < 2; m++) {
		struct simdisk *d = common.fresh[m] = simdisk_new(m ? SIM_POSIX : SIM_EXT4);
		int root = simdisk_root(d), tdfs;

		MUST(simdisk_mkdir(d, root, ".tdfs"));
		tdfs = simdisk_io(d)->open(d, root, ".tdfs", O_RDONLY | O_DIRECTORY, 0);
		MUST(tdfs);
		MUST(redo_create(simdisk_io(d), tdfs, WORLD_HALF));
		simdisk_sync(d);
	}
}

void world_teardown(void)
{
	simdisk_free(common.fresh[0]);
	simdisk_free(common.fresh[1]);
	kas_free(common.kas);
	secret_free(common.seal);
	secret_free(common.hint);
	secret_free(common.rec);
	secret_free(common.log);
}

static bool tracing;

void world_trace(void)
{
	tracing = true;
}

#define TRACE(w, fmt, ...)                                                                                                                 \
	do {                                                                                                                               \
		if (tracing)                                                                                                               \
			fprintf(stderr, "  " fmt "\n", __VA_ARGS__);                                                                       \
	} while (0)

void world_violation(struct world *w, const char *fmt, ...)
{
	va_list ap;

	if (!w->violations++) {
		va_start(ap, fmt);
		vsnprintf(w->why, sizeof(w->why), fmt, ap);
		va_end(ap);
		TRACE(w, "VIOLATION %s", w->why);
	}
}

uint64_t world_hash(const uint8_t *p, size_t len)
{
	uint64_t h = 0x9E3779B97F4A7C15u ^ len, v;

	for (; len >= 8; p += 8, len -= 8) {
		memcpy(&v, p, 8);
		h = (h ^ v) * 0x9FB21C651E98DF25u;
		h ^= h >> 29;
	}
	for (; len; p++, len--)
		h = (h ^ *p) * 0x100000001B3u;
	return h ^ h >> 31;
}

/* --- stores ------------------------------------------------------------------------------------------------------------------ */

static int open_store(struct simdisk *d, bool live_mark, int *ret_root, int *ret_tdfs, struct store **ret)
{
	struct store_options opt = {
		.segment_size = WORLD_S,
		.live_mark = live_mark,
		.cache_bytes = (size_t)1 << 20,
		.dirty_bytes = (size_t)64 << 20,
		.no_threads = true,
	};
	struct store_keys keys = store_keys();

	*ret_root = simdisk_root(d);
	*ret_tdfs = simdisk_io(d)->open(d, *ret_root, ".tdfs", O_RDONLY | O_DIRECTORY, 0);
	MUST(*ret_tdfs);
	return store_open(simdisk_io(d), *ret_root, *ret_tdfs, &keys, &opt, NULL, NULL, ret);
}

static void before_sync(void *arg)
{
	struct world *w = arg;
	void (*meanwhile)(struct world *) = w->meanwhile;

	if (w->inside)
		return;
	w->meanwhile = NULL;
	if (meanwhile)
		meanwhile(w);
	if ( !w->per_point || simdisk_random(&w->rnd) % w->one_in)
		return;
	world_look(w, w->per_point);
}

struct world *world_new(enum sim_mode mode, bool live_mark, uint64_t seed)
{
	struct world *w = calloc(1, sizeof(*w));

	if (!w)
		abort();
	random_state = seed;
	w->mode = mode;
	w->live_mark = live_mark;
	w->rnd = seed;
	w->one_in = 1;
	w->syncing = -1;
	for (int i = 0; i < WORLD_FILES; i++) {
		snprintf(w->files[i].name, sizeof(w->files[i].name), "%c", 'a' + i);
		w->files[i].ok.absent = true;
	}
	world_mount(w, simdisk_copy(common.fresh[mode == SIM_POSIX]));
	return w;
}

void world_mount(struct world *w, struct simdisk *d)
{
	w->disk = d;
	MUST(open_store(d, w->live_mark, &w->root, &w->tdfs, &w->st));
	simdisk_hook(d, before_sync, w);
}

/* Close whatever is open, without a hook and without letting anything that happens now count. */
static void drop_store(struct world *w)
{
	simdisk_hook(w->disk, NULL, NULL);
	for (int i = 0; i < WORLD_FILES; i++) {
		struct wfile *x = &w->files[i];

		if (x->f) {
			inode_closed(x->f, true);
			inode_put(x->f);
		}
		x->f = NULL;
		x->seal_step = 0;
	}
	(void)!store_close(w->st);
	w->st = NULL;
}

void world_power_off(struct world *w)
{
	/* the engine goes on with a copy: what it does while it is closed is not seen */
	struct simdisk *at = simdisk_copy(w->disk);

	drop_store(w);
	simdisk_free(w->disk);
	w->disk = at;
}

void world_free(struct world *w)
{
	if (w->st)
		drop_store(w);
	simdisk_free(w->disk);
	for (int i = 0; i < WORLD_FILES; i++) {
		free(w->files[i].plain);
		free(w->files[i].ok.hash);
	}
	free(w);
}

int world_read(struct store *st, int root, const char *name, uint64_t *ret_hash, uint8_t **ret, uint64_t *ret_size)
{
	struct inode *f;
	struct stat s = {0};
	uint8_t *buf;
	ssize_t n;
	int err = inode_get(st, root, name, false, name, &f);

	if (err)
		return err;
	inode_stat(f, &s);
	buf = malloc((size_t)s.st_size + 1);
	if (!buf)
		abort();
	n = inode_read(f, buf, (size_t)s.st_size + 1, 0);
	inode_put(f);
	if (n >= 0 && n != s.st_size)
		n = -EIO;
	if (n >= 0) {
		*ret_hash = world_hash(buf, (size_t)n);
		if (ret)
			*ret_size = (uint64_t)n;
	}
	if (n >= 0 && ret)
		*ret = buf;
	else
		free(buf);
	return n < 0 ? (int)n : 0;
}

/* --- what may be seen -------------------------------------------------------------------------------------------------------- */

static void states_add(struct states *s, uint64_t hash)
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
			states_add(&w->files[k].ok, hash);
	if (i == w->syncing && w->n_during < ARRAY_SIZE(w->during))
		w->during[w->n_during++] = hash;
}

static void may_see_current(struct world *w, int i)
{
	may_see(w, i, world_hash(w->files[i].plain, w->files[i].size));
}

static void only_current(struct world *w, int i)
{
	struct wfile *x = &w->files[i];

	x->ok.n = 0;
	x->ok.absent = x->ok.nothing = x->ok.damaged = false;
	x->aliases = 0;
	states_add(&x->ok, world_hash(x->plain, x->size));
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
	MUST(inode_create(w->st, w->root, x->name, 0644, x->name, &x->f));
	inode_opened(x->f, true);
}

void world_open(struct world *w, int i)
{
	struct wfile *x = &w->files[i];

	TRACE(w, "open %s", x->name);
	MUST(inode_get(w->st, w->root, x->name, true, x->name, &x->f));
	inode_opened(x->f, true);
}

void world_close(struct world *w, int i)
{
	struct wfile *x = &w->files[i];

	TRACE(w, "close %s", x->name);
	MUST(inode_flush(x->f));
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
	MUST(inode_write(x->f, x->plain + off, len, off));
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
	MUST(inode_truncate(x->f, size));
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
	only_current(w, i);
	x->ok.n = 0;
	states_add(&x->ok, hash);
	for (size_t k = 0; k < w->n_during; k++)
		states_add(&x->ok, w->during[k]);
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
		MUST(inode_before_rename(f));
		inode_put(f);
		only_current(w, i);
		return;
	}
	fd = io->open(io->ctx, w->root, w->files[i].name, O_RDONLY, 0);
	MUST(fd);
	MUST(io->sync(io->ctx, fd, false));
	io->close(io->ctx, fd);
}

static void gone(struct world *w, int i)
{
	struct wfile *x = &w->files[i];
	struct inode *f = live(w, x->name);

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
		old = live(w, b->name);
		if (old)
			inode_put(old);
	}
	/* what is seen under the new name: what was there, or the content that moves in; under the old one also nothing */
	for (size_t k = 0; k < a->ok.n; k++)
		states_add(&b->ok, a->ok.hash[k]);
	if (!b->exists)
		b->ok.absent = b->ok.nothing = true;
	b->ok.damaged |= a->ok.damaged;
	a->ok.absent = true;
	f = live(w, a->name);
	if (b->exists)
		gone(w, to);
	MUST(io->rename(io->ctx, w->root, a->name, w->root, b->name, 0));
	if (f) {
		inode_renamed(f, b->name);
		inode_changed(f);
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

	TRACE(w, "unlink %s", x->name);
	x->ok.absent = true;
	gone(w, i); /* looks the inode up by its name, so before */
	MUST(io->unlink(io->ctx, w->root, x->name, 0));
}

void world_seal(struct world *w, int i, bool commit)
{
	struct inode *f = live(w, w->files[i].name);

	TRACE(w, "seal %s %d", w->files[i].name, commit);
	if (!f)
		return;
	(void)!writeback_seal(w->st, &f, 1, commit);
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
	if (err && err != -EAGAIN)
		world_violation(w, "step %d of a seal of %s: %s", x->seal_step, x->name, strerror(-err));
}

void world_sync(struct world *w)
{
	TRACE(w, "sync%s", "");
	MUST(store_sync(w->st));
	for (int i = 0; i < WORLD_FILES; i++) {
		struct wfile *x = &w->files[i];

		if (x->exists) {
			only_current(w, i);
		} else {
			x->ok.n = 0;
			x->ok.absent = true;
			x->ok.nothing = x->ok.damaged = false;
		}
	}
}

/* --- looking ----------------------------------------------------------------------------------------------------------------- */

struct nested {
	struct world *w;
	struct simdisk *d;
	unsigned depth;
	uint64_t rnd;
};

static void inside_recovery(void *arg)
{
	struct nested *n = arg;

	if (n->depth < WORLD_DEPTH && !(simdisk_random(&n->rnd) % 3))
		world_check(n->w, simdisk_crash(n->d, simdisk_random(&n->rnd)), n->depth + 1);
}

static void compare(struct world *w, struct store *st, int root, unsigned depth)
{
	for (int i = 0; i < WORLD_FILES; i++) {
		struct wfile *x = &w->files[i];
		uint64_t hash = 0;
		int err;
		bool ok;

		fail_clear();
		err = world_read(st, root, x->name, &hash, NULL, NULL);
		if (err == -ENOENT) {
			ok = x->ok.absent;
		} else if (err == -ENODATA) {
			ok = x->ok.nothing;
		} else if (err) {
			ok = x->ok.damaged;
		} else {
			ok = false;
			for (size_t k = 0; k < x->ok.n && !ok; k++)
				ok = x->ok.hash[k] == hash;
		}
		if (!ok)
			world_violation(w, "%s, crash %u deep: %s %s%s%s; %zu states are allowed%s%s%s", w->mode == SIM_EXT4 ? "ext4" : "posix", depth, x->name,
					err == -ENOENT    ? "is gone"
					: err == -ENODATA ? "was never committed"
					: err		  ? strerror(-err)
							  : "reads something else",
					err ? ": " : "", err ? fail_text() : "", x->ok.n, x->ok.absent ? ", absent" : "",
					x->ok.nothing ? ", never committed" : "", x->ok.damaged ? ", damaged" : "");
	}
}

void world_check(struct world *w, struct simdisk *d, unsigned depth)
{
	struct nested n = {w, d, depth, simdisk_random(&w->rnd)};
	struct store *st = NULL;
	uint64_t first;
	int root, tdfs, err;

	w->states++;
	simdisk_hook(d, inside_recovery, &n);
	fail_clear();
	err = open_store(d, w->live_mark, &root, &tdfs, &st);
	simdisk_hook(d, NULL, NULL);
	if (err)
		world_violation(w, "%s, crash %u deep: the store does not open: %s: %s", w->mode == SIM_EXT4 ? "ext4" : "posix", depth,
				err < 0 ? strerror(-err) : "log damaged", fail_text());
	if (err < 0) {
		simdisk_free(d);
		return;
	}
	compare(w, st, root, depth);
	first = simdisk_hash(d);
	(void)!store_close(st);
	if (!err && n.rnd % 8 == 0) { /* recovery twice is recovery once */
		err = open_store(d, w->live_mark, &root, &tdfs, &st);
		if (!err && simdisk_hash(d) != first)
			world_violation(w, "a second recovery changes the files");
		if (!err)
			(void)!store_close(st);
	}
	simdisk_free(d);
}

void world_look(struct world *w, unsigned n)
{
	w->inside = true;
	for (unsigned i = 0; i < n; i++)
		world_check(w, simdisk_crash(w->disk, simdisk_random(&w->rnd)), 0);
	w->inside = false;
}

void world_crash(struct world *w)
{
	struct simdisk *d = simdisk_crash(w->disk, simdisk_random(&w->rnd));

	TRACE(w, "crash%s", "");
	drop_store(w);
	simdisk_free(w->disk);
	w->inside = true;
	world_check(w, simdisk_copy(d), 0);
	w->inside = false;
	world_mount(w, d);
	for (int i = 0; i < WORLD_FILES; i++) {
		struct wfile *x = &w->files[i];
		uint64_t hash, size;
		uint8_t *buf = NULL;
		int err = world_read(w->st, w->root, x->name, &hash, &buf, &size);
		const struct io *io = simdisk_io(w->disk);

		x->exists = false;
		x->aliases = 0;
		x->ok.n = 0;
		x->ok.nothing = x->ok.damaged = false;
		x->ok.absent = true;
		if (!err) {
			free(x->plain);
			x->plain = buf;
			x->size = x->cap = size;
			x->exists = true;
			only_current(w, i);
		} else if (err != -ENOENT) { /* never committed: the user removes it */
			MUST(io->unlink(io->ctx, w->root, x->name, 0));
		}
	}
	simdisk_sync(w->disk);
}
