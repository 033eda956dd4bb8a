/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making a volume: everything is built in .tdfs.new and renamed, so .tdfs is whole or not there.  A .tdfs.new that a crash left behind is
 * removed by the next attempt.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/file.h>
#include <time.h>

#include "encode.h"
#include "random.h"
#include "redo.h"
#include "report.h"
#include "volume_file.h"
#include "volume_remote.h"
#include "volume_state.h"

static int failed(const char *path, const char *what)
{
	int err = errno ? -errno : -EIO;

	return fail(err, "%s%s: %s", path, what, strerror(-err));
}

/* Remove a directory with its files, and one level of directories in it. */
static int remove_new_dir(int parent, const char *name);

struct removal {
	int fd;
	bool deep;
};

static int remove_entry(void *arg, const char *name, unsigned char d_type, ino_t ino)
{
	struct removal *r = arg;

	if (unlinkat(r->fd, name, 0) == 0 || errno == ENOENT)
		return 0;
	return r->deep ? remove_new_dir(r->fd, name) : -errno;
}

static int remove_new_dir(int parent, const char *name)
{
	CLEANUP_FD int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct removal r = {fd, strcmp(name, VOLUME_NEW_DIR) == 0 || strcmp(name, TDFS_DIR) == 0};
	struct io io = io_posix(parent);
	int err;

	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	err = io.list(io.ctx, fd, remove_entry, &r);
	if (!err && unlinkat(parent, name, AT_REMOVEDIR))
		err = -errno;
	return err;
}

struct empty {
	const char *path;
	bool in_place;
};

static int check_empty_entry(void *arg, const char *name, unsigned char d_type, ino_t ino)
{
	const struct empty *e = arg;

	/* a fresh file system is empty */
	if (strcmp(name, "lost+found") == 0 || strcmp(name, VOLUME_NEW_DIR) == 0)
		return 0;
	if (strcmp(name, TDFS_DIR) == 0)
		return fail(-EEXIST, "%s has a .tdfs already: it is a volume, or was one", e->path);
	if (e->in_place)
		return 0;
	return fail(-ENOTEMPTY, "%s is not empty (there is \"%.100s\"): a new volume needs an empty or absent directory", e->path,
		    name);
}

/* A volume may not lie in another: its files would be encrypted twice, and the outer one moved under it. */
static int check_outside(const char *store)
{
	CLEANUP_FREE char *path = realpath(store, NULL);
	CLEANUP_FREE char *outer = NULL;
	char *slash;
	size_t n;

	if (!path) /* it is still to be made */
		path = strdup(store);
	if (!path)
		return -ENOMEM;
	for (n = strlen(path); n > 1 && path[n - 1] == '/'; n--)
		path[n - 1] = '\0';
	slash = strrchr(path, '/');
	if (slash)
		slash[slash == path] = '\0';
	if (volume_find(slash ? path : ".", &outer) == 0)
		return fail(-ELOOP, "%s lies in the volume %s", store, outer);
	return 0;
}

static int default_policy(char **ret)
{
	char id_text[37], text[128], b64[BASE64_LEN(sizeof(text)) + 1];
	uint8_t id[ID_LEN];
	int n, err = random_bytes(id, sizeof(id));

	if (err)
		return err;
	id[6] = (uint8_t)((id[6] & 0x0f) | 0x40);
	id[8] = (uint8_t)((id[8] & 0x3f) | 0x80);
	uuid_format(id, id_text);
	n = snprintf(text, sizeof(text), "{\"uuid\":\"%s\",\"body\":{\"dataAttributes\":[],\"dissem\":[]}}", id_text);
	base64_encode(text, (size_t)n, b64);
	*ret = strdup(b64);
	return *ret ? 0 : -ENOMEM;
}

static int check_params(struct volume_params *par)
{
	if (!par->segment_size)
		par->segment_size = SEG_DEFAULT;
	if (!par->log_half)
		par->log_half = REDO_HALF_DEFAULT;
	if (!par->kas_url)
		par->kas_url = KAS_URL_DEFAULT;
	par->recovery[0] = '\0';
	if (par->segment_size < SEG_MIN || par->segment_size > SEG_MAX)
		return fail(-EINVAL, "a segment size of %u: %u to %u are possible", par->segment_size, SEG_MIN, SEG_MAX);
	if (par->log_half < REDO_HALF_MIN || par->log_half > REDO_HALF_MAX || par->log_half % 4096)
		return fail(-EINVAL, "a log of %llu bytes a half: %llu to %llu, in steps of 4096, are possible",
			    (unsigned long long)par->log_half, (unsigned long long)REDO_HALF_MIN, (unsigned long long)REDO_HALF_MAX);
	return strlen(par->kas_url) <= 1024 ? 0 : fail(-EINVAL, "the KAS URL is longer than 1024 characters");
}

static int make_slots(struct volume *v, struct volume_params *par, const struct credential *first)
{
	static const char *const names[] = {
	    [SLOT_PASSPHRASE] = "passphrase", [SLOT_RECOVERY] = "recovery key", [SLOT_KEYFILE] = "key file"};
	struct credential rec = {.kind = SLOT_RECOVERY};
	int err;

	v->slots = calloc(2, sizeof(*v->slots));
	if (!v->slots)
		return -ENOMEM;
	v->n_slots = 1;
	snprintf(v->slots[0].label, SLOT_LABEL_MAX + 1, "%s", names[first->kind]);
	err = slot_make(&v->slots[0], first, v->vk, par->scrypt_log_n);
	if (err || par->no_recovery)
		return err;
	err = recovery_new(par->recovery);
	if (err)
		return err;
	v->n_slots = 2;
	v->slots[1].id = 1;
	snprintf(v->slots[1].label, SLOT_LABEL_MAX + 1, "%s", names[SLOT_RECOVERY]);
	rec.bytes = (uint8_t *)par->recovery;
	rec.len = strlen(par->recovery);
	return slot_make(&v->slots[1], &rec, v->vk, 0);
}

/* All that volume.json will say. */
static int fill_in(struct volume *v, struct volume_params *par, const struct credential *first)
{
	int err;

	v->segment_size = par->segment_size;
	v->log_half = par->log_half;
	v->created = time(NULL);
	v->names = strdup("plain");
	v->kas_url = strdup(par->kas_url);
	v->vk = secret_random();
	if (!v->names || !v->kas_url)
		return -ENOMEM;
	err = par->remote ? volume_remote_first(v, par->remote) : 0;
	if (err)
		return err;
	if (!v->vk)
		return fail(-EIO, "no volume key: no memory or no randomness");
	err = volume_keys(v);
	if (!err)
		err = random_bytes(v->id, sizeof(v->id));
	v->id[6] = (uint8_t)((v->id[6] & 0x0f) | 0x40);
	v->id[8] = (uint8_t)((v->id[8] & 0x3f) | 0x80);
	if (!err)
		err = default_policy(&v->policy);
	return err ? err : make_slots(v, par, first);
}

static int write_kas(const struct io *io, int dir_fd, const char *kid, const uint8_t *blob, size_t len)
{
	CLEANUP_FD int fd = -1;
	char name[VOLUME_KID_MAX + 8];

	if (mkdirat(dir_fd, VOLUME_KAS_DIR, 0700))
		return failed(VOLUME_KAS_DIR, "");
	fd = openat(dir_fd, VOLUME_KAS_DIR, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fchmod(fd, 0700))
		return failed(VOLUME_KAS_DIR, "");
	volume_kas_file(kid, name);
	return io_replace(io, fd, name, blob, len, 0600);
}

/* The files that are there are still to be converted, and names are spelled as they were. */
static int write_mark(int dir_fd)
{
	CLEANUP_FD int dir = -1;
	CLEANUP_FD int fd = -1;

	if (mkdirat(dir_fd, VOLUME_CONVERT_DIR, 0700))
		return failed(VOLUME_CONVERT_DIR, "");
	dir = openat(dir_fd, VOLUME_CONVERT_DIR, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	fd = openat(dir_fd, VOLUME_NAMES_MARK, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	return dir < 0 || fd < 0 || fchmod(dir, 0700) || fsync(dir) ? failed(VOLUME_NAMES_MARK, "") : 0;
}

/* Build .tdfs.new in the store and give it its name. */
static int build(struct volume *v, struct volume_params *par, const struct credential *first)
{
	struct io io = io_posix(v->store_fd);
	CLEANUP_FREE uint8_t *blob = NULL;
	size_t len = 0;
	int err;

	if (mkdirat(v->store_fd, VOLUME_NEW_DIR, 0700))
		return failed(v->path, "/" VOLUME_NEW_DIR);
	v->dir_fd = openat(v->store_fd, VOLUME_NEW_DIR, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (v->dir_fd < 0 || fchmod(v->dir_fd, 0700))
		return failed(v->path, "/" VOLUME_NEW_DIR);
	err = fill_in(v, par, first);
	if (!err)
		err = volume_kas_make(v->k_kas, false, &v->kas_kid, &blob, &len);
	if (!err)
		err = write_kas(&io, v->dir_fd, v->kas_kid, blob, len);
	if (!err && par->in_place)
		err = write_mark(v->dir_fd);
	if (!err && par->in_place)
		err = volume_state_write(v, VOLUME_CONVERTING);
	if (!err)
		err = redo_create(&io, v->dir_fd, v->log_half);
	if (!err)
		err = volume_text_write(v);
	if (err)
		return fail(err, "%s: %s", v->path, fail_text());
	if (fsync(v->dir_fd))
		return failed(v->path, "/" VOLUME_NEW_DIR);
	/* plain rename(2), which every file system has: a .tdfs with anything in it makes it fail */
	err = io.rename(io.ctx, v->store_fd, VOLUME_NEW_DIR, v->store_fd, TDFS_DIR, 0);
	return err ? fail(err, "%s/%s: %s", v->path, TDFS_DIR, strerror(-err)) : 0;
}

/* In a store that is open, checked and empty. */
static int create_in(struct volume *v, struct volume_params *par, const struct credential *first)
{
	struct io io = io_posix(v->store_fd);
	struct empty e = {v->path, par->in_place};
	int err;

	if (flock(v->store_fd, LOCK_EX | LOCK_NB))
		return errno == EWOULDBLOCK ? fail(-EBUSY, "another tdfs is making a volume in %s", v->path) : failed(v->path, "");
	err = io.list(io.ctx, v->store_fd, check_empty_entry, &e);
	if (err)
		return err;
	err = remove_new_dir(v->store_fd, VOLUME_NEW_DIR);
	if (err)
		return fail(err, "%s/%s, left from an attempt that was interrupted, cannot be removed: %s", v->path, VOLUME_NEW_DIR,
			    strerror(-err));
	fail_clear();
	err = build(v, par, first);
	if (err) {
		(void)remove_new_dir(v->store_fd, VOLUME_NEW_DIR);
		return err;
	}
	if (fsync(v->store_fd)) {
		err = failed(v->path, "");
		(void)remove_new_dir(v->store_fd, TDFS_DIR); /* ours: the rename succeeded */
	}
	return err;
}

static int sync_parent(int store_fd)
{
	CLEANUP_FD int fd = openat(store_fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 || fsync(fd) ? -errno : 0;
}

int volume_create(const char *store, struct volume_params *par, const struct credential *first)
{
	CLEANUP(volume_cleanup) struct volume *v = volume_new();
	bool made_store = false;
	int err;

	if (!v)
		return -ENOMEM;
	err = check_params(par);
	if (!err)
		err = check_outside(store);
	if (err)
		return err;
	if (mkdir(store, 0700) == 0)
		made_store = true;
	else if (errno != EEXIST)
		return failed(store, "");
	err = volume_open_store(store, &v->store_fd, &v->path);
	if (!err)
		err = create_in(v, par, first);
	if (!err && made_store) {
		err = sync_parent(v->store_fd);
		if (err) {
			(void)remove_new_dir(v->store_fd, TDFS_DIR);
			err = fail(err, "%s: %s", store, strerror(-err));
		}
	}
	if (err) {
		if (made_store)
			(void)rmdir(store);
		wipe(par->recovery, sizeof(par->recovery));
	}
	return err;
}
