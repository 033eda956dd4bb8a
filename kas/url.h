/* SPDX-License-Identifier: Apache-2.0 */
/*
 * URLs of services and the addresses behind them, judged before anything is sent: url_parse() before a name is resolved, address_check()
 * before a connection is made. RFC 3986, much narrowed: what a KAS or an issuer has no need of is refused, so that two readers of one URL
 * cannot disagree about where it leads.  Pure; thread-safe.
 */
#ifndef TDFS_URL_H
#define TDFS_URL_H

#include <netinet/in.h>
#include <sys/socket.h>

#include "defs.h"

#define URL_MAX 2048
#define URL_HOST_MAX 253

enum url_host { URL_NAME, URL_LOCALHOST, URL_IPV4, URL_IPV6 };

struct url {
	bool https;
	enum url_host kind;
	uint16_t port;               /* always set */
	char host[URL_HOST_MAX + 1]; /* lower case; IPv6 without brackets */
	char path[URL_MAX];          /* "" or from '/' on, with the query; no final '/' */
};

/** url_parse() - @text: scheme and host in any case
 * Refused: other schemes, http to anything but localhost and loopback addresses, userinfo, fragments, a query (unless @query), characters
 * that are not printable ASCII, '\' and '%' outside the path, host names other than letters, digits and '-' in labels (an IDN has to be
 * given as xn--), a final dot, numbers that are no plain IPv4 address, zone ids, port 0, dot segments. 0; -EINVAL (fail() says which rule)
 */
int url_parse(const char *text, bool query, struct url *ret) MUST_CHECK;
/** url_same_origin() - scheme, host and port */
bool url_same_origin(const struct url *a, const struct url *b);
/** url_text() - the URL with @path put in place of its own (NULL: its own); default ports are left out; malloc'd, NULL if out of memory */
char *url_text(const struct url *u, const char *path) MUST_CHECK;

#define ADDRESS_LIST_MAX 32

struct address_list { /* listed by the user: may be connected to although not public */
	struct address_net {
		uint8_t b[16]; /* IPv4 as ::ffff:a.b.c.d */
		unsigned bits;
	} net[ADDRESS_LIST_MAX];
	size_t n;
};

/** address_list_parse() - "10.0.0.0/8, 192.168.1.7 fd00::/8"; NULL: an empty list.  0; -EINVAL */
int address_list_parse(const char *text, struct address_list *ret) MUST_CHECK;

/** address_of() - of a socket's peer, as in a list; false: it has none.  address_in(): is it listed? */
bool address_of(const struct sockaddr *sa, uint8_t ret[16]);
bool address_in(const struct address_list *listed, const uint8_t b[16]);

/** address_check() - may a connection for @u go to @sa, which its host name was resolved to?
 * Public addresses: yes, by https.  Loopback: for localhost and loopback literals, else only if listed.  Private, link-local (metadata
 * services), shared, reserved, multicast and IPv6 forms that hide such an IPv4 address: only if listed.  Plain http: only to loopback. 0;
 * -EPERM (fail() names the address) */
int address_check(const struct url *u, const struct address_list *listed, const struct sockaddr *sa) MUST_CHECK;

#endif
