/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `tdfs kas serve`: the embedded KAS over the OpenTDF protocol, for any client.  PROTOCOL.md has every path, form and limit.
 *
 * Order: serve_config_load(), serve_listen_...() (may need rights), serve_drop(), serve_new() (opens the audit log), serve_run().
 */
#ifndef TDFS_SERVE_H
#define TDFS_SERVE_H

#include <signal.h>

#include "kas.h"
#include "url.h"

struct access;

struct serve_config {
	/* of the file; owned */
	char *issuer, *audience;
	char *url; /* what clients reach the server by; no slash at the end */
	char *jwks_uri, *jwks_file, *ca_file;
	char *allow;    /* private addresses that the issuer may have, address_list_parse() */
	char *base_key; /* algorithm of the key named as base key, "" none */
	bool dpop_required, dpop_nonce;
	struct address_list proxies; /* who may say, in @proxy_header, for whom he asks */
	const char *proxy_header;    /* "X-Forwarded-For" or "Forwarded" */
	struct json_t *cors;         /* origins whose pages may ask, ["*"]: all; NULL: none; owned */
	double failures; /* per second and peer: tokens that are not good; and per caller: request tokens that are not */
	double keys;     /* per second and caller */
	unsigned connections;
	unsigned idle, receive, send; /* seconds: for the head of a request, for its body, for the answer */
	struct access *access;
	/* set by the caller; borrowed */
	const char *audit;      /* file, "-" */
	struct secret *volume_key; /* given out over a unix socket; NULL: none; owned */
	uint8_t volume_id[16];
	const char *cert, *key; /* PEM text; NULL: no TLS */
	int listen_fd;          /* of serve_listen(); owned once serve_run() is called */
	bool is_unix;
};

/** serve_config_load() - the configuration file; everything in it is bounded, unknown members are refused
 * @path: NULL: that of a unix socket, without rules and tokens.  0; -EPROTO (fail() names the member); -errno.  Free with
 * serve_config_free() */
int serve_config_load(const char *path, struct serve_config **ret) MUST_CHECK;
void serve_config_free(struct serve_config *c);

/** serve_listen_tcp() - @address: "HOST:PORT", "[::1]:8443", ":8443" for all addresses.  serve_listen_unix(): a socket of mode 0600 at
 * @path; one that nobody listens on is replaced.  serve_listen_given(): the socket that systemd passed (sd_listen_fds(3)); -ENOENT none.
 * All: 0 and the descriptor; -errno, fail() tells */
int serve_listen_tcp(const char *address, int *ret) MUST_CHECK;
int serve_listen_unix(const char *path, int *ret) MUST_CHECK;
int serve_listen_given(int *ret, bool *ret_unix) MUST_CHECK;
/** serve_is_loopback() - does the socket take connections of this machine only? */
bool serve_is_loopback(int fd);

/** serve_drop() - become @user for good: groups, ids, no new privileges.  0; -ENOENT no such user; -EPERM.  fail() tells */
int serve_drop(const char *user) MUST_CHECK;

struct serve; /* opaque */

/** serve_new() - everything but the network
 * @c, @kas: borrowed until serve_free().  0; -errno, fail() tells */
int serve_new(struct serve_config *c, struct kas *kas, struct serve **ret) MUST_CHECK;
void serve_free(struct serve *s);
/** serve_run() - answer until one of SIGINT, SIGTERM comes; SIGHUP: the audit log is opened anew, and the issuer's keys fetched
 * @signals: blocked by the caller in every thread.  @ready: called when connections are taken.  0; -errno, fail() tells */
int serve_run(struct serve *s, const sigset_t *signals, void (*ready)(void)) MUST_CHECK;

#endif
