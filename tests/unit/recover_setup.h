/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of recovery share: a real directory, store files and logs made by hand. */
#ifndef TDFS_TEST_RECOVER_SETUP_H
#define TDFS_TEST_RECOVER_SETUP_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#undef fail /* ours is another */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>

#include "crc.h"
#include "recover.h"
#include "report.h"
#include "temp_dir.h"
#include "tail.h"

#define S SEG_MIN
#define STRIDE ((uint64_t)S + AEAD_OVERHEAD)
#define KEY_ACCESS                                                                                                                       \
	"[{\"type\":\"wrapped\",\"url\":\"https://"                                                                                      \
	"localhost:8443\",\"protocol\":\"kas\",\"wrappedKey\":\"AAAA\",\"policyBinding\":{\"alg\":\"HS256\",\"hash\":\"AAAA\"},\"kid\":" \
	"\"r1\"}]"
#define POLICY "e30="

static const uint8_t volume[ID_LEN] = "volume id 16 by";

struct bed {
	char dir[PATH_MAX];
	int root, tdfs;
	struct io real, io;
	struct secret *k_log, *k_rec, *k_hint, *dek;
	struct tail_template *tmpl;
	struct recover_keys keys;
	struct redo *r;
	struct redo_pin pins[8];
	/* faults and results */
	int fail_syncs, fail_at; /* so many syncs fail, after this many */
	int opens, open_err;     /* after so many (below 0: one has failed) no open of "f" succeeds, but fails with that; 0: all do */
	unsigned syncs, events;
	char last_event[600];
	struct recovered got;
	struct recover_damage *damage;
	size_t n_damage;
};

/* The content of a file as it is stored. */
struct content {
	uint64_t size, n;
	uint8_t *payload, *tags;
	uint32_t crc;
	uint8_t root[MAC_LEN];
};

static inline int bed_sync(void *ctx, int fd, bool full)
{
	struct bed *b = ctx;

	b->syncs++;
	if (b->fail_at > 0) {
		b->fail_at--;
		return 0;
	}
	if (b->fail_syncs > 0) {
		b->fail_syncs--;
		return -EIO;
	}
	return 0;
}

static inline int bed_open(void *ctx, int dirfd, const char *name, int flags, mode_t mode)
{
	struct bed *b = ctx;

	if (!strcmp(name, "f") && !(flags & O_PATH) && b->open_err && --b->opens < 0)
		return b->open_err;
	return b->real.open(b->real.ctx, dirfd, name, flags, mode);
}

static inline int bed_syncfs(void *ctx, int fd)
{
	return 0;
}

static inline struct secret *key(uint8_t v)
{
	struct secret *s = secret_new();

	memset(s->b, v, SECRET_LEN);
	return s;
}

static inline void log_start(struct bed *b, uint64_t lsn, uint64_t epoch, int half)
{
	assert_int_equal(redo_open(&b->io, b->tdfs, b->root, volume, b->k_log, lsn, epoch, half, 0, &b->r), 0);
}

/* As a crash leaves it: nothing is retired. */
static inline void log_stop(struct bed *b)
{
	redo_close(b->r);
	b->r = NULL;
	memset(b->pins, 0, sizeof(b->pins));
}

static inline int setup(void **state)
{
	struct bed *b = calloc(1, sizeof(*b));

	report_limit(REPORT_ERROR);
	assert_true(temp_dir_make(b->dir));
	b->root = open(b->dir, O_RDONLY | O_DIRECTORY);
	assert_int_equal(mkdirat(b->root, ".tdfs", 0700), 0);
	b->tdfs = openat(b->root, ".tdfs", O_RDONLY | O_DIRECTORY);
	b->real = io_posix(b->root);
	b->io = b->real;
	b->io.ctx = b;
	b->io.open = bed_open;
	b->io.sync = bed_sync;
	b->io.syncfs = bed_syncfs;
	b->k_log = key(1);
	b->k_rec = key(2);
	b->k_hint = key(3);
	b->dek = key(4);
	b->keys = (struct recover_keys){volume, b->k_log, b->k_rec, b->k_hint};
	b->tmpl = tail_template_new(S, KEY_ACCESS, POLICY);
	assert_int_equal(redo_create(&b->io, b->tdfs, REDO_HALF_MIN), 0);
	log_start(b, 1, 1, 0);
	*state = b;
	return 0;
}

static inline void forget(struct bed *b)
{
	for (size_t i = 0; i < b->n_damage; i++)
		free(b->damage[i].path);
	free(b->damage);
	b->damage = NULL;
	b->n_damage = 0;
}

static inline int teardown(void **state)
{
	struct bed *b = *state;

	if (b->r)
		redo_close(b->r);
	forget(b);
	secret_free(b->k_log);
	secret_free(b->k_rec);
	secret_free(b->k_hint);
	secret_free(b->dek);
	tail_template_free(b->tmpl);
	close(b->root);
	close(b->tdfs);
	assert_true(temp_dir_remove(b->dir));
	free(b);
	return 0;
}

static inline void told(void *arg, const char *path, const char *text)
{
	struct bed *b = arg;

	b->events++;
	snprintf(b->last_event, sizeof(b->last_event), "%s: %s", path, text);
}

static inline int run(struct bed *b, bool apply)
{
	int err;

	if (b->r)
		log_stop(b);
	forget(b);
	err = recover(&b->io, b->tdfs, b->root, &b->keys, apply, told, b, &b->got, &b->damage, &b->n_damage);
	return err;
}

/* --- contents and files ------------------------------------------------------------------------------------------------------ */

static inline void content_finish(struct bed *b, struct content *c)
{
	c->crc = crc_bytes(0, c->payload, payload_len(c->size, S));
	assert_int_equal(root_signature(b->dek, c->tags, c->n, c->root), 0);
}

static inline void content_seal(struct bed *b, struct content *c, uint64_t i, uint8_t fill)
{
	static uint8_t plain[S];
	uint8_t *out = c->payload + i * STRIDE;
	uint32_t len = seg_plain(c->size, S, i);

	memset(plain, fill, len);
	assert_int_equal(aead_seal(b->dek, plain, len, out), 0);
	memcpy(c->tags + i * AEAD_TAG, out + AEAD_IV + len, AEAD_TAG);
}

static inline struct content *content_new(struct bed *b, uint64_t size, uint8_t fill)
{
	struct content *c = calloc(1, sizeof(*c));

	c->size = size;
	c->n = seg_count(size, S);
	c->payload = malloc(payload_len(size, S));
	c->tags = malloc(c->n * AEAD_TAG);
	for (uint64_t i = 0; i < c->n; i++)
		content_seal(b, c, i, (uint8_t)(fill + i));
	content_finish(b, c);
	return c;
}

/* A copy with another size, and one segment sealed anew (and those that come or change length with the size). */
static inline struct content *content_change(struct bed *b, const struct content *old, uint64_t size, uint64_t seg, uint8_t fill)
{
	struct content *c = content_new(b, size, fill);

	for (uint64_t i = 0; i < c->n && i < old->n; i++) {
		if (i == seg || seg_plain(size, S, i) != seg_plain(old->size, S, i))
			continue;
		memcpy(c->payload + i * STRIDE, old->payload + i * STRIDE, seg_plain(size, S, i) + AEAD_OVERHEAD);
		memcpy(c->tags + i * AEAD_TAG, old->tags + i * AEAD_TAG, AEAD_TAG);
	}
	content_finish(b, c);
	return c;
}

static inline void content_free(struct content *c)
{
	free(c->payload);
	free(c->tags);
	free(c);
}

static inline struct record make_record(const struct content *c, uint8_t id, uint64_t generation, enum record_state state)
{
	struct record r = {
	    .state = state, .s = S, .generation = generation, .size = c->size, .tail_off = tail_offset(c->size, S), .epoch = 1};

	r.invocations = 1 << 20;
	r.mtime = (struct timespec){1600000000 + (time_t)generation, 5};
	memcpy(r.content_id, c->root, ID_LEN);
	memcpy(r.volume_id, volume, ID_LEN);
	memset(r.file_id, id, ID_LEN);
	memset(r.seal, 0x5E, MAC_LEN);
	return r;
}

static inline uint8_t *make_tail(struct bed *b, const struct content *c, uint64_t *ret_len)
{
	uint8_t *p;

	*ret_len = tail_len(b->tmpl, c->size);
	p = malloc(*ret_len);
	tail_build(b->tmpl, c->size, c->tags, c->root, c->crc, p);
	return p;
}

static inline void write_file(struct bed *b, const char *path, const struct content *c, uint8_t id, uint64_t generation,
			      enum record_state state)
{
	int fd = openat(b->root, path, O_RDWR | O_CREAT | O_TRUNC, 0644);
	struct record r = make_record(c, id, generation, state);
	uint8_t sector[SECTOR], *tail;
	uint64_t len;

	assert_true(fd >= 0);
	assert_int_equal(record_sector(&r, c->crc, b->k_rec, sector), 0);
	tail = make_tail(b, c, &len);
	assert_int_equal(pwrite(fd, sector, SECTOR, 0), SECTOR);
	assert_int_equal(pwrite(fd, c->payload, payload_len(c->size, S), SECTOR), payload_len(c->size, S));
	assert_int_equal(pwrite(fd, tail, len, (off_t)tail_offset(c->size, S)), len);
	free(tail);
	close(fd);
}

static inline uint64_t file_len(struct bed *b, const char *path)
{
	struct stat s;

	assert_int_equal(fstatat(b->root, path, &s, AT_SYMLINK_NOFOLLOW), 0);
	return (uint64_t)s.st_size;
}

static inline uint8_t *slurp(struct bed *b, const char *path, size_t *ret_len)
{
	char *p;

	assert_int_equal(io_read_file(&b->real, b->root, path, 64 << 20, &p, ret_len), 0);
	return (uint8_t *)p;
}

/* The file is, byte for byte, this content sealed as this generation. */
static inline void check_file(struct bed *b, const char *name, const struct content *c, uint8_t id, uint64_t generation)
{
	struct tail_template *t;
	uint8_t *p, *tags, root[MAC_LEN];
	struct record r;
	uint32_t crc;
	size_t len;

	p = slurp(b, name, &len);
	assert_true(len > SECTOR);
	assert_int_equal(record_parse(p, b->k_rec, &r, &crc), 0);
	assert_int_equal(r.state, RECORD_SEALED);
	assert_int_equal(r.generation, generation);
	assert_int_equal(r.file_id[3], id);
	assert_memory_equal(r.content_id, c->root, ID_LEN);
	assert_int_equal(r.size, c->size);
	assert_int_equal(crc, c->crc);
	assert_int_equal(r.seal[0], 0x5E);
	assert_int_equal(len, tail_offset(c->size, S) + tail_len(b->tmpl, c->size));
	assert_memory_equal(p + SECTOR, c->payload, payload_len(c->size, S));
	assert_int_equal(tail_parse(p + r.tail_off, len - r.tail_off, r.size, S, crc, &t, &tags, root), 0);
	assert_memory_equal(tags, c->tags, c->n * AEAD_TAG);
	assert_memory_equal(root, c->root, MAC_LEN);
	tail_template_free(t);
	free(tags);
	free(p);
}

/* --- records ----------------------------------------------------------------------------------------------------------------- */

static inline struct base base_of(const struct content *c, uint8_t id, uint64_t generation)
{
	struct base base = {.generation = generation};

	memset(base.file_id, id, ID_LEN);
	memcpy(base.content_id, c->root, ID_LEN);
	return base;
}

static inline uint64_t put(struct bed *b, const struct redo_rec *recs, size_t n, int pin)
{
	uint64_t lsn;

	assert_int_equal(redo_append(b->r, recs, n, &b->pins[pin], 5000, false, &lsn, NULL), 0);
	assert_int_equal(redo_flush(b->r, lsn), 0);
	return lsn;
}

static inline struct redo_rec intent_rec(struct bed *b, const char *path, const struct content *c, uint8_t id, uint64_t generation)
{
	struct redo_rec r = {.type = REDO_INTENT, .base = base_of(c, id, generation)};
	struct stat s = {0};

	(void)!fstatat(b->root, path, &s, AT_SYMLINK_NOFOLLOW);
	r.intent.sealed_len = tail_offset(c->size, S) + tail_len(b->tmpl, c->size);
	r.intent.ino = s.st_ino;
	r.intent.path = path;
	return r;
}

static inline struct redo_rec image_of(const struct content *base, const struct content *c, uint64_t seg, uint8_t id, uint64_t generation)
{
	struct redo_rec r = {.type = REDO_IMAGE, .base = base_of(base, id, generation)};

	r.image.seg = seg;
	r.image.bytes = c->payload + seg * STRIDE;
	r.image.len = seg_plain(c->size, S, seg) + AEAD_OVERHEAD;
	return r;
}

static inline struct redo_rec commit_of(const struct content *base, const struct content *c, uint8_t id, uint64_t generation)
{
	struct redo_rec r = {.type = REDO_COMMIT, .base = base_of(base, id, generation)};

	r.commit.number = 1;
	r.commit.size = c->size;
	r.commit.invocations = 2 << 20;
	r.commit.mtime = (struct timespec){1500000000, 7};
	r.commit.ctime = (struct timespec){1500000001, 8};
	r.commit.crc = c->crc;
	r.commit.root = c->root;
	return r;
}

struct seal_parts {
	uint8_t sector[SECTOR], *tail;
	uint64_t len;
};

static inline struct redo_rec seal_of(struct bed *b, const struct content *base, const struct content *c, uint8_t id, uint64_t generation,
				      struct seal_parts *m)
{
	struct redo_rec r = {.type = REDO_SEAL, .base = base_of(base, id, generation)};
	struct record rec = make_record(c, id, generation + 1, RECORD_SEALED);

	m->tail = make_tail(b, c, &m->len);
	assert_int_equal(record_sector(&rec, c->crc, b->k_rec, m->sector), 0);
	r.seal.generation = generation + 1;
	r.seal.content_id = c->root;
	r.seal.tail_off = rec.tail_off;
	r.seal.tail_len = m->len;
	r.seal.final_len = rec.tail_off + m->len;
	r.seal.mtime = rec.mtime;
	r.seal.sector = m->sector;
	r.seal.tail = m->tail;
	return r;
}

/* INTENT, one IMAGE, COMMIT */
static inline void commit_one(struct bed *b, const char *path, const struct content *old, const struct content *c, uint64_t seg, uint8_t id,
			      uint64_t generation, int pin)
{
	struct redo_rec recs[3] = {intent_rec(b, path, old, id, generation), image_of(old, c, seg, id, generation),
				   commit_of(old, c, id, generation)};

	put(b, recs, 3, pin);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

#endif
