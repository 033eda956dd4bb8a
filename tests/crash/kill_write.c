/* SPDX-License-Identifier: Apache-2.0 */
/* kill-tool write: changes files at random until a call fails. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kill_tool.h"

struct writer {
	unsigned proc;
	int log, dirfd, alive;
	uint64_t seed, id;
	int fds[FILES];
	uint64_t sizes[FILES];
	bool there[FILES];
};

static uint64_t rnd(struct writer *w, uint64_t below)
{
	w->seed ^= w->seed << 13;
	w->seed ^= w->seed >> 7;
	w->seed ^= w->seed << 17;
	return (w->seed >> 11) % below;
}

__attribute__((format(printf, 2, 3))) static void tell(struct writer *w, const char *fmt, ...)
{
	char line[128];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	if (write(w->log, line, (size_t)n) != n)
		die("log");
}

/* The crash came: any call may fail now.  An error that is none of a dying mount is told. */
static void over(struct writer *w, const char *call)
{
	int err = errno;

	if (err != ENOTCONN && err != ECONNABORTED && err != EIO && err != ENODEV && err != EROFS && err != ESHUTDOWN && err != ESTALE)
		tell(w, "E %s %d\n", call, err);
	_exit(0);
}

static int file_fd(struct writer *w, unsigned f, int flags)
{
	char name[32];

	name_of(name, sizeof(name), w->proc, f);
	if (w->fds[f] >= 0 && !flags)
		return w->fds[f];
	if (w->fds[f] >= 0)
		close(w->fds[f]);
	w->fds[f] = openat(w->dirfd, name, O_RDWR | O_CREAT | flags, 0644);
	if (w->fds[f] < 0)
		over(w, "open");
	return w->fds[f];
}

static void sync_file(struct writer *w, unsigned f)
{
	if ((rnd(w, 2) ? fsync : fdatasync)(w->fds[f]))
		over(w, "fsync");
	tell(w, "A %u %" PRIu64 "\n", f, w->id);
}

static void sync_dir(struct writer *w, unsigned f)
{
	if (fsync(w->dirfd) || (w->alive >= 0 && fsync(w->alive)))
		over(w, "fsync dir");
	tell(w, "A %u %" PRIu64 "\n", f, w->id);
}

static void do_write(struct writer *w, unsigned f, uint64_t *buf)
{
	uint64_t most = f == LARGE ? 1 << 20 : 128 << 10, len = 8 * (1 + rnd(w, rnd(w, 3) ? 600 : most / 8 - 1)), off;

	off = rnd(w, 3) ? w->sizes[f] : 8 * rnd(w, w->sizes[f] / 8 + 1 + (rnd(w, 8) ? 0 : 20000));
	if (off + len > (f == LARGE ? MAX_BYTES : 400 << 10))
		off = 0;
	tell(w, "I %" PRIu64 " %u W %" PRIu64 " %" PRIu64 "\n", ++w->id, f, off, len);
	fill(buf, f, w->id, off, len);
	errno = EIO; /* of a short one */
	if (pwrite(file_fd(w, f, 0), buf, len, (off_t)off) != (ssize_t)len)
		over(w, "pwrite");
	if (off + len > w->sizes[f])
		w->sizes[f] = off + len;
}

static void do_replace(struct writer *w, unsigned f, uint64_t *buf)
{
	uint64_t len = 8 * (1 + rnd(w, 30000));
	bool sync = rnd(w, 2);
	char name[32], temp[40];
	int fd;

	name_of(name, sizeof(name), w->proc, f);
	snprintf(temp, sizeof(temp), "%s~", name);
	tell(w, "I %" PRIu64 " %u R 0 %" PRIu64 "\n", ++w->id, f, len);
	fill(buf, f, w->id, 0, len);
	fd = openat(w->dirfd, temp, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	if (fd < 0)
		over(w, "open");
	errno = EIO; /* of a short one */
	if (write(fd, buf, len) != (ssize_t)len)
		over(w, "write");
	if (sync && fsync(fd))
		over(w, "fsync");
	if (close(fd))
		over(w, "close");
	if (renameat(w->dirfd, temp, w->dirfd, name))
		over(w, "rename");
	if (w->fds[f] >= 0) {
		close(w->fds[f]);
		w->fds[f] = -1;
	}
	w->sizes[f] = len;
	tell(w, "D %" PRIu64 "\n", w->id);
	if (sync)
		sync_dir(w, f);
}

static void do_unlink(struct writer *w, unsigned f)
{
	char name[32];

	name_of(name, sizeof(name), w->proc, f);
	if (w->fds[f] >= 0)
		close(w->fds[f]);
	w->fds[f] = -1;
	tell(w, "I %" PRIu64 " %u U 0 0\n", ++w->id, f);
	if (unlinkat(w->dirfd, name, 0))
		over(w, "unlink");
	tell(w, "D %" PRIu64 "\n", w->id);
	w->sizes[f] = 0;
	w->there[f] = false;
	sync_dir(w, f);
}

static void write_step(struct writer *w, uint64_t *buf)
{
	unsigned f = (unsigned)rnd(w, FILES), what = (unsigned)rnd(w, 100);

	if (!w->there[f])
		what = what % 2 ? 70 : 85; /* O_TRUNC creates too; or it comes by rename */
	if (what < 55) {
		do_write(w, f, buf);
	} else if (what < 63) {
		uint64_t n = 8 * rnd(w, w->sizes[f] / 8 + 1 + (rnd(w, 2) ? 0 : 30000));

		tell(w, "I %" PRIu64 " %u T %" PRIu64 " 0\n", ++w->id, f, n);
		if (ftruncate(file_fd(w, f, 0), (off_t)n))
			over(w, "ftruncate");
		w->sizes[f] = n;
	} else if (what < 75) {
		tell(w, "I %" PRIu64 " %u O 0 0\n", ++w->id, f);
		file_fd(w, f, O_TRUNC);
		w->sizes[f] = 0;
		w->there[f] = true;
		tell(w, "D %" PRIu64 "\n", w->id);
		do_write(w, f, buf);
	} else if (what < 90) {
		do_replace(w, f, buf);
		w->there[f] = true;
		return;
	} else if (what < 92) {
		do_unlink(w, f);
		return;
	} else if (w->fds[f] >= 0) {
		if (close(w->fds[f]))
			over(w, "close");
		w->fds[f] = -1;
		return;
	} else {
		return;
	}
	tell(w, "D %" PRIu64 "\n", w->id);
	if (rnd(w, 100) < 45)
		sync_file(w, f);
	if (rnd(w, 200) == 0)
		usleep(100000);
}

void write_all(const char *dir, const char *logs, const char *base, uint64_t seed, unsigned proc)
{
	const char *alive = getenv("ALIVE");
	struct writer w = {.proc = proc, .seed = (seed + 1) * 0x9E3779B97F4A7C15u + proc * 0xD1B54A32D192ED03u, .id = 0};
	uint64_t *buf = malloc(MAX_BYTES);
	char path[4096], name[32];
	struct stat st;

	if (!buf)
		die("malloc");
	w.seed |= 1;
	snprintf(path, sizeof(path), "%s/%u", logs, proc);
	w.log = open(path, O_WRONLY | O_CREAT | O_APPEND, 0644);
	w.dirfd = open(dir, O_RDONLY | O_DIRECTORY);
	w.alive = alive ? open(alive, O_RDONLY) : -1;
	if (w.log < 0 || w.dirfd < 0 || (alive && w.alive < 0))
		die(path);
	w.id = seed % 1000 * 1000000; /* ids are not used again in a later round */
	for (unsigned f = 0; f < FILES; f++) {
		w.fds[f] = -1;
		name_of(name, sizeof(name), proc, f);
		snprintf(path, sizeof(path), "%s/%s", base, name);
		w.there[f] = !stat(path, &st);
		w.sizes[f] = w.there[f] ? (uint64_t)st.st_size : 0;
	}
	for (;;)
		write_step(&w, buf);
}
