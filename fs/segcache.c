/* SPDX-License-Identifier: Apache-2.0 */
#include "segcache.h"

#include "lock.h"
#include "secret.h"

#define SHARDS 8

struct entry {
	uint64_t owner, seg;
	uint32_t len;
	struct entry *hash_next;
	struct entry *newer, *older; /* circular, newest behind the head */
	uint8_t data[];
};

struct shard {
	struct mutex lock;
	/* guarded by lock */
	struct entry **buckets;
	size_t n_buckets, used, max;
	struct entry *newest, *oldest;
};

struct segcache {
	struct shard shards[SHARDS];
};

static uint64_t key_hash(uint64_t owner, uint64_t seg)
{
	uint64_t h = owner * 0x9E3779B97F4A7C15u ^ (seg + 0x7F4A7C15u) * 0xC2B2AE3D27D4EB4Fu;

	return h ^ h >> 29;
}

static struct shard *shard_of(struct segcache *c, uint64_t owner, uint64_t seg)
{
	return &c->shards[key_hash(owner, seg) % SHARDS];
}

struct segcache *segcache_new(size_t bytes)
{
	struct segcache *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	for (size_t i = 0; i < SHARDS; i++) {
		struct shard *s = &c->shards[i];

		mutex_init(&s->lock);
		s->max = bytes / SHARDS;
		s->n_buckets = s->max / 16384 + 1;
		s->buckets = calloc(s->n_buckets, sizeof(*s->buckets));
		if (!s->buckets) {
			segcache_free(c);
			return NULL;
		}
	}
	return c;
}

static struct entry **entry_slot(struct shard *s, uint64_t owner, uint64_t seg)
{
	struct entry **e = &s->buckets[key_hash(owner, seg) / SHARDS % s->n_buckets];

	while (*e && ((*e)->owner != owner || (*e)->seg != seg))
		e = &(*e)->hash_next;
	return e;
}

static void list_remove(struct shard *s, struct entry *e)
{
	*(e->newer ? &e->newer->older : &s->newest) = e->older;
	*(e->older ? &e->older->newer : &s->oldest) = e->newer;
}

static void list_add(struct shard *s, struct entry *e)
{
	e->newer = NULL;
	e->older = s->newest;
	*(s->newest ? &s->newest->newer : &s->oldest) = e;
	s->newest = e;
}

static struct entry *entry_take(struct shard *s, struct entry **slot)
{
	struct entry *e = *slot;

	*slot = e->hash_next;
	list_remove(s, e);
	s->used -= e->len;
	return e;
}

static void entry_free(struct entry *e)
{
	wipe(e->data, e->len);
	free(e);
}

static void entry_remove(struct shard *s, struct entry **slot)
{
	entry_free(entry_take(s, slot));
}

void segcache_free(struct segcache *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < SHARDS; i++) {
		struct shard *s = &c->shards[i];

		while (s->oldest)
			entry_remove(s, entry_slot(s, s->oldest->owner, s->oldest->seg));
		free(s->buckets);
		mutex_destroy(&s->lock);
	}
	free(c);
}

bool segcache_get(struct segcache *c, uint64_t owner, uint64_t seg, uint32_t off, void *buf, uint32_t len)
{
	struct shard *s = shard_of(c, owner, seg);
	struct entry *e;
	bool hit;

	mutex_lock(&s->lock);
	e = *entry_slot(s, owner, seg);
	hit = e && (uint64_t)off + len <= e->len;
	if (hit) {
		memcpy(buf, e->data + off, len);
		list_remove(s, e);
		list_add(s, e);
	}
	mutex_unlock(&s->lock);
	return hit;
}

/* Room for @len bytes, in the memory of the last one that has to go if it fits: to wipe that, free it and ask for as much takes longer than to decrypt it. */
static struct entry *entry_new(struct shard *s, uint32_t len)
{
	struct entry *e = NULL;

	mutex_lock(&s->lock);
	while (s->used + len > s->max) {
		if (e)
			entry_free(e);
		e = entry_take(s, entry_slot(s, s->oldest->owner, s->oldest->seg));
	}
	mutex_unlock(&s->lock);
	if (e && e->len != len) {
		entry_free(e);
		e = NULL;
	}
	return e ? e : malloc(sizeof(*e) + len);
}

void segcache_put(struct segcache *c, uint64_t owner, uint64_t seg, const void *buf, uint32_t len)
{
	struct shard *s = shard_of(c, owner, seg);
	struct entry **slot, *e = len <= s->max ? entry_new(s, len) : NULL;

	if (!e)
		return;
	e->owner = owner;
	e->seg = seg;
	e->len = len;
	memcpy(e->data, buf, len);
	mutex_lock(&s->lock);
	slot = entry_slot(s, owner, seg);
	if (*slot)
		entry_remove(s, slot);
	while (s->used + len > s->max) /* others came meanwhile */
		entry_remove(s, entry_slot(s, s->oldest->owner, s->oldest->seg));
	slot = entry_slot(s, owner, seg);
	e->hash_next = NULL;
	*slot = e;
	list_add(s, e);
	s->used += len;
	mutex_unlock(&s->lock);
}

void segcache_drop(struct segcache *c, uint64_t owner, uint64_t seg)
{
	struct shard *s = shard_of(c, owner, seg);
	struct entry **slot;

	mutex_lock(&s->lock);
	slot = entry_slot(s, owner, seg);
	if (*slot)
		entry_remove(s, slot);
	mutex_unlock(&s->lock);
}

void segcache_drop_all(struct segcache *c, uint64_t owner)
{
	for (size_t i = 0; i < SHARDS; i++) {
		struct shard *s = &c->shards[i];
		struct entry *e, *older;

		mutex_lock(&s->lock);
		for (e = s->newest; e; e = older) {
			older = e->older;
			if (e->owner == owner)
				entry_remove(s, entry_slot(s, owner, e->seg));
		}
		mutex_unlock(&s->lock);
	}
}
