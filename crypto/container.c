/* SPDX-License-Identifier: Apache-2.0 */
#include "container.h"

#include <errno.h>
#include <limits.h>

#include "lock.h"
#include "report.h"
#include "zip.h"

#define SMALL_FILE ((size_t)64 << 10) /* read with one call */
#define BATCH ((size_t)1 << 20)       /* stored bytes read at once */
#define TAIL_FIXED ((uint64_t)4 << 20)
#define TAIL_PER_SEG 96 /* bytes of manifest that one segment may take; ours takes at most 88 */
#define LARGE ((size_t)8 << 20)

/*
 * Other clients' files may have a manifest of 64 MiB and segments of 128 MiB: of what is that large one is in memory at a time, however
 * many threads read.  A leaf, held over reading that file.
 */
static struct mutex large_lock = MUTEX_INIT;

/* What has been read so far: the first @len bytes of the file. */
struct head {
	uint8_t *buf;
	size_t len;
};

static bool all_zero(const uint8_t *p, size_t len)
{
	return !len || (!p[0] && !memcmp(p, p + 1, len - 1));
}

/* geometry and algorithms of a native file's manifest, whatever its layout */
static int manifest_fits(const struct manifest *m, const struct record *r)
{
	if (m->hex || m->seg_hs256 || m->plain_start || m->seg_default != r->s || m->size != r->size ||
	    m->n_segs != seg_count(r->size, r->s))
		return fail(-EBADMSG, "the manifest does not fit the file's geometry");
	return 0;
}

/* the tail of a native file: @p, @len */
static int native_tail(struct container *c, const uint8_t *p, size_t len)
{
	const struct record *r = &c->rec;
	struct part text;
	int err;

	if (tail_manifest(p, len, r->size, r->s, c->crc, &text))
		return -EBADMSG;
	err = manifest_parse(text.p, text.len, true, &c->m);
	if (err == -EPROTO) {
		/* another layout, as somebody may have written it who only reformatted it */
		fail_clear();
		err = manifest_parse(text.p, text.len, false, &c->m);
	}
	if (err == -EPROTO || err == -ENOTSUP) /* its record says that it was ours once */
		return -EBADMSG;
	if (!err)
		err = manifest_fits(c->m, r);
	if (err)
		return err;
	c->tmpl = tail_template_new(r->s, c->m->key_access_text, c->m->policy);
	return c->tmpl ? 0 : -ENOMEM;
}

static int native_open(const struct io *io, int fd, struct container *c, const struct head *h)
{
	const struct record *r = &c->rec;
	uint8_t *tail CLEANUP_FREE = NULL;
	uint64_t len;
	int err;

	if (r->state == RECORD_NEW || r->state == RECORD_VOID)
		return fail(-ENODATA, "the file was created but never committed");
	if (c->file_len <= r->tail_off)
		return fail(-EBADMSG, "the file was truncated: %llu bytes, at least %llu expected", (unsigned long long)c->file_len,
			    (unsigned long long)r->tail_off);
	len = c->file_len - r->tail_off;
	if (len > TAIL_FIXED + TAIL_PER_SEG * seg_count(r->size, r->s))
		return fail(-EBADMSG, "the file was extended: %llu bytes behind its payload", (unsigned long long)len);
	c->native = true;
	c->payload_off = SECTOR;
	if (h->len == c->file_len)
		return native_tail(c, h->buf + r->tail_off, len);
	tail = malloc(len);
	if (!tail)
		return -ENOMEM;
	err = io_pread_full(io, fd, tail, len, r->tail_off);
	return err ? err : native_tail(c, tail, len);
}

static int foreign_manifest(const struct io *io, int fd, const struct zip *z, struct manifest **ret)
{
	char *text CLEANUP_FREE = NULL;
	size_t len;
	int err = zip_manifest(io, fd, z, &text, &len);

	return err ? err : manifest_parse(text, len, false, ret);
}

static int foreign_open(const struct io *io, int fd, struct container *c)
{
	uint64_t stored;
	struct zip z;
	bool large;
	int err;

	err = zip_find(io, fd, c->file_len, &z);
	if (err)
		return err;
	large = z.manifest.len > LARGE;
	if (large)
		mutex_lock(&large_lock);
	err = foreign_manifest(io, fd, &z, &c->m);
	if (large)
		mutex_unlock(&large_lock);
	if (err)
		return err;
	stored = c->m->size + c->m->n_segs * AEAD_OVERHEAD;
	if (stored > z.payload.len)
		return fail(-EPROTO, "the manifest describes %llu bytes of payload, the file has %llu", (unsigned long long)stored,
			    (unsigned long long)z.payload.len);
	c->payload_off = z.payload.data_off;
	c->crc = z.payload.crc;
	return 0;
}

static int head_read(const struct io *io, int fd, uint64_t file_len, struct head *h)
{
	h->len = file_len <= SMALL_FILE ? (size_t)file_len : SECTOR;
	h->buf = malloc(h->len + 1);
	if (!h->buf)
		return -ENOMEM;
	return io_pread_full(io, fd, h->buf, h->len, 0);
}

int container_open(const struct io *io, int fd, const struct container_keys *keys, struct container **ret)
{
	struct container *c CLEANUP(container_cleanup) = calloc(1, sizeof(*c));
	uint8_t *buf CLEANUP_FREE = NULL;
	bool ours = keys && keys->k_rec && keys->volume_id;
	struct head h;
	struct stat st;
	int err;

	if (!c)
		return -ENOMEM;
	err = io->stat(io->ctx, fd, &st);
	if (err)
		return err;
	if (!S_ISREG(st.st_mode))
		return fail(-ENOEXEC, "no TDF: not a regular file");
	c->file_len = (uint64_t)st.st_size;
	if (ours) {
		err = head_read(io, fd, c->file_len, &h);
		buf = h.buf;
		if (err)
			return err;
		if (all_zero(h.buf, MIN(h.len, SECTOR)))
			return fail(-ENODATA, "the file was created but never written");
		err = h.len < SECTOR ? -ENOENT : record_own(h.buf, keys->k_rec, keys->volume_id, &c->rec, &c->crc);
		if (!err)
			err = native_open(io, fd, c, &h);
		if (err == -EPROTO) /* our record with impossible values */
			err = -EBADMSG;
	}
	if (!ours || err == -ENOENT) {
		memset(&c->rec, 0, sizeof(c->rec));
		err = foreign_open(io, fd, c);
	}
	if (err)
		return err;
	*ret = STEAL(c);
	return 0;
}

static int native_unlock(const struct container *c, const struct container_keys *keys, const struct secret *dek)
{
	struct part key_access = {c->m->key_access_text, strlen(c->m->key_access_text)};
	struct part policy = {c->m->policy, strlen(c->m->policy)};
	uint8_t seal[MAC_LEN];
	int err;

	if (!equal_ct(c->m->root_sig, c->rec.content_id, ID_LEN))
		return fail(-EBADMSG, "header and manifest belong to different states of the file");
	err = record_seal(keys->k_seal, &c->rec, key_access, policy, dek, seal);
	if (err)
		return err;
	if (!equal_ct(seal, c->rec.seal, MAC_LEN))
		return fail(-EBADMSG, "the seal is wrong: key access or policy was changed outside of tdfs");
	return 0;
}

int container_unlock(struct container *c, const struct container_keys *keys, const struct secret *dek)
{
	int err;

	if (c->native && (!keys || !keys->k_seal))
		return fail(-EINVAL, "a native file needs its volume's keys");
	err = manifest_root(c->m, dek);
	if (!err && c->native)
		err = native_unlock(c, keys, dek);
	if (err)
		return err;
	struct secret *copy = secret_copy(dek);

	if (!copy)
		return -ENOMEM;
	secret_free(c->dek);
	c->dek = copy;
	return 0;
}

void container_segment(const struct container *c, uint64_t i, uint64_t *ret_plain_off, uint32_t *ret_plain_len, uint64_t *ret_file_off)
{
	const struct manifest *m = c->m;
	uint64_t start, end;

	if (m->plain_start) {
		start = m->plain_start[i];
		end = m->plain_start[i + 1];
	} else {
		start = i * m->seg_default;
		end = i + 1 < m->n_segs ? start + m->seg_default : m->size;
	}
	*ret_plain_off = start;
	*ret_plain_len = (uint32_t)(end - start);
	*ret_file_off = c->payload_off + start + i * AEAD_OVERHEAD;
}

/* check and decrypt the stored segment @i, at @in */
static int segment_open(const struct container *c, uint64_t i, const uint8_t *in, uint32_t plain_len, void *pt)
{
	const uint8_t *hash = c->m->hashes + i * c->m->hash_len;
	size_t len = (size_t)plain_len + AEAD_OVERHEAD;
	uint8_t mac[MAC_LEN];
	uint64_t plain_off, file_off;
	uint32_t l;
	int err = 0;

	if (c->m->seg_hs256) {
		err = hmac_sha256(c->dek->b, SECRET_LEN, &(struct part){in, len}, 1, mac);
		if (!err && !equal_ct(mac, hash, MAC_LEN))
			err = -EBADMSG;
	}
	if (!err)
		err = aead_open(c->dek, in, len, c->m->seg_hs256 ? NULL : hash, pt);
	if (err != -EBADMSG && err != -EPROTO)
		return err;
	container_segment(c, i, &plain_off, &l, &file_off);
	return fail(-EBADMSG, "segment %llu (plain bytes %llu to %llu, at file offset %llu) is damaged or was tampered with",
		    (unsigned long long)i, (unsigned long long)plain_off, (unsigned long long)(plain_off + l),
		    (unsigned long long)file_off);
}

/* the segment that holds plain byte @off, which is inside the file */
static uint64_t segment_at(const struct manifest *m, uint64_t off)
{
	uint64_t lo = 0, hi = m->n_segs;

	if (!m->plain_start)
		return off / m->seg_default;
	while (hi - lo > 1) {
		uint64_t mid = lo + (hi - lo) / 2;

		if (m->plain_start[mid] <= off)
			lo = mid;
		else
			hi = mid;
	}
	return lo;
}

struct range { /* plain bytes wanted */
	uint8_t *buf;
	uint64_t off, end;
};

/* decrypt segment @i, stored at @in, and put what is wanted of it into place */
static int segment_deliver(const struct container *c, uint64_t i, const uint8_t *in, const struct range *want)
{
	uint64_t start, file_off, from, to;
	uint8_t *edge;
	uint32_t len;
	int err;

	container_segment(c, i, &start, &len, &file_off);
	if (start >= want->off && start + len <= want->end)
		return segment_open(c, i, in, len, want->buf + (start - want->off));
	from = MAX(start, want->off);
	to = MIN(start + len, want->end);
	edge = malloc((size_t)len + 1);
	if (!edge)
		return -ENOMEM;
	err = segment_open(c, i, in, len, edge);
	if (!err)
		memcpy(want->buf + (from - want->off), edge + (from - start), to - from);
	wipe(edge, len);
	free(edge);
	return err;
}

/* segments @i .. @last, as many as fit into the batch (at least one); @ret_next: the first one that did not */
static int batch_read(const struct io *io, int fd, const struct container *c, uint64_t i, uint64_t last, const struct range *want,
		      uint8_t **buf, size_t *buf_len, uint64_t *ret_next)
{
	uint64_t start, first_off, file_off, next = i;
	size_t len = 0, pos = 0;
	uint32_t plain;
	int err = 0;

	container_segment(c, i, &start, &plain, &first_off);
	do {
		container_segment(c, next++, &start, &plain, &file_off);
		len += (size_t)plain + AEAD_OVERHEAD;
	} while (next <= last && len < BATCH);
	if (len > *buf_len) {
		free(*buf);
		*buf_len = 0;
		*buf = malloc(len);
		if (!*buf)
			return -ENOMEM;
		*buf_len = len;
	}
	err = io_pread_full(io, fd, *buf, len, first_off);
	for (; !err && i < next; i++) {
		container_segment(c, i, &start, &plain, &file_off);
		err = segment_deliver(c, i, *buf + pos, want);
		pos += (size_t)plain + AEAD_OVERHEAD;
	}
	*ret_next = next;
	return err;
}

static int range_read(const struct io *io, int fd, const struct container *c, const struct range *want)
{
	uint64_t i = segment_at(c->m, want->off), last = segment_at(c->m, want->end - 1);
	uint8_t *stored CLEANUP_FREE = NULL;
	size_t stored_len = 0;
	int err = 0;

	while (!err && i <= last)
		err = batch_read(io, fd, c, i, last, want, &stored, &stored_len, &i);
	return err;
}

ssize_t container_read(const struct io *io, int fd, const struct container *c, void *buf, size_t len, uint64_t off)
{
	/* segments of different sizes may all be larger than the default */
	bool large = !c->native && (c->m->seg_default > LARGE || c->m->plain_start);
	struct range want;
	int err;

	if (!c->dek)
		return fail(-ENOKEY, "the file was not unlocked");
	if (off >= c->m->size || !len)
		return 0;
	len = (size_t)MIN(MIN((uint64_t)len, c->m->size - off), (uint64_t)SSIZE_MAX);
	want = (struct range){buf, off, off + len};
	if (large)
		mutex_lock(&large_lock);
	err = range_read(io, fd, c, &want);
	if (large)
		mutex_unlock(&large_lock);
	if (err) {
		wipe(buf, len); /* good segments before the bad one are no answer either */
		return err;
	}
	return (ssize_t)len;
}

int container_read_segment(const struct io *io, int fd, const struct container *c, uint64_t i, void *pt)
{
	uint8_t *stored CLEANUP_FREE = NULL;
	size_t stored_len = 0;
	uint64_t off, file_off, next;
	struct range want;
	uint32_t len;

	if (!c->dek)
		return fail(-ENOKEY, "the file was not unlocked");
	if (i >= c->m->n_segs)
		return fail(-EINVAL, "no segment %llu", (unsigned long long)i);
	container_segment(c, i, &off, &len, &file_off);
	want = (struct range){pt, off, off + len};
	return batch_read(io, fd, c, i, i, &want, &stored, &stored_len, &next);
}

void container_free(struct container *c)
{
	if (!c)
		return;
	tail_template_free(c->tmpl);
	manifest_free(c->m);
	secret_free(c->dek);
	free(c);
}
