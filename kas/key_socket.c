/* SPDX-License-Identifier: Apache-2.0 */
#include "key_socket.h"

#include <jansson.h>

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

#include "aead.h"
#include "encode.h"
#include "pubkey.h"
#include "report.h"

#define ANSWER_MAX ((size_t)64 << 10)
#define WAIT_S 10 /* for all of it */

static int ours_alone(const char *path, const struct stat *st)
{
	if ((st->st_uid != geteuid() && st->st_uid) || st->st_mode & (S_IWGRP | S_IWOTH))
		return fail(-EPERM,
			    "%s: others could have put a server there (user %u, mode %04o): a socket belongs into a directory that only "
			    "you write, as $XDG_RUNTIME_DIR",
			    path, (unsigned)st->st_uid, (unsigned)st->st_mode & 07777);
	return 0;
}

/* Of the socket and its directory, links resolved. */
static int place_check(const char *path, char ret_full[static PATH_MAX])
{
	struct stat st;
	char *slash;
	int err;

	if (!realpath(path, ret_full))
		return errno == ENOENT ? fail(-ETIMEDOUT, "%s: nobody serves keys there: `tdfs kas serve --socket %s STORE`", path, path)
				       : fail(-EPERM, "%s: %s", path, strerror(errno));
	if (lstat(ret_full, &st) || !S_ISSOCK(st.st_mode))
		return fail(-EINVAL, "%s: not a socket", path);
	err = ours_alone(ret_full, &st);
	slash = strrchr(ret_full, '/');
	if (!err) {
		*slash = '\0';
		err =
		    lstat(*ret_full ? ret_full : "/", &st) ? fail(-EPERM, "%s: %s", ret_full, strerror(errno)) : ours_alone(ret_full, &st);
		*slash = '/';
	}
	return err;
}

static int64_t now_ms(void)
{
	struct timespec now = {0, 0};

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Until something can be sent or received; 0 or -ETIMEDOUT */
static int ready(int fd, short events, int64_t until)
{
	struct pollfd p = {.fd = fd, .events = events};
	int64_t left = until - now_ms();
	int n;

	while ((n = left > 0 ? poll(&p, 1, (int)left) : 0) < 0 && errno == EINTR)
		left = until - now_ms();
	return n > 0 ? 0 : -ETIMEDOUT;
}

static int connect_to(int fd, const struct sockaddr_un *a, int64_t until)
{
	/* EAGAIN: its queue is full; nothing tells when it is not */
	while (connect(fd, (const struct sockaddr *)a, sizeof(*a))) {
		if (errno != EINTR && errno != EAGAIN)
			return -errno;
		if (now_ms() >= until)
			return -ETIMEDOUT;
		nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
	}
	return 0;
}

static int reach(const char *path, int64_t until, int *ret)
{
	CLEANUP_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	struct ucred who = {.uid = (uid_t)-1};
	socklen_t len = sizeof(who);
	char full[PATH_MAX];
	int err = place_check(path, full);

	if (err)
		return err;
	if (strlen(full) >= sizeof(a.sun_path))
		return fail(-EINVAL, "%s: the path of a socket has at most %zu bytes", full, sizeof(a.sun_path) - 1);
	memcpy(a.sun_path, full, strlen(full) + 1);
	if (fd < 0)
		return fail(-ENOMEM, "%s: %s", path, strerror(errno));
	err = connect_to(fd, &a, until);
	if (err)
		return fail(-ETIMEDOUT, "%s: nobody serves keys there: %s", path, strerror(-err));
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) || (who.uid != geteuid() && who.uid))
		return fail(-EACCES, "%s: user %u listens there, not you", path, (unsigned)who.uid);
	*ret = fd;
	fd = -1;
	return 0;
}

static int send_all(int fd, const char *path, const char *text, int64_t until)
{
	for (size_t at = 0, all = strlen(text); at < all;) {
		ssize_t n = send(fd, text + at, all - at, MSG_NOSIGNAL);

		if (n > 0)
			at += (size_t)n;
		else if (errno == EAGAIN && ready(fd, POLLOUT, until))
			return fail(-ETIMEDOUT, "%s: it takes no question, for %d s", path, WAIT_S);
		else if (errno != EAGAIN && errno != EINTR)
			return fail(errno == EPIPE || errno == ECONNRESET ? -EACCES : -ETIMEDOUT, "%s: it does not talk to us: %s", path,
				    strerror(errno));
	}
	return 0;
}

/* HTTP/1.1, one request and the end: @ret has all that came, a NUL behind it */
static int exchange(int fd, const char *path, const char *body, int64_t until, char **ret)
{
	CLEANUP_FREE char *text = NULL;
	CLEANUP_FREE char *answer = malloc(ANSWER_MAX + 1);
	size_t len = 0;
	ssize_t n = 1;
	int err;

	if (asprintf(&text,
		     "POST " VOLUME_KEY_PATH " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n"
		     "Connection: close\r\n\r\n%s",
		     strlen(body), body) < 0) {
		text = NULL;
		return -ENOMEM;
	}
	if (!answer)
		return -ENOMEM;
	err = send_all(fd, path, text, until);
	while (!err && n && len < ANSWER_MAX) {
		err = ready(fd, POLLIN, until);
		n = err ? 0 : recv(fd, answer + len, ANSWER_MAX - len, 0);
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n < 0)
			return fail(len ? -ETIMEDOUT : -EACCES, "%s: it does not talk to us: %s", path, strerror(errno));
		len += (size_t)n;
	}
	if (err)
		return *fail_text() ? err : fail(err, "%s: no whole answer in %d s", path, WAIT_S);
	if (len == ANSWER_MAX)
		return fail(-ETIMEDOUT, "%s: its answer has no end", path);
	if (!len)
		return fail(-EACCES, "%s: it does not talk to us", path);
	answer[len] = '\0';
	*ret = STEAL(answer);
	return 0;
}

/* The JSON behind the head, a new reference; @ret_status */
static int body_of(const char *path, const char *answer, int *ret_status, json_t **ret)
{
	const char *end = strstr(answer, "\r\n\r\n"), *code = answer + strlen("HTTP/1.x ");

	if (!end || strncmp(answer, "HTTP/1.", 7) || end < code + 3 || strspn(code, "0123456789") != 3)
		return fail(-ETIMEDOUT, "%s: what answers is no KAS", path);
	*ret_status = (int)strtol(code, NULL, 10);
	*ret = json_loads(end + 4, JSON_REJECT_DUPLICATES, NULL);
	return 0;
}

static int key_open(EVP_PKEY *own, const json_t *o, struct secret **ret)
{
	const char *pem = json_string_value(json_object_get(o, "sessionPublicKey")),
		   *b64 = json_string_value(json_object_get(o, "wrappedKey"));
	CLEANUP_SECRET struct secret *kek = NULL;
	CLEANUP_SECRET struct secret *vk = secret_new();
	uint8_t wrapped[EC_WRAPPED_LEN];
	size_t len = 0;
	int err = vk ? 0 : -ENOMEM;

	if (!err && (!pem || !b64 || base64_decode(b64, strlen(b64), false, wrapped, sizeof(wrapped), &len) || len != sizeof(wrapped)))
		err = -EPROTO;
	if (!err)
		err = ec_kek_of(own, pem, &kek);
	if (!err)
		err = aead_open(kek, wrapped, len, NULL, vk->b);
	if (!err)
		*ret = STEAL(vk);
	return err;
}

int key_socket_get(const char *path, const uint8_t id[static ID_LEN], struct secret **ret)
{
	CLEANUP_FREE char *body = NULL, *pem = NULL, *answer = NULL;
	EVP_PKEY *own = NULL;
	CLEANUP_FD int fd = -1;
	json_t *o = NULL;
	char uuid[37];
	int64_t until = now_ms() + WAIT_S * 1000;
	int status = 0, err;

	fail_clear();
	err = reach(path, until, &fd);
	if (err)
		return err;
	uuid_format(id, uuid);
	own = pubkey_new_ec();
	pem = own ? pubkey_pem(own) : NULL;
	o = pem ? json_pack("{s:s, s:s}", "volumeId", uuid, "clientPublicKey", pem) : NULL;
	body = o ? json_dumps(o, JSON_COMPACT) : NULL;
	json_decref(o);
	o = NULL;
	err = body ? exchange(fd, path, body, until, &answer) : -ENOMEM;
	if (!err)
		err = body_of(path, answer, &status, &o);
	if (!err && status == 404)
		err = fail(-ENOKEY, "%s: it does not serve this volume", path);
	if (!err && status != 200)
		err = fail(-ETIMEDOUT, "%s: it answers with HTTP status %d", path, status);
	if (!err && (err = key_open(own, o, ret)) && err != -ENOMEM)
		err = fail(-ENOKEY, "%s: its answer is no key", path);
	json_decref(o);
	EVP_PKEY_free(own);
	return err;
}
