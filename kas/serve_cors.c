/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages of other origins in a browser, which may ask us and read the answer only if we say so: the CORS protocol of the WHATWG's Fetch
 * Standard (3.3), sections "CORS request" and "CORS-preflight request".
 *
 * What is asked for needs an access token, which no browser adds by itself: no cookies, no client certificates, so credentials are never
 * allowed.  Still only pages that are listed may ask, so that a stranger's page cannot use a token that it got hold of from where the KAS
 * is in reach.
 */
#include <errno.h>

#include "report.h"
#include "serve_i.h"
#include "url.h"

#define ORIGINS_MAX 64

/* https://HOST[:PORT], or http of this machine, as a browser spells it: lower case, nothing behind it */
static bool is_origin(const char *text)
{
	struct url u;
	size_t scheme = strncmp(text, "https://", 8) ? 7 : 8;

	return !url_parse(text, false, &u) && strcspn(text + scheme, "/?#") == strlen(text + scheme) &&
	       !strpbrk(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZ");
}

int cors_check(const json_t *list)
{
	const json_t *each;
	size_t i;

	if (list && (!json_array_size(list) || json_array_size(list) > ORIGINS_MAX))
		return fail(-EPROTO, "\"cors\" must be a list of 1 to %d origins", ORIGINS_MAX);
	json_array_foreach(list, i, each)
	{
		const char *text = json_string_value(each);

		if (!text || (!is_origin(text) && (strcmp(text, "*") || json_array_size(list) > 1)))
			return fail(
			    -EPROTO,
			    "\"cors\": \"%.100s\" is no origin as browsers spell it: https://app.example.org, or \"*\" alone for all",
			    text ? text : "");
	}
	return 0;
}

const char *cors_allowed(const json_t *list, const char *origin)
{
	const json_t *each;
	size_t i;

	json_array_foreach(list, i, each)
	{
		const char *text = json_string_value(each);

		if (origin && (strcmp(text, "*") == 0 || strcmp(text, origin) == 0))
			return text;
	}
	return NULL;
}

size_t cors_headers(const struct call *c, struct cors_header ret[static CORS_HEADERS])
{
	size_t n = 0;

	if (!c->readers)
		return 0;
	ret[n++] = (struct cors_header){"Access-Control-Allow-Origin", c->readers};
	if (strcmp(c->readers, "*"))
		ret[n++] = (struct cors_header){"Vary", "Origin"};
	if (c->status != 204) {
		ret[n++] = (struct cors_header){"Access-Control-Expose-Headers", "DPoP-Nonce, Retry-After, WWW-Authenticate"};
		return n;
	}
	ret[n++] = (struct cors_header){"Access-Control-Allow-Methods", "GET, POST"};
	ret[n++] = (struct cors_header){"Access-Control-Allow-Headers",
					"Authorization, Connect-Protocol-Version, Connect-Timeout-Ms, Content-Type, DPoP, X-Request-Id, "
					"X-Rewrap-Additional-Context, X-User-Agent"};
	ret[n++] = (struct cors_header){"Access-Control-Max-Age", "600"};
	return n;
}
