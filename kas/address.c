/* SPDX-License-Identifier: Apache-2.0 */
/* Which addresses a connection may go to (url.h). */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>

#include "report.h"
#include "url.h"

enum scope { SCOPE_PUBLIC, SCOPE_LOOPBACK, SCOPE_INNER };

#define V4(a, b, c, d)                                               \
	{                                                            \
		0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d \
	}

/* IANA special-purpose registries (RFC 6890 and its updates); the first that fits counts */
static const struct {
	struct address_net net;
	enum scope scope;
} special[] = {
    {{V4(127, 0, 0, 0), 104}, SCOPE_LOOPBACK},
    {{V4(0, 0, 0, 0), 104}, SCOPE_INNER},     /* this host */
    {{V4(10, 0, 0, 0), 104}, SCOPE_INNER},    /* private */
    {{V4(100, 64, 0, 0), 106}, SCOPE_INNER},  /* shared (carriers, overlays) */
    {{V4(169, 254, 0, 0), 112}, SCOPE_INNER}, /* link-local: metadata services */
    {{V4(172, 16, 0, 0), 108}, SCOPE_INNER},
    {{V4(192, 0, 0, 0), 120}, SCOPE_INNER},
    {{V4(192, 0, 2, 0), 120}, SCOPE_INNER}, /* documentation */
    {{V4(192, 168, 0, 0), 112}, SCOPE_INNER},
    {{V4(198, 18, 0, 0), 111}, SCOPE_INNER},
    {{V4(198, 51, 100, 0), 120}, SCOPE_INNER},
    {{V4(203, 0, 113, 0), 120}, SCOPE_INNER},
    {{V4(224, 0, 0, 0), 99}, SCOPE_INNER}, /* multicast, reserved, broadcast */
    {{V4(0, 0, 0, 0), 96}, SCOPE_PUBLIC},
    {{{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, 128}, SCOPE_LOOPBACK},
    {{{0x20, 0x01, 0x0d, 0xb8}, 32}, SCOPE_INNER}, /* documentation */
    {{{0x20, 0x01, 0}, 23}, SCOPE_INNER},          /* protocol assignments, Teredo among them */
    {{{0x20}, 3}, SCOPE_PUBLIC},                   /* 2000::/3: all the global addresses there are */
    {{{0}, 0}, SCOPE_INNER},
};

static bool net_has(const struct address_net *net, const uint8_t b[16])
{
	unsigned whole = net->bits / 8, rest = net->bits % 8;

	return memcmp(net->b, b, whole) == 0 && (!rest || ((net->b[whole] ^ b[whole]) >> (8 - rest)) == 0);
}

static enum scope scope_of(const uint8_t b[16])
{
	static const uint8_t nat64[12] = {0, 0x64, 0xff, 0x9b};
	uint8_t v4[16] = V4(0, 0, 0, 0);
	size_t i = 0;

	/* an IPv4 address inside: NAT64 (64:ff9b::/96) and 6to4 (2002::/16) lead to it */
	if (memcmp(b, nat64, sizeof(nat64)) == 0) {
		memcpy(v4 + 12, b + 12, 4);
		return scope_of(v4) == SCOPE_PUBLIC ? SCOPE_PUBLIC : SCOPE_INNER;
	}
	if (b[0] == 0x20 && b[1] == 0x02) {
		memcpy(v4 + 12, b + 2, 4);
		return scope_of(v4) == SCOPE_PUBLIC ? SCOPE_PUBLIC : SCOPE_INNER;
	}
	while (!net_has(&special[i].net, b))
		i++; /* the last row has everything */
	return special[i].scope;
}

/* One "ADDRESS[/BITS]". */
static int net_parse(char *word, struct address_net *ret)
{
	struct address_net net = {V4(0, 0, 0, 0), 128};
	char *slash = strchr(word, '/'), *end = NULL;
	unsigned max = 32;
	unsigned long bits;

	if (slash)
		*slash = 0;
	if (inet_pton(AF_INET, word, net.b + 12) != 1) {
		max = 128;
		if (inet_pton(AF_INET6, word, net.b) != 1)
			return fail(-EINVAL, "\"%.60s\" in the list of allowed addresses is no IP address", word);
	}
	bits = slash ? strtoul(slash + 1, &end, 10) : max;
	if (slash && (end == slash + 1 || *end || slash[1] < '0' || slash[1] > '9' || bits > max))
		return fail(-EINVAL, "\"%.60s/%.10s\" in the list of allowed addresses: 0 to %u bits", word, slash + 1, max);
	net.bits = (unsigned)bits + (128 - max);
	*ret = net;
	return 0;
}

int address_list_parse(const char *text, struct address_list *ret)
{
	struct address_list list = {.n = 0};
	CLEANUP_FREE char *copy = strdup(text ? text : "");
	char *save = NULL;

	if (!copy)
		return -ENOMEM;
	for (char *word = strtok_r(copy, ", ", &save); word; word = strtok_r(NULL, ", ", &save)) {
		int err;

		if (list.n == ADDRESS_LIST_MAX)
			return fail(-EINVAL, "more than %d allowed addresses", ADDRESS_LIST_MAX);
		err = net_parse(word, &list.net[list.n]);
		if (err)
			return err;
		list.n++;
	}
	*ret = list;
	return 0;
}

bool address_in(const struct address_list *listed, const uint8_t b[16])
{
	for (size_t i = 0; i < listed->n; i++)
		if (net_has(&listed->net[i], b))
			return true;
	return false;
}

/* @u was given as an address or as localhost: does it say loopback itself? */
static bool says_loopback(const struct url *u)
{
	uint8_t b[16] = V4(0, 0, 0, 0);

	if (u->kind == URL_LOCALHOST)
		return true;
	if (u->kind == URL_NAME || inet_pton(u->kind == URL_IPV4 ? AF_INET : AF_INET6, u->host, u->kind == URL_IPV4 ? b + 12 : b) != 1)
		return false;
	return scope_of(b) == SCOPE_LOOPBACK;
}

bool address_of(const struct sockaddr *sa, uint8_t ret[16])
{
	static const uint8_t v4[16] = V4(0, 0, 0, 0);

	if (!sa || (sa->sa_family != AF_INET && sa->sa_family != AF_INET6))
		return false;
	memcpy(ret, v4, 16);
	if (sa->sa_family == AF_INET)
		memcpy(ret + 12, &((const struct sockaddr_in *)(const void *)sa)->sin_addr, 4);
	else
		memcpy(ret, &((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr, 16);
	return true;
}

int address_check(const struct url *u, const struct address_list *listed, const struct sockaddr *sa)
{
	uint8_t b[16] = V4(0, 0, 0, 0);
	char text[INET6_ADDRSTRLEN] = "?";
	enum scope scope = SCOPE_INNER;

	if (sa->sa_family == AF_INET)
		memcpy(b + 12, &((const struct sockaddr_in *)(const void *)sa)->sin_addr, 4);
	else if (sa->sa_family == AF_INET6)
		memcpy(b, &((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr, 16);
	else
		return fail(-EPERM, "%s: not an IP address", u->host);
	scope = scope_of(b);
	if (scope == SCOPE_LOOPBACK && says_loopback(u))
		return 0;
	(void)inet_ntop(sa->sa_family, sa->sa_family == AF_INET ? b + 12 : b, text, sizeof(text));
	if (!u->https)
		return fail(-EPERM, "%s leads to %s: http without TLS goes to loopback addresses only", u->host, text);
	if (scope == SCOPE_PUBLIC || address_in(listed, b))
		return 0;
	return fail(
	    -EPERM,
	    "%s leads to %s, which is not a public address; if that is right, list it as allowed (an address, or a net as ADDRESS/BITS)",
	    u->host, text);
}
