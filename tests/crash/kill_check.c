/* SPDX-License-Identifier: Apache-2.0 */
/* kill-tool check: is every file in a state that it had since its last acknowledgement? */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kill_tool.h"

struct op {
	uint64_t id, off, len;
	unsigned file;
	char kind;
};

struct state { /* of one file */
	uint64_t *w;
	size_t bytes, top; /* behind top there are only zeros */
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

	memset(s->w, 0, s->top);
	s->bytes = s->top = 0;
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_RDONLY);
	s->there = fd >= 0;
	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	while ((n = read(fd, (char *)s->w + s->bytes, MAX_BYTES * 2 - s->bytes)) > 0)
		s->bytes += (size_t)n;
	s->top = s->bytes;
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
		if (s->bytes > s->top)
			s->top = s->bytes;
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

		for (size_t i = 0; err == -EIO && i + 1 < n; i++) /* a new file by this name, of which nothing was acknowledged */
			never |= mine[i].kind == UNLINK;
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

int check_all(const char *dir, const char *logs, const char *base, unsigned procs, const char *mode)
{
	struct state got = {.w = calloc(2, MAX_BYTES)}, s = {.w = calloc(2, MAX_BYTES)};
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
