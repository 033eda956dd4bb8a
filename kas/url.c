/* SPDX-License-Identifier: Apache-2.0 */
#include "url.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>

#include "report.h"

static int url_fail(const char *text, const char *why)
{
	return fail(-EINVAL, "%.200s: %s", text, why);
}

/* The rules that need no parsing; also keeps control characters out of messages. */
static int characters_check(const char *text)
{
	size_t len = strnlen(text, URL_MAX);

	if (len == URL_MAX)
		return fail(-EINVAL, "a URL of more than %d characters", URL_MAX - 1);
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)text[i] <= ' ' || (unsigned char)text[i] >= 127)
			return fail(
			    -EINVAL,
			    "a URL with a character that is not printable ASCII (an international name has to be given as xn--...)");
	if (strpbrk(text, "\\\"<>^`{|}"))
		return url_fail(text, "a character that has no place in a URL");
	if (strchr(text, '#'))
		return url_fail(text, "a fragment (#...)");
	return 0;
}

static bool label_ok(const char *label, size_t len)
{
	if (!len || len > 63 || label[0] == '-' || label[len - 1] == '-')
		return false;
	for (size_t i = 0; i < len; i++)
		if (!isalnum((unsigned char)label[i]) && label[i] != '-')
			return false;
	return true;
}

/* Letters, digits and dashes; the last label begins with a letter, so that no reader takes it for a number ("127.1", "0x7f.1",
 * "2130706433"). */
static bool name_ok(const char *host)
{
	const char *label = host;

	for (;;) {
		size_t len = strcspn(label, ".");

		if (!label_ok(label, len))
			return false;
		if (!label[len])
			return isalpha((unsigned char)*label) != 0;
		label += len + 1;
	}
}

static int host_set(const char *text, struct url *u)
{
	struct in_addr v4;

	if (inet_pton(AF_INET, u->host, &v4) == 1) {
		u->kind = URL_IPV4;
	} else if (strcmp(u->host, "localhost") == 0) {
		u->kind = URL_LOCALHOST;
	} else if (name_ok(u->host)) {
		u->kind = URL_NAME;
	} else {
		return url_fail(text, "a host that is neither a name of letters, digits and '-' nor a plain address");
	}
	return 0;
}

/* @p: behind "://"; @ret_end: the path.  Sets kind, host and port (0 if absent). */
static int authority_parse(const char *text, const char *p, struct url *u, const char **ret_end)
{
	size_t len = strcspn(p, "/?"), host_len = 0;
	const char *end = p + len, *port;
	int err;

	if (memchr(p, '@', len))
		return url_fail(text, "a user name or password in a URL");
	if (*p == '[') {
		struct in6_addr v6;

		host_len = strcspn(++p, "]/?");
		if (p[host_len] != ']' || host_len >= INET6_ADDRSTRLEN)
			return url_fail(text, "no IPv6 address between [ and ]");
		memcpy(u->host, p, host_len);
		u->kind = URL_IPV6;
		if (inet_pton(AF_INET6, u->host, &v6) != 1 || !inet_ntop(AF_INET6, &v6, u->host, sizeof(u->host)))
			return url_fail(text, "no IPv6 address between [ and ]");
		port = p + host_len + 1;
	} else {
		host_len = MIN(strcspn(p, ":"), len);
		if (host_len > URL_HOST_MAX)
			return url_fail(text, "a host name of more than 253 characters");
		for (size_t i = 0; i < host_len; i++)
			u->host[i] = (char)tolower((unsigned char)p[i]);
		err = host_set(text, u);
		if (err)
			return err;
		port = p + host_len;
	}
	if (port != end) {
		unsigned long v = 0;
		const char *c = port + 1;

		for (; c < end && isdigit((unsigned char)*c) && v < 65536; c++)
			v = v * 10 + (unsigned long)(*c - '0');
		if (*port != ':' || c != end || !v || v > 65535 || port[1] == '0')
			return url_fail(text, "a port that is not a number of 1 to 65535");
		u->port = (uint16_t)v;
	}
	*ret_end = end;
	return 0;
}

static int path_parse(const char *text, const char *p, bool query, struct url *u)
{
	const char *q = strchr(p, '?');
	size_t len = strlen(p), path_len = q ? (size_t)(q - p) : len;

	if (q && !query)
		return url_fail(text, "a query (?...)");
	for (const char *s = p; s < p + path_len; s++) {
		size_t n = *s == '/' ? strcspn(s + 1, "/?") : 0;

		if ((n == 1 && s[1] == '.') || (n == 2 && s[1] == '.' && s[2] == '.'))
			return url_fail(text, "a path with . or .. in it");
		if (*s == '%' && (!isxdigit((unsigned char)s[1]) || !isxdigit((unsigned char)s[2])))
			return url_fail(text, "a % without two hexadecimal digits");
	}
	while (!q && len && p[len - 1] == '/')
		len--;
	memcpy(u->path, p, len);
	u->path[len] = 0;
	return 0;
}

static bool is_loopback(const struct url *u)
{
	struct in6_addr v6;

	return u->kind == URL_LOCALHOST || (u->kind == URL_IPV4 && strncmp(u->host, "127.", 4) == 0) ||
	       (u->kind == URL_IPV6 && inet_pton(AF_INET6, u->host, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6));
}

int url_parse(const char *text, bool query, struct url *ret)
{
	struct url u = {0};
	const char *p = NULL;
	int err = characters_check(text);

	if (err)
		return err;
	if (strncasecmp(text, "https://", 8) == 0)
		u.https = true;
	else if (strncasecmp(text, "http://", 7))
		return url_fail(text, "not an https:// URL");
	err = authority_parse(text, strchr(text, '/') + 2, &u, &p);
	if (!err)
		err = path_parse(text, p, query, &u);
	if (err)
		return err;
	if (!u.https && !is_loopback(&u))
		return url_fail(text, "http without TLS is for localhost only; use https");
	if (!u.port)
		u.port = u.https ? 443 : 80;
	*ret = u;
	return 0;
}

bool url_same_origin(const struct url *a, const struct url *b)
{
	return a->https == b->https && a->port == b->port && a->kind == b->kind && strcmp(a->host, b->host) == 0;
}

char *url_text(const struct url *u, const char *path)
{
	bool v6 = u->kind == URL_IPV6;
	char port[8] = "", *s;

	if (u->port != (u->https ? 443 : 80))
		snprintf(port, sizeof(port), ":%u", u->port);
	if (asprintf(&s, "http%s://%s%s%s%s%s", u->https ? "s" : "", v6 ? "[" : "", u->host, v6 ? "]" : "", port, path ? path : u->path) <
	    0)
		return NULL;
	return s;
}
