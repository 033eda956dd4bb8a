/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The input and output loops of tests/bench/bench, in C so that latencies are those of the file system.  Each prints the seconds it took.
 *
 * bench-io write FILE MIB SEED		1 MiB at a time, fsync at the end
 * bench-io read FILE			1 MiB at a time
 * bench-io randread FILE N SEED	4 KiB each
 * bench-io randwrite FILE N SEED	4 KiB each, one fsync
 * bench-io randsync FILE N SEED	4 KiB each, fdatasync after each
 * bench-io append FILE N SEED		4 KiB each, fsync after each
 * bench-io create DIR N SEED		N files of 4 KiB in directories of 100, closed, not synced
 * bench-io stat DIR			lstat of everything
 * bench-io readall DIR			every file read whole
 * bench-io verify FILE MIB SEED [N:SEED]...	no time: the content is that of `write` and then those random writes
 * bench-io verify-append FILE N SEED, verify-create DIR N SEED
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)
#define BLOCK ((size_t)4096)

static uint64_t mix(uint64_t x)
{
	x += 0x9E3779B97F4A7C15u;
	x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
	x = (x ^ x >> 27) * 0x94D049BB133111EBu;
	return x ^ x >> 31;
}

static void fill(uint8_t *buf, size_t len, uint64_t seed)
{
	for (size_t i = 0; i < len / 8; i++) {
		uint64_t v = mix(seed + i);

		memcpy(buf + i * 8, &v, 8);
	}
}

static void die(const char *what)
{
	fprintf(stderr, "bench-io: %s: %s\n", what, errno ? strerror(errno) : "other content");
	exit(1);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int open_file(const char *path, int flags)
{
	int fd = open(path, flags, 0644);

	if (fd < 0)
		die(path);
	return fd;
}

static uint8_t *room(size_t n)
{
	uint8_t *p = aligned_alloc(4096, n);

	if (!p)
		die("memory");
	memset(p, 0, n);
	return p;
}

static uint64_t seed_of(uint64_t seed, uint64_t block)
{
	return mix(seed << 32 ^ block) << 20;
}

static double do_write(const char *path, size_t mib, uint64_t seed)
{
	uint8_t *buf = room(mib * MIB);
	double t;
	int fd;

	for (size_t i = 0; i < mib; i++)
		fill(buf + i * MIB, MIB, seed_of(seed, i));
	t = now();
	fd = open_file(path, O_WRONLY | O_CREAT | O_TRUNC);
	for (size_t i = 0; i < mib; i++)
		if (write(fd, buf + i * MIB, MIB) != (ssize_t)MIB)
			die(path);
	if (fsync(fd) || close(fd))
		die(path);
	t = now() - t;
	free(buf);
	return t;
}

static double do_read(const char *path)
{
	uint8_t *buf = room(MIB);
	double t = now();
	int fd = open_file(path, O_RDONLY);
	ssize_t n;

	while ((n = read(fd, buf, MIB)) > 0)
		;
	if (n < 0)
		die(path);
	close(fd);
	free(buf);
	return now() - t;
}

enum random_mode { RANDOM_READ, RANDOM_WRITE, RANDOM_SYNC };

static double do_random(const char *path, size_t n, uint64_t seed, enum random_mode mode)
{
	int fd = open_file(path, mode == RANDOM_READ ? O_RDONLY : O_WRONLY);
	uint8_t *buf = room(BLOCK);
	struct stat st;
	double t;

	if (fstat(fd, &st))
		die(path);
	t = now();
	for (size_t i = 0; i < n; i++) {
		off_t off = (off_t)(mix(seed_of(seed, i)) % ((uint64_t)st.st_size / BLOCK) * BLOCK);

		if (mode == RANDOM_READ) {
			if (pread(fd, buf, BLOCK, off) != (ssize_t)BLOCK)
				die(path);
			continue;
		}
		fill(buf, BLOCK, seed_of(seed, i));
		if (pwrite(fd, buf, BLOCK, off) != (ssize_t)BLOCK || (mode == RANDOM_SYNC && fdatasync(fd)))
			die(path);
	}
	if (mode == RANDOM_WRITE && fsync(fd))
		die(path);
	if (close(fd))
		die(path);
	free(buf);
	return now() - t;
}

static double do_append(const char *path, size_t n, uint64_t seed)
{
	uint8_t *buf = room(BLOCK);
	double t = now();
	int fd = open_file(path, O_WRONLY | O_CREAT | O_APPEND);

	for (size_t i = 0; i < n; i++) {
		fill(buf, BLOCK, seed_of(seed, i));
		if (write(fd, buf, BLOCK) != (ssize_t)BLOCK || fsync(fd))
			die(path);
	}
	close(fd);
	free(buf);
	return now() - t;
}

static void small_name(char *path, size_t len, const char *dir, size_t i)
{
	snprintf(path, len, "%s/d%zu/f%zu", dir, i / 100, i);
}

static double do_create(const char *dir, size_t n, uint64_t seed)
{
	uint8_t *buf = room(BLOCK);
	double t = now();
	char path[4096];

	if (mkdir(dir, 0755))
		die(dir);
	for (size_t i = 0; i < n; i++) {
		int fd;

		if (i % 100 == 0) {
			snprintf(path, sizeof(path), "%s/d%zu", dir, i / 100);
			if (mkdir(path, 0755))
				die(path);
		}
		small_name(path, sizeof(path), dir, i);
		fill(buf, BLOCK, seed_of(seed, i));
		fd = open_file(path, O_WRONLY | O_CREAT | O_EXCL);
		if (write(fd, buf, BLOCK) != (ssize_t)BLOCK || close(fd))
			die(path);
	}
	free(buf);
	return now() - t;
}

static int see(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)path, (void)st, (void)ftw;
	return flag == FTW_NS || flag == FTW_DNR ? -1 : 0;
}

static int see_content(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	static uint8_t buf[1 << 17];
	ssize_t n;
	int fd;

	(void)ftw;
	if (flag != FTW_F || !S_ISREG(st->st_mode))
		return 0;
	fd = open_file(path, O_RDONLY);
	while ((n = read(fd, buf, sizeof(buf))) > 0)
		;
	close(fd);
	return n < 0 ? -1 : 0;
}

static double do_walk(const char *dir, int (*each)(const char *, const struct stat *, int, struct FTW *))
{
	double t = now();

	if (nftw(dir, each, 64, FTW_PHYS))
		die(dir);
	return now() - t;
}

static void same_content(const char *path, const uint8_t *want, size_t len)
{
	uint8_t *got = room(len + BLOCK);
	int fd = open_file(path, O_RDONLY);
	size_t have = 0;
	ssize_t n;

	while ((n = read(fd, got + have, len + BLOCK - have)) > 0)
		have += (size_t)n;
	if (n < 0)
		die(path);
	errno = 0;
	if (have != len || memcmp(got, want, len))
		die(path);
	close(fd);
	free(got);
}

static void verify(const char *path, size_t mib, uint64_t seed, int n_writes, char **writes)
{
	uint8_t *buf = room(mib * MIB);

	for (size_t i = 0; i < mib; i++)
		fill(buf + i * MIB, MIB, seed_of(seed, i));
	for (int k = 0; k < n_writes; k++) {
		char *end;
		size_t n = strtoul(writes[k], &end, 10);
		uint64_t s = strtoul(end + 1, NULL, 10);

		for (size_t i = 0; i < n; i++)
			fill(buf + mix(seed_of(s, i)) % (mib * MIB / BLOCK) * BLOCK, BLOCK, seed_of(s, i));
	}
	same_content(path, buf, mib * MIB);
	free(buf);
}

static void verify_blocks(const char *path, size_t n, uint64_t seed, bool files)
{
	uint8_t *buf = room((n + 1) * BLOCK);
	char name[4096];

	for (size_t i = 0; i < n; i++) {
		fill(buf + i * BLOCK, BLOCK, seed_of(seed, i));
		if (files) {
			small_name(name, sizeof(name), path, i);
			same_content(name, buf + i * BLOCK, BLOCK);
		}
	}
	if (!files)
		same_content(path, buf, n * BLOCK);
	free(buf);
}

int main(int argc, char **argv)
{
	const char *op = argc > 2 ? argv[1] : "", *path = argc > 2 ? argv[2] : "";
	size_t n = argc > 3 ? strtoul(argv[3], NULL, 10) : 0;
	uint64_t seed = argc > 4 ? strtoul(argv[4], NULL, 10) : 0;
	double t = 0;

	if (!strcmp(op, "write"))
		t = do_write(path, n, seed);
	else if (!strcmp(op, "read"))
		t = do_read(path);
	else if (!strcmp(op, "randread"))
		t = do_random(path, n, seed, RANDOM_READ);
	else if (!strcmp(op, "randwrite"))
		t = do_random(path, n, seed, RANDOM_WRITE);
	else if (!strcmp(op, "randsync"))
		t = do_random(path, n, seed, RANDOM_SYNC);
	else if (!strcmp(op, "append"))
		t = do_append(path, n, seed);
	else if (!strcmp(op, "create"))
		t = do_create(path, n, seed);
	else if (!strcmp(op, "stat"))
		t = do_walk(path, see);
	else if (!strcmp(op, "readall"))
		t = do_walk(path, see_content);
	else if (!strcmp(op, "verify"))
		verify(path, n, seed, argc - 5, argv + 5);
	else if (!strcmp(op, "verify-append"))
		verify_blocks(path, n, seed, false);
	else if (!strcmp(op, "verify-create"))
		verify_blocks(path, n, seed, true);
	else
		return fprintf(stderr, "bench-io: see the head of bench-io.c\n"), 2;
	printf("%.6f\n", t);
	return 0;
}
