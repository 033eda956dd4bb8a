/* SPDX-License-Identifier: Apache-2.0 */
/* Reading what is to be converted and what has been: plain files, sealed ones, and their hash. */
#include <errno.h>
#include <fcntl.h>

#include "convert_bytes.h"
#include "report.h"

#define AHEAD ((uint64_t)4 << 20)

int room_get(uint8_t **p, size_t *room, size_t need)
{
	uint8_t *more;

	if (*room >= need)
		return 0;
	more = realloc(*p, need);
	if (!more)
		return -ENOMEM;
	*p = more;
	*room = need;
	return 0;
}

int sealer_init(struct sealer *s, const struct volume *v)
{
	*s = (struct sealer){.v = v, .hash_key = derive(v->k_hint, "content")};
	return !s->hash_key || room_get(&s->plain, &s->plain_room, STRETCH + 1) ||
		       room_get(&s->stored, &s->stored_room, STRETCH + STRETCH / 8)
		   ? -ENOMEM
		   : 0;
}

void sealer_free(struct sealer *s)
{
	secret_free(s->hash_key);
	if (s->plain)
		wipe(s->plain, s->plain_room);
	free(s->plain);
	free(s->stored);
	free(s->tags);
	tail_template_free(s->sample);
	*s = (struct sealer){0};
}

int plain_room(struct sealer *s, size_t need)
{
	uint8_t *more;

	if (s->plain_room >= need)
		return 0;
	more = malloc(need);
	if (!more)
		return -ENOMEM;
	wipe(s->plain, s->plain_room);
	free(s->plain);
	s->plain = more;
	s->plain_room = need;
	return 0;
}

int content_chain(const struct sealer *s, uint8_t hash[static HASH_LEN], const void *p, size_t len)
{
	const struct part parts[] = {{hash, HASH_LEN}, {p, len}};

	return fingerprint(s->hash_key, parts, 2, hash);
}

int read_exact(int fd, uint8_t *buf, size_t len, uint64_t off, bool end)
{
	size_t have = 0, want = len + end;

	while (have < MAX(len, end && !have)) {
		ssize_t n = pread(fd, buf + have, want - have, (off_t)(off + have));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return fail(-errno, "reading it: %s", strerror(errno));
		if (n == 0)
			break;
		have += (size_t)n;
	}
	return have == len ? 0 : fail(-ESTALE, "its length changed while it was read");
}

void write_begin(int fd, uint64_t off, size_t len)
{
	uint64_t from = off / AHEAD * AHEAD;

	if ((off + len) / AHEAD != off / AHEAD)
		(void)sync_file_range(fd, (off_t)from, AHEAD, SYNC_FILE_RANGE_WRITE);
}

int write_all(int fd, const uint8_t *buf, size_t len, uint64_t off)
{
	while (len) {
		ssize_t n = pwrite(fd, buf, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return fail(-errno, "writing it: %s", strerror(errno));
		buf += n;
		len -= (size_t)n;
		off += (uint64_t)n;
	}
	return 0;
}

/* The kernel's own read-ahead keeps a disk busy only in part: ask for the next stretch whenever one begins. */
static void read_ahead(int fd, uint64_t off, size_t len, uint64_t end)
{
	if (end > 2 * AHEAD && off / AHEAD != (off + len) / AHEAD)
		(void)posix_fadvise(fd, (off_t)((off + len) / AHEAD * AHEAD + AHEAD), AHEAD, POSIX_FADV_WILLNEED);
}

int plain_hash(struct sealer *s, int fd, uint64_t size, uint32_t unit, uint8_t ret_hash[static HASH_LEN])
{
	uint8_t hash[HASH_LEN] = {0};
	uint64_t off = 0;
	int err = plain_room(s, (size_t)unit + 1);

	do {
		size_t len = (size_t)MIN(size - off, unit);

		read_ahead(fd, off, len, size);

		if (!err)
			err = read_exact(fd, s->plain, len, off, off + len == size);
		if (!err)
			err = content_chain(s, hash, s->plain, len);
		off += len;
	} while (!err && off < size);
	if (!err)
		memcpy(ret_hash, hash, HASH_LEN);
	return err;
}

static ssize_t whole_pread(void *ctx, int fd, void *buf, size_t len, uint64_t off)
{
	const struct whole *w = ctx;

	if (off + len > w->len)
		return w->disk.pread(w->disk.ctx, fd, buf, len, off);
	memcpy(buf, w->buf + off, len);
	return (ssize_t)len;
}

static int whole_stat(void *ctx, int fd, struct stat *ret)
{
	const struct whole *w = ctx;

	(void)fd;
	*ret = (struct stat){.st_mode = S_IFREG,
			     .st_size = (off_t)w->len}; /* as the caller has seen it; whether it is still so, one_still() looks */
	return 0;
}

int whole_read(struct sealer *s, const struct io *disk, int fd, uint64_t file_len, struct whole *ret, struct io *ret_io)
{
	int err = 0;

	*ret = (struct whole){.disk = *disk};
	*ret_io = *disk;
	if (file_len > s->stored_room)
		return 0;
	err = read_exact(fd, s->stored, file_len, 0, false);
	if (err)
		return err;
	ret->buf = s->stored;
	ret->len = file_len;
	ret_io->ctx = ret;
	ret_io->pread = whole_pread;
	ret_io->stat = whole_stat;
	return 0;
}

int sealed_hash(struct sealer *s, const struct io *disk, int fd, uint64_t file_len, uint8_t ret_hash[static HASH_LEN])
{
	CLEANUP(container_cleanup) struct container *c = NULL;
	struct whole w;
	struct io io;
	int err = whole_read(s, disk, fd, file_len, &w, &io);

	if (!err)
		err = sealed_open(s->v, &io, fd, &c);
	return err ? err : sealed_read(s, &io, fd, c, -1, ret_hash);
}

int sealed_open(const struct volume *v, const struct io *io, int fd, struct container **ret)
{
	const struct container_keys keys = {v->k_rec, v->k_seal, v->id};
	CLEANUP(container_cleanup) struct container *c = NULL;
	struct secret *dek CLEANUP_SECRET = NULL;
	int err = container_open(io, fd, &keys, &c);

	if (!err && !c->native)
		err = fail(-EBADMSG, "it is no file of this volume");
	if (!err)
		err = kas_unwrap(v->kas, c->m, &dek);
	if (!err)
		err = container_unlock(c, &keys, dek);
	if (!err)
		*ret = STEAL(c);
	return err;
}

int sealed_read(struct sealer *s, const struct io *io, int fd, const struct container *c, int out, uint8_t *ret_hash)
{
	uint32_t unit = c->m->seg_default;
	size_t room = MAX(STRETCH / unit, 1) * unit;
	uint8_t hash[HASH_LEN] = {0};
	uint64_t off = 0, size = c->m->size;
	int err = plain_room(s, room + 1);

	if (!err && !size) /* the empty segment has a tag too */
		err = container_read_segment(io, fd, c, 0, s->plain);
	if (!err && !size)
		err = content_chain(s, hash, s->plain, 0);
	while (!err && off < size) {
		ssize_t n = container_read(io, fd, c, s->plain, (size_t)MIN(room, size - off), off);

		if (n <= 0)
			return n < 0 ? (int)n : -EIO;
		read_ahead(fd, off, (size_t)n, size);
		for (size_t at = 0; ret_hash && !err && at < (size_t)n; at += unit)
			err = content_chain(s, hash, s->plain + at, MIN(unit, (size_t)n - at));
		if (!err && out >= 0)
			err = write_all(out, s->plain, (size_t)n, off);
		if (!err && out >= 0)
			write_begin(out, off, (size_t)n);
		off += (uint64_t)n;
	}
	if (!err && ret_hash)
		memcpy(ret_hash, hash, HASH_LEN);
	return err;
}
