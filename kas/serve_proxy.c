/* SPDX-License-Identifier: Apache-2.0 */
/* Who is behind a proxy that is trusted to say so (serve_http.h). */
#include <arpa/inet.h>
#include <stdio.h>
#include <strings.h>

#include "serve_http.h"

#define TRAIL_MAX 2048 /* of all the header's lines: the end of it, which the nearest proxies have written */

struct trail {
	const char *name;
	char text[TRAIL_MAX + 1];
	size_t len;
};

/* Lines of the same name are one list: a proxy may add its own line instead of going on with one. */
static enum MHD_Result trail_add(void *cls, enum MHD_ValueKind kind, const char *name, const char *value)
{
	struct trail *t = cls;
	size_t n = value ? strlen(value) : 0, over;

	if (strcasecmp(name, t->name) || !n)
		return MHD_YES;
	if (n > TRAIL_MAX - 1) {
		value += n - (TRAIL_MAX - 1);
		n = TRAIL_MAX - 1;
	}
	over = t->len + 1 + n > TRAIL_MAX ? t->len + 1 + n - TRAIL_MAX : 0;
	memmove(t->text, t->text + over, t->len - over);
	t->len -= over;
	t->text[t->len++] = ',';
	memcpy(t->text + t->len, value, n);
	t->len += n;
	t->text[t->len] = '\0';
	return MHD_YES;
}

/* "192.0.2.1", "192.0.2.1:443", "2001:db8::1", "[2001:db8::1]:443"; changes @word */
static bool address_parse(char *word, uint8_t ret[16])
{
	static const uint8_t v4[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
	char *first = strchr(word, ':');

	memcpy(ret, v4, sizeof(v4));
	if (*word == '[') {
		char *end = strchr(++word, ']');

		if (!end)
			return false;
		*end = '\0';
	} else if (first && !strchr(first + 1, ':')) {
		*first = '\0';
	}
	return inet_pton(AF_INET, word, ret + 12) == 1 || inet_pton(AF_INET6, word, ret) == 1;
}

static bool is_quote(const char *text, const char *at)
{
	size_t back = 0;

	if (*at != '"')
		return false;
	while (at - back > text && at[-1 - (ssize_t)back] == '\\')
		back++;
	return back % 2 == 0;
}

/* The last comma that stands in no quoted text.  From the end, which our proxy has written: in front of it anything may stand */
static char *last_comma(char *text, bool quoted)
{
	char *p = text + strlen(text);
	bool in = false;

	while (p > text) {
		p--;
		in ^= quoted && is_quote(text, p);
		if (*p == ',' && !in)
			return p;
	}
	return NULL;
}

/* One hop of the trail, without blanks around: an address; of Forwarded (RFC 7239) the value of "for".  NULL: it does not say */
static char *hop_address(char *hop, bool forwarded)
{
	char *end;

	for (; forwarded && *hop; hop = end) {
		bool in = false, is_for;

		hop += strspn(hop, "; \t");
		is_for = strncasecmp(hop, "for=", 4) == 0;
		for (end = hop; *end && (in || !strchr("; \t", *end)); end++)
			in ^= is_quote(hop, end);
		if (!is_for)
			continue;
		*end = '\0';
		hop += 4;
		hop += *hop == '"';
		hop[strcspn(hop, "\"")] = '\0';
		return hop;
	}
	return forwarded ? NULL : hop;
}

/* From the nearest hop back to the first that is no proxy of ours.  false: there is none whose address is told */
static bool trail_client(const struct serve_config *c, struct trail *t, uint8_t ret[16])
{
	bool any = false, forwarded = strcasecmp(t->name, "Forwarded") == 0;

	while (t->len) {
		char *comma = last_comma(t->text, forwarded), *hop = comma ? comma + 1 : t->text;
		uint8_t b[16];

		hop += strspn(hop, " \t");
		hop[strcspn(hop, forwarded ? "" : " \t")] = '\0';
		hop = hop_address(hop, forwarded);
		if (!hop || !address_parse(hop, b)) /* "unknown", or somebody's invention: who is nearer to us counts */
			return any;
		memcpy(ret, b, 16);
		any = true;
		if (!address_in(&c->proxies, b))
			return true;
		t->len = comma ? (size_t)(comma - t->text) : 0;
		t->text[t->len] = '\0';
	}
	return any;
}

bool proxy_client(const struct serve_config *c, struct MHD_Connection *mc, uint8_t ret[16])
{
	struct trail t = {.name = c->proxy_header};

	(void)mhd_api->get_connection_values(mc, MHD_HEADER_KIND, trail_add, &t);
	return trail_client(c, &t, ret);
}
