/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of the volume log share: a real directory behind a table that counts and fails on demand. */
#ifndef TDFS_TEST_REDO_SETUP_H
#define TDFS_TEST_REDO_SETUP_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#undef fail /* ours is another */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>

#include "redo.h"
#include "report.h"
#include "temp_dir.h"

static const uint8_t volume[ID_LEN] = "volume id 16 by";

/* A real directory behind a table that counts and fails on demand. */
struct bed {
	char dir[PATH_MAX];
	int fd;
	struct io real, io;
	struct secret *key;
	struct redo *r;
	_Atomic unsigned syncs, syncfs;
	_Atomic int fail_syncs; /* the next so many log syncs fail */
	_Atomic int fail_writes, write_err; /* 0: -ENOSPC */
	_Atomic useconds_t slow;
};

static inline int bed_sync(void *ctx, int fd, bool full)
{
	struct bed *b = ctx;

	b->syncs++;
	if (b->slow)
		usleep(b->slow);
	if (b->fail_syncs > 0) {
		b->fail_syncs--;
		return -EIO;
	}
	return 0; /* the page cache is enough for these tests */
}

static inline int bed_syncfs(void *ctx, int fd)
{
	struct bed *b = ctx;

	b->syncfs++;
	return 0;
}

static inline int bed_pwritev(void *ctx, int fd, const struct iovec *iov, int n, uint64_t off)
{
	struct bed *b = ctx;

	if (b->fail_writes > 0) {
		struct iovec half = {iov->iov_base, iov->iov_len / 2};

		b->fail_writes--;
		if (b->real.pwritev(b->real.ctx, fd, &half, 1, off)) /* the kernel took some of it */
			return -EIO;
		return b->write_err ? b->write_err : -ENOSPC;
	}
	return b->real.pwritev(b->real.ctx, fd, iov, n, off);
}

static inline int bed_open_log(struct bed *b)
{
	return redo_open(&b->io, b->fd, b->fd, volume, b->key, 1, 1, 0, 0, &b->r);
}

static inline int setup(void **state)
{
	struct bed *b = calloc(1, sizeof(*b));

	report_limit(REPORT_ERROR);
	assert_true(temp_dir_make(b->dir));
	b->fd = open(b->dir, O_RDONLY | O_DIRECTORY);
	b->real = io_posix(b->fd);
	b->io = b->real;
	b->io.ctx = b;
	b->io.sync = bed_sync;
	b->io.syncfs = bed_syncfs;
	b->io.pwritev = bed_pwritev;
	b->key = secret_new();
	memset(b->key->b, 7, SECRET_LEN);
	assert_int_equal(redo_create(&b->io, b->fd, REDO_HALF_MIN), 0);
	assert_int_equal(bed_open_log(b), 0);
	*state = b;
	return 0;
}

static inline int teardown(void **state)
{
	struct bed *b = *state;

	redo_close(b->r);
	secret_free(b->key);
	close(b->fd);
	assert_true(temp_dir_remove(b->dir));
	free(b);
	return 0;
}

static inline struct base base_no(uint64_t n)
{
	struct base b = {.generation = n};

	memset(b.file_id, (int)n, ID_LEN);
	memset(b.content_id, (int)n + 1, ID_LEN);
	return b;
}

static inline struct redo_rec image_rec(uint64_t n, uint64_t seg, const uint8_t *bytes, uint32_t len)
{
	return (struct redo_rec){.type = REDO_IMAGE, .base = base_no(n), .image = {seg, bytes, len}};
}

static inline uint8_t *pattern(size_t len, unsigned seed)
{
	uint8_t *p = malloc(len);

	for (size_t i = 0; i < len; i++) {
		seed = seed * 1103515245 + 12345;
		p[i] = (uint8_t)(seed >> 16);
	}
	return p;
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

#endif
