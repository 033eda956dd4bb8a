/* SPDX-License-Identifier: Apache-2.0 */
#include "kas_source.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>

#include "encode.h"
#include "io.h"
#include "oidc.h"
#include "say.h"
#include "target.h"

#define KEY_MAX ((size_t)64 << 10)
#define ALG_DEFAULT "ec:secp256r1"
#define ALG_OTHER "rsa:2048"

int kas_key_hash(const char *pem, char ret[static 17])
{
	uint8_t hash[32];
	int err = sha256(&(struct part){pem, strlen(pem)}, 1, hash);

	if (!err)
		hex_encode(hash, 8, ret);
	return err;
}

static int take(char **to, const char *from)
{
	*to = from ? strdup(from) : NULL;
	return from && !*to ? -ENOMEM : 0;
}

/* A path, so that it means the same wherever the volume is opened from. */
static int take_path(char **to, const char *from)
{
	char full[PATH_MAX];

	if (!from || from[0] == '/' || strncmp(from, "~/", 2) == 0)
		return take(to, from);
	if (!realpath(from, full))
		return fail(-errno, "%s: %s", from, strerror(errno));
	return take(to, full);
}

/* What says whom to believe, or who we are, may not lie where everybody who may write the store could put another. */
static int check_outside(const struct kas_source *s, const char *store)
{
	const char *files[] = {s->ca_file, s->secret_file, s->token_file, s->session_file};
	int err = 0;

	for (size_t i = 0; i < ARRAY_SIZE(files) && !err; i++)
		if (files[i] && path_below(files[i], store))
			err = fail(-EINVAL, "%s lies inside the store %s; keep it somewhere else", files[i], store);
	return err;
}

static int take_all(const struct kas_source *s, const char *url, const char *store, struct volume_remote *r)
{
	int err = check_outside(s, store);

	if (!err)
		err = take(&r->url, url);
	if (!err)
		err = take(&r->issuer, s->issuer);
	if (!err)
		err = take(&r->client_id, s->client_id);
	if (!err)
		err = take(&r->audience, s->audience);
	if (!err)
		err = take_path(&r->secret_file, s->secret_file);
	if (!err)
		err = take_path(&r->token_file, s->token_file);
	if (!err)
		err = take_path(&r->session_file, s->session_file);
	if (!err)
		err = take_path(&r->ca_file, s->ca_file);
	if (!err)
		err = take(&r->spki_pin, s->pin);
	return err ? err : take(&r->allow, s->allow);
}

/* For public calls alone: nothing of a login is needed for them. */
static int open_public(const struct volume_remote *r, struct remote **ret)
{
	const struct volume_remote p = {.url = r->url, .ca_file = r->ca_file, .spki_pin = r->spki_pin, .allow = r->allow};

	return volume_remote_new(&p, ret);
}

/* Who issues tokens for this KAS, by its own word; from now on that one and no other. */
static int find_issuer(const struct volume_remote *conf, char **ret)
{
	struct remote *r = NULL;
	CLEANUP_FREE char *text = NULL;
	const char *issuer;
	json_t *j = NULL;
	int err = open_public(conf, &r);

	if (!err)
		err = remote_well_known(r, &text);
	if (!err) {
		j = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
		issuer = json_string_value(json_object_get(j, "platform_issuer"));
		err = issuer ? take(ret, issuer) : fail(-ENOENT, "the KAS does not name an issuer: give --issuer");
		json_decref(j);
	}
	remote_free(r);
	return err;
}

/* How we get tokens: as said, else by a session that `tdfs login` makes. */
static int find_login(struct volume_remote *r)
{
	int err = 0;

	if (r->token_file)
		return 0;
	if (!r->client_id)
		return fail(-EINVAL, "give --client-id (with --client-secret FILE for a program), or --token-file FILE");
	if (!r->issuer)
		err = find_issuer(r, &r->issuer);
	if (!err && !r->secret_file && !r->session_file)
		err = oidc_session_path(r->issuer, r->client_id, &r->session_file);
	return err;
}

static int read_key(const struct kas_source *s, struct volume_remote *r)
{
	struct io io = io_posix(AT_FDCWD);
	CLEANUP_FREE char *text = NULL;
	EVP_PKEY *key = NULL;
	size_t len;
	int err = s->kid ? io_read_file(&io, AT_FDCWD, s->key_file, KEY_MAX, &text, &len)
			 : fail(-EINVAL, "--kas-public-key needs --kas-kid: by which name the KAS knows it");

	if (!err)
		err = pubkey_public(text, len, &key);
	if (err)
		return err;
	r->pem = pubkey_pem(key);
	EVP_PKEY_free(key);
	err = r->pem ? take(&r->kid, s->kid) : -ENOMEM;
	return err ? err : take(&r->algorithm, s->alg ? s->alg : "given");
}

static void clear_key(struct volume_remote *r)
{
	free(STEAL(r->pem));
	free(STEAL(r->kid));
	free(STEAL(r->algorithm));
}

static int fetch_key(struct volume_remote *conf, const char *alg)
{
	struct remote *r = NULL;
	int err = open_public(conf, &r);

	clear_key(conf);
	if (!err)
		err = remote_public_key(r, alg, &conf->pem, &conf->kid);
	remote_free(r);
	return err ? err : take(&conf->algorithm, alg);
}

/* What the platform wants new files wrapped for; if it names nothing that we can use, @ret_none and no error */
static int fetch_base_key(struct volume_remote *conf, bool *ret_none)
{
	struct remote *r = NULL;
	int err = open_public(conf, &r), base = 0;

	clear_key(conf);
	if (!err)
		base = remote_base_key(r, &conf->algorithm, &conf->pem, &conf->kid);
	remote_free(r);
	if (base && base != -ENOENT && base != -ENOMEM) /* an older server may have no such thing: its key decides */
		report(REPORT_NOTE, "%s: no base key: %s", conf->url, cause_text(base));
	*ret_none = base && base != -ENOMEM;
	return base == -ENOMEM ? base : err;
}

int kas_source_probe(const struct volume_remote *conf)
{
	/* {"uuid":"00000000-0000-4000-8000-000000000000","body":{"dataAttributes":[],"dissem":[]}} */
	static const char policy[] =
	    "eyJ1dWlkIjoiMDAwMDAwMDAtMDAwMC00MDAwLTgwMDAtMDAwMDAwMDAwMDAwIiwiYm9keSI6eyJkYXRhQXR0cmlidXRlcyI6W10sImRpc3NlbSI6W119fQ==";
	CLEANUP(manifest_cleanup) struct manifest *m = NULL;
	CLEANUP_SECRET struct secret *dek = secret_random();
	CLEANUP_FREE char *access = NULL;
	struct remote_item item = {.policy = policy};
	struct kas *k = kas_new();
	struct remote *r = NULL;
	EVP_PKEY *key = NULL;
	int err = k && dek ? pubkey_public(conf->pem, strlen(conf->pem), &key) : -ENOMEM;

	if (!err)
		err = kas_add_writer(k, conf->kid, conf->url, key, 0);
	if (!err)
		err = kas_wrap(k, dek, policy, &access);
	if (!err)
		err = manifest_of_keys(access, policy, &m);
	if (!err)
		err = volume_remote_new(conf, &r);
	if (!err) {
		item.ka = &m->ka[0];
		err = remote_rewrap(r, &item, 1, 0);
	}
	if (!err && item.err)
		err = fail(item.err, "%s", item.text);
	if (!err && !equal_ct(item.share->b, dek->b, SECRET_LEN))
		err = fail(-EBADMSG, "it gives back another key than was wrapped");
	secret_free(item.share);
	remote_free(r);
	kas_free(k);
	return err;
}

/* 1, 0 or -errno */
static int same_key(const char *a, const char *b)
{
	EVP_PKEY *x = NULL, *y = NULL;
	int err = pubkey_public(a, strlen(a), &x);

	if (!err)
		err = pubkey_public(b, strlen(b), &y);
	if (!err)
		err = EVP_PKEY_eq(x, y) == 1;
	EVP_PKEY_free(x);
	EVP_PKEY_free(y);
	return err;
}

int kas_source_confirm(const struct volume_remote *conf)
{
	struct volume_remote has = {.url = conf->url, .ca_file = conf->ca_file, .spki_pin = conf->spki_pin, .allow = conf->allow};
	int err = fetch_key(&has, conf->algorithm), same = err ? 0 : same_key(has.pem, conf->pem);

	if (!err && same < 0)
		err = same;
	else if (!err && (!same || strcmp(has.kid, conf->kid)))
		err = fail(-EBADMSG, "its %s key is another one, %s", conf->algorithm, has.kid);
	clear_key(&has);
	return err;
}

static int key_of(const struct kas_source *s, struct volume_remote *r)
{
	bool any = !s->key_file && !s->alg, fetch = !s->key_file;
	int err = 0;

	clear_key(r);
	if (s->key_file)
		err = read_key(s, r);
	else if (any)
		err = fetch_base_key(r, &fetch);
	if (!err && fetch)
		err = fetch_key(r, s->alg ? s->alg : ALG_DEFAULT);
	if (err == -ENOENT && any)
		err = fetch_key(r, ALG_OTHER);
	if (err || s->no_probe)
		return err;
	err = kas_source_probe(r);
	if ((err == -EBADMSG || err == -ENOTSUP) && any && strcmp(r->algorithm, ALG_OTHER)) {
		report(REPORT_NOTE, "%s: does not unwrap for its %s key (%s): its %s key is taken", r->url, r->algorithm, fail_text(),
		       ALG_OTHER);
		err = fetch_key(r, ALG_OTHER);
		if (!err)
			err = kas_source_probe(r);
	}
	if (err && err != -EBADMSG && err != -ENOTSUP) {
		report(REPORT_NOTE, "%s: whether it gives keys back could not be tried: %s; `tdfs kas test` tries it", r->url,
		       cause_text(err));
		err = 0;
	}
	return err;
}

int kas_source_key(const struct kas_source *s, struct volume_remote *r)
{
	int err;

	fail_clear();
	err = key_of(s, r);
	return err ? complain(err, r->url, "its public key could not be had; --kas-public-key FILE --kas-kid KID takes one from a file")
		   : EXIT_TDFS_OK;
}

int kas_source_conf(const struct kas_source *s, const char *url, const char *store, struct volume_remote *ret)
{
	struct volume_remote r = {0};
	int err;

	fail_clear();
	err = take_all(s, url, store, &r);
	if (!err)
		err = find_login(&r);
	if (err) {
		volume_remote_clear(&r);
		return complain(err, url, NULL);
	}
	*ret = r;
	return EXIT_TDFS_OK;
}

int kas_source_get(const struct kas_source *s, const char *url, const char *store, struct volume_remote *ret)
{
	struct volume_remote r = {0};
	int code = kas_source_conf(s, url, store, &r);

	if (!code)
		code = kas_source_key(s, &r);
	if (code)
		volume_remote_clear(&r);
	else
		*ret = r;
	return code;
}

void kas_options_help(void)
{
	static const struct option_row rows[] = {KAS_ROWS(
						     struct { struct kas_source kas; }, kas),
						 {0}};

	printf("Which key access service (KAS) is meant, and who we are to it:\n\n");
	options_list(rows);
}
