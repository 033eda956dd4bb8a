/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kill-tool write DIR LOGS BASE SEED PROCESSES
 *
 * PROCESSES writers change files in DIR at random until a call fails.  Each tells LOGS/<process>, outside the mount, what it is about
 * to do and what fsync acknowledged.
 *
 * kill-tool check DIR LOGS BASE PROCESSES words|done|exact
 *
 * After the crash: every file in DIR must be in one of its states since its last acknowledgement.  Then BASE gets the files as they are
 * and the logs are emptied: the next round starts from there.
 *
 * words: the kernel splits writes and sends pages when it likes, so that each 8-byte word may be that of any state since the last
 * acknowledgement, but within one life of the content (until O_TRUNC, a replacement or an unlink).
 * done: the same, and a write or rename that returned counts as acknowledged (cache=strict, death of the daemon alone).
 * exact: whole-file states (nothing was in flight).
 *
 * ALIVE in the environment names a file on the disk below.  xfs answers fsync(2) of a directory with 0 after it has been shut down (a file's it
 * does not), so only what is told before a sync of that file counts as acknowledged.
 *
 * Each 8-byte word of a file says who wrote it: file 8 bits | operation 32 bits | place 24 bits.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define FILES 6u
#define LARGE 5u /* the one that grows beyond what stays in memory */
#define MAX_BYTES ((size_t)12 << 20)

enum kind { WRITE = 'W', CUT = 'T', OPEN_TRUNC = 'O', REPLACE = 'R', UNLINK = 'U' };

static uint64_t word(unsigned file, uint64_t id, uint64_t at)
{
	return (uint64_t)(file + 1) << 56 | id << 24 | at;
}

static void die(const char *what)
{
	perror(what);
	exit(2);
}

/* --- the writer --- */

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

static void name_of(char *buf, size_t len, unsigned proc, unsigned file)
{
	snprintf(buf, len, "p%u-%u", proc, file);
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

	if (err != ENOTCONN && err != ECONNABORTED && err != EIO && err != ENODEV && err != EROFS && err != ESHUTDOWN)
		tell(w, "E %s %d\n", call, err);
	_exit(0);
}

static void fill(uint64_t *buf, unsigned file, uint64_t id, uint64_t off, uint64_t len)
{
	for (uint64_t i = 0; i < len / 8; i++)
		buf[i] = word(file, id, off / 8 + i);
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

static void write_all(const char *dir, const char *logs, const char *base, uint64_t seed, unsigned proc)
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

/* --- the checker --- */

struct op {
	uint64_t id, off, len;
	unsigned file;
	char kind;
};

struct state { /* of one file */
	uint64_t *w;
	size_t bytes;
	bool there;
};

struct history {
	struct op *ops;
	size_t n;
	uint64_t acked[FILES], done[FILES];
	bool any_ack[FILES];
};

/* What cache=strict promises when the daemon alone dies: write(), and what changes names.  A cut may wait for the write behind it. */
static void note_done(struct history *h, uint64_t id)
{
	for (size_t i = h->n; i-- > 0 && h->ops[i].id >= id;)
		if (h->ops[i].id == id && h->ops[i].kind != CUT && h->ops[i].kind != OPEN_TRUNC)
			h->done[h->ops[i].file] = id;
}

static void read_log(const char *path, struct history *h)
{
	FILE *f = fopen(path, "r");
	char line[256], call[64];
	struct op o;
	uint64_t id;
	unsigned file;
	int err;

	memset(h, 0, sizeof(*h));
	h->ops = malloc(sizeof(*h->ops) * 4000000);
	if (!f || !h->ops)
		die(path);
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "I %" SCNu64 " %u %c %" SCNu64 " %" SCNu64, &o.id, &o.file, &o.kind, &o.off, &o.len) == 5)
			h->ops[h->n++] = o;
		else if (sscanf(line, "A %u %" SCNu64, &file, &id) == 2)
			h->acked[file] = id, h->any_ack[file] = true;
		else if (sscanf(line, "D %" SCNu64, &id) == 1)
			note_done(h, id);
		else if (sscanf(line, "E %63s %d", call, &err) == 2)
			printf("%s: %s said: %s\n", path, call, strerror(err)), exit(1);
	}
	fclose(f);
}

/** load() - a file into @s; an error other than ENOENT is kept in errno and returned */
static int load(const char *dir, const char *name, struct state *s)
{
	char path[4096];
	ssize_t n;
	int fd;

	memset(s->w, 0, MAX_BYTES * 2);
	s->bytes = 0;
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_RDONLY);
	s->there = fd >= 0;
	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	while ((n = read(fd, (char *)s->w + s->bytes, MAX_BYTES * 2 - s->bytes)) > 0)
		s->bytes += (size_t)n;
	close(fd);
	return n < 0 ? -errno : 0;
}

static void cut(struct state *s, uint64_t n)
{
	if (n < s->bytes)
		memset((char *)s->w + n, 0, s->bytes - n);
	s->bytes = n;
}

static void apply(struct state *s, const struct op *o)
{
	switch (o->kind) {
	case OPEN_TRUNC:
		cut(s, 0);
		s->there = true;
		break;
	case REPLACE:
		cut(s, 0);
		s->there = true;
		/* fallthrough */
	case WRITE:
		fill(s->w + o->off / 8, o->file, o->id, o->off, o->len);
		if (o->off + o->len > s->bytes)
			s->bytes = o->off + o->len;
		break;
	case CUT:
		cut(s, o->off);
		break;
	case UNLINK:
		cut(s, 0);
		s->there = false;
		break;
	}
}

static bool same(const struct state *a, const struct state *b)
{
	return a->there == b->there && a->bytes == b->bytes && !memcmp(a->w, b->w, a->bytes);
}

/* One life of the content: from @from (its first state in @s) to the operation before the next O_TRUNC, replacement or unlink.  Is @got
 * made of its words? */
static bool life_fits(const struct state *got, struct state *s, const struct op *ops, size_t n, const char **why)
{
	size_t words = got->bytes / 8, least = s->bytes, most = s->bytes;
	uint8_t *ok = calloc(words + 1, 1);
	bool fits = true;

	if (!ok)
		die("calloc");
	for (size_t i = 0; i <= n; i++) {
		if (i) {
			const struct op *o = &ops[i - 1];

			apply(s, o);
			for (uint64_t k = 0; o->kind != CUT && k < o->len / 8 && o->off / 8 + k < words; k++)
				ok[o->off / 8 + k] |= got->w[o->off / 8 + k] == word(o->file, o->id, o->off / 8 + k);
		} else {
			for (size_t k = 0; k < words && k < s->bytes / 8; k++)
				ok[k] = got->w[k] == s->w[k];
		}
		least = s->bytes < least ? s->bytes : least;
		most = s->bytes > most ? s->bytes : most;
	}
	for (size_t k = 0; fits && k < words; k++)
		if (!ok[k] && !(got->w[k] == 0 && k * 8 >= least))
			fits = false, *why = "a word that is none of its states";
	if (got->bytes < least || got->bytes > most || got->bytes % 8)
		fits = false, *why = "a size that it never had";
	free(ok);
	return fits && got->there;
}

static bool new_life(const struct op *o)
{
	return o->kind == OPEN_TRUNC || o->kind == REPLACE || o->kind == UNLINK;
}

static bool fits(const struct state *got, struct state *s, const struct op *ops, size_t n, bool words, const char **why)
{
	*why = "no state since the last acknowledgement";
	if (!words) {
		for (size_t i = 0;; i++) {
			if (same(got, s))
				return true;
			if (i == n)
				return false;
			apply(s, &ops[i]);
		}
	}
	for (size_t i = 0;;) {
		size_t end = i;

		while (end < n && !new_life(&ops[end]))
			end++;
		if (!s->there ? !got->there : life_fits(got, s, ops + i, end - i, why))
			return true;
		if (end == n)
			return false;
		apply(s, &ops[end]);
		i = end + 1;
	}
}

static void keep(const char *base, const char *name, const struct state *s)
{
	char path[4096];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", base, name);
	unlink(path);
	if (!s->there)
		return;
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	if (fd < 0 || write(fd, s->w, s->bytes) != (ssize_t)s->bytes || close(fd))
		die(path);
}

static void explain(const char *name, const struct state *got, const struct state *acked, const struct history *h, unsigned f, uint64_t ack,
		    const char *why)
{
	printf("LOST: %s: %s; it is %s, %zu bytes; acknowledged: %s, %zu bytes at operation %" PRIu64 "; since then:", name, why,
	       got->there ? "there" : "absent", got->bytes, acked->there ? "there" : "absent", acked->bytes, ack);
	for (size_t i = 0; i < h->n; i++)
		if (h->ops[i].file == f && h->ops[i].id > ack)
			printf(" %" PRIu64 ":%c%" PRIu64 "+%" PRIu64, h->ops[i].id, h->ops[i].kind, h->ops[i].off, h->ops[i].len);
	for (size_t k = 0; k < got->bytes / 8; k++)
		if (k >= acked->bytes / 8 || got->w[k] != acked->w[k]) {
			printf("; first other word at byte %zu: file %u operation %u place %u", k * 8, (unsigned)(got->w[k] >> 56),
			       (unsigned)(got->w[k] >> 24 & 0xFFFFFFFF), (unsigned)(got->w[k] & 0xFFFFFF));
			break;
		}
	printf("\n");
}

static unsigned check_file(const char *dir, const char *base, const struct history *h, unsigned proc, unsigned f, const char *mode,
			   struct state *got, struct state *s)
{
	struct op *mine = malloc(sizeof(*mine) * (h->n + 1));
	uint64_t ack = h->any_ack[f] ? h->acked[f] : 0;
	const char *why = "";
	size_t n = 0;
	char name[32];
	int err;

	if (!mine)
		die("malloc");
	if (!strcmp(mode, "done") && h->done[f] > ack)
		ack = h->done[f];
	name_of(name, sizeof(name), proc, f);
	load(base, name, s);
	for (size_t i = 0; i < h->n; i++) {
		if (h->ops[i].file != f)
			continue;
		if (h->ops[i].id <= ack)
			apply(s, &h->ops[i]);
		else
			mine[n++] = h->ops[i];
	}
	err = load(dir, name, got);
	if (err) {
		/* created and never committed: may be unreadable if nothing at all was acknowledged; the same for a large one that was cut
		 * to nothing and is being written anew */
		bool never = (err == -EIO || err == -EBADMSG) && n && !s->there;

		for (size_t i = 0; f == LARGE && err == -EIO && i < n; i++)
			never |= mine[i].kind == OPEN_TRUNC;

		never |= err == -EIO && !n && !s->there; /* it was that already */
		if (!never)
			printf("LOST: %s cannot be read: %s (%s, %zu operations since the last acknowledgement)\n", name, strerror(-err),
			       s->there ? "acknowledged" : "never acknowledged", n);
		s->there = false;
		s->bytes = 0;
		if (never) /* from here on it holds nothing */
			keep(base, name, s);
		free(mine);
		return never ? 0 : 1;
	}
	if (!fits(got, s, mine, n, strcmp(mode, "exact"), &why)) {
		load(base, name, s);
		for (size_t i = 0; i < h->n; i++)
			if (h->ops[i].file == f && h->ops[i].id <= ack)
				apply(s, &h->ops[i]);
		explain(name, got, s, h, f, ack, why);
		free(mine);
		return 1;
	}
	keep(base, name, got);
	free(mine);
	return 0;
}

static int check_all(const char *dir, const char *logs, const char *base, unsigned procs, const char *mode)
{
	struct state got = {.w = malloc(MAX_BYTES * 2)}, s = {.w = malloc(MAX_BYTES * 2)};
	size_t ops = 0, lost = 0, acks = 0;

	if (!got.w || !s.w)
		die("malloc");
	for (unsigned p = 0; p < procs; p++) {
		struct history h;
		char path[4096];

		snprintf(path, sizeof(path), "%s/%u", logs, p);
		read_log(path, &h);
		ops += h.n;
		for (unsigned f = 0; f < FILES; f++) {
			acks += h.any_ack[f];
			lost += check_file(dir, base, &h, p, f, mode, &got, &s);
		}
		free(h.ops);
		if (!lost && truncate(path, 0))
			die(path);
	}
	printf("%zu operations, %zu files with an acknowledgement, %zu lost\n", ops, acks, lost);
	free(got.w);
	free(s.w);
	return lost ? 1 : 0;
}

int main(int argc, char **argv)
{
	if (argc == 7 && !strcmp(argv[1], "write")) {
		unsigned procs = (unsigned)atoi(argv[6]);

		for (unsigned p = 0; p < procs; p++) {
			pid_t pid = fork();

			if (pid < 0)
				die("fork");
			if (!pid)
				write_all(argv[2], argv[3], argv[4], strtoull(argv[5], NULL, 10), p);
		}
		while (wait(NULL) > 0)
			;
		return 0;
	}
	if (argc == 7 && !strcmp(argv[1], "check"))
		return check_all(argv[2], argv[3], argv[4], (unsigned)atoi(argv[5]), argv[6]);
	fprintf(stderr, "usage: kill-tool write DIR LOGS BASE SEED PROCESSES | check DIR LOGS BASE PROCESSES words|exact|done\n");
	return 2;
}
