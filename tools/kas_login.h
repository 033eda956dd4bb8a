/* SPDX-License-Identifier: Apache-2.0 */
/* Options that say who we are to a KAS, for the commands that talk to one without a volume. */
#ifndef TDFS_KAS_LOGIN_H
#define TDFS_KAS_LOGIN_H

#include "oidc.h"
#include "options.h"
#include "remote.h"

struct kas_login { /* all may be NULL; see struct remote_config */
	const char *issuer, *client_id, *audience;
	const char *secret_file, *token_file, *session_file;
	const char *ca_file, *pin, *allow;
};

#define KAS_ISSUER_ROWS(st, member)                                                                                                         \
	{OPTION_TEXT, 0, "issuer", "URL", offsetof(st, member.issuer), "of OpenID Connect"},                                                \
	    {OPTION_TEXT, 0, "client-id", "ID", offsetof(st, member.client_id), "of this client there"},                                    \
	    {OPTION_TEXT, 0, "audience", "NAME", offsetof(st, member.audience), "whom tokens are for"},                                     \
	    {OPTION_TEXT, 0, "session-file", "FILE", offsetof(st, member.session_file), "left by tdfs login"}, \
	    {OPTION_TEXT, 0, "kas-ca", "FILE", offsetof(st, member.ca_file), "trust this CA alone (PEM)"},                                  \
	{                                                                                                                                   \
		OPTION_TEXT, 0, "kas-allow", "NETS", offsetof(st, member.allow), "private addresses it may have"        \
	}
#define KAS_LOGIN_ROWS(st, member)                                                                                                      \
	KAS_ISSUER_ROWS(st, member), {OPTION_TEXT, 0, "client-secret", "FILE", offsetof(st, member.secret_file), "client credentials"}, \
	    {OPTION_TEXT, 0, "token-file", "FILE", offsetof(st, member.token_file), "a token that somebody keeps fresh"},               \
	{                                                                                                                               \
		OPTION_TEXT, 0, "kas-pin", "PIN", offsetof(st, member.pin), "sha256//BASE64 of its public key"                          \
	}

/** kas_exit() - exit code of a -errno of oidc.h, remote.h or http.h: 7 refused, 8 away, else as exit_code_of() */
int kas_exit(int err);
/** kas_login_session() - the session file meant: --session-file, or the default of issuer and client, malloc'd; an exit code, reported */
int kas_login_session(const struct kas_login *l, char **ret) MUST_CHECK;
/** kas_login_http() - for issuer calls; an exit code, reported */
int kas_login_http(const struct kas_login *l, struct http **ret) MUST_CHECK;
/** kas_login_oidc() - the login as it stands, from secret, token file or session; an exit code, reported */
int kas_login_oidc(const struct kas_login *l, struct http *http, struct oidc **ret) MUST_CHECK;
/** kas_login_remote() - a KAS with that login; without any way to a token: public calls only.  An exit code, reported */
int kas_login_remote(const struct kas_login *l, const char *url, struct remote **ret) MUST_CHECK;

#endif
