/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The smallest log, and threads that grow, overwrite, cut, remove and fsync many files: no call may say that there is no room in the log,
 * and none may take for ever.  log_room [SEED [ROUNDS [SEEDS]]]
 *
 * Each byte written is a function of its place, so that a byte read is that or the zero of a truncate, whoever wrote it.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>

#include "inode.h"
#include "report.h"
#include "share.h"
#include "store_setup.h"

#define THREADS 8
#define FILES_MAX 40
#define WRITE_MAX (1u << 20) /* the largest that the kernel sends */
#define SIZE_MAX_HERE (24u << 20)
#define STUCK 60 /* seconds for one call */

struct world {
	struct bed bed;
	struct store *st;
	unsigned seed, rounds, files;
	struct store_options opt;
	struct mutex names; /* as the mount's name locks: a name and its object come and go together */
	_Atomic unsigned done;
	_Atomic bool bad;
};

struct worker {
	struct world *w;
	pthread_t thread;
	unsigned seed;
	const char *_Atomic what;
	_Atomic uint64_t calls;
	uint8_t buf[WRITE_MAX];
};

static unsigned draw(struct worker *me, unsigned n)
{
	return (unsigned)rand_r(&me->seed) % n;
}

static uint8_t byte_at(uint64_t off)
{
	return (uint8_t)(off * 0x9E3779B97F4A7C15u >> 56) | 1;
}

static void fill(uint8_t *p, uint64_t off, size_t len)
{
	for (size_t i = 0; i < len; i++)
		p[i] = byte_at(off + i);
}

static void check(struct worker *me, struct inode *f, unsigned i)
{
	uint64_t off = draw(me, SIZE_MAX_HERE);
	ssize_t n = inode_read(f, me->buf, 1 + draw(me, WRITE_MAX), off);

	for (ssize_t k = 0; k < n; k++) {
		if (me->buf[k] && me->buf[k] != byte_at(off + (uint64_t)k)) {
			fprintf(stderr, "seed %u: f%u reads something else at %llu\n", me->w->seed, i,
				(unsigned long long)off + (unsigned long long)k);
			me->w->bad = true;
			return;
		}
	}
}

/* @err: of a call on file @i */
static void must(struct worker *me, unsigned i, int err)
{
	me->calls++;
	if (!err)
		return;
	fprintf(stderr, "seed %u: %s of f%u: %s: %s\n", me->w->seed, me->what, i, strerror(-err), fail_text());
	me->w->bad = true;
}

static struct inode *get(struct worker *me, unsigned i)
{
	struct world *w = me->w;
	struct inode *f = NULL;
	char name[32];
	int err = 0;

	snprintf(name, sizeof(name), "f%u.tdf", i);
	me->what = "open";
	mutex_lock(&w->names);
	err = inode_get(w->st, w->bed.root, name, true, name, &f);
	if (err == -ENOENT) {
		fail_clear();
		err = inode_create(w->st, w->bed.root, name, 0600, name, &f);
	}
	mutex_unlock(&w->names);
	must(me, i, err);
	if (err)
		return NULL;
	inode_opened(f, true);
	return f;
}

static void put(struct worker *me, struct inode *f, unsigned i)
{
	me->what = "flush";
	must(me, i, inode_flush(f));
	inode_closed(f, true);
	inode_put(f);
}

static void unlink_file(struct worker *me, struct inode *f, unsigned i)
{
	char name[32];
	struct stat s;

	me->what = "unlink";
	snprintf(name, sizeof(name), "f%u.tdf", i);
	mutex_lock(&me->w->names);
	if (!fstatat(me->w->bed.root, name, &s, 0) && s.st_ino == inode_ino(f) && !unlinkat(me->w->bed.root, name, 0))
		inode_unlinked(f);
	mutex_unlock(&me->w->names);
	me->calls++;
}

static void write_some(struct worker *me, struct inode *f, unsigned i, uint64_t off)
{
	size_t len = draw(me, 3) ? 1 + draw(me, WRITE_MAX) : 1 + draw(me, 5000);

	fill(me->buf, off, len);
	me->what = "write";
	must(me, i, inode_write(f, me->buf, len, off));
}

static void change(struct worker *me, struct inode *f, unsigned i)
{
	uint64_t size = inode_size(f);
	unsigned r = draw(me, 100), rewrites = 1 + draw(me, 12);

	if (size > SIZE_MAX_HERE || r < 5) {
		me->what = "truncate";
		must(me, i, inode_truncate(f, r & 1 ? 0 : draw(me, (unsigned)size + 1)));
	} else if (r < 10) {
		me->what = "truncate";
		must(me, i, inode_truncate(f, size + draw(me, 6u << 20)));
	} else if (r < 50) {
		for (unsigned k = 0; k < rewrites; k++) { /* on at the end, and behind what others write there */
			write_some(me, f, i, size + (uint64_t)k * WRITE_MAX);
			if (draw(me, 2))
				write_some(me, f, i, draw(me, (unsigned)size + k * WRITE_MAX + 1));
		}
	} else if (r < 80) {
		for (unsigned k = 0; k < rewrites; k++)
			write_some(me, f, i, draw(me, (unsigned)size + 1));
	} else if (r < 82) {
		unlink_file(me, f, i);
	} else {
		check(me, f, i);
	}
	if (r % 3 == 0) {
		me->what = "fsync";
		must(me, i, inode_fsync(f, r & 1));
	}
}

static void *run(void *arg)
{
	struct worker *me = arg;
	struct world *w = me->w;

	for (unsigned k = 0; k < w->rounds && !w->bad; k++) {
		unsigned i = draw(me, w->files), n = 1 + draw(me, 6);
		struct inode *f = get(me, i);

		for (; f && n && !w->bad; n--)
			change(me, f, i);
		if (f)
			put(me, f, i);
		if (!draw(me, 100)) {
			me->what = "sync";
			must(me, i, store_sync(w->st));
		}
	}
	w->done++;
	return NULL;
}

static int no_sync(void *ctx, int fd, bool full)
{
	return 0;
}

static int no_syncfs(void *ctx, int fd)
{
	return 0;
}

/* A call that does not come back is the worst that can happen: say which, and give up. */
static void watch(struct world *w, struct worker *workers)
{
	uint64_t before[THREADS] = {0};
	unsigned idle[THREADS] = {0};

	while (w->done < THREADS) {
		usleep(100000);
		for (unsigned i = 0; i < THREADS; i++) {
			idle[i] = workers[i].calls == before[i] ? idle[i] + 1 : 0;
			before[i] = workers[i].calls;
			if (idle[i] > STUCK * 10 && w->done < THREADS && workers[i].what) {
				fprintf(stderr, "seed %u: %s takes for ever\n", w->seed, workers[i].what);
				abort();
			}
		}
	}
}

static void must_close(struct world *w)
{
	int err = store_close(w->st);

	if (!err)
		return;
	fprintf(stderr, "seed %u: close: %s: %s\n", w->seed, strerror(-err), fail_text());
	w->bad = true;
}

static bool one_seed(unsigned seed, unsigned rounds)
{
	static const uint32_t segments[] = {16384, 32768, 32768, 262144, 2 << 20, SEG_MAX};
	struct world w = {.seed = seed, .rounds = rounds, .files = 1 + seed * 7 % FILES_MAX};
	struct worker *workers = calloc(THREADS, sizeof(*workers));

	bed_must(workers);
	mutex_init(&w.names);
	w.opt = (struct store_options){.segment_size = segments[seed % ARRAY_SIZE(segments)],
				       .strict = seed / 6 % 4 == 1,
				       .live_mark = true,
				       .cache_bytes = 1 << 20,
				       .dirty_bytes = (size_t)(seed & 8 ? 8 : 64) << 20};
	bed_make(&w.bed);
	w.bed.io.sync = no_sync; /* what is durable is not what this is about */
	w.bed.io.syncfs = no_syncfs;
	bed_must(!store_open(&w.bed.io, w.bed.root, w.bed.tdfs, &w.bed.keys, &w.opt, NULL, NULL, &w.st));
	for (unsigned i = 0; i < THREADS; i++) {
		workers[i].w = &w;
		workers[i].seed = seed * 1000 + i;
	}
	for (unsigned i = 0; i < THREADS; i++)
		bed_must(!pthread_create(&workers[i].thread, NULL, run, &workers[i]));
	watch(&w, workers);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(workers[i].thread, NULL);
	must_close(&w);
	bed_must(!store_open(&w.bed.io, w.bed.root, w.bed.tdfs, &w.bed.keys, &w.opt, NULL, NULL, &w.st));
	for (unsigned i = 0; i < w.files && !w.bad; i++) {
		struct inode *f = get(&workers[0], i);

		if (f) {
			check(&workers[0], f, i);
			put(&workers[0], f, i);
		}
	}
	must_close(&w);
	bed_remove(&w.bed);
	mutex_destroy(&w.names);
	free(workers);
	return !w.bad;
}

int main(int argc, char **argv)
{
	unsigned seed = argc > 1 ? (unsigned)atoi(argv[1]) : (unsigned)getpid(), rounds = argc > 2 ? (unsigned)atoi(argv[2]) : 12;
	bool more = getenv("TDFS_BUDGET") && !strcmp(getenv("TDFS_BUDGET"), "long");
	unsigned n = argc > 3 ? (unsigned)atoi(argv[3]) : more ? 20 : 1, bad = 0;

	rounds = (rounds + share_step() - 1) / share_step();
	report_limit(REPORT_ERROR);
	for (unsigned k = 0; k < n && bad < 3; k++) {
		printf("seed %u (replay: %s %u %u)\n", seed + k, argv[0], seed + k, rounds);
		fflush(stdout);
		bad += !one_seed(seed + k, rounds);
	}
	return bad != 0;
}
