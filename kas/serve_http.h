/* SPDX-License-Identifier: Apache-2.0 */
/* The server's sockets.  Private to kas/serve*.c. */
#ifndef TDFS_SERVE_HTTP_H
#define TDFS_SERVE_HTTP_H

#include "lazy_i.h"
#include <netinet/in.h>

#include "lock.h"
#include "serve_i.h"

enum phase { PHASE_HEAD /* or a body without a good token */, PHASE_BODY, PHASE_ANSWER };

struct conn {
	/* fixed once it is in the list */
	int fd;
	struct MHD_Connection *mhd;
	bool local, refused;
	bool proxy; /* one of ours: who asks is in a header */
	uid_t uid;
	uint64_t peer_hash;
	char peer[72];

	/* guarded by front->lock */
	struct conn *prev, *next;
	enum phase phase;
	int64_t deadline; /* CLOCK_MONOTONIC seconds: the phase must be over */
	bool dead, waiting;
};

#define FRONT_CALLERS 4096

struct front {
	/* fixed after front_start(); mhd NULL before */
	struct serve *serve;
	const struct serve_config *config;
	struct MHD_Daemon *mhd;
	uint8_t salt[16];

	size_t bodies; /* bytes of bodies in memory; atomic, as are those of callers, by salted hash: two may have to share */
	size_t callers[FRONT_CALLERS];

	struct mutex lock; /* held over MHD_suspend_connection(), not over anything else of libmicrohttpd */
	/* guarded by lock */
	struct conn *first, *last;
	size_t n_conns;
	uint64_t n_done; /* attempts at the issuer's keys; read without the lock, too */
	bool stopping;   /* likewise */
};

/** front_init() - before front_keys_done() may be called; 0, -EIO */
int front_init(struct front *f) MUST_CHECK;
/** front_start() - take connections on config->listen_fd; 0; -EIO, fail() tells */
int front_start(struct front *h) MUST_CHECK;
/** front_stop() - no new ones; answers under way have 5 seconds */
void front_stop(struct front *h);
/** front_reap() - cut off who is late; to be called about once a second */
void front_reap(struct front *h);
/** front_keys_done() - the issuer's keys were asked for: go on with who waits for them */
void front_keys_done(void *arg);

/* serve_conn.c, for serve_http.c */
void conn_event(void *front, struct MHD_Connection *mc, void **ctx, enum MHD_ConnectionNotificationCode code);
/** peer_hash() - whom failures of this address (IPv6: its /64) are counted for; peer_text(): as it is written */
uint64_t peer_hash(const struct front *f, const uint8_t address[16]);
void peer_text(const uint8_t address[16], char ret[static INET6_ADDRSTRLEN]);
/** proxy_client() - serve_proxy.c: the address that c->proxy_header gives for who is behind our proxies; false: none */
bool proxy_client(const struct serve_config *c, struct MHD_Connection *mc, uint8_t ret[16]);
/** conn_phase() - a phase begins, which may take so many seconds */
void conn_phase(struct front *f, struct conn *c, enum phase phase, unsigned limit);
/** conn_suspend() - wait for the issuer's keys, unless they came since @seen (of f->n_done): then another look at once is worth it */
bool conn_suspend(struct front *f, struct conn *c, uint64_t seen) MUST_CHECK;

#endif
