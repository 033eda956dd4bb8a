/* SPDX-License-Identifier: Apache-2.0 */
#include "convert_job_i.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "encode.h"
#include "report.h"

#define JOURNAL_LONG ((uint64_t)8 << 20) /* then it is begun anew */

/* --- lines --- */

/* Paths with everything that would end a word as %XX. */
static char *word_of(const char *path)
{
	static const char digits[] = "0123456789abcdef";
	char *out = malloc(3 * strlen(path) + 2), *p = out;

	if (!out)
		return NULL;
	*p++ = '/'; /* so that the root is a word too */
	for (; *path; path++) {
		unsigned char c = (unsigned char)*path;

		if (c > ' ' && c != '%' && c != 0x7f) {
			*p++ = (char)c;
			continue;
		}
		*p++ = '%';
		*p++ = digits[c >> 4];
		*p++ = digits[c & 15];
	}
	*p = 0;
	return out;
}

static int PRINTF_LIKE(2, 3) line_add(struct job_log *j, const char *fmt, ...)
{
	CLEANUP_FREE char *text = NULL;
	CLEANUP_FREE char *line = NULL;
	uint8_t mac[MAC_LEN];
	char hex[MAC_HEX + 1];
	va_list ap;
	int len, err;

	if (j->fd < 0) /* of a plan's run: the plan is the journal */
		return 0;
	if (j->failed)
		return -EIO;
	va_start(ap, fmt);
	len = vasprintf(&text, fmt, ap);
	va_end(ap);
	if (len < 0)
		return -ENOMEM;
	err = journal_mac(j, text, (size_t)len, mac);
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

static void log_free(struct job_log *j)
{
	if (!j)
		return;
	while (j->dirs)
		past_dir_forget(j, j->dirs->path);
	past_renames_forget(j);
	free(j->moved_from);
	secret_free(j->key);
	close_fd(&j->fd);
	close_fd(&j->dir);
	free(j);
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

static int dir_line(struct job_log *j, const char *path, const struct timespec times[2])
{
	CLEANUP_FREE char *word = word_of(path);

	return word ? line_add(j, "D %" PRId64 ".%09ld %" PRId64 ".%09ld %s", (int64_t)times[0].tv_sec, times[0].tv_nsec,
			       (int64_t)times[1].tv_sec, times[1].tv_nsec, word)
		    : -ENOMEM;
}

enum { WAY_OUT = 1, WAY_IN_PLACE = 2, WAY_REWRAP = 4 };

/* Runs of one way carry on each other's names. */
static int way_of(const struct convert_run *run)
{
	return (run->verb == CONVERT_OUT ? WAY_OUT : 0) | (run->verb == CONVERT_REWRAP ? WAY_REWRAP : 0) |
	       (run->in_place ? WAY_IN_PLACE : 0);
}

/* A journal of what is unfinished, in place of the one there is. */
static int new_journal(struct job_log *j)
{
	int err = 0;

	memset(j->chain, 0, MAC_LEN);
	close_fd(&j->fd);
	j->off = 0;
	j->fd = openat(j->dir, JOURNAL ".new", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (j->fd < 0)
		return fail(-errno, "the converter's journal: %s", strerror(errno));
	/* until the first barrier what the last run left in doubt stays in doubt */
	err = line_add(j, "S %" PRId64 ".%09ld %d", (int64_t)j->durable.tv_sec, j->durable.tv_nsec, j->way);
	for (struct open_dir *d = j->dirs; d && !err; d = d->next)
		err = dir_line(j, d->path, d->times);
	if (!err && j->moved_from)
		err = line_add(j, "K %s", j->moved_from);
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

/* The mark says how names are spelled now, for every later run of whatever sort. */
static int mark_set(const struct job_log *j)
{
	int fd;

	if (j->way == WAY_IN_PLACE) {
		if (unlinkat(j->tdfs_dir, VOLUME_NAMES_MARK, 0) && errno != ENOENT)
			return -errno;
	} else if (j->way == (WAY_IN_PLACE | WAY_OUT)) {
		fd = openat(j->tdfs_dir, VOLUME_NAMES_MARK, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
		if (fd < 0)
			return -errno;
		close(fd);
	}
	return fsync(j->dir) ? -errno : 0;
}

/*
 * A fresh data key for every file means a fresh KAS key first: then each file tells by itself whether it was done.  The journal only
 * remembers whether that key is still to be made.
 */
static int moved_from_take(struct job_log *j, const struct volume *v, const struct convert_run *run)
{
	if (run->new_dek && !j->moved_from) {
		j->moved_from = strdup(v->kas_kid);
		if (!j->moved_from)
			return -ENOMEM;
	}
	j->past.moved_from = j->moved_from;
	return 0;
}

int job_begin(const struct volume *v, const struct convert_run *run, struct job_past *ret_past, struct job_log **ret)
{
	struct job_log *j = calloc(1, sizeof(*j));
	int err;

	if (!j)
		return -ENOMEM;
	j->dir = j->fd = -1;
	j->tdfs_dir = v->dir_fd;
	j->key = derive(v->vk, "convert");
	err = j->key ? dirs_make(v, j) : -ENOMEM;
	if (!err)
		err = past_temp_clean(j, run->verb == CONVERT_REWRAP);
	if (!err) {
		err = past_read(j);
		if (err == -EBADMSG || err == -EPROTO || err == -EFBIG) { /* edited: everything is looked at anew */
			past_forget(j);
			err = 0;
		}
	}
	if (!err && j->past.names_done) /* the mark may not have been set any more */
		err = mark_set(j);
	j->past.names_done = (faccessat(j->tdfs_dir, VOLUME_NAMES_MARK, F_OK, AT_SYMLINK_NOFOLLOW) == 0) == (run->verb == CONVERT_OUT);
	j->durable = j->past.any && !j->past.clean ? j->past.durable : run->started;
	if (!err && j->n_renames && j->renames_complete && j->way != way_of(run))
		err = fail(
		    -EBUSY,
		    "an interrupted conversion has renamed a part of the folders: run the same `tdfs convert %s --in-place` again first",
		    j->way & WAY_OUT ? "out" : "in");
	if (!err)
		err = moved_from_take(j, v, run);
	j->way = way_of(run);
	if (!err)
		err = new_journal(j);
	if (err) {
		log_free(j);
		return err;
	}
	j->past.half_sets = j->half_sets;
	*ret_past = j->past;
	*ret = j;
	return 0;
}

/* .tdfs/convert and nothing in it but a place to work */
static int begin_bare(const struct volume *v, bool clean, int *ret_temp_dir, struct job_log **ret)
{
	struct job_log *j = calloc(1, sizeof(*j));
	int err;

	if (!j)
		return -ENOMEM;
	j->dir = j->fd = -1;
	err = dirs_make(v, j);
	if (!err && clean)
		err = past_temp_clean(j, false);
	if (!err) {
		*ret_temp_dir = openat(j->dir, TEMP_DIR, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		err = *ret_temp_dir < 0 ? -errno : 0;
	}
	if (err)
		log_free(j);
	else
		*ret = j;
	return err;
}

int job_begin_plan(const struct volume *v, int dir, int *ret_temp_dir, struct job_log **ret)
{
	struct job_log *j;
	int err = begin_bare(v, false, ret_temp_dir, &j);

	if (err)
		return err;
	close_fd(&j->dir);
	j->dir = fcntl(dir, F_DUPFD_CLOEXEC, 0);
	if (j->dir < 0) {
		err = -errno;
		log_free(j);
		return err;
	}
	*ret = j;
	return 0;
}

int job_begin_live(const struct volume *v, int *ret_temp_dir, struct job_log **ret)
{
	return begin_bare(v, true, ret_temp_dir, ret);
}

int job_dir(const struct job_log *j)
{
	return j->dir;
}

int job_barrier(struct job_log *j, const struct timespec *when)
{
	if (time_before(&j->durable, when))
		j->durable = *when;
	if (j->off > JOURNAL_LONG)
		return new_journal(j);
	return line_add(j, "B %" PRId64 ".%09ld", (int64_t)j->durable.tv_sec, j->durable.tv_nsec);
}

int job_dir_open(struct job_log *j, struct cdir *d)
{
	struct open_dir *old = past_dir_find(j, d->path);
	struct timespec times[2] = {d->st.st_atim, d->st.st_mtim};
	char *path;
	int err;

	d->touched = true;
	if (old) { /* an interrupted run has changed it already */
		d->st.st_atim = old->times[0];
		d->st.st_mtim = old->times[1];
		return 0;
	}
	path = strdup(d->path);
	err = path ? past_dir_remember(j, path, times) : -ENOMEM;
	return err ? err : dir_line(j, d->path, times);
}

int job_dir_done(struct job_log *j, const struct cdir *d)
{
	CLEANUP_FREE char *word = word_of(d->path);

	past_dir_forget(j, d->path);
	return word ? line_add(j, "E %s", word) : -ENOMEM;
}

void job_dirs_left(struct job_log *j, void (*each)(void *arg, const char *path, const struct timespec times[2]), void *arg)
{
	while (j->dirs) {
		each(arg, j->dirs->path, j->dirs->times);
		past_dir_forget(j, j->dirs->path);
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

	past_renames_forget(j);
	if (!err && fdatasync(j->fd))
		err = -errno;
	return err ? err : mark_set(j);
}

void job_renames(struct job_log *j, struct job_rename **ret, size_t *ret_n, bool *ret_complete)
{
	*ret = j->renames;
	*ret_n = j->n_renames;
	*ret_complete = j->renames_complete;
}

int job_moved_done(struct job_log *j)
{
	if (!j->moved_from)
		return 0;
	free(STEAL(j->moved_from));
	return line_add(j, "K");
}

void job_end(struct job_log *j, bool clean)
{
	if (!j)
		return;
	if (clean)
		(void)line_add(j, "F");
	if (j->fd >= 0)
		(void)fdatasync(j->fd);
	log_free(j);
}
