/* SPDX-License-Identifier: Apache-2.0 */
/* The connections of the server: who is at the other end, how long he may take, who waits for the issuer's keys.  serve_http.h. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>

#include "aead.h"
#include "encode.h"
#include "serve_http.h"

static int64_t clock_seconds(void)
{
	struct timespec now = {0};

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec;
}

static void list_add(struct front *f, struct conn *c)
{
	c->prev = f->last;
	c->next = NULL;
	*(f->last ? &f->last->next : &f->first) = c;
	f->last = c;
}

static void list_remove(struct front *f, struct conn *c)
{
	*(c->prev ? &c->prev->next : &f->first) = c->next;
	*(c->next ? &c->next->prev : &f->last) = c->prev;
}

/* The list is in the order of phases begun. */
void conn_phase(struct front *f, struct conn *c, enum phase phase, unsigned limit)
{
	mutex_lock(&f->lock);
	c->phase = phase;
	c->deadline = clock_seconds() + limit;
	list_remove(f, c);
	list_add(f, c);
	mutex_unlock(&f->lock);
}

uint64_t peer_hash(const struct front *f, const uint8_t b[16])
{
	bool v4 = IN6_IS_ADDR_V4MAPPED((const struct in6_addr *)(const void *)b);
	/* one site has as many IPv6 addresses as it likes; those of IPv4 all have the same /64 */
	const struct part parts[2] = {{f->salt, sizeof(f->salt)}, {v4 ? b + 12 : b, v4 ? 4 : 8}};
	uint8_t hash[32] = {0};

	(void)!sha256(parts, 2, hash);
	return get_le64(hash);
}

void peer_text(const uint8_t b[16], char ret[static INET6_ADDRSTRLEN])
{
	bool v4 = IN6_IS_ADDR_V4MAPPED((const struct in6_addr *)(const void *)b);

	if (!inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? b + 12 : b, ret, INET6_ADDRSTRLEN))
		snprintf(ret, INET6_ADDRSTRLEN, "?");
}

static void peer_set(struct front *f, struct conn *c, const struct sockaddr *a)
{
	char text[INET6_ADDRSTRLEN] = "?";
	uint8_t b[16] = {0};
	unsigned port = 0;

	if (address_of(a, b)) {
		peer_text(b, text);
		port = ntohs(a->sa_family == AF_INET ? ((const struct sockaddr_in *)a)->sin_port
						     : ((const struct sockaddr_in6 *)a)->sin6_port);
		c->proxy = address_in(&f->config->proxies, b);
	}
	c->peer_hash = peer_hash(f, b);
	snprintf(c->peer, sizeof(c->peer), "%s port %u", text, port);
}

/* A unix socket: only we ourselves. */
static void peer_local(struct conn *c)
{
	struct ucred who = {.uid = (uid_t)-1};
	socklen_t len = sizeof(who);

	c->local = true;
	if (getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &who, &len) || who.uid != geteuid())
		c->refused = true;
	c->uid = who.uid;
	snprintf(c->peer, sizeof(c->peer), "pid %ld", (long)who.pid);
}

/* All places taken: of those whose request is not there, or the body of one without a token, the oldest goes.  Caller holds the lock. */
static void make_place(struct front *f)
{
	if (f->n_conns < f->config->connections)
		return;
	for (struct conn *c = f->first; c; c = c->next)
		if (c->phase == PHASE_HEAD && !c->dead) {
			c->dead = true;
			shutdown(c->fd, SHUT_RDWR);
			return;
		}
}

static void conn_started(struct front *f, struct MHD_Connection *mc, void **ctx)
{
	const union MHD_ConnectionInfo *fd = mhd_api->get_connection_info(mc, MHD_CONNECTION_INFO_CONNECTION_FD),
				       *addr = mhd_api->get_connection_info(mc, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
	struct conn *c = calloc(1, sizeof(*c));

	*ctx = c;
	if (!c || !fd)
		return;
	c->fd = fd->connect_fd;
	c->mhd = mc;
	if (f->config->is_unix)
		peer_local(c);
	else
		peer_set(f, c, addr ? addr->client_addr : NULL);
	if (c->refused)
		shutdown(c->fd, SHUT_RDWR);
	mutex_lock(&f->lock);
	make_place(f);
	f->n_conns++;
	c->deadline = clock_seconds() + f->config->idle;
	list_add(f, c);
	mutex_unlock(&f->lock);
}

static void conn_closed(struct front *f, void **ctx)
{
	struct conn *c = *ctx;

	if (!c)
		return;
	mutex_lock(&f->lock);
	list_remove(f, c);
	f->n_conns--;
	mutex_unlock(&f->lock);
	free(c);
	*ctx = NULL;
}

void conn_event(void *cls, struct MHD_Connection *mc, void **ctx, enum MHD_ConnectionNotificationCode code)
{
	if (code == MHD_CONNECTION_NOTIFY_STARTED)
		conn_started(cls, mc, ctx);
	else
		conn_closed(cls, ctx);
}

void front_reap(struct front *f)
{
	int64_t now = clock_seconds();

	mutex_lock(&f->lock);
	for (struct conn *c = f->first; c; c = c->next)
		if (!c->dead && !c->waiting && now > c->deadline) {
			c->dead = true;
			shutdown(c->fd, SHUT_RDWR); /* libmicrohttpd sees the end of the stream and cleans up */
		}
	mutex_unlock(&f->lock);
}

/* --- waiting for the issuer's keys --- */

void front_keys_done(void *arg)
{
	struct front *f = arg;
	struct MHD_Connection **due;
	size_t n = 0;

	mutex_lock(&f->lock);
	__atomic_fetch_add(&f->n_done, 1, __ATOMIC_RELEASE);
	due = calloc(f->n_conns + 1, sizeof(*due));
	for (struct conn *c = f->first; c && due; c = c->next)
		if (c->waiting) {
			c->waiting = false;
			due[n++] = c->mhd;
		}
	mutex_unlock(&f->lock);
	/* those that are suspended cannot go before they are resumed */
	for (size_t i = 0; i < n; i++)
		mhd_api->resume_connection(due[i]);
	free(due);
}

/* Unless the keys came since @seen: then it is worth another look at once. */
bool conn_suspend(struct front *f, struct conn *c, uint64_t seen)
{
	bool yes;

	mutex_lock(&f->lock);
	yes = f->n_done == seen && !f->stopping;
	if (yes) {
		c->waiting = true;
		mhd_api->suspend_connection(c->mhd);
	}
	mutex_unlock(&f->lock);
	return yes;
}
