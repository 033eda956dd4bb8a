/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>

#include "random.h"
#include "report.h"
#include "world_i.h"

#define POLICY "eyJ1dWlkIjoiMDAwMDAwMDAtMDAwMC00MDAwLTgwMDAtMDAwMDAwMDAwMDAwIiwiYm9keSI6eyJkYXRhQXR0cmlidXRlcyI6W10sImRpc3NlbSI6W119fQ=="

static struct {
	struct secret *seal, *hint, *rec, *log;
	struct kas *kas;
	uint8_t volume_id[ID_LEN];
	struct simdisk *fresh[2][2]; /* by mode; by size of the log */
} common;

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
	struct store_keys k = {
	    .k_seal = common.seal, .k_hint = common.hint, .k_rec = common.rec, .k_log = common.log, .kas = common.kas, .policy = POLICY};

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
	for (int m = 0; m < 4; m++) {
		struct simdisk *d = common.fresh[m & 1][m >> 1] = simdisk_new(m & 1 ? SIM_POSIX : SIM_EXT4);
		int root = simdisk_root(d), tdfs;

		MUST(simdisk_mkdir(d, root, ".tdfs"));
		tdfs = simdisk_io(d)->open(d, root, ".tdfs", O_RDONLY | O_DIRECTORY, 0);
		MUST(tdfs);
		MUST(redo_create(simdisk_io(d), tdfs, m >> 1 ? WORLD_HALF_SMALL : WORLD_HALF));
		simdisk_sync(d);
	}
}

void world_teardown(void)
{
	for (int m = 0; m < 4; m++)
		simdisk_free(common.fresh[m & 1][m >> 1]);
	kas_free(common.kas);
	secret_free(common.seal);
	secret_free(common.hint);
	secret_free(common.rec);
	secret_free(common.log);
}

bool world_tracing;

void world_trace(void)
{
	world_tracing = true;
}

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
	return simdisk_mix(0x9E3779B97F4A7C15u ^ len, p, len);
}

/* --- stores ------------------------------------------------------------------------------------------------------------------ */

static void tell_event(void *arg, const char *path, const char *text)
{
	fprintf(stderr, "    recovery: %s: %s\n", path, text);
}

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
	return store_open(simdisk_io(d), *ret_root, *ret_tdfs, &keys, &opt, world_tracing ? tell_event : NULL, NULL, ret);
}

static void before_sync(void *arg, const char *name)
{
	struct world *w = arg;
	void (*meanwhile)(struct world *) = w->meanwhile;

	if (w->inside)
		return;
	/* no file's lock is held while the log is flushed */
	if (meanwhile && !strncmp(name, "log.", 4)) {
		w->meanwhile = NULL;
		meanwhile(w);
	}
	if (!w->per_point || simdisk_random(&w->rnd) % w->one_in)
		return;
	world_look(w, w->per_point);
}

struct world *world_new(enum sim_mode mode, bool live_mark, bool small, uint64_t seed)
{
	struct world *w = calloc(1, sizeof(*w));

	if (!w)
		abort();
	random_state = seed;
	w->mode = mode;
	w->live_mark = live_mark;
	w->small = small;
	w->rnd = seed;
	w->one_in = 1;
	w->syncing = -1;
	for (int i = 0; i < WORLD_FILES; i++) {
		snprintf(w->files[i].name, sizeof(w->files[i].name), "%c", 'a' + i);
		w->files[i].ok.absent = true;
	}
	world_mount(w, simdisk_copy(common.fresh[mode == SIM_POSIX][small]));
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

/* --- looking ----------------------------------------------------------------------------------------------------------------- */

struct nested {
	struct world *w;
	struct simdisk *d;
	unsigned depth;
	uint64_t rnd;
};

static void inside_recovery(void *arg, const char *name)
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
			world_violation(w, "%s, crash %u deep: %s %s%s%s; %zu states are allowed%s%s%s",
					w->mode == SIM_EXT4 ? "ext4" : "posix", depth, x->name,
					err == -ENOENT    ? "is gone"
					: err == -ENODATA ? "was never committed"
					: err             ? strerror(-err)
							  : "reads something else",
					err ? ": " : "", err ? fail_text() : "", x->ok.n, x->ok.absent ? ", absent" : "",
					x->ok.nothing ? ", never committed" : "", x->ok.damaged ? ", damaged" : "");
	}
}

static int is_left(void *arg, const char *name, unsigned char type, ino_t ino)
{
	return !strncmp(name, "whole-", 6);
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
	if (!err && simdisk_io(d)->list(d, tdfs, is_left, NULL))
		world_violation(w, "a copy that nobody needs is still there after a recovery");
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
			world_only_current(w, i);
		} else if (err != -ENOENT) { /* never committed: the user removes it */
			MUST(io->unlink(io->ctx, w->root, x->name, 0));
		}
	}
	simdisk_sync(w->disk);
}
