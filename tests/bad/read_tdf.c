/* SPDX-License-Identifier: Apache-2.0 */
#include "read_tdf.h"

#include <errno.h>

#include "report.h"

static void must(bool ok)
{
	if (!ok)
		abort();
}

const struct container_keys test_container_keys = {&test_keys.k_rec, &test_keys.k_seal, test_keys.volume_id};

int open_mem(struct mem *m, const struct container_keys *k, struct container **ret)
{
	struct io io = mem_io(m);
	int err;

	fail_clear();
	err = container_open(&io, 0, k, ret);
	if (err)
		return err;
	err = container_unlock(*ret, k, &test_dek);
	if (err)
		container_free(*ret);
	return err;
}

int read_all(struct mem *m, const struct container *c, uint64_t size)
{
	struct io io = mem_io(m);
	uint8_t *buf = malloc(size + 1);
	ssize_t n;

	must(buf);
	n = container_read(&io, 0, c, buf, size + 1, 0);
	if (n >= 0) {
		must((uint64_t)n == size);
		for (uint64_t i = 0; i < size; i++)
			if (buf[i] != plain_byte(i))
				n = -EIO;
	} else {
		for (uint64_t i = 0; i < size; i++)
			must(!buf[i]); /* nothing leaks out of a failed read */
	}
	/* a file without content is read by its segments */
	for (uint64_t i = 0; n >= 0 && !size && i < c->m->n_segs; i++)
		n = container_read_segment(&io, 0, c, i, buf);
	free(buf);
	return n < 0 ? (int)n : 0;
}

int read_mem(struct mem *m, const struct container_keys *k, uint64_t size)
{
	struct container *c;
	int err = open_mem(m, k, &c);

	if (err)
		return err;
	err = c->m->size == size ? read_all(m, c, size) : -EIO;
	container_free(c);
	return err;
}
