/* SPDX-License-Identifier: Apache-2.0 */
#include "mem_io.h"

#include <errno.h>

static ssize_t mem_pread(void *ctx, int fd, void *buf, size_t len, uint64_t off)
{
	struct mem *m = ctx;

	if (++m->reads == m->fail_at)
		return -EIO;
	if (off >= m->len)
		return 0;
	len = MIN(len, m->len - off);
	if (len)
		memcpy(buf, m->p + off, len);
	return (ssize_t)len;
}

static int mem_stat(void *ctx, int fd, struct stat *ret)
{
	const struct mem *m = ctx;

	memset(ret, 0, sizeof(*ret));
	ret->st_mode = S_IFREG | 0600;
	ret->st_size = (off_t)m->len;
	return 0;
}

struct io mem_io(struct mem *m)
{
	return (struct io){.ctx = m, .pread = mem_pread, .stat = mem_stat};
}
