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

/* One hop of the trail, without blanks around: an address; of Forwarded (RFC 7239) the value of "for".  NULL: it does not say */
static char *hop_address(char *hop, bool forwarded)
{
	char *save = NULL, *word;

	if (!forwarded)
		return hop;
	for (word = strtok_r(hop, "; \t", &save); word; word = strtok_r(NULL, "; \t", &save))
		if (strncasecmp(word, "for=", 4) == 0) {
			word += 4;
			if (*word == '"') {
				word++;
				word[strcspn(word, "\"")] = '\0';
			}
			return word;
		}
	return NULL;
}

/* From the nearest hop back to the first that is no proxy of ours.  false: there is none whose address is told */
static bool trail_client(const struct serve_config *c, struct trail *t, uint8_t ret[16])
{
	bool any = false, forwarded = strcasecmp(t->name, "Forwarded") == 0;

	while (t->len) {
		char *comma = strrchr(t->text, ','), *hop = comma ? comma + 1 : t->text;
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
