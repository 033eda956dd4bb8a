/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Backup file: {"tdfs_backup":1,"volume_json":"<text>","kas":{"<file name>":"<base64>"}}.
 *
 * It has no MAC of its own: the text authenticates itself and the keys are sealed.
 */
#include <jansson.h>

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <sys/file.h>

#include "encode.h"
#include "redo.h"
#include "report.h"
#include "volume_file.h"

#define BACKUP_MAX ((size_t)4 << 20)
#define BACKUP_VERSION 1

static void json_cleanup(json_t **j)
{
	json_decref(*j);
}
#define CLEANUP_JSON CLEANUP(json_cleanup)

/* A directory and the name in it, for a file that the user names. */
static int split_path(const char *file, int *ret_dir_fd, char **ret_dir, char ret_name[static NAME_MAX + 1])
{
	CLEANUP_FREE char *a = strdup(file);
	CLEANUP_FREE char *b = strdup(file);
	CLEANUP_FREE char *dir = NULL;
	const char *name;
	int fd;

	if (!a || !b)
		return -ENOMEM;
	name = basename(a);
	if (!*name || strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || strchr(name, '/') || strlen(name) > NAME_MAX - 4)
		return fail(-EINVAL, "%s: not the name of a file", file);
	dir = realpath(dirname(b), NULL);
	fd = dir ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	if (fd < 0)
		return fail(-errno, "%s: %s", file, strerror(errno));
	snprintf(ret_name, NAME_MAX + 1, "%s", name);
	*ret_dir = STEAL(dir);
	*ret_dir_fd = fd;
	return 0;
}

/* The present volume.json, whichever copy is whole. */
static int current_text(struct volume *v, char **ret, size_t *ret_len)
{
	static const char *const names[] = {VOLUME_JSON, VOLUME_BAK};
	struct io io = io_posix(v->store_fd);

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		CLEANUP_FREE char *text = NULL;
		size_t len;

		if (io_read_file(&io, v->dir_fd, names[i], VOLUME_TEXT_MAX, &text, &len) == 0 &&
		    volume_text_check(text, len, v->k_conf) == 0) {
			*ret = STEAL(text);
			*ret_len = len;
			return 0;
		}
	}
	return fail(-EBADMSG, "%s/%s: %s and %s are both damaged", v->path, TDFS_DIR, VOLUME_JSON, VOLUME_BAK);
}

/* The key @kid as a member of @keys. */
static int key_put(struct volume *v, const char *kid, json_t *keys)
{
	CLEANUP_FREE char *blob = NULL;
	CLEANUP_FREE char *b64 = NULL;
	char name[VOLUME_KID_MAX + 8];
	size_t len;
	int err = volume_kas_read(v, kid, &blob, &len);

	if (err)
		return err;
	b64 = malloc(BASE64_LEN(len) + 1);
	if (!b64)
		return -ENOMEM;
	base64_encode(blob, len, b64);
	volume_kas_file(kid, name);
	return json_object_set_new(keys, name, json_string(b64)) ? -ENOMEM : 0;
}

static int backup_text(struct volume *v, char **ret)
{
	CLEANUP_FREE char *text = NULL;
	CLEANUP_JSON json_t *o = NULL;
	json_t *keys = json_object();
	size_t len;
	int err = v->k_conf ? current_text(v, &text, &len) : fail(-ENOKEY, "the volume is not unlocked");

	if (!err)
		err = key_put(v, v->kas_kid, keys);
	for (size_t i = 0; !err && i < v->n_kas_old; i++)
		err = key_put(v, v->kas_old[i], keys);
	if (err) {
		json_decref(keys);
		return err;
	}
	o = json_pack("{s:i,s:s,s:o}", "tdfs_backup", BACKUP_VERSION, "volume_json", text, "kas", keys);
	*ret = o ? json_dumps(o, JSON_INDENT(1)) : NULL;
	return *ret ? 0 : -ENOMEM;
}

int volume_backup(struct volume *v, const char *file)
{
	CLEANUP_FREE char *text = NULL;
	CLEANUP_FREE char *dir = NULL;
	CLEANUP_FREE char *outer = NULL;
	CLEANUP_FD int fd = -1;
	char name[NAME_MAX + 1];
	struct io io;
	int err = split_path(file, &fd, &dir, name);

	if (err)
		return err;
	if (volume_find(dir, &outer) == 0 && strcmp(outer, v->path) == 0)
		return fail(-EINVAL, "%s lies in the volume itself: it would be lost together with it", file);
	err = backup_text(v, &text);
	if (err)
		return err;
	io = io_posix(fd);
	err = io_replace(&io, fd, name, text, strlen(text), 0600);
	return err ? fail(err, "%s: %s", file, fail_text()) : 0;
}

struct backup {
	json_t *json;
	const char *text; /* borrowed from json */
	size_t len;
	struct volume *v; /* opened from the backup, without directories */
};

static void backup_free(struct backup *b)
{
	json_decref(b->json);
	volume_free(b->v);
}

/* Call @use with each key that the volume needs. */
static int key_each(struct backup *b, int (*use)(struct backup *b, void *arg, const char *kid, const uint8_t *blob, size_t len), void *arg)
{
	int err = 0;

	for (size_t i = 0; !err && i <= b->v->n_kas_old; i++) {
		const char *kid = i ? b->v->kas_old[i - 1] : b->v->kas_kid, *b64;
		CLEANUP_FREE uint8_t *blob = NULL;
		char name[VOLUME_KID_MAX + 8];
		size_t len;

		volume_kas_file(kid, name);
		b64 = json_string_value(json_object_get(json_object_get(b->json, "kas"), name));
		if (!b64 || strlen(b64) > BASE64_LEN(VOLUME_KEY_MAX))
			return fail(-EPROTO, "the key of the embedded KAS is not in it");
		blob = malloc(strlen(b64) + 1);
		if (!blob)
			return -ENOMEM;
		if (base64_decode(b64, strlen(b64), false, blob, strlen(b64), &len))
			return fail(-EPROTO, "the key of the embedded KAS is not base64");
		err = use(b, arg, kid, blob, len);
	}
	return err;
}

static int key_try(struct backup *b, void *arg, const char *kid, const uint8_t *blob, size_t len)
{
	return volume_kas_open(b->v, kid, blob, len);
}

static int key_write(struct backup *b, void *arg, const char *kid, const uint8_t *blob, size_t len)
{
	int dir = *(const int *)arg;
	struct io io = io_posix(dir);
	char name[VOLUME_KID_MAX + 8];

	volume_kas_file(kid, name);
	return io_replace(&io, dir, name, blob, len, 0600);
}

/* Read a backup and open it, so that nothing is replaced by what would not open. */
static int backup_open(const char *file, const struct credential *c, struct backup *b)
{
	CLEANUP_FREE char *dir = NULL;
	CLEANUP_FREE char *raw = NULL;
	CLEANUP_FD int fd = -1;
	char name[NAME_MAX + 1];
	json_error_t e;
	struct io io;
	size_t len;
	int err = split_path(file, &fd, &dir, name);

	if (err)
		return err;
	io = io_posix(fd);
	err = io_read_file(&io, fd, name, BACKUP_MAX, &raw, &len);
	if (err)
		return err;
	b->json = json_loadb(raw, len, JSON_REJECT_DUPLICATES, &e);
	if (json_integer_value(json_object_get(b->json, "tdfs_backup")) > BACKUP_VERSION)
		return fail(-ENOTSUP, "a backup of a later version: use a later tdfs");
	b->text = json_string_value(json_object_get(b->json, "volume_json"));
	if (json_integer_value(json_object_get(b->json, "tdfs_backup")) != BACKUP_VERSION || !b->text)
		return fail(-EPROTO, "not a backup of a tdfs volume");
	b->len = strlen(b->text);
	b->v = volume_new();
	if (!b->v)
		return -ENOMEM;
	err = volume_text_parse(b->text, b->len, b->v);
	if (!err)
		err = volume_unlock(b->v, c, b->text, b->len);
	if (err)
		return err;
	return key_each(b, key_try, NULL);
}

/* The volume that stands in the store must be the one in the backup, as far as it can still be told. */
static int check_same(const char *store, const uint8_t *id, bool force)
{
	CLEANUP(volume_cleanup) struct volume *now = NULL;
	int err = volume_peek(store, &now);

	if (err == -EPERM || err == -ELOOP)
		return err;
	if (!err && memcmp(now->id, id, ID_LEN) && !force)
		return fail(
		    -EEXIST,
		    "%s is another volume than the one in the backup: its files could not be read with it (--force replaces its keys)",
		    store);
	return 0;
}

static int make_dir(int parent, const char *name)
{
	if (mkdirat(parent, name, 0700) == 0)
		return 1;
	return errno == EEXIST ? 0 : fail(-errno, "%s: %s", name, strerror(errno));
}

/* STORE/.tdfs, which may be lost altogether; then with an empty log, because the old one is lost too. */
static int prepare_dirs(const char *store, struct volume *b, struct volume **ret)
{
	CLEANUP(volume_cleanup) struct volume *v = volume_new();
	struct io io;
	int made, err;

	if (!v)
		return -ENOMEM;
	err = volume_open_store(store, &v->store_fd, &v->path);
	if (err)
		return err;
	made = make_dir(v->store_fd, TDFS_DIR);
	if (made < 0)
		return made;
	v->dir_fd = openat(v->store_fd, TDFS_DIR, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (v->dir_fd < 0)
		return fail(-errno, "%s/%s: %s", v->path, TDFS_DIR, strerror(errno));
	io = io_posix(v->store_fd);
	if (made == 1) {
		err = redo_create(&io, v->dir_fd, b->log_half);
		if (!err && fsync(v->store_fd))
			err = fail(-errno, "%s: %s", v->path, strerror(errno));
	}
	if (!err)
		*ret = STEAL(v);
	return err;
}

int volume_restore(const char *store, const char *file, const struct credential *c, bool force)
{
	CLEANUP(backup_free) struct backup b = {0};
	CLEANUP(volume_cleanup) struct volume *v = NULL;
	CLEANUP_FD int kas_fd = -1;
	struct io io;
	pid_t pid;
	int err = c->kind == SLOT_RECOVERY ? recovery_check((const char *)c->bytes, c->len) : 0;

	if (err)
		return err;
	err = backup_open(file, c, &b);
	if (err)
		return fail(err, "%s: %s", file, fail_text());
	err = check_same(store, b.v->id, force);
	if (!err)
		err = prepare_dirs(store, b.v, &v);
	if (!err)
		err = volume_lock(v, 0, &pid);
	if (!err)
		err = MIN(make_dir(v->dir_fd, VOLUME_KAS_DIR), 0);
	if (err)
		return err;
	kas_fd = openat(v->dir_fd, VOLUME_KAS_DIR, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (kas_fd < 0)
		return fail(-errno, "%s/%s/%s: %s", v->path, TDFS_DIR, VOLUME_KAS_DIR, strerror(errno));
	io = io_posix(v->store_fd);
	/* the keys first: a volume.json without its key would not open */
	err = key_each(&b, key_write, &kas_fd);
	if (!err)
		err = io_replace(&io, v->dir_fd, VOLUME_BAK, b.text, b.len, 0600);
	if (!err)
		err = io_replace(&io, v->dir_fd, VOLUME_JSON, b.text, b.len, 0600);
	return err ? fail(err, "%s/%s: %s", v->path, TDFS_DIR, fail_text()) : 0;
}
