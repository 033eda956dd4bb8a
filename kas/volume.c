/* SPDX-License-Identifier: Apache-2.0 */
#include "volume.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/file.h>
#include <time.h>

#include "encode.h"
#include "report.h"
#include "volume_file.h"
#include "volume_remote.h"

struct volume *volume_new(void)
{
	struct volume *v = calloc(1, sizeof(*v));

	if (v)
		v->store_fd = v->dir_fd = v->lock_fd = -1;
	return v;
}

void volume_free(struct volume *v)
{
	if (!v)
		return;
	kas_free(v->kas);
	volume_remote_uses_free(v->remote_uses);
	volume_remotes_free(v->remotes, v->n_remotes);
	volume_plans_free(v->plans, v->n_plans);
	secret_free(v->vk);
	secret_free(v->k_seal);
	secret_free(v->k_hint);
	secret_free(v->k_rec);
	secret_free(v->k_conf);
	secret_free(v->k_log);
	secret_free(v->k_kas);
	close_fd(&v->lock_fd);
	close_fd(&v->dir_fd);
	close_fd(&v->store_fd);
	free(v->path);
	free(v->policy);
	volume_policies_free(v->policies, v->n_policies);
	free(v->kas_kid);
	for (size_t i = 0; i < v->n_kas_old; i++)
		free(v->kas_old[i]);
	free(v->kas_old);
	free(v->kas_url);
	free(v->names);
	slots_free(v->slots, v->n_slots);
	free(v);
}

int volume_keys(struct volume *v)
{
	v->k_seal = derive(v->vk, "seal");
	v->k_hint = derive(v->vk, "hint");
	v->k_rec = derive(v->vk, "rec");
	v->k_conf = derive(v->vk, "conf");
	v->k_log = derive(v->vk, "log");
	v->k_kas = derive(v->vk, "kas");
	return v->k_seal && v->k_hint && v->k_rec && v->k_conf && v->k_log && v->k_kas ? 0 : -ENOMEM;
}

/* The key itself: what it opens proves that it is the right one. */
static int take_key(const struct credential *c, struct secret **ret)
{
	struct secret *vk = c->len == SECRET_LEN ? secret_new() : NULL;

	if (!vk)
		return c->len == SECRET_LEN ? -ENOMEM : fail(-EKEYREJECTED, "a volume key has %d bytes", SECRET_LEN);
	memcpy(vk->b, c->bytes, SECRET_LEN);
	*ret = vk;
	return 0;
}

int volume_unlock(struct volume *v, const struct credential *c, const char *text, size_t len)
{
	int err = c->kind == SLOT_KEY ? take_key(c, &v->vk) : -EKEYREJECTED;

	for (size_t i = 0; i < v->n_slots && err == -EKEYREJECTED; i++)
		if (v->slots[i].kind == c->kind)
			err = slot_open(&v->slots[i], c, &v->vk);
	if (err == -EKEYREJECTED)
		return fail(err, "no key slot opens with this %s",
			    c->kind == SLOT_PASSPHRASE ? "passphrase" : (c->kind == SLOT_KEYFILE ? "key file" : "recovery key"));
	if (!err)
		err = volume_keys(v);
	if (!err)
		err = volume_text_check(text, len, v->k_conf);
	return err;
}

/* What the two copies of volume.json say about a failure together. */
static int merge_errors(int first, int second)
{
	/* the strongest statement counts: a MAC that fails after a slot opened means the credential was right */
	static const int order[] = {-ENOMEM, -EBADMSG, -EKEYREJECTED, -ENOTSUP, -EIO, -EPROTO, -ENOENT};

	for (size_t i = 0; i < ARRAY_SIZE(order); i++)
		if (first == order[i] || second == order[i])
			return order[i] == -EPROTO ? -EBADMSG : order[i];
	return first;
}

/* Read one copy into @v.  @c: NULL only parses. */
static int load_copy(struct volume *v, const char *name, const struct credential *c, char **ret_text, size_t *ret_len)
{
	struct io io = io_posix(v->store_fd);
	int err = io_read_file(&io, v->dir_fd, name, VOLUME_TEXT_MAX, ret_text, ret_len);

	if (err == -EFBIG || err == -EINVAL)
		err = -EPROTO;
	if (!err)
		err = volume_text_parse(*ret_text, *ret_len, v);
	if (!err && c)
		err = volume_unlock(v, c, *ret_text, *ret_len);
	return err;
}

/* Forget what a copy that turned out bad has said. */
static int start_over(struct volume **v)
{
	struct volume *clean = volume_new();

	if (!clean)
		return -ENOMEM;
	clean->path = STEAL((*v)->path);
	clean->store_fd = (*v)->store_fd;
	clean->dir_fd = (*v)->dir_fd;
	(*v)->store_fd = (*v)->dir_fd = -1;
	volume_free(*v);
	*v = clean;
	return 0;
}

static int load_text(struct volume **v, const struct credential *c)
{
	CLEANUP_FREE char *text = NULL;
	CLEANUP_FREE char *bak = NULL;
	size_t len = 0, bak_len = 0;
	char why[400];
	struct io io;
	int first = load_copy(*v, VOLUME_JSON, c, &text, &len), second;

	if (!first)
		return 0;
	snprintf(why, sizeof(why), "%s", fail_text());
	if (first == -ENOMEM || first == -EINTR) /* says nothing about the copy */
		return *why ? fail(first, "%s: %s", (*v)->path, why) : first;
	if (start_over(v))
		return -ENOMEM;
	/* an equal copy fails the same way; do not run the KDF again to hear it */
	io = io_posix((*v)->store_fd);
	if (text && io_read_file(&io, (*v)->dir_fd, VOLUME_BAK, VOLUME_TEXT_MAX, &bak, &bak_len) == 0 && bak_len == len &&
	    memcmp(bak, text, len) == 0) {
		second = first;
	} else {
		free(STEAL(bak));
		second = load_copy(*v, VOLUME_BAK, c, &bak, &bak_len);
	}
	if (!second) {
		(*v)->from_backup = true;
		return 0;
	}
	first = merge_errors(first, second);
	if (first == -ENOENT)
		return fail(first, "%s: no tdfs volume here: its %s/%s is missing (tdfs key restore brings it back from a backup)",
			    (*v)->path, TDFS_DIR, VOLUME_JSON);
	if (first == -EBADMSG)
		return fail(first, "%s/%s: %s and %s are both damaged (%s; %s): restore them from a backup (tdfs key restore)", (*v)->path,
			    TDFS_DIR, VOLUME_JSON, VOLUME_BAK, why, fail_text());
	return fail(first, "%s: %s", (*v)->path, why);
}

int volume_open(const char *store, const struct credential *c, struct volume **ret)
{
	CLEANUP(volume_cleanup) struct volume *v = NULL;
	/* a mistyped recovery key is no statement about the volume */
	int err = c->kind == SLOT_RECOVERY ? recovery_check((const char *)c->bytes, c->len) : 0;

	if (!err)
		err = volume_open_dirs(store, &v);
	if (!err)
		err = load_text(&v, c);
	if (!err)
		err = volume_kas_load(v);
	if (!err)
		*ret = STEAL(v);
	return err;
}

int volume_peek(const char *store, struct volume **ret)
{
	CLEANUP(volume_cleanup) struct volume *v = NULL;
	int err = volume_open_dirs(store, &v);

	if (!err)
		err = load_text(&v, NULL);
	if (!err)
		*ret = STEAL(v);
	return err;
}

int volume_peek_backup(const char *store, struct volume **ret)
{
	CLEANUP(volume_cleanup) struct volume *v = NULL;
	CLEANUP_FREE char *text = NULL;
	CLEANUP_FREE char *bak = NULL;
	size_t len = 0, bak_len = 0;
	struct io io;
	int err = volume_open_dirs(store, &v);

	if (!err)
		err = load_copy(v, VOLUME_BAK, NULL, &bak, &bak_len);
	if (err)
		return err;
	io = io_posix(v->store_fd);
	if (io_read_file(&io, v->dir_fd, VOLUME_JSON, VOLUME_TEXT_MAX, &text, &len) == 0 && len == bak_len && memcmp(text, bak, len) == 0)
		return fail(-ENOENT, "%s: both copies of %s are the same", v->path, VOLUME_JSON);
	v->from_backup = true;
	*ret = STEAL(v);
	return 0;
}

static void sleep_ms(long ms)
{
	struct timespec ts = {ms / 1000, ms % 1000 * 1000000};

	(void)nanosleep(&ts, NULL);
}

static pid_t lock_holder(int fd)
{
	char text[32];
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

	if (n <= 0)
		return 0;
	text[n] = '\0';
	return (pid_t)MAX(strtol(text, NULL, 10), 0L);
}

int volume_lock_sign(const struct volume *v)
{
	char text[32];
	int n = snprintf(text, sizeof(text), "%ld\n", (long)getpid()), err;

	if (ftruncate(v->lock_fd, 0) == 0 && pwrite(v->lock_fd, text, (size_t)n, 0) == n)
		return 0;
	err = -errno;
	return fail(err ? err : -EIO, "%s/%s/%s: %s", v->path, TDFS_DIR, VOLUME_LOCK, strerror(-err));
}

static int lock_file(struct volume *v, int how, int wait_ms, pid_t *ret_pid)
{
	CLEANUP_FD int fd = openat(v->dir_fd, VOLUME_LOCK, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600);

	if (v->lock_fd >= 0)
		return 0;
	if (fd < 0)
		return fail(-errno, "%s/%s/%s: %s", v->path, TDFS_DIR, VOLUME_LOCK, strerror(errno));
	while (flock(fd, how | LOCK_NB)) {
		if (errno == EINTR)
			continue;
		if (errno != EWOULDBLOCK)
			return fail(-errno, "%s/%s/%s: %s", v->path, TDFS_DIR, VOLUME_LOCK, strerror(errno));
		if (wait_ms <= 0) {
			pid_t pid = lock_holder(fd);

			*ret_pid = pid;
			return fail(-EBUSY, "%s is in use by process %ld", v->path, (long)pid);
		}
		sleep_ms(MIN(wait_ms, 20));
		wait_ms -= 20;
	}
	v->lock_fd = fd;
	fd = -1;
	return volume_lock_sign(v);
}

int volume_lock(struct volume *v, int wait_ms, pid_t *ret_pid)
{
	return lock_file(v, LOCK_EX, wait_ms, ret_pid);
}

int volume_lock_shared(struct volume *v, int wait_ms, pid_t *ret_pid)
{
	return lock_file(v, LOCK_SH, wait_ms, ret_pid);
}
