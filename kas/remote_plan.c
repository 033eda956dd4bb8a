/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For whom a file with some attributes is made: as the OpenTDF SDKs decide it (Go SDK v0.35.0, granter.go), so that files of ours are like
 * theirs.
 *
 * Values of one definition stand together.  Its rule anyOf: whoever has a key of one of them can give the file's key, one share with
 * alternatives.  Any other rule: each key gets a share of its own, all are needed.  Definitions are all needed.  The same set of keys twice
 * is one share.
 */
#include <errno.h>

#include "remote_int.h"
#include "report.h"

void remote_mapped_free(struct remote_mapped *m, size_t n)
{
	for (size_t i = 0; i < n; i++)
		remote_mapped_clear(&m[i]);
	free(m);
}

void remote_mapped_clear(struct remote_mapped *m)
{
	free(m->url);
	free(m->algorithm);
	free(m->kid);
	free(m->pem);
	*m = (struct remote_mapped){0};
}

static int text_order(const char *a, const char *b)
{
	return strcmp(a ? a : "", b ? b : "");
}

static int key_order(const void *a, const void *b)
{
	const struct remote_mapped *const *x = a, *const *y = b;
	int by_url = strcmp((*x)->url, (*y)->url);

	return by_url ? by_url : text_order((*x)->kid, (*y)->kid);
}

/* A set of alternatives: sorted, none twice; borrowed */
struct share {
	const struct remote_mapped *keys[REMOTE_MAPPED_MAX + 1]; /* one more than may be: then there are too many */
	size_t n;
};

static void share_add(struct share *s, const struct remote_mapped *m)
{
	for (size_t i = 0; i < s->n; i++)
		if (key_order(&s->keys[i], &m) == 0)
			return;
	if (s->n < ARRAY_SIZE(s->keys))
		s->keys[s->n++] = m;
	qsort(s->keys, s->n, sizeof(*s->keys), key_order);
}

static bool shares_equal(const struct share *a, const struct share *b)
{
	if (a->n != b->n)
		return false;
	for (size_t i = 0; i < a->n; i++)
		if (key_order(&a->keys[i], &b->keys[i]))
			return false;
	return true;
}

struct plan {
	struct share shares[REMOTE_MAPPED_MAX];
	size_t n, n_keys;
};

static int plan_add(struct plan *p, const struct share *s)
{
	for (size_t i = 0; i < p->n; i++)
		if (shares_equal(&p->shares[i], s))
			return 0;
	if (!s->n)
		return 0;
	if (p->n_keys + s->n > REMOTE_MAPPED_MAX)
		return fail(-ENOSPC, "files with these attributes are to be made for more than %d keys", REMOTE_MAPPED_MAX);
	p->shares[p->n++] = *s;
	p->n_keys += s->n;
	return 0;
}

static bool same_definition(const struct mapping *a, const struct mapping *b)
{
	return a->definition_len == b->definition_len && memcmp(a->definition, b->definition, a->definition_len) == 0;
}

/* What the definition that @m[at] is the first value of adds */
static int clause_add(struct plan *p, const struct mapping *m, size_t n, size_t at)
{
	struct share all = {.n = 0};
	int err = 0;

	for (size_t i = at; i < n && !err; i++)
		for (size_t k = 0; k < m[i].n && !err && same_definition(&m[at], &m[i]); k++) {
			struct share one = {{&m[i].keys[k]}, 1};

			if (m[at].any)
				share_add(&all, one.keys[0]);
			else
				err = plan_add(p, &one);
		}
	return err ? err : plan_add(p, &all);
}

static int take_text(char **to, const char *from)
{
	*to = from ? strdup(from) : NULL;
	return from && !*to ? -ENOMEM : 0;
}

static int take_key(const struct remote_mapped *m, unsigned split, struct remote_mapped *to)
{
	to->split = split;
	return take_text(&to->url, m->url) || take_text(&to->algorithm, m->algorithm) || take_text(&to->kid, m->kid) ||
		       take_text(&to->pem, m->pem)
		   ? -ENOMEM
		   : 0;
}

static int plan_take(const struct plan *p, struct remote_mapped **ret, size_t *ret_n)
{
	struct remote_mapped *list = calloc(p->n_keys + 1, sizeof(*list));
	size_t n = 0;
	int err = list ? 0 : -ENOMEM;

	for (size_t s = 0; s < p->n && !err; s++)
		for (size_t i = 0; i < p->shares[s].n && !err; i++)
			err = take_key(p->shares[s].keys[i], (unsigned)s, &list[n++]);
	if (err) {
		remote_mapped_free(list, n);
		return err;
	}
	*ret = list;
	*ret_n = n;
	return 0;
}

int mappings_plan(const struct mapping *m, size_t n, struct remote_mapped **ret, size_t *ret_n)
{
	struct plan *p = calloc(1, sizeof(*p));
	int err = p ? 0 : -ENOMEM;

	for (size_t i = 0; i < n && !err; i++) {
		bool first = true;

		for (size_t j = 0; j < i; j++)
			first &= !same_definition(&m[i], &m[j]);
		if (first)
			err = clause_add(p, m, n, i);
	}
	if (!err)
		err = plan_take(p, ret, ret_n);
	free(p);
	return err;
}
