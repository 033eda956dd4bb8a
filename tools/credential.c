/* SPDX-License-Identifier: Apache-2.0 */
#include "credential.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "key_socket.h"
#include "report.h"
#include "secret.h"
#include "slot_kas.h"
#include "terminal.h"

#define LINE_MAX_LEN 4096
#define KEYFILE_MAX ((size_t)1 << 20)

extern char **environ;

int credential_check(const struct credential_source *src)
{
	uint64_t fd;
	int lines = !!src->passfile + !!src->passfd + !!src->extpass;

	if (lines > 1)
		return fail(-EINVAL, "give one of --passfile, --passfd and --extpass, not several");
	if (src->keyfile && (lines || src->recovery))
		return fail(-EINVAL, "--keyfile stands alone: leave out --passfile, --passfd, --extpass and --recovery");
	if ((src->kas_trust || src->kas_socket) && (lines || src->keyfile || src->recovery || (src->kas_trust && src->kas_socket)))
		return fail(-EINVAL, "--kas-trust and --kas-socket stand alone: no other secret goes with them");
	if (src->passfd && (number_parse(src->passfd, &fd) || fd > 1 << 20))
		return fail(-EINVAL, "--passfd %s: not the number of a file descriptor", src->passfd);
	return 0;
}

/* One line without its newline, byte by byte: what follows belongs to somebody else (a second secret on the same descriptor). */
static int line_read(int fd, const char *from, struct credential *ret)
{
	uint8_t *buf = malloc(LINE_MAX_LEN);
	size_t len = 0;
	int err = 0;

	if (!buf)
		return -ENOMEM;
	for (;;) {
		char c;
		ssize_t n = read(fd, &c, 1);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			err = fail(-errno, "%s: %s", from, strerror(errno));
		if (n <= 0 || c == '\n')
			break;
		if (len == LINE_MAX_LEN) {
			err = fail(-EINVAL, "%s: the first line is longer than %d bytes", from, LINE_MAX_LEN);
			break;
		}
		buf[len++] = (uint8_t)c;
	}
	if (!err && len && buf[len - 1] == '\r')
		len--;
	if (!err && !len)
		err = fail(-EINVAL, "%s: the first line is empty, so there is no secret in it", from);
	if (err) {
		wipe(buf, LINE_MAX_LEN);
		free(buf);
		return err;
	}
	ret->bytes = buf;
	ret->len = len;
	return 0;
}

/* A file that others can read or change is no secret.  Pipes and descriptors are their maker's business. */
static int secret_open(const char *path, int *ret_fd)
{
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	struct stat st;

	if (fd < 0 || fstat(fd, &st)) /* EACCES is what a KAS says */
		return fail(errno == EACCES ? -EPERM : -errno, "%s: %s", path, strerror(errno));
	if (S_ISDIR(st.st_mode))
		return fail(-EISDIR, "%s: is a directory", path);
	if (S_ISREG(st.st_mode) && (st.st_mode & (S_IROTH | S_IWOTH | S_IWGRP)))
		return fail(-EPERM, "%s: others can read or change it (mode %04o); `chmod 600` it and choose a new secret", path,
			    st.st_mode & 07777);
	*ret_fd = fd;
	fd = -1;
	return 0;
}

static int from_file(const char *path, struct credential *ret)
{
	CLEANUP_FD int fd = -1;
	int err = secret_open(path, &fd);

	return err ? err : line_read(fd, path, ret);
}

static int from_keyfile(const char *path, struct credential *ret)
{
	CLEANUP_FD int fd = -1;
	uint8_t *buf;
	size_t len = 0;
	ssize_t n = 0;
	int err = secret_open(path, &fd);

	if (err)
		return err;
	buf = malloc(KEYFILE_MAX + 1);
	if (!buf)
		return -ENOMEM;
	while (len <= KEYFILE_MAX) {
		n = read(fd, buf + len, KEYFILE_MAX + 1 - len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		len += (size_t)n;
	}
	if (n < 0)
		err = fail(-errno, "%s: %s", path, strerror(errno));
	else if (len > KEYFILE_MAX)
		err = fail(-EFBIG, "%s: longer than 1 MiB: not a key file", path);
	else if (len < 16)
		err = fail(-EINVAL, "%s: a key file needs at least 16 bytes (32 random ones are right)", path);
	if (err) {
		wipe(buf, KEYFILE_MAX + 1);
		free(buf);
		return err;
	}
	ret->bytes = buf;
	ret->len = len;
	return 0;
}

static int from_program(const char *command, struct credential *ret)
{
	char name[] = "sh", flag[] = "-c";
	char *argv[] = {name, flag, (char *)command, NULL};
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t pipe_signal;
	int fds[2], status = 0, err;
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC))
		return -errno;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, fds[1], STDOUT_FILENO);
	/* the daemon ignores SIGPIPE; a program that prints more than the first line would complain instead of ending */
	sigemptyset(&pipe_signal);
	sigaddset(&pipe_signal, SIGPIPE);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setsigdefault(&attr, &pipe_signal);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGDEF);
	err = posix_spawn(&pid, "/bin/sh", &actions, &attr, argv, environ);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&actions);
	close(fds[1]);
	if (err) {
		close(fds[0]);
		return fail(-err, "--extpass: /bin/sh: %s", strerror(err));
	}
	err = line_read(fds[0], "--extpass", ret);
	close(fds[0]);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
		/* it may be killed by SIGPIPE for lines that nobody wants: only a status of its own is a failure */
		if (WIFEXITED(status) || err) {
			if (!err)
				credential_free(ret);
			return fail(-EINVAL, "--extpass: the command failed (status %d)",
				    WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
		}
	}
	return err;
}

static int from_terminal(const struct credential_source *src, const char *what, bool is_new, struct credential *ret)
{
	const char *noun = src->recovery ? "Recovery key" : is_new ? "New passphrase" : "Passphrase";
	struct credential again = {.kind = ret->kind};
	char prompt[512];

	for (int tries = 0; tries < 3; tries++) {
		bool same;
		int err;

		snprintf(prompt, sizeof(prompt), "%s for %s: ", noun, what);
		err = terminal_ask(prompt, &ret->bytes, &ret->len);
		if (err || !is_new)
			return err;
		snprintf(prompt, sizeof(prompt), "%s again: ", noun);
		err = terminal_ask(prompt, &again.bytes, &again.len);
		same = !err && ret->len == again.len && equal_ct(ret->bytes, again.bytes, ret->len);
		if (!err)
			credential_free(&again);
		if (same)
			return 0;
		credential_free(ret);
		if (err)
			return err;
		report(REPORT_ERROR, "the two are not the same; once more");
	}
	return fail(-EINVAL, "the passphrase was typed differently three times");
}

/* systemd's LoadCredential= puts it there, readable by the service alone. */
static int from_systemd(struct credential *ret)
{
	const char *dir = getenv("CREDENTIALS_DIRECTORY");
	CLEANUP_FREE char *path = NULL;

	if (!dir || dir[0] != '/')
		return -ENOENT;
	if (asprintf(&path, "%s/tdfs.passphrase", dir) < 0)
		return -ENOMEM;
	if (access(path, F_OK))
		return -ENOENT;
	return from_file(path, ret);
}

static int take_key(const struct secret *vk, struct credential *ret)
{
	ret->bytes = malloc(SECRET_LEN);
	if (!ret->bytes)
		return -ENOMEM;
	memcpy(ret->bytes, vk->b, SECRET_LEN);
	ret->len = SECRET_LEN;
	ret->kind = SLOT_KEY;
	return 0;
}

struct asking { /* somebody for the volume key */
	const struct credential_source *src;
	const struct kas_trusts *trusts;
	struct secret *vk; /* out */
};

/* By what volume.json says.  Where that leads to no key it may be damaged: nothing of it is authentic before the key is there.  Then by its
 * second copy. */
static int ask_copies(const char *store, int (*ask)(const struct volume *v, struct asking *a), struct asking *a)
{
	CLEANUP(volume_cleanup) struct volume *v = NULL, *bak = NULL;
	char text[400];
	int err = volume_peek(store, &v);

	if (err)
		return err == -EACCES ? -EPERM : err;
	err = ask(v, a);
	if ((err != -ENOKEY && err != -ENODATA) || v->from_backup)
		return err;
	snprintf(text, sizeof(text), "%s", fail_text());
	if (!volume_peek_backup(store, &bak) && !ask(bak, a))
		return 0;
	return *text ? fail(err, "%s", text) : err;
}

static int ask_kas(const struct volume *v, struct asking *a)
{
	if (!slot_kas_any(v, a->trusts) && !a->src->kas_trust)
		return -ENODATA;
	return slot_kas_open(v, a->trusts, &a->vk);
}

/* The volume key by a KAS; -ENODATA: none is trusted for this store, or it has no slot for one */
static int from_kas(const struct credential_source *src, const char *store, struct credential *ret)
{
	CLEANUP_TRUSTS struct kas_trusts trusts = {0};
	CLEANUP_FREE char *path = realpath(store, NULL);
	struct asking a = {src, &trusts, NULL};
	int err = path ? kas_trusts_load(src->kas_trust, path, &trusts) : -ENODATA;

	if (err == -EPROTO || err == -ENOTSUP) /* elsewhere these speak of a secret or a volume */
		err = -EINVAL;
	if (err || (!trusts.n && !src->kas_trust))
		return err ? err : -ENODATA;
	err = ask_copies(path, ask_kas, &a);
	if (!err)
		err = take_key(a.vk, ret);
	secret_free(a.vk);
	return err;
}

static int ask_socket(const struct volume *v, struct asking *a)
{
	return key_socket_get(a->src->kas_socket, v->id, &a->vk);
}

/* ... by a server of this user */
static int from_socket(const struct credential_source *src, const char *store, struct credential *ret)
{
	struct asking a = {src, NULL, NULL};
	int err = ask_copies(store, ask_socket, &a);

	if (!err)
		err = take_key(a.vk, ret);
	secret_free(a.vk);
	return err;
}

/* What nobody has named: a systemd credential, a KAS, the terminal. */
static int from_elsewhere(const struct credential_source *src, const char *what, struct credential *ret)
{
	char text[400];
	int err = from_systemd(ret), kas;

	if (err == -ENOENT)
		err = from_kas(src, what, ret);
	else
		return err;
	if (!err || err == -EINTR)
		return err;
	kas = err;
	snprintf(text, sizeof(text), "%s", fail_text());
	if (kas != -ENODATA && isatty(STDIN_FILENO))
		report(REPORT_NOTE, "%s: not opened by a KAS: %s", what, text);
	err = from_terminal(src, what, false, ret);
	return err == -ENXIO && kas != -ENODATA ? fail(kas, "%s", text) : err;
}

int credential_get(const struct credential_source *src, const char *what, bool is_new, struct credential *ret)
{
	struct credential c = {.kind = src->recovery ? SLOT_RECOVERY : src->keyfile ? SLOT_KEYFILE : SLOT_PASSPHRASE};
	uint64_t fd = 0;
	int err;

	fail_clear();
	err = credential_check(src);
	if (err)
		return err;
	if (src->keyfile) {
		err = from_keyfile(src->keyfile, &c);
	} else if (src->passfile) {
		err = from_file(src->passfile, &c);
	} else if (src->passfd) {
		err = number_parse(src->passfd, &fd);
		if (!err)
			err = line_read((int)fd, "--passfd", &c);
	} else if (src->extpass) {
		err = from_program(src->extpass, &c);
	} else if (src->kas_socket) {
		err = from_socket(src, what, &c);
	} else if (src->kas_trust) {
		err = from_kas(src, what, &c);
	} else {
		err = src->recovery || is_new ? from_terminal(src, what, is_new, &c) : from_elsewhere(src, what, &c);
	}
	if (err)
		return err;
	if (c.kind == SLOT_RECOVERY) {
		err = recovery_check((const char *)c.bytes, c.len);
		if (err) {
			credential_free(&c);
			return err;
		}
	}
	*ret = c;
	return 0;
}
