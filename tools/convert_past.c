/* SPDX-License-Identifier: Apache-2.0 */
/* Reading the journal that the last run has left. */
#include <errno.h>
#include <fcntl.h>

#include "convert_job_i.h"
#include "encode.h"
#include "options.h"
#include "report.h"

#define JOURNAL_MAX ((size_t)64 << 20)

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

int journal_mac(const struct job_log *j, const char *text, size_t len, uint8_t ret[static MAC_LEN])
{
	const struct part parts[] = {{j->chain, MAC_LEN}, {text, len}};

	return hmac_sha256(j->key->b, SECRET_LEN, parts, 2, ret);
}

void past_dir_forget(struct job_log *j, const char *path)
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

struct open_dir *past_dir_find(struct job_log *j, const char *path)
{
	for (struct open_dir *d = j->dirs; d; d = d->next)
		if (strcmp(d->path, path) == 0)
			return d;
	return NULL;
}

int past_dir_remember(struct job_log *j, char *path, const struct timespec times[2])
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

void past_renames_forget(struct job_log *j)
{
	j->renames_complete = false;
	for (size_t i = 0; i < j->n_renames; i++) {
		free(j->renames[i].path);
		free(j->renames[i].to);
	}
	free(STEAL(j->renames));
	j->n_renames = 0;
}

/* The next word of a line, NUL-ended in place; NULL: there is none. */
static char *word_next(char **at)
{
	char *word = *at, *end;

	if (!word || !*word)
		return NULL;
	end = strchr(word, ' ');
	if (end)
		*end = 0;
	*at = end ? end + 1 : NULL;
	return word;
}

int job_time_take(char **at, struct timespec *ret)
{
	char *word = word_next(at), *dot = word ? strchr(word, '.') : NULL;
	bool before = word && *word == '-';
	uint64_t s, ns;

	if (!dot)
		return -EPROTO;
	*dot = 0;
	if (number_parse(word + before, &s) || number_parse(dot + 1, &ns) || s > INT64_MAX || ns > 999999999)
		return -EPROTO;
	*ret = (struct timespec){before ? -(int64_t)s : (int64_t)s, (long)ns};
	return 0;
}

static int rename_take(struct job_log *j, char *text)
{
	char *number = word_next(&text), *path = word_next(&text), *to = word_next(&text);
	uint64_t ino;

	if (!to || number_parse(number, &ino))
		return -EPROTO;
	return rename_remember(j, word_decode(path), word_decode(to), ino);
}

static int dir_take(struct job_log *j, char *text)
{
	struct timespec times[2];
	char *word, *path;

	if (job_time_take(&text, &times[0]) || job_time_take(&text, &times[1]))
		return -EPROTO;
	word = word_next(&text);
	path = word ? word_decode(word) : NULL;
	return path ? past_dir_remember(j, path, times) : -EPROTO;
}

static int line_take(struct job_log *j, char *text)
{
	CLEANUP_FREE char *path = NULL;
	char *kind = word_next(&text), *word;
	uint64_t way;

	switch (kind && !kind[1] ? *kind : 0) {
	case 'S':
		if (job_time_take(&text, &j->past.durable))
			return -EPROTO;
		word = word_next(&text);
		if (!word || number_parse(word, &way))
			return -EPROTO;
		j->way = (int)way;
		return 0;
	case 'B':
		return job_time_take(&text, &j->past.durable);
	case 'D':
		return dir_take(j, text);
	case 'E':
		word = word_next(&text);
		path = word ? word_decode(word) : NULL;
		if (path)
			past_dir_forget(j, path);
		return path ? 0 : -EPROTO;
	case 'R':
		return rename_take(j, text);
	case 'G':
		j->renames_complete = true;
		return 0;
	case 'K':
		word = word_next(&text);
		free(j->moved_from);
		j->moved_from = word ? strdup(word) : NULL;
		return word && !j->moved_from ? -ENOMEM : 0;
	case 'N':
		j->past.names_done = true;
		past_renames_forget(j);
		return 0;
	case 'F':
		j->past.clean = true;
		return 0;
	default:
		return -EPROTO;
	}
}

int past_read(struct job_log *j)
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
		if (hex_decode(line, MAC_HEX, had, sizeof(had)) ||
		    journal_mac(j, line + MAC_HEX + 1, (size_t)(end - line) - MAC_HEX - 1, mac) || !equal_ct(mac, had, sizeof(had)))
			return -EBADMSG;
		memcpy(j->chain, mac, MAC_LEN);
		err = line_take(j, line + MAC_HEX + 1);
		if (err)
			return err;
		at += (size_t)(end - line) + 1;
	}
	return 0;
}

/* What was read is not to be believed. */
void past_forget(struct job_log *j)
{
	while (j->dirs)
		past_dir_forget(j, j->dirs->path);
	past_renames_forget(j);
	free(STEAL(j->moved_from));
	j->past = (struct job_past){.any = true, .durable = {.tv_sec = 1}};
	j->renames_complete = false;
}

/* --- files without a place --- */

struct cleaning {
	int fd;
	bool rewrap, half;
	const uint64_t *inos;
	size_t n;
};

/* Has it taken over some names of a set, and not yet all? */
static bool is_half(int temp_dir, const char *name)
{
	struct stat st;

	return *name == REWRAP_SET && !strchr(name, '.') && fstatat(temp_dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_nlink > 1;
}

static int half_look(void *arg, const char *name, unsigned char d_type, ino_t ino)
{
	struct cleaning *c = arg;

	c->half |= is_half(c->fd, name);
	return 0;
}

bool job_half_sets(const struct volume *v)
{
	CLEANUP_FD int fd = openat(v->dir_fd, CONVERT_DIR "/" TEMP_DIR, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct cleaning c = {.fd = fd};
	struct io io = io_posix(v->store_fd);

	return fd >= 0 && io.list(io.ctx, fd, half_look, &c) == 0 && c.half;
}

/* What has taken over some names of a set, and stays here until it has all, is needed by the run that goes on. */
static int temp_remove(void *arg, const char *name, unsigned char d_type, ino_t ino)
{
	struct cleaning *c = arg;

	if (is_half(c->fd, name)) {
		c->half = true;
		if (c->rewrap)
			return 0;
		return fail(
		    -EBUSY,
		    "an interrupted `tdfs convert rewrap` has replaced some names of a file: run it again, or `tdfs convert recover`");
	}
	(void)unlinkat(c->fd, name, 0);
	return 0;
}

/* Files without a place that a killed run has left; nobody else uses the directory while the volume is locked. */
int past_temp_clean(struct job_log *j, bool rewrap)
{
	CLEANUP_FD int fd = openat(j->dir, TEMP_DIR, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct io io = io_posix(j->dir);
	struct cleaning c = {.fd = fd, .rewrap = rewrap};
	int err = fd < 0 ? -errno : io.list(io.ctx, fd, temp_remove, &c);

	j->half_sets = c.half;
	return err;
}

static int half_drop(void *arg, const char *name, unsigned char d_type, ino_t ino)
{
	const struct cleaning *c = arg;
	uint64_t of;

	if (*name != REWRAP_SET || number_parse(name + 1, &of))
		return 0;
	for (size_t i = 0; i < c->n; i++)
		if (c->inos[i] == of)
			return 0;
	(void)unlinkat(c->fd, name, 0);
	return 0;
}

void job_half_end(const struct job_log *j, const uint64_t *inos, size_t n)
{
	CLEANUP_FD int fd = openat(j->dir, TEMP_DIR, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct cleaning c = {.fd = fd, .inos = inos, .n = n};
	struct io io = io_posix(j->dir);

	if (fd >= 0)
		(void)!io.list(io.ctx, fd, half_drop, &c);
}
