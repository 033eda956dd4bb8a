/* SPDX-License-Identifier: Apache-2.0 */
/* Recovery: what it does with each kind of record, and with files that are not what the log expects. */
#include "recover_setup.h"

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

/* A file that cannot be opened any more, from whichever open on, is not gone: what was committed is there after the next recovery. */
static void test_unopened(void **state)
{
	static const int errs[] = {-EAGAIN, -EMFILE, -ENFILE, -ENOMEM};
	struct bed *b = *state;
	struct content *one = content_new(b, 3 * S + 100, 1), *two = content_change(b, one, 3 * S + 100, 1, 50);
	bool failed;
	int err;

	for (size_t e = 0; e < ARRAY_SIZE(errs); e++) {
		failed = true;
		for (int good = 0; failed; good++) {
			write_file(b, "f", one, 1, 1, RECORD_LIVE);
			commit_one(b, "f", one, two, 1, 1, 1, 0);
			b->opens = good;
			b->open_err = errs[e];
			err = run(b, true); /* an error, or the log is kept for the next mount */
			failed = b->opens < 0;
			assert_int_equal(err != 0, failed);
			b->open_err = 0;
			assert_int_equal(run(b, true), 0);
			check_file(b, "f", two, 1, 2);
			log_start(b, b->got.next_lsn, b->got.next_epoch, b->got.half);
		}
	}
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

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T(test_empty),         T(test_commit),       T(test_unopened),     T(test_commits), T(test_seals),
	    T(test_touched),       T(test_cut_and_mark), T(test_void),         T(test_stale),   T(test_find),
	    T(test_hostile_hints), T(test_incomplete),   T(test_base_damaged),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
