/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <sys/stat.h>

#include "simdisk_i.h"

uint64_t simdisk_random(uint64_t *state)
{
	uint64_t z = *state += 0x9E3779B97F4A7C15u;

	z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
	z = (z ^ z >> 27) * 0x94D049BB133111EBu;
	return z ^ z >> 31;
}

void *sim_must(void *p)
{
	if (!p)
		abort();
	return p;
}

/* --- pages ------------------------------------------------------------------------------------------------------------------- */

struct sim_page *sim_page_get(struct sim_page *p)
{
	if (p)
		p->refs++;
	return p;
}

static void page_put(struct sim_page *p)
{
	if (p && !--p->refs)
		free(p);
}

struct sim_page *sim_page_copy(const struct sim_page *from)
{
	struct sim_page *p = sim_must(malloc(sizeof(*p)));

	p->refs = 1;
	p->hash = 0;
	if (from)
		memcpy(p->b, from->b, SIM_PAGE);
	else
		memset(p->b, 0, SIM_PAGE);
	return p;
}

static bool page_zero(const struct sim_page *p)
{
	return !p->b[0] && !memcmp(p->b, p->b + 1, SIM_PAGE - 1);
}

struct sim_page *sim_map_get(const struct sim_map *m, size_t i)
{
	return i < m->n ? m->p[i] : NULL;
}

/* takes the reference */
void sim_map_set(struct sim_map *m, size_t i, struct sim_page *p)
{
	if (i >= m->n) {
		size_t n = MAX(i + 1, 2 * m->n);

		if (!p)
			return;
		m->p = sim_must(reallocarray(m->p, n, sizeof(*m->p)));
		memset(m->p + m->n, 0, (n - m->n) * sizeof(*m->p));
		m->n = n;
	}
	page_put(m->p[i]);
	m->p[i] = p;
}

void sim_map_copy(struct sim_map *to, const struct sim_map *from)
{
	to->n = from->n;
	to->p = from->n ? sim_must(malloc(from->n * sizeof(*to->p))) : NULL;
	for (size_t i = 0; i < from->n; i++)
		to->p[i] = sim_page_get(from->p[i]);
}

void sim_map_free(struct sim_map *m)
{
	for (size_t i = 0; i < m->n; i++)
		page_put(m->p[i]);
	free(m->p);
	*m = (struct sim_map){0};
}

/* Put the sectors of @mask of @from into page @i. */
void sim_map_merge(struct sim_map *m, size_t i, struct sim_page *from, uint8_t mask)
{
	struct sim_page *p;

	if (mask == 0xFF) {
		sim_map_set(m, i, sim_page_get(from));
		return;
	}
	p = sim_page_copy(sim_map_get(m, i));
	for (unsigned k = 0; k < 8; k++)
		if (mask & 1 << k)
			memcpy(p->b + k * SIM_SECTOR, from->b + k * SIM_SECTOR, SIM_SECTOR);
	sim_map_set(m, i, p);
}

/* --- files ------------------------------------------------------------------------------------------------------------------- */

struct sim_node *sim_node(const struct simdisk *d, uint64_t ino)
{
	for (size_t i = 0; i < d->n_nodes; i++)
		if (d->nodes[i]->ino == ino)
			return d->nodes[i];
	return NULL;
}

struct sim_node *sim_node_new(struct simdisk *d, uint64_t ino, bool dir, mode_t mode)
{
	struct sim_node *n = sim_must(calloc(1, sizeof(*n)));

	if (d->n_nodes == d->cap_nodes) {
		d->cap_nodes = MAX(16, 2 * d->cap_nodes);
		d->nodes = sim_must(reallocarray(d->nodes, d->cap_nodes, sizeof(*d->nodes)));
	}
	d->nodes[d->n_nodes++] = n;
	n->ino = ino;
	n->dir = dir;
	n->da.mode = n->va.mode = mode;
	clock_gettime(CLOCK_REALTIME_COARSE, &n->ctime);
	n->da.mtime = n->va.mtime = n->ctime;
	return n;
}

void sim_writes_drop(struct sim_node *n)
{
	for (size_t i = 0; i < n->n_writes; i++)
		page_put(n->writes[i].p);
	n->n_writes = 0;
}

void sim_node_free(struct sim_node *n)
{
	sim_writes_drop(n);
	sim_map_free(&n->d);
	sim_map_free(&n->v);
	free(n->writes);
	free(n->sizes);
	free(n);
}

void sim_node_read(const struct sim_node *n, void *buf, size_t len, uint64_t off)
{
	uint8_t *b = buf;

	while (len) {
		size_t at = off % SIM_PAGE, k = MIN(len, SIM_PAGE - at);
		const struct sim_page *p = sim_map_get(&n->v, off / SIM_PAGE);

		if (p)
			memcpy(b, p->b + at, k);
		else
			memset(b, 0, k);
		b += k;
		off += k;
		len -= k;
	}
}

void sim_node_pend(struct sim_node *n, size_t page, uint8_t mask, uint32_t call, struct sim_page *p)
{
	if (n->n_writes == n->cap_writes) {
		n->cap_writes = MAX(64, 2 * n->cap_writes);
		n->writes = sim_must(reallocarray(n->writes, n->cap_writes, sizeof(*n->writes)));
	}
	n->writes[n->n_writes++] = (struct sim_write){(uint32_t)page, call, mask, sim_page_get(p)};
}

void sim_node_size(struct sim_node *n, uint64_t size)
{
	if (n->n_sizes == n->cap_sizes) {
		n->cap_sizes = MAX(16, 2 * n->cap_sizes);
		n->sizes = sim_must(reallocarray(n->sizes, n->cap_sizes, sizeof(*n->sizes)));
	}
	n->sizes[n->n_sizes++] = size;
	n->vsize = size;
}

/* @buf NULL: zeros */
static void node_put(struct simdisk *d, struct sim_node *n, const uint8_t *buf, size_t len, uint64_t off)
{
	uint32_t call = ++d->calls;

	while (len) {
		size_t at = off % SIM_PAGE, k = MIN(len, SIM_PAGE - at), page = off / SIM_PAGE;
		struct sim_page *p = sim_page_copy(sim_map_get(&n->v, page));
		uint8_t mask = 0;

		for (size_t s = at / SIM_SECTOR; s <= (at + k - 1) / SIM_SECTOR; s++)
			mask |= (uint8_t)(1 << s);
		if (buf)
			memcpy(p->b + at, buf, k);
		else
			memset(p->b + at, 0, k);
		sim_node_pend(n, page, mask, call, p);
		if (k == SIM_PAGE && page_zero(p)) {
			page_put(p);
			p = NULL;
		}
		sim_map_set(&n->v, page, p);
		buf = buf ? buf + k : NULL;
		off += k;
		len -= k;
	}
}

static void now(struct sim_node *n)
{
	clock_gettime(CLOCK_REALTIME_COARSE, &n->ctime);
	n->va.mtime = n->ctime;
}

void sim_node_write(struct simdisk *d, struct sim_node *n, const void *buf, size_t len, uint64_t off)
{
	node_put(d, n, buf, len, off);
	if (off + len > n->vsize)
		sim_node_size(n, off + len);
	now(n);
}

void sim_node_truncate(struct simdisk *d, struct sim_node *n, uint64_t len)
{
	uint64_t end = MIN(n->vsize, (uint64_t)n->v.n * SIM_PAGE);

	if (len == n->vsize)
		return;
	if (len < end)
		node_put(d, n, NULL, end - len, len);
	sim_node_size(n, len);
	now(n);
}

/* the first error of a sync is the last: the pages are clean now, and lost; the size is metadata and stays pending */
void sim_node_lose(struct sim_node *n)
{
	sim_writes_drop(n);
}

void sim_node_sync(struct sim_node *n)
{
	for (size_t i = 0; i < n->n_writes; i++)
		sim_map_merge(&n->d, n->writes[i].page, n->writes[i].p, n->writes[i].mask);
	sim_writes_drop(n);
	n->n_sizes = 0;
	n->dsize = n->vsize;
}
