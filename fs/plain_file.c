/* SPDX-License-Identifier: Apache-2.0 */
#include "plain_file.h"

#include <fcntl.h>
#include <sys/uio.h>
#include <sys/xattr.h>

#include "inode_i.h"

#define BIRTH_WAITS 80u

/* Lengths that no file has keep these apart from a size hint, and from the converter's own mark. */
#define MARK_LEN(m) (UINT64_MAX - (uint64_t)(m))

static bool is_hint(struct store *st, const uint8_t *raw, ssize_t n, uint64_t len)
{
	struct hint h;

	return n > 0 && !hint_parse(raw, (size_t)n, len, st->keys.k_hint, &h);
}

/* By the first sector: 1, 0, -errno.  @bears: it has a hint that does not fit: the content it was made for is lost */
static int ours_by_sector(struct store *st, int dirfd, const char *name, ino_t ino, bool bears)
{
	uint8_t sector[SECTOR] = {0};
	struct record r;
	struct stat now;
	int fd = open_store_file(st, dirfd, name, false), err;
	ssize_t n;

	if (fd < 0)
		return fd;
	err = st->io.stat(st->io.ctx, fd, &now);
	if (!err && now.st_ino != ino)
		err = -ESTALE;
	n = err ? err : st->io.pread(st->io.ctx, fd, sector, SECTOR, 0);
	st->io.close(st->io.ctx, fd);
	if (n < 0)
		return (int)n;
	err = record_own(sector, st->keys.k_rec, st->keys.volume_id, &r, NULL);
	if (err == -ENOENT) /* not ours by its record; if it has none but a hint, the record is lost */
		err = record_parse(sector, NULL, &r, NULL) == -ENOENT && bears ? 0 : -ENOENT;
	else if (!err && r.state == RECORD_VOID)
		err = bears ? 0 : -ENOENT;
	fail_clear();
	return err != -ENOENT; /* also with a MAC that is wrong: a damaged file of ours */
}

/* By what is in memory and by the hint: 1, 0, or -1 nothing says so.  @ret_bears: there is a hint */
static int ours_by_hint(struct store *st, int dirfd, const char *name, const struct stat *s, bool *ret_bears)
{
	struct inode *f = inode_find(st, s->st_dev, s->st_ino);
	bool live = f, plain = f && f->plain;
	uint8_t raw[HINT_LEN + 1];
	ssize_t n;

	if (f)
		inode_put(f);
	if (live)
		return !plain;
	n = hint_get(st, dirfd, name, raw);
	*ret_bears = n == HINT_LEN;
	for (uint64_t m = 0; m <= PLAIN_GONE; m++) /* 0: of `convert out` */
		*ret_bears = *ret_bears && !is_hint(st, raw, n, MARK_LEN(m));
	/* length 0: plain_file_born() */
	return is_hint(st, raw, n, (uint64_t)s->st_size) || is_hint(st, raw, n, 0) ? 1 : -1;
}

int plain_file_ours(struct store *st, int dirfd, const char *name, const struct stat *s)
{
	const struct timespec moment = {.tv_nsec = 250000};
	unsigned creating;
	bool bears = false;
	int ours;

	for (unsigned i = 0;; i++) {
		creating = st->n_creating; /* before the look */
		ours = ours_by_hint(st, dirfd, name, s, &bears);
		if (ours >= 0)
			return ours;
		if (s->st_size || !creating || i == BIRTH_WAITS)
			break;
		nanosleep(&moment, NULL); /* it may be one that inode_create() has made just now */
	}
	return s->st_size < SECTOR ? bears : ours_by_sector(st, dirfd, name, s->st_ino, bears);
}

bool plain_file_is(const struct inode *f)
{
	return f->plain;
}

void plain_file_born(struct store *st, int fd, const uint8_t file_id[static ID_LEN])
{
	struct record r = {.state = RECORD_NEW};
	uint8_t hint[HINT_LEN];

	memcpy(r.file_id, file_id, ID_LEN);
	if (hint_make(&r, 0, st->keys.k_hint, hint) || st->io.set_xattr(st->io.ctx, fd, HINT_XATTR, hint, HINT_LEN))
		report(REPORT_DEBUG, "a new file could not be marked as one of the volume's");
}

int plain_file_open(struct store *st, int dirfd, const char *name)
{
	return open_store_file(st, dirfd, name, false);
}

/* Over the inode number, so that a mark copied to another file says nothing. */
int plain_mark_set(struct store *st, int fd, enum plain_mark m)
{
	struct record r = {.state = RECORD_NEW};
	uint8_t hint[HINT_LEN];
	struct stat s;
	int err = st->io.stat(st->io.ctx, fd, &s);

	r.size = (uint64_t)s.st_ino;
	if (!err)
		err = hint_make(&r, MARK_LEN(m), st->keys.k_hint, hint);
	if (!err)
		err = st->io.set_xattr(st->io.ctx, fd, HINT_XATTR, hint, HINT_LEN);
	if (err != -EACCES || s.st_uid != geteuid() || st->io.chmod(st->io.ctx, fd, (s.st_mode & 07777) | 0200))
		return err;
	err = st->io.set_xattr(st->io.ctx, fd, HINT_XATTR, hint, HINT_LEN);
	(void)!st->io.chmod(st->io.ctx, fd, s.st_mode & 07777);
	return err;
}

enum plain_mark plain_mark_get(struct store *st, int fd)
{
	uint8_t raw[HINT_LEN + 1];
	struct hint h;
	struct stat s;
	ssize_t n;

	n = hint_get(st, fd, "", raw);
	if (n <= 0 || st->io.stat(st->io.ctx, fd, &s))
		return PLAIN_NO_MARK;
	for (enum plain_mark m = PLAIN_WINS; m <= PLAIN_GONE; m++)
		if (!hint_parse(raw, (size_t)n, MARK_LEN(m), st->keys.k_hint, &h) && h.size == (uint64_t)s.st_ino)
			return m;
	return PLAIN_NO_MARK;
}

/* The descriptor may be exchanged for a writable one, hence the lock; the file system below orders what is done with it. */

ssize_t plain_read(struct inode *f, void *buf, size_t len, uint64_t off)
{
	const struct io *io = &f->st->io;
	size_t have = 0;
	ssize_t n = 0;

	rwlock_read(&f->lock);
	do {
		n = io->pread(io->ctx, f->fd, (char *)buf + have, len - have, off + have);
		if (n > 0)
			have += (size_t)n;
	} while (n > 0 && have < len);
	rwlock_unlock(&f->lock);
	return n < 0 && !have ? n : (ssize_t)have;
}

static int write_all(int fd, const char *buf, size_t len, uint64_t off, int flags)
{
	while (len) {
		struct iovec v = {(void *)buf, len};
		ssize_t n = pwritev2(fd, &v, 1, (off_t)off, flags);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		buf += n;
		off += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

int plain_write(struct inode *f, const void *buf, size_t len, uint64_t off, bool append)
{
	int err;

	if (off + len < off)
		return -EFBIG;
	rwlock_read(&f->lock);
	err = !f->fd_write ? -EROFS : write_all(f->fd, buf, len, off, (append ? RWF_APPEND : 0) | (f->st->opt.strict ? RWF_DSYNC : 0));
	rwlock_unlock(&f->lock);
	return err;
}

int plain_truncate(struct inode *f, uint64_t size)
{
	const struct io *io = &f->st->io;
	int err;

	f->st->changed = true;
	rwlock_read(&f->lock);
	err = size > INT64_MAX ? -EFBIG : io->truncate(io->ctx, f->fd, size);
	rwlock_unlock(&f->lock);
	return err;
}

int plain_allocate(struct inode *f, int mode, uint64_t off, uint64_t len)
{
	const struct io *io = &f->st->io;
	int err;

	rwlock_read(&f->lock);
	err = io->allocate(io->ctx, f->fd, mode, off, len);
	rwlock_unlock(&f->lock);
	return err;
}

/* All handles share one descriptor, which is told of a lost write once: the rest hear of it from here. */
int plain_fsync(struct inode *f, bool data_only)
{
	const struct io *io = &f->st->io;
	int err;

	rwlock_write(&f->lock);
	err = f->error ? f->error : io->sync(io->ctx, f->fd, !data_only);
	f->error = err;
	rwlock_unlock(&f->lock);
	return err;
}

int plain_set_times(struct inode *f, const struct timespec ts[2])
{
	const struct io *io = &f->st->io;
	int err;

	rwlock_read(&f->lock);
	err = io->times(io->ctx, f->fd, ts);
	rwlock_unlock(&f->lock);
	return err;
}
