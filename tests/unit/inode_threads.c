/* SPDX-License-Identifier: Apache-2.0 */
/* Many threads on few files with the writeback thread running: meant for TSan; each byte range has one owner, so contents can be checked.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>

#include "inode.h"
#include "report.h"
#include "store_setup.h"
#include "writeback.h"

#define THREADS 6
#define FILES 3
#define RANGE 200000u
#define CHECK(x)                                                                                              \
	do {                                                                                                  \
		if (!(x)) {                                                                                   \
			fprintf(stderr, "%s:%d: %s (errno text: %s)\n", __FILE__, __LINE__, #x, fail_text()); \
			abort();                                                                              \
		}                                                                                             \
	} while (0)

struct world {
	struct store *st;
	int root;
	unsigned seed, rounds;
};
struct worker {
	struct world *w;
	unsigned no;
	uint8_t plain[FILES][RANGE];
	pthread_t thread;
};

static void name_of(unsigned i, char *ret)
{
	snprintf(ret, 32, "f%u.tdf", i);
}

static struct inode *get(struct world *w, unsigned i, bool write)
{
	struct inode *f;
	char name[32];

	name_of(i, name);
	CHECK(!inode_get(w->st, w->root, name, write, name, &f));
	inode_opened(f, write);
	return f;
}

static void put(struct inode *f, bool write)
{
	CHECK(!inode_flush(f));
	inode_closed(f, write);
	inode_put(f);
}

static void own_file(struct world *w, unsigned no, unsigned round, unsigned *seed)
{
	char name[32];
	struct inode *f;
	uint8_t b[5000], back[5000];
	size_t len = 1 + (unsigned)rand_r(seed) % sizeof(b);

	snprintf(name, sizeof(name), "own%u-%u.tdf", no, round % 7);
	unlinkat(w->root, name, 0);
	for (size_t i = 0; i < len; i++)
		b[i] = (uint8_t)rand_r(seed);
	if (inode_create(w->st, w->root, name, 0600, name, &f))
		return; /* still known under its old inode number: not what this test is about */
	inode_opened(f, true);
	CHECK(!inode_write(f, b, len, 0));
	if (round % 3 == 0)
		CHECK(!inode_fsync(f, false));
	CHECK(inode_read(f, back, sizeof(back), 0) == (ssize_t)len && !memcmp(b, back, len));
	put(f, true);
}

static void *run(void *arg)
{
	struct worker *me = arg;
	struct world *w = me->w;
	unsigned seed = w->seed * 1000 + me->no;

	for (unsigned round = 0; round < w->rounds; round++) {
		unsigned i = (unsigned)rand_r(&seed) % FILES;
		struct inode *f = get(w, i, true);
		uint64_t base = (uint64_t)me->no * RANGE;
		uint32_t off = (unsigned)rand_r(&seed) % RANGE, len = 1 + (unsigned)rand_r(&seed) % (RANGE - off);
		CLEANUP_FREE uint8_t *back = malloc(RANGE);

		for (uint32_t k = 0; k < len; k++)
			me->plain[i][off + k] = (uint8_t)(rand_r(&seed) >> 3);
		CHECK(!inode_write(f, me->plain[i] + off, len, base + off));
		if (rand_r(&seed) % 4 == 0)
			CHECK(!inode_fsync(f, true));
		CHECK(inode_read(f, back, len, base + off) == (ssize_t)len);
		CHECK(!memcmp(back, me->plain[i] + off, len));
		if (rand_r(&seed) % 50 == 0)
			CHECK(!store_sync(w->st));
		put(f, true);
		own_file(w, me->no, round, &seed);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	struct store_options opt = {.segment_size = 16384, .live_mark = true, .cache_bytes = 1 << 20, .dirty_bytes = 4 << 20};
	struct bed bed = {0};
	struct world w = {.seed = argc > 1 ? (unsigned)atoi(argv[1]) : (unsigned)getpid(),
			  .rounds = argc > 2 ? (unsigned)atoi(argv[2]) : 60};
	struct worker *workers = calloc(THREADS, sizeof(*workers));

	printf("seed %u (replay: %s %u %u)\n", w.seed, argv[0], w.seed, w.rounds);
	bed_make(&bed);
	w.root = bed.root;
	CHECK(!store_open(&bed.io, bed.root, bed.tdfs, &bed.keys, &opt, NULL, NULL, &w.st));
	for (unsigned i = 0; i < FILES; i++) {
		char name[32];
		struct inode *f;

		name_of(i, name);
		CHECK(!inode_create(w.st, w.root, name, 0600, name, &f));
		inode_opened(f, true);
		put(f, true);
	}
	for (unsigned i = 0; i < THREADS; i++) {
		workers[i].w = &w;
		workers[i].no = i;
		CHECK(!pthread_create(&workers[i].thread, NULL, run, &workers[i]));
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(workers[i].thread, NULL);
	CHECK(!store_close(w.st));
	CHECK(!store_open(&bed.io, bed.root, bed.tdfs, &bed.keys, &opt, NULL, NULL, &w.st));
	for (unsigned i = 0; i < FILES; i++) {
		struct inode *f = get(&w, i, false);

		for (unsigned k = 0; k < THREADS; k++) {
			CLEANUP_FREE uint8_t *back = calloc(1, RANGE);

			CHECK(inode_read(f, back, RANGE, (uint64_t)k * RANGE) >= 0);
			CHECK(!memcmp(back, workers[k].plain[i], RANGE));
		}
		put(f, false);
	}
	CHECK(!store_close(w.st));
	bed_remove(&bed);
	free(workers);
	return 0;
}
