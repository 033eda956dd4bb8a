/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a client's public key becomes: the key, and for EC a session key of ours with the KEK that the two make.  Kept for a minute, since a
 * client uses its key for many calls, and parsing it, making a pair and agreeing on a KEK costs more than all the rest of a rewrap.  Each
 * wrapped key has an IV of its own.
 */
#include <errno.h>
#include <time.h>

#include "lock.h"
#include "serve_i.h"

#define SETS 64
#define WAYS 4
#define LIFE 60 /* seconds */

struct wrappers {
	struct mutex lock; /* a leaf */
	/* guarded by lock */
	struct entry {
		uint8_t hash[32]; /* SHA-256 of the client's key as it stands */
		int64_t until;    /* CLOCK_MONOTONIC seconds */
		struct wrapper s; /* key NULL: free */
	} e[SETS][WAYS];
};

struct wrappers *wrappers_new(void)
{
	struct wrappers *v = calloc(1, sizeof(*v));

	if (v)
		mutex_init(&v->lock);
	return v;
}

void wrapper_free(struct wrapper *s)
{
	EVP_PKEY_free(s->key);
	secret_free(s->kek);
	free(s->pem);
	memset(s, 0, sizeof(*s));
}

static int64_t seconds(void)
{
	struct timespec now = {0};

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec;
}

void wrappers_expire(struct wrappers *v, bool all)
{
	int64_t now = seconds();

	mutex_lock(&v->lock);
	for (size_t i = 0; i < SETS * WAYS; i++) {
		struct entry *e = &v->e[i / WAYS][i % WAYS];

		if (e->s.key && (all || e->until <= now))
			wrapper_free(&e->s);
	}
	mutex_unlock(&v->lock);
}

void wrappers_free(struct wrappers *v)
{
	if (!v)
		return;
	wrappers_expire(v, true);
	mutex_destroy(&v->lock);
	free(v);
}

static int wrapper_copy(const struct wrapper *s, struct wrapper *ret)
{
	struct wrapper c = {.key = s->key, .kek = s->kek ? secret_copy(s->kek) : NULL, .pem = s->pem ? strdup(s->pem) : NULL};

	if (EVP_PKEY_up_ref(c.key) != 1)
		c.key = NULL;
	if (!c.key || (s->kek && !c.kek) || (s->pem && !c.pem)) {
		wrapper_free(&c);
		return -ENOMEM;
	}
	*ret = c;
	return 0;
}

static int find(struct wrappers *v, const uint8_t *hash, struct wrapper *ret)
{
	struct entry *set = v->e[hash[0] % SETS];
	int64_t now = seconds();
	int err = -ENOENT;

	mutex_lock(&v->lock);
	for (size_t i = 0; i < WAYS && err == -ENOENT; i++)
		if (set[i].s.key && set[i].until > now && memcmp(set[i].hash, hash, 32) == 0)
			err = wrapper_copy(&set[i].s, ret);
	mutex_unlock(&v->lock);
	return err;
}

static void keep(struct wrappers *v, const uint8_t *hash, const struct wrapper *s)
{
	struct entry *set = v->e[hash[0] % SETS], *oldest = set;
	struct wrapper copy;

	if (wrapper_copy(s, &copy))
		return;
	mutex_lock(&v->lock);
	for (size_t i = 0; i < WAYS; i++) {
		if (!set[i].s.key) {
			oldest = &set[i];
			break;
		}
		if (set[i].until < oldest->until)
			oldest = &set[i];
	}
	wrapper_free(&oldest->s);
	oldest->s = copy;
	oldest->until = seconds() + LIFE;
	memcpy(oldest->hash, hash, 32);
	mutex_unlock(&v->lock);
}

int wrapper_get(struct wrappers *v, const char *pem, size_t len, struct wrapper *ret)
{
	struct wrapper s = {0};
	uint8_t hash[32];
	int err = sha256(&(struct part){pem, len}, 1, hash);

	if (err)
		return err;
	err = find(v, hash, ret);
	if (err != -ENOENT)
		return err;
	err = pubkey_public(pem, len, &s.key);
	if (!err && pubkey_type(s.key) == WRAP_EC)
		err = ec_kek_new(s.key, &s.kek, &s.pem);
	if (err) {
		wrapper_free(&s);
		return err;
	}
	keep(v, hash, &s);
	*ret = s;
	return 0;
}
