/* SPDX-License-Identifier: Apache-2.0 */
#include <jansson.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "kas_i.h"
#include "report.h"

#define KAS_TTL_DEFAULT 300
#define KEY_FILE_MAX ((size_t)1 << 20)

struct kas *kas_new(void)
{
	struct kas *k = calloc(1, sizeof(*k));

	if (!k)
		return NULL;
	k->cache = local_cache_new();
	k->sets = calloc(1, sizeof(*k->sets));
	if (!k->cache || !k->sets) {
		local_cache_free(k->cache);
		free(k->sets);
		free(k);
		return NULL;
	}
	k->n_sets = 1;
	kas_times(k, KAS_TTL_DEFAULT, 0);
	return k;
}

void kas_free(struct kas *k)
{
	if (!k)
		return;
	for (size_t i = 0; i < k->n_keys; i++)
		local_key_free(k->keys[i]);
	for (size_t i = 0; i < k->n_sets; i++)
		kas_writers_clear(&k->sets[i]);
	free(k->sets);
	local_cache_free(k->cache);
	keycache_free(k->shares);
	free(k->keys);
	free(k);
}

int kas_add_local(struct kas *k, const char *kid, const char *url, EVP_PKEY *key)
{
	struct local_key **more = realloc(k->keys, (k->n_keys + 1) * sizeof(*more));
	int err;

	if (!more) {
		EVP_PKEY_free(key);
		return -ENOMEM;
	}
	k->keys = more;
	err = local_key_new(kid, url ? url : KAS_URL_DEFAULT, key, &k->keys[k->n_keys]);
	if (!err)
		k->n_keys++;
	return err;
}

int kas_write_key(struct kas *k, const char *kid)
{
	for (size_t i = 0; i < k->n_keys; i++)
		if (strcmp(local_key_id(k->keys[i]), kid) == 0) {
			k->write_key = i;
			return 0;
		}
	return fail(-ENOKEY, "there is no KAS key with the kid \"%s\"", kid);
}

/* Not io_read_file(): the user names this file, so it may be a symlink, or a pipe from a password manager. */
static int read_key_file(const char *path, char **ret, size_t *ret_len)
{
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	char *buf;
	size_t len = 0;
	int err = 0;

	if (fd < 0)
		return fail(-errno, "%s: %s", path, strerror(errno));
	buf = malloc(KEY_FILE_MAX + 1);
	if (!buf)
		return -ENOMEM;
	for (;;) {
		ssize_t n = read(fd, buf + len, KEY_FILE_MAX + 1 - len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			err = fail(-errno, "%s: %s", path, strerror(errno));
		if (n <= 0)
			break;
		len += (size_t)n;
		if (len > KEY_FILE_MAX) {
			err = fail(-EPROTO, "%s: too long for a key file", path);
			break;
		}
	}
	if (err) {
		wipe(buf, len);
		free(buf);
		return err;
	}
	*ret = buf;
	*ret_len = len;
	return 0;
}

static int add_pem(struct kas *k, const char *kid, const char *pem, size_t len)
{
	EVP_PKEY *key;
	int err = pubkey_private(pem, len, &key);

	return err ? err : kas_add_local(k, kid, NULL, key);
}

/* [{"kid","alg","privateKey","cert"}] */
static int add_list(struct kas *k, const char *path, const json_t *list)
{
	size_t i, n_used = 0;
	json_t *each;

	json_array_foreach(list, i, each)
	{
		const char *kid = json_string_value(json_object_get(each, "kid"));
		const char *pem = json_string_value(json_object_get(each, "privateKey"));
		int err;

		if (!pem)
			return fail(-EPROTO, "%s: entry %zu has no \"privateKey\"", path, i + 1);
		err = add_pem(k, kid ? kid : "", pem, strlen(pem));
		if (err == -ENOTSUP)
			report(REPORT_NOTE, "%s: entry %zu (%s) skipped: %s", path, i + 1, kid ? kid : "no kid", fail_text());
		else if (err)
			return fail(err, "%s: entry %zu: %s", path, i + 1, fail_text());
		else
			n_used++;
	}
	return n_used ? 0 : fail(-ENOTSUP, "%s: no RSA or EC key in the list", path);
}

int kas_add_key_file(struct kas *k, const char *path)
{
	json_error_t json_err;
	json_t *list;
	char *text = NULL;
	size_t len = 0;
	int err = read_key_file(path, &text, &len);

	if (err)
		return err;
	fail_clear();
	list = json_loadb(text, len, JSON_REJECT_DUPLICATES, &json_err);
	if (json_is_array(list))
		err = add_list(k, path, list);
	else if (list)
		err = fail(-EPROTO, "%s: JSON, but not a list of keys", path);
	else if ((err = add_pem(k, "", text, len)))
		err = fail(err, "%s: not a KAS key (PEM, or JSON list of keys): %s", path, fail_text());
	json_decref(list);
	wipe(text, len);
	free(text);
	return err;
}

int kas_error_rank(int err)
{
	switch (err) {
	case 0:
		return 0;
	case -ENOKEY:
		return 1;
	case -EBADMSG:
		return 2;
	case -EACCES:
		return 3;
	default: /* an outage is no verdict: of one that refuses and one that is away the latter might have said yes */
		return 4;
	}
}

int kas_unwrap_local(struct kas *k, const char *policy, const struct key_access *ka, struct secret **ret)
{
	size_t any = SIZE_MAX;

	return kas_unwrap_counted(k, policy, ka, &any, ret);
}

int kas_unwrap_counted(struct kas *k, const char *policy, const struct key_access *ka, size_t *rsa_left, struct secret **ret)
{
	const struct manifest m = {.policy = (char *)policy};
	char text[256] = "no key for it here";
	int worst = -ENOKEY;

	if (ka->type == WRAP_OTHER)
		return fail(-ENOKEY, "\"%s\" keys are not supported", ka->type_name);
	for (size_t i = 0; i < k->n_keys; i++) {
		CLEANUP_SECRET struct secret *share = NULL;
		enum local_fit fit = local_fits(k->keys[i], ka);
		int err;

		if (fit == LOCAL_NO)
			continue;
		if (ka->type == WRAP_RSA && !*rsa_left)
			return fail(-EDQUOT, "too many operations with RSA private keys");
		*rsa_left -= ka->type == WRAP_RSA;
		err = local_unwrap(k->keys[i], k->cache, ka, &share);
		if (!err) {
			err = manifest_binding(&m, ka, share);
			if (!err) {
				*ret = STEAL(share);
				return 0;
			}
		} else if (err == -EBADMSG || err == -EPROTO) {
			/* without a kid it cannot be told whether the object is damaged or made for somebody else */
			err = fit == LOCAL_YES ? -EBADMSG : -ENOKEY;
		}
		if (kas_error_rank(err) >= kas_error_rank(worst)) {
			worst = err;
			snprintf(text, sizeof(text), "%s", err == -ENOMEM ? "out of memory" : fail_text());
		}
	}
	return fail(worst, "%s", text);
}

bool kas_is_remote(const struct kas *k)
{
	return k->n_remotes > 0;
}

/* What OpenTDF calls the algorithm of a key; "" if it has no name there. */
static void algorithm_name(EVP_PKEY *key, char ret[static 32])
{
	char group[28] = "";

	if (pubkey_type(key) == WRAP_RSA)
		snprintf(ret, 32, "rsa:%d", EVP_PKEY_get_bits(key));
	else if (EVP_PKEY_get_group_name(key, group, sizeof(group), NULL) == 1)
		snprintf(ret, 32, "ec:%s", strcmp(group, "prime256v1") == 0 ? "secp256r1" : group);
	else
		*ret = '\0';
}

int kas_public(const struct kas *k, const char *algorithm, char **ret_pem, const char **ret_kid)
{
	const struct local_key *found = NULL;
	char *pem;

	for (size_t i = 0; i < k->n_keys; i++) {
		EVP_PKEY *key = local_key_pkey(k->keys[i]);
		char name[32];

		algorithm_name(key, name);
		/* several of a kind: the one that writes, or the newest RSA key, which is the last */
		if (*algorithm ? strcmp(name, algorithm) == 0 : pubkey_type(key) == WRAP_RSA)
			found = !found || i == k->write_key || pubkey_type(key) == WRAP_RSA ? k->keys[i] : found;
	}
	if (!found && !*algorithm && k->n_keys)
		found = k->keys[k->write_key];
	if (!found)
		return -ENOENT;
	pem = pubkey_pem(local_key_pkey(found));
	if (!pem)
		return -ENOMEM;
	*ret_pem = pem;
	*ret_kid = local_key_id(found);
	return 0;
}
