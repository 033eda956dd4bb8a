/* SPDX-License-Identifier: Apache-2.0 */
/* Result codes as Connect, HTTP and gRPC have them, and what the audit log says of a caller. */
#include "serve_i.h"

static const struct {
	const char *name;
	unsigned http, grpc;
} codes[] = {
    [CODE_OK] = {"ok", 200, 0},
    [CODE_INVALID_ARGUMENT] = {"invalid_argument", 400, 3},
    [CODE_UNAUTHENTICATED] = {"unauthenticated", 401, 16},
    [CODE_PERMISSION_DENIED] = {"permission_denied", 403, 7},
    [CODE_NOT_FOUND] = {"not_found", 404, 5},
    [CODE_RESOURCE_EXHAUSTED] = {"resource_exhausted", 429, 8},
    [CODE_UNIMPLEMENTED] = {"unimplemented", 501, 12},
    [CODE_INTERNAL] = {"internal", 500, 13},
    [CODE_UNAVAILABLE] = {"unavailable", 503, 14},
};

const char *code_name(enum serve_code code)
{
	return codes[code].name;
}

unsigned code_http(enum serve_code code)
{
	return codes[code].http;
}

unsigned code_grpc(enum serve_code code)
{
	return codes[code].grpc;
}

void audit_caller(struct buffer *b, const struct call *c)
{
	audit_member(b, "request", c->request_id);
	audit_member(b, "peer", c->peer);
	if (c->local)
		buffer_printf(b, ",\"uid\":%u", (unsigned)c->uid);
	if (c->token) {
		audit_member(b, "sub", c->token->subject);
		audit_member(b, "client", c->token->client);
		audit_member(b, "user", json_string_value(json_object_get(c->token->claims, "preferred_username")));
		audit_member(b, "email", json_string_value(json_object_get(c->token->claims, "email")));
	}
	audit_member(b, "agent", c->user_agent);
}

void audit_refusal(struct serve *s, const struct call *c, const char *why)
{
	if (limits_note(s->limits)) /* a flood of refusals must not fill the disk */
		audit_refused_keys(s, c, why);
}

void audit_refused_keys(struct serve *s, const struct call *c, const char *why)
{
	struct buffer b = buffer_of(AUDIT_TEXT * 32);

	audit_begin(&b, "refused");
	audit_caller(&b, c);
	audit_member(&b, "path", c->path);
	audit_member(&b, "reason", why);
	audit_end(&b);
	(void)!audit_write(s->audit, &b); /* nothing was given out */
	buffer_free(&b);
}
