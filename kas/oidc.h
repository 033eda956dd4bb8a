/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who we are: access tokens of one login at one OIDC issuer, and the proof of possession that goes with them.
 *
 * Ways to a token: client credentials (RFC 6749 4.4), a file that somebody else keeps fresh, or a session that `tdfs login` left (device
 * flow, RFC 8628; refresh tokens).  Tokens are asked for with a DPoP proof (RFC 9449) under a key per login; if the issuer binds them to
 * it, every use carries a proof too. The token is fetched by one thread at a time, ahead of its expiry; the others go on with the old one
 * as long as it is good.  Secrets are read from their files when needed and wiped after.  Thread-safe.
 */
#ifndef TDFS_OIDC_H
#define TDFS_OIDC_H

#include <jansson.h>
#include <openssl/evp.h>

#include "http.h"

struct oidc; /* opaque */

struct oidc_config { /* see struct remote_config */
	const char *issuer, *audience, *client_id;
	const char *secret_file, *token_file, *session_file; /* exactly one */
	bool dpop_required;
};

/** oidc_new() - copies @c; @http is borrowed.  No network; the files are looked at.
 * 0; -EINVAL contradictory, or no issuer; -EPERM a secret that others can read; -ENOENT, -errno; -EPROTO not a session; -ENOMEM.  fail()
 * says which. */
int oidc_new(const struct oidc_config *c, struct http *http, struct oidc **ret) MUST_CHECK;
void oidc_free(struct oidc *o);

struct oidc_auth {           /* what one request carries */
	char *authorization; /* header line */
	char *dpop;          /* header line, or NULL: the token is not bound */
	EVP_PKEY *key;       /* of this login: signs request tokens */
	uint64_t serial;     /* of the token, for oidc_reject() */
};

/** oidc_authorize() - a token that is good now, fetched if need be, and a fresh proof for one request
 * @htu: URL of the request without query; @nonce: of the server, "" if it gave none; @skew: seconds that its clock is ahead of ours
 * 0; -EACCES the issuer refuses us, the login has expired, or the token is not for us (audience, bound to another key); -ETIMEDOUT; -EIO
 * and http_call()'s errors: it could not be asked.  After a failure the issuer is left alone for a while (0.5 s to 30 s) and the same error
 * comes at once.  Free with oidc_auth_free(). */
int oidc_authorize(struct oidc *o, const char *method, const char *htu, const char *nonce, int64_t skew, int64_t deadline,
		   struct oidc_auth *ret) MUST_CHECK;
void oidc_auth_free(struct oidc_auth *a);
#define CLEANUP_AUTH CLEANUP(oidc_auth_free)

/** oidc_reject() - the KAS did not accept this token (401)
 * Return: may another one be had?  False if the token was fetched for this very attempt, or stands in a file that has not changed. */
bool oidc_reject(struct oidc *o, uint64_t serial);

/** oidc_claims() - what our own token says (sub, preferred_username, exp...), for people to read; an empty object if it is opaque.  As
 * oidc_authorize(). */
int oidc_claims(struct oidc *o, int64_t deadline, json_t **ret) MUST_CHECK;
/** oidc_requests() - sent to the issuer so far */
uint64_t oidc_requests(struct oidc *o);

/** oidc_session_path() - where `tdfs login` keeps a session by default: below $XDG_STATE_HOME or ~/.local/state; made by issuer and client;
 * malloc'd 0; -ENOENT no home directory; -ENOMEM */
int oidc_session_path(const char *issuer, const char *client_id, char **ret) MUST_CHECK;

struct oidc_login {
	const char *issuer, *client_id, *audience;
	const char *scope;        /* NULL: "openid offline_access" */
	const char *session_file; /* written with mode 0600; its directory is made (0700) */
	bool *keyring;            /* in: keep the secrets in the kernel's keyring, the file says where; out: they are there.  NULL: no */
	/* show the person where to go and what to type; @complete: the same with the code in it, or NULL */
	void (*show)(void *arg, const char *uri, const char *complete, const char *code);
	bool (*stopped)(void *arg); /* asked between polls: give up? */
	void *arg;
};
/** oidc_login_device() - blocks until the person has decided or the code has expired (minutes)
 * 0; -EACCES refused; -ETIMEDOUT the code expired; -EINTR stopped; -ENOTSUP the issuer has no device flow or gives no refresh token;
 * -EINVAL; -EIO; http_call()'s */
int oidc_login_device(const struct oidc_login *l, struct http *http) MUST_CHECK;
/** oidc_logout() - revoke the refresh token (RFC 7009) if the issuer can, then remove the file; the file goes in any case
 * 0; -ENOENT no session; -EIO and http_call()'s: removed here, but not revoked there; -errno not removed */
int oidc_logout(const char *issuer, const char *client_id, const char *session_file, struct http *http) MUST_CHECK;

#endif
