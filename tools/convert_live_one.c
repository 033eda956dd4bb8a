/* SPDX-License-Identifier: Apache-2.0 */
/* One file of a live conversion: begin, seal into a file without a place, sync the batch, verify, ask for the swap. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "convert_live_i.h"
#include "encode.h"
#include "plain_talk.h"
#include "say.h"

#define PREFETCH 1048576 /* larger files are read ahead by the kernel as they are read */
#define BATCH_BYTES ((uint64_t)64 << 20)

static json_t *path_base64(const char *path)
{
	CLEANUP_FREE char *text = malloc(BASE64_LEN(strlen(path)) + 1);

	if (!text)
		return NULL;
	base64_encode(path, strlen(path), text);
	return json_string(text);
}

int live_ask(struct control_talk *c, const char *op, json_t *more, json_t **ret)
{
	json_t *req = more ? more : json_object();

	json_object_set_new(req, "op", json_string(op));
	return control_talk(c, req, ret);
}

int live_begin(struct control_talk *c, const char *path, uint64_t links)
{
	return live_ask(c, "begin", json_pack("{s:o, s:I}", "path", path_base64(path), "links", (json_int_t)links), NULL);
}

void names_free(char **paths, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(paths[i]);
	free(paths);
}

void live_say(const char *path, const char *what, int err)
{
	CLEANUP_FREE char *shown = path_text(path);

	report(strcmp(what, "failed") == 0 ? REPORT_ERROR : REPORT_WARN, "%s: %s: %s", shown ? shown : "?", what, cause_text(err));
}

void live_settle(struct live *w, char **paths, size_t n, int err)
{
	bool again = err == -EBUSY || err == -EEXIST; /* taken: by a file that will move itself */
	struct names *b;

	if (err == -EPIPE)
		w->board->gone = true;
	if (again && !w->board->stop && w->n_busy < LIVE_BUSY_MAX &&
	    (w->run->busy == BUSY_WAIT || (w->run->busy == BUSY_SKIP && w->round < LIVE_ROUNDS))) {
		b = malloc(sizeof(*b));
		if (b) {
			*b = (struct names){.next = w->busy, .paths = paths, .n = n};
			w->busy = b;
			w->n_busy++;
			return;
		}
	}
	for (size_t i = 0; i < n; i++) {
		if (err == -ENOENT || err == -EPIPE) /* gone, or not plain */
			break;
		if (again && w->run->busy != BUSY_FAIL) {
			w->board->busy++;
			live_say(paths[i], "busy", err);
		} else if (err == -EMLINK || err == -EPERM) {
			w->board->skipped++;
			live_say(paths[i], "skipped", err);
		} else {
			w->board->failed++;
			live_say(paths[i], "failed", err);
		}
	}
	names_free(paths, n);
}

static int verify(struct live *w, const struct live_item *it)
{
	CLEANUP_FD int fd = openat(w->run->temp_dir, it->temp, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	uint8_t hash[HASH_LEN];
	struct stat st;
	int err;

	if (!it->verify)
		return 0;
	if (fd < 0 || fstat(fd, &st))
		return fail(-errno, "verifying it: %s", strerror(errno));
	err = sealed_hash(&w->sealer, &w->io, fd, (uint64_t)st.st_size, hash);
	if (!err && memcmp(hash, it->hash, HASH_LEN))
		err = fail(-EBADMSG, "its sealed form does not decrypt to what was read");
	return err;
}

/* What is going to be reread comes from the disk, for all files at once, so that it has many requests at hand. */
static void prefetch(const struct live *w)
{
	for (size_t i = 0; i < w->n; i++) {
		const struct live_item *it = &w->batch[i];
		CLEANUP_FD int fd = it->verify ? openat(w->run->temp_dir, it->temp, O_RDONLY | O_NOFOLLOW | O_CLOEXEC) : -1;

		if (fd < 0)
			continue;
		(void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
		if (it->st.st_size <= PREFETCH)
			(void)posix_fadvise(fd, 0, 0, POSIX_FADV_WILLNEED);
	}
}

static int swap(struct live *w, const struct live_item *it)
{
	const struct stat *s = &it->st;
	json_t *list = json_array();
	json_t *req =
	    json_pack("{s:o, s:s, s:I, s:I, s:I, s:[I,I], s:[I,I]}", "paths", list, "temp", it->temp, "temp_ino", (json_int_t)it->temp_ino,
		      "ino", (json_int_t)s->st_ino, "size", (json_int_t)s->st_size, "mtime", (json_int_t)s->st_mtim.tv_sec,
		      (json_int_t)s->st_mtim.tv_nsec, "ctime", (json_int_t)s->st_ctim.tv_sec, (json_int_t)s->st_ctim.tv_nsec);

	for (size_t i = 0; req && i < it->n_paths; i++)
		json_array_append_new(list, path_base64(it->paths[i]));
	return req ? live_ask(w->talk, "swap", req, NULL) : -ENOMEM;
}

int live_commit(struct live *w)
{
	int synced = w->n && syncfs(w->root) ? -errno : 0;

	if (!synced)
		prefetch(w);
	for (size_t i = 0; i < w->n; i++) {
		struct live_item *it = &w->batch[i];
		int err = synced;

		fail_clear();
		if (!err)
			err = verify(w, it);
		if (!err)
			err = swap(w, it);
		if (err) {
			(void)unlinkat(w->run->temp_dir, it->temp, 0);
			live_settle(w, it->paths, it->n_paths, err);
		} else {
			w->board->converted += it->n_paths;
			w->board->bytes += (uint64_t)it->st.st_size;
			names_free(it->paths, it->n_paths);
		}
	}
	w->n = 0;
	w->bytes = 0;
	return synced ? fail(synced, "syncing the file system: %s; nothing that was waiting for it was removed", strerror(-synced)) : 0;
}

static bool same_stamp(const struct stat *a, const struct stat *b)
{
	struct stamp x = stamp_of(a), y = stamp_of(b);

	return stamp_same(&x, &y);
}

/* @fd, which is like it->st, into the file @temp */
static int seal(struct live *w, int fd, int temp, bool flags, struct live_item *it)
{
	const struct seal_from from = {.fd = fd, .policy = volume_policy_at(w->run->v, it->n_paths ? it->paths[0] : "")};
	const char *what = "";
	struct stat now;
	uint32_t s;
	int err = seal_fd(&w->sealer, &from, &it->st, temp, it->verify ? it->hash : NULL, &s);

	if (!err && fstat(temp, &now))
		err = -errno;
	if (err)
		return err;
	it->temp_ino = now.st_ino;
	err = meta_copy(fd, &it->st, temp, &now, true, flags, false, &what);
	if (err)
		return fail(err, "its %s cannot be kept: %s", what, strerror(-err));
	return fstat(fd, &now) ? -errno : same_stamp(&now, &it->st) ? 0 : fail(-EBUSY, "changed while it was read");
}

static int temp_make(struct live *w, struct live_item *it)
{
	int fd;

	snprintf(it->temp, sizeof(it->temp), "live.%ld.%llu", (long)getpid(), (unsigned long long)w->n_made++);
	fd = openat(w->run->temp_dir, it->temp, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600);
	return fd < 0 ? fail(-errno, "making the new file: %s", strerror(errno)) : fd;
}

static bool wants_verify(struct live *w)
{
	return w->run->verify == VERIFY_POLICY_FULL || (w->run->verify == VERIFY_POLICY_SAMPLE && w->n_made % 16 == 0);
}

/* Do all names of it fit into the request for the swap? */
static bool fits_request(const struct live_item *it)
{
	size_t len = 4096; /* all but the names */

	for (size_t i = 0; i < it->n_paths; i++)
		len += BASE64_LEN(strlen(it->paths[i])) + 3;
	return it->n_paths <= PLAIN_NAMES_MAX && len < CONTROL_TALK_MAX;
}

/* The daemon has to be told before the first look: from then on it knows whether anybody has used the file. */
static int stage(struct live *w, int dir, const char *name, struct live_item *it)
{
	CLEANUP_FD int fd = -1, temp = -1;
	const char *flag;
	bool flags;
	int err;

	if (!fits_request(it))
		return fail(-EMLINK, "has %zu names; under a mount at most %d: convert it without one", it->n_paths, PLAIN_NAMES_MAX);
	err = live_begin(w->talk, it->paths[0], it->n_paths);
	if (err)
		return err;
	fail_clear();
	fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	if (fd < 0 || fstat(fd, &it->st))
		return errno == ENOENT ? -ENOENT : fail(-errno, "opening it: %s", strerror(errno));
	if (!S_ISREG(it->st.st_mode) || it->st.st_dev != w->run->dev)
		return -ENOENT;
	flag = meta_flags(fd, &flags);
	if (flag)
		return fail(-EPERM, "is %s (chattr)", flag);
	it->verify = wants_verify(w);
	temp = temp_make(w, it);
	if (temp < 0)
		return temp;
	err = seal(w, fd, temp, flags, it);
	if (err)
		(void)unlinkat(w->run->temp_dir, it->temp, 0);
	return err == -ESTALE ? -EBUSY : err;
}

int live_one(struct live *w, int dir, const char *name, char **paths, size_t n)
{
	struct live_item *it = &w->batch[w->n];
	int err;

	fail_clear();
	*it = (struct live_item){.paths = paths, .n_paths = n};
	err = stage(w, dir, name, it);
	if (err) {
		live_settle(w, paths, n, err);
		return err == -ENOMEM ? err : 0;
	}
	w->bytes += (uint64_t)it->st.st_size;
	w->n++;
	return w->n == w->max || w->bytes >= BATCH_BYTES ? live_commit(w) : 0;
}
