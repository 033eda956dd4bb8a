/* SPDX-License-Identifier: Apache-2.0 */
/* The server's listening socket, and giving up the rights that were needed for it. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netdb.h>
#include <pwd.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "report.h"
#include "serve.h"

#define BACKLOG 1024
#define FIRST_FD 3 /* sd_listen_fds(3) */

/* "HOST:PORT", "[ADDRESS]:PORT", ":PORT" */
static int split(const char *address, char *host, size_t max, const char **ret_port)
{
	const char *colon = strrchr(address, ':'), *end = colon;
	size_t bracket = *address == '[';

	if (!colon || !colon[1] || (bracket && (colon == address + 1 || colon[-1] != ']')))
		return fail(-EINVAL, "%s: an address is HOST:PORT, [ADDRESS]:PORT or :PORT", address);
	end -= bracket;
	if ((size_t)(end - address) - bracket >= max)
		return fail(-EINVAL, "%s: the host's name is too long", address);
	memcpy(host, address + bracket, (size_t)(end - address) - bracket);
	host[(size_t)(end - address) - bracket] = '\0';
	*ret_port = colon + 1;
	return 0;
}

static int listen_on(const struct addrinfo *a)
{
	int fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol), on = 1, off = 0, err;

	if (fd < 0)
		return -errno;
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (a->ai_family == AF_INET6) /* "[::]" is for both */
		(void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	if (bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0)
		return fd;
	err = -errno;
	close(fd);
	return err;
}

int serve_listen_tcp(const char *address, int *ret)
{
	const struct addrinfo hints = {.ai_flags = AI_PASSIVE | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM};
	struct addrinfo *list = NULL;
	const char *port = NULL;
	char host[256];
	int err = split(address, host, sizeof(host), &port), rc, fd = -EADDRNOTAVAIL;

	if (err)
		return err;
	/* all addresses: by IPv6, which takes both */
	rc = getaddrinfo(*host ? host : "::", port, &hints, &list);
	if (rc)
		return fail(-EINVAL, "%s: %s", address, gai_strerror(rc));
	for (const struct addrinfo *a = list; a && fd < 0; a = a->ai_next)
		fd = listen_on(a);
	freeaddrinfo(list);
	if (fd < 0 && !*host && getaddrinfo("0.0.0.0", port, &hints, &list) == 0) {
		fd = listen_on(list);
		freeaddrinfo(list);
	}
	if (fd < 0)
		return fail(fd, "%s: %s%s", address, strerror(-fd), fd == -EADDRINUSE ? ": another program listens there" : "");
	*ret = fd;
	return 0;
}

/* A socket that a server left behind: nobody answers. */
static int remove_stale(const struct sockaddr_un *a)
{
	CLEANUP_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct stat st;

	if (lstat(a->sun_path, &st))
		return errno == ENOENT ? 0 : fail(-errno, "%s: %s", a->sun_path, strerror(errno));
	if (!S_ISSOCK(st.st_mode))
		return fail(-EEXIST, "%s is there and is not a socket", a->sun_path);
	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)a, sizeof(*a)) == 0)
		return fail(-EADDRINUSE, "%s: another server listens there", a->sun_path);
	return unlink(a->sun_path) ? fail(-errno, "%s: %s", a->sun_path, strerror(errno)) : 0;
}

int serve_listen_unix(const char *path, int *ret)
{
	CLEANUP_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	mode_t mask;
	int err;

	if (fd < 0)
		return -errno;
	if (!*path || strlen(path) >= sizeof(a.sun_path))
		return fail(-EINVAL, "%s: the path of a socket has 1 to %zu bytes", path, sizeof(a.sun_path) - 1);
	memcpy(a.sun_path, path, strlen(path) + 1);
	err = remove_stale(&a);
	if (err)
		return err;
	mask = umask(0177); /* 0600 from the first moment; no thread is there yet */
	err = bind(fd, (const struct sockaddr *)&a, sizeof(a)) || listen(fd, BACKLOG) ? -errno : 0;
	umask(mask);
	if (err)
		return fail(err, "%s: %s", path, strerror(-err));
	*ret = fd;
	fd = -1;
	return 0;
}

int serve_listen_given(int *ret, bool *ret_unix)
{
	const char *pid = getenv("LISTEN_PID"), *n = getenv("LISTEN_FDS");
	struct sockaddr_storage a = {0};
	socklen_t len = sizeof(a), on_len = sizeof(int);
	int on = 0;

	if (!pid || !n || strtol(pid, NULL, 10) != (long)getpid() || strcmp(n, "0") == 0)
		return -ENOENT;
	if (strcmp(n, "1"))
		return fail(-EINVAL, "%s sockets were passed: one can be served", n);
	if (getsockname(FIRST_FD, (struct sockaddr *)&a, &len) || getsockopt(FIRST_FD, SOL_SOCKET, SO_ACCEPTCONN, &on, &on_len) || !on)
		return fail(-EINVAL, "the descriptor that was passed is not a listening socket (Accept=no, ListenStream=)");
	if (fcntl(FIRST_FD, F_SETFD, FD_CLOEXEC))
		return -errno;
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_FDNAMES");
	*ret = FIRST_FD;
	*ret_unix = a.ss_family == AF_UNIX;
	return 0;
}

bool serve_is_loopback(int fd)
{
	struct sockaddr_storage a = {0};
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&a;
	socklen_t len = sizeof(a);

	if (getsockname(fd, (struct sockaddr *)&a, &len))
		return false;
	if (a.ss_family == AF_INET)
		return ntohl(((const struct sockaddr_in *)&a)->sin_addr.s_addr) >> 24 == 127;
	return a.ss_family == AF_UNIX || (a.ss_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr));
}

int serve_drop(const char *user)
{
	const struct passwd *p = getpwnam(user);

	if (!p)
		return fail(-ENOENT, "there is no user %s", user);
	if (setgroups(0, NULL) || setresgid(p->pw_gid, p->pw_gid, p->pw_gid) || setresuid(p->pw_uid, p->pw_uid, p->pw_uid))
		return fail(-EPERM, "cannot become %s: %s", user, strerror(errno));
	if (p->pw_uid && setuid(0) == 0)
		return fail(-EPERM, "the rights of root do not go away");
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return fail(-EPERM, "new privileges cannot be ruled out: %s", strerror(errno));
	return 0;
}
