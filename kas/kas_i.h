/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of kas*.c; nobody else includes this. */
#ifndef TDFS_KAS_I_H
#define TDFS_KAS_I_H

#include "kas.h"
#include "keycache.h"
#include "local.h"

#define KAS_REMOTES_MAX 16
#define KAS_WRITERS_MAX 16 /* objects that a manifest of ours may have */

struct writer {                /* what new files get a key access object for */
	struct local_key *key; /* a pinned public key, owned; NULL: the local key that writes */
	unsigned split;
};

struct writer_set {
	uint8_t policy[32]; /* SHA-256 of the policy text that it is for */
	struct writer w[KAS_WRITERS_MAX];
	size_t n;
	unsigned n_splits;
};

struct kas {
	/* fixed after set-up */
	struct local_key **keys;
	size_t n_keys;
	size_t write_key;
	struct writer_set *sets; /* the first: for all policies that have none; nobody in it: the local key alone */
	size_t n_sets, set;      /* the one that is being filled */
	struct kas_remote remotes[KAS_REMOTES_MAX];
	size_t n_remotes;
	struct keycache_times times;

	struct local_cache *cache; /* locks for itself */
	struct keycache *shares;   /* locks for itself; NULL without a remote KAS */
};

/* kas.c */
int kas_error_rank(int err); /* how much it tells about why no key came out; of several the most telling one is reported */

/* kas_wrap.c */
void kas_writers_clear(struct writer_set *s);
/** kas_writers() - for whom a file with this policy (base64 text) is made; 0 or -EIO */
int kas_writers(const struct kas *k, const char *policy, const struct writer_set **ret) MUST_CHECK;

/* kas_ask.c */
struct kas_ask { /* one share that only a remote KAS can give */
	void *owner;
	const struct manifest *m;
	const struct key_access *ka;
	size_t remote;
	unsigned chances; /* this KAS and the alternatives behind it: the time that is left is for all of them */
	enum keycache_look look;
	uint64_t ticket;
	uint8_t id[KEYCACHE_ID];
	struct keycache_answer answer; /* out */
	char text[200];                /* out: what the KAS said, or "" */
};
uint64_t kas_now(void); /* CLOCK_MONOTONIC, ns */
/** kas_remote_of() - which KAS to ask; false: none that is trusted */
bool kas_remote_of(const struct kas *k, const struct key_access *ka, size_t *ret);
/** kas_share_id() - a hash of all that the KAS judges; 0 or -EIO */
int kas_share_id(const struct manifest *m, const struct key_access *ka, uint8_t ret[static KEYCACHE_ID]);
/** kas_seed() - a share that was made here: as if the KAS had given it just now */
void kas_seed(struct kas *k, const struct key_access *ka, const char *policy, const struct secret *share);
/** kas_ask_all() - every ask gets its answer; @renew: a share with less than half of its time left does not count; @end: kas_now() */
void kas_ask_all(struct kas *k, struct kas_ask *asks, size_t n, bool renew, uint64_t end);

#endif
