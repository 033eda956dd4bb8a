/* SPDX-License-Identifier: Apache-2.0 */
/* The volume key for other processes of the same user: who may connect to the unix socket could have it out of the store, too. */
#include <errno.h>

#include "encode.h"
#include "record.h"
#include "report.h"
#include "serve_i.h"

static int note(struct serve *s, const struct call *c, const char *decision, const char *id)
{
	struct buffer b = buffer_of(AUDIT_BATCH);
	int err;

	audit_begin(&b, "volume-key");
	audit_caller(&b, c);
	audit_member(&b, "volume", id);
	audit_member(&b, "decision", decision);
	audit_end(&b);
	err = audit_write(s->audit, &b);
	buffer_free(&b);
	return err;
}

static int answer(struct serve *s, const json_t *pem, json_t **ret)
{
	CLEANUP(wrapper_free) struct wrapper w = {0};
	uint8_t wrapped[EC_WRAPPED_LEN];
	char text[BASE64_LEN(EC_WRAPPED_LEN) + 1];
	int err = json_is_string(pem) ? wrapper_get(s->sessions, json_string_value(pem), json_string_length(pem), &w)
				      : fail(-EPROTO, "it is missing");

	if (!err && !w.kek)
		err = fail(-ENOTSUP, "an EC key is needed");
	if (!err)
		err = aead_seal(w.kek, s->config->volume_key->b, SECRET_LEN, wrapped);
	if (err)
		return err;
	base64_encode(wrapped, sizeof(wrapped), text);
	*ret = json_pack("{s:s, s:s}", "sessionPublicKey", w.pem, "wrappedKey", text);
	return *ret ? 0 : -ENOMEM;
}

enum serve_code volume_key_run(struct serve *s, struct call *c, const json_t *request, json_t **ret)
{
	const char *id = json_string_value(json_object_get(request, "volumeId"));
	char ours[37];
	int err;

	if (!c->local || !s->config->is_unix || !s->config->volume_key)
		return call_fail(c, CODE_NOT_FOUND, "no volume's key is given out here");
	uuid_format(s->config->volume_id, ours);
	if (!id || strcmp(id, ours)) {
		if (note(s, c, "deny", id ? id : ""))
			return call_fail(c, CODE_UNAVAILABLE, "it could not be done now");
		return call_fail(c, CODE_NOT_FOUND, "another volume is served here");
	}
	err = answer(s, json_object_get(request, "clientPublicKey"), ret);
	if (!err && note(s, c, "allow", ours)) {
		json_decref(*ret);
		*ret = NULL;
		err = -EIO;
	}
	if (err == -EPROTO || err == -ENOTSUP)
		return call_fail(c, CODE_INVALID_ARGUMENT, "clientPublicKey: %s", fail_text());
	return err ? call_fail(c, CODE_UNAVAILABLE, "it could not be done now") : CODE_OK;
}
