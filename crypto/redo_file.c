/* SPDX-License-Identifier: Apache-2.0 */
/* The files of the volume log: making them, opening and closing, tails that are too large for it. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>

#include "aead.h"
#include "redo_int.h"
#include "report.h"

#define CHUNK ((size_t)1 << 20)
#define TAIL_MAX ((uint64_t)4 << 20) /* larger ones never fit into one redo_append() */

static const char *const names[2] = {"log.0", "log.1"};

static int create_half(const struct io *io, int dirfd, const char *name, uint64_t half, const void *zeros)
{
	int fd = io->open(io->ctx, dirfd, name, O_WRONLY | O_CREAT | O_EXCL, 0600), err = 0;

	if (fd < 0)
		return fail(fd, "cannot create %s: %s", name, strerror(-fd));
	if (io->in_place) /* else a full btrfs refuses the log what it already has */
		io->in_place(io->ctx, fd);
	/* real zeros: a write into a hole or into an unwritten extent would need a journal commit at each flush */
	for (uint64_t off = 0; !err && off < half; off += CHUNK)
		err = io_pwrite(io, fd, zeros, MIN(CHUNK, half - off), off);
	if (!err)
		err = io->sync(io->ctx, fd, true);
	io->close(io->ctx, fd);
	if (err)
		(void)io->unlink(io->ctx, dirfd, name, 0);
	return err ? fail(err, "cannot write %s, %" PRIu64 " bytes: %s", name, half, strerror(-err)) : 0;
}

int redo_create(const struct io *io, int dirfd, uint64_t half)
{
	CLEANUP_FREE void *zeros = calloc(1, CHUNK);
	int err;

	if (half < REDO_HALF_MIN || half > REDO_HALF_MAX || half % REDO_BLOCK)
		return fail(-EINVAL, "a log half of %" PRIu64 " bytes: 16 MiB to 512 MiB, a multiple of 4096, are possible", half);
	if (!zeros)
		return -ENOMEM;
	err = create_half(io, dirfd, names[0], half, zeros);
	if (err)
		return err;
	err = create_half(io, dirfd, names[1], half, zeros);
	if (!err)
		err = io_sync_dir(io, dirfd);
	if (err) {
		(void)io->unlink(io->ctx, dirfd, names[0], 0);
		if (err != -EEXIST)
			(void)io->unlink(io->ctx, dirfd, names[1], 0);
	}
	return err;
}

int redo_open_halves(const struct io *io, int dirfd, bool write, int ret_fd[2], uint64_t *ret_half)
{
	uint64_t size[2] = {0};
	int fd[2] = {-1, -1}, err = 0;
	struct stat s;

	for (int i = 0; i < 2 && !err; i++) {
		fd[i] = io->open(io->ctx, dirfd, names[i], (write ? O_RDWR : O_RDONLY) | O_NONBLOCK, 0);
		err = fd[i] < 0 ? fail(fd[i], "cannot open %s: %s", names[i], strerror(-fd[i])) : io->stat(io->ctx, fd[i], &s);
		if (!err && !S_ISREG(s.st_mode))
			err = fail(-EBADMSG, "%s is not a regular file", names[i]);
		size[i] = err ? 0 : (uint64_t)s.st_size;
	}
	if (!err && (size[0] != size[1] || size[0] < REDO_HALF_MIN || size[0] > REDO_HALF_MAX || size[0] % REDO_BLOCK))
		err = fail(-EBADMSG, "log.0 has %" PRIu64 " bytes and log.1 %" PRIu64 ": equal sizes from 16 MiB to 512 MiB were expected",
			   size[0], size[1]);
	if (err) {
		for (int i = 0; i < 2; i++)
			if (fd[i] >= 0)
				io->close(io->ctx, fd[i]);
		return err;
	}
	ret_fd[0] = fd[0];
	ret_fd[1] = fd[1];
	*ret_half = size[0];
	return 0;
}

int redo_open(const struct io *io, int dirfd, int store_fd, const uint8_t volume_id[static ID_LEN], const struct secret *k_log,
	      uint64_t next_lsn, uint64_t next_epoch, int half, uint64_t other_end, struct redo **ret)
{
	struct redo *r = calloc(1, sizeof(*r));
	int err;

	if (!r)
		return -ENOMEM;
	r->io = *io;
	r->dirfd = dirfd;
	r->store_fd = store_fd;
	r->k_log = secret_copy(k_log);
	r->fill = calloc(1, sizeof(*r->fill));
	err = r->k_log && r->fill ? redo_open_halves(io, dirfd, true, r->fd, &r->half_size) : -ENOMEM;
	if (err) {
		secret_free(r->k_log);
		free(r->fill);
		free(r);
		return err;
	}
	memcpy(r->volume_id, volume_id, ID_LEN);
	r->spare = r->half_size / 8;
	mutex_init(&r->lock);
	cond_init(&r->changed);
	r->end[1 - half] = other_end;
	r->head = r->fill;
	*r->fill = (struct redo_group_buf){.len = REDO_HEADER, .lsn = next_lsn, .epoch = next_epoch, .half = half};
	r->runs[0] = (struct redo_run){.first_lsn = next_lsn, .groups = 1, .halves = (uint8_t)(1 << half)};
	/* recovery has applied and synced everything before */
	r->durable = r->retired_sealed = r->retired_durable = next_lsn - 1;
	r->start[0] = r->start[1] = next_lsn;
	*ret = r;
	return 0;
}

void redo_close(struct redo *r)
{
	if (!r)
		return;
	while (r->head) {
		struct redo_group_buf *g = r->head;

		r->head = g->next;
		redo_group_free(r, g);
	}
	for (int i = 0; i < 2; i++) {
		r->io.close(r->io.ctx, r->fd[i]);
		free(r->pool[i]);
	}
	free(r->where);
	secret_free(r->k_log);
	cond_destroy(&r->changed);
	mutex_destroy(&r->lock);
	free(r);
}

bool redo_is_dead(struct redo *r)
{
	bool dead;

	mutex_lock(&r->lock);
	dead = r->dead;
	mutex_unlock(&r->lock);
	return dead;
}

void redo_stats(struct redo *r, uint64_t *ret_flushes, uint64_t *ret_bytes)
{
	mutex_lock(&r->lock);
	*ret_flushes = r->n_flushes;
	*ret_bytes = r->n_bytes;
	mutex_unlock(&r->lock);
}

static void hex_name(const char *prefix, const uint8_t *id, char *ret, size_t room)
{
	size_t n = (size_t)snprintf(ret, room, "%s", prefix);

	for (int i = 0; i < 16; i++)
		n += (size_t)snprintf(ret + n, room - n, "%02x", id[i]);
}

void redo_side_name(const uint8_t hash[static 32], char ret[static REDO_SIDE_NAME])
{
	hex_name("tail-", hash, ret, REDO_SIDE_NAME);
}

void redo_whole_name(const uint8_t content_id[static ID_LEN], char ret[static REDO_WHOLE_NAME])
{
	hex_name("whole-", content_id, ret, REDO_WHOLE_NAME);
}

struct names {
	char (*name)[REDO_WHOLE_NAME];
	size_t n;
};

static bool is_hex_behind(const char *name, const char *prefix, const char *end)
{
	size_t len = strlen(prefix);

	return !strncmp(name, prefix, len) && strspn(name + len, "0123456789abcdef") == 32 &&
	       (!name[len + 32] || !strcmp(name + len + 32, end));
}

static int side_entry(void *arg, const char *name, unsigned char type, ino_t ino)
{
	struct names *s = arg;
	void *p;

	if (!is_hex_behind(name, "tail-", ".new") && !is_hex_behind(name, "whole-", ".new"))
		return 0;
	p = reallocarray(s->name, s->n + 1, sizeof(*s->name));
	if (!p)
		return -ENOMEM;
	s->name = p;
	memcpy(s->name[s->n++], name, strlen(name) + 1); /* at most REDO_WHOLE_NAME, or it would not have fitted the pattern */
	return 0;
}

void redo_sides_drop(const struct io *io, int dirfd)
{
	struct names s = {0};

	if (!io->list(io->ctx, dirfd, side_entry, &s))
		for (size_t i = 0; i < s.n; i++)
			(void)!io->unlink(io->ctx, dirfd, s.name[i], 0);
	free(s.name);
}

bool redo_side_wanted(uint64_t half, uint64_t tail_len)
{
	return tail_len > MIN(half / 4, TAIL_MAX);
}

bool redo_side_needed(struct redo *r, uint64_t tail_len)
{
	return redo_side_wanted(r->half_size, tail_len);
}

int redo_side_put(const struct io *io, int dirfd, const void *tail, uint64_t len, uint8_t ret_hash[static 32])
{
	struct part part = {tail, len};
	char name[REDO_SIDE_NAME];
	uint8_t hash[32];
	int err = sha256(&part, 1, hash);

	if (err)
		return err;
	redo_side_name(hash, name);
	/* never cut in place: an older SEAL may name the same content */
	err = io_replace(io, dirfd, name, tail, len, 0600);
	if (!err)
		memcpy(ret_hash, hash, sizeof(hash));
	return err;
}

int redo_side_write(struct redo *r, const void *tail, uint64_t len, uint8_t ret_hash[static 32])
{
	return redo_side_put(&r->io, r->dirfd, tail, len, ret_hash);
}

void redo_side_drop(struct redo *r, const uint8_t hash[static 32])
{
	char name[REDO_SIDE_NAME];
	int err;

	redo_side_name(hash, name);
	err = r->io.unlink(r->io.ctx, r->dirfd, name, 0);
	if (err)
		report(REPORT_WARN, "cannot remove .tdfs/%s, which is not needed any more: %s", name, strerror(-err));
}
