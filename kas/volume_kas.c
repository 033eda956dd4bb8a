/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keys of the embedded KAS: the one that new files are wrapped for, and retired ones that still open what was wrapped for them.
 *
 * volume.json names them all, so none can be slipped in and one that is missing is told.
 */
#include <jansson.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "encode.h"
#include "report.h"
#include "volume_file.h"
#include "volume_remote.h"

bool volume_kid_is_safe(const char *kid)
{
	return *kid && *kid != '.' && strspn(kid, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == strlen(kid);
}

int volume_kas_old_parse(const json_t *list, struct volume *v)
{
	size_t n = json_array_size(list);

	if (!list)
		return 0;
	if (!n || n > VOLUME_KAS_OLD_MAX)
		return fail(-EPROTO, "%zu retired KAS keys: 1 to %d are right", n, VOLUME_KAS_OLD_MAX);
	v->kas_old = calloc(n, sizeof(*v->kas_old));
	if (!v->kas_old)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		const char *kid = json_string_value(json_array_get(list, i));

		if (!kid || strlen(kid) > VOLUME_KID_MAX || !volume_kid_is_safe(kid))
			return fail(-EPROTO, "the name of a retired KAS key is none");
		v->kas_old[i] = strdup(kid);
		if (!v->kas_old[i])
			return -ENOMEM;
		v->n_kas_old++;
	}
	return 0;
}

void volume_kas_file(const char *kid, char ret[static VOLUME_KID_MAX + 8])
{
	snprintf(ret, VOLUME_KID_MAX + 8, "%.*s.key", VOLUME_KID_MAX, kid);
}

int volume_kas_name(EVP_PKEY *key, char ret[static 32])
{
	CLEANUP_FREE char *pem = pubkey_pem(key);
	uint8_t hash[32];
	char hex[17];
	int err;

	if (!pem)
		return fail(-EIO, "the KAS key cannot be exported");
	err = sha256(&(struct part){pem, strlen(pem)}, 1, hash);
	if (err)
		return err;
	hex_encode(hash, 8, hex);
	snprintf(ret, 32, "tdfs-%s", hex);
	return 0;
}

int volume_kas_make(const struct secret *k_kas, bool rsa, char **ret_kid, uint8_t **ret_blob, size_t *ret_len)
{
	EVP_PKEY *key = rsa ? pubkey_new_rsa() : pubkey_new_ec();
	CLEANUP_FREE uint8_t *blob = NULL;
	CLEANUP_FREE char *name = NULL;
	uint8_t *der = NULL;
	size_t len = 0;
	char kid[32];
	int err = key ? volume_kas_name(key, kid) : -EIO;

	if (!err)
		err = pubkey_private_der(key, &der, &len);
	EVP_PKEY_free(key);
	if (err)
		return err;
	blob = malloc(len + AEAD_OVERHEAD);
	name = strdup(kid);
	err = blob && name ? aead_seal(k_kas, der, len, blob) : -ENOMEM;
	wipe(der, len);
	free(der);
	if (err)
		return err;
	*ret_kid = STEAL(name);
	*ret_blob = STEAL(blob);
	*ret_len = len + AEAD_OVERHEAD;
	return 0;
}

int volume_kas_open(struct volume *v, const char *kid, const uint8_t *blob, size_t len)
{
	CLEANUP_FREE uint8_t *der = NULL;
	EVP_PKEY *key = NULL;
	char name[32];
	int err;

	if (len <= AEAD_OVERHEAD || len > VOLUME_KEY_MAX)
		return fail(-EBADMSG, "the key of the embedded KAS is %zu bytes long", len);
	der = malloc(len - AEAD_OVERHEAD);
	if (!der)
		return -ENOMEM;
	err = aead_open(v->k_kas, blob, len, NULL, der);
	if (!err)
		err = pubkey_private_from_der(der, len - AEAD_OVERHEAD, &key);
	wipe(der, len - AEAD_OVERHEAD);
	if (err)
		return err;
	/* a key of this volume, but is it the one that volume.json names? */
	err = volume_kas_name(key, name);
	if (!err && strcmp(name, kid))
		err = fail(-EBADMSG, "the key of the embedded KAS is %s, not %s", name, kid);
	if (!err && !v->kas)
		v->kas = kas_new();
	if (err || !v->kas) {
		EVP_PKEY_free(key);
		return err ? err : -ENOMEM;
	}
	return kas_add_local(v->kas, kid, v->kas_url, key);
}

int volume_kas_read(const struct volume *v, const char *kid, char **ret, size_t *ret_len)
{
	struct io io = io_posix(v->store_fd);
	CLEANUP_FD int fd = openat(v->dir_fd, VOLUME_KAS_DIR, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	char name[VOLUME_KID_MAX + 8];
	int err;

	if (fd < 0)
		return fail(errno == ENOENT ? -EBADMSG : -errno, "%s/%s/%s: %s: restore it from a backup (tdfs key restore)", v->path,
			    TDFS_DIR, VOLUME_KAS_DIR, strerror(errno));
	volume_kas_file(kid, name);
	err = io_read_file(&io, fd, name, VOLUME_KEY_MAX, ret, ret_len);
	return err == -ENOENT ? -EBADMSG : err;
}

static int load_one(struct volume *v, const char *kid)
{
	CLEANUP_FREE char *blob = NULL;
	size_t len;
	int err = volume_kas_read(v, kid, &blob, &len);

	if (!err)
		err = volume_kas_open(v, kid, (const uint8_t *)blob, len);
	return err ? fail(err, "%s/%s/%s/%s.key: %s: restore it from a backup (tdfs key restore)", v->path, TDFS_DIR, VOLUME_KAS_DIR, kid,
			  fail_text())
		   : 0;
}

int volume_kas_load(struct volume *v)
{
	int err = load_one(v, v->kas_kid); /* the first one is the one that writes */

	for (size_t i = 0; !err && i < v->n_kas_old; i++)
		err = load_one(v, v->kas_old[i]);
	return err ? err : volume_remotes_load(v);
}

static int kas_dir(const struct volume *v)
{
	int fd = openat(v->dir_fd, VOLUME_KAS_DIR, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	return fd < 0 ? fail(-errno, "%s/%s/%s: %s", v->path, TDFS_DIR, VOLUME_KAS_DIR, strerror(errno)) : fd;
}

/* Take back what could not be written to disk. */
static int rotate_undo(struct volume *v, char *kid, int err)
{
	free(v->kas_kid);
	v->kas_kid = kid;
	v->n_kas_old--;
	return kas_write_key(v->kas, kid) ? -ENOKEY : err;
}

/* A fresh key on disk and in v->kas, and room for one more in the list of the others.  The key comes before volume.json: one that names a
 * key which is not there would not open. */
static int add_key(struct volume *v, bool rsa, char **ret_kid)
{
	struct io io = io_posix(v->store_fd);
	CLEANUP_FREE uint8_t *blob = NULL;
	CLEANUP_FREE char *kid = NULL;
	CLEANUP_FD int dir = -1;
	char name[VOLUME_KID_MAX + 8], **more;
	size_t len;
	int err;

	if (v->n_kas_old >= VOLUME_KAS_OLD_MAX)
		return fail(-ENOSPC, "%s has %d retired KAS keys already: `tdfs convert rewrap`, then `tdfs key forget`", v->path,
			    VOLUME_KAS_OLD_MAX);
	err = volume_kas_make(v->k_kas, rsa, &kid, &blob, &len);
	dir = err ? err : kas_dir(v);
	if (dir < 0)
		return dir;
	volume_kas_file(kid, name);
	err = io_replace(&io, dir, name, blob, len, 0600);
	if (!err)
		err = volume_kas_open(v, kid, blob, len);
	more = err ? NULL : realloc(v->kas_old, (v->n_kas_old + 1) * sizeof(*more));
	if (!more)
		return err ? err : -ENOMEM;
	v->kas_old = more;
	*ret_kid = STEAL(kid);
	return 0;
}

int volume_kas_rotate(struct volume *v)
{
	CLEANUP_CHANGE struct volume *locked = NULL;
	CLEANUP_FREE char *kid = NULL;
	char *was;
	int err = volume_change_begin(v, &locked);

	if (!err)
		err = add_key(v, false, &kid);
	if (!err)
		err = kas_write_key(v->kas, kid);
	if (err)
		return err;
	was = v->kas_kid;
	v->kas_old[v->n_kas_old++] = was;
	v->kas_kid = STEAL(kid);
	err = volume_text_write(v);
	return err ? rotate_undo(v, was, err) : 0;
}

int volume_kas_add_rsa(struct volume *v)
{
	CLEANUP_CHANGE struct volume *locked = NULL;
	char *kid;
	int err = volume_change_begin(v, &locked);

	if (!err)
		err = add_key(v, true, &kid);
	if (err)
		return err;
	v->kas_old[v->n_kas_old++] = kid;
	err = volume_text_write(v);
	if (err)
		free(v->kas_old[--v->n_kas_old]);
	return err;
}

int volume_kas_forget(struct volume *v, const char *kid)
{
	CLEANUP_CHANGE struct volume *locked = NULL;
	CLEANUP_FD int dir = -1;
	char name[VOLUME_KID_MAX + 8];
	size_t i = 0;
	int err = volume_change_begin(v, &locked);

	if (err)
		return err;
	while (i < v->n_kas_old && strcmp(v->kas_old[i], kid))
		i++;
	if (i == v->n_kas_old)
		return strcmp(v->kas_kid, kid) ? fail(-ENOENT, "%s has no retired KAS key %.80s", v->path, kid)
					       : fail(-EINVAL, "%.80s is the KAS key that new files are made for", kid);
	volume_kas_file(v->kas_old[i], name);
	free(v->kas_old[i]);
	memmove(v->kas_old + i, v->kas_old + i + 1, (--v->n_kas_old - i) * sizeof(*v->kas_old));
	err = volume_text_write(v);
	if (err)
		return err;
	dir = kas_dir(v);
	if (dir < 0)
		return dir;
	return unlinkat(dir, name, 0) && errno != ENOENT ? fail(-errno, "%s: %s", name, strerror(errno)) : fsync(dir) ? -errno : 0;
}
