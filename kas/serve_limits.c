/* SPDX-License-Identifier: Apache-2.0 */
/* Token buckets in tables of a fixed size: what a stranger does costs no memory.  A set that is full forgets the bucket that is fullest: it
 * had nothing to remember. */
#include <time.h>

#include "lock.h"
#include "serve_i.h"

#define SETS 1024
#define WAYS 4
#define BURST 10 /* seconds' worth at once */
#define NOTES 10 /* lines about refusals a second */

struct bucket {
	uint64_t who;
	double level, at; /* what is left of the burst at that time, seconds */
};

struct table {
	double rate;
	struct bucket e[SETS][WAYS];
};

struct limits {
	struct mutex lock; /* a leaf */
	/* guarded by lock */
	struct table failures, keys;
	struct bucket notes;
};

struct limits *limits_new(double failures, double keys)
{
	struct limits *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	mutex_init(&l->lock);
	l->failures.rate = failures;
	l->keys.rate = keys;
	return l;
}

void limits_free(struct limits *l)
{
	if (l)
		mutex_destroy(&l->lock);
	free(l);
}

static double seconds(void)
{
	struct timespec now = {0};

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void refill(struct bucket *b, double rate, double now)
{
	b->level = MIN(b->level + (now - b->at) * rate, rate * BURST);
	b->at = now;
}

static struct bucket *bucket_of(struct table *t, uint64_t who, double now)
{
	struct bucket *set = t->e[(who ^ who >> 32) % SETS], *fullest = NULL;

	for (size_t i = 0; i < WAYS; i++) {
		if (!set[i].at) /* never used */
			set[i].level = t->rate * BURST;
		refill(&set[i], t->rate, now);
		if (set[i].who == who)
			return &set[i];
		if (!fullest || set[i].level > fullest->level)
			fullest = &set[i];
	}
	*fullest = (struct bucket){who, t->rate * BURST, now};
	return fullest;
}

void limits_failed(struct limits *l, uint64_t peer)
{
	mutex_lock(&l->lock);
	bucket_of(&l->failures, peer, seconds())->level -= 1;
	mutex_unlock(&l->lock);
}

static unsigned wait_of(const struct bucket *b, double rate)
{
	return b->level >= 0 ? 0 : 1 + (unsigned)(-b->level / rate);
}

unsigned limits_blocked(struct limits *l, uint64_t peer)
{
	unsigned wait;

	mutex_lock(&l->lock);
	wait = wait_of(bucket_of(&l->failures, peer, seconds()), l->failures.rate);
	mutex_unlock(&l->lock);
	return wait;
}

/* A call may take the bucket below zero, so that one that is larger than the burst gets through at all; the next one waits for it. */
unsigned limits_keys(struct limits *l, uint64_t who, size_t n)
{
	struct bucket *b;
	unsigned wait;

	mutex_lock(&l->lock);
	b = bucket_of(&l->keys, who, seconds());
	wait = wait_of(b, l->keys.rate);
	if (!wait)
		b->level -= (double)n;
	mutex_unlock(&l->lock);
	return wait;
}

void limits_spent(struct limits *l, uint64_t who, size_t n)
{
	mutex_lock(&l->lock);
	bucket_of(&l->keys, who, seconds())->level -= (double)n;
	mutex_unlock(&l->lock);
}

bool limits_note(struct limits *l)
{
	bool yes;

	mutex_lock(&l->lock);
	if (!l->notes.at)
		l->notes.level = NOTES * BURST;
	refill(&l->notes, NOTES, seconds());
	yes = l->notes.level >= 1;
	if (yes)
		l->notes.level -= 1;
	mutex_unlock(&l->lock);
	return yes;
}
