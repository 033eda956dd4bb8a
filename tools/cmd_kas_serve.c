/* SPDX-License-Identifier: Apache-2.0 */
/* tdfs kas serve: other clients get keys from this volume's KAS, if they may. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "cmd_kas.h"
#include "io.h"
#include "report.h"
#include "say.h"
#include "secret.h"
#include "serve.h"
#include "service.h"
#include "target.h"

#define PEM_MAX ((size_t)256 << 10)
#define LISTEN_DEFAULT "127.0.0.1:8443"

struct args {
	struct credential_source cred;
	const char *config, *listen, *socket, *cert, *key, *kas_key, *user, *audit;
	bool no_tls;
};

static int wrong(const char *text)
{
	report(REPORT_ERROR, "kas serve: %s", text);
	return EXIT_TDFS_USAGE;
}

static int check_args(const struct args *a, int n)
{
	if ((n == 1) == (a->kas_key != NULL))
		return wrong("name the STORE whose KAS is to be served, or --kas-key FILE");
	if (a->socket && (a->config || a->listen || a->cert || a->key || a->no_tls))
		return wrong("--socket is for this user alone: no configuration, address or certificate goes with it");
	if (!a->socket && !a->config)
		return wrong("--config FILE is needed: whose tokens count, and who may open what (see tdfs(1))");
	if (!a->cert != !a->key)
		return wrong("--cert and --key go together");
	if (a->cert && a->no_tls)
		return wrong("--no-tls and --cert are contradictory");
	return EXIT_TDFS_OK;
}

/* The KAS's keys; of the volume nothing else is kept, but its own key where that may be asked for. */
static int open_keys(const struct args *a, char **pos, struct serve_config *c, struct kas **ret, char **ret_url)
{
	CLEANUP(volume_cleanup) struct volume *v = NULL;
	int code, err;

	if (a->kas_key) {
		*ret = kas_new();
		fail_clear();
		err = *ret ? kas_add_key_file(*ret, a->kas_key) : -ENOMEM;
		return err ? complain(err, NULL, NULL) : EXIT_TDFS_OK;
	}
	code = volume_get(pos[0], &a->cred, &v);
	if (code)
		return code;
	if (c->is_unix)
		c->volume_key = STEAL(v->vk);
	memcpy(c->volume_id, v->id, sizeof(c->volume_id));
	*ret = STEAL(v->kas);
	*ret_url = STEAL(v->kas_url);
	return EXIT_TDFS_OK;
}

/* @ret_made: the socket's file is ours to remove, not systemd's */
static int open_socket(const struct args *a, struct serve_config *c, bool *ret_made)
{
	int err = serve_listen_given(&c->listen_fd, &c->is_unix);

	if (err == -ENOENT && a->socket) {
		c->is_unix = true;
		err = serve_listen_unix(a->socket, &c->listen_fd);
		*ret_made = !err;
	} else if (err == -ENOENT) {
		err = serve_listen_tcp(a->listen ? a->listen : LISTEN_DEFAULT, &c->listen_fd);
	}
	if (!err && c->is_unix && a->config)
		err = fail(-EINVAL, "a unix socket was passed: it serves this user alone, without --config");
	if (!err && !c->is_unix && !a->config)
		err = fail(-EINVAL, "a TCP socket was passed: --config says who may open what");
	if (!err && !c->is_unix && !a->cert && !a->no_tls && !serve_is_loopback(c->listen_fd))
		err = fail(
		    -EINVAL,
		    "tokens and keys would cross the network in clear text: --cert and --key, or --no-tls behind a proxy that does TLS");
	return err;
}

/* The key is read with the rights we start with. */
static int read_pem(const char *path, bool secret, char **ret)
{
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	struct stat st;
	ssize_t n;
	char *p;

	if (fd < 0 || fstat(fd, &st))
		return fail(-errno, "%s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode) || st.st_size <= 0 || st.st_size > (off_t)PEM_MAX)
		return fail(-EINVAL, "%s is no PEM file", path);
	if (secret && st.st_mode & S_IRWXO)
		return fail(-EPERM, "%s may be read by others: chmod o-rwx it", path);
	p = calloc(1, (size_t)st.st_size + 1);
	n = p ? pread(fd, p, (size_t)st.st_size, 0) : -1;
	if (n != st.st_size) {
		free(p);
		return fail(-EIO, "%s cannot be read", path);
	}
	*ret = p;
	return 0;
}

static void ready(void)
{
	report(REPORT_NOTE, "the KAS is being served");
	service_tell("READY=1");
}

static int run(const struct args *a, struct serve_config *c, struct kas *kas, const char *url)
{
	struct serve *s = NULL;
	sigset_t signals;
	int err = 0;

	if (url && !c->is_unix && strncmp(url, c->url, strlen(c->url)))
		report(REPORT_WARN, "this volume's files name %s as their KAS, not %s: other clients will ask there", url, c->url);
	if (a->user)
		err = serve_drop(a->user);
	else if (geteuid() == 0 && !c->is_unix)
		err = fail(-EPERM, "started as root: --user NAME says whose rights to go on with");
	if (err)
		return err;
	process_private(); /* once more after the change of user, which makes a process as readable as before */
	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGHUP);
	signal(SIGPIPE, SIG_IGN);
	if (sigprocmask(SIG_BLOCK, &signals, NULL))
		return -errno;
	if (a->audit)
		c->audit = a->audit;
	err = serve_new(c, kas, &s);
	if (!err)
		err = serve_run(s, &signals, ready);
	service_tell("STOPPING=1");
	serve_free(s);
	return err;
}

static int serve_main(const void *args, int n, char **pos)
{
	const struct args *a = args;
	struct serve_config *c = NULL;
	CLEANUP_FREE char *cert = NULL, *key = NULL, *url = NULL;
	struct kas *kas = NULL;
	int code = check_args(a, n), err = 0;
	bool made = false;

	if (code)
		return code;
	fail_clear();
	err = serve_config_load(a->config, &c);
	if (!err)
		err = open_socket(a, c, &made);
	if (!err && a->cert)
		err = read_pem(a->cert, false, &cert);
	if (!err && a->key)
		err = read_pem(a->key, true, &key);
	if (!err && !(code = open_keys(a, pos, c, &kas, &url))) {
		c->cert = cert;
		c->key = key;
		err = run(a, c, kas, url);
	}
	if (made)
		(void)unlink(a->socket);
	if (key)
		wipe(key, strlen(key));
	serve_config_free(c);
	kas_free(kas);
	return err ? complain(err, NULL, NULL) : code;
}

static const struct option_row rows[] = {
    {OPTION_TEXT, 0, "config", "FILE", offsetof(struct args, config), "issuer, audience, rules and limits, JSON"},
    {OPTION_TEXT, 0, "listen", "ADDRESS", offsetof(struct args, listen), "HOST:PORT or :PORT (default " LISTEN_DEFAULT ")"},
    {OPTION_TEXT, 0, "socket", "PATH", offsetof(struct args, socket), "a unix socket for this user's processes instead"},
    {OPTION_TEXT, 0, "cert", "FILE", offsetof(struct args, cert), "certificate chain, PEM"},
    {OPTION_TEXT, 0, "key", "FILE", offsetof(struct args, key), "its private key, PEM"},
    {OPTION_FLAG, 0, "no-tls", NULL, offsetof(struct args, no_tls), "behind a proxy that does TLS"},
    {OPTION_TEXT, 0, "user", "NAME", offsetof(struct args, user), "go on with this user's rights"},
    {OPTION_TEXT, 0, "audit", "FILE", offsetof(struct args, audit), "append the audit log here (default: stdout)"},
    {OPTION_TEXT, 0, "kas-key", "FILE", offsetof(struct args, kas_key), "keys from FILE, without a volume"},
    CREDENTIAL_ROWS(struct args, cred),
    {0},
};

const struct command kas_serve = {
    .name = "serve",
    .summary = "serve the volume's KAS to OpenTDF clients",
    .usage = "--config FILE [STORE]",
    .notes = "Stays in the foreground; takes a socket from systemd. SIGHUP: audit log opened\n"
	     "anew, issuer's keys fetched. The configuration is described in tdfs(5).\n",
    .options = rows,
    .args_size = sizeof(struct args),
    .min_args = 0,
    .max_args = 1,
    .run = serve_main,
};
