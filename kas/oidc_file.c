/* SPDX-License-Identifier: Apache-2.0 */
/* Secrets in files: 0600 or refused, written so that a crash leaves the old or the new one. */
#include "oidc_int.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>

#include "aead.h"
#include "encode.h"
#include "io.h"
#include "pubkey.h"
#include "report.h"
#include "secret.h"

#define SESSION_MAX ((size_t)64 << 10)
#define LOCK_POLL_NS 50000000

void wipe_free(char **s)
{
	if (*s)
		wipe(*s, strlen(*s));
	free(*s);
	*s = NULL;
}

static int owner_check(const char *path, const struct stat *st)
{
	if (!S_ISREG(st->st_mode))
		return fail(-EPROTO, "%s: not a file", path);
	if (st->st_mode & 077)
		return fail(-EPERM, "%s: others may read this secret (mode %04o): chmod 600", path, (unsigned)st->st_mode & 07777);
	if (st->st_uid != geteuid() && st->st_uid != 0)
		return fail(-EPERM, "%s: this secret belongs to user %u", path, (unsigned)st->st_uid);
	return 0;
}

int secret_file_read(const char *path, size_t max, char **ret, struct stat *ret_st)
{
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	CLEANUP_WIPE char *text = NULL;
	struct stat st;
	size_t len = 0;
	int err;

	if (fd < 0 || fstat(fd, &st))
		return fail(-errno, "%s: %s", path, strerror(errno));
	err = owner_check(path, &st);
	if (err)
		return err;
	text = calloc(1, max + 2); /* zeroed, so that strlen() finds all of it to wipe */
	if (!text)
		return -ENOMEM;
	while (len <= max) {
		ssize_t n = read(fd, text + len, max + 1 - len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return fail(-errno, "%s: %s", path, strerror(errno));
		if (!n)
			break;
		len += (size_t)n;
	}
	if (len > max || memchr(text, 0, len))
		return fail(-EPROTO, "%s: %s", path, len > max ? "too long for a secret" : "not text");
	while (len && isspace((unsigned char)text[len - 1]))
		text[--len] = 0;
	if (!len)
		return fail(-EPROTO, "%s: empty", path);
	if (ret_st)
		*ret_st = st;
	*ret = STEAL(text);
	return 0;
}

/* --- sessions --- */

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

int session_read(const char *path, const struct issuer *is, struct session *ret)
{
	CLEANUP_WIPE char *text = NULL;
	int err = secret_file_read(path, SESSION_MAX, &text, NULL);
	json_t *j;

	if (err == -ENOENT)
		return fail(err, "%s: nobody is logged in: tdfs login", path);
	if (err)
		return err;
	j = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
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

int secret_parent_open(const char *path, int *ret_dir, const char **ret_name)
{
	CLEANUP_FREE char *dir = strdup(path);
	const char *slash = strrchr(path, '/');
	int fd;

	if (!dir)
		return -ENOMEM;
	if (slash)
		dir[slash - path] = 0;
	for (char *s = dir + 1; slash && *dir && s; s = strchr(s, '/') ? strchr(s, '/') + 1 : NULL) {
		char *end = strchr(s, '/');

		if (end)
			*end = 0;
		if (mkdir(dir, 0700) && errno != EEXIST)
			return fail(-errno, "%s: %s", dir, strerror(errno));
		if (!end)
			break;
		*end = '/';
	}
	fd = open(!slash ? "." : *dir ? dir : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return fail(-errno, "%s: %s", dir, strerror(errno));
	*ret_dir = fd;
	*ret_name = slash ? slash + 1 : path;
	return 0;
}

int session_write(const char *path, const struct issuer *is, const char *refresh, EVP_PKEY *key)
{
	CLEANUP_WIPE char *pem = NULL, *text = NULL;
	CLEANUP_FD int dir = -1;
	const char *name = NULL;
	struct io io;
	json_t *j;
	int err = key_text(key, &pem);

	if (err)
		return err;
	j = json_pack("{s:i,s:s,s:s,s:s,s:s}", "version", 1, "issuer", is->name, "client_id", is->client_id, "refresh_token", refresh,
		      "dpop_key", pem);
	text = j ? json_dumps(j, JSON_INDENT(1)) : NULL;
	json_decref(j);
	if (!text)
		return -ENOMEM;
	err = secret_parent_open(path, &dir, &name);
	if (err)
		return err;
	io = io_posix(dir);
	err = io_replace(&io, dir, name, text, strlen(text), 0600);
	return err ? fail(err, "%s: %s", path, strerror(-err)) : 0;
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

int oidc_session_path(const char *issuer, const char *client_id, char **ret)
{
	const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
	struct part parts[] = {{issuer, strlen(issuer) + 1}, {client_id, strlen(client_id)}};
	uint8_t hash[32];
	char hex[17], *path;
	int n, err = sha256(parts, ARRAY_SIZE(parts), hash);

	if (err)
		return err;
	hex_encode(hash, 8, hex);
	if (state && *state == '/')
		n = asprintf(&path, "%s/tdfs/login-%s.json", state, hex);
	else if (home && *home == '/')
		n = asprintf(&path, "%s/.local/state/tdfs/login-%s.json", home, hex);
	else
		return fail(-ENOENT, "no home directory to keep a session in: name a file");
	if (n < 0)
		return -ENOMEM;
	*ret = path;
	return 0;
}
