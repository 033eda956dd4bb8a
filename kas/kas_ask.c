/* SPDX-License-Identifier: Apache-2.0 */
/* Shares that a remote KAS has to give: from the cache, from the KAS, or from whoever is asking it just now. */
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <time.h>

#include "kas_i.h"
#include "remote.h"
#include "report.h"

uint64_t kas_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

bool kas_remote_of(const struct kas *k, const struct key_access *ka, size_t *ret)
{
	for (size_t i = 0; ka->type != WRAP_OTHER && i < k->n_remotes; i++)
		if (k->remotes[i].serves(k->remotes[i].ctx, ka->url)) {
			*ret = i;
			return true;
		}
	return false;
}

/* each part with its length */
int kas_share_id(const struct manifest *m, const struct key_access *ka, uint8_t ret[static KEYCACHE_ID])
{
	const struct part p[] = {
	    {ka->url, strlen(ka->url)},
	    {ka->kid, strlen(ka->kid)},
	    {ka->type_name, strlen(ka->type_name)},
	    {ka->binding, strlen(ka->binding)},
	    {ka->ephemeral_pem, strlen(ka->ephemeral_pem)},
	    {ka->wrapped, ka->wrapped_len},
	    {m->policy, strlen(m->policy)},
	};
	struct part all[ARRAY_SIZE(p) + 1];
	uint64_t lens[ARRAY_SIZE(p)];

	for (size_t i = 0; i < ARRAY_SIZE(p); i++) {
		lens[i] = p[i].len;
		all[i + 1] = p[i];
	}
	all[0] = (struct part){lens, sizeof(lens)};
	return sha256(all, ARRAY_SIZE(all), ret);
}

void kas_seed(struct kas *k, const struct key_access *ka, const char *policy, const struct secret *share)
{
	const struct manifest m = {.policy = (char *)policy};
	struct keycache_answer answer = {0};
	uint8_t id[KEYCACHE_ID];
	uint64_t now = kas_now(), ticket;

	if (!kas_share_id(&m, ka, id) && keycache_look(k->shares, id, now, now, &answer, &ticket) == KEYCACHE_ASK)
		keycache_fill(k->shares, id, now, now, 0, share, &answer);
	secret_free(answer.share);
}

/* A KAS that says yes has checked the binding; a share that does not fit it is a wrong answer, which says nothing about the file. */
static int check_share(const struct kas_ask *a, struct remote_item *item)
{
	int err = item->err == -ENOTSUP ? -ENOKEY : item->err;

	if (!err && !item->share)
		err = -EIO;
	else if (!err && (err = manifest_binding(a->m, a->ka, item->share)) == -EBADMSG)
		err = -EIO;
	if (err && !item->err)
		snprintf(item->text, sizeof(item->text), "the KAS answered with a key that is not this file's");
	return err;
}

/* Those of @asks that are for KAS number @remote and that nobody knows.  The one that can do least without it says how long it may take. */
static void ask_remote(struct kas *k, struct kas_ask *asks, size_t n, size_t remote, size_t n_mine, uint64_t end)
{
	CLEANUP_FREE struct remote_item *items = calloc(n_mine, sizeof(*items));
	const struct kas_remote *r = &k->remotes[remote];
	uint64_t asked = kas_now(), now, ms = asked < end ? (end - asked) / 1000000u : 0;
	unsigned chances = UINT_MAX;
	size_t at = 0;
	int err = items ? 0 : -ENOMEM;

	for (size_t i = 0; i < n && items; i++)
		if (asks[i].look == KEYCACHE_ASK && asks[i].remote == remote) {
			items[at++] = (struct remote_item){.ka = asks[i].ka, .policy = asks[i].m->policy, .err = -EIO};
			chances = MIN(chances, asks[i].chances);
		}
	ms /= chances;
	if (!err)
		err = ms ? r->rewrap(r->ctx, items, n_mine, (unsigned)MIN(ms, KAS_TOTAL_MS)) : -ETIMEDOUT;
	now = kas_now();
	at = 0;
	for (size_t i = 0; i < n; i++) {
		struct kas_ask *a = &asks[i];
		struct remote_item *item = items ? &items[at] : NULL;
		int one = err;

		if (a->look != KEYCACHE_ASK || a->remote != remote)
			continue;
		at++;
		if (item) {
			one = err ? err : check_share(a, item);
			snprintf(a->text, sizeof(a->text), "%s", item->text);
		}
		keycache_fill(k->shares, a->id, asked, now, one, one ? NULL : item->share, &a->answer);
		if (item)
			secret_free(item->share);
	}
}

struct call { /* to one KAS, beside those to others */
	struct kas *k;
	struct kas_ask *asks;
	size_t n, remote, n_mine;
	uint64_t end;
	pthread_t thread;
	bool started;
};

static void *call_main(void *arg)
{
	const struct call *c = arg;

	ask_remote(c->k, c->asks, c->n, c->remote, c->n_mine, c->end);
	return NULL;
}

/* Several KASes at the same time: one that is slow, or frozen, does not delay the rest.  The last of them by the caller; one that gets no
 * thread in its turn. */
static void ask_remotes(struct kas *k, struct kas_ask *asks, size_t n, const size_t n_mine[static KAS_REMOTES_MAX], uint64_t end)
{
	struct call calls[KAS_REMOTES_MAX];
	size_t n_calls = 0;

	for (size_t r = 0; r < k->n_remotes; r++)
		if (n_mine[r])
			calls[n_calls++] = (struct call){.k = k, .asks = asks, .n = n, .remote = r, .n_mine = n_mine[r], .end = end};
	for (size_t i = 0; i + 1 < n_calls; i++)
		calls[i].started = pthread_create(&calls[i].thread, NULL, call_main, &calls[i]) == 0;
	for (size_t i = 0; i < n_calls; i++)
		if (!calls[i].started)
			call_main(&calls[i]);
	for (size_t i = 0; i < n_calls; i++)
		if (calls[i].started)
			pthread_join(calls[i].thread, NULL);
}

void kas_ask_all(struct kas *k, struct kas_ask *asks, size_t n, bool renew, uint64_t end)
{
	uint64_t now = kas_now();
	size_t n_mine[KAS_REMOTES_MAX] = {0};

	for (size_t i = 0; i < n; i++) {
		struct kas_ask *a = &asks[i];

		a->look = keycache_look(k->shares, a->id, now, renew ? now + k->times.ttl / 2 : now, &a->answer, &a->ticket);
		if (a->look == KEYCACHE_ASK)
			n_mine[a->remote]++;
	}
	ask_remotes(k, asks, n, n_mine, end);
	for (size_t i = 0; i < n; i++)
		if (asks[i].look == KEYCACHE_BUSY)
			keycache_wait(k->shares, asks[i].id, asks[i].ticket, end, &asks[i].answer);
}
