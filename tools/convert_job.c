/* SPDX-License-Identifier: Apache-2.0 */
#include "convert_job.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "encode.h"
#include "report.h"

#define JOURNAL "journal"
#define STATUS "status"
#define REQUEST "request"
#define TEMP_DIR "tmp"
#define MAC_HEX 32 /* 16 bytes of it */
#define JOURNAL_MAX ((size_t)256 << 20)
#define STATUS_MAX ((size_t)64 << 10)

struct open_dir {
	struct open_dir *next;
	char *path;
	struct timespec times[2];
};

struct job_log {
	int dir, fd;
	struct secret *key;
	uint8_t chain[MAC_LEN]; /* each line's MAC covers the one before */
	uint64_t off;
	bool failed;
	int way;
	/* from the past */
	struct job_past past;
	struct open_dir *dirs;
	struct job_rename *renames;
	size_t n_renames;
	bool renames_complete;
};

/* --- lines --- */

/* Paths with everything that would end a word as %XX. */
static char *word_of(const char *path)
{
	char *out = malloc(3 * strlen(path) + 2), *p = out;

	if (!out)
		return NULL;
	*p++ = '/'; /* so that the root is a word too */
	for (; *path; path++) {
		unsigned char c = (unsigned char)*path;

		if (c <= ' ' || c == '%' || c == 0x7f)
			p += sprintf(p, "%%%02x", c);
		else
			*p++ = (char)c;
	}
	*p = 0;
	return out;
}

static char *word_decode(const char *word)
{
	char *out = malloc(strlen(word) + 1), *p = out;

	if (!out || *word != '/') {
		free(out);
		return NULL;
	}
	for (word++; *word; word++) {
		if (*word == '%' && hex_decode(word + 1, strnlen(word + 1, 2), p, 1) == 0) {
			p++;
			word += 2;
		} else {
			*p++ = *word;
		}
	}
	*p = 0;
	return out;
}

static int line_mac(const struct job_log *j, const char *text, size_t len, uint8_t ret[static MAC_LEN])
{
	const struct part parts[] = {{j->chain, MAC_LEN}, {text, len}};

	return hmac_sha256(j->key->b, SECRET_LEN, parts, 2, ret);
}

static int PRINTF_LIKE(2, 3) line_add(struct job_log *j, const char *fmt, ...)
{
	CLEANUP_FREE char *text = NULL;
	CLEANUP_FREE char *line = NULL;
	uint8_t mac[MAC_LEN];
	char hex[MAC_HEX + 1];
	va_list ap;
	int len, err;

	if (j->failed)
		return -EIO;
	va_start(ap, fmt);
	len = vasprintf(&text, fmt, ap);
	va_end(ap);
	if (len < 0)
		return -ENOMEM;
	err = line_mac(j, text, (size_t)len, mac);
	if (err)
		return err;
	hex_encode(mac, MAC_HEX / 2, hex);
	len = asprintf(&line, "%s %s\n", hex, text);
	if (len < 0)
		return -ENOMEM;
	if (pwrite(j->fd, line, (size_t)len, (off_t)j->off) != len) {
		err = errno ? -errno : -ENOSPC;
		j->failed = true;
		return fail(err, "the converter's journal: %s", strerror(-err));
	}
	j->off += (uint64_t)len;
	memcpy(j->chain, mac, MAC_LEN);
	return 0;
}

/* --- the past --- */

static void dir_forget(struct job_log *j, const char *path)
{
	for (struct open_dir **p = &j->dirs; *p; p = &(*p)->next)
		if (strcmp((*p)->path, path) == 0) {
			struct open_dir *gone = *p;

			*p = gone->next;
			free(gone->path);
			free(gone);
			return;
		}
}

static struct open_dir *dir_find(struct job_log *j, const char *path)
{
	for (struct open_dir *d = j->dirs; d; d = d->next)
		if (strcmp(d->path, path) == 0)
			return d;
	return NULL;
}

static int dir_remember(struct job_log *j, char *path, const struct timespec times[2])
{
	struct open_dir *d = calloc(1, sizeof(*d));

	if (!d) {
		free(path);
		return -ENOMEM;
	}
	d->path = path;
	memcpy(d->times, times, sizeof(d->times));
	d->next = j->dirs;
	j->dirs = d;
	return 0;
}

static int rename_remember(struct job_log *j, char *path, char *to, uint64_t ino)
{
	struct job_rename *more = realloc(j->renames, (j->n_renames + 1) * sizeof(*more));

	if (!more || !path || !to) {
		free(path);
		free(to);
		return -ENOMEM;
	}
	j->renames = more;
	j->renames[j->n_renames++] = (struct job_rename){path, to, ino};
	return 0;
}

static void renames_forget(struct job_log *j)
{
	for (size_t i = 0; i < j->n_renames; i++) {
		free(j->renames[i].path);
		free(j->renames[i].to);
	}
	free(STEAL(j->renames));
	j->n_renames = 0;
}

static int line_take(struct job_log *j, char *text)
{
	char kind = 0, word[3] = "";
	int at = 0;
	int64_t s, s2;
	uint32_t ns, ns2;
	uint64_t ino;

	if (sscanf(text, "%c%2[ ]%n", &kind, word, &at) < 1)
		return -EPROTO;
	text += at ? at : 1;
	switch (kind) {
	case 'S':
		if (sscanf(text, "%" SCNd64 ".%" SCNu32 " %d", &s, &ns, &j->way) != 3)
			return -EPROTO;
		j->past.durable = (struct timespec){s, (long)ns};
		return 0;
	case 'B':
		if (sscanf(text, "%" SCNd64 ".%" SCNu32, &s, &ns) != 2)
			return -EPROTO;
		j->past.durable = (struct timespec){s, (long)ns};
		return 0;
	case 'D':
		if (sscanf(text, "%" SCNd64 ".%" SCNu32 " %" SCNd64 ".%" SCNu32 " %n", &s, &ns, &s2, &ns2, &at) != 4)
			return -EPROTO;
		return dir_remember(j, word_decode(text + at), (struct timespec[2]){{s, (long)ns}, {s2, (long)ns2}});
	case 'E': {
		CLEANUP_FREE char *path = word_decode(text);

		if (path)
			dir_forget(j, path);
		return path ? 0 : -ENOMEM;
	}
	case 'R': {
		char *space = strchr(text, ' '), *second = space ? strchr(space + 1, ' ') : NULL;

		if (!second || sscanf(text, "%" SCNu64, &ino) != 1)
			return -EPROTO;
		*second = 0;
		return rename_remember(j, word_decode(space + 1), word_decode(second + 1), ino);
	}
	case 'G':
		j->renames_complete = true;
		return 0;
	case 'N':
		j->past.names_done = true;
		renames_forget(j);
		return 0;
	case 'F':
		j->past.clean = true;
		return 0;
	default:
		return -EPROTO;
	}
}

/* Read the journal up to its end, or to a line that a crash has cut.  -EBADMSG: it was edited. */
static int past_read(struct job_log *j)
{
	struct io io = io_posix(j->dir);
	CLEANUP_FREE char *text = NULL;
	size_t len, at = 0;
	int err = io_read_file(&io, j->dir, JOURNAL, JOURNAL_MAX, &text, &len);

	if (err)
		return err == -ENOENT ? 0 : err;
	j->past.any = true;
	while (at < len) {
		char *line = text + at, *end = memchr(line, '\n', len - at);
		uint8_t mac[MAC_LEN], had[MAC_HEX / 2];

		if (!end || end - line < MAC_HEX + 2)
			return end ? -EBADMSG : 0;
		*end = 0;
		if (hex_decode(line, MAC_HEX, had, sizeof(had)) || line_mac(j, line + MAC_HEX + 1, (size_t)(end - line) - MAC_HEX - 1, mac) ||
		    !equal_ct(mac, had, sizeof(had)))
			return -EBADMSG;
		memcpy(j->chain, mac, MAC_LEN);
		err = line_take(j, line + MAC_HEX + 1);
		if (err)
			return err;
		at += (size_t)(end - line) + 1;
	}
	return 0;
}

static void log_free(struct job_log *j)
{
	if (!j)
		return;
	while (j->dirs)
		dir_forget(j, j->dirs->path);
	renames_forget(j);
	secret_free(j->key);
	close_fd(&j->fd);
	close_fd(&j->dir);
	free(j);
}

/* What was read is not to be believed. */
static void past_forget(struct job_log *j)
{
	while (j->dirs)
		dir_forget(j, j->dirs->path);
	renames_forget(j);
	j->past = (struct job_past){.any = true, .durable = {.tv_sec = 1}};
	j->renames_complete = false;
}

static int dirs_make(const struct volume *v, struct job_log *j)
{
	if (mkdirat(v->dir_fd, CONVERT_DIR, 0700) && errno != EEXIST)
		return fail(-errno, "%s/%s/%s: %s", v->path, TDFS_DIR, CONVERT_DIR, strerror(errno));
	j->dir = openat(v->dir_fd, CONVERT_DIR, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (j->dir < 0 || (mkdirat(j->dir, TEMP_DIR, 0700) && errno != EEXIST))
		return fail(-errno, "%s/%s/%s: %s", v->path, TDFS_DIR, CONVERT_DIR, strerror(errno));
	return 0;
}

static int temp_remove(void *arg, const char *name, unsigned char d_type, ino_t ino)
{
	(void)unlinkat(*(const int *)arg, name, 0);
	return 0;
}

/* Files without a place that a killed run has left; nobody else uses the directory while the volume is locked. */
static void temp_clean(const struct job_log *j)
{
	CLEANUP_FD int fd = openat(j->dir, TEMP_DIR, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct io io = io_posix(j->dir);

	if (fd >= 0)
		(void)io.list(io.ctx, fd, temp_remove, &fd);
}

/* Runs of one way carry on each other's names. */
static int way_of(const struct convert_run *run)
{
	return (run->verb == CONVERT_OUT) + 2 * run->in_place;
}

static int new_journal(struct job_log *j, const struct convert_run *run)
{
	struct timespec from = j->past.any && !j->past.clean ? j->past.durable : run->started;
	int err;

	memset(j->chain, 0, MAC_LEN);
	j->fd = openat(j->dir, JOURNAL ".new", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (j->fd < 0)
		return fail(-errno, "the converter's journal: %s", strerror(errno));
	/* until the first barrier what the last run left in doubt stays in doubt */
	err = line_add(j, "S %" PRId64 ".%09ld %d", (int64_t)from.tv_sec, from.tv_nsec, way_of(run));
	if (!err && j->past.names_done)
		err = line_add(j, "N");
	for (struct open_dir *d = j->dirs; d && !err; d = d->next) {
		CLEANUP_FREE char *word = word_of(d->path);

		err = word ? line_add(j, "D %" PRId64 ".%09ld %" PRId64 ".%09ld %s", (int64_t)d->times[0].tv_sec, d->times[0].tv_nsec, (int64_t)d->times[1].tv_sec,
				      d->times[1].tv_nsec, word)
			   : -ENOMEM;
	}
	for (size_t i = 0; i < j->n_renames && !err; i++)
		err = job_rename(j, j->renames[i].path, j->renames[i].to, j->renames[i].ino);
	if (!err && j->renames_complete && j->n_renames)
		err = line_add(j, "G");
	if (!err && fdatasync(j->fd))
		err = -errno;
	if (!err && renameat(j->dir, JOURNAL ".new", j->dir, JOURNAL))
		err = -errno;
	return err;
}

int job_begin(const struct volume *v, const struct convert_run *run, struct job_past *ret_past, struct job_log **ret)
{
	struct job_log *j = calloc(1, sizeof(*j));
	int err;

	if (!j)
		return -ENOMEM;
	j->dir = j->fd = -1;
	j->key = derive(v->vk, "convert");
	err = j->key ? dirs_make(v, j) : -ENOMEM;
	if (!err) {
		temp_clean(j);
		err = past_read(j);
		if (err == -EBADMSG || err == -EPROTO) { /* edited: everything is looked at anew */
			past_forget(j);
			err = 0;
		}
	}
	if (!err && j->past.any && j->way != way_of(run)) {
		if (j->n_renames && j->renames_complete)
			err = fail(-EBUSY, "an interrupted conversion has renamed a part of the folders: run the same `tdfs convert %s --in-place` again first", j->way & 1 ? "out" : "in");
		renames_forget(j);
		j->past.names_done = false;
	}
	if (!err)
		err = new_journal(j, run);
	if (err) {
		log_free(j);
		return err;
	}
	*ret_past = j->past;
	*ret = j;
	return 0;
}

int job_dir(const struct job_log *j)
{
	return j->dir;
}

int job_barrier(struct job_log *j, const struct timespec *when)
{
	return line_add(j, "B %" PRId64 ".%09ld", (int64_t)when->tv_sec, when->tv_nsec);
}

int job_dir_open(struct job_log *j, struct cdir *d)
{
	CLEANUP_FREE char *word = NULL;
	struct open_dir *old = dir_find(j, d->path);
	struct timespec times[2] = {d->st.st_atim, d->st.st_mtim};

	d->touched = true;
	if (old) {
		d->st.st_atim = old->times[0];
		d->st.st_mtim = old->times[1];
		return 0;
	}
	word = word_of(d->path);
	return word ? line_add(j, "D %" PRId64 ".%09ld %" PRId64 ".%09ld %s", (int64_t)times[0].tv_sec, times[0].tv_nsec, (int64_t)times[1].tv_sec, times[1].tv_nsec, word) : -ENOMEM;
}

int job_dir_done(struct job_log *j, const struct cdir *d)
{
	CLEANUP_FREE char *word = word_of(d->path);

	dir_forget(j, d->path);
	return word ? line_add(j, "E %s", word) : -ENOMEM;
}

void job_dirs_left(struct job_log *j, void (*each)(void *arg, const char *path, const struct timespec times[2]), void *arg)
{
	while (j->dirs) {
		each(arg, j->dirs->path, j->dirs->times);
		dir_forget(j, j->dirs->path);
	}
}

int job_rename(struct job_log *j, const char *path, const char *to, uint64_t ino)
{
	CLEANUP_FREE char *a = word_of(path);
	CLEANUP_FREE char *b = word_of(to);

	return a && b ? line_add(j, "R %" PRIu64 " %s %s", ino, a, b) : -ENOMEM;
}

/* The plan is durable before the first name changes: only then can a later run tell what was changed already. */
int job_names_planned(struct job_log *j)
{
	int err = line_add(j, "G");

	return err ? err : fdatasync(j->fd) ? -errno : 0;
}

int job_names_done(struct job_log *j)
{
	int err = line_add(j, "N");

	return err ? err : fdatasync(j->fd) ? -errno : 0;
}

void job_renames(struct job_log *j, struct job_rename **ret, size_t *ret_n, bool *ret_complete)
{
	*ret = j->renames;
	*ret_n = j->n_renames;
	*ret_complete = j->renames_complete;
}

void job_end(struct job_log *j, bool clean)
{
	if (!j)
		return;
	if (clean)
		(void)line_add(j, "F");
	(void)fdatasync(j->fd);
	log_free(j);
}

/* --- for other processes --- */

void status_write(int job_dir, const json_t *j)
{
	CLEANUP_FREE char *text = json_dumps(j, JSON_COMPACT);
	CLEANUP_FD int fd = openat(job_dir, STATUS ".new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);

	/* nothing depends on it: a status that could not be written is an old one */
	if (text && fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text))
		(void)renameat(job_dir, STATUS ".new", job_dir, STATUS);
}

json_t *status_read(int job_dir)
{
	struct io io = io_posix(job_dir);
	CLEANUP_FREE char *text = NULL;
	size_t len;

	return io_read_file(&io, job_dir, STATUS, STATUS_MAX, &text, &len) ? NULL : json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
}

enum job_request request_read(int job_dir)
{
	char text[8] = "";
	CLEANUP_FD int fd = openat(job_dir, REQUEST, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

	if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0)
		return REQUEST_NONE;
	return strncmp(text, "pause", 5) == 0 ? REQUEST_PAUSE : strncmp(text, "cancel", 6) == 0 ? REQUEST_CANCEL : REQUEST_NONE;
}

int request_write(int job_dir, enum job_request r)
{
	const char *text = r == REQUEST_PAUSE ? "pause\n" : "cancel\n";
	struct io io = io_posix(job_dir);

	if (r == REQUEST_NONE)
		return unlinkat(job_dir, REQUEST, 0) && errno != ENOENT ? -errno : 0;
	return io_replace(&io, job_dir, REQUEST, text, strlen(text), 0600);
}
