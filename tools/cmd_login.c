/* SPDX-License-Identifier: Apache-2.0 */
/* tdfs login: a person's session at an issuer (OAuth 2.0 device flow). */
#include <errno.h>
#include <signal.h>
#include <stdio.h>

#include "commands.h"
#include "kas_login.h"
#include "say.h"

struct login_args {
	struct kas_login kas;
	const char *scope;
	bool keyring;
};

static volatile sig_atomic_t interrupted; /* set by the handler alone */

static void on_signal(int sig)
{
	interrupted = 1;
}

static bool stopped(void *arg)
{
	return interrupted;
}

static void show(void *arg, const char *uri, const char *complete, const char *code)
{
	CLEANUP_FREE char *where = path_text(uri);
	CLEANUP_FREE char *what = path_text(code);
	CLEANUP_FREE char *both = complete ? path_text(complete) : NULL;

	printf("Open  %s\nand enter the code  %s\n", where ? where : "", what ? what : "");
	if (both)
		printf("(or open  %s)\n", both);
	printf("Waiting...\n");
	fflush(stdout);
}

static int login_main(const void *args, int n, char **pos)
{
	const struct login_args *a = args;
	CLEANUP_FREE char *session = NULL;
	struct http *http = NULL;
	bool keyring = a->keyring;
	int code = kas_login_session(&a->kas, &session), err;

	if (!code)
		code = kas_login_http(&a->kas, &http);
	if (code)
		return code;
	signal(SIGINT, on_signal);
	signal(SIGTERM, on_signal);
	fail_clear();
	err = oidc_login_device(&(struct oidc_login){.issuer = a->kas.issuer,
						     .client_id = a->kas.client_id,
						     .audience = a->kas.audience,
						     .scope = a->scope,
						     .session_file = session,
						     .keyring = &keyring,
						     .show = show,
						     .stopped = stopped},
				http);
	http_free(http);
	if (err) {
		(void)complain(err, NULL, NULL);
		return kas_exit(err);
	}
	if (keyring)
		printf("Logged in; the session is in the kernel's keyring until the next restart, %s points to it.\n", session);
	else
		printf("Logged in; the session is in %s.\n", session);
	return output_flush(EXIT_TDFS_OK);
}

static const struct option_row login_rows[] = {
    KAS_ISSUER_ROWS(struct login_args, kas),
    {OPTION_TEXT, 0, "scope", "TEXT", offsetof(struct login_args, scope), "default: \"openid offline_access\""},
    {OPTION_FLAG, 0, "keyring", NULL, offsetof(struct login_args, keyring), "secrets into the kernel's keyring, until a restart"},
    {0},
};

const struct command command_login = {
    .name = "login",
    .summary = "log in to the issuer of a key access service, by browser",
    .usage = "--issuer URL --client-id ID",
    .notes = "Shows an address and a code to be entered there. The session that is left (mode\n"
	     "0600) is used by volumes and by tdfs kas test; tdfs kas logout ends it.\n",
    .options = login_rows,
    .args_size = sizeof(struct login_args),
    .max_args = 0,
    .run = login_main,
};
