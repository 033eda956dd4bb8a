/* SPDX-License-Identifier: Apache-2.0 */
/* The engine on a real directory: every kind of change, checked against a plain copy in memory and against the files at rest. */
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "container.h"
#include "inode.h"
#include "seal.h"
#include "store_setup.h"
#include "writeback.h"

#define S 16384u

struct world {
	struct bed bed;
	struct store *st;
	uint8_t *plain; /* what the file must hold */
	uint64_t size;
};

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	bed_make(&w->bed);
	w->plain = calloc(1, 64 << 20);
	w->st = bed_open(&w->bed);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	assert_int_equal(store_close(w->st), 0);
	bed_remove(&w->bed);
	free(w->plain);
	free(w);
	return 0;
}

static struct inode *create(struct world *w, const char *name)
{
	struct inode *f;

	assert_int_equal(inode_create(w->st, w->bed.root, name, 0644, name, &f), 0);
	inode_opened(f, true);
	w->size = 0;
	memset(w->plain, 0, 64 << 20);
	return f;
}

static void put(struct world *w, struct inode *f, uint64_t off, size_t len, int seed)
{
	for (size_t i = 0; i < len; i++)
		w->plain[off + i] = (uint8_t)((i * 31 + (size_t)seed) ^ i >> 8);
	assert_int_equal(inode_write(f, w->plain + off, len, off), 0);
	w->size = off + len > w->size ? off + len : w->size;
}

static void cut(struct world *w, struct inode *f, uint64_t size)
{
	assert_int_equal(inode_truncate(f, size), 0);
	if (size < w->size)
		memset(w->plain + size, 0, w->size - size);
	w->size = size;
}

static void check(struct world *w, struct inode *f)
{
	uint8_t *buf = malloc(w->size + 100);
	struct stat s = {0};

	inode_stat(f, &s);
	assert_int_equal(s.st_size, w->size);
	assert_int_equal(inode_read(f, buf, w->size + 100, 0), w->size);
	assert_memory_equal(buf, w->plain, w->size);
	for (uint64_t off = 1; off < w->size; off += w->size / 7 + 1) {
		size_t len = (size_t)(w->size - off < 5000 ? w->size - off : 5000);

		assert_int_equal(inode_read(f, buf, len, off), len);
		assert_memory_equal(buf, w->plain + off, len);
	}
	free(buf);
}

/* The file at rest, by the reader that other commands use; and its CRC by unzip. */
static void check_at_rest(struct world *w, const char *name)
{
	struct container_keys keys = {w->bed.keys.k_rec, w->bed.keys.k_seal, w->bed.keys.volume_id};
	struct container *c;
	struct secret *dek;
	uint8_t *buf = malloc(w->size + 1);
	char cmd[2 * PATH_MAX];
	int fd = openat(w->bed.root, name, O_RDONLY);

	assert_true(fd >= 0);
	assert_int_equal(container_open(&w->bed.io, fd, &keys, &c), 0);
	assert_true(c->native);
	assert_int_equal(kas_unwrap(w->bed.keys.kas, c->m, &dek), 0);
	assert_int_equal(container_unlock(c, &keys, dek), 0);
	assert_int_equal(container_read(&w->bed.io, fd, c, buf, w->size + 1, 0), w->size);
	assert_memory_equal(buf, w->plain, w->size);
	secret_free(dek);
	container_free(c);
	close(fd);
	free(buf);
	if (!access("/usr/bin/unzip", X_OK)) {
		snprintf(cmd, sizeof(cmd), "unzip -tqq '%s/%s'", w->bed.dir, name);
		assert_int_equal(system(cmd), 0);
	}
}

static void done(struct world *w, struct inode *f, const char *name)
{
	check(w, f);
	assert_int_equal(inode_flush(f), 0);
	inode_closed(f, true);
	inode_put(f);
	assert_int_equal(store_sync(w->st), 0);
	check_at_rest(w, name);
}

static void reopen(struct world *w, const char *name, struct inode **ret)
{
	assert_int_equal(inode_get(w->st, w->bed.root, name, true, name, ret), 0);
	inode_opened(*ret, true);
}

static void test_small(void **state)
{
	static const uint64_t sizes[] = {0, 1, S - 1, S, S + 1, 2 * S, 100000, 1 << 20};
	struct world *w = *state;

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		char name[32];
		struct inode *f;

		snprintf(name, sizeof(name), "small%zu.tdf", i);
		f = create(w, name);
		if (sizes[i])
			put(w, f, 0, sizes[i], (int)i);
		done(w, f, name);
	}
}

static void test_large(void **state)
{
	struct world *w = *state;
	struct inode *f = create(w, "large.tdf");

	for (uint64_t off = 0; off < 12000000; off += 300000)
		put(w, f, off, 300000, (int)(off / 1000));
	put(w, f, 5000000, 100, 3);
	check(w, f);
	cut(w, f, 11000001);
	done(w, f, "large.tdf");
}

static void test_overwrite(void **state)
{
	struct world *w = *state;
	struct inode *f = create(w, "over.tdf");

	put(w, f, 0, 200000, 1);
	assert_int_equal(inode_fsync(f, false), 0);
	put(w, f, 70000, 10, 2);
	check(w, f);
	assert_int_equal(inode_fsync(f, true), 0);
	check(w, f);
	put(w, f, 70005, 50000, 3); /* over an image */
	put(w, f, 199990, 30, 4);   /* grows the last segment */
	assert_int_equal(inode_fsync(f, true), 0);
	done(w, f, "over.tdf");
	reopen(w, "over.tdf", &f);
	check(w, f);
	put(w, f, 0, 1, 9);
	done(w, f, "over.tdf");
}

static void test_append(void **state)
{
	struct world *w = *state;
	struct inode *f = create(w, "append.tdf");

	for (int i = 0; i < 300; i++) {
		put(w, f, w->size, 1 + (size_t)i * 7 % 3000, i);
		assert_int_equal(inode_fsync(f, true), 0);
		if (i % 50 == 20)
			assert_int_equal(store_sync(w->st), 0);
	}
	done(w, f, "append.tdf");
}

static void test_grow_in_place(void **state)
{
	struct world *w = *state;
	struct inode *f = create(w, "grow.tdf");

	put(w, f, 0, 100, 1);
	assert_int_equal(inode_fsync(f, true), 0);
	for (int i = 0; i < 20; i++)
		put(w, f, w->size, 700000, i);
	check(w, f);
	assert_int_equal(inode_fsync(f, true), 0);
	cut(w, f, 9000000);
	for (int i = 0; i < 5; i++)
		put(w, f, w->size, 700000, i);
	put(w, f, 8999000, 3000, 77);
	check(w, f);
	assert_int_equal(inode_fsync(f, true), 0);
	check(w, f);
	done(w, f, "grow.tdf");
	reopen(w, "grow.tdf", &f);
	put(w, f, w->size, 3000000, 5);
	done(w, f, "grow.tdf");
}

static void test_truncate(void **state)
{
	struct world *w = *state;
	struct inode *f = create(w, "cut.tdf");

	put(w, f, 0, 5 * S, 1);
	assert_int_equal(inode_fsync(f, true), 0);
	cut(w, f, 3 * S + 17);
	check(w, f);
	cut(w, f, 4 * S);
	check(w, f);
	assert_int_equal(inode_fsync(f, true), 0);
	cut(w, f, 2 * S);
	cut(w, f, 6 * S + 1);
	check(w, f);
	assert_int_equal(store_sync(w->st), 0);
	check_at_rest(w, "cut.tdf");
	cut(w, f, 10000000);
	check(w, f);
	put(w, f, 12345678, 5, 4); /* sparse */
	check(w, f);
	cut(w, f, 1);
	done(w, f, "cut.tdf");
}

static void test_replace(void **state)
{
	struct world *w = *state;
	struct inode *f = create(w, "replace.tdf");

	put(w, f, 0, 60000, 1);
	assert_int_equal(inode_fsync(f, true), 0);
	put(w, f, 5, 5, 2);
	assert_int_equal(inode_fsync(f, true), 0);
	cut(w, f, 0);
	check(w, f);
	put(w, f, 0, 20000, 3);
	check(w, f);
	assert_int_equal(inode_fsync(f, true), 0);
	check(w, f);
	cut(w, f, 0);
	put(w, f, 0, 400, 3);
	assert_int_equal(inode_fsync(f, true), 0); /* while the SEAL before is not in place yet */
	put(w, f, 200, 400, 4);
	check(w, f);
	done(w, f, "replace.tdf");
	reopen(w, "replace.tdf", &f);
	cut(w, f, 0);
	put(w, f, 0, 5000000, 8); /* too large for memory: the base is given up */
	check(w, f);
	done(w, f, "replace.tdf");
	reopen(w, "replace.tdf", &f);
	cut(w, f, 0);
	put(w, f, 0, 900000, 9); /* of a writer whose fsync is still to come */
	w->st->opt.strict = true;
	put(w, f, 5500000, 5, 10); /* of another one: together more than the log takes at once */
	w->st->opt.strict = false;
	check(w, f);
	done(w, f, "replace.tdf");
	reopen(w, "replace.tdf", &f);
	cut(w, f, 0);
	done(w, f, "replace.tdf");
}

static void test_log_wraps(void **state)
{
	struct world *w = *state;
	struct inode *f = create(w, "wrap.tdf");

	put(w, f, 0, 30 << 20, 1);
	assert_int_equal(inode_fsync(f, true), 0);
	for (int i = 0; i < 12; i++) /* 8 MiB at a time through a log of 2 x 16 MiB */
		put(w, f, (uint64_t)(i % 3) * (9 << 20) + 100, 9 << 20, i);
	check(w, f);
	assert_int_equal(inode_fsync(f, true), 0);
	done(w, f, "wrap.tdf");
}

static void test_unlinked(void **state)
{
	struct world *w = *state;
	struct inode *f = create(w, "gone.tdf");

	put(w, f, 0, 3 << 20, 1);
	assert_int_equal(inode_fsync(f, true), 0);
	put(w, f, 100000, 300000, 2);
	assert_int_equal(inode_fsync(f, true), 0);
	assert_int_equal(unlinkat(w->bed.root, "gone.tdf", 0), 0);
	inode_unlinked(f);
	put(w, f, 50000, 100000, 3);
	check(w, f);
	for (int i = 0; i < 6; i++)
		put(w, f, (uint64_t)i * 3000000, 3000000, i);
	check(w, f);
	assert_int_equal(inode_fsync(f, false), 0);
	inode_closed(f, true);
	inode_put(f);
	assert_int_equal(store_sync(w->st), 0);
	assert_int_equal(w->st->n_inodes, 0);
}

static void test_remount(void **state)
{
	struct world *w = *state;
	struct inode *f = create(w, "again.tdf");

	put(w, f, 0, 50000, 1);
	assert_int_equal(inode_flush(f), 0);
	inode_closed(f, true);
	inode_put(f);
	assert_int_equal(store_close(w->st), 0);
	w->st = bed_open(&w->bed);
	reopen(w, "again.tdf", &f);
	check(w, f);
	put(w, f, 100, 7, 7);
	done(w, f, "again.tdf");
}

static unsigned n_file_syncs;

static int count_sync(void *ctx, int fd, bool full)
{
	n_file_syncs += full; /* the log is synced without its metadata */
	return io_posix(fd).sync(ctx, fd, full);
}

/* The kernel sends the mtime of cached writes before each fsync: that must not cost a sync of the store file, and the time must survive. */
static void test_times_cost_nothing(void **state)
{
	struct world *w = *state;
	struct timespec ts[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 1234567890, .tv_nsec = 987654321}};
	struct stat s = {0};
	struct inode *f = create(w, "times.tdf");

	put(w, f, 0, 1000, 1);
	assert_int_equal(inode_fsync(f, false), 0);
	w->st->io.sync = count_sync;
	n_file_syncs = 0;
	for (int i = 0; i < 5; i++) {
		put(w, f, w->size, 100, i);
		assert_int_equal(inode_set_times(f, ts, NULL), 0);
		assert_int_equal(inode_fsync(f, true), 0);
	}
	assert_int_equal(n_file_syncs, 0);
	w->st->io.sync = w->bed.io.sync;
	ts[1].tv_sec++;
	assert_int_equal(inode_set_times(f, ts, NULL), 0); /* after the last commit */
	done(w, f, "times.tdf");
	assert_int_equal(fstatat(w->bed.root, "times.tdf", &s, 0), 0);
	assert_int_equal(s.st_mtim.tv_sec, 1234567891);
	assert_int_equal(s.st_mtim.tv_nsec, 987654321);
}

/* Another process has a lease on the file at rest, as the converter has for a moment: an open waits for it and is not told EAGAIN. */
static void test_leased(void **state)
{
	struct world *w = *state;
	struct inode *f = create(w, "leased");
	int ready[2], status;
	char c;
	pid_t pid;

	put(w, f, 0, 1000, 1);
	inode_closed(f, true);
	inode_put(f);
	assert_int_equal(store_sync(w->st), 0);
	assert_int_equal(pipe(ready), 0);
	pid = fork();
	if (!pid) {
		int fd = openat(w->bed.root, "leased", O_RDWR);
		sigset_t io;

		sigemptyset(&io);
		sigaddset(&io, SIGIO);
		sigprocmask(SIG_BLOCK, &io, NULL);
		c = (char)fcntl(fd, F_SETLEASE, F_WRLCK);
		(void)!write(ready[1], &c, 1);
		if (c || sigwaitinfo(&io, NULL) < 0)
			_exit(1);
		nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
		_exit(0); /* which ends the lease */
	}
	assert_int_equal(read(ready[0], &c, 1), 1);
	if (!c) {
		assert_int_equal(inode_get(w->st, w->bed.root, "leased", true, "leased", &f), 0);
		inode_put(f);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, c ? 0x100 : 0);
	close(ready[0]);
	close(ready[1]);
	if (c)
		skip(); /* a file system without leases */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_small),
	    cmocka_unit_test(test_large),
	    cmocka_unit_test(test_overwrite),
	    cmocka_unit_test(test_append),
	    cmocka_unit_test(test_truncate),
	    cmocka_unit_test(test_replace),
	    cmocka_unit_test(test_log_wraps),
	    cmocka_unit_test(test_unlinked),
	    cmocka_unit_test(test_remount),
	    cmocka_unit_test(test_grow_in_place),
	    cmocka_unit_test(test_times_cost_nothing),
	    cmocka_unit_test(test_leased),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
