/* SPDX-License-Identifier: Apache-2.0 */
/* Names, whole disks, and what a power cut leaves of them. */
#include <errno.h>

#include "simdisk_i.h"

/* --- names ------------------------------------------------------------------------------------------------------------------- */

struct sim_name *sim_names_find(const struct sim_names *s, uint64_t dir, const char *name)
{
	for (size_t i = 0; i < s->n; i++)
		if (s->e[i].dir == dir && !strcmp(s->e[i].name, name))
			return &s->e[i];
	return NULL;
}

static void names_put(struct sim_names *s, const struct sim_name *e)
{
	struct sim_name *old = sim_names_find(s, e->dir, e->name);

	if (old) {
		old->ino = e->ino;
		return;
	}
	if (s->n == s->cap) {
		s->cap = MAX(16, 2 * s->cap);
		s->e = sim_must(reallocarray(s->e, s->cap, sizeof(*s->e)));
	}
	s->e[s->n++] = *e;
}

static void names_apply(struct sim_names *s, const struct sim_op *op)
{
	for (int i = 0; i < op->n_take; i++) {
		struct sim_name *e = sim_names_find(s, op->take[i].dir, op->take[i].name);

		if (e)
			*e = s->e[--s->n];
	}
	for (int i = 0; i < op->n_put; i++)
		names_put(s, &op->put[i]);
}

static void names_copy(struct sim_names *to, const struct sim_names *from)
{
	to->n = to->cap = from->n;
	to->e = sim_must(malloc((from->n + 1) * sizeof(*to->e)));
	if (from->n)
		memcpy(to->e, from->e, from->n * sizeof(*to->e));
}

void sim_op_do(struct simdisk *d, const struct sim_op *op)
{
	names_apply(&d->v, op);
	if (d->n_ops == d->cap_ops) {
		d->cap_ops = MAX(16, 2 * d->cap_ops);
		d->ops = sim_must(reallocarray(d->ops, d->cap_ops, sizeof(*d->ops)));
	}
	d->ops[d->n_ops++] = *op;
}

static bool op_in(const struct sim_op *op, uint64_t dir)
{
	for (int i = 0; i < op->n_take; i++)
		if (op->take[i].dir == dir)
			return true;
	for (int i = 0; i < op->n_put; i++)
		if (op->put[i].dir == dir)
			return true;
	return false;
}

/* @dir 0: all */
void sim_names_commit(struct simdisk *d, uint64_t dir)
{
	size_t kept = 0;

	for (size_t i = 0; i < d->n_ops; i++) {
		if (dir && !op_in(&d->ops[i], dir))
			d->ops[kept++] = d->ops[i];
		else
			names_apply(&d->d, &d->ops[i]);
	}
	d->n_ops = kept;
}

/* --- disks ------------------------------------------------------------------------------------------------------------------- */

static struct simdisk *disk_new(enum sim_mode mode)
{
	struct simdisk *d = sim_must(calloc(1, sizeof(*d)));

	d->mode = mode;
	d->next_ino = 10;
	sim_io_init(d);
	return d;
}

struct simdisk *simdisk_new(enum sim_mode mode)
{
	struct simdisk *d = disk_new(mode);

	sim_node_new(d, SIM_ROOT, true, S_IFDIR | 0755);
	return d;
}

void simdisk_free(struct simdisk *d)
{
	if (!d)
		return;
	for (size_t i = 0; i < d->n_nodes; i++)
		sim_node_free(d->nodes[i]);
	free(d->nodes);
	free(d->d.e);
	free(d->v.e);
	free(d->ops);
	free(d);
}

struct simdisk *simdisk_copy(const struct simdisk *from)
{
	struct simdisk *d = disk_new(from->mode);

	d->next_ino = from->next_ino;
	d->calls = from->calls;
	names_copy(&d->d, &from->d);
	names_copy(&d->v, &from->v);
	for (size_t i = 0; i < from->n_ops; i++) { /* already in v */
		struct sim_names v = d->v;

		d->v = (struct sim_names){0};
		sim_op_do(d, &from->ops[i]);
		free(d->v.e);
		d->v = v;
	}
	for (size_t i = 0; i < from->n_nodes; i++) {
		const struct sim_node *o = from->nodes[i];
		struct sim_node *n = sim_node_new(d, o->ino, o->dir, 0);

		sim_map_copy(&n->d, &o->d);
		sim_map_copy(&n->v, &o->v);
		n->dsize = o->dsize;
		n->da = o->da;
		n->va = o->va;
		n->ctime = o->ctime;
		for (size_t k = 0; k < o->n_writes; k++)
			sim_node_pend(n, o->writes[k].page, o->writes[k].mask, o->writes[k].call, o->writes[k].p);
		for (size_t k = 0; k < o->n_sizes; k++)
			sim_node_size(n, o->sizes[k]);
		n->vsize = o->vsize;
	}
	return d;
}

void simdisk_sync(struct simdisk *d)
{
	for (size_t i = 0; i < d->n_nodes; i++) {
		sim_node_sync(d->nodes[i]);
		d->nodes[i]->da = d->nodes[i]->va;
	}
	sim_names_commit(d, 0);
}

/* Which of the sectors of one write persist?  Whole files, whole writes and single sectors, so that every kind of mixture comes up often.
 */
static uint8_t choose(const struct simdisk *d, const struct sim_node *n, const struct sim_write *w, unsigned how, uint64_t write_seed,
		      uint64_t *rnd, uint8_t *written)
{
	uint64_t call = write_seed + w->call;
	uint8_t mask = 0;

	if (how == 1 || (how == 2 && simdisk_random(&call) & 1))
		mask = w->mask;
	else if (how == 3)
		mask = w->mask & (uint8_t)simdisk_random(rnd);
	/* a block that the file did not have is not shown before its data */
	if (d->mode == SIM_EXT4 && (uint64_t)w->page * SIM_PAGE >= n->dsize)
		mask |= w->mask & (uint8_t) ~*written;
	*written |= w->mask;
	return mask;
}

static void crash_content(const struct simdisk *d, const struct sim_node *o, struct sim_node *n, uint64_t *rnd)
{
	unsigned how = simdisk_random(rnd) & 3, how_size = (unsigned)(simdisk_random(rnd) % 3);
	uint64_t write_seed = simdisk_random(rnd), size = o->dsize;
	size_t pages;

	sim_map_copy(&n->d, &o->d);
	if (o->n_writes) {
		size_t most = 0;
		uint8_t *written;

		for (size_t i = 0; i < o->n_writes; i++)
			most = MAX(most, o->writes[i].page + 1);
		written = sim_must(calloc(most, 1));
		for (size_t i = 0; i < o->n_writes; i++) {
			const struct sim_write *w = &o->writes[i];
			uint8_t mask = choose(d, o, w, how, write_seed, rnd, &written[w->page]);

			if (mask)
				sim_map_merge(&n->d, w->page, w->p, mask);
		}
		free(written);
	}
	if (o->n_sizes && how_size == 1)
		size = o->vsize;
	else if (o->n_sizes && how_size == 2)
		size = o->sizes[simdisk_random(rnd) % o->n_sizes];
	n->dsize = n->vsize = size;
	pages = (size + SIM_PAGE - 1) / SIM_PAGE;
	for (size_t i = pages; i < n->d.n; i++)
		sim_map_set(&n->d, i, NULL);
	if (size % SIM_PAGE && sim_map_get(&n->d, pages - 1)) {
		struct sim_page *p = sim_page_copy(sim_map_get(&n->d, pages - 1));

		memset(p->b + size % SIM_PAGE, 0, SIM_PAGE - size % SIM_PAGE);
		sim_map_set(&n->d, pages - 1, p);
	}
	sim_map_copy(&n->v, &n->d);
}

struct simdisk *simdisk_crash(const struct simdisk *from, uint64_t seed)
{
	struct simdisk *d = disk_new(from->mode);
	uint64_t rnd = seed;
	unsigned how = (unsigned)(simdisk_random(&rnd) % 3);
	size_t prefix = how == 0 ? 0 : how == 1 ? from->n_ops : simdisk_random(&rnd) % (from->n_ops + 1);

	d->next_ino = from->next_ino;
	names_copy(&d->d, &from->d);
	for (size_t i = 0; i < from->n_ops; i++) {
		bool keep = i < prefix;

		if (from->mode == SIM_POSIX && how == 2)
			keep = simdisk_random(&rnd) & 1;
		if (keep)
			names_apply(&d->d, &from->ops[i]);
	}
	names_copy(&d->v, &d->d);
	for (size_t i = 0; i < from->n_nodes; i++) {
		const struct sim_node *o = from->nodes[i];
		bool used = o->ino == SIM_ROOT;
		struct sim_node *n;

		for (size_t k = 0; k < d->d.n && !used; k++)
			used = d->d.e[k].ino == o->ino;
		if (!used)
			continue;
		n = sim_node_new(d, o->ino, o->dir, 0);
		n->da = n->va = simdisk_random(&rnd) & 1 ? o->va : o->da;
		n->ctime = o->ctime;
		crash_content(from, o, n, &rnd);
	}
	return d;
}

void simdisk_hook(struct simdisk *d, void (*hook)(void *arg, const char *name), void *arg)
{
	d->hook = hook;
	d->hook_arg = arg;
}

void simdisk_fail(struct simdisk *d, enum sim_call call, unsigned nth, bool stays, int err, const char *name)
{
	d->fault.call = call;
	d->fault.left = nth;
	d->fault.stays = stays;
	d->fault.err = err;
	strcpy(d->fault.name, name ? name : "");
}

unsigned simdisk_syncs(const struct simdisk *d)
{
	return d->n_syncs;
}

int simdisk_graft(struct simdisk *to, struct simdisk *from, const char *name)
{
	const struct sim_name *t = sim_names_find(&to->v, SIM_ROOT, name), *f = sim_names_find(&from->d, SIM_ROOT, name);
	struct sim_node *n = t ? sim_node(to, t->ino) : NULL;
	const struct sim_node *o = f ? sim_node(from, f->ino) : NULL;

	if (!n || !o)
		return -ENOENT;
	sim_writes_drop(n);
	n->n_sizes = 0;
	sim_map_free(&n->d);
	sim_map_free(&n->v);
	sim_map_copy(&n->d, &o->d);
	sim_map_copy(&n->v, &o->d);
	n->dsize = n->vsize = o->dsize;
	return 0;
}

uint64_t simdisk_mix(uint64_t h, const void *p, size_t len)
{
	const uint8_t *b = p;
	uint64_t v;

	for (; len >= 8; b += 8, len -= 8) {
		memcpy(&v, b, 8);
		h = (h ^ v) * 0x9FB21C651E98DF25u;
		h ^= h >> 29;
	}
	for (; len; b++, len--)
		h = (h ^ *b) * 0x100000001B3u;
	return h ^ h >> 31;
}

static const uint8_t zeros[SIM_PAGE];

/* Crash states share most of their pages: each is hashed once. */
static uint64_t page_hash(struct sim_page *p)
{
	static uint64_t zeros_hash;
	uint64_t *hash = p ? &p->hash : &zeros_hash;

	if (!*hash)
		*hash = simdisk_mix(1, p ? p->b : zeros, SIM_PAGE);
	return *hash;
}

uint64_t simdisk_hash(struct simdisk *d)
{
	const struct sim_name *tdfs = sim_names_find(&d->d, SIM_ROOT, ".tdfs");
	uint64_t sum = 0;

	for (size_t i = 0; i < d->d.n; i++) {
		const struct sim_name *e = &d->d.e[i];
		const struct sim_node *n = sim_node(d, e->ino);
		uint64_t h = simdisk_mix(strlen(e->name), e->name, strlen(e->name));

		if (n->dir || (tdfs && e->dir == tdfs->ino))
			continue;
		h = simdisk_mix(h, &n->dsize, sizeof(n->dsize));
		for (size_t k = 0; k < (n->dsize + SIM_PAGE - 1) / SIM_PAGE; k++) {
			struct sim_page *p = sim_map_get(&n->d, k);
			uint64_t len = n->dsize - k * SIM_PAGE, whole;

			if (len < SIM_PAGE) {
				h = simdisk_mix(h, p ? p->b : zeros, len);
				continue;
			}
			whole = page_hash(p);
			h = simdisk_mix(h, &whole, sizeof(whole));
		}
		sum += h; /* whatever order the names are in */
	}
	return sum;
}
