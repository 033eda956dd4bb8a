/* SPDX-License-Identifier: Apache-2.0 */
/*
 * race DIR SECONDS - names that always exist, given new files all the time (rename over them, exchange, a link more and a link less), while
 * other processes open, read, stat, chmod and truncate them.  Whatever they get, it is never an error.
 *
 * Prints what went wrong (not the same error twice in a row) and how often anything was done; ends with 1 if anything went wrong.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "crowd.h"

#define N_CHANGE 3
#define N_USE 4
#define N_TARGETS 2

static unsigned long n_done, n_bad;
static unsigned seed;
static int last_bad;

static unsigned draw(unsigned n)
{
	seed = seed * 1103515245 + 12345;
	return (seed >> 16) % n;
}

static void check(bool good, const char *what, const char *name)
{
	n_done++;
	if (good)
		return;
	n_bad++;
	if (errno != last_bad)
		printf("%s of %s: %s\n", what, name, strerror(errno));
	last_bad = errno;
}

static const char *target(void)
{
	static const char *const names[N_TARGETS] = {"target-0", "target-1"};

	return names[draw(N_TARGETS)];
}

static void make(const char *name)
{
	char text[3000];
	int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	check(fd >= 0, "create", name);
	if (fd < 0)
		return;
	memset(text, 'a' + (int)draw(26), sizeof(text));
	check(write(fd, text, sizeof(text)) == sizeof(text), "write", name);
	check(!close(fd), "close", name);
}

static void change(int k)
{
	char mine[32], old[32];
	const char *to = target();
	bool linked;

	snprintf(mine, sizeof(mine), "new-%d", k);
	snprintf(old, sizeof(old), "old-%d", k);
	make(mine);
	switch (draw(4)) {
	case 0:
		check(!renameat2(AT_FDCWD, mine, AT_FDCWD, to, RENAME_EXCHANGE), "exchange", to);
		check(!unlink(mine), "unlink", mine);
		break;
	case 1: /* what is replaced keeps another name for a moment */
		linked = !link(to, old);
		check(linked || errno == ENOENT, "link", to); /* ENOENT: replaced since it was looked up; ext4 says so too */
		check(!rename(mine, to), "rename over", to);
		check(!linked || !unlink(old), "unlink", old);
		break;
	default:
		check(!rename(mine, to), "rename over", to);
	}
}

static void use_file(const char *name, int flags)
{
	char text[4000];
	ssize_t n;
	int fd = open(name, flags);

	check(fd >= 0, flags == O_RDONLY ? "open" : "open for writing", name);
	if (fd < 0)
		return;
	n = read(fd, text, sizeof(text));
	check(n >= 0, "read", name);
	for (ssize_t i = 1; i < n; i++) {
		if (text[i] && text[i] != text[0]) { /* truncated meanwhile: 0 */
			errno = EILSEQ;              /* mixed content */
			check(false, "content", name);
			break;
		}
	}
	check(!close(fd), "close", name);
}

/* Held by a descriptor, whatever becomes of its name.  By these ways the kernel does not look the name up again when it is told ESTALE. */
static void use_held(const char *name)
{
	int held = open(name, O_PATH), fd;
	struct statx x;
	char path[40];

	check(held >= 0, "open with O_PATH", name);
	if (held < 0)
		return;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", held);
	for (int i = 0; i < 8; i++) {
		check(!statx(held, "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &x), "stat of a descriptor", name);
		fd = open(path, draw(2) ? O_RDONLY : O_RDWR);
		check(fd >= 0, "open through a descriptor", name);
		if (fd >= 0)
			close(fd);
	}
	check(!chmod(path, 0644), "chmod through a descriptor", name);
	close(held);
}

static void use(void)
{
	const char *name = target();
	struct stat st;

	switch (draw(9)) {
	case 8:
		use_held(name);
		break;
	case 0:
		check(!stat(name, &st), "stat", name);
		break;
	case 1:
		check(!chmod(name, 0600 + draw(2) * 044), "chmod", name);
		break;
	case 2:
		check(!truncate(name, draw(2) ? 1000 : 0), "truncate", name);
		break;
	case 3:
		check(!utimensat(AT_FDCWD, name, NULL, 0), "utimensat", name);
		break;
	case 4:
		use_file(name, O_RDWR);
		break;
	default:
		use_file(name, O_RDONLY);
	}
}

static int work(int k, double seconds)
{
	struct timespec from, now;

	seed = (unsigned)k * 7919 + 1;
	clock_gettime(CLOCK_MONOTONIC, &from);
	do {
		if (k < N_CHANGE)
			change(k);
		else
			use();
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while ((double)(now.tv_sec - from.tv_sec) + (double)(now.tv_nsec - from.tv_nsec) / 1e9 < seconds);
	printf("%s %d: %lu calls, %lu failed\n", k < N_CHANGE ? "changer" : "user", k, n_done, n_bad);
	return n_bad != 0;
}

int main(int argc, char **argv)
{
	if (argc != 3 || chdir(argv[1]))
		return 2;
	make("target-0");
	make("target-1");
	return crowd(N_CHANGE + N_USE, work, atof(argv[2]));
}
