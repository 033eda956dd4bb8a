/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files with several names: kept together until all names are found, so that they stay one file.  The only thing whose memory grows with
 * the tree: by names of such files.
 */
#include <errno.h>

#include "convert_i.h"

struct link_set {
	struct link_set *next;
	dev_t dev;
	ino_t ino;
	uint64_t nlink;
	struct chunk *chunk;
};

#define BUCKETS 4096

static struct link_set **bucket(struct convert *cv, const struct stat *st)
{
	return &cv->sets[(st->st_ino * 0x9e3779b97f4a7c15u >> 32) % BUCKETS];
}

int sets_add(struct convert *cv, const struct stat *st, struct item *it, bool *ret_complete, struct chunk **ret)
{
	struct link_set **p, *s;
	int err;

	if (!cv->sets) {
		cv->sets = calloc(BUCKETS, sizeof(struct link_set *));
		if (!cv->sets)
			goto no_memory;
	}
	for (p = bucket(cv, st); *p && ((*p)->ino != st->st_ino || (*p)->dev != st->st_dev); p = &(*p)->next)
		;
	s = *p;
	if (!s) {
		s = calloc(1, sizeof(*s));
		if (s)
			s->chunk = chunk_new(cv);
		if (!s || !s->chunk) {
			free(s);
			goto no_memory;
		}
		s->dev = st->st_dev;
		s->ino = st->st_ino;
		s->nlink = st->st_nlink;
		s->chunk->set = true;
		*p = s;
		cv->n_sets++;
	}
	if (s->chunk->n) {
		it->size = 0; /* the bytes are there once, and looked at once */
		it->verify = s->chunk->items[0].verify;
	}
	err = chunk_add(cv, s->chunk, it);
	if (err)
		return err;
	*ret_complete = s->chunk->n >= s->nlink;
	if (*ret_complete) {
		*ret = s->chunk;
		*p = s->next;
		free(s);
		cv->n_sets--;
	}
	return 0;
no_memory:
	convert_item_free(cv, it);
	return -ENOMEM;
}

int sets_rest(struct convert *cv, struct chunk **ret)
{
	for (size_t i = 0; cv->n_sets && i < BUCKETS; i++) {
		struct link_set *s = cv->sets[i];

		if (!s)
			continue;
		cv->sets[i] = s->next;
		cv->n_sets--;
		*ret = s->chunk;
		free(s);
		/* in place a part of the names is not enough: each is looked at by itself, and that says so unless it is sealed already */
		if (cv->run.in_place)
			(*ret)->set = false;
		return 0;
	}
	*ret = NULL;
	return 0;
}

void sets_free(struct convert *cv)
{
	struct chunk *c;

	while (cv->n_sets && sets_rest(cv, &c) == 0 && c)
		chunk_free(cv, c);
	free(cv->sets);
	cv->sets = NULL;
}
