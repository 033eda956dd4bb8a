/* SPDX-License-Identifier: Apache-2.0 */
#include "local.h"

#include <jansson.h>

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>

#include "encode.h"
#include "lock.h"
#include "report.h"

#define EPHEMERAL_FILES ((uint64_t)1 << 20)
#define EPHEMERAL_SECONDS 3600

/* An ephemeral key in use for writing.  Immutable but for its count. */
struct ephemeral {
	_Atomic unsigned refs;
	struct secret *kek;
	char *pem, *pem_json; /* the latter as a JSON string with its quotes */
};

struct local_key {
	/* set at creation, then fixed */
	EVP_PKEY *key;
	enum wrap_type type;
	char *kid, *url;
	char *head; /* of the JSON text, up to the kid */

	struct mutex lock; /* a leaf */
	/* guarded by lock */
	struct ephemeral *eph;
	uint64_t eph_files;
	time_t eph_made; /* CLOCK_MONOTONIC */
	pid_t eph_pid;
};

static void ephemeral_put(struct ephemeral **p)
{
	struct ephemeral *e = *p;

	if (!e || atomic_fetch_sub(&e->refs, 1) != 1)
		return;
	secret_free(e->kek);
	free(e->pem);
	free(e->pem_json);
	free(e);
}
#define CLEANUP_EPHEMERAL CLEANUP(ephemeral_put)

/* @s in quotes; NULL if it is not UTF-8 or memory is short. */
static char *json_quote(const char *s)
{
	json_t *j = json_string(s);
	char *text = j ? json_dumps(j, JSON_ENCODE_ANY) : NULL;

	json_decref(j);
	return text;
}

int local_key_new(const char *kid, const char *url, EVP_PKEY *key, struct local_key **ret)
{
	struct local_key *k = calloc(1, sizeof(*k));
	CLEANUP_FREE char *kid_json = json_quote(kid);
	CLEANUP_FREE char *url_json = json_quote(url);

	if (!k) {
		EVP_PKEY_free(key);
		return -ENOMEM;
	}
	mutex_init(&k->lock);
	k->key = key;
	k->type = pubkey_type(key);
	k->kid = strdup(kid);
	k->url = strdup(url);
	if (k->type == WRAP_OTHER || !kid_json || !url_json) {
		local_key_free(k);
		return fail(-EINVAL, "a KAS key must be RSA or EC, its name and its URL UTF-8");
	}
	if (asprintf(&k->head, "{\"type\":\"%s\",\"url\":%s,\"protocol\":\"kas\",\"kid\":%s,",
		     k->type == WRAP_EC ? "ec-wrapped" : "wrapped", url_json, kid_json) < 0)
		k->head = NULL;
	if (!k->kid || !k->url || !k->head) {
		local_key_free(k);
		return -ENOMEM;
	}
	*ret = k;
	return 0;
}

void local_key_free(struct local_key *k)
{
	if (!k)
		return;
	ephemeral_put(&k->eph);
	EVP_PKEY_free(k->key);
	mutex_destroy(&k->lock);
	free(k->kid);
	free(k->url);
	free(k->head);
	free(k);
}

const char *local_key_id(const struct local_key *k)
{
	return k->kid;
}

const char *local_key_url(const struct local_key *k)
{
	return k->url;
}

EVP_PKEY *local_key_pkey(const struct local_key *k)
{
	return k->key;
}

enum local_fit local_fits(const struct local_key *k, const struct key_access *ka)
{
	if (ka->type != k->type)
		return LOCAL_NO;
	if (!*ka->kid || !*k->kid)
		return LOCAL_MAYBE;
	return strcmp(ka->kid, k->kid) == 0 ? LOCAL_YES : LOCAL_NO;
}

static int ephemeral_new(EVP_PKEY *kas, struct ephemeral **ret)
{
	CLEANUP_EPHEMERAL struct ephemeral *e = calloc(1, sizeof(*e));
	int err;

	if (!e)
		return -ENOMEM;
	e->refs = 1;
	err = ec_kek_new(kas, &e->kek, &e->pem);
	if (err)
		return err;
	e->pem_json = json_quote(e->pem);
	if (!e->pem_json)
		return -ENOMEM;
	*ret = STEAL(e);
	return 0;
}

/* The ephemeral key for the next file, with a reference.  Renewed by age, by use, and in a process that inherited it: two processes would
 * count its files apart. */
static int ephemeral_get(struct local_key *k, struct ephemeral **ret)
{
	struct ephemeral *fresh = NULL;
	struct timespec now;
	pid_t pid = getpid();
	int err = 0;

	if (clock_gettime(CLOCK_MONOTONIC, &now))
		return -errno;
	mutex_lock(&k->lock);
	if (!k->eph || k->eph_pid != pid || k->eph_files >= EPHEMERAL_FILES || now.tv_sec - k->eph_made >= EPHEMERAL_SECONDS) {
		err = ephemeral_new(k->key, &fresh);
		if (!err) {
			ephemeral_put(&k->eph);
			k->eph = fresh;
			k->eph_files = 0;
			k->eph_made = now.tv_sec;
			k->eph_pid = pid;
		}
	}
	if (!err) {
		k->eph_files++;
		k->eph->refs++;
		*ret = k->eph;
	}
	mutex_unlock(&k->lock);
	return err;
}

int local_wrap(struct local_key *k, const struct secret *share, const char *policy, const struct wrap_frame *f, char **ret)
{
	CLEANUP_EPHEMERAL struct ephemeral *e = NULL;
	uint8_t wrapped[WRAPPED_MAX];
	char b64[BASE64_LEN(WRAPPED_MAX) + 1], binding[89];
	size_t len = EC_WRAPPED_LEN;
	char *text;
	int err = policy_binding(policy, share, binding);

	if (!err && k->type == WRAP_EC) {
		err = ephemeral_get(k, &e);
		if (!err)
			err = aead_seal(e->kek, share->b, SECRET_LEN, wrapped);
	} else if (!err) {
		err = rsa_wrap(k->key, share, wrapped, &len);
	}
	if (err)
		return err;
	base64_encode(wrapped, len, b64);
	if (f->made) {
		memcpy(f->made->wrapped, wrapped, len);
		f->made->wrapped_len = len;
		memcpy(f->made->binding, binding, sizeof(binding));
		f->made->ephemeral_pem = e ? strdup(e->pem) : NULL;
		if (e && !f->made->ephemeral_pem)
			return -ENOMEM;
	}
	if (asprintf(
		&text,
		"%s%s%s%s%s\"wrappedKey\":\"%s\",\"policyBinding\":{\"alg\":\"HS256\",\"hash\":\"%s\"},\"schemaVersion\":\"1.0\"%s%s}%s",
		f->before, k->head, f->sid ? "\"sid\":" : "", f->sid ? f->sid : "", f->sid ? "," : "", b64, binding,
		e ? ",\"ephemeralPublicKey\":" : "", e ? e->pem_json : "", f->after) < 0)
		return -ENOMEM;
	*ret = text;
	return 0;
}

/* 64 sets of 4: bounded, no lists, and a look-up touches one set. */
#define CACHE_SETS 64
#define CACHE_WAYS 4

struct local_cache {
	struct mutex lock; /* a leaf */
	/* guarded by lock */
	uint64_t clock;
	struct cached {
		const struct local_key *key;
		uint8_t hash[32];   /* SHA-256 of the ephemeral key's PEM as it stands */
		struct secret *kek; /* NULL: free */
		uint64_t used;
	} e[CACHE_SETS][CACHE_WAYS];
};

struct local_cache *local_cache_new(void)
{
	struct local_cache *c = calloc(1, sizeof(*c));

	if (c)
		mutex_init(&c->lock);
	return c;
}

void local_cache_free(struct local_cache *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < CACHE_SETS; i++)
		for (size_t j = 0; j < CACHE_WAYS; j++)
			secret_free(c->e[i][j].kek);
	mutex_destroy(&c->lock);
	free(c);
}

/* A copy of the KEK, or NULL: not there. */
static struct secret *cache_get(struct local_cache *c, const struct local_key *k, const uint8_t *hash)
{
	struct cached *set = c->e[hash[0] % CACHE_SETS];
	struct secret *kek = NULL;

	mutex_lock(&c->lock);
	for (size_t j = 0; j < CACHE_WAYS; j++)
		if (set[j].kek && set[j].key == k && memcmp(set[j].hash, hash, sizeof(set[j].hash)) == 0) {
			set[j].used = ++c->clock;
			kek = secret_copy(set[j].kek);
			break;
		}
	mutex_unlock(&c->lock);
	return kek;
}

static void cache_put(struct local_cache *c, const struct local_key *k, const uint8_t *hash, const struct secret *kek)
{
	struct cached *set = c->e[hash[0] % CACHE_SETS], *oldest = set;
	struct secret *copy = secret_copy(kek);

	if (!copy)
		return;
	mutex_lock(&c->lock);
	for (size_t j = 0; j < CACHE_WAYS; j++) {
		/* another thread may have been as fast: then its entry is replaced by the same */
		if (!set[j].kek || (set[j].key == k && memcmp(set[j].hash, hash, sizeof(set[j].hash)) == 0)) {
			oldest = &set[j];
			break;
		}
		if (set[j].used < oldest->used)
			oldest = &set[j];
	}
	secret_free(oldest->kek);
	oldest->key = k;
	oldest->kek = copy;
	oldest->used = ++c->clock;
	memcpy(oldest->hash, hash, sizeof(oldest->hash));
	mutex_unlock(&c->lock);
}

static int unwrap_ec(struct local_key *k, struct local_cache *cache, const struct key_access *ka, struct secret **ret)
{
	CLEANUP_SECRET struct secret *kek = NULL;
	CLEANUP_SECRET struct secret *share = NULL;
	uint8_t hash[32];
	int err;

	if (ka->wrapped_len != EC_WRAPPED_LEN)
		return fail(-EPROTO, "a wrapped key of %zu bytes: %d are right", ka->wrapped_len, EC_WRAPPED_LEN);
	err = sha256(&(struct part){ka->ephemeral_pem, strlen(ka->ephemeral_pem)}, 1, hash);
	if (err)
		return err;
	kek = cache_get(cache, k, hash);
	if (!kek) {
		err = ec_kek_of(k->key, ka->ephemeral_pem, &kek);
		if (err)
			return err;
		cache_put(cache, k, hash, kek);
	}
	share = secret_new();
	if (!share)
		return -ENOMEM;
	err = aead_open(kek, ka->wrapped, ka->wrapped_len, NULL, share->b);
	if (err == -EBADMSG)
		return fail(err, "the wrapped key does not unwrap with this EC key");
	if (!err)
		*ret = STEAL(share);
	return err;
}

int local_unwrap(struct local_key *k, struct local_cache *cache, const struct key_access *ka, struct secret **ret)
{
	return k->type == WRAP_EC ? unwrap_ec(k, cache, ka, ret) : rsa_unwrap(k->key, ka->wrapped, ka->wrapped_len, ret);
}
