/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The swap: the sealed file, whole and durable, gets its names, then those of the plain one go.
 *
 * A crash leaves x, both (x counts, the sealed one was never changed), or x.tdf.  A file with several names is marked between the two,
 * since it changes with the first name that goes: from then on the sealed one counts.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "plain_file.h"
#include "plain_i.h"
#include "record.h"
#include "report.h"

static bool same_time(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

/* Is @fd still what was read, and has nobody it open below the mount?  The lease ends with the descriptor. */
static int check_source(const struct tree *t, int fd, size_t links, const struct plain_swap *w)
{
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_dev != t->nodes->dev || st.st_ino != w->st.st_ino)
		return fail(-EBUSY, "was replaced after it had been read");
#ifndef TEST_NO_FREEZE
	if (st.st_size != w->st.st_size || !same_time(&st.st_mtim, &w->st.st_mtim) || !same_time(&st.st_ctim, &w->st.st_ctim))
		return fail(-EBUSY, "was changed after it had been read");
	if (fcntl(fd, F_SETLEASE, F_WRLCK) && errno == EAGAIN)
		return fail(-EBUSY, "is open below the mount");
#endif
	return st.st_nlink == links ? 0 : fail(-EBUSY, "has got another name");
}

/* The converter is a program like any other: what takes the place of a file is a sealed one of this volume, made from it. */
static int check_temp(const struct tree *t, const struct plain_swap *w)
{
	const struct store_keys *k = &t->store->keys;
	int fd CLEANUP_FD = openat(t->plain->temp_dir, w->temp, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	uint8_t sector[SECTOR];
	struct record r;
	struct stat st;

	if (fd < 0 || fstat(fd, &st))
		return fail(-EIO, "its sealed form is not there: %s", strerror(errno));
	if (!S_ISREG(st.st_mode) || st.st_ino != w->temp_ino || st.st_nlink != 1 ||
	    pread(fd, sector, sizeof(sector), 0) != (ssize_t)sizeof(sector) || record_own(sector, k->k_rec, k->volume_id, &r, NULL))
		return fail(-EIO, "its sealed form is no file of this volume");
	if (r.state != RECORD_SEALED || r.generation != 1 || (uint64_t)st.st_size <= r.tail_off || r.size != (uint64_t)w->st.st_size ||
	    !same_time(&r.ctime, &w->st.st_ctim))
		return fail(-EIO, "its sealed form was not made from it");
	return 0;
}

static void take_back(const struct place *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (unlinkat(p[i].fd, p[i].file, 0))
			report(REPORT_WARN, "%s: could not be removed again: %s", p[i].file, strerror(errno));
}

/* The sealed file's names, all or none */
static int names_make(const struct tree *t, const struct place *p, size_t n, const struct plain_swap *w)
{
	size_t i = 1;
	int err = 0;

	if (renameat2(t->plain->temp_dir, w->temp, p->fd, p->file, RENAME_NOREPLACE)) {
		if (errno != EINVAL) /* of file systems that do not know the flag */
			return -errno;
		if (linkat(t->plain->temp_dir, w->temp, p->fd, p->file, 0))
			return -errno;
		(void)unlinkat(t->plain->temp_dir, w->temp, 0);
	}
	for (; i < n && !err; i += !err)
		err = linkat(p->fd, p->file, p[i].fd, p[i].file, 0) ? -errno : 0;
	if (err)
		take_back(p, i);
	return err;
}

/* From the first name that goes there is no way back: what is left of them is removed when it is seen next */
static int names_drop(const struct tree *t, int x, const struct place *p, size_t n)
{
	int err = n > 1 ? plain_mark_set(t->store, x, PLAIN_GONE) : 0;

	if (!err && unlinkat(p->fd, p->name, 0))
		err = -errno;
	if (err) {
		if (n > 1)
			(void)!plain_mark_set(t->store, x, PLAIN_WINS);
		take_back(p, n);
		return err;
	}
	for (size_t i = 1; i < n; i++)
		if (unlinkat(p[i].fd, p[i].name, 0))
			report(REPORT_WARN, "%s: could not be removed: %s", p[i].name, strerror(errno));
	return 0;
}

/* For those who use the directory nothing has changed */
static void times_restore(const struct place *p)
{
	char path[40];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", p->fd);
	(void)!utimensat(AT_FDCWD, path, (struct timespec[2]){p->was.st_atim, p->was.st_mtim}, 0);
}

static void nodes_move(const struct tree *t, const struct place *p, size_t n, const struct plain_swap *w)
{
	struct node *node = node_find(t->nodes, w->st.st_ino);

	for (size_t i = 0; node && i < n; i++)
		node_move(t->nodes, node, p[i].dir, p[i].name, p[i].dir, p[i].file);
	node_swap(t->nodes, w->st.st_ino, w->temp_ino);
	node_put(t->nodes, node);
}

int plain_swap_claimed(const struct tree *t, struct place *p, size_t n, const struct plain_swap *w)
{
	int x CLEANUP_FD = openat(p->fd, p->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	int err = x < 0 ? -errno : check_source(t, x, n, w);

	for (size_t i = 0; i < n && !err; i++) {
		err = name_store(p[i].name, true, p[i].file);
		if (!err && fstat(p[i].fd, &p[i].was))
			err = -errno;
	}
	if (!err)
		err = check_temp(t, w);
	if (!err)
		err = names_make(t, p, n, w);
	if (err == -EEXIST)
		return fail(err, "the name %s is taken", p->file);
	if (!err)
		err = names_drop(t, x, p, n);
	if (err)
		return err;
	nodes_move(t, p, n, w);
	for (size_t i = 0; i < n; i++)
		times_restore(&p[i]);
	return 0;
}
