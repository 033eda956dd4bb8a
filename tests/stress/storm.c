/* SPDX-License-Identifier: Apache-2.0 */
/*
 * storm DIR SECONDS SEED PROCESSES - many processes read, write, map, cut, grow, punch and sync the same few files at once.
 *
 * Each 8-byte word of a file says which file and which place it belongs to, so whatever a reader gets is either such a word or zero, and no
 * call may fail but for those that a concurrent cut explains (SIGBUS in a mapping).  Prints what went wrong and how much was done; ends
 * with 1 if anything went wrong.
 *
 * storm DIR check - every word of every file once more.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "../mount/crowd.h"

#define FILES 3u
#define MAX_BYTES ((size_t)6 << 20)
#define MAX_BLOCK ((size_t)300 << 10)

static sigjmp_buf over_the_end;
static uint64_t seed, n_done, n_bytes;
static unsigned n_bad;

static uint64_t rnd(uint64_t below)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (seed >> 11) % below;
}

static uint64_t word(unsigned file, uint64_t place)
{
	return (uint64_t)(file + 1) << 56 | (rnd(1 << 16) << 40) | place;
}

static bool fits(uint64_t w, unsigned file, uint64_t place)
{
	return !w || (w >> 56 == file + 1 && (w & 0xFFFFFFFFFFu) == place);
}

static void wrong(const char *what, unsigned file, uint64_t off)
{
	int err = errno;

	if (n_bad++ < 5)
		printf("%s of file %u at %llu: %s\n", what, file, (unsigned long long)off, strerror(err));
}

static void look_at(const uint64_t *buf, size_t bytes, unsigned file, uint64_t off, const char *how)
{
	for (size_t i = 0; i < bytes / 8; i++)
		if (!fits(buf[i], file, off / 8 + i)) {
			printf("%s: %016llx: ", how, (unsigned long long)buf[i]);
			errno = EILSEQ;
			wrong("a word that belongs elsewhere", file, off + i * 8);
			return;
		}
	n_bytes += bytes;
}

static void on_bus(int sig)
{
	(void)sig;
	siglongjmp(over_the_end, 1);
}

static void do_read(int fd, unsigned f, uint64_t *buf)
{
	uint64_t off = 8 * rnd(MAX_BYTES / 8);
	ssize_t n = pread(fd, buf, 8 * (1 + rnd(MAX_BLOCK / 8 - 1)), (off_t)off);

	if (n < 0)
		wrong("read", f, off);
	else
		look_at(buf, (size_t)n, f, off, "read");
}

static void do_write(int fd, unsigned f, uint64_t *buf)
{
	size_t len = 8 * (1 + rnd(rnd(4) ? 2000 : MAX_BLOCK / 8 - 1));
	uint64_t off = 8 * rnd((MAX_BYTES - len) / 8);

	for (size_t i = 0; i < len / 8; i++)
		buf[i] = word(f, off / 8 + i);
	errno = EIO; /* of a short one */
	if (pwrite(fd, buf, len, (off_t)off) != (ssize_t)len)
		wrong("write", f, off);
	n_bytes += len;
}

static void do_append(unsigned f, const char *name, uint64_t *buf)
{
	int fd = open(name, O_RDWR | O_APPEND);

	memset(buf, 0, 4096); /* where it will stand nobody knows beforehand */
	if (fd < 0 || write(fd, buf, 4096) != 4096 || close(fd))
		wrong("append", f, 0);
}

/* Through a shared mapping of what the file is now, while others cut it. */
static void do_map(int fd, unsigned f)
{
	struct stat st;
	volatile uint64_t *map;
	volatile int i;

	if (fstat(fd, &st))
		wrong("fstat", f, 0);
	if (st.st_size < 4096)
		return;
	map = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED) {
		wrong("mmap", f, 0);
		return;
	}
	if (!sigsetjmp(over_the_end, 1)) {
		for (i = 0; i < 200; i++) {
			uint64_t at = rnd((uint64_t)st.st_size / 8), w = map[at];

			look_at(&w, 8, f, at * 8, "mapping");
			if (i % 2)
				map[at] = word(f, at);
		}
	}
	if (rnd(4) == 0)
		msync((void *)map, (size_t)st.st_size, MS_SYNC); /* EIO: pages beyond a cut */
	munmap((void *)map, (size_t)st.st_size);
}

static void do_size(int fd, unsigned f, const char *name)
{
	uint64_t to = 8 * rnd(MAX_BYTES / 8);

	switch (rnd(4)) {
	case 0:
		fd = open(name, O_WRONLY | O_TRUNC);
		if (fd < 0 || close(fd))
			wrong("open with O_TRUNC", f, 0);
		break;
	case 1:
		if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)to, 100000) && errno != EOPNOTSUPP)
			wrong("punch", f, to);
		break;
	default:
		if (ftruncate(fd, (off_t)to))
			wrong("ftruncate", f, to);
	}
}

static void step(int k, int fd, unsigned f, const char *name, uint64_t *buf)
{
	uint64_t what = rnd(100);

	n_done++;
	switch (k % 4) {
	case 0:
		do_read(fd, f, buf);
		break;
	case 1:
		if (what < 90)
			do_write(fd, f, buf);
		else
			do_append(f, name, buf);
		break;
	case 2:
		do_map(fd, f);
		break;
	default:
		if (what < 8)
			do_size(fd, f, name);
		else if (what < 12)
			(void)(fsync(fd) && (wrong("fsync", f, 0), 0));
		else if (what < 60)
			do_write(fd, f, buf);
		else
			do_read(fd, f, buf);
	}
}

static int work(int k, double seconds)
{
	uint64_t *buf = malloc(MAX_BLOCK);
	struct timespec from, now;
	struct sigaction sa = {.sa_handler = on_bus};
	char name[16];

	if (!buf || sigaction(SIGBUS, &sa, NULL))
		return 2;
	seed = (seed * 1000 + (uint64_t)k + 1) * 0x9E3779B97F4A7C15u | 1;
	clock_gettime(CLOCK_MONOTONIC, &from);
	do {
		unsigned f = (unsigned)rnd(FILES);
		int fd;

		snprintf(name, sizeof(name), "storm-%u", f);
		fd = open(name, O_RDWR);
		if (fd < 0) {
			wrong("open", f, 0);
			break;
		}
		for (int i = 0; i < 20; i++)
			step(k, fd, f, name, buf);
		if (close(fd))
			wrong("close", f, 0);
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while ((double)(now.tv_sec - from.tv_sec) + (double)(now.tv_nsec - from.tv_nsec) / 1e9 < seconds);
	printf("process %d: %llu calls, %llu MiB, %u wrong\n", k, (unsigned long long)n_done, (unsigned long long)n_bytes >> 20, n_bad);
	free(buf);
	return n_bad != 0;
}

static int check_all(void)
{
	uint64_t *buf = malloc(MAX_BYTES * 2);
	char name[16];

	if (!buf)
		return 2;
	for (unsigned f = 0; f < FILES; f++) {
		ssize_t n;
		int fd;

		snprintf(name, sizeof(name), "storm-%u", f);
		fd = open(name, O_RDONLY);
		for (uint64_t off = 0; (n = pread(fd, buf, MAX_BLOCK, (off_t)off)) > 0; off += (uint64_t)n)
			look_at(buf, (size_t)n, f, off, "check");
		if (fd < 0 || n < 0 || close(fd))
			wrong("read", f, 0);
	}
	free(buf);
	return n_bad != 0;
}

int main(int argc, char **argv)
{
	if (argc < 3 || chdir(argv[1]))
		return 2;
	if (!strcmp(argv[2], "check"))
		return check_all();
	if (argc != 5)
		return 2;
	seed = strtoull(argv[3], NULL, 10);
	for (unsigned f = 0; f < FILES; f++) {
		char name[16];
		int fd;

		snprintf(name, sizeof(name), "storm-%u", f);
		fd = open(name, O_RDWR | O_CREAT, 0644);
		if (fd < 0 || close(fd))
			return 2;
	}
	return crowd(atoi(argv[4]), work, atof(argv[2]));
}
