/* SPDX-License-Identifier: Apache-2.0 */
/* What comes back of an HTTP request: body and the few headers that count, both bounded. */
#include "http_int.h"

#include <ctype.h>
#include <errno.h>

#include "lazy_i.h"
#include "secret.h"

size_t answer_body(char *p, size_t one, size_t len, void *arg)
{
	struct flight *f = arg;
	struct http_answer *a = &f->answer;

	if (len > f->q->answer_max - a->len) {
		f->too_long = true;
		return CURL_WRITEFUNC_ERROR;
	}
	if (a->len + len + 1 > f->room) {
		size_t room = MIN(f->q->answer_max, MAX(2 * f->room, a->len + len)) + 1;
		char *more = malloc(room); /* not realloc(), which leaves what it moved from as it was */

		if (!more) {
			f->no_memory = true;
			return CURL_WRITEFUNC_ERROR;
		}
		memcpy(more, a->body, a->len);
		wipe(a->body, a->len);
		free(a->body);
		a->body = more;
		f->room = room;
	}
	memcpy(a->body + a->len, p, len);
	a->len += len;
	return len;
}

/* @value becomes the header's value if @line has that name; too long for it: stays empty unless @cut. */
static bool header_is(const char *line, size_t len, const char *name, bool cut, char *value, size_t room)
{
	size_t n = strlen(name);

	if (len <= n || strncasecmp(line, name, n) || line[n] != ':')
		return false;
	for (line += n + 1, len -= n + 1; len && isspace((unsigned char)*line); len--)
		line++;
	while (len && isspace((unsigned char)line[len - 1]))
		len--;
	if (len >= room && !cut)
		len = 0;
	len = MIN(len, room - 1);
	for (size_t i = 0; i < len; i++)
		value[i] = (unsigned char)line[i] < ' ' || (unsigned char)line[i] > '~' ? '?' : line[i];
	value[len] = 0;
	return true;
}

size_t answer_header(char *p, size_t one, size_t len, void *arg)
{
	struct flight *f = arg;
	struct http_answer *a = &f->answer;
	char value[128];

	f->header_bytes += len;
	if (f->header_bytes > HTTP_HEADER_MAX) {
		f->too_long = true;
		return 0;
	}
	if (header_is(p, len, "content-type", true, a->content_type, sizeof(a->content_type))) {
		a->content_type[strcspn(a->content_type, "; \t")] = 0;
		for (char *c = a->content_type; *c; c++)
			*c = (char)tolower((unsigned char)*c);
	} else if (header_is(p, len, "date", false, value, sizeof(value))) {
		time_t t = curl_api->getdate(value, NULL);

		a->date = t > 0 ? t : 0;
	} else if (header_is(p, len, "retry-after", false, value, sizeof(value))) {
		a->retry_after = isdigit((unsigned char)*value) ? (unsigned)MIN(strtoul(value, NULL, 10), 86400UL) : 0;
	} else if (!header_is(p, len, "dpop-nonce", false, a->dpop_nonce, sizeof(a->dpop_nonce))) {
		(void)header_is(p, len, "www-authenticate", true, a->authenticate, sizeof(a->authenticate));
	}
	return len;
}

void http_answer_free(struct http_answer *a)
{
	if (a->body)
		wipe(a->body, a->len);
	free(a->body);
	a->body = NULL;
	a->len = 0;
}

bool http_is_json(const struct http_answer *a)
{
	return strcmp(a->content_type, "application/json") == 0;
}
