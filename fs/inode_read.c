/* SPDX-License-Identifier: Apache-2.0 */
/* Reading: dirty plaintext, images in the log, segments in place; nothing is given out before its tag stands in the list. */
#include <stdatomic.h>

#include "inode_i.h"

/*
 * A buffer per thread, so that reading and writing allocate nothing (and the allocator keeps no megabytes per thread).  Holds ciphertext,
 * and the plaintext of one segment at an edge.  Good until the thread's next scratch_get().
 */
struct scratch {
	uint8_t *p;
	size_t len;
};

static pthread_key_t scratch_key;
static pthread_once_t scratch_once = PTHREAD_ONCE_INIT;

static void scratch_free(void *p)
{
	struct scratch *s = p;

	wipe(s->p, s->len);
	free(s->p);
	free(s);
}

static void scratch_init(void)
{
	lock_check(pthread_key_create(&scratch_key, scratch_free));
}

uint8_t *scratch_get(size_t len)
{
	struct scratch *s;

	pthread_once(&scratch_once, scratch_init);
	s = pthread_getspecific(scratch_key);
	if (!s) {
		s = calloc(1, sizeof(*s));
		if (!s || pthread_setspecific(scratch_key, s)) {
			free(s);
			return NULL;
		}
	}
	if (s->len < len) {
		uint8_t *p = malloc(len);

		if (!p)
			return NULL;
		if (s->p)
			wipe(s->p, s->len);
		free(s->p);
		s->p = p;
		s->len = len;
	}
	return s->p;
}

struct image *image_find(struct inode *f, uint64_t no)
{
	size_t lo = 0, hi = f->n_images;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (f->images[mid].no < no)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < f->n_images && f->images[lo].no == no ? &f->images[lo] : NULL;
}

/* Plain bytes that the stored segment @i holds: of the committed or placed content, which a truncate not yet committed does not change. */
static uint32_t stored_plain(const struct inode *f, uint64_t i)
{
	uint64_t size = f->content == CONTENT_SPILLED ? f->size : f->com_size;

	if (f->fresh && i >= f->place_first && i < f->place_end)
		return f->s;
	return seg_plain(size, f->s, i);
}

static int bad_segment(struct inode *f, uint64_t i, int err)
{
	f->st->n_bad_segments++;
	report(REPORT_ERROR, "%s: segment %llu at offset %llu: %s; restore the file from a backup", f->path ? f->path : "file",
	       (unsigned long long)i, (unsigned long long)seg_off(f->s, i), err == -EBADMSG ? "damaged or forged" : strerror(-err));
	return err;
}

/* What is not in the log stands in the store file; a whole new content that is on its way there is still beside the log. */
static int place_fd(const struct inode *f)
{
	return f->apply.whole ? f->apply.whole_fd : f->fd;
}

static int stored_fetch(struct inode *f, uint64_t i, uint32_t plain, uint8_t *buf)
{
	struct image *img = image_find(f, i);

	if (!img)
		return io_pread_full(&f->st->io, place_fd(f), buf, plain + AEAD_OVERHEAD, seg_off(f->s, i));
	if (img->loc.len != plain + AEAD_OVERHEAD)
		return -EIO;
	return redo_read(f->st->redo, &img->loc, buf);
}

int segment_load(struct inode *f, uint64_t i, void *pt)
{
	uint32_t plain = stored_plain(f, i);
	uint8_t *buf;
	int err;

	if (segcache_get(f->st->cache, f->id, i, 0, pt, plain))
		return 0;
	buf = scratch_get((size_t)f->s + AEAD_OVERHEAD);
	if (!buf)
		return -ENOMEM;
	err = stored_fetch(f, i, plain, buf);
	if (!err)
		err = aead_open(f->dek, buf, plain + AEAD_OVERHEAD, f->tags + i * AEAD_TAG, pt);
	if (!err && f->crcs && !f->crcs[i])
		f->crcs[i] = (uint64_t)1 << 32 | crc_bytes(0, buf, plain + AEAD_OVERHEAD);
	return err ? bad_segment(f, i, err) : 0;
}

int segment_crc(struct inode *f, uint64_t i, uint32_t len, bool good, uint32_t *ret_crc)
{
	uint8_t *buf;
	int err;

	if (f->crcs && f->crcs[i]) {
		*ret_crc = (uint32_t)f->crcs[i];
		return 0;
	}
	buf = scratch_get(2 * (size_t)f->s + AEAD_OVERHEAD);
	if (!buf)
		return -ENOMEM;
	err = stored_fetch(f, i, len, buf);
	if (!err && good)
		err = aead_open(f->dek, buf, len + AEAD_OVERHEAD, f->tags + i * AEAD_TAG, buf + f->s + AEAD_OVERHEAD);
	if (err)
		return err;
	*ret_crc = crc_bytes(0, buf, len + AEAD_OVERHEAD);
	return 0;
}

/* One segment that is asked for in part: from the cache, else decrypted whole and remembered. */
static int read_part(struct inode *f, uint64_t i, uint32_t from, uint32_t len, uint8_t *out)
{
	uint32_t plain = stored_plain(f, i);
	uint8_t *buf, *pt;
	int err;

	if (segcache_get(f->st->cache, f->id, i, from, out, len))
		return 0;
	buf = scratch_get(2 * (size_t)f->s + AEAD_OVERHEAD);
	if (!buf)
		return -ENOMEM;
	pt = buf + f->s + AEAD_OVERHEAD;
	err = stored_fetch(f, i, plain, buf);
	if (!err)
		err = aead_open(f->dek, buf, plain + AEAD_OVERHEAD, f->tags + i * AEAD_TAG, pt);
	if (err)
		return bad_segment(f, i, err);
	memcpy(out, pt + from, len);
	segcache_put(f->st->cache, f->id, i, pt, plain);
	return 0;
}

/* @n whole segments that all lie in place: one read, decrypted straight into the reply. */
static int read_run(struct inode *f, uint64_t first, uint64_t n, uint8_t *out)
{
	uint64_t stride = (uint64_t)f->s + AEAD_OVERHEAD, last = stored_plain(f, first + n - 1);
	size_t len = (size_t)((n - 1) * stride + last + AEAD_OVERHEAD);
	uint8_t *buf = scratch_get(MAX(len, 2 * (size_t)f->s + AEAD_OVERHEAD));
	int err;

	if (!buf)
		return -ENOMEM;
	err = io_pread_full(&f->st->io, place_fd(f), buf, len, seg_off(f->s, first));
	if (err)
		return bad_segment(f, first, err);
	for (uint64_t k = 0; k < n; k++) {
		uint32_t plain = k + 1 < n ? f->s : (uint32_t)last;

		err = aead_open(f->dek, buf + k * stride, plain + AEAD_OVERHEAD, f->tags + (first + k) * AEAD_TAG, out + k * f->s);
		if (err)
			return bad_segment(f, first + k, err);
	}
	return 0;
}

/* How many segments from @i on are wanted whole and lie in place. */
static uint64_t run_len(struct inode *f, uint64_t i, uint64_t end)
{
	uint64_t n = 0, most = MAX(RUN_MAX / f->s, 1);

	while (n < most && (i + n) * f->s < end) {
		uint64_t at = (i + n) * f->s;
		uint32_t plain = stored_plain(f, i + n);

		if (at + plain > end || seg_find(f, i + n) || image_find(f, i + n))
			break;
		n++;
		if (plain < f->s)
			break;
	}
	return n;
}

static ssize_t read_native(struct inode *f, uint8_t *buf, uint64_t off, uint64_t end)
{
	uint64_t at = off;

	while (at < end) {
		uint64_t i = at / f->s;
		uint32_t from = (uint32_t)(at - i * f->s);
		uint32_t len = (uint32_t)MIN(end - at, (uint64_t)f->s - from);
		struct seg *seg = seg_find(f, i);
		uint64_t n = from || seg ? 0 : run_len(f, i, end);
		int err = 0;

		if (seg) {
			memcpy(buf + (at - off), seg->buf + from, len);
		} else if (n) {
			len = (uint32_t)(MIN((i + n) * f->s, end) - at);
			err = read_run(f, i, n, buf + (at - off));
		} else {
			err = read_part(f, i, from, len, buf + (at - off));
		}
		if (err)
			return err;
		at += len;
	}
	return (ssize_t)(end - off);
}

int inode_read_plain(struct inode *f, void *buf, uint64_t off, uint64_t end)
{
	ssize_t n = read_native(f, buf, off, end);

	return n < 0 ? (int)n : 0;
}

/* For reads here and there the store's own read-ahead would fetch several times what is wanted. */
static void note_access(struct inode *f, uint64_t off, uint64_t end)
{
	const struct io *io = &f->st->io;
	uint64_t last = atomic_exchange(&f->read_end, end);
	bool near = off <= last + NEAR && last <= off + NEAR, random;
	unsigned jumps = near ? f->jumps / 2 : MIN(f->jumps + 1, 2 * JUMPS_RANDOM);

	f->jumps = jumps;
	random = jumps >= JUMPS_RANDOM || (f->random && jumps);
	if (random != f->random && io->advise) {
		f->random = random;
		io->advise(io->ctx, f->fd, random);
	}
}

void inode_was_read(struct inode *f)
{
	const struct store *st = f->st;

	if (st->opt.noatime || st->opt.read_only || !st->io.was_read || (f->counted && !st->strict_atime))
		return;
	f->counted = true;
	st->io.was_read(st->io.ctx, inode_fd(f));
}

ssize_t inode_read(struct inode *f, void *buf, size_t len, uint64_t off)
{
	ssize_t n;

	if (f->plain)
		return plain_read(f, buf, len, off);
	n = lease_check(f);
	if (n)
		return n;
	rwlock_read(&f->lock);
	note_access(f, off, off + len);
	if (f->load_err)
		n = f->load_err;
	else if (f->content == CONTENT_VOID)
		n = fail(-EIO, "never completed before a crash: nothing was ever committed to it");
	else if (f->content == CONTENT_FOREIGN)
		n = container_read(&f->st->io, f->fd, f->foreign, buf, len, off);
	else if (off >= f->size)
		n = 0;
	else
		n = read_native(f, buf, off, MIN(off + len, f->size));
	rwlock_unlock(&f->lock);
	return n;
}

uint64_t inode_size(struct inode *f)
{
	uint64_t size;

	rwlock_read(&f->lock);
	size = f->load_err || f->content != CONTENT_SEALED ? 0 : f->size;
	rwlock_unlock(&f->lock);
	return size;
}
