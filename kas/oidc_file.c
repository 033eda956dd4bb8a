/* SPDX-License-Identifier: Apache-2.0 */
/* Secrets in files: 0600 or refused, written so that a crash leaves the old or the new one. */
#include "oidc_int.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "aead.h"
#include "encode.h"
#include "report.h"
#include "secret.h"

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
