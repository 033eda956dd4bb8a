/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rewrap: a request token in, its keys out, wrapped for the client's key.
 *
 * For each key access object: unwrap, check the policy binding, then the policy against the caller.  What does not unwrap is "bad request"
 * whatever the reason, so that nothing can be learnt by trying; what the rules refuse is "forbidden".  The decisions are in the audit log
 * before the answer leaves.
 */
#include <errno.h>
#include <stdio.h>
#include <strings.h>
#include <time.h>

#include "encode.h"
#include "report.h"
#include "serve_i.h"

#define BAD_REQUEST "invalid_argument: request error\nrpc error: code = InvalidArgument desc = bad request"
#define FORBIDDEN "permission_denied: request error\nrpc error: code = PermissionDenied desc = forbidden"
#define TOO_MUCH                                                                                                                     \
	"resource_exhausted: request error\nrpc error: code = ResourceExhausted desc = too many operations with RSA private keys in one " \
	"call: ask for the rest in another one, with the kids of the keys"
#define FAILED_HERE "internal: request error\nrpc error: code = Internal desc = internal: the server could not do it now"

/* A rewrap under way. */
struct rewrap {
	struct serve *s;
	struct call *c;
	int64_t now;
	struct wrapper session;
	struct buffer log;
	size_t rsa_left, more; /* operations with an RSA key; how many there were more than objects */

	/* the policy at work */
	const char *policy_b64;
	json_t *policy; /* NULL: malformed */
	int verdict;
	char reason[ACCESS_REASON];
	char *log_policy; /* its members in the audit log */
};

static void rewrap_free(struct rewrap *r)
{
	wrapper_free(&r->session);
	free(r->log_policy);
	json_decref(r->policy);
	buffer_free(&r->log);
}

static const char *text_of(const json_t *o, const char *name)
{
	const char *s = json_string_value(json_object_get(o, name));

	return s ? s : "";
}

static enum serve_code take_client_key(struct rewrap *r, const json_t *body)
{
	const json_t *pem = json_object_get(body, "clientPublicKey");
	int err = json_is_string(pem) ? wrapper_get(r->s->sessions, json_string_value(pem), json_string_length(pem), &r->session)
				      : fail(-EPROTO, "it is missing");

	if (err == -ENOMEM || err == -EIO)
		return call_fail(r->c, CODE_UNAVAILABLE, "no session key could be made");
	return err ? call_fail(r->c, CODE_INVALID_ARGUMENT, "clientPublicKey: %s", fail_text()) : CODE_OK;
}

/* Policy: decoded and judged once, whatever the number of keys it goes with. */
static void log_policy(struct rewrap *r)
{
	const json_t *list = json_object_get(json_object_get(r->policy, "body"), "dataAttributes");
	struct buffer b = buffer_of(6 * AUDIT_TEXT * (ACCESS_ATTRIBUTES_MAX + 2)); /* a control character takes six bytes */
	json_t *each;
	size_t i;

	audit_member(&b, "policy", text_of(r->policy, "uuid"));
	buffer_text(&b, ",\"attributes\":[");
	json_array_foreach((json_t *)list, i, each)
	{
		if (i >= ACCESS_ATTRIBUTES_MAX)
			break;
		buffer_text(&b, i ? "," : "");
		buffer_json(&b, text_of(each, "attribute"), AUDIT_TEXT / 2);
	}
	buffer_text(&b, "]");
	free(r->log_policy);
	r->log_policy = buffer_error(&b) ? NULL : STEAL(b.p);
	buffer_free(&b);
}

static int judge(struct rewrap *r, const char *b64)
{
	CLEANUP_FREE char *text = NULL;
	size_t len = strlen(b64), n = 0;
	int err;

	if (r->policy_b64 && strcmp(b64, r->policy_b64) == 0)
		return 0;
	json_decref(r->policy);
	r->policy = NULL;
	r->policy_b64 = NULL; /* until it is judged: else what is out of memory now has the last one's verdict next time */
	text = len <= BASE64_LEN(ACCESS_POLICY_MAX) ? malloc(len + 1) : NULL;
	if (!text && len <= BASE64_LEN(ACCESS_POLICY_MAX))
		return -ENOMEM;
	err = text ? base64_decode(b64, len, true, text, len, &n) : -EPROTO;
	if (!err)
		err = access_policy(text, n, &r->policy);
	log_policy(r);
	if (err == -ENOMEM)
		return err;
	r->policy_b64 = b64;
	if (err)
		r->verdict = fail(-EACCES, "policy malformed");
	else if (!r->s->access)
		r->verdict = 0;
	else
		r->verdict = access_check(r->s->access, r->policy, r->c->token->claims, r->now, r->reason);
	if (err)
		memcpy(r->reason, "policy malformed", sizeof("policy malformed"));
	else if (!r->s->access)
		memcpy(r->reason, "local", sizeof("local"));
	return 0;
}

/* The members of a key access object that count, as a manifest's parser would have them.  Borrowed strings, but @wrapped. */
static int read_object(const json_t *o, uint8_t wrapped[static WRAPPED_MAX], struct key_access *ret)
{
	const json_t *binding = json_object_get(o, "policyBinding"), *w = json_object_get(o, "wrappedKey");
	const char *type = text_of(o, "type"), *alg = text_of(binding, "alg");
	size_t n = 0;

	if (json_is_object(binding)) {
		if (*alg && strcasecmp(alg, "HS256"))
			return fail(-EPROTO, "a policy binding by %.40s", alg);
		binding = json_object_get(binding, "hash");
	}
	if (!json_is_string(binding) || !json_is_string(w))
		return fail(-EPROTO, "wrappedKey or policyBinding is missing");
	if (base64_decode(json_string_value(w), json_string_length(w), true, wrapped, WRAPPED_MAX, &n))
		return fail(-EPROTO, "wrappedKey is not base64, or too long");
	*ret = (struct key_access){
	    .type = strcmp(type, "wrapped") == 0 ? WRAP_RSA : (strcmp(type, "ec-wrapped") == 0 ? WRAP_EC : WRAP_OTHER),
	    .type_name = (char *)type,
	    .url = (char *)"",
	    .protocol = (char *)"",
	    .kid = (char *)text_of(o, "kid"),
	    .sid = (char *)"",
	    .ephemeral_pem = (char *)text_of(o, "ephemeralPublicKey"),
	    .wrapped = wrapped,
	    .wrapped_len = n,
	    .binding = (char *)json_string_value(binding),
	};
	return 0;
}

/* Some writers leave an RSA key's kid out, or give it another name: then the RSA keys are tried. */
static int unwrap(struct rewrap *r, struct key_access *ka, const char *policy, struct secret **ret)
{
	size_t had = r->rsa_left;
	int err = kas_unwrap_counted(r->s->kas, policy, ka, &r->rsa_left, ret);

	if (err == -ENOKEY && ka->type == WRAP_RSA && *ka->kid) {
		ka->kid = (char *)"";
		err = kas_unwrap_counted(r->s->kas, policy, ka, &r->rsa_left, ret);
	}
	r->more += MAX(had - r->rsa_left, 1) - 1;
	return err;
}

static int wrap_for_client(struct rewrap *r, const struct secret *share, char ret[static BASE64_LEN(WRAPPED_MAX) + 1])
{
	uint8_t wrapped[WRAPPED_MAX];
	size_t len = EC_WRAPPED_LEN;
	int err =
	    r->session.kek ? aead_seal(r->session.kek, share->b, SECRET_LEN, wrapped) : rsa_wrap(r->session.key, share, wrapped, &len);

	if (!err)
		base64_encode(wrapped, len, ret);
	return err;
}

static void log_decision(struct rewrap *r, const json_t *object, const char *decision, const char *reason)
{
	const json_t *binding = json_object_get(object, "policyBinding");

	audit_begin(&r->log, "rewrap");
	audit_caller(&r->log, r->c);
	buffer_text(&r->log, r->log_policy ? r->log_policy : "");
	audit_member(&r->log, "kid", text_of(object, "kid"));
	audit_member(&r->log, "binding", json_is_string(binding) ? json_string_value(binding) : text_of(binding, "hash"));
	audit_member(&r->log, "decision", decision);
	audit_member(&r->log, "reason", reason);
	audit_end(&r->log);
}

/* One key: 0 and its wrapped form; -EACCES forbidden; -EBADMSG bad request; -EDQUOT too much for one call; others: it could not be done. */
static int rewrap_object(struct rewrap *r, const json_t *object, const char *policy, char ret[static BASE64_LEN(WRAPPED_MAX) + 1])
{
	CLEANUP_SECRET struct secret *share = NULL;
	uint8_t wrapped[WRAPPED_MAX];
	struct key_access ka;
	int err = judge(r, policy);

	fail_clear();
	if (!err)
		err = read_object(object, wrapped, &ka);
	if (!err)
		err = unwrap(r, &ka, policy, &share);
	if (err == -ENOKEY || err == -EPROTO || err == -ENOTSUP)
		err = -EBADMSG;
	if (!err && r->verdict)
		err = -EACCES;
	if (!err)
		err = wrap_for_client(r, share, ret);
	if (!err)
		log_decision(r, object, "allow", r->reason);
	else if (err == -EACCES)
		log_decision(r, object, "deny", r->reason);
	else
		log_decision(r, object, err == -EBADMSG ? "bad" : "error", *fail_text() ? fail_text() : strerror(-err));
	return err;
}

static json_t *result_of(const char *id, int err, const char *wrapped)
{
	if (!err)
		return json_pack("{s:s, s:s, s:s}", "keyAccessObjectId", id, "status", "permit", "kasWrappedKey", wrapped);
	return json_pack("{s:s, s:s, s:s}", "keyAccessObjectId", id, "status", "fail", "error",
			 err == -EACCES    ? FORBIDDEN
			 : err == -EBADMSG ? BAD_REQUEST
			 : err == -EDQUOT  ? TOO_MUCH
					   : FAILED_HERE);
}

/* All objects of one policy. */
static int rewrap_policy(struct rewrap *r, const json_t *item, json_t *responses)
{
	const json_t *policy = json_object_get(item, "policy"), *objects = json_object_get(item, "keyAccessObjects");
	json_t *results = json_array(), *each;
	char wrapped[BASE64_LEN(WRAPPED_MAX) + 1];
	size_t i;

	if (json_array_append_new(responses, json_pack("{s:s, s:o}", "policyId", text_of(policy, "id"), "results", results)))
		return -ENOMEM;
	json_array_foreach((json_t *)objects, i, each)
	{
		int err = rewrap_object(r, json_object_get(each, "keyAccessObject"), text_of(policy, "body"), wrapped);

		if (json_array_append_new(results, result_of(text_of(each, "keyAccessObjectId"), err, wrapped)))
			return -ENOMEM;
		if (buffer_error(&r->log)) /* no key of this call is given out */
			return buffer_error(&r->log);
	}
	return 0;
}

/* Ids are how the answers are told apart: they must be there, and each once. */
static bool id_is_new(json_t *seen, const char *id)
{
	return *id && strlen(id) <= SERVE_TEXT && !json_object_get(seen, id) && json_object_set_new(seen, id, json_true()) == 0;
}

static enum serve_code check_item(struct call *c, const json_t *item, json_t *seen, size_t *n)
{
	const json_t *policy = json_object_get(item, "policy"), *objects = json_object_get(item, "keyAccessObjects");
	json_t *each, *own = json_object();
	bool good = own != NULL;
	size_t i;

	if (!id_is_new(seen, text_of(policy, "id")) || !json_is_string(json_object_get(policy, "body")))
		good = false;
	if (!json_array_size(objects) || json_array_size(objects) > SERVE_OBJECTS_MAX)
		good = false;
	json_array_foreach((json_t *)objects, i, each) good =
	    good && id_is_new(own, text_of(each, "keyAccessObjectId")) && json_is_object(json_object_get(each, "keyAccessObject"));
	json_decref(own);
	*n += json_array_size(objects);
	return good ? CODE_OK
		    : call_fail(c, CODE_INVALID_ARGUMENT,
				"each policy needs an id of its own and a body, and 1 to %d key access objects with ids of their own",
				SERVE_OBJECTS_MAX);
}

static enum serve_code check_items(struct call *c, const json_t *requests, size_t *ret_n)
{
	json_t *seen = json_object(), *each;
	enum serve_code code = CODE_OK;
	size_t i, n = 0;

	if (json_array_size(requests) > SERVE_POLICIES_MAX)
		code = call_fail(c, CODE_INVALID_ARGUMENT, "%zu policies in one call: %d are the most", json_array_size(requests),
				 SERVE_POLICIES_MAX);
	json_array_foreach((json_t *)requests, i, each) if (code == CODE_OK) code = check_item(c, each, seen, &n);
	json_decref(seen);
	*ret_n = n;
	return code;
}

/* The oldest form has one key at the top of the body; it is answered in its own form, too. */
static json_t *old_form(const json_t *body)
{
	json_t *key = json_object_get(body, "keyAccess"), *policy = json_object_get(body, "policy");

	if (!json_is_object(key) || !json_is_string(policy))
		return NULL;
	return json_pack("[{s:{s:s, s:O}, s:[{s:s, s:O}]}]", "policy", "id", "policy", "body", policy, "keyAccessObjects",
			 "keyAccessObjectId", "kao-0", "keyAccessObject", key);
}

/* Long policies with many objects each.  A client that asks for less at a time gets its keys. */
static enum serve_code log_too_long(struct rewrap *r)
{
	char text[SERVE_TEXT];

	snprintf(text, sizeof(text), "the audit lines of the call are more than %zu MiB", AUDIT_BATCH >> 20);
	audit_refused_keys(r->s, r->c, text);
	return call_fail(r->c, CODE_INVALID_ARGUMENT, "%s: ask for fewer keys at a time", text);
}

static enum serve_code rewrap_all(struct rewrap *r, const json_t *requests, bool old, json_t **ret)
{
	json_t *responses = json_array(), *answer, *each, *first;
	const char *error;
	int err = responses ? 0 : -ENOMEM;
	bool denied, bad;
	size_t i;

	json_array_foreach((json_t *)requests, i, each) if (!err) err = rewrap_policy(r, each, responses);
	if (!err)
		err = audit_write(r->s->audit, &r->log);
	first = json_array_get(json_object_get(json_array_get(responses, 0), "results"), 0);
	error = json_string_value(json_object_get(first, "error"));
	denied = !err && error && strcmp(error, FORBIDDEN) == 0;
	bad = !err && error && strcmp(error, BAD_REQUEST) == 0;
	if (err || (old && error)) {
		json_decref(responses);
		if (err == -EFBIG)
			return log_too_long(r);
		if (denied)
			return call_fail(r->c, CODE_PERMISSION_DENIED, "forbidden");
		return bad ? call_fail(r->c, CODE_INVALID_ARGUMENT, "bad request")
			   : call_fail(r->c, CODE_UNAVAILABLE, "it could not be done now");
	}
	answer = json_pack("{s:s, s:o}", "sessionPublicKey", r->session.pem ? r->session.pem : "", "responses", responses);
	if (answer && old)
		json_object_set(answer, "entityWrappedKey", json_object_get(first, "kasWrappedKey"));
	if (!answer)
		return call_fail(r->c, CODE_UNAVAILABLE, "out of memory");
	*ret = answer;
	return CODE_OK;
}

static enum serve_code rewrap_body(struct rewrap *r, const json_t *body, json_t **ret)
{
	const json_t *requests = json_object_get(body, "requests");
	json_t *old = json_array_size(requests) ? NULL : old_form(body);
	enum serve_code code = CODE_OK;
	unsigned wait = 0;
	size_t n = 1;

	if (!old && !json_array_size(requests))
		return call_fail(r->c, CODE_INVALID_ARGUMENT, "invalid request body");
	if (!old)
		code = check_items(r->c, requests, &n);
	if (code == CODE_OK)
		code = take_client_key(r, body);
	if (code == CODE_OK && r->c->token)
		wait = limits_keys(r->s->limits, caller_hash(r->c), n);
	if (wait) {
		r->c->retry_after = wait;
		audit_refusal(r->s, r->c, "too many keys");
		code = call_fail(r->c, CODE_RESOURCE_EXHAUSTED, "too many keys: try again in %u s", wait);
	}
	if (code == CODE_OK)
		code = rewrap_all(r, old ? old : requests, old != NULL, ret);
	if (r->more && r->c->token)
		limits_spent(r->s->limits, caller_hash(r->c), r->more);
	json_decref(old);
	return code;
}

enum serve_code rewrap_run(struct serve *s, struct call *c, const json_t *request, json_t **ret)
{
	CLEANUP(rewrap_free) struct rewrap r = {.s = s, .c = c, .now = time(NULL), .log = buffer_of(AUDIT_BATCH), .rsa_left = SERVE_RSA_MAX};
	json_t *body = NULL;
	enum serve_code code = srt_open(c, request, r.now, &body);

	if (code == CODE_OK)
		code = rewrap_body(&r, body, ret);
	if (code == CODE_UNAUTHENTICATED) {
		limits_failed(s->limits, c->token ? caller_failures(c) : c->peer_hash);
		audit_refusal(s, c, c->text);
	}
	json_decref(body);
	return code;
}
