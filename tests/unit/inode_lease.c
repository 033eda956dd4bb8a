/* SPDX-License-Identifier: Apache-2.0 */
/* fs/lease.c: files whose keys a KAS elsewhere gave and may take away, with one made up here. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#undef fail /* ours is another */

#include "inode_i.h"
#include "lease.h"
#include "reseg.h"
#include "remote.h"
#include "store_setup.h"

#define URL "https://kas.example.org"
#define LEN 100000u

struct fake {
	struct kas *keys;
	int err, n_items;
};

struct world {
	unsigned ttl, grace;
	struct bed bed;
	struct fake kas;
	struct store *st;
	int n_lost;
	struct inode *lost;
};

static bool serves(void *ctx, const char *url)
{
	return strcmp(url, URL) == 0;
}

static int rewrap(void *ctx, struct remote_item *items, size_t n, unsigned ms)
{
	struct fake *f = ctx;

	f->n_items += (int)n;
	for (size_t i = 0; i < n; i++)
		items[i].err = f->err ? f->err : kas_unwrap_local(f->keys, items[i].policy, items[i].ka, &items[i].share);
	return 0;
}

/* Writing must still be taken while the kernel hands over what it has. */
static void lost(void *arg, struct inode *f)
{
	struct world *w = arg;

	w->n_lost++;
	w->lost = f;
	assert_int_equal(inode_write(f, "L", 1, 0), f->fd_write ? 0 : -EROFS);
}

static void nothing(void *arg, const char *path, const char *text)
{
}

static void pause_ms(long ms)
{
	const struct timespec t = {ms / 1000, ms % 1000 * 1000000};

	nanosleep(&t, NULL);
}

static void store_again(struct world *w)
{
	const struct store_options opt = {.segment_size = SEG_MIN, .cache_bytes = 1 << 20, .dirty_bytes = 1 << 24, .no_threads = true};

	if (w->st)
		assert_int_equal(store_close(w->st), 0);
	assert_int_equal(store_open(&w->bed.io, w->bed.root, w->bed.tdfs, &w->bed.keys, &opt, nothing, NULL, &w->st), 0);
}

static void world_make(struct world *w, unsigned ttl, unsigned grace)
{
	const struct kas_remote r = {&w->kas, serves, rewrap};
	EVP_PKEY *key = pubkey_new_ec(), *pub = NULL;
	char *pem = pubkey_pem(key);

	*w = (struct world){.ttl = ttl, .grace = grace};
	bed_make(&w->bed);
	w->kas.keys = kas_new();
	assert_int_equal(kas_add_local(w->kas.keys, "k1", URL, key), 0);
	assert_int_equal(pubkey_public(pem, strlen(pem), &pub), 0);
	free(pem);
	assert_int_equal(kas_add_remote(w->bed.keys.kas, &r), 0);
	assert_int_equal(kas_add_writer(w->bed.keys.kas, "k1", URL, pub, 0), 0);
	kas_times(w->bed.keys.kas, ttl, grace);
	w->bed.keys.lost = lost;
	w->bed.keys.lost_arg = w;
	store_again(w);
}

static void world_end(struct world *w)
{
	assert_int_equal(store_close(w->st), 0);
	kas_free(w->kas.keys);
	bed_remove(&w->bed);
}

static void make(struct world *w, const char *name)
{
	uint8_t *buf = malloc(LEN);
	struct inode *f;

	memset(buf, 'x', LEN);
	kas_times(w->bed.keys.kas, 0, 0); /* what is made here would be known here */
	assert_int_equal(inode_create(w->st, w->bed.root, name, 0600, name, &f), 0);
	inode_opened(f, true);
	assert_int_equal(inode_write(f, buf, LEN, 0), 0);
	inode_closed(f, true);
	inode_put(f);
	free(buf);
	kas_times(w->bed.keys.kas, w->ttl, w->grace);
}

static struct inode *get(struct world *w, const char *name, bool write)
{
	struct inode *f;

	assert_int_equal(inode_get(w->st, w->bed.root, name, write, name, &f), 0);
	inode_opened(f, write);
	return f;
}

static void put(struct inode *f, bool write)
{
	inode_closed(f, write);
	inode_put(f);
}

static int read_one(struct inode *f)
{
	char c;
	ssize_t n = inode_read(f, &c, 1, LEN / 2);

	if (n == 1)
		assert_int_equal(c, 'x');
	return n == 1 ? 0 : (int)n;
}

static void test_refused(void **state)
{
	struct world w;
	struct inode *f, *other;
	char c[2] = "";

	world_make(&w, 1, 60);
	make(&w, "a.tdf");
	assert_int_equal(w.kas.n_items, 0);
	store_again(&w);
	f = get(&w, "a.tdf", true);
	assert_int_equal(w.kas.n_items, 1);
	assert_int_equal(read_one(f), 0);
	w.kas.err = -EACCES;
	leases_renew(w.st); /* not due yet */
	assert_int_equal(w.kas.n_items, 1);
	pause_ms(800);
	leases_renew(w.st);
	assert_int_equal(w.kas.n_items, 2);
	assert_int_equal(read_one(f), -EACCES);
	assert_int_equal(w.st->n_revoked, 1);
	assert_int_equal(w.n_lost, 0);
	leases_end(w.st); /* what was accepted before arrives, then writing ends too */
	assert_int_equal(w.n_lost, 1);
	assert_ptr_equal(w.lost, f);
	assert_true(inode_key_ended(f));
	assert_int_equal(inode_write(f, "n", 1, 0), -EACCES);
	assert_int_equal(inode_truncate(f, 5), -EACCES);
	leases_end(w.st);
	assert_int_equal(w.n_lost, 1);
	assert_int_equal(inode_get(w.st, w.bed.root, "a.tdf", false, "a.tdf", &other), -EACCES);
	assert_int_equal(w.kas.n_items, 2); /* the refusal is believed */
	put(f, true);
	w.kas.err = 0;
	store_again(&w); /* sealing needed no KAS */
	pause_ms(1100);
	f = get(&w, "a.tdf", false);
	assert_int_equal(inode_read(f, c, 1, 0), 1);
	assert_string_equal(c, "L");
	put(f, false);
	world_end(&w);
}

static void test_away(void **state)
{
	struct world w;
	struct inode *f;

	world_make(&w, 1, 1);
	make(&w, "a.tdf");
	store_again(&w);
	f = get(&w, "a.tdf", false);
	w.kas.err = -ETIMEDOUT;
	pause_ms(1100);
	leases_renew(w.st);
	leases_end(w.st);
	assert_int_equal(read_one(f), 0); /* the grace */
	assert_int_equal(w.n_lost, 0);
	pause_ms(1100);
	leases_end(w.st); /* nobody renewed it: the end comes all the same */
	assert_int_equal(w.n_lost, 1);
	assert_int_equal(read_one(f), -ETIMEDOUT);
	assert_int_equal(w.st->n_lapsed, 1);
	w.kas.err = 0;
	pause_ms(1100);
	assert_int_equal(read_one(f), 0); /* it is back */
	assert_false(inode_key_ended(f));
	put(f, false);
	world_end(&w);
}

/* Made here: an outage ends nothing, a refusal does, and a fresh key is another matter. */
static void test_own(void **state)
{
	struct world w;
	struct inode *f;

	world_make(&w, 1, 0);
	assert_int_equal(inode_create(w.st, w.bed.root, "a.tdf", 0600, "a.tdf", &f), 0);
	inode_opened(f, true);
	for (uint64_t at = 0; at < LEN; at += 1000)
		assert_int_equal(inode_write(f, memset((char[1000]){0}, 'x', 1000), 1000, at), 0);
	w.kas.err = -EIO;
	pause_ms(1100);
	leases_renew(w.st);
	leases_end(w.st);
	assert_int_equal(w.n_lost, 0);
	assert_int_equal(read_one(f), 0);
	w.kas.err = -EACCES;
	f->lease.due = 1; /* as if half a minute had passed */
	leases_renew(w.st);
	leases_end(w.st);
	assert_int_equal(read_one(f), -EACCES);
	assert_int_equal(inode_write(f, "y", 1, 0), -EACCES);
	put(f, true);
	world_end(&w);
}

/* Many open files: one question for all of them.  One that nobody has open is not asked for. */
static void test_many(void **state)
{
	struct world w;
	struct inode *f[20];
	char name[24];

	world_make(&w, 1, 0);
	for (int i = 0; i < 20; i++) {
		snprintf(name, sizeof(name), "f%d.tdf", i);
		make(&w, name);
	}
	store_again(&w);
	for (int i = 0; i < 20; i++) {
		snprintf(name, sizeof(name), "f%d.tdf", i);
		f[i] = get(&w, name, false);
	}
	assert_int_equal(w.kas.n_items, 20);
	inode_closed(f[0], false); /* held, not open */
	pause_ms(800);
	leases_renew(w.st);
	assert_int_equal(w.kas.n_items, 39);
	pause_ms(300);
	leases_end(w.st);
	assert_int_equal(w.n_lost, 0);
	assert_int_equal(read_one(f[1]), 0);
	assert_int_equal(read_one(f[0]), 0); /* asks */
	assert_int_equal(w.kas.n_items, 40);
	inode_put(f[0]);
	for (int i = 1; i < 20; i++)
		put(f[i], false);
	world_end(&w);
}

/* A fresh key for the same content is no way around the KAS: it is asked for it when the time of the old one is over, and once it has
 * refused none is made. */
static void test_rekeyed(void **state)
{
	struct world w;
	struct inode *f;
	char *access;

	world_make(&w, 1, 0);
	make(&w, "a.tdf");
	store_again(&w);
	f = get(&w, "a.tdf", true);
	assert_int_equal(w.kas.n_items, 1);
	f->invocations = RESEG_KEY_USES;
	assert_int_equal(inode_write(f, "y", 1, 0), 0);
	pause_ms(600);
	while (reseg_turn(w.st))
		;
	assert_int_equal(store_sync(w.st), 0);
	assert_in_range(f->invocations, 1, 1000);
	pause_ms(300); /* three quarters of the old key's time are over, of the new one's not even a half */
	w.kas.err = -EACCES;
	leases_renew(w.st);
	assert_int_equal(w.kas.n_items, 2);
	assert_int_equal(read_one(f), -EACCES);
	access = strdup(f->tmpl->key_access);
	f->invocations = RESEG_KEY_USES;
	assert_false(reseg_turn(w.st));
	assert_string_equal(f->tmpl->key_access, access);
	assert_int_equal(f->invocations, RESEG_KEY_USES);
	free(access);
	put(f, true);
	world_end(&w);
}

/* At the end of a mount nobody is told of a key any more: what was to be told is gone. */
static void test_stopped(void **state)
{
	const struct store_options opt = {.segment_size = SEG_MIN, .cache_bytes = 1 << 20, .dirty_bytes = 1 << 24};
	struct world w;
	struct inode *f;

	world_make(&w, 100, 0);
	make(&w, "a.tdf");
	make(&w, "b.tdf");
	store_again(&w);
	assert_int_equal(store_close(w.st), 0);
	assert_int_equal(store_open(&w.bed.io, w.bed.root, w.bed.tdfs, &w.bed.keys, &opt, nothing, NULL, &w.st), 0);
	f = get(&w, "a.tdf", false);
	f->lease.state = LEASE_ENDED;
	for (unsigned i = 0; i < 100 && f->lease.state != LEASE_SHUT; i++)
		pause_ms(50);
	assert_int_equal(w.n_lost, 1);
	put(f, false);
	f = get(&w, "b.tdf", false);
	leases_stop_ending(w.st);
	f->lease.state = LEASE_ENDED;
	pause_ms(600);
	assert_int_equal(w.n_lost, 1);
	put(f, false);
	world_end(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_refused), cmocka_unit_test(test_away),    cmocka_unit_test(test_own),
	    cmocka_unit_test(test_rekeyed), cmocka_unit_test(test_stopped), cmocka_unit_test(test_many),
	};

	report_limit(REPORT_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
