/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "convert_i.h"

#define ANSWER_ROOM (sizeof(struct item_answer) + 512) /* with the longest text */

void queue_init(struct queue *q)
{
	*q = (struct queue){0};
	q->last = &q->first;
}

static void queue_count(struct queue *q, const struct chunk *c, bool comes)
{
	/* unsigned arithmetic: with a sign of -1 it takes away */
	uint64_t sign = comes ? 1 : (uint64_t)-1;

	q->n_chunks += sign;
	q->n_files += sign * c->n;
	q->bytes += sign * c->bytes;
	if (c->bytes > LARGE_BYTES)
		q->n_large += sign;
	else
		q->small_bytes += sign * c->bytes;
}

void queue_push(struct queue *q, struct chunk *c)
{
	c->next = NULL;
	*q->last = c;
	q->last = &c->next;
	queue_count(q, c, true);
}

void queue_push_front(struct queue *q, struct chunk *c)
{
	c->next = q->first;
	q->first = c;
	if (!c->next)
		q->last = &c->next;
	queue_count(q, c, true);
}

struct chunk *queue_pop(struct queue *q)
{
	struct chunk *c = q->first;

	if (!c)
		return NULL;
	q->first = c->next;
	if (!q->first)
		q->last = &q->first;
	c->next = NULL;
	queue_count(q, c, false);
	return c;
}

struct chunk *queue_take(struct queue *q, bool (*fits)(const struct convert *cv, const struct chunk *c, unsigned i),
			 const struct convert *cv, unsigned i)
{
	struct chunk *before = NULL, *c = q->first;

	while (c && !fits(cv, c, i)) {
		before = c;
		c = c->next;
	}
	if (!c || !before)
		return c ? queue_pop(q) : NULL;
	before->next = c->next;
	if (!c->next)
		q->last = &before->next;
	c->next = NULL;
	queue_count(q, c, false);
	return c;
}

struct chunk *chunk_new(struct convert *cv)
{
	struct chunk *c = calloc(1, sizeof(*c));

	if (c) {
		c->id = ++cv->next_id;
		c->op = CHUNK_STAGE;
	}
	return c;
}

void convert_item_free(struct convert *cv, struct item *it)
{
	free(it->path);
	if (it->dir)
		cdir_put(it->dir, &cv->walk_calls);
	it->path = NULL;
	it->dir = NULL;
}

int chunk_add(struct convert *cv, struct chunk *c, const struct item *it)
{
	if (c->n == c->room) {
		size_t room = c->room ? 2 * c->room : 8;
		struct item *more = realloc(c->items, room * sizeof(*more));

		if (!more) {
			struct item gone = *it;

			convert_item_free(cv, &gone);
			return -ENOMEM;
		}
		c->items = more;
		c->room = room;
	}
	c->items[c->n++] = *it;
	c->bytes += it->size;
	c->names += strlen(it->path);
	return 0;
}

bool chunk_full(const struct chunk *c)
{
	return c->n >= CHUNK_FILES || c->bytes >= CHUNK_BYTES || c->names >= CHUNK_NAMES;
}

void chunk_ready(struct convert *cv, struct chunk *c)
{
	char text[96];

	if (c->n * ANSWER_ROOM + c->names < WIRE_MAX) {
		queue_push(&cv->ready, c);
		return;
	}
	snprintf(text, sizeof(text), "has %zu names: more than can be converted together", c->n);
	while (c->n)
		settle(cv, &c->items[--c->n], ITEM_LINKED, text);
	chunk_free(cv, c);
}

void chunk_free(struct convert *cv, struct chunk *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < c->n; i++)
		convert_item_free(cv, &c->items[i]);
	free(c->items);
	free(c);
}

int chunk_send(const struct convert *cv, struct wire *w, const struct chunk *c)
{
	CLEANUP_FREE uint8_t *buf = NULL;
	size_t len = 0, at = 0;

	for (size_t i = 0; i < c->n; i++)
		len += sizeof(struct item_order) + strlen(c->items[i].path);
	buf = malloc(len);
	if (!buf)
		return -ENOMEM;
	for (size_t i = 0; i < c->n; i++) {
		const struct item *it = &c->items[i];
		struct item_order o = {.path_len = (uint32_t)strlen(it->path),
				       .verify = it->verify && !it->verified,
				       .retry = c->retry,
				       .s = it->s,
				       .stamp = it->stamp,
				       .out_ino = it->out_ino};

		memcpy(o.hash, it->hash, HASH_LEN);
		memcpy(buf + at, &o, sizeof(o));
		memcpy(buf + at + sizeof(o), it->path, o.path_len);
		at += sizeof(o) + o.path_len;
	}
	return wire_send(w, (uint16_t)(c->op | (c->set ? CHUNK_SET : 0)), c->id, buf, len);
}
