/* SPDX-License-Identifier: Apache-2.0 */
#include "verify_item.h"

#include <errno.h>
#include <fcntl.h>

#include "crc.h"
#include "say.h"
#include "zip.h"

#define RANGE_BYTES ((uint64_t)32 << 20) /* one thread's piece of a large file */
#define CHUNK ((size_t)1 << 20)

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

static void problem_add(struct verify_item *f, const struct verify_problem *p, int err)
{
	mutex_lock(&f->lock);
	if (f->n_problems < VERIFY_SHOWN) {
		f->problems[f->n_problems] = *p;
		f->problems[f->n_problems].reason = path_text(cause_text(err));
	}
	f->n_problems++;
	mutex_unlock(&f->lock);
}

void item_problem(struct verify_item *f, int err)
{
	struct verify_problem p = {.whole = true};

	problem_add(f, &p, err);
}

void item_close(struct verify_item *f)
{
	for (size_t i = 0; i < MIN(f->n_problems, VERIFY_SHOWN); i++)
		free(f->problems[i].reason);
	f->n_problems = 0;
	container_free(f->c);
	f->c = NULL;
	free(STEAL(f->range_crc));
	free(STEAL(f->range_len));
	if (f->fd >= 0)
		close(f->fd);
	f->fd = -1;
}

void item_free(struct verify_item *f)
{
	item_close(f);
	mutex_destroy(&f->lock);
	free(f->path);
	free(f);
}

int item_new(const char *path, size_t named, struct verify_item **ret)
{
	struct verify_item *f = calloc(1, sizeof(*f));

	if (!f)
		return -ENOMEM;
	f->fd = -1;
	f->named = named;
	f->path = strdup(path);
	mutex_init(&f->lock);
	if (!f->path) {
		item_free(f);
		return -ENOMEM;
	}
	*ret = f;
	return 0;
}

/* What was a directory when the tree was listed may be a symlink by now. */
static int open_file(const struct verify_item *f)
{
	const int flags = O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
	const char *below = f->path + f->named;
	CLEANUP_FREE char *top = NULL;
	CLEANUP_FD int dir = -1;
	int fd;

	if (!f->named) {
		fd = open(f->path, flags);
		return fd < 0 ? -errno : fd;
	}
	top = strndup(f->path, f->named);
	if (!top)
		return -ENOMEM;
	dir = open(top, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return dir < 0 ? -errno : io_open_beneath(dir, below + strspn(below, "/"), flags);
}

int item_open(struct verify_item *f, const struct target *t)
{
	uint64_t s;
	struct stat st;
	struct zip z;
	int err;

	fail_clear();
	err = open_file(f);
	if (err < 0)
		return err;
	f->fd = err;
	if (fstat(f->fd, &st))
		return -errno;
	if (!S_ISREG(st.st_mode))
		return fail(-EINVAL, "not a regular file");
	posix_fadvise(f->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
	f->io = io_posix(f->fd);
	err = target_container(t, &f->io, f->fd, &f->c);
	if (err)
		return err;
	f->crc = f->c->crc;
	if (!f->c->native) {
		err = zip_find(&f->io, f->fd, (uint64_t)st.st_size, &z);
		if (err)
			return err;
		f->crc = z.payload.crc;
		f->slack_len = z.payload.len - f->c->m->size - f->c->m->n_segs * AEAD_OVERHEAD;
		f->slack_off = z.payload.data_off + z.payload.len - f->slack_len;
	}
	s = f->c->m->seg_default ? f->c->m->seg_default : CHUNK;
	f->per_range = MAX(RANGE_BYTES / s, 1);
	f->n_ranges = f->c->m->n_segs ? (f->c->m->n_segs - 1) / f->per_range + 1 : 1;
	f->range_crc = calloc(f->n_ranges, sizeof(*f->range_crc));
	f->range_len = calloc(f->n_ranges, sizeof(*f->range_len));
	f->crc_known = true;
	f->ranges_left = f->n_ranges;
	return f->range_crc && f->range_len ? 0 : -ENOMEM;
}

/* Stored length of segments [i, end) and where they start; they lie one behind the other. */
static void extent(const struct container *c, uint64_t i, uint64_t end, uint64_t *ret_off, uint64_t *ret_len)
{
	uint64_t plain_off, last_off;
	uint32_t plain_len;

	container_segment(c, i, &plain_off, &plain_len, ret_off);
	container_segment(c, end - 1, &plain_off, &plain_len, &last_off);
	*ret_len = last_off + plain_len + AEAD_OVERHEAD - *ret_off;
}

static int segment_check(const struct verify_item *f, struct verify_buffers *w, uint64_t i, const uint8_t *stored, uint32_t plain_len)
{
	const struct manifest *m = f->c->m;
	int err = room_get(&w->plain, &w->plain_room, MAX(plain_len, 1));

	if (err)
		return err;
	/* the same check that container_read_segment() makes, without reading the bytes a second time */
	if (!m->seg_hs256 && m->hash_len == AEAD_TAG)
		return aead_open(f->c->dek, stored, (size_t)plain_len + AEAD_OVERHEAD, m->hashes + i * AEAD_TAG, w->plain);
	return container_read_segment(&f->io, f->fd, f->c, i, w->plain);
}

/* Check segments [i, end), which are read at once. */
static void chunk_run(struct verify_item *f, struct verify_buffers *w, struct progress *progress, uint64_t range, uint64_t i, uint64_t end)
{
	uint64_t off, len, at;
	int err;

	extent(f->c, i, end, &off, &len);
	fail_clear();
	err = room_get(&w->stored, &w->stored_room, (size_t)len);
	if (!err)
		err = io_pread_full(&f->io, f->fd, w->stored, (size_t)len, off);
	if (err) {
		struct verify_problem p = {.segment = i, .file_off = off};

		p.whole = err == -ENOMEM;
		problem_add(f, &p, err);
		mutex_lock(&f->lock);
		f->crc_known = false;
		mutex_unlock(&f->lock);
		return;
	}
	f->range_crc[range] = crc_bytes(f->range_crc[range], w->stored, (size_t)len);
	f->range_len[range] += len;
	for (at = off; i < end; i++) {
		struct verify_problem p = {.segment = i};
		uint32_t plain_len;

		container_segment(f->c, i, &p.plain_off, &plain_len, &p.file_off);
		fail_clear();
		err = segment_check(f, w, i, w->stored + (p.file_off - at), plain_len);
		if (err)
			problem_add(f, &p, err);
		progress_add(progress, (uint64_t)plain_len + AEAD_OVERHEAD, 0);
	}
}

void item_range(struct verify_item *f, struct verify_buffers *w, uint64_t range, struct progress *progress)
{
	uint64_t i = range * f->per_range, end = MIN(i + f->per_range, f->c->m->n_segs);

	while (i < end && !interrupted()) {
		uint64_t stop = i + 1, off, len;

		/* as many segments as fit, at least one */
		while (stop < end) {
			extent(f->c, i, stop + 1, &off, &len);
			if (len > CHUNK)
				break;
			stop++;
		}
		chunk_run(f, w, progress, range, i, stop);
		i = stop;
	}
}

/* No segment, so nobody reads it; but zip programs count it. */
static int slack_crc(const struct verify_item *f, uint32_t *crc)
{
	CLEANUP_FREE uint8_t *buf = f->slack_len ? malloc(CHUNK) : NULL;
	uint64_t off = f->slack_off, end = off + f->slack_len;

	if (f->slack_len && !buf)
		return -ENOMEM;
	while (off < end && !interrupted()) {
		size_t n = (size_t)MIN(end - off, CHUNK);
		int err = io_pread_full(&f->io, f->fd, buf, n, off);

		if (err)
			return err;
		*crc = crc_bytes(*crc, buf, n);
		off += n;
	}
	return off < end ? -EINTR : 0;
}

void item_crc(struct verify_item *f)
{
	uint32_t crc = 0;
	int err;

	if (!f->crc_known)
		return;
	for (uint64_t i = 0; i < f->n_ranges; i++)
		crc = crc_join(crc, f->range_crc[i], f->range_len[i]);
	fail_clear();
	err = slack_crc(f, &crc);
	if (err == -EINTR)
		return;
	if (err) {
		item_problem(f, err);
		return;
	}
	if (crc == f->crc)
		return;
	item_problem(f, fail(-EBADMSG, f->n_problems
					   ? "the CRC-32 of the payload is wrong too"
					   : "the CRC-32 of the payload is wrong (the content verified): zip programs will refuse it"));
}

void buffers_free(struct verify_buffers *w)
{
	if (w->plain)
		wipe(w->plain, w->plain_room);
	free(w->plain);
	free(w->stored);
}
