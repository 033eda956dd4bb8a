/* SPDX-License-Identifier: Apache-2.0 */
#include "lease.h"

#include <stdatomic.h>

#include "inode_i.h"

#define SECOND_NS 1000000000u
#define LOOK_NS (SECOND_NS / 4)            /* how exact the end is */
#define AGAIN_NS (5 * (uint64_t)SECOND_NS) /* a key that could not be renewed is tried again */
#define RETRY_NS SECOND_NS                 /* one that was ended by an outage: not asked for more often, by those who read */
#define REFUSED_NS (30 * (uint64_t)SECOND_NS)
#define OWN_NS (30 * (uint64_t)SECOND_NS) /* an outage: one of ours is tried again */
#define BATCH 2000

struct leases {
	struct store *st;
	pthread_t renewer, ender;
	bool ended;        /* the second was joined */
	struct mutex lock; /* a leaf */
	/* guarded by lock */
	struct cond wake;
	bool stop;
};

static const char *why(int err)
{
	return err == -EACCES      ? "the KAS has refused its key"
	       : err == -ETIMEDOUT ? "the time of its key is over and the KAS does not answer"
	       : err == -ENOKEY    ? "there is no way to its key any more"
				   : "the time of its key is over and the KAS could not be asked";
}

void lease_set(struct inode *f, uint64_t until, bool own)
{
	struct lease *l = &f->lease;
	uint64_t now = until ? now_ns() : 0;

	l->seq++;
	l->due = until > now ? now + (until - now) / 4 * 3 : 0;
	l->own = own;
	l->err = 0;
	l->state = LEASE_GOOD;
	l->until = until;
}

int ask_begin(struct store *st)
{
	if (++st->n_asking <= STORE_ASKING_MAX)
		return 0;
	st->n_asking--;
	return fail(-ETIMEDOUT, "the KAS is late: %u wait for it already", STORE_ASKING_MAX);
}

void ask_end(struct store *st)
{
	st->n_asking--;
}

/* What is needed to ask once more. */
static int keys_of(struct inode *f, struct manifest **ret, unsigned *ret_seq)
{
	CLEANUP_FREE char *access = NULL;
	CLEANUP_FREE char *policy = NULL;
	const struct manifest *foreign;

	rwlock_read(&f->lock);
	*ret_seq = f->lease.seq;
	foreign = f->foreign ? f->foreign->m : NULL;
	access = foreign ? strdup(foreign->key_access_text) : f->tmpl ? strdup(f->tmpl->key_access) : NULL;
	policy = foreign ? strdup(foreign->policy) : f->tmpl ? strdup(f->tmpl->policy) : NULL;
	rwlock_unlock(&f->lock);
	return access && policy ? manifest_of_keys(access, policy, ret) : -ENOMEM;
}

/* f->lock is held for writing */
static void end(struct inode *f, int err, uint64_t now)
{
	struct lease *l = &f->lease;

	l->err = err;
	l->due = now + (err == -EACCES ? REFUSED_NS : RETRY_NS);
	if (l->state != LEASE_GOOD) /* and what was dropped stays dropped */
		return;
	l->until = 1;
	l->state = LEASE_ENDED;
	*(err == -EACCES ? &f->st->n_revoked : &f->st->n_lapsed) += 1;
	report(REPORT_NOTE, "%s: %s: it cannot be read any more", f->path ? f->path : "file", why(err));
}

/* The answer for the key with the number @seq */
static void take_answer(struct inode *f, unsigned seq, int err, uint64_t until)
{
	struct lease *l = &f->lease;
	bool outage = err && err != -EACCES && err != -EBADMSG && err != -ENOKEY;
	uint64_t now = now_ns();

	rwlock_write(&f->lock);
	if (l->seq != seq) {
		/* about another key */
	} else if (!err && (!until || until > now)) {
		l->due = !until ? UINT64_MAX : MAX(now + (until - now) / 4 * 3, now + SECOND_NS / 2);
		if (until && until == l->until) /* not renewed, but good for a while */
			l->due = now + MIN((until - now) / 2, AGAIN_NS);
		l->err = 0;
		l->state = LEASE_GOOD;
		l->until = until;
	} else if (outage && l->own && l->state == LEASE_GOOD) {
		l->until = now + OWN_NS;
		l->due = now + OWN_NS / 2;
	} else if ((outage || err == -EBADMSG) && l->state == LEASE_GOOD &&
		   l->until > now) { /* -EBADMSG: another key than fits; the one here did */
		l->due = now + MIN((l->until - now) / 2, AGAIN_NS);
	} else {
		end(f, err ? err : -ETIMEDOUT, now);
	}
	rwlock_unlock(&f->lock);
}

int lease_renew(struct inode *f)
{
	struct manifest *m CLEANUP(manifest_cleanup) = NULL;
	struct lease *l = &f->lease;
	struct kas_want want;
	uint64_t now = now_ns();
	unsigned seq;
	int err = l->err;

	if (now < l->until)
		return 0;
	if (err && now < l->due)
		return fail(err, "%s", why(err));
	err = ask_begin(f->st);
	if (err)
		return err;
	err = keys_of(f, &m, &seq);
	if (err) {
		ask_end(f->st);
		return err;
	}
	want = (struct kas_want){.m = m};
	kas_renew(f->st->keys.kas, &want, 1);
	ask_end(f->st);
	take_answer(f, seq, want.err, want.until);
	err = l->err;
	return err ? fail(err, "%s", why(err)) : 0;
}

bool inode_key_ended(const struct inode *f)
{
	return f->lease.state != LEASE_GOOD;
}

/* --- the threads --- */

static bool wants_renewal(const struct inode *f, uint64_t now)
{
	return f->lease.until > 1 && f->lease.due <= now;
}

static bool wants_end(const struct inode *f, uint64_t now)
{
	return f->lease.state == LEASE_ENDED || (f->lease.until > 1 && f->lease.until <= now);
}

/* A reference to each of at most BATCH files, going on from *bucket */
static size_t collect(struct store *st, bool (*want)(const struct inode *f, uint64_t now), size_t *bucket, struct inode **ret)
{
	uint64_t now = now_ns();
	size_t n = 0;

	mutex_lock(&st->list_lock);
	for (; *bucket < st->n_buckets; ++*bucket) {
		for (struct inode *f = st->buckets[*bucket]; f && n < BATCH; f = f->next)
			if (want(f, now)) {
				f->refs++;
				ret[n++] = f;
			}
		if (n == BATCH) /* the rest of this chain with the next round */
			break;
	}
	mutex_unlock(&st->list_lock);
	return n;
}

/* One that nobody has open is not asked for: it waits to be sealed. */
static bool is_open(struct inode *f)
{
	bool open;

	rwlock_read(&f->lock);
	open = f->handles > 0;
	rwlock_unlock(&f->lock);
	return open;
}

static void renew(struct store *st, struct inode **files, size_t n)
{
	CLEANUP_FREE struct kas_want *want = calloc(n, sizeof(*want));
	CLEANUP_FREE unsigned *seq = calloc(n, sizeof(*seq));
	size_t n_open = 0;

	for (size_t i = 0; i < n; i++) {
		struct manifest *m = NULL;

		if (!want || !seq || !is_open(files[i]) || keys_of(files[i], &m, &seq[n_open])) {
			inode_put(files[i]);
			continue;
		}
		want[n_open].m = m;
		files[n_open++] = files[i];
	}
	if (n_open)
		kas_renew(st->keys.kas, want, n_open);
	for (size_t i = 0; i < n_open; i++) {
		take_answer(files[i], seq[i], want[i].err, want[i].until);
		manifest_free((struct manifest *)want[i].m);
		inode_put(files[i]);
	}
}

void leases_renew(struct store *st)
{
	CLEANUP_FREE struct inode **files = malloc(BATCH * sizeof(*files));
	size_t bucket = 0, n;

	kas_tick(st->keys.kas);
	while (files && (n = collect(st, wants_renewal, &bucket, files))) {
		renew(st, files, n);
		if (n < BATCH)
			break;
	}
}

static void end_one(struct store *st, struct inode *f)
{
	struct lease *l = &f->lease;
	uint64_t now = now_ns();

	rwlock_write(&f->lock);
	if (l->state == LEASE_GOOD && l->until > 1 && l->until <= now) {
		if (l->own) {
			l->until = now + OWN_NS;
			l->due = now;
		} else if (f->handles) {
			end(f, -ETIMEDOUT, now);
			l->due = now; /* who reads may ask at once */
		} else {
			l->until = 1; /* the next one who opens it asks */
		}
	}
	rwlock_unlock(&f->lock);
	if (l->state != LEASE_ENDED)
		return;
	segcache_drop_all(st->cache, f->id);
	if (st->keys.lost)
		st->keys.lost(st->keys.lost_arg, f);
	rwlock_write(&f->lock);
	if (l->state == LEASE_ENDED)
		l->state = LEASE_SHUT;
	rwlock_unlock(&f->lock);
}

void leases_end(struct store *st)
{
	CLEANUP_FREE struct inode **files = malloc(BATCH * sizeof(*files));
	size_t bucket = 0, n;

	while (files && (n = collect(st, wants_end, &bucket, files))) {
		for (size_t i = 0; i < n; i++) {
			end_one(st, files[i]);
			inode_put(files[i]);
		}
		if (n < BATCH)
			break;
	}
}

/* A moment; false: it is the end */
static bool pause_for(struct leases *l)
{
	struct timespec until;
	bool stop;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += LOOK_NS;
	if (until.tv_nsec >= (long)SECOND_NS) {
		until.tv_sec++;
		until.tv_nsec -= SECOND_NS;
	}
	mutex_lock(&l->lock);
	while (!l->stop && !cond_wait_until(&l->wake, &l->lock, &until))
		;
	stop = l->stop;
	mutex_unlock(&l->lock);
	return !stop;
}

static void *renewer_main(void *arg)
{
	struct leases *l = arg;

	while (pause_for(l))
		leases_renew(l->st);
	return NULL;
}

static void *ender_main(void *arg)
{
	struct leases *l = arg;

	while (pause_for(l))
		leases_end(l->st);
	return NULL;
}

int leases_start(struct store *st)
{
	struct leases *l;
	int err;

	if (st->opt.no_threads || !kas_is_remote(st->keys.kas))
		return 0;
	l = calloc(1, sizeof(*l));
	if (!l)
		return -ENOMEM;
	l->st = st;
	mutex_init(&l->lock);
	cond_init(&l->wake);
	err = -pthread_create(&l->renewer, NULL, renewer_main, l);
	if (!err) {
		err = -pthread_create(&l->ender, NULL, ender_main, l);
		st->leases = l;
		if (!err)
			return 0;
		l->stop = true;
		pthread_join(l->renewer, NULL);
		st->leases = NULL;
	}
	cond_destroy(&l->wake);
	mutex_destroy(&l->lock);
	free(l);
	return fail(err, "no thread to renew keys: %s", strerror(-err));
}

void leases_stop_ending(struct store *st)
{
	struct leases *l = st->leases;

	if (!l || l->ended)
		return;
	mutex_lock(&l->lock);
	l->stop = true;
	cond_broadcast(&l->wake);
	mutex_unlock(&l->lock);
	pthread_join(l->ender, NULL);
	l->ended = true;
}

void leases_stop(struct store *st)
{
	struct leases *l = st->leases;

	if (!l)
		return;
	leases_stop_ending(st);
	pthread_join(l->renewer, NULL);
	cond_destroy(&l->wake);
	mutex_destroy(&l->lock);
	free(l);
	st->leases = NULL;
}
