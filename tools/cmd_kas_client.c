/* SPDX-License-Identifier: Apache-2.0 */
/* tdfs kas test, whoami, logout: a KAS and our login there, without a volume. */
#include <errno.h>
#include <stdio.h>

#include "cmd_kas.h"
#include "encode.h"
#include "kas_login.h"
#include "say.h"

struct client_args {
	struct kas_login kas;
	bool json;
};

/* --- test --- */

/* What a file would have: a fresh key, wrapped for the KAS's key @pem under a policy that asks nothing. */
struct probe {
	struct secret *key;
	char *policy, *ephemeral;
	char binding[89];
	uint8_t wrapped[WRAPPED_MAX];
	struct key_access ka;
};

static void probe_free(struct probe *p)
{
	secret_free(p->key);
	free(p->policy);
	free(p->ephemeral);
}

static int probe_wrap(struct probe *p, EVP_PKEY *kas)
{
	CLEANUP_SECRET struct secret *kek = NULL;
	int err;

	if (pubkey_type(kas) == WRAP_RSA)
		return rsa_wrap(kas, p->key, p->wrapped, &p->ka.wrapped_len);
	err = ec_kek_new(kas, &kek, &p->ephemeral);
	if (err)
		return err;
	p->ka.wrapped_len = EC_WRAPPED_LEN;
	return aead_seal(kek, p->key->b, SECRET_LEN, p->wrapped);
}

static int probe_make(struct probe *p, const char *url, const char *pem, const char *kid)
{
	static char ec[] = "ec-wrapped", rsa[] = "wrapped", none[] = "", kas_protocol[] = "kas";
	char text[120], uuid[37];
	uint8_t id[16];
	EVP_PKEY *kas = NULL;
	int err = random_bytes(id, sizeof(id));

	if (!err)
		err = pubkey_public(pem, strlen(pem), &kas);
	if (err)
		return err;
	uuid_format(id, uuid);
	snprintf(text, sizeof(text), "{\"uuid\":\"%s\",\"body\":{\"dataAttributes\":[],\"dissem\":[]}}", uuid);
	p->key = secret_random();
	p->policy = malloc(BASE64_LEN(sizeof(text)) + 1);
	if (p->policy)
		base64_encode(text, strlen(text), p->policy);
	err = p->key && p->policy ? policy_binding(p->policy, p->key, p->binding) : -ENOMEM;
	if (!err)
		err = probe_wrap(p, kas);
	p->ka.type = pubkey_type(kas);
	p->ka.type_name = p->ka.type == WRAP_RSA ? rsa : ec;
	p->ka.url = (char *)url;
	p->ka.kid = (char *)kid;
	p->ka.protocol = kas_protocol;
	p->ka.sid = none;
	p->ka.ephemeral_pem = p->ephemeral ? p->ephemeral : none;
	p->ka.binding = p->binding;
	p->ka.wrapped = p->wrapped;
	EVP_PKEY_free(kas);
	return err;
}

/* Wrap for its key, have it unwrapped: 0, or why not */
static int probe_rewrap(struct remote *r, const char *url, const char *pem, const char *kid)
{
	CLEANUP(probe_free) struct probe p = {0};
	struct remote_item item = {.ka = &p.ka};
	int err = probe_make(&p, url, pem, kid);

	if (err)
		return err;
	item.policy = p.policy;
	err = remote_rewrap(r, &item, 1, 0);
	if (!err && item.err)
		err = fail(item.err, "%s", item.text);
	if (!err && !equal_ct(item.share->b, p.key->b, SECRET_LEN))
		err = fail(-EBADMSG, "another key came back than was wrapped");
	secret_free(item.share);
	return err;
}

static int step(const char *what, int err, const char *good)
{
	CLEANUP_FREE char *shown = path_text(err ? cause_text(err) : good);

	printf("%-4s  %-24s %s\n", err ? "FAIL" : "ok", what, shown ? shown : "");
	return err;
}

/* The issuer that the platform names has to be ours, else our token will be refused. */
static void test_issuer(struct remote *r, const struct kas_login *l)
{
	CLEANUP_FREE char *text = NULL;
	const char *named;
	json_t *j;

	fail_clear();
	if (remote_well_known(r, &text)) {
		CLEANUP_FREE char *shown = path_text(fail_text());

		printf("--    %-24s %s\n", "configuration", shown ? shown : "");
		return;
	}
	j = json_loads(text, 0, NULL);
	named = json_string_value(json_object_get(j, "platform_issuer"));
	if (named && l->issuer && strcmp(named, l->issuer))
		step("issuer", fail(-EINVAL, "the platform's is %s, not %s", named, l->issuer), "");
	else
		step("issuer", 0, named ? named : "the platform names none");
	json_decref(j);
}

static int test_key(struct remote *r, const char *url, const char *algorithm, bool login)
{
	CLEANUP_FREE char *pem = NULL, *kid = NULL;
	char what[64];
	int err;

	snprintf(what, sizeof(what), "key %s", algorithm);
	fail_clear();
	err = remote_public_key(r, algorithm, &pem, &kid);
	if (step(what, err, kid) || !login)
		return err;
	snprintf(what, sizeof(what), "rewrap %s", algorithm);
	fail_clear();
	return step(what, probe_rewrap(r, url, pem, kid), "a key wrapped for it came back");
}

static int test_main(const void *args, int n, char **pos)
{
	const struct client_args *a = args;
	struct remote *r = NULL;
	struct remote_stats s;
	int code = kas_login_remote(&a->kas, pos[0], &r), ec, rsa;
	bool login = a->kas.secret_file || a->kas.token_file || a->kas.session_file || (a->kas.issuer && a->kas.client_id);

	if (code)
		return code;
	test_issuer(r, &a->kas);
	ec = test_key(r, pos[0], "ec:secp256r1", login);
	rsa = test_key(r, pos[0], "rsa:2048", login);
	remote_stats(r, &s);
	printf("--    %-24s %.1f ms on average\n", "answer time", s.mean_us / 1000.0);
	if (!login)
		printf("--    %-24s not tried: --issuer and --client-id, or --token-file, say who we are\n", "rewrap");
	remote_free(r);
	/* one kind of key is enough to work with */
	code = ec && rsa ? kas_exit(ec == -ENOENT ? rsa : ec) : EXIT_TDFS_OK;
	return output_flush(code);
}

/* --- whoami, logout --- */

static void whoami_print(const json_t *claims)
{
	static const struct {
		const char *claim, *label;
	} rows[] = {{"preferred_username", "name"}, {"email", "mail"}, {"sub", "subject"}, {"azp", "client"}, {"iss", "issuer"}};
	const json_t *exp = json_object_get(claims, "exp");
	char when[SAY_TEXT];

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const char *value = json_string_value(json_object_get(claims, rows[i].claim));
		CLEANUP_FREE char *shown = value ? path_text(value) : NULL;

		if (shown)
			printf("%-9s %s\n", rows[i].label, shown);
	}
	if (json_is_integer(exp)) {
		time_text((time_t)json_integer_value(exp), when);
		printf("%-9s %s (tokens are renewed by themselves)\n", "until", when);
	}
	printf("%-9s %s\n", "bound", json_object_get(json_object_get(claims, "cnf"), "jkt") ? "to the key of this login (DPoP)" : "no");
}

static int whoami_main(const void *args, int n, char **pos)
{
	const struct client_args *a = args;
	struct http *http = NULL;
	struct oidc *oidc = NULL;
	json_t *claims = NULL;
	int code = kas_login_http(&a->kas, &http), err;

	if (!code)
		code = kas_login_oidc(&a->kas, http, &oidc);
	if (!code) {
		fail_clear();
		err = oidc_claims(oidc, http_now() + 10000, &claims);
		if (err)
			(void)complain(err, NULL, NULL);
		code = kas_exit(err);
	}
	oidc_free(oidc);
	http_free(http);
	if (code)
		return code;
	if (a->json)
		return json_say(claims);
	whoami_print(claims);
	json_decref(claims);
	return output_flush(EXIT_TDFS_OK);
}

static int logout_main(const void *args, int n, char **pos)
{
	const struct client_args *a = args;
	CLEANUP_FREE char *session = NULL;
	struct http *http = NULL;
	int code = kas_login_session(&a->kas, &session), err;

	if (!code)
		code = kas_login_http(&a->kas, &http);
	if (code)
		return code;
	fail_clear();
	err = oidc_logout(a->kas.issuer, a->kas.client_id, session, http);
	http_free(http);
	if (err)
		return complain_file(err, NULL, NULL);
	printf("Logged out; mounts that used the session have what they have until it expires.\n");
	return output_flush(EXIT_TDFS_OK);
}

static const struct option_row test_rows[] = {KAS_LOGIN_ROWS(struct client_args, kas), {0}};

const struct command kas_test = {
    .name = "test",
    .summary = "can this KAS be used? its keys, our login, a key there and back",
    .usage = "URL",
    .notes = "Wraps random bytes for each of its keys and has them unwrapped: a KAS may hand\n"
	     "out a key that it does not unwrap for. Without a login only what is public is\n"
	     "tried.\n",
    .options = test_rows,
    .args_size = sizeof(struct client_args),
    .min_args = 1,
    .max_args = 1,
    .run = test_main,
};

static const struct option_row whoami_rows[] = {
    {OPTION_FLAG, 0, "json", NULL, offsetof(struct client_args, json), "all that the token says"},
    KAS_LOGIN_ROWS(struct client_args, kas),
    {0},
};

const struct command kas_whoami = {
    .name = "whoami",
    .summary = "who we are to a key access service",
    .usage = "--issuer URL --client-id ID",
    .options = whoami_rows,
    .args_size = sizeof(struct client_args),
    .max_args = 0,
    .run = whoami_main,
};

static const struct option_row logout_rows[] = {KAS_ISSUER_ROWS(struct client_args, kas), {0}};

const struct command kas_logout = {
    .name = "logout",
    .summary = "end the session of tdfs login, here and at the issuer",
    .usage = "--issuer URL --client-id ID",
    .options = logout_rows,
    .args_size = sizeof(struct client_args),
    .max_args = 0,
    .run = logout_main,
};
