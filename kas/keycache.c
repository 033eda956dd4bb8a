/* SPDX-License-Identifier: Apache-2.0 */
#include "keycache.h"

#include <errno.h>

#include "lock.h"

#define BUCKETS_MIN 1024u

/* A list in the order in which its entries end: all of a kind live equally long, so a new one goes to the end. */
struct ends {
	struct entry *first, *last;
};

struct entry {
	struct entry *next; /* in its bucket */
	struct entry *before, *behind;
	struct ends *in; /* the list it is in, or NULL */
	uint8_t id[KEYCACHE_ID];
	struct secret *share; /* or NULL */
	uint64_t until;       /* of the share, or of the refusal */
	uint64_t ticket;      /* + 1 with each answer */
	int err;              /* of the last answer */
	bool bridged, asking;
	uint32_t waiting;
};

struct keycache {
	struct mutex lock; /* a leaf */
	/* guarded by lock */
	struct cond answered;
	struct keycache_times times;
	struct entry **buckets;
	size_t n_buckets, n;
	struct ends shares, refusals;
	struct keycache_stats stats;
};

struct keycache *keycache_new(const struct keycache_times *t)
{
	struct keycache *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->n_buckets = BUCKETS_MIN;
	c->buckets = calloc(c->n_buckets, sizeof(*c->buckets));
	if (!c->buckets) {
		free(c);
		return NULL;
	}
	c->times = *t;
	mutex_init(&c->lock);
	cond_init(&c->answered);
	return c;
}

void keycache_set(struct keycache *c, const struct keycache_times *t)
{
	c->times = *t;
}

void keycache_free(struct keycache *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < c->n_buckets; i++) {
		for (struct entry *e = c->buckets[i], *next; e; e = next) {
			next = e->next;
			secret_free(e->share);
			free(e);
		}
	}
	free(c->buckets);
	cond_destroy(&c->answered);
	mutex_destroy(&c->lock);
	free(c);
}

/* --- everything below: the lock is held --- */

static void ends_remove(struct entry *e)
{
	struct ends *l = e->in;

	if (!l)
		return;
	*(e->before ? &e->before->behind : &l->first) = e->behind;
	*(e->behind ? &e->behind->before : &l->last) = e->before;
	e->before = e->behind = NULL;
	e->in = NULL;
}

static void ends_append(struct ends *l, struct entry *e)
{
	ends_remove(e);
	e->before = l->last;
	*(l->last ? &l->last->behind : &l->first) = e;
	l->last = e;
	e->in = l;
}

static struct entry **bucket_of(struct keycache *c, const uint8_t *id)
{
	return &c->buckets[get_le64(id) % c->n_buckets];
}

static struct entry *find(struct keycache *c, const uint8_t *id)
{
	struct entry *e = *bucket_of(c, id);

	while (e && memcmp(e->id, id, KEYCACHE_ID))
		e = e->next;
	return e;
}

static void drop(struct keycache *c, struct entry *e)
{
	struct entry **p = bucket_of(c, e->id);

	while (*p != e)
		p = &(*p)->next;
	*p = e->next;
	ends_remove(e);
	secret_free(e->share);
	free(e);
	c->n--;
}

/* Nobody needs it for anything but what it says. */
static bool idle(const struct entry *e)
{
	return !e->asking && !e->waiting;
}

/* Four times the buckets; without memory the chains get longer. */
static void grow(struct keycache *c)
{
	size_t n = c->n_buckets * 4, old_n = c->n_buckets;
	struct entry **more = calloc(n, sizeof(*more)), **old = c->buckets;

	if (!more)
		return;
	c->buckets = more;
	c->n_buckets = n;
	for (size_t i = 0; i < old_n; i++) {
		for (struct entry *e = old[i], *next; e; e = next) {
			struct entry **b = bucket_of(c, e->id);

			next = e->next;
			e->next = *b;
			*b = e;
		}
	}
	free(old);
}

static struct entry *add(struct keycache *c, const uint8_t *id)
{
	struct entry *e, **b;

	for (e = c->shares.first; c->n >= KEYCACHE_MAX && e;) { /* the one that ends first */
		struct entry *next = e->behind;

		if (idle(e))
			drop(c, e);
		e = next;
	}
	if (c->n >= c->n_buckets)
		grow(c);
	e = calloc(1, sizeof(*e));
	if (!e)
		return NULL;
	memcpy(e->id, id, KEYCACHE_ID);
	b = bucket_of(c, id);
	e->next = *b;
	*b = e;
	c->n++;
	return e;
}

/* What the last answer means for one who wants the share at @now. */
static void answer(struct keycache *c, struct entry *e, uint64_t now, struct keycache_answer *ret)
{
	*ret = (struct keycache_answer){.err = e->err, .until = e->until};
	if (e->err && e->share) { /* an outage, and a share whose time may be stretched */
		uint64_t end = e->until + c->times.grace;

		if (now < e->until)
			ret->err = 0;
		else if (now < end) {
			ret->err = 0;
			ret->until = MIN(end, now + KEYCACHE_AGAIN_NS);
			ret->bridged = true;
			c->stats.bridged++;
		}
	}
	if (ret->err)
		return;
	ret->share = secret_copy(e->share);
	if (!ret->share)
		ret->err = -ENOMEM;
}

enum keycache_look keycache_look(struct keycache *c, const uint8_t id[static KEYCACHE_ID], uint64_t now, uint64_t after,
				 struct keycache_answer *ret, uint64_t *ret_ticket)
{
	enum keycache_look look = KEYCACHE_KNOWN;
	struct entry *e;

	mutex_lock(&c->lock);
	e = find(c, id);
	if (e && e->share && e->until > MAX(now, after)) {
		c->stats.hits++;
		*ret = (struct keycache_answer){.until = e->until, .share = secret_copy(e->share)};
		ret->err = ret->share ? 0 : -ENOMEM;
	} else if (e && e->asking) {
		c->stats.waits++;
		e->waiting++;
		*ret_ticket = e->ticket;
		look = KEYCACHE_BUSY;
	} else if (e && !e->share && e->in && e->until > now) {
		c->stats.refusals++;
		*ret = (struct keycache_answer){.err = e->err, .until = e->until};
	} else {
		if (!e)
			e = add(c, id);
		if (e) {
			c->stats.misses++;
			e->asking = true;
			look = KEYCACHE_ASK;
		} else {
			*ret = (struct keycache_answer){.err = -ENOMEM};
		}
	}
	mutex_unlock(&c->lock);
	return look;
}

bool keycache_has(struct keycache *c, const uint8_t id[static KEYCACHE_ID], uint64_t now)
{
	const struct entry *e;
	bool has;

	mutex_lock(&c->lock);
	e = find(c, id);
	has = e && e->in && e->until > now;
	mutex_unlock(&c->lock);
	return has;
}

void keycache_wait(struct keycache *c, const uint8_t id[static KEYCACHE_ID], uint64_t ticket, uint64_t until, struct keycache_answer *ret)
{
	const struct timespec t = {(time_t)(until / 1000000000u), (long)(until % 1000000000u)};
	struct timespec now;
	struct entry *e;
	int res = 0;

	mutex_lock(&c->lock);
	e = find(c, id); /* kept for us: it is waited for */
	while (e->ticket == ticket && !res)
		res = cond_wait_until(&c->answered, &c->lock, &t);
	clock_gettime(CLOCK_MONOTONIC, &now);
	if (e->ticket != ticket)
		answer(c, e, (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec, ret);
	else
		*ret = (struct keycache_answer){.err = -ETIMEDOUT};
	e->waiting--;
	if (idle(e) && !e->in)
		drop(c, e);
	mutex_unlock(&c->lock);
}

void keycache_fill(struct keycache *c, const uint8_t id[static KEYCACHE_ID], uint64_t asked, uint64_t now, int err,
		   const struct secret *share, struct keycache_answer *ret)
{
	struct entry *e;
	bool refused = err == -EACCES || err == -EBADMSG;
	struct secret *copy = err ? NULL : secret_copy(share);

	if (!err && !copy)
		err = -ENOMEM;
	mutex_lock(&c->lock);
	e = find(c, id); /* it is asked for, so it is there */
	e->asking = false;
	e->err = err;
	e->ticket++;
	if (!err || refused) {
		secret_free(e->share);
		e->share = copy;
		e->until = refused ? now + c->times.denied : asked + c->times.ttl;
		ends_append(refused ? &c->refusals : &c->shares, e);
	}
	answer(c, e, now, ret);
	if (e->waiting)
		cond_broadcast(&c->answered);
	else if (!e->in)
		drop(c, e);
	mutex_unlock(&c->lock);
}

static void expire(struct keycache *c, struct ends *l, uint64_t now, uint64_t more)
{
	for (struct entry *e = l->first, *next; e && e->until + more <= now; e = next) {
		next = e->behind;
		if (idle(e))
			drop(c, e);
	}
}

size_t keycache_expire(struct keycache *c, uint64_t now)
{
	size_t n;

	mutex_lock(&c->lock);
	expire(c, &c->shares, now, c->times.grace);
	expire(c, &c->refusals, now, 0);
	n = c->n;
	mutex_unlock(&c->lock);
	return n;
}

void keycache_stats(struct keycache *c, struct keycache_stats *ret)
{
	mutex_lock(&c->lock);
	*ret = c->stats;
	ret->entries = c->n;
	mutex_unlock(&c->lock);
}
