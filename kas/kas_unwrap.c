/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From key access objects to data keys: what local keys open first, then the KASes that are trusted for the rest, many files at a time.
 *
 * Each file is a job with its shares (one a sid).  All jobs go in rounds: each share that is still missing names the next of its
 * alternatives that a remote KAS serves, the cache is looked at, what nobody knows is asked for in one call per KAS, then what others were
 * asking for is waited for.  Nobody waits while others may wait for him.
 */
#include <errno.h>
#include <stdio.h>

#include "kas_i.h"
#include "report.h"

#define JOB_SHARES_MAX 16

struct share {
	struct job *job;
	size_t first; /* key access object: the others have its sid */
	size_t next;  /* to be looked at */
	int worst;
	struct secret *secret;
};

struct job {
	const struct manifest *m;
	struct share shares[JOB_SHARES_MAX];
	size_t n_shares;
	int err;
	uint64_t until; /* 0: for ever */
	char text[320];
};

void kas_times(struct kas *k, unsigned ttl, unsigned grace)
{
	const uint64_t s = 1000000000u;

	k->times = (struct keycache_times){.ttl = ttl * s, .grace = grace * s, .denied = MIN(ttl, 30) * s};
	if (k->shares)
		keycache_set(k->shares, &k->times);
}

int kas_add_remote(struct kas *k, const struct kas_remote *r)
{
	if (k->n_remotes == KAS_REMOTES_MAX)
		return fail(-ENOSPC, "more than %d remote KASes", KAS_REMOTES_MAX);
	if (!k->shares)
		k->shares = keycache_new(&k->times);
	if (!k->shares)
		return -ENOMEM;
	k->remotes[k->n_remotes++] = *r;
	return 0;
}

/* --- a job --- */

static void share_failed(struct job *j, struct share *s, const struct key_access *ka, int err, const char *text)
{
	if (kas_error_rank(err) <= kas_error_rank(s->worst))
		return;
	s->worst = err;
	snprintf(j->text, sizeof(j->text), "key access object %zu of %zu (%.100s, kid \"%.64s\"): %s", (size_t)(ka - j->m->ka) + 1,
		 j->m->n_ka, ka->url, ka->kid, text);
}

static bool local_serves(const struct kas *k, const struct key_access *ka)
{
	for (size_t n = 0; n < k->n_keys; n++)
		if (local_fits(k->keys[n], ka) != LOCAL_NO)
			return true;
	return false;
}

/* With the local keys, every alternative; 0 or 1: somebody else has to be asked */
static int share_local(struct kas *k, struct job *j, struct share *s)
{
	const struct manifest *m = j->m;
	size_t remote;
	int more = 0;

	for (size_t i = s->first; i < m->n_ka; i++) {
		bool asked;
		int err;

		if (strcmp(m->ka[i].sid, m->ka[s->first].sid))
			continue;
		asked = kas_remote_of(k, &m->ka[i], &remote);
		more |= asked;
		if (asked && !local_serves(k, &m->ka[i]))
			continue; /* what is wrong with it the KAS will say */
		err = kas_unwrap_local(k, m->policy, &m->ka[i], &s->secret);
		if (!err)
			return 0;
		share_failed(j, s, &m->ka[i], err, fail_text());
	}
	return more;
}

static void job_begin(struct kas *k, struct job *j, const struct manifest *m)
{
	j->m = m;
	if (!m->n_ka) {
		j->err = -ENOKEY;
		snprintf(j->text, sizeof(j->text), "there is no key access object");
	}
	for (size_t i = 0; i < m->n_ka && !j->err; i++) {
		struct share *s = &j->shares[j->n_shares];
		bool seen = false;

		for (size_t n = 0; n < j->n_shares && !seen; n++)
			seen = strcmp(m->ka[j->shares[n].first].sid, m->ka[i].sid) == 0;
		if (seen)
			continue;
		if (j->n_shares == JOB_SHARES_MAX) {
			j->err = -EPROTO;
			snprintf(j->text, sizeof(j->text), "more than %d shares", JOB_SHARES_MAX);
			return;
		}
		s->job = j;
		s->first = s->next = i;
		j->n_shares++;
		if (!share_local(k, j, s) && !s->secret)
			j->err = s->worst;
	}
}

/* The next alternative of a share that a KAS serves; NULL: there is none left */
static const struct key_access *share_next(struct kas *k, const struct job *j, struct share *s, size_t *ret_remote)
{
	while (s->next < j->m->n_ka) {
		const struct key_access *ka = &j->m->ka[s->next++];

		if (strcmp(ka->sid, j->m->ka[s->first].sid) == 0 && kas_remote_of(k, ka, ret_remote))
			return ka;
	}
	return NULL;
}

static unsigned share_chances(struct kas *k, const struct job *j, struct share s)
{
	unsigned n = 1;
	size_t remote;

	while (share_next(k, j, &s, &remote))
		n++;
	return n;
}

/* What this job wants to know in this round */
static size_t job_asks(struct kas *k, struct job *j, struct kas_ask *asks)
{
	size_t n = 0;

	for (size_t i = 0; i < j->n_shares && !j->err; i++) {
		struct share *s = &j->shares[i];
		struct kas_ask *a = &asks[n];

		if (s->secret)
			continue;
		*a = (struct kas_ask){.owner = s, .m = j->m};
		a->ka = share_next(k, j, s, &a->remote);
		a->chances = share_chances(k, j, *s);
		if (!a->ka)
			j->err = s->worst;
		else if (kas_share_id(j->m, a->ka, a->id))
			j->err = -EIO;
		else
			n++;
	}
	return j->err ? 0 : n; /* one share that cannot be had makes the others useless */
}

static void job_take(struct kas_ask *a)
{
	struct keycache_answer *w = &a->answer;
	struct share *share = a->owner;
	struct job *job = share->job;

	if (w->err) {
		share_failed(job, share, a->ka, w->err,
			     *a->text               ? a->text
			     : w->err == -EACCES    ? "the KAS has refused the key, less than 30 s ago"
			     : w->err == -EBADMSG   ? "the KAS has called it forged, less than 30 s ago"
			     : w->err == -ETIMEDOUT ? "the KAS does not answer"
			     : w->err == -ENOMEM    ? "out of memory"
						    : "the KAS could not be asked");
		return;
	}
	share->secret = STEAL(w->share);
	job->until = job->until ? MIN(job->until, w->until) : w->until;
}

static void run_jobs(struct kas *k, struct job *jobs, size_t n, bool renew, uint64_t end)
{
	uint64_t last = kas_now() + (uint64_t)KAS_TOTAL_MS * 1000000u;
	CLEANUP_FREE struct kas_ask *asks = NULL;
	size_t n_asks, room = 0;

	if (!k->n_remotes)
		return;
	end = end ? MIN(end, last) : last;
	for (size_t i = 0; i < n; i++)
		room += jobs[i].n_shares;
	asks = malloc(MAX(room, 1) * sizeof(*asks));
	for (size_t i = 0; i < n && !asks; i++)
		jobs[i].err = -ENOMEM;
	do {
		n_asks = 0;
		for (size_t i = 0; i < n; i++)
			n_asks += job_asks(k, &jobs[i], asks + n_asks);
		kas_ask_all(k, asks, n_asks, renew, end);
		for (size_t i = 0; i < n_asks; i++)
			job_take(&asks[i]);
	} while (n_asks);
}

/* The DEK; everything of the job is freed.  @ret: may be NULL */
static int job_end(struct job *j, struct secret **ret)
{
	CLEANUP_SECRET struct secret *dek = secret_new();
	int err = j->err;

	for (size_t i = 0; i < j->n_shares; i++) {
		const struct secret *s = j->shares[i].secret;

		for (size_t b = 0; b < SECRET_LEN && s && dek; b++)
			dek->b[b] ^= s->b[b];
		secret_free(j->shares[i].secret);
	}
	if (!err && !dek)
		err = -ENOMEM;
	if (!err && ret)
		*ret = STEAL(dek);
	return err && *j->text ? fail(err, "%s", j->text) : err;
}

int kas_unwrap_until(struct kas *k, const struct manifest *m, uint64_t end, struct secret **ret, uint64_t *ret_until)
{
	struct job j = {0};
	int err;

	job_begin(k, &j, m);
	run_jobs(k, &j, 1, false, end);
	err = job_end(&j, ret);
	if (!err)
		*ret_until = j.until;
	return err;
}

int kas_unwrap(struct kas *k, const struct manifest *m, struct secret **ret)
{
	uint64_t until;

	return kas_unwrap_until(k, m, 0, ret, &until);
}

static void unwrap_many(struct kas *k, struct kas_want *w, size_t n, bool renew, uint64_t end)
{
	CLEANUP_FREE struct job *jobs = calloc(MAX(n, 1), sizeof(*jobs));

	if (!jobs) {
		for (size_t i = 0; i < n; i++)
			w[i].err = fail(-ENOMEM, "out of memory");
		return;
	}
	for (size_t i = 0; i < n; i++)
		job_begin(k, &jobs[i], w[i].m);
	run_jobs(k, jobs, n, renew, end);
	for (size_t i = 0; i < n; i++) {
		w[i].until = jobs[i].until;
		w[i].err = job_end(&jobs[i], NULL);
	}
}

void kas_prefetch(struct kas *k, struct kas_want *w, size_t n, uint64_t end)
{
	unwrap_many(k, w, n, false, end);
}

void kas_renew(struct kas *k, struct kas_want *w, size_t n)
{
	unwrap_many(k, w, n, true, 0);
}

/* Can one of the alternatives of object @first be had without asking? */
static bool share_known(struct kas *k, const struct manifest *m, size_t first, uint64_t now)
{
	uint8_t id[KEYCACHE_ID];
	bool any = false; /* who might be asked; without one there is nothing to wait for */
	size_t remote;

	for (size_t i = first; i < m->n_ka; i++) {
		if (strcmp(m->ka[i].sid, m->ka[first].sid))
			continue;
		for (size_t n = 0; n < k->n_keys; n++)
			if (local_fits(k->keys[n], &m->ka[i]) == LOCAL_YES)
				return true;
		if (!kas_remote_of(k, &m->ka[i], &remote))
			continue;
		any = true;
		if (!kas_share_id(m, &m->ka[i], id) && keycache_has(k->shares, id, now))
			return true;
	}
	return !any;
}

bool kas_known(struct kas *k, const struct manifest *m)
{
	uint64_t now = k->n_remotes ? kas_now() : 0;

	for (size_t i = 0; k->n_remotes && i < m->n_ka; i++)
		if (!share_known(k, m, i, now))
			return false;
	return true;
}

void kas_tick(struct kas *k)
{
	if (k->shares)
		keycache_expire(k->shares, kas_now());
}

void kas_stats(struct kas *k, struct kas_stats *ret)
{
	struct keycache_stats s = {0};

	if (k->shares)
		keycache_stats(k->shares, &s);
	*ret = (struct kas_stats){s.entries, s.hits, s.misses, s.waits, s.refusals, s.bridged};
}
