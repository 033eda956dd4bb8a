/* SPDX-License-Identifier: Apache-2.0 */
/* Between the oidc_*.c files. */
#ifndef TDFS_OIDC_INT_H
#define TDFS_OIDC_INT_H

#include <sys/stat.h>
#include <time.h>

#include "lock.h"
#include "oidc.h"

#define TOKEN_MAX ((size_t)16 << 10)
#define OIDC_ANSWER_MAX ((size_t)64 << 10)
#define FETCH_MS 10000
#define IAT_BACK 5 /* seconds: a server must not find a proof of the future */

/* The issuer, as its discovery document has it.  Used by one thread at a time. */
struct issuer {
	struct http *http; /* borrowed */
	char *name;        /* exactly as configured */
	char *client_id, *audience;
	bool known; /* discovery is done */
	bool basic; /* client secret by HTTP Basic, else in the form */
	bool has_device, has_revoke;
	struct url token, device, revoke;
	char nonce[257];
	int64_t skew;      /* seconds its clock is ahead of ours */
	uint64_t requests; /* atomic */
};

struct token {
	char *access, *refresh; /* wiped when freed; refresh may be NULL */
	bool bound;             /* to our key */
	int64_t good_until;     /* http_now() */
	int64_t fresh_until;    /* after that, fetch the next one */
};

struct session { /* a login in a file */
	char *refresh;
	EVP_PKEY *key;
};

void wipe_free(char **s); /* a string that is a secret; NULL is fine */
#define CLEANUP_WIPE CLEANUP(wipe_free)

/* --- oidc_file.c --- */

/* a small text that nobody else may read, without white space at its end; @ret_st may be NULL; 0, -EPERM, -EPROTO empty or too long, -errno
 */
int secret_file_read(const char *path, size_t max, char **ret, struct stat *ret_st) MUST_CHECK;
/* all directories above @path, 0700 where missing; @ret_dir: a descriptor of the last, @ret_name: within @path; 0 or -errno */
int secret_parent_open(const char *path, int *ret_dir, const char **ret_name) MUST_CHECK;
/* 0; -ENOENT; -EPERM; -EPROTO not a session, or one of another issuer or client */
int session_read(const char *path, const struct issuer *is, struct session *ret) MUST_CHECK;
/* the next refresh token, where the session is: in the file, or in the keyring that the file points to.  Under session_lock(), which
 * session_new() takes itself.  0; -EACCES there is none any more; -errno */
int session_write(const char *path, const struct issuer *is, const char *refresh, EVP_PKEY *key) MUST_CHECK;
/* of a new login, in the place of what was there; @keyring: in: into the kernel's keyring, out: it is there.  Without one a file, which is
 * reported */
int session_new(const char *path, const struct issuer *is, const char *refresh, EVP_PKEY *key, bool *keyring) MUST_CHECK;
/* the file, and what it points to; 0, -ENOENT, -errno */
int session_remove(const char *path) MUST_CHECK;
void session_free(struct session *s);
#define CLEANUP_SESSION CLEANUP(session_free)
/* one process at a time may use a refresh token; returns a descriptor to close, -ETIMEDOUT, -errno */
int session_lock(const char *path, int64_t deadline) MUST_CHECK;

/* --- oidc_issuer.c --- */

int issuer_init(struct issuer *is, const char *name, const char *client_id, const char *audience, struct http *http) MUST_CHECK;
void issuer_done(struct issuer *is);
int issuer_discover(struct issuer *is, int64_t deadline) MUST_CHECK;
/* POST of a form; @secret: of the client, or NULL; @key: for a DPoP proof, or NULL
 * 0 and the JSON of a 200; -EACCES, -EAGAIN authorization_pending, -EBUSY slow_down, -EINVAL, -EIO, http_call()'s */
int issuer_post(struct issuer *is, const struct url *to, const char *form, const char *secret, EVP_PKEY *key, int64_t deadline,
		json_t **ret) MUST_CHECK;
/* "&name=value" in form encoding, appended to *form (malloc'd, never NULL) */
int form_add(char **form, const char *name, const char *value) MUST_CHECK;

/* --- oidc_token.c --- */

/* "DPoP: ..." header line; @token NULL: at the token endpoint; malloc'd */
int dpop_proof(EVP_PKEY *key, const char *method, const char *htu, const char *nonce, const char *token, int64_t skew,
	       char **ret) MUST_CHECK;
/* make a token of the issuer's answer, or (text) of a file */
int token_from_answer(const struct issuer *is, const json_t *answer, EVP_PKEY *key, struct token *ret) MUST_CHECK;
int token_from_text(const struct issuer *is, const char *text, EVP_PKEY *key, struct token *ret) MUST_CHECK;
void token_free(struct token *t);
#define CLEANUP_TOKEN CLEANUP(token_free)

#endif
