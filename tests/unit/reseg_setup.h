/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of re-segmentation share: its steps, one at a time, and what the file at rest says. */
#ifndef TDFS_TEST_RESEG_SETUP_H
#define TDFS_TEST_RESEG_SETUP_H

#include "faults.h"
#include "inode_i.h"
#include "reseg.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h> /* has a fail() of its own */

#define SIZE (uint64_t)(3 * 1048576 + 777)

static inline struct file *sealed_file(struct world *w, const char *name)
{
	struct file *f = file_create(w, name);

	file_write(w, f, 0, SIZE, 1);
	file_fsync(w, f);
	return f;
}

static inline bool build(struct file *f, uint64_t bytes)
{
	struct store *st = f->w->st;
	bool ready = false;

	mutex_lock(&st->seal_lock);
	assert_int_equal(reseg_build(f->f, bytes, &ready), 0);
	mutex_unlock(&st->seal_lock);
	return ready;
}

static inline int begin(struct file *f, uint32_t s)
{
	struct store *st = f->w->st;
	int err;

	mutex_lock(&st->seal_lock);
	err = reseg_begin(f->f, s);
	mutex_unlock(&st->seal_lock);
	return err;
}

static inline void finish(struct file *f)
{
	file_unlink(f->w, f);
	file_close(f->w, f);
}

static inline void seal(struct file *f)
{
	assert_int_equal(writeback_seal(f->w->st, &f->f, 1, true), 0);
}

static inline unsigned n_copies(struct world *w)
{
	int fd = openat(w->bed.tdfs, ".", O_RDONLY | O_DIRECTORY);
	DIR *d = fdopendir(fd);
	unsigned n = 0;

	for (struct dirent *e; (e = readdir(d));)
		n += !strncmp(e->d_name, "whole-", 6);
	closedir(d);
	return n;
}

static inline struct stat stat_of(struct file *f)
{
	struct stat s;

	assert_int_equal(fstatat(f->w->bed.root, f->name, &s, 0), 0);
	return s;
}

static inline struct record record_of(struct file *f)
{
	struct record r = {0};
	uint8_t sector[SECTOR];
	int fd = openat(f->w->bed.root, f->name, O_RDONLY);

	assert_int_equal(pread(fd, sector, SECTOR, 0), SECTOR);
	assert_int_equal(record_parse(sector, f->w->bed.keys.k_rec, &r, NULL), 0);
	close(fd);
	return r;
}

#endif
