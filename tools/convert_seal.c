/* SPDX-License-Identifier: Apache-2.0 */
/* Plain bytes to a sealed file and back.  A small file is one read and one write. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/xattr.h>

#include "convert_file.h"
#include "crc.h"
#include "report.h"

#define STRETCH ((size_t)1 << 20)        /* plain bytes read and written at once */
#define SEGMENTS_GOOD ((uint64_t)100000) /* a manifest that every client reads (FORMAT.md section 7) */
#define AHEAD ((uint64_t)4 << 20)
#define SEG_LARGEST ((uint32_t)2 << 20)
#define LEASE ((uint64_t)1 << 20) /* FORMAT.md section 3: bound on invocations */

static int room_get(uint8_t **p, size_t *room, size_t need)
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
	*s = (struct sealer){.v = v};
	return room_get(&s->plain, &s->plain_room, STRETCH + 1) || room_get(&s->stored, &s->stored_room, STRETCH + STRETCH / 8) ? -ENOMEM
																: 0;
}

void sealer_free(struct sealer *s)
{
	if (s->plain)
		wipe(s->plain, s->plain_room);
	free(s->plain);
	free(s->stored);
	free(s->tags);
	tail_template_free(s->sample);
	*s = (struct sealer){0};
}

/* Grow the plain buffer without leaving the old one about. */
static int plain_room(struct sealer *s, size_t need)
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

/* One link of the content hash. */
static int chain(uint8_t hash[static HASH_LEN], const void *p, size_t len)
{
	const struct part parts[] = {{hash, HASH_LEN}, {p, len}};

	return sha256(parts, 2, hash);
}

/* Exactly @len bytes, and with @end none behind them (as far as one call sees; what comes later changes the file's times). */
static int read_exact(int fd, uint8_t *buf, size_t len, uint64_t off, bool end)
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

static int write_all(int fd, const uint8_t *buf, size_t len, uint64_t off)
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

static uint32_t segment_size(const struct volume *v, uint64_t size)
{
	uint32_t s = v->segment_size;

	while (s < SEG_LARGEST && seg_count(size, s) > SEGMENTS_GOOD)
		s = MIN(s * 4, SEG_LARGEST);
	return s;
}

/* What stays the same over one sealing. */
struct sealing {
	struct sealer *s;
	const struct stat *st;
	uint64_t size, n;
	uint32_t seg, crc;
	int in, out;
	uint8_t *hash; /* or NULL */
	struct secret *dek;
	struct tail_template *tmpl;
};

/* Segments @first .. (as many as fit a stretch): read, seal to @to, remember tags and CRC.  @ret_next, @ret_len: what was made */
static int stretch_seal(struct sealing *w, uint64_t first, uint8_t *to, uint64_t *ret_next, size_t *ret_len)
{
	uint64_t count = MIN(MAX(STRETCH / w->seg, 1), w->n - first), plain_off = first * w->seg;
	size_t plain = (size_t)MIN(count * w->seg, w->size - plain_off), done = 0;
	uint8_t *out = to;
	int err = read_exact(w->in, w->s->plain, plain, plain_off, plain_off + plain == w->size);

	for (uint64_t i = first; !err && i < first + count; i++) {
		size_t len = seg_plain(w->size, w->seg, i);

		err = aead_seal(w->dek, w->s->plain + done, len, out);
		if (!err && w->hash)
			err = chain(w->hash, w->s->plain + done, len);
		done += len;
		out += len + AEAD_OVERHEAD;
		memcpy(w->s->tags + i * AEAD_TAG, out - AEAD_TAG, AEAD_TAG);
	}
	if (err)
		return err;
	w->crc = crc_bytes(w->crc, to, (size_t)(out - to));
	*ret_next = first + count;
	*ret_len = (size_t)(out - to);
	return 0;
}

static int header_make(struct sealing *w, const uint8_t root[static MAC_LEN], uint64_t file_len, uint8_t sector[static SECTOR],
		       uint8_t hint[static HINT_LEN])
{
	const struct volume *v = w->s->v;
	struct record r = {.state = RECORD_SEALED,
			   .s = w->seg,
			   .generation = 1,
			   .size = w->size,
			   .epoch = 1,
			   .mtime = w->st->st_mtim,
			   .ctime = w->st->st_ctim};
	int err = random_bytes(r.file_id, ID_LEN);

	memcpy(r.content_id, root, ID_LEN);
	memcpy(r.volume_id, v->id, ID_LEN);
	r.tail_off = tail_offset(w->size, w->seg);
	r.invocations = (w->n / LEASE + 1) * LEASE;
	clock_gettime(CLOCK_REALTIME, &r.made);
	if (!err)
		err = record_seal(v->k_seal, &r, (struct part){w->tmpl->key_access, strlen(w->tmpl->key_access)},
				  (struct part){w->tmpl->policy, strlen(w->tmpl->policy)}, w->dek, r.seal);
	if (!err)
		err = record_sector(&r, w->crc, v->k_rec, sector);
	if (!err)
		err = hint_make(&r, file_len, v->k_hint, hint);
	return err;
}

/* Tail and header once all segments are made: @stored: where the tail may be built, @head: where the header goes */
static int finish_make(struct sealing *w, uint8_t *tail, uint64_t tail_bytes, uint8_t *head, uint8_t hint[static HINT_LEN])
{
	uint8_t root[MAC_LEN];
	int err = root_signature(w->dek, w->s->tags, w->n, root);

	if (err)
		return err;
	tail_build(w->tmpl, w->size, w->s->tags, root, w->crc, tail);
	return header_make(w, root, tail_offset(w->size, w->seg) + tail_bytes, head, hint);
}

static int seal_small(struct sealing *w, uint64_t tail_bytes, uint8_t hint[static HINT_LEN])
{
	uint64_t next, off = tail_offset(w->size, w->seg);
	size_t len;
	int err = room_get(&w->s->stored, &w->s->stored_room, off + tail_bytes);

	if (!err)
		err = stretch_seal(w, 0, w->s->stored + SECTOR, &next, &len);
	if (!err)
		err = finish_make(w, w->s->stored + off, tail_bytes, w->s->stored, hint);
	return err ? err : write_all(w->out, w->s->stored, off + tail_bytes, 0);
}

static int seal_large(struct sealing *w, uint64_t tail_bytes, uint8_t hint[static HINT_LEN])
{
	uint64_t next = 0, off = SECTOR;
	uint8_t head[SECTOR];
	int err;

	/* a full disk shows now, not after an hour; where it cannot be done the writes will tell */
	if (fallocate(w->out, 0, 0, (off_t)(tail_offset(w->size, w->seg) + tail_bytes)) &&
	    (errno == ENOSPC || errno == EDQUOT || errno == EFBIG))
		return fail(-errno, "room for %llu bytes: %s", (unsigned long long)w->size, strerror(errno));
	err = room_get(&w->s->stored, &w->s->stored_room, MAX(STRETCH, w->seg) + (STRETCH / w->seg + 1) * AEAD_OVERHEAD);
	while (!err && next < w->n) {
		size_t len;

		err = stretch_seal(w, next, w->s->stored, &next, &len);
		if (!err)
			err = write_all(w->out, w->s->stored, len, off);
		off += len;
	}
	if (!err)
		err = room_get(&w->s->stored, &w->s->stored_room, tail_bytes);
	if (!err)
		err = finish_make(w, w->s->stored, tail_bytes, head, hint);
	if (!err)
		err = write_all(w->out, w->s->stored, tail_bytes, off);
	return err ? err : write_all(w->out, head, SECTOR, 0);
}

int seal_fd(struct sealer *s, int in, const struct stat *st, int out, uint8_t *ret_hash, uint32_t *ret_s)
{
	struct sealing w = {.s = s, .st = st, .size = (uint64_t)st->st_size, .in = in, .out = out, .hash = ret_hash};
	CLEANUP_FREE char *key_access = NULL;
	uint8_t hint[HINT_LEN];
	int err;

	if (w.size > PLAIN_MAX)
		return fail(-EFBIG, "larger than a file of a volume can be");
	w.seg = segment_size(s->v, w.size);
	w.n = seg_count(w.size, w.seg);
	if (w.n > (uint64_t)1 << 31)
		return fail(-EFBIG, "more than 2^31 segments");
	if (ret_hash)
		memset(ret_hash, 0, HASH_LEN);
	w.dek = secret_random();
	err = w.dek ? kas_wrap(s->v->kas, w.dek, s->v->policy, &key_access) : fail(-EIO, "no data key: no memory or no randomness");
	if (!err) {
		w.tmpl = tail_template_new(w.seg, key_access, s->v->policy);
		err = w.tmpl ? 0 : -ENOMEM;
	}
	if (!err)
		err = room_get(&s->tags, &s->tags_room, w.n * AEAD_TAG);
	if (!err)
		err = plain_room(s, MAX(STRETCH, w.seg) + 1);
	if (!err)
		err = w.size <= STRETCH / w.seg * w.seg ? seal_small(&w, tail_len(w.tmpl, w.size), hint)
							: seal_large(&w, tail_len(w.tmpl, w.size), hint);
	/* not only a saved read here: it says whose this is if the content is lost with the power */
	if (!err && fsetxattr(out, HINT_XATTR, hint, HINT_LEN, 0))
		err = fail(-errno, "its " HINT_XATTR " attribute: %s", strerror(errno));
	secret_free(w.dek);
	tail_template_free(w.tmpl);
	if (!err)
		*ret_s = w.seg;
	return err;
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
			err = chain(hash, s->plain, len);
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

	return w->disk.stat(w->disk.ctx, fd, ret);
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
		err = chain(hash, s->plain, 0);
	while (!err && off < size) {
		ssize_t n = container_read(io, fd, c, s->plain, (size_t)MIN(room, size - off), off);

		if (n <= 0)
			return n < 0 ? (int)n : -EIO;
		read_ahead(fd, off, (size_t)n, size);
		for (size_t at = 0; ret_hash && !err && at < (size_t)n; at += unit)
			err = chain(hash, s->plain + at, MIN(unit, (size_t)n - at));
		if (!err && out >= 0)
			err = write_all(out, s->plain, (size_t)n, off);
		off += (uint64_t)n;
	}
	if (!err && ret_hash)
		memcpy(ret_hash, hash, HASH_LEN);
	return err;
}
