/* SPDX-License-Identifier: Apache-2.0 */
#include "kas_login.h"

#include <errno.h>

#include "say.h"

int kas_exit(int err)
{
	switch (err) {
	case -EIO:
	case -ECONNREFUSED:
	case -ECONNRESET:
	case -EHOSTUNREACH:
	case -EPERM:	    /* its address */
	case -EKEYREJECTED: /* its certificate */
	case -EPROTO:
		return EXIT_TDFS_KAS_AWAY;
	default:
		return exit_code_of(err);
	}
}

int kas_login_session(const struct kas_login *l, char **ret)
{
	int err;

	if (!l->issuer || !l->client_id) {
		report(REPORT_ERROR, "which login? --issuer and --client-id say");
		return EXIT_TDFS_USAGE;
	}
	fail_clear();
	if (!l->session_file)
		err = oidc_session_path(l->issuer, l->client_id, ret);
	else
		err = (*ret = strdup(l->session_file)) ? 0 : -ENOMEM;
	return err ? complain(err, NULL, "--session-file names one") : EXIT_TDFS_OK;
}

int kas_login_http(const struct kas_login *l, struct http **ret)
{
	const struct http_config c = {.ca_file = l->ca_file, .allow = l->allow};
	int err;

	fail_clear();
	err = http_new(&c, ret);
	return err ? complain_file(err, l->ca_file, NULL) : EXIT_TDFS_OK;
}

/* Which file a token comes from: what was named, or the session, if there is one. */
static int way(const struct kas_login *l, struct kas_login *use, char **session)
{
	int code;

	*use = *l;
	if (l->secret_file || l->token_file || l->session_file || !l->issuer || !l->client_id)
		return EXIT_TDFS_OK;
	code = kas_login_session(l, session);
	if (!code && access(*session, F_OK) == 0)
		use->session_file = *session;
	return code;
}

int kas_login_oidc(const struct kas_login *l, struct http *http, struct oidc **ret)
{
	CLEANUP_FREE char *session = NULL;
	struct kas_login use;
	int code = way(l, &use, &session), err;

	if (code)
		return code;
	if (!use.secret_file && !use.token_file && !use.session_file) {
		report(REPORT_ERROR, "nobody is logged in%s%s: `tdfs login`, or --client-secret or --token-file", l->issuer ? " at " : "",
		       l->issuer ? l->issuer : "");
		return EXIT_TDFS_FAILED;
	}
	fail_clear();
	err = oidc_new(
	    &(struct oidc_config){use.issuer, use.audience, use.client_id, use.secret_file, use.token_file, use.session_file, false}, http,
	    ret);
	return err ? complain_file(err, NULL, NULL) : EXIT_TDFS_OK;
}

int kas_login_remote(const struct kas_login *l, const char *url, struct remote **ret)
{
	CLEANUP_FREE char *session = NULL;
	struct kas_login use;
	int code = way(l, &use, &session), err;

	if (code)
		return code;
	fail_clear();
	err = remote_new(&(struct remote_config){.url = url,
						 .issuer = use.issuer,
						 .audience = use.audience,
						 .client_id = use.client_id,
						 .secret_file = use.secret_file,
						 .token_file = use.token_file,
						 .session_file = use.session_file,
						 .ca_file = use.ca_file,
						 .spki_pin = use.pin,
						 .allow = use.allow},
			 ret);
	return err ? complain_file(err, NULL, NULL) : EXIT_TDFS_OK;
}
