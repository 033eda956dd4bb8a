/* SPDX-License-Identifier: Apache-2.0 */
/* The volume log: group commit, space. */
#include "redo_setup.h"

static void test_read_back(void **state)
{
	struct bed *b = *state;
	uint8_t *bytes[3] = {pattern(70000, 1), pattern(28, 2), pattern(65564, 3)}, *got = malloc(70000);
	struct redo_rec recs[3] = {image_rec(1, 0, bytes[0], 70000), image_rec(1, 1, bytes[1], 28), image_rec(1, 2, bytes[2], 65564)};
	struct redo_pin pin = {0};
	struct redo_loc locs[3], again[3];
	uint64_t lsn, lsn2;

	assert_int_equal(redo_append(b->r, recs, 3, &pin, 5000, false, &lsn, locs), 0);
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 3; i++) {
			memset(got, 0, 70000);
			assert_int_equal(redo_read(b->r, &locs[i], got), 0);
			assert_memory_equal(got, bytes[i], locs[i].len);
		}
		if (round == 0)
			assert_int_equal(redo_flush(b->r, lsn), 0);
		else if (round == 1)
			assert_int_equal(redo_append(b->r, recs, 3, &pin, 0, false, &lsn2, again), 0);
	}
	assert_int_equal(lsn2, lsn + 1);
	assert_int_equal(redo_read(b->r, &again[2], got), 0);
	assert_memory_equal(got, bytes[2], 65564);
	assert_int_equal(redo_flush(b->r, lsn), 0); /* nothing to do */
	assert_int_equal(redo_flush(b->r, lsn2 + 5), -EINVAL);
	assert_int_equal(redo_retire(b->r), -EBUSY);
	redo_unpin(b->r, &pin);
	assert_int_equal(redo_retire(b->r), 0);
	for (int i = 0; i < 3; i++)
		free(bytes[i]);
	free(got);
}

struct flusher {
	struct bed *b;
	unsigned no, done;
};

#define FLUSHES 200

static void *flusher_run(void *arg)
{
	struct flusher *f = arg;
	uint8_t *bytes = pattern(300, f->no), *got = malloc(300);
	struct redo_pin pin = {0};

	for (unsigned i = 0; i < FLUSHES; i++) {
		struct redo_rec rec = image_rec(f->no, i, bytes, 300);
		struct redo_loc loc;
		uint64_t lsn;

		bytes[0] = (uint8_t)i;
		if (redo_append(f->b->r, &rec, 1, &pin, 100, false, &lsn, &loc) || redo_flush(f->b->r, lsn) ||
		    redo_read(f->b->r, &loc, got) || memcmp(got, bytes, 300))
			break;
		f->done++;
	}
	redo_unpin(f->b->r, &pin);
	free(bytes);
	free(got);
	return NULL;
}

static void test_group_commit(void **state)
{
	struct bed *b = *state;
	struct flusher f[8];
	pthread_t t[8];
	unsigned before = b->syncs;
	uint64_t flushes, bytes;

	b->slow = 200;
	for (unsigned i = 0; i < 8; i++) {
		f[i] = (struct flusher){b, i, 0};
		assert_int_equal(pthread_create(&t[i], NULL, flusher_run, &f[i]), 0);
	}
	for (unsigned i = 0; i < 8; i++) {
		pthread_join(t[i], NULL);
		assert_int_equal(f[i].done, FLUSHES);
	}
	redo_stats(b->r, &flushes, &bytes);
	assert_int_equal(flushes, b->syncs - before); /* one sync for each flush of the log ... */
	assert_true(flushes >= FLUSHES);
	assert_true(flushes <= 8 * FLUSHES / 2); /* ... and several callers share one */
	print_message("%u flushes by 8 threads: %u syncs\n", 8 * FLUSHES, (unsigned)flushes);
	assert_int_equal(redo_retire(b->r), 0);
}

/* Threads that fill the log several times over, each holding its last few groups only; changes of half, buried pins and reading back in
 * between. */
static void *wrapper_run(void *arg)
{
	struct flusher *f = arg;
	uint8_t *bytes = pattern(150000, f->no), *got = malloc(150000);
	struct redo_pin pin = {0};

	for (unsigned i = 0; i < 120; i++) {
		struct redo_rec recs[2] = {image_rec(f->no, i, bytes, 150000), image_rec(f->no, i, bytes, 1000 + i)};
		struct redo_loc locs[2];
		uint64_t lsn;
		int err;

		memset(bytes, (int)i, 16);
		err = redo_append(f->b->r, recs, 2, &pin, 20000, false, &lsn, locs);
		if (err == -EAGAIN) { /* "sealed", or unlinked */
			if (i & 1)
				redo_unpin(f->b->r, &pin);
			else
				redo_bury(f->b->r, &pin);
			i--;
			usleep(100);
			continue;
		}
		if (err || (i % 3 && redo_flush(f->b->r, lsn)) || redo_read(f->b->r, &locs[0], got) || memcmp(got, bytes, 150000))
			break;
		if (i % 5 == 4 && (redo_read(f->b->r, &locs[1], got) || memcmp(got, bytes, 1000 + i)))
			break;
		if (i % 7 == 6)
			redo_unpin(f->b->r, &pin);
		f->done++;
	}
	redo_bury(f->b->r, &pin);
	free(bytes);
	free(got);
	return NULL;
}

static void test_threads_wrap(void **state)
{
	struct bed *b = *state;
	struct flusher f[4];
	pthread_t t[4];

	for (unsigned i = 0; i < 4; i++) {
		f[i] = (struct flusher){b, i, 0};
		assert_int_equal(pthread_create(&t[i], NULL, wrapper_run, &f[i]), 0);
	}
	for (unsigned i = 0; i < 4; i++) {
		pthread_join(t[i], NULL);
		assert_int_equal(f[i].done, 120);
	}
	assert_int_equal(redo_retire(b->r), 0);
}

/* Fill until there is no room. */
static unsigned fill(struct bed *b, uint64_t no, struct redo_pin *pin, const uint8_t *mb, int *ret_err)
{
	unsigned n = 0;

	for (;; n++) {
		struct redo_rec rec = image_rec(no, n, mb, 1 << 20);
		uint64_t lsn;
		int err = redo_append(b->r, &rec, 1, pin, 100000, false, &lsn, NULL);

		if (!err)
			err = redo_flush(b->r, lsn);
		if (err || n == 100) {
			*ret_err = err;
			return n;
		}
	}
}

static void test_space(void **state)
{
	struct bed *b = *state;
	uint8_t *mb = pattern(1 << 20, 1), *got = malloc(1 << 20);
	struct redo_pin one = {0}, two = {0}, three = {0};
	struct redo_rec rec = image_rec(1, 999, mb, 90000), vd = {.type = REDO_VOID, .base = base_no(1)};
	struct redo_loc loc;
	uint64_t lsn;
	int err;

	/* the spare and the reservation stay free: 13 images of 1 MiB and a bit go into a half of 16 MiB less an eighth */
	assert_int_equal(fill(b, 1, &one, mb, &err), 13 + 13);
	assert_int_equal(err, -EAGAIN);
	assert_true(redo_must_seal(b->r, &one));
	assert_true(redo_half_used(b->r) > 900);
	/* its own SEAL still has room, twice what was reserved has not */
	assert_int_equal(redo_append(b->r, &rec, 1, &one, 0, true, &lsn, &loc), 0);
	assert_int_equal(redo_flush(b->r, lsn), 0);
	assert_int_equal(redo_append(b->r, &vd, 1, &two, 300000, false, &lsn, NULL), 0);
	assert_false(redo_must_seal(b->r, &two));
	assert_int_equal(redo_flush(b->r, lsn), 0);
	/* another file wants more: -EAGAIN until the first is sealed, applied, synced */
	assert_int_equal(fill(b, 2, &three, mb, &err), 0);
	assert_int_equal(err, -EAGAIN);
	redo_unpin(b->r, &one);
	assert_int_equal(redo_read(b->r, &loc, got), 0);
	assert_memory_equal(got, mb, 90000);
	/* two holds the current half only: 13 go into the other one, then it is in the way */
	assert_int_equal(fill(b, 2, &three, mb, &err), 13);
	assert_int_equal(err, -EAGAIN);
	assert_true(redo_must_seal(b->r, &two));
	assert_false(redo_must_seal(b->r, &three));
	/* an unlinked file is let go by a syncfs before the change */
	assert_int_equal(b->syncfs, 0);
	redo_bury(b->r, &two);
	assert_int_equal(fill(b, 2, &three, mb, &err), 13);
	assert_int_equal(b->syncfs, 1);
	redo_bury(b->r, &three);
	assert_int_equal(redo_retire(b->r), 0);
	assert_int_equal(b->syncfs, 2);
	free(mb);
	free(got);
}

static void test_names_durable(void **state)
{
	struct bed *b = *state;
	uint8_t *mb = pattern(1 << 20, 1);
	struct redo_pin one = {0};
	int err;

	assert_int_equal(fill(b, 1, &one, mb, &err), 26);
	redo_bury(b->r, &one);
	redo_names_durable(b->r);
	assert_int_equal(fill(b, 1, &one, mb, &err), 26 - 13 + 13);
	assert_int_equal(b->syncfs, 0);
	redo_unpin(b->r, &one);
	free(mb);
}

static void test_reservations(void **state)
{
	struct bed *b = *state;
	struct redo_rec vd = {.type = REDO_VOID, .base = base_no(1)};
	struct redo_pin *pins = calloc(5000, sizeof(*pins));
	uint8_t *big = pattern(4000, 1);
	struct redo_rec seal = image_rec(1, 1, big, 3800);
	unsigned n = 0;
	uint64_t lsn;

	while (n < 5000 && !redo_append(b->r, &vd, 1, &pins[n], 3900, false, &lsn, NULL))
		n++;
	/* 4 KiB kept for each in 14 MiB */
	assert_in_range(n, 3400, 3584);
	assert_int_equal(redo_flush(b->r, lsn), 0);
	/* every one of them can be sealed, even one group at a time */
	for (unsigned i = 0; i < n; i++) {
		assert_int_equal(redo_append(b->r, &seal, 1, &pins[i], 0, true, &lsn, NULL), 0);
		assert_int_equal(redo_flush(b->r, lsn), 0);
	}
	for (unsigned i = 0; i < n; i++)
		redo_unpin(b->r, &pins[i]);
	assert_int_equal(redo_retire(b->r), 0);
	free(pins);
	free(big);
}

static void test_limits(void **state)
{
	struct bed *b = *state;
	uint8_t *big = calloc(1, SEG_MAX + 28);
	struct redo_rec recs[2] = {image_rec(1, 1, big, SEG_MAX + 28), image_rec(1, 2, big, 100000)};
	struct redo_pin pin = {0};
	uint64_t lsn;

	assert_int_equal(redo_append(b->r, recs, 2, &pin, 0, false, &lsn, NULL), -EFBIG);
	assert_int_equal(redo_append(b->r, recs, 1, &pin, 0, false, &lsn, NULL), 0);
	assert_int_equal(redo_append(b->r, recs, 1, &pin, 0, false, &lsn, NULL), 0);
	assert_int_equal(redo_append(b->r, recs, 1, &pin, 0, false, &lsn, NULL), 0); /* more than one group may hold */
	assert_int_equal(redo_flush(b->r, lsn), 0);
	redo_unpin(b->r, &pin);
	free(big);
}

/* What a clean end leaves, and that the group before a change of half retires what is overwritten next. */
static void test_retired(void **state)
{
	struct bed *b = *state;
	uint8_t *bytes = pattern(300, 1), *block = malloc(4096);
	struct redo_rec rec = image_rec(1, 1, bytes, 300);
	struct redo_pin pin = {0}, late = {0};
	struct redo_group g;
	uint64_t lsn;
	int fd = openat(b->fd, "log.0", O_RDONLY);

	assert_int_equal(redo_append(b->r, &rec, 1, &pin, 0, false, &lsn, NULL), 0);
	assert_int_equal(redo_flush(b->r, lsn), 0);
	redo_unpin(b->r, &pin);
	assert_int_equal(redo_append(b->r, &rec, 1, &late, 0, false, &lsn, NULL), 0);
	assert_int_equal(redo_flush(b->r, lsn), 0);
	assert_int_equal(pread(fd, block, 4096, 4096), 4096);
	assert_int_equal(redo_group_parse(block, 4096, volume, b->key, &g), 0);
	assert_int_equal(g.lsn, 2);
	assert_int_equal(g.retired_lsn, 1);
	redo_unpin(b->r, &late);
	assert_int_equal(redo_retire(b->r), 0);
	assert_int_equal(pread(fd, block, 4096, 8192), 4096);
	assert_int_equal(redo_group_parse(block, 4096, volume, b->key, &g), 0);
	assert_int_equal(g.lsn, 3);
	assert_int_equal(g.retired_lsn, 3);
	assert_int_equal(g.n_recs, 0);
	close(fd);
	free(block);
	free(bytes);
}

static void test_side(void **state)
{
	struct bed *b = *state;
	uint8_t hash[32], hash2[32];
	uint8_t *tail = pattern(5 << 20, 4);
	char name[64] = "tail-", *got;
	size_t len;

	assert_true(redo_side_needed(b->r, 5 << 20));
	assert_false(redo_side_needed(b->r, 4 << 20));
	assert_int_equal(redo_side_write(b->r, tail, 5 << 20, hash), 0);
	assert_int_equal(redo_side_write(b->r, tail, 5 << 20, hash2), 0);
	assert_memory_equal(hash, hash2, 32);
	for (int i = 0; i < 16; i++)
		sprintf(name + 5 + 2 * i, "%02x", hash[i]);
	assert_int_equal(io_read_file(&b->io, b->fd, name, 6 << 20, &got, &len), 0);
	assert_int_equal(len, 5 << 20);
	assert_memory_equal(got, tail, len);
	free(got);
	redo_side_drop(b->r, hash);
	assert_int_equal(io_read_file(&b->io, b->fd, name, 6 << 20, &got, &len), -ENOENT);
	free(tail);
}

static void test_create(void **state)
{
	struct bed *b = *state;

	assert_int_equal(redo_create(&b->io, b->fd, REDO_HALF_MIN), -EEXIST);
	assert_int_equal(faccessat(b->fd, "log.0", F_OK, 0), 0);
	assert_int_equal(redo_create(&b->io, b->fd, REDO_HALF_MIN - 4096), -EINVAL);
	assert_int_equal(redo_create(&b->io, b->fd, REDO_HALF_MIN + 1), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T(test_read_back),    T(test_group_commit), T(test_threads_wrap), T(test_space), T(test_names_durable),
	    T(test_reservations), T(test_limits),       T(test_retired),      T(test_side),  T(test_create),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
