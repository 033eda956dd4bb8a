/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sessions: what `tdfs login` leaves.  A file of mode 0600 with the refresh token and the key in it, or one that says under which name the
 * kernel's keyring has the same text: {"version":1,"issuer","client_id","keyring":NAME}.
 */
#include "oidc_int.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>

#include "aead.h"
#include "encode.h"
#include "io.h"
#include "keyring.h"
#include "pubkey.h"
#include "report.h"
#include "secret.h"

#define SESSION_MAX ((size_t)64 << 10)
#define LOCK_POLL_NS 50000000
#define NAME_START "tdfs:session:"

void session_free(struct session *s)
{
	wipe_free(&s->refresh);
	EVP_PKEY_free(s->key);
	s->key = NULL;
}

static const char *member(const json_t *object, const char *name)
{
	const char *s = json_string_value(json_object_get(object, name));

	return s ? s : "";
}

static int session_parse(const char *path, const struct issuer *is, const json_t *j, struct session *ret)
{
	CLEANUP_SESSION struct session s = {0};
	const char *pem = member(j, "dpop_key");
	int err;

	if (json_integer_value(json_object_get(j, "version")) != 1 || !*member(j, "refresh_token"))
		return fail(-EPROTO, "%s: not a session of this version of tdfs: tdfs login makes a new one", path);
	if (strcmp(member(j, "issuer"), is->name) || strcmp(member(j, "client_id"), is->client_id))
		return fail(-EPROTO, "%s: a session of another issuer or client (%.100s, %.64s)", path, member(j, "issuer"),
			    member(j, "client_id"));
	err = pubkey_private(pem, strlen(pem), &s.key);
	if (err)
		return fail(-EPROTO, "%s: its key is damaged: tdfs login makes a new session", path);
	s.refresh = strdup(member(j, "refresh_token"));
	if (!s.refresh)
		return -ENOMEM;
	*ret = s;
	s = (struct session){0};
	return 0;
}

/* The name that a session's file gives, if it is one that points to the keyring; malloc'd, else NULL */
static char *keyring_name(const json_t *j)
{
	const char *name = member(j, "keyring");

	return strncmp(name, NAME_START, strlen(NAME_START)) == 0 && strlen(name) < 100 ? strdup(name) : NULL;
}

/* What the file at @path says, a new reference or NULL; @ret_name: where the rest is, or NULL */
static int file_read(const char *path, json_t **ret, char **ret_name)
{
	CLEANUP_WIPE char *text = NULL;
	int err = secret_file_read(path, SESSION_MAX, &text, NULL);

	if (err)
		return err;
	*ret = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	*ret_name = keyring_name(*ret);
	return 0;
}

int session_read(const char *path, const struct issuer *is, struct session *ret)
{
	CLEANUP_WIPE char *text = NULL;
	CLEANUP_FREE char *name = NULL;
	json_t *j = NULL;
	int err = file_read(path, &j, &name);

	if (err == -ENOENT)
		return fail(err, "%s: nobody is logged in: tdfs login", path);
	if (!err && name) {
		err = keyring_get(name, &text);
		json_decref(j);
		j = err ? NULL : json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	}
	if (err)
		err = name ? fail(err, "%s: %s: tdfs login", path, fail_text()) : err;
	else
		err = session_parse(path, is, j, ret);
	json_decref(j);
	return err;
}

/* PKCS#8 PEM of the key; malloc'd: wipe */
static int key_text(EVP_PKEY *key, char **ret)
{
	uint8_t *der = NULL;
	size_t len = 0;
	int err = pubkey_private_der(key, &der, &len);
	CLEANUP_WIPE char *b64 = NULL;
	char *pem = NULL;

	if (err)
		return err;
	b64 = malloc(BASE64_LEN(len) + 1);
	if (b64)
		base64_encode(der, len, b64);
	wipe(der, len);
	free(der);
	if (!b64 || asprintf(&pem, "-----BEGIN PRIVATE KEY-----\n%s\n-----END PRIVATE KEY-----\n", b64) < 0)
		return -ENOMEM;
	*ret = pem;
	return 0;
}

static int file_write(const char *path, const char *text)
{
	CLEANUP_FD int dir = -1;
	const char *name = NULL;
	struct io io;
	int err = secret_parent_open(path, &dir, &name);

	if (err)
		return err;
	io = io_posix(dir);
	err = io_replace(&io, dir, name, text, strlen(text), 0600);
	return err ? fail(err, "%s: %s", path, strerror(-err)) : 0;
}

static int session_text(const struct issuer *is, const char *refresh, EVP_PKEY *key, char **ret)
{
	CLEANUP_WIPE char *pem = NULL;
	json_t *j;
	int err = key_text(key, &pem);

	if (err)
		return err;
	j = json_pack("{s:i,s:s,s:s,s:s,s:s}", "version", 1, "issuer", is->name, "client_id", is->client_id, "refresh_token", refresh,
		      "dpop_key", pem);
	*ret = j ? json_dumps(j, JSON_INDENT(1)) : NULL;
	json_decref(j);
	return *ret ? 0 : -ENOMEM;
}

int session_write(const char *path, const struct issuer *is, const char *refresh, EVP_PKEY *key)
{
	CLEANUP_WIPE char *text = NULL;
	CLEANUP_FREE char *name = NULL;
	json_t *j = NULL;
	int err = session_text(is, refresh, key, &text);

	if (err)
		return err;
	err = file_read(path, &j, &name);
	json_decref(j);
	if (err) /* by no means into a file of its own: it was to be gone, and perhaps in the keyring alone */
		return err == -ENOENT ? fail(-EACCES, "%s: logged out meanwhile", path) : err;
	return name ? keyring_put(name, text, strlen(text)) : file_write(path, text);
}

/* Into the keyring, and a file that points there */
static int keyring_write(const char *path, const struct issuer *is, const char *text)
{
	CLEANUP_FREE char *pointer = NULL;
	char name[sizeof(NAME_START) + 32], hex[33];
	uint8_t id[16];
	json_t *j;
	int err = random_bytes(id, sizeof(id));

	if (err)
		return err;
	hex_encode(id, sizeof(id), hex);
	snprintf(name, sizeof(name), NAME_START "%s", hex);
	err = keyring_put(name, text, strlen(text));
	if (err)
		return err;
	j = json_pack("{s:i,s:s,s:s,s:s}", "version", 1, "issuer", is->name, "client_id", is->client_id, "keyring", name);
	pointer = j ? json_dumps(j, JSON_INDENT(1)) : NULL;
	json_decref(j);
	err = pointer ? file_write(path, pointer) : -ENOMEM;
	if (err)
		(void)!keyring_remove(name);
	return err;
}

int session_new(const char *path, const struct issuer *is, const char *refresh, EVP_PKEY *key, bool *keyring)
{
	CLEANUP_WIPE char *text = NULL;
	CLEANUP_FREE char *old = NULL;
	CLEANUP_FD int dir = -1, lock = -1;
	const char *base = NULL;
	json_t *j = NULL;
	int err = session_text(is, refresh, key, &text);

	if (!err)
		err = secret_parent_open(path, &dir, &base);
	if (err)
		return err;
	lock = session_lock(path, http_now() + 2 * FETCH_MS); /* else a refresh of the old one would be written over it */
	if (lock < 0)
		return lock;
	if (file_read(path, &j, &old))
		fail_clear();
	json_decref(j);
	if (*keyring) {
		err = keyring_write(path, is, text);
		if (err == -ENOTSUP || err == -EDQUOT) {
			report(REPORT_WARN, "%s: the session goes into a file instead", fail_text());
			*keyring = false;
		}
	}
	if (!*keyring)
		err = file_write(path, text);
	if (!err && old)
		(void)!keyring_remove(old);
	return err;
}

int session_remove(const char *path)
{
	CLEANUP_FREE char *name = NULL;
	json_t *j = NULL;
	int err = file_read(path, &j, &name), gone = 0;

	json_decref(j);
	if (!err && name)
		gone = keyring_remove(name);
	if (err != -ENOENT && unlink(path))
		err = fail(-errno, "%s: %s", path, strerror(errno));
	else if (err != -ENOENT)
		err = gone; /* one that cannot be read is gone all the same */
	return err;
}

int session_lock(const char *path, int64_t deadline)
{
	CLEANUP_FREE char *name = NULL;
	int fd;

	if (asprintf(&name, "%s.lock", path) < 0) {
		name = NULL;
		return -ENOMEM;
	}
	fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return fail(-errno, "%s: %s", name, strerror(errno));
	while (flock(fd, LOCK_EX | LOCK_NB)) {
		if (errno != EWOULDBLOCK || http_now() >= deadline) {
			int err = errno == EWOULDBLOCK ? -ETIMEDOUT : -errno;

			close(fd);
			return fail(err, "%s: another process uses this session", path);
		}
		nanosleep(&(struct timespec){.tv_nsec = LOCK_POLL_NS}, NULL);
	}
	return fd;
}
