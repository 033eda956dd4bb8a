/* SPDX-License-Identifier: Apache-2.0 */
/* Whose mtime is stored when the kernel dates writes (store->kernel_times): what it sends before, after or never. */
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "inode.h"
#include "store_setup.h"
#include "writeback.h"

#define OLD 1234567890
#define NSEC 987654321

struct world {
	struct bed bed;
	struct store *st;
};

static time_t ahead; /* of the true time */

/* In place of libc's, for the engine as well: the clock that files are dated with can be put forward. */
int clock_gettime(clockid_t id, struct timespec *t)
{
	int ret = (int)syscall(SYS_clock_gettime, id, t);

	if (id == CLOCK_REALTIME_COARSE)
		t->tv_sec += ahead;
	return ret;
}

static void open_store(struct world *w)
{
	w->st = bed_open(&w->bed);
	w->st->kernel_times = true;
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	bed_make(&w->bed);
	open_store(w);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	assert_int_equal(store_close(w->st), 0);
	bed_remove(&w->bed);
	free(w);
	return 0;
}

static void send(struct inode *f, time_t seconds)
{
	const struct timespec ts[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = seconds, .tv_nsec = NSEC}};

	assert_int_equal(inode_set_times(f, ts, &ts[1]), 0);
}

static void put(struct inode *f, uint64_t off)
{
	assert_int_equal(inode_write(f, "some new bytes", 14, off), 0);
}

static void done(struct inode *f)
{
	inode_closed(f, true);
	inode_put(f);
}

/* A sealed file of @size bytes whose last change is OLD, closed and not live */
static void make(struct world *w, const char *name, uint64_t size)
{
	struct inode *f;

	assert_int_equal(inode_create(w->st, w->bed.root, name, 0644, name, &f), 0);
	inode_opened(f, true);
	assert_int_equal(inode_truncate(f, size), 0);
	send(f, OLD);
	done(f);
	assert_int_equal(store_sync(w->st), 0);
}

static struct inode *open_write(struct world *w, const char *name)
{
	struct inode *f;

	assert_int_equal(inode_get(w->st, w->bed.root, name, true, name, &f), 0);
	inode_opened(f, true);
	return f;
}

static struct timespec shown(struct inode *f)
{
	struct stat s = {0};

	inode_stat(f, &s);
	return s.st_mtim;
}

static struct timespec stored(struct world *w, const char *name)
{
	struct stat s;

	assert_int_equal(fstatat(w->bed.root, name, &s, 0), 0);
	return s.st_mtim;
}

static void expect(struct timespec t, time_t seconds)
{
	assert_int_equal(t.tv_sec, seconds);
	assert_int_equal(t.tv_nsec, NSEC);
}

static void expect_ns(struct timespec t, const struct timespec *want)
{
	assert_int_equal(t.tv_sec, want->tv_sec);
	assert_int_equal(t.tv_nsec, want->tv_nsec);
}

static void expect_now(struct timespec t)
{
	assert_in_range(t.tv_sec, time(NULL) - 60, time(NULL) + 1);
}

/* Written at the time that the kernel was told at the create: it sends none, and none but that is stored, however late the write comes. */
static void test_never_sent(void **state)
{
	static const uint64_t sizes[] = {0, 5000, 3 << 20}; /* empty, NEW, SPILLED */
	struct world *w = *state;

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
		for (int fsyncs = 0; fsyncs < 3; fsyncs++) { /* before the write; and behind it */
			struct timespec t;
			struct inode *f;

			assert_int_equal(inode_create(w->st, w->bed.root, "new.tdf", 0644, "new.tdf", &f), 0);
			inode_opened(f, true);
			t = shown(f);
			nanosleep(&(struct timespec){.tv_nsec = i ? 120000000 : 10000000}, NULL);
			if (fsyncs == 1)
				assert_int_equal(inode_fsync(f, false), 0);
			assert_int_equal(inode_truncate(f, sizes[i]), 0);
			put(f, sizes[i]);
			if (fsyncs == 2)
				assert_int_equal(inode_fsync(f, false), 0);
			done(f);
			assert_int_equal(store_sync(w->st), 0);
			assert_int_equal(stored(w, "new.tdf").tv_sec, t.tv_sec);
			assert_int_equal(stored(w, "new.tdf").tv_nsec, t.tv_nsec);
			assert_int_equal(unlinkat(w->bed.root, "new.tdf", 0), 0);
		}
}

/* A sealed file: the kernel's time overtakes the write and is stored, with and without seals and commits in between. */
static void test_sent_before(void **state)
{
	struct world *w = *state;
	struct inode *f;

	for (int k = 0; k < 4; k++) {
		make(w, "file.tdf", 100000);
		f = open_write(w, "file.tdf");
		expect(shown(f), OLD);
		send(f, OLD + 5);
		put(f, 50000);
		if (k & 1)
			assert_int_equal(inode_fsync(f, false), 0);
		if (k & 2) /* sealed with what it is dated with meanwhile */
			assert_int_equal(store_sync(w->st), 0);
		done(f);
		assert_int_equal(store_sync(w->st), 0);
		expect(stored(w, "file.tdf"), OLD + 5);
		assert_int_equal(unlinkat(w->bed.root, "file.tdf", 0), 0);
	}
}

/* Open all the time: what a syncfs that began after the write says is final, one that began before it says nothing. */
static void test_while_open(void **state)
{
	struct world *w = *state;
	struct inode *f;
	uint64_t before;

	make(w, "open.tdf", 100000);
	f = open_write(w, "open.tdf");
	send(f, OLD + 1);
	before = now_ns();
	put(f, 7);
	assert_true(inode_times_all_known(w->st, before));
	expect_now(shown(f));
	assert_int_equal(store_sync(w->st), 0);
	expect_now(stored(w, "open.tdf"));
	assert_false(inode_times_all_known(w->st, now_ns()));
	expect(shown(f), OLD + 1);
	expect(stored(w, "open.tdf"), OLD + 1); /* nothing else to wait for: at once */
	put(f, 7);
	send(f, OLD + 9);
	assert_int_equal(store_sync(w->st), 0);
	expect(stored(w, "open.tdf"), OLD + 9);
	done(f);
	expect(stored(w, "open.tdf"), OLD + 9);
}

/* Written long after the time that the kernel was told: it has to send another.  When that does not come, the last one is not true. */
static void test_lost(void **state)
{
	struct world *w = *state;
	struct inode *f;

	for (int k = 0; k < 4; k++) {
		make(w, "lost.tdf", 100000);
		f = open_write(w, "lost.tdf");
		put(f, 7);
		if (k & 1)
			assert_int_equal(store_sync(w->st), 0);
		if (k & 2)
			assert_false(inode_times_all_known(w->st, now_ns()));
		done(f);
		assert_int_equal(store_sync(w->st), 0);
		expect_now(stored(w, "lost.tdf"));
		assert_int_equal(unlinkat(w->bed.root, "lost.tdf", 0), 0);
	}
}

/* One write-back that takes minutes: the time came with the first pages, and is true for the last. */
static void test_slow(void **state)
{
	struct world *w = *state;
	struct inode *f;

	for (int k = 0; k < 2; k++) {
		make(w, "slow.tdf", 100000);
		f = open_write(w, "slow.tdf");
		put(f, 0); /* pages may overtake it */
		send(f, OLD + 5);
		for (unsigned i = 0; i < 9; i++, ahead += 20)
			put(f, i * 1000);
		if (k)
			assert_int_equal(store_sync(w->st), 0);
		done(f);
		assert_int_equal(store_sync(w->st), 0);
		ahead = 0;
		expect(stored(w, "slow.tdf"), OLD + 5);
		assert_int_equal(unlinkat(w->bed.root, "slow.tdf", 0), 0);
	}
}

/* What a sync of the kernel read before a truncation and sent after it does not count; a time that somebody sets does, whatever it is. */
static void test_overtaken(void **state)
{
	const struct timespec early = {OLD + 7, 1000000}, late = {OLD + 7, 5000000}, skip = {.tv_nsec = UTIME_OMIT}, old = {5, 5};
	struct world *w = *state;
	struct inode *f;

	make(w, "over.tdf", 1000);
	f = open_write(w, "over.tdf");
	put(f, 0);
	assert_int_equal(inode_set_times(f, (const struct timespec[]){skip, late}, &late), 0);
	assert_int_equal(inode_set_times(f, (const struct timespec[]){skip, early}, &early), 0);
	done(f);
	assert_int_equal(store_sync(w->st), 0);
	expect_ns(stored(w, "over.tdf"), &late);
	f = open_write(w, "over.tdf");
	assert_int_equal(inode_set_times(f, (const struct timespec[]){old, old}, &early), 0);
	done(f);
	assert_int_equal(store_sync(w->st), 0);
	expect_ns(stored(w, "over.tdf"), &old);
}

/* A crash before the kernel has sent anything: new content never has the old time. */
static void test_crash(void **state)
{
	struct world *w = *state;
	struct inode *f;
	int status;
	pid_t pid;

	make(w, "crash.tdf", 100000);
	assert_int_equal(store_close(w->st), 0);
	pid = fork();
	if (!pid) {
		open_store(w);
		f = open_write(w, "crash.tdf");
		put(f, 7);
		_exit(inode_fsync(f, false) ? 1 : 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	open_store(w);
	expect_now(stored(w, "crash.tdf"));
	f = open_write(w, "crash.tdf");
	expect_now(shown(f));
	done(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_never_sent), cmocka_unit_test(test_sent_before), cmocka_unit_test(test_while_open),
	    cmocka_unit_test(test_lost),       cmocka_unit_test(test_crash),       cmocka_unit_test(test_slow),
	    cmocka_unit_test(test_overtaken),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
