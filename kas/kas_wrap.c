/* SPDX-License-Identifier: Apache-2.0 */
/* For whom new files are made: the writers of all policies, or those that one policy has of its own; and making their key access objects.
 */
#include <errno.h>
#include <stdio.h>

#include "kas_i.h"
#include "report.h"

void kas_writers_clear(struct writer_set *s)
{
	while (s->n)
		local_key_free(s->w[--s->n].key);
	s->n_splits = 0;
}

int kas_plan(struct kas *k, const uint8_t *policy)
{
	struct writer_set *more;

	k->set = policy ? 1 : 0;
	while (policy && k->set < k->n_sets && memcmp(k->sets[k->set].policy, policy, sizeof(k->sets->policy)))
		k->set++;
	if (policy && k->set < k->n_sets)
		kas_writers_clear(&k->sets[k->set]);
	if (k->set < k->n_sets)
		return 0;
	more = realloc(k->sets, (k->n_sets + 1) * sizeof(*more));
	if (!more) {
		k->set = 0;
		return -ENOMEM;
	}
	k->sets = more;
	more[k->n_sets] = (struct writer_set){.n = 0};
	memcpy(more[k->n_sets++].policy, policy, sizeof(more->policy));
	return 0;
}

int kas_add_writer(struct kas *k, const char *kid, const char *url, EVP_PKEY *key, unsigned split)
{
	struct writer_set *s = &k->sets[k->set];
	struct local_key *writer = NULL;
	int err;

	if (s->n == KAS_WRITERS_MAX || split > s->n_splits) {
		EVP_PKEY_free(key);
		return s->n == KAS_WRITERS_MAX ? fail(-ENOSPC, "new files may be made for at most %d KAS keys", KAS_WRITERS_MAX)
					       : fail(-EINVAL, "the splits of new files have a gap");
	}
	err = key ? local_key_new(kid, url, key, &writer) : 0;
	if (err)
		return err;
	s->w[s->n++] = (struct writer){writer, split};
	s->n_splits = MAX(s->n_splits, split + 1);
	return 0;
}

int kas_writers(const struct kas *k, const char *policy, const struct writer_set **ret)
{
	uint8_t hash[32];
	int err = k->n_sets > 1 ? sha256(&(struct part){policy, strlen(policy)}, 1, hash) : 0;

	if (err)
		return err;
	*ret = &k->sets[0];
	for (size_t i = 1; i < k->n_sets; i++)
		if (k->sets[i].n && memcmp(k->sets[i].policy, hash, sizeof(hash)) == 0)
			*ret = &k->sets[i];
	return 0;
}

/* The share of each split: random ones, and a last one that makes their XOR the DEK. */
static int make_shares(const struct secret *dek, unsigned n, struct secret **shares)
{
	struct secret *last = secret_copy(dek);

	if (!last)
		return -ENOMEM;
	shares[n - 1] = last;
	for (unsigned i = 0; i + 1 < n; i++) {
		shares[i] = secret_random();
		if (!shares[i])
			return fail(-EIO, "no random bytes for a share of a data key");
		for (size_t b = 0; b < SECRET_LEN; b++)
			last->b[b] ^= shares[i]->b[b];
	}
	return 0;
}

/* What was just made for a KAS elsewhere need not be asked for there by who reads it back. */
static void remember(struct kas *k, const struct writer *w, const struct wrap_made *made, const char *policy, const struct secret *share)
{
	const struct key_access ka = {
	    .type_name = (char *)(made->ephemeral_pem ? "ec-wrapped" : "wrapped"),
	    .url = (char *)local_key_url(w->key),
	    .kid = (char *)local_key_id(w->key),
	    .ephemeral_pem = made->ephemeral_pem ? made->ephemeral_pem : (char *)"",
	    .wrapped = (uint8_t *)made->wrapped,
	    .wrapped_len = made->wrapped_len,
	    .binding = (char *)made->binding,
	};

	kas_seed(k, &ka, policy, share);
}

static int wrap_each(struct kas *k, const struct writer_set *s, struct secret *const *shares, const char *policy, bool is_new, char **ret)
{
	CLEANUP_FREE char *text = strdup("[");
	char sid[16];

	for (size_t i = 0; i < s->n; i++) {
		const struct writer *w = &s->w[i];
		struct wrap_made made = {.ephemeral_pem = NULL};
		const struct wrap_frame frame = {text, s->n_splits > 1 ? sid : NULL, i + 1 < s->n ? "," : "]",
						 w->key && k->n_remotes && is_new ? &made : NULL};
		char *more;
		int err;

		if (!text)
			return -ENOMEM;
		if (!w->key && !k->n_keys)
			return fail(-ENOKEY, "there is no KAS key to write with");
		snprintf(sid, sizeof(sid), "\"s%u\"", w->split + 1);
		err = local_wrap(w->key ? w->key : k->keys[k->write_key], shares[w->split], policy, &frame, &more);
		if (!err && frame.made)
			remember(k, w, &made, policy, shares[w->split]);
		free(made.ephemeral_pem);
		if (err)
			return err;
		free(text);
		text = more;
	}
	*ret = STEAL(text);
	return 0;
}

static int wrap(struct kas *k, const struct secret *dek, const char *policy, bool is_new, char **ret)
{
	static const struct wrap_frame alone = {"[", NULL, "]", NULL};
	struct secret *shares[KAS_WRITERS_MAX] = {NULL};
	const struct writer_set *s;
	int err = kas_writers(k, policy, &s);

	if (err)
		return err;
	if (!s->n && k->n_keys)
		return local_wrap(k->keys[k->write_key], dek, policy, &alone, ret);
	if (!s->n)
		return fail(-ENOKEY, "there is no KAS key to write with");
	err = make_shares(dek, s->n_splits, shares);
	if (!err)
		err = wrap_each(k, s, shares, policy, is_new, ret);
	for (unsigned i = 0; i < s->n_splits; i++)
		secret_free(shares[i]);
	return err;
}

int kas_wrap(struct kas *k, const struct secret *dek, const char *policy, char **ret)
{
	return wrap(k, dek, policy, true, ret);
}

int kas_wrap_again(struct kas *k, const struct secret *dek, const char *policy, char **ret)
{
	return wrap(k, dek, policy, false, ret);
}

bool kas_is_current(const struct kas *k, const struct manifest *m)
{
	const struct writer_set *s;

	if (kas_writers(k, m->policy, &s))
		return false;
	if (!s->n)
		return k->n_keys && m->n_ka == 1 && strcmp(m->ka[0].kid, local_key_id(k->keys[k->write_key])) == 0;
	if (m->n_ka != s->n)
		return false;
	for (size_t i = 0; i < m->n_ka; i++) {
		const struct writer *w = &s->w[i];

		if (!w->key && !k->n_keys)
			return false;
		if (strcmp(m->ka[i].kid, local_key_id(w->key ? w->key : k->keys[k->write_key])))
			return false;
		if (w->key && strcmp(m->ka[i].url, local_key_url(w->key)))
			return false;
		if (i && (w->split == w[-1].split) != (strcmp(m->ka[i].sid, m->ka[i - 1].sid) == 0)) /* alternatives stand together */
			return false;
	}
	return true;
}

uint64_t kas_wrap_until(const struct kas *k, const char *policy)
{
	const struct writer_set *s;
	unsigned local = 0; /* splits that a local key opens, as bits */

	if (kas_writers(k, policy, &s))
		return kas_now();
	for (size_t i = 0; i < s->n; i++)
		if (!s->w[i].key)
			local |= 1u << s->w[i].split;
	return local + 1 == 1u << s->n_splits ? 0 : kas_now() + k->times.ttl;
}
