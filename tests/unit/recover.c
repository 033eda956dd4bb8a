/* SPDX-License-Identifier: Apache-2.0 */
/* Recovery on a real directory: store files and logs made by hand. */
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

static int bed_sync(void *ctx, int fd, bool full)
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

static int bed_syncfs(void *ctx, int fd)
{
	return 0;
}

static struct secret *key(uint8_t v)
{
	struct secret *s = secret_new();

	memset(s->b, v, SECRET_LEN);
	return s;
}

static void log_start(struct bed *b, uint64_t lsn, uint64_t epoch, int half)
{
	assert_int_equal(redo_open(&b->io, b->tdfs, b->root, volume, b->k_log, lsn, epoch, half, 0, &b->r), 0);
}

/* As a crash leaves it: nothing is retired. */
static void log_stop(struct bed *b)
{
	redo_close(b->r);
	b->r = NULL;
	memset(b->pins, 0, sizeof(b->pins));
}

static int setup(void **state)
{
	struct bed *b = calloc(1, sizeof(*b));

	report_limit(REPORT_ERROR);
	snprintf(b->dir, sizeof(b->dir), "%s/tdfs-recover-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	assert_non_null(mkdtemp(b->dir));
	b->root = open(b->dir, O_RDONLY | O_DIRECTORY);
	assert_int_equal(mkdirat(b->root, ".tdfs", 0700), 0);
	b->tdfs = openat(b->root, ".tdfs", O_RDONLY | O_DIRECTORY);
	b->real = io_posix(b->root);
	b->io = b->real;
	b->io.ctx = b;
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

static void forget(struct bed *b)
{
	for (size_t i = 0; i < b->n_damage; i++)
		free(b->damage[i].path);
	free(b->damage);
	b->damage = NULL;
	b->n_damage = 0;
}

static int teardown(void **state)
{
	struct bed *b = *state;
	char cmd[PATH_MAX + 16];

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
	snprintf(cmd, sizeof(cmd), "rm -rf '%s'", b->dir);
	assert_int_equal(system(cmd), 0);
	free(b);
	return 0;
}

static void told(void *arg, const char *path, const char *text)
{
	struct bed *b = arg;

	b->events++;
	snprintf(b->last_event, sizeof(b->last_event), "%s: %s", path, text);
}

static int run(struct bed *b, bool apply)
{
	int err;

	if (b->r)
		log_stop(b);
	forget(b);
	err = recover(&b->io, b->tdfs, b->root, &b->keys, apply, told, b, &b->got, &b->damage, &b->n_damage);
	return err;
}

/* --- contents and files ------------------------------------------------------------------------------------------------------ */

static void content_finish(struct bed *b, struct content *c)
{
	c->crc = crc_bytes(0, c->payload, payload_len(c->size, S));
	assert_int_equal(root_signature(b->dek, c->tags, c->n, c->root), 0);
}

static void content_seal(struct bed *b, struct content *c, uint64_t i, uint8_t fill)
{
	static uint8_t plain[S];
	uint8_t *out = c->payload + i * STRIDE;
	uint32_t len = seg_plain(c->size, S, i);

	memset(plain, fill, len);
	assert_int_equal(aead_seal(b->dek, plain, len, out), 0);
	memcpy(c->tags + i * AEAD_TAG, out + AEAD_IV + len, AEAD_TAG);
}

static struct content *content_new(struct bed *b, uint64_t size, uint8_t fill)
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
static struct content *content_change(struct bed *b, const struct content *old, uint64_t size, uint64_t seg, uint8_t fill)
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

static void content_free(struct content *c)
{
	free(c->payload);
	free(c->tags);
	free(c);
}

static struct record make_record(const struct content *c, uint8_t id, uint64_t generation, enum record_state state)
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

static uint8_t *make_tail(struct bed *b, const struct content *c, uint64_t *ret_len)
{
	uint8_t *p;

	*ret_len = tail_len(b->tmpl, c->size);
	p = malloc(*ret_len);
	tail_build(b->tmpl, c->size, c->tags, c->root, c->crc, p);
	return p;
}

static void write_file(struct bed *b, const char *path, const struct content *c, uint8_t id, uint64_t generation, enum record_state state)
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

static uint64_t file_len(struct bed *b, const char *path)
{
	struct stat s;

	assert_int_equal(fstatat(b->root, path, &s, AT_SYMLINK_NOFOLLOW), 0);
	return (uint64_t)s.st_size;
}

static uint8_t *slurp(struct bed *b, const char *path, size_t *ret_len)
{
	char *p;

	assert_int_equal(io_read_file(&b->real, b->root, path, 64 << 20, &p, ret_len), 0);
	return (uint8_t *)p;
}

/* The file is, byte for byte, this content sealed as this generation. */
static void check_file(struct bed *b, const char *name, const struct content *c, uint8_t id, uint64_t generation)
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

static struct base base_of(const struct content *c, uint8_t id, uint64_t generation)
{
	struct base base = {.generation = generation};

	memset(base.file_id, id, ID_LEN);
	memcpy(base.content_id, c->root, ID_LEN);
	return base;
}

static uint64_t put(struct bed *b, const struct redo_rec *recs, size_t n, int pin)
{
	uint64_t lsn;

	assert_int_equal(redo_append(b->r, recs, n, &b->pins[pin], 5000, false, &lsn, NULL), 0);
	assert_int_equal(redo_flush(b->r, lsn), 0);
	return lsn;
}

static struct redo_rec intent_rec(struct bed *b, const char *path, const struct content *c, uint8_t id, uint64_t generation)
{
	struct redo_rec r = {.type = REDO_INTENT, .base = base_of(c, id, generation)};
	struct stat s = {0};

	(void)!fstatat(b->root, path, &s, AT_SYMLINK_NOFOLLOW);
	r.intent.sealed_len = tail_offset(c->size, S) + tail_len(b->tmpl, c->size);
	r.intent.ino = s.st_ino;
	r.intent.path = path;
	return r;
}

static struct redo_rec image_of(const struct content *base, const struct content *c, uint64_t seg, uint8_t id, uint64_t generation)
{
	struct redo_rec r = {.type = REDO_IMAGE, .base = base_of(base, id, generation)};

	r.image.seg = seg;
	r.image.bytes = c->payload + seg * STRIDE;
	r.image.len = seg_plain(c->size, S, seg) + AEAD_OVERHEAD;
	return r;
}

static struct redo_rec commit_of(const struct content *base, const struct content *c, uint8_t id, uint64_t generation)
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

static struct redo_rec seal_of(struct bed *b, const struct content *base, const struct content *c, uint8_t id, uint64_t generation,
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
static void commit_one(struct bed *b, const char *path, const struct content *old, const struct content *c, uint64_t seg, uint8_t id,
		       uint64_t generation, int pin)
{
	struct redo_rec recs[3] = {intent_rec(b, path, old, id, generation), image_of(old, c, seg, id, generation),
				   commit_of(old, c, id, generation)};

	put(b, recs, 3, pin);
}

/* --- tests ------------------------------------------------------------------------------------------------------------------- */

static void test_empty(void **state)
{
	struct bed *b = *state;

	assert_int_equal(run(b, true), 0);
	assert_int_equal(b->got.next_lsn, 1);
	assert_int_equal(b->got.next_epoch, 1);
	assert_int_equal(b->got.half, 0);
	assert_int_equal(unlinkat(b->tdfs, "log.1", 0), 0);
	assert_int_equal(run(b, true), -ENOENT);
}

static void test_commit(void **state)
{
	struct bed *b = *state;
	struct content *one = content_new(b, 3 * S + 100, 1), *two = content_change(b, one, 3 * S + 100, 1, 50);
	struct stat s;

	write_file(b, "f", one, 1, 1, RECORD_LIVE);
	commit_one(b, "f", one, two, 1, 1, 1, 0);
	assert_int_equal(run(b, true), 0);
	check_file(b, "f", two, 1, 2);
	assert_int_equal(b->got.committed, 1);
	assert_int_equal(b->got.files, 1);
	assert_int_equal(b->got.half, 1);
	assert_int_equal(b->got.next_epoch, 2);
	assert_int_equal(b->got.next_lsn, 4); /* the commit, recovery's SEAL, the end */
	assert_int_equal(fstatat(b->root, "f", &s, 0), 0);
	assert_int_equal(s.st_mtim.tv_sec, 1500000000);
	assert_int_equal(s.st_mtim.tv_nsec, 7);
	/* once more there is nothing to do, not even if the old file comes back */
	write_file(b, "f", one, 1, 1, RECORD_SEALED);
	assert_int_equal(run(b, true), 0);
	assert_int_equal(b->got.committed + b->got.sealed + b->got.files, 0);
	assert_int_equal(b->got.next_lsn, 4);
	check_file(b, "f", one, 1, 1);
	content_free(one);
	content_free(two);
}

/* Several commits; truncated, then longer again; a segment placed; images after the last COMMIT do not count. */
static void test_commits(void **state)
{
	struct bed *b = *state;
	struct content *one = content_new(b, 3 * S + 100, 1), *two = content_change(b, one, S + 5, 1, 50),
		       *three = content_change(b, two, 4 * S, 1, 90), *four = content_change(b, three, 4 * S, 0, 120);
	struct redo_rec recs[8];
	struct redo_place place = {crc_bytes(0, three->payload + 3 * STRIDE, STRIDE), {0}};
	int fd;

	memcpy(place.tag, three->tags + 3 * AEAD_TAG, AEAD_TAG);
	write_file(b, "f", one, 1, 1, RECORD_SEALED);
	commit_one(b, "f", one, two, 1, 1, 1, 0);
	recs[0] = image_of(one, three, 1, 1, 1);
	recs[1] = image_of(one, three, 2, 1, 1);
	recs[2] = (struct redo_rec){.type = REDO_PLACE, .base = base_of(one, 1, 1), .place = {.first = 3, .each = &place, .count = 1}};
	recs[3] = commit_of(one, three, 1, 1);
	recs[4] = image_of(one, four, 0, 1, 1);
	put(b, recs, 5, 0);
	/* the placed one is where it was put; the tail of the first state is overwritten by nothing */
	fd = openat(b->root, "f", O_WRONLY);
	assert_int_equal(pwrite(fd, three->payload + 3 * STRIDE, STRIDE, (off_t)seg_off(S, 3)), STRIDE);
	close(fd);
	/* the tail that recovery needs as a template was there: put it back as the engine would have left it */
	write_file(b, "f", one, 1, 1, RECORD_SEALED);
	assert_int_equal(run(b, true), 0);
	/* all but the placed segment, which this test has taken away again */
	fd = openat(b->root, "f", O_WRONLY);
	assert_int_equal(pwrite(fd, three->payload + 3 * STRIDE, STRIDE, (off_t)seg_off(S, 3)), STRIDE);
	close(fd);
	check_file(b, "f", three, 1, 2);
	content_free(one);
	content_free(two);
	content_free(three);
	content_free(four);
}

/* A SEAL that was not put in place, one that was in part, and one that was wholly. */
static void test_seals(void **state)
{
	struct bed *b = *state;
	struct content *one = content_new(b, 3 * S + 100, 1), *two = content_change(b, one, 2 * S, 1, 50),
		       *three = content_change(b, two, 5 * S, 0, 90);
	struct seal_parts parts;
	struct redo_rec recs[5] = {intent_rec(b, "f", one, 1, 1), image_of(one, two, 1, 1, 1), commit_of(one, two, 1, 1),
				   seal_of(b, one, two, 1, 1, &parts)};
	uint64_t lsn;
	int fd;

	for (int how = 0; how < 3; how++) {
		write_file(b, "f", one, 1, 1, RECORD_LIVE);
		if (how == 2)
			write_file(b, "f", two, 1, 2, RECORD_SEALED);
		recs[0] = intent_rec(b, "f", one, 1, 1);
		lsn = put(b, recs, 4, 0);
		assert_true(lsn > 0);
		fd = openat(b->root, "f", O_WRONLY);
		if (how == 1) /* the header is there, the rest is not */
			assert_int_equal(pwrite(fd, parts.sector, SECTOR, 0), SECTOR);
		close(fd);
		assert_int_equal(run(b, true), 0);
		assert_int_equal(b->got.sealed, 1);
		assert_int_equal(b->got.committed, 0);
		check_file(b, "f", two, 1, 2);
		log_start(b, b->got.next_lsn, b->got.next_epoch, b->got.half);
	}
	/* a SEAL and the next state on it, neither in place */
	write_file(b, "f", one, 1, 1, RECORD_LIVE);
	recs[0] = intent_rec(b, "f", one, 1, 1);
	put(b, recs, 4, 0);
	recs[0] = intent_rec(b, "f", two, 1, 2);
	recs[1] = image_of(two, three, 0, 1, 2);
	put(b, recs, 2, 1);
	for (uint64_t i = 2; i < 5; i++)
		recs[i - 2] = image_of(two, three, i, 1, 2);
	recs[3] = commit_of(two, three, 1, 2);
	put(b, recs, 4, 1);
	assert_int_equal(run(b, true), 0);
	assert_int_equal(b->got.sealed, 1);
	assert_int_equal(b->got.committed, 1);
	check_file(b, "f", three, 1, 3);
	free(parts.tail);
	content_free(one);
	content_free(two);
	content_free(three);
}

/* A state that is in place already is put there again, but a time that was set since stays. */
static void test_touched(void **state)
{
	struct bed *b = *state;
	struct content *one = content_new(b, 3 * S, 1), *two = content_change(b, one, 3 * S, 1, 50);
	const struct timespec ts[2] = {{.tv_nsec = UTIME_OMIT}, {1234567890, 77}};
	struct seal_parts parts;
	struct redo_rec recs[3];
	struct stat s;

	write_file(b, "f", one, 1, 1, RECORD_SEALED);
	recs[0] = intent_rec(b, "f", one, 1, 1);
	recs[1] = image_of(one, two, 1, 1, 1);
	recs[2] = seal_of(b, one, two, 1, 1, &parts);
	put(b, recs, 3, 0);
	write_file(b, "f", two, 1, 2, RECORD_SEALED);
	assert_int_equal(utimensat(b->root, "f", ts, 0), 0);
	assert_int_equal(run(b, true), 0);
	assert_int_equal(b->got.sealed, 1);
	check_file(b, "f", two, 1, 2);
	assert_int_equal(fstatat(b->root, "f", &s, 0), 0);
	assert_int_equal(s.st_mtim.tv_sec, 1234567890);
	assert_int_equal(s.st_mtim.tv_nsec, 77);
	free(parts.tail);
	content_free(one);
	content_free(two);
}

static void test_cut_and_mark(void **state)
{
	struct bed *b = *state;
	struct content *one = content_new(b, 3 * S + 100, 1), *grown = content_change(b, one, 6 * S, 9, 50);
	struct redo_rec recs[2] = {intent_rec(b, "f", one, 1, 1), image_of(one, grown, 3, 1, 1)};
	int fd;

	write_file(b, "f", one, 1, 1, RECORD_LIVE);
	recs[0] = intent_rec(b, "f", one, 1, 1);
	put(b, recs, 2, 0);
	fd = openat(b->root, "f", O_WRONLY);
	assert_int_equal(pwrite(fd, grown->payload, 3000, (off_t)file_len(b, "f") + 20000), 3000);
	close(fd);
	assert_int_equal(run(b, true), 0);
	assert_int_equal(b->got.cut, 1);
	check_file(b, "f", one, 1, 1);
	content_free(one);
	content_free(grown);
}

static void test_void(void **state)
{
	struct bed *b = *state;
	struct content *one = content_new(b, 3 * S, 1);
	struct redo_rec rec = {.type = REDO_VOID, .base = base_of(one, 1, 1)};

	write_file(b, "f", one, 1, 1, RECORD_SEALED);
	put(b, &rec, 1, 0);
	assert_int_equal(run(b, true), 0);
	assert_int_equal(file_len(b, "f"), 0);
	content_free(one);
}

/* Not our business: another generation, another content of the same generation, a file that is gone, one that became NEW. */
static void test_stale(void **state)
{
	struct bed *b = *state;
	struct content *one = content_new(b, 3 * S, 1), *two = content_change(b, one, 3 * S, 1, 50),
		       *other = content_change(b, one, 3 * S, 2, 70);

	write_file(b, "f", one, 1, 1, RECORD_SEALED);
	commit_one(b, "f", one, two, 1, 1, 1, 0);
	commit_one(b, "gone", one, two, 1, 2, 1, 1);
	write_file(b, "f", other, 1, 1, RECORD_SEALED);
	assert_int_equal(run(b, true), 0);
	check_file(b, "f", other, 1, 1);
	assert_int_equal(b->got.missing, 1);
	assert_true(b->got.stale >= 2);
	content_free(one);
	content_free(two);
	content_free(other);
}

static void test_find(void **state)
{
	struct bed *b = *state;
	struct content *one = content_new(b, 3 * S, 1), *two = content_change(b, one, 3 * S, 1, 50);

	assert_int_equal(mkdirat(b->root, "d", 0755), 0);
	assert_int_equal(mkdirat(b->root, "d/e", 0755), 0);
	/* moved after the INTENT: found by its inode number */
	write_file(b, "f", one, 1, 1, RECORD_SEALED);
	commit_one(b, "f", one, two, 1, 1, 1, 0);
	assert_int_equal(renameat(b->root, "f", b->root, "d/e/moved"), 0);
	/* another file has taken its name */
	write_file(b, "f", one, 9, 1, RECORD_SEALED);
	/* restored from a backup, twice: every inode number is new, both have the base */
	write_file(b, "g", one, 2, 1, RECORD_SEALED);
	commit_one(b, "g", one, two, 1, 2, 1, 1);
	write_file(b, "d/g1", one, 2, 1, RECORD_SEALED);
	write_file(b, "d/e/g2", one, 2, 1, RECORD_SEALED);
	assert_int_equal(unlinkat(b->root, "g", 0), 0);
	/* one whose mode forbids it */
	write_file(b, "h", one, 3, 1, RECORD_SEALED);
	commit_one(b, "h", one, two, 1, 3, 1, 2);
	assert_int_equal(fchmodat(b->root, "h", 0, 0), 0);
	assert_int_equal(run(b, true), 0);
	check_file(b, "d/e/moved", two, 1, 2);
	check_file(b, "f", one, 9, 1);
	check_file(b, "d/g1", two, 2, 2);
	check_file(b, "d/e/g2", two, 2, 2);
	{
		struct stat s;

		assert_int_equal(fstatat(b->root, "h", &s, 0), 0);
		assert_int_equal(s.st_mode & 07777, 0);
		assert_int_equal(fchmodat(b->root, "h", 0600, 0), 0);
	}
	check_file(b, "h", two, 3, 2);
	content_free(one);
	content_free(two);
}

/* A hint must not lead out of the store, through symlinks, or into `.tdfs`; devices and FIFOs are not opened. */
static void test_hostile_hints(void **state)
{
	static const char *const hints[] = {"../out/f", "/etc/passwd", "link/f", ".tdfs/f", "d/../f", "", "d//f", "d/f/", "flink", "fifo"};
	struct bed *b = *state;
	struct content *one = content_new(b, 3 * S, 1), *two = content_change(b, one, 3 * S, 1, 50);
	char out[PATH_MAX + 8];

	snprintf(out, sizeof(out), "%s-out", b->dir);
	assert_int_equal(mkdir(out, 0755), 0);
	assert_int_equal(symlinkat(out, b->root, "link"), 0);
	assert_int_equal(mkdirat(b->root, "d", 0755), 0);
	assert_int_equal(mkfifoat(b->root, "fifo", 0644), 0);
	assert_int_equal(symlinkat("link/f", b->root, "flink"), 0);
	write_file(b, "link/f", one, 1, 1, RECORD_SEALED);
	write_file(b, ".tdfs/f", one, 1, 1, RECORD_SEALED);
	for (size_t i = 0; i < ARRAY_SIZE(hints); i++)
		commit_one(b, hints[i], one, two, 1, 1, 1, 0);
	assert_int_equal(run(b, true), 0);
	assert_int_equal(b->got.missing, 1);
	check_file(b, "link/f", one, 1, 1);
	check_file(b, ".tdfs/f", one, 1, 1);
	unlinkat(b->root, "link/f", 0);
	assert_int_equal(rmdir(out), 0);
	content_free(one);
	content_free(two);
}

/* Records that promise what they do not hold. */
static void test_incomplete(void **state)
{
	struct bed *b = *state;
	struct content *one = content_new(b, 3 * S, 1), *two = content_change(b, one, 3 * S, 1, 50),
		       *large = content_change(b, one, 9 * S, 1, 50);
	struct redo_rec recs[3];
	uint8_t *before, *after;
	size_t len, len2;

	write_file(b, "f", one, 1, 1, RECORD_SEALED);
	recs[0] = intent_rec(b, "f", one, 1, 1);
	recs[1] = image_of(one, large, 8, 1, 1);
	recs[2] = commit_of(one, large, 1, 1);
	put(b, recs, 3, 0);
	write_file(b, "g", one, 2, 1, RECORD_SEALED);
	recs[0] = intent_rec(b, "g", one, 2, 1);
	recs[1] = image_of(one, two, 1, 2, 1);
	recs[1].image.seg = UINT64_MAX / 2; /* ignored */
	recs[2] = commit_of(one, one, 2, 1);
	put(b, recs, 3, 1);
	before = slurp(b, "f", &len);
	assert_int_equal(run(b, true), 1);
	after = slurp(b, "f", &len2);
	assert_int_equal(len, len2);
	assert_memory_equal(before, after, len);
	assert_int_equal(b->n_damage, 1);
	assert_string_equal(b->damage[0].path, "f");
	check_file(b, "g", one, 2, 2);
	free(before);
	free(after);
	content_free(one);
	content_free(two);
	content_free(large);
}

/* The base itself is damaged: the file is left alone and told of, the volume goes on. */
static void test_base_damaged(void **state)
{
	struct bed *b = *state;
	struct content *one = content_new(b, 3 * S, 1), *two = content_change(b, one, 3 * S, 1, 50);
	int fd;

	write_file(b, "f", one, 1, 1, RECORD_SEALED);
	commit_one(b, "f", one, two, 1, 1, 1, 0);
	fd = openat(b->root, "f", O_WRONLY);
	assert_int_equal(pwrite(fd, "x", 1, (off_t)tail_offset(3 * S, S) + 100), 1);
	close(fd);
	assert_int_equal(run(b, true), 0);
	assert_int_equal(b->n_damage, 1);
	assert_int_equal(b->got.damaged, 1);
	assert_int_equal(b->damage[0].file_id[0], 1);
	assert_int_equal(run(b, true), 0); /* and the log is done with it */
	assert_int_equal(b->n_damage, 0);
	content_free(one);
	content_free(two);
}

static void flip(struct bed *b, const char *name, uint64_t off)
{
	int fd = openat(b->tdfs, name, O_RDWR);
	uint8_t c;

	assert_int_equal(pread(fd, &c, 1, (off_t)off), 1);
	c ^= 0x10;
	assert_int_equal(pwrite(fd, &c, 1, (off_t)off), 1);
	close(fd);
}

/* The last group torn: the state before it, and no complaint. */
static void test_torn(void **state)
{
	struct bed *b = *state;
	struct content *one = content_new(b, 3 * S, 1), *two = content_change(b, one, 3 * S, 1, 50),
		       *three = content_change(b, two, 3 * S, 2, 70);
	struct redo_rec recs[2];

	write_file(b, "f", one, 1, 1, RECORD_SEALED);
	commit_one(b, "f", one, two, 1, 1, 1, 0);
	recs[0] = image_of(one, three, 2, 1, 1);
	recs[1] = commit_of(one, three, 1, 1);
	put(b, recs, 2, 0);
	log_stop(b);
	flip(b, "log.0", 20480 + 5000); /* the first group takes 16,384 + 28 + 400 bytes */
	assert_int_equal(run(b, true), 0);
	check_file(b, "f", two, 1, 2);
	content_free(one);
	content_free(two);
	content_free(three);
}

static void test_damage_inside(void **state)
{
	struct bed *b = *state;
	struct content *one = content_new(b, 3 * S, 1), *two = content_change(b, one, 3 * S, 1, 50),
		       *three = content_change(b, two, 3 * S, 2, 70);
	struct seal_parts parts;
	struct redo_rec recs[4];
	size_t len;

	/* s: sealed in the log before the damage; f: commits before and in it; g: behind it; h: not in the log */
	write_file(b, "s", one, 1, 1, RECORD_LIVE);
	write_file(b, "f", one, 2, 1, RECORD_LIVE);
	write_file(b, "g", one, 3, 1, RECORD_LIVE);
	write_file(b, "h", one, 4, 1, RECORD_SEALED);
	recs[0] = intent_rec(b, "s", one, 1, 1);
	recs[1] = image_of(one, two, 1, 1, 1);
	recs[2] = commit_of(one, two, 1, 1);
	recs[3] = seal_of(b, one, two, 1, 1, &parts);
	put(b, recs, 4, 0);
	commit_one(b, "f", one, two, 1, 2, 1, 1);
	recs[0] = image_of(one, three, 2, 2, 1);
	recs[1] = commit_of(one, three, 2, 1);
	put(b, recs, 2, 1);
	commit_one(b, "g", one, two, 1, 3, 1, 2);
	log_stop(b);
	flip(b, "log.0", 20480 + 20480 + 5000);   /* the third group */
	for (int round = 0; round < 2; round++) { /* and again: nothing is forgotten */
		assert_int_equal(run(b, true), 1);
		check_file(b, "s", two, 1, 2);
		check_file(b, "h", one, 4, 1);
		assert_int_equal(b->n_damage, 2);
		for (int i = 0; i < 2; i++)
			assert_true(b->damage[i].file_id[0] == 2 || b->damage[i].file_id[0] == 3);
		assert_int_equal(b->got.committed, 0);
	}
	{
		struct record r;
		uint8_t *p = slurp(b, "f", &len);

		assert_int_equal(record_parse(p, b->k_rec, &r, NULL), 0);
		assert_int_equal(r.state, RECORD_LIVE);
		assert_int_equal(r.generation, 1);
		free(p);
	}
	free(parts.tail);
	content_free(one);
	content_free(two);
	content_free(three);
}

/* The start of the older half is gone while something there is still needed. */
static void test_damage_front(void **state)
{
	struct bed *b = *state;
	struct content *one = content_new(b, 3 * S, 1), *two = content_change(b, one, 3 * S, 1, 50);
	uint8_t *mb = calloc(1, 1 << 20);
	struct redo_rec big = {.type = REDO_IMAGE, .base = base_of(one, 9, 1), .image = {0, mb, 1 << 20}};
	uint64_t lsn;
	int n = 0;

	write_file(b, "f", one, 1, 1, RECORD_SEALED);
	commit_one(b, "f", one, two, 1, 1, 1, 0);
	while (n < 20) { /* on into the other half */
		assert_int_equal(redo_append(b->r, &big, 1, &b->pins[1], 0, false, &lsn, NULL), 0);
		assert_int_equal(redo_flush(b->r, lsn), 0);
		n++;
	}
	log_stop(b);
	flip(b, "log.0", 40);
	assert_int_equal(run(b, true), 1);
	check_file(b, "f", one, 1, 1);
	/* with both it is in order */
	flip(b, "log.0", 40);
	assert_int_equal(run(b, true), 0);
	check_file(b, "f", two, 1, 2);
	free(mb);
	content_free(one);
	content_free(two);
}

/* The first group after a change of half is torn: what the old half holds is all there is, and that is in order. */
static void test_torn_after_change(void **state)
{
	struct bed *b = *state;
	struct content *one = content_new(b, 3 * S, 1), *two = content_change(b, one, 3 * S, 1, 50);
	uint8_t *mb = calloc(1, 1 << 20);
	struct redo_rec big = {.type = REDO_IMAGE, .base = base_of(one, 9, 1), .image = {0, mb, 1 << 20}};
	uint64_t lsn, last = 0;

	for (int half = 0; half < 2; half++) { /* log.0, then log.1 ... */
		for (int i = 0; i < 13; i++) {
			assert_int_equal(redo_append(b->r, &big, 1, &b->pins[half], 0, false, &lsn, NULL), 0);
			assert_int_equal(redo_flush(b->r, lsn), 0);
		}
	}
	write_file(b, "f", one, 1, 1, RECORD_SEALED);
	commit_one(b, "f", one, two, 1, 1, 1, 2);
	redo_unpin(b->r, &b->pins[0]);
	/* ... and back to log.0, torn */
	assert_int_equal(redo_append(b->r, &big, 1, &b->pins[3], 0, false, &last, NULL), 0);
	assert_int_equal(redo_flush(b->r, last), 0);
	log_stop(b);
	flip(b, "log.0", 50000);
	assert_int_equal(run(b, true), 0);
	check_file(b, "f", two, 1, 2);
	free(mb);
	content_free(one);
	content_free(two);
}

static void test_other_volume(void **state)
{
	struct bed *b = *state;
	struct content *one = content_new(b, 3 * S, 1), *two = content_change(b, one, 3 * S, 1, 50);

	write_file(b, "f", one, 1, 1, RECORD_SEALED);
	commit_one(b, "f", one, two, 1, 1, 1, 0);
	b->keys.volume_id = (const uint8_t *)"another volume..";
	assert_int_equal(run(b, true), -EBADMSG);
	check_file(b, "f", one, 1, 1);
	content_free(one);
	content_free(two);
}

static void test_report_only(void **state)
{
	struct bed *b = *state;
	struct content *one = content_new(b, 3 * S, 1), *two = content_change(b, one, 3 * S, 1, 50);

	write_file(b, "f", one, 1, 1, RECORD_SEALED);
	commit_one(b, "f", one, two, 1, 1, 1, 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(run(b, false), 0);
		assert_int_equal(b->got.committed, 1);
		assert_int_equal(b->n_damage, 1); /* what is in place is not its last state */
		check_file(b, "f", one, 1, 1);
	}
	assert_int_equal(run(b, true), 0);
	check_file(b, "f", two, 1, 2);
	content_free(one);
	content_free(two);
}

/* A tail in a side file; removed when it is not needed any more. */
static void test_side(void **state)
{
	struct bed *b = *state;
	struct content *one = content_new(b, 3 * S, 1), *two = content_change(b, one, 3 * S, 1, 50);
	struct seal_parts parts;
	struct redo_rec recs[3];
	uint8_t hash[32];
	char name[40] = "tail-";

	write_file(b, "f", one, 1, 1, RECORD_SEALED);
	recs[0] = intent_rec(b, "f", one, 1, 1);
	recs[1] = image_of(one, two, 1, 1, 1);
	recs[2] = seal_of(b, one, two, 1, 1, &parts);
	assert_int_equal(redo_side_write(b->r, parts.tail, parts.len, hash), 0);
	recs[2].seal.tail = NULL;
	recs[2].seal.side = hash;
	put(b, recs, 3, 0);
	for (int i = 0; i < 16; i++)
		sprintf(name + 5 + 2 * i, "%02x", hash[i]);
	assert_int_equal(faccessat(b->tdfs, name, F_OK, 0), 0);
	assert_int_equal(run(b, true), 0);
	check_file(b, "f", two, 1, 2);
	assert_int_equal(faccessat(b->tdfs, name, F_OK, 0), -1);
	free(parts.tail);
	content_free(one);
	content_free(two);
}

static void test_sync_fails(void **state)
{
	struct bed *b = *state;
	struct content *one = content_new(b, 3 * S, 1), *two = content_change(b, one, 3 * S, 1, 50);

	write_file(b, "f", one, 1, 1, RECORD_SEALED);
	commit_one(b, "f", one, two, 1, 1, 1, 0);
	log_stop(b);
	/* the SEAL is logged; then the file's sync fails for good: the log keeps everything */
	b->fail_at = 1;
	b->fail_syncs = 2;
	assert_int_equal(run(b, true), 1);
	assert_int_equal(b->n_damage, 1);
	/* once: written again */
	b->fail_at = 0;
	b->fail_syncs = 1;
	b->syncs = 0;
	assert_int_equal(run(b, true), 0);
	assert_int_equal(b->syncs, 3);
	check_file(b, "f", two, 1, 2);
	content_free(one);
	content_free(two);
}

/* More files than one batch. */
static void test_many(void **state)
{
	struct bed *b = *state;
	struct content *one = content_new(b, 2 * S, 1), *two = content_change(b, one, 2 * S, 1, 50);
	char name[20];

	for (int i = 0; i < 150; i++) {
		snprintf(name, sizeof(name), "f%d", i);
		write_file(b, name, one, (uint8_t)(i + 1), 1, RECORD_LIVE);
		commit_one(b, name, one, two, 1, (uint8_t)(i + 1), 1, i % 8);
	}
	assert_int_equal(run(b, true), 0);
	assert_int_equal(b->got.committed, 150);
	for (int i = 0; i < 150; i++) {
		snprintf(name, sizeof(name), "f%d", i);
		check_file(b, name, two, (uint8_t)(i + 1), 2);
	}
	content_free(one);
	content_free(two);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T(test_empty),        T(test_commit),        T(test_commits),      T(test_seals),
	    T(test_touched),      T(test_cut_and_mark),  T(test_void),         T(test_stale),
	    T(test_find),         T(test_hostile_hints), T(test_incomplete),   T(test_base_damaged),
	    T(test_torn),         T(test_damage_inside), T(test_damage_front), T(test_torn_after_change),
	    T(test_other_volume), T(test_report_only),   T(test_side),         T(test_sync_fails),
	    T(test_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
