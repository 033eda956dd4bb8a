/* SPDX-License-Identifier: Apache-2.0 */
/* fs/prefetch.c: which keys are asked for when, how many requests at a time, and who waits for whom; with a KAS made up here that can be
 * slow. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#undef fail /* ours is another */

#include <dirent.h>
#include <errno.h>

#include "inode_i.h"
#include "prefetch.h"
#include "prefetch_i.h"
#include "remote.h"
#include "store_setup.h"

#define URL "https://kas.example.org"
#define CALLS_MAX 400

struct kas_double {
	struct kas *keys;
	struct mutex lock;
	/* guarded by lock */
	struct cond changed;
	size_t hold; /* calls of as many keys wait until this is changed; 0: none do */
	int err;     /* instead of keys */
	size_t calls[CALLS_MAX], n_calls, n_running, most_running;
};

struct world {
	struct bed bed;
	struct kas_double kas;
	struct store *st;
};

static bool serves(void *ctx, const char *url)
{
	return strcmp(url, URL) == 0;
}

static int rewrap(void *ctx, struct remote_item *items, size_t n, unsigned ms)
{
	struct kas_double *k = ctx;
	int err;

	mutex_lock(&k->lock);
	bed_must(k->n_calls < CALLS_MAX);
	k->calls[k->n_calls++] = n;
	k->n_running++;
	k->most_running = MAX(k->most_running, k->n_running);
	cond_broadcast(&k->changed);
	while (k->hold && n >= k->hold)
		cond_wait(&k->changed, &k->lock);
	k->n_running--;
	err = k->err;
	mutex_unlock(&k->lock);
	for (size_t i = 0; i < n; i++)
		items[i].err = err ? err : kas_unwrap_local(k->keys, items[i].policy, items[i].ka, &items[i].share);
	return 0;
}

static void hold(struct world *w, size_t least)
{
	mutex_lock(&w->kas.lock);
	w->kas.hold = least;
	cond_broadcast(&w->kas.changed);
	mutex_unlock(&w->kas.lock);
}

static void answer_with(struct world *w, int err)
{
	mutex_lock(&w->kas.lock);
	w->kas.err = err;
	mutex_unlock(&w->kas.lock);
}

static size_t running(struct world *w)
{
	size_t n;

	mutex_lock(&w->kas.lock);
	n = w->kas.n_running;
	mutex_unlock(&w->kas.lock);
	return n;
}

static size_t n_calls(struct world *w)
{
	size_t n;

	mutex_lock(&w->kas.lock);
	n = w->kas.n_calls;
	mutex_unlock(&w->kas.lock);
	return n;
}

/* Waits until so many calls have been made; false: not within 5 s */
static bool calls_reach(struct world *w, size_t want)
{
	uint64_t end = now_ns() + 5000000000u;
	const struct timespec until = {(time_t)(end / 1000000000u), (long)(end % 1000000000u)};
	bool ok = true;

	mutex_lock(&w->kas.lock);
	while (ok && w->kas.n_calls < want)
		ok = cond_wait_until(&w->kas.changed, &w->kas.lock, &until) == 0;
	mutex_unlock(&w->kas.lock);
	return ok;
}

static void nothing(void *arg, const char *path, const char *text)
{
}

static void store_again(struct world *w, bool threads)
{
	const struct store_options opt = {.segment_size = SEG_MIN, .cache_bytes = 1 << 20, .dirty_bytes = 1 << 24, .no_threads = !threads};

	if (w->st)
		assert_int_equal(store_close(w->st), 0);
	assert_int_equal(store_open(&w->bed.io, w->bed.root, w->bed.tdfs, &w->bed.keys, &opt, nothing, NULL, &w->st), 0);
}

static int dir_open(struct world *w, const char *path)
{
	int fd = openat(w->bed.root, *path ? path : ".", O_RDONLY | O_DIRECTORY);

	assert_true(fd >= 0);
	return fd;
}

static void make(struct world *w, const char *dir, unsigned n)
{
	int fd;

	if (*dir)
		assert_int_equal(mkdirat(w->bed.root, dir, 0700), 0);
	fd = dir_open(w, dir);
	for (unsigned i = 0; i < n; i++) {
		char name[32], path[64];
		struct inode *f;

		snprintf(name, sizeof(name), "%u.tdf", i);
		snprintf(path, sizeof(path), "%s%s%s", dir, *dir ? "/" : "", name);
		assert_int_equal(inode_create(w->st, fd, name, 0600, path, &f), 0);
		inode_opened(f, true);
		assert_int_equal(inode_write(f, "x", 1, 0), 0);
		inode_closed(f, true);
		inode_put(f);
	}
	close(fd);
}

static void world_make(struct world *w)
{
	const struct kas_remote r = {&w->kas, serves, rewrap};
	EVP_PKEY *key = pubkey_new_ec(), *pub = NULL;
	char *pem = pubkey_pem(key);

	*w = (struct world){0};
	bed_make(&w->bed);
	mutex_init(&w->kas.lock);
	cond_init(&w->kas.changed);
	w->kas.keys = kas_new();
	assert_int_equal(kas_add_local(w->kas.keys, "k1", URL, key), 0);
	assert_int_equal(pubkey_public(pem, strlen(pem), &pub), 0);
	free(pem);
	assert_int_equal(kas_add_remote(w->bed.keys.kas, &r), 0);
	assert_int_equal(kas_add_writer(w->bed.keys.kas, "k1", URL, pub, 0), 0);
	kas_times(w->bed.keys.kas, 0, 0); /* what is made here would be known here */
	store_again(w, false);
}

/* Everything was made: nothing is known of it from now on */
static void begin(struct world *w)
{
	kas_times(w->bed.keys.kas, 1000, 0);
	store_again(w, true);
	assert_int_equal(n_calls(w), 0);
}

static void world_end(struct world *w)
{
	hold(w, 0);
	assert_int_equal(store_close(w->st), 0);
	kas_free(w->kas.keys);
	cond_destroy(&w->kas.changed);
	mutex_destroy(&w->kas.lock);
	bed_remove(&w->bed);
}

static int open_one(struct world *w, int dirfd, const char *dir, const char *name)
{
	char path[300];
	struct inode *f;
	int err;

	snprintf(path, sizeof(path), "%s%s%s", dir, *dir ? "/" : "", name);
	err = inode_get(w->st, dirfd, name, false, path, &f);
	if (!err)
		inode_put(f);
	return err;
}

struct listing {
	int fd;
	DIR *d;
};

/* The next file of a directory, in its own order; NULL at its end */
static const char *next_of(struct listing *l)
{
	const struct dirent *e;

	while ((e = readdir(l->d)))
		if (strstr(e->d_name, ".tdf") && e->d_type == DT_REG)
			return e->d_name;
	return NULL;
}

static struct listing list(struct world *w, const char *dir)
{
	struct listing l = {dir_open(w, dir), NULL};

	l.d = fdopendir(dir_open(w, dir));
	assert_non_null(l.d);
	prefetch_listed(w->st, l.fd);
	return l;
}

static void list_end(struct listing *l)
{
	closedir(l->d);
	close(l->fd);
}

static void open_next(struct world *w, struct listing *l, const char *dir)
{
	const char *name = next_of(l);

	assert_non_null(name);
	assert_int_equal(open_one(w, l->fd, dir, name), 0);
}

/* Nobody waits for the 127 and what is opened; then two requests are under way while what is known is opened, and no third one */
static void test_two_at_a_time(void **state)
{
	struct world w;
	struct listing l;

	world_make(&w);
	make(&w, "", 1500);
	begin(&w);
	l = list(&w, "");
	open_next(&w, &l, "");
	assert_int_equal(n_calls(&w), 1);
	assert_int_equal(w.kas.calls[0], WINDOW_FIRST + 1);
	hold(&w, 100);
	open_next(&w, &l, "");
	assert_true(calls_reach(&w, 2));
	for (unsigned i = 1; i < WINDOW_FIRST; i++)
		open_next(&w, &l, "");
	assert_true(calls_reach(&w, 3));
	assert_int_equal(n_calls(&w), 3);
	assert_int_equal(w.kas.most_running, 2);
	assert_int_equal(w.kas.calls[1] + w.kas.calls[2], 2 * WINDOW_FIRST + WINDOW_MAX); /* growing */
	hold(&w, 0);
	for (const char *name; (name = next_of(&l));)
		assert_int_equal(open_one(&w, l.fd, "", name), 0);
	assert_true(n_calls(&w) <= 1500 / 200);
	assert_int_equal(w.kas.most_running, 2);
	list_end(&l);
	world_end(&w);
}

/* While both threads wait for a slow KAS a file of another directory asks for itself and is opened */
static void test_others_go_on(void **state)
{
	struct world w;
	struct listing l;
	int other;

	world_make(&w);
	make(&w, "a", 1500);
	make(&w, "b", 3);
	begin(&w);
	l = list(&w, "a");
	open_next(&w, &l, "a");
	hold(&w, 100);
	open_next(&w, &l, "a");
	assert_true(calls_reach(&w, 2));
	for (unsigned i = 1; i < WINDOW_FIRST; i++)
		open_next(&w, &l, "a");
	assert_true(calls_reach(&w, 3));
	assert_int_equal(running(&w), 2);
	other = dir_open(&w, "b");
	assert_int_equal(open_one(&w, other, "b", "1.tdf"), 0);
	assert_int_equal(n_calls(&w), 4);
	assert_int_equal(w.kas.calls[3], 1);
	assert_int_equal(running(&w), 2);
	close(other);
	list_end(&l);
	world_end(&w);
}

struct opener {
	struct world *w;
	int fd, err;
	char name[300];
};

static void *opener_main(void *arg)
{
	struct opener *o = arg;

	o->err = open_one(o->w, o->fd, "", o->name);
	return NULL;
}

/* Who opens a file that a thread is asking for waits for that answer, and asks for nothing himself */
static void test_on_its_way(void **state)
{
	const struct timespec some = {.tv_nsec = 200000000};
	struct opener o;
	struct listing l;
	struct world w;
	pthread_t t;

	world_make(&w);
	make(&w, "", 700);
	begin(&w);
	l = list(&w, "");
	open_next(&w, &l, "");
	hold(&w, 100);
	open_next(&w, &l, "");
	assert_true(calls_reach(&w, 2));
	for (unsigned i = 1; i < WINDOW_FIRST; i++)
		open_next(&w, &l, "");
	assert_true(calls_reach(&w, 3)); /* all the rest: 254 and 318 */
	o = (struct opener){.w = &w, .fd = l.fd, .err = 1};
	snprintf(o.name, sizeof(o.name), "%s", next_of(&l));
	assert_int_equal(pthread_create(&t, NULL, opener_main, &o), 0);
	nanosleep(&some, NULL);
	assert_int_equal(n_calls(&w), 3);
	assert_int_equal(running(&w), 2);
	hold(&w, 0);
	assert_int_equal(pthread_join(t, NULL), 0);
	assert_int_equal(o.err, 0);
	assert_int_equal(n_calls(&w), 3);
	list_end(&l);
	world_end(&w);
}

/* A walk through 300 directories of 4: after the first ones each request is larger than the one before, as far as there are so many */
static void test_small_directories(void **state)
{
	enum { DIRECTORIES = 300, PER = 4 };
	struct world w;
	struct listing top;
	struct dirent *e;
	size_t sum = 0;

	world_make(&w);
	for (int i = 0; i < DIRECTORIES; i++) {
		char dir[16];

		snprintf(dir, sizeof(dir), "d%d", i);
		make(&w, dir, PER);
	}
	begin(&w);
	top = list(&w, "");
	while ((e = readdir(top.d))) {
		struct listing l;

		if (*e->d_name != 'd')
			continue;
		l = list(&w, e->d_name);
		for (int i = 0; i < PER; i++)
			open_next(&w, &l, e->d_name);
		list_end(&l);
	}
	assert_true(n_calls(&w) <= DIRECTORIES * PER / 200 + 2);
	assert_int_equal(w.kas.calls[0], PER);
	assert_in_range(w.kas.calls[1], PER + 1, WINDOW_GUESS + 1);
	assert_in_range(w.kas.calls[2], WINDOW_GUESS, 2 * WINDOW_GUESS);
	for (size_t i = 0; i < n_calls(&w); i++)
		sum += w.kas.calls[i];
	assert_int_equal(sum, DIRECTORIES * PER); /* none twice */
	list_end(&top);
	world_end(&w);
}

/* The KAS goes away in the middle: what is known stays known, and nothing more is asked for because of it */
static void test_away(void **state)
{
	struct world w;
	struct listing l;

	world_make(&w);
	make(&w, "", 1500);
	begin(&w);
	l = list(&w, "");
	open_next(&w, &l, "");
	answer_with(&w, -EIO);
	for (unsigned i = 0; i < WINDOW_FIRST; i++)
		open_next(&w, &l, "");
	assert_true(calls_reach(&w, 2));
	assert_int_equal(open_one(&w, l.fd, "", next_of(&l)), -EIO);
	assert_true(n_calls(&w) <= 5); /* each thread has found out, and who was refused, with those beside it and alone */
	answer_with(&w, 0);
	open_next(&w, &l, "");
	list_end(&l);
	world_end(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_two_at_a_time),     cmocka_unit_test(test_others_go_on), cmocka_unit_test(test_on_its_way),
	    cmocka_unit_test(test_small_directories), cmocka_unit_test(test_away),
	};

	report_limit(REPORT_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
