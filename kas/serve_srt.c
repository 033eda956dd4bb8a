/* SPDX-License-Identifier: Apache-2.0 */
/* The request token: what it asks for, and whether it is of now and of the caller. */
#include <errno.h>

#include "json_in.h"
#include "report.h"
#include "serve_i.h"

#define SRT_AHEAD 7200 /* seconds a request token may be good for: some clients say two hours */

static int check_times(const json_t *claims, int64_t now)
{
	const json_t *exp = json_object_get(claims, "exp"), *iat = json_object_get(claims, "iat"), *nbf = json_object_get(claims, "nbf");

	if (!json_is_number(exp) || (iat && !json_is_number(iat)) || (nbf && !json_is_number(nbf)))
		return fail(-EACCES, "the request token has no \"exp\", or times that are none");
	if (!(json_number_value(exp) > (double)(now - TOKEN_SKEW)))
		return fail(-EACCES, "the request token has expired");
	if (json_number_value(exp) > (double)(now + SRT_AHEAD + TOKEN_SKEW))
		return fail(-EACCES, "the request token is good for more than two hours");
	if (json_number_value(iat) > (double)(now + TOKEN_SKEW) || json_number_value(nbf) > (double)(now + TOKEN_SKEW))
		return fail(-EACCES, "the request token is from the future: one of the clocks is wrong");
	return 0;
}

/* The request token -> what is asked.  Its signature is checked whenever there is a key to check it with: that of the DPoP proof. */
enum serve_code srt_open(struct call *c, const json_t *request, int64_t now, json_t **ret)
{
	const json_t *srt = member(request, "signedRequestToken", "signed_request_token");
	CLEANUP_JWS struct jws j = {0};
	const json_t *body;
	int err = json_is_string(srt) ? jws_parse(json_string_value(srt), json_string_length(srt), &j)
				      : fail(-EPROTO, "there is no signedRequestToken");

	if (!err && j.alg == JOSE_OTHER)
		err = fail(-EACCES, "the request token is signed in a way that is not allowed");
	if (!err)
		err = check_times(j.claims, now);
	if (!err && c->proof_key)
		err = jws_verify(&j, c->proof_key, JOSE_ALL);
	if (err == -ENOMEM)
		return call_fail(c, CODE_UNAVAILABLE, "out of memory");
	if (err)
		return call_fail(c, CODE_UNAUTHENTICATED, "%s", fail_text());
	body = json_object_get(j.claims, "requestBody");
	*ret = json_is_string(body) ? json_in(json_string_value(body), json_string_length(body), JSON_CALL_NODES) : NULL;
	if (json_is_object(*ret))
		return CODE_OK;
	json_decref(*ret);
	*ret = NULL;
	return call_fail(c, CODE_INVALID_ARGUMENT, "invalid request body");
}
