/* SPDX-License-Identifier: Apache-2.0 */
/* Many keys in few requests, so that one bad file does not spoil it for the others. */
#include <errno.h>
#include <stdio.h>

#include <openssl/rsa.h>

#include "remote_int.h"
#include "report.h"

#define CONNECT_REWRAP "/kas.AccessService/Rewrap"
#define SPLITS_MAX 24    /* further requests that one call may cost because of bad files in it */
#define BODY_MAX 800000  /* bytes of policies and keys in one request: servers take 1 MiB, base64 comes on top */
#define LONE_UNDECIDED 2 /* keys in a row that are not decided even alone: then it is the KAS */

struct group { /* the items of one kind */
	struct remote *r;
	int64_t deadline;
	unsigned splits, undecided;
	bool rsa_tried;
	bool alone; /* every item is suspect, so that some fail says nothing about the KAS */
	int out;    /* an outage: the rest is not asked any more */
	char text[200];
};

enum outcome { OUTCOME_DONE, OUTCOME_SPOILT, OUTCOME_OUT, OUTCOME_RSA };

static void out(struct group *g, int err, const char *text)
{
	g->out = err;
	snprintf(g->text, sizeof(g->text), "%s", text);
}

static void all_out(const struct group *g, struct remote_item *const *items, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		items[i]->err = g->out;
		snprintf(items[i]->text, sizeof(items[i]->text), "%s", g->text);
	}
}

/* A pair for the answer: EC, a new one each time; RSA, one for good, because making one takes long. */
static int client_key(struct remote *r, bool *rsa, EVP_PKEY **ret)
{
	EVP_PKEY *key;

	mutex_lock(&r->lock);
	*rsa = r->session_rsa;
	key = *rsa ? r->rsa : NULL;
	if (key && EVP_PKEY_up_ref(key) != 1)
		key = NULL;
	mutex_unlock(&r->lock);
	if (key) {
		*ret = key;
		return 0;
	}
	key = *rsa ? EVP_RSA_gen(2048) : pubkey_new_ec();
	if (!key)
		return -EIO;
	mutex_lock(&r->lock);
	if (*rsa && !r->rsa && EVP_PKEY_up_ref(key) == 1)
		r->rsa = key;
	mutex_unlock(&r->lock);
	*ret = key;
	return 0;
}

static void count(struct remote *r, const enum verdict *v, size_t n)
{
	mutex_lock(&r->lock);
	for (size_t i = 0; i < n; i++) {
		r->stats.keys += v[i] == VERDICT_KEY;
		r->stats.denied += v[i] == VERDICT_DENIED;
	}
	mutex_unlock(&r->lock);
}

static size_t having(const enum verdict *v, size_t n, enum verdict want)
{
	size_t got = 0;

	for (size_t i = 0; i < n; i++)
		got += v[i] == want;
	return got;
}

/* A 4xx with an error in JSON: it stands for all. */
static enum outcome refused(struct group *g, const struct http_answer *a, struct remote_item *const *items, size_t n, bool rsa)
{
	char error[160];
	enum verdict v;

	connect_error(a, error, sizeof(error));
	if (!rsa && !g->rsa_tried && strstr(error, "clientPublicKey"))
		return OUTCOME_RSA;
	v = a->status == 403 ? verdict_of(error) : VERDICT_BAD;
	if (a->status == 403 && v != VERDICT_UNDECIDED)
		v = VERDICT_DENIED;
	if (n > 1 && v != VERDICT_DENIED)
		return OUTCOME_SPOILT;
	for (size_t i = 0; i < n; i++)
		item_fail(items[i], v, error);
	if (v == VERDICT_DENIED) {
		mutex_lock(&g->r->lock);
		g->r->stats.denied += n;
		mutex_unlock(&g->r->lock);
	}
	return OUTCOME_DONE;
}

static enum outcome answered(struct group *g, const struct http_answer *a, EVP_PKEY *client, struct remote_item *const *items, size_t n,
			     bool rsa)
{
	CLEANUP_FREE enum verdict *v = calloc(n, sizeof(*v));
	int err;

	if (a->status != 200)
		return refused(g, a, items, n, rsa);
	err = v ? answer_take(a, client, items, n, v) : -ENOMEM;
	if (err) {
		out(g, -EIO, err == -ENOMEM ? "out of memory" : fail_text());
		return OUTCOME_OUT;
	}
	if (!rsa && !g->rsa_tried && having(v, n, VERDICT_INVALID) == n)
		return OUTCOME_RSA;
	if (having(v, n, VERDICT_UNDECIDED) == n && n > 1)
		return OUTCOME_SPOILT;
	if (having(v, n, VERDICT_OUTAGE) + having(v, n, VERDICT_NONE) == n) {
		out(g, -EIO, items[0]->text);
		return OUTCOME_OUT;
	}
	g->undecided = v[0] == VERDICT_UNDECIDED && !g->alone ? g->undecided + 1 : 0; /* a single one: see above */
	if (g->undecided >= LONE_UNDECIDED) {
		out(g, -EIO, items[0]->text);
		return OUTCOME_OUT;
	}
	count(g->r, v, n);
	return OUTCOME_DONE;
}

static int ask(struct group *g, struct remote_item *const *items, size_t n, EVP_PKEY *client, bool rsa, struct http_answer *ret)
{
	CLEANUP_FREE char *pem = pubkey_pem(client), *body = pem ? request_make(items, n, pem, rsa) : NULL;
	const struct exchange x = {.connect = CONNECT_REWRAP,
				   .rest = REST_REWRAP,
				   .body = body,
				   .sign = true,
				   .answer_max = ANSWER_BASE + n * ANSWER_ITEM,
				   .deadline = g->deadline};

	return body ? remote_exchange(g->r, &x, ret) : -ENOMEM;
}

static enum outcome group_once(struct group *g, struct remote_item *const *items, size_t n)
{
	CLEANUP_ANSWER struct http_answer a = {0};
	EVP_PKEY *client = NULL;
	enum outcome o;
	bool rsa = false;
	int err = client_key(g->r, &rsa, &client);

	if (!err) {
		err = breaker_enter(g->r);
		if (!err) {
			err = ask(g, items, n, client, rsa, &a);
			o = err ? OUTCOME_OUT : answered(g, &a, client, items, n, rsa);
			if (err == -EACCES || err == -ENOMEM)
				breaker_cancel(g->r);
			else if (o == OUTCOME_OUT && !err)
				breaker_leave(g->r, fail(g->out, "%s", g->text));
			else
				breaker_leave(g->r, err);
		}
	}
	EVP_PKEY_free(client);
	if (err) {
		out(g, err == -ENOMEM ? -EIO : err, err == -ENOMEM ? "out of memory" : fail_text());
		return OUTCOME_OUT;
	}
	return o;
}

static void group_run(struct group *g, struct remote_item *const *items, size_t n);

/* EC session keys are not to its taste: RSA from now on, if that works. */
static void group_rsa(struct group *g, struct remote_item *const *items, size_t n)
{
	bool better = false;

	g->rsa_tried = true;
	mutex_lock(&g->r->lock);
	g->r->session_rsa = true;
	mutex_unlock(&g->r->lock);
	group_run(g, items, n);
	for (size_t i = 0; i < n; i++)
		better = better || !items[i]->err;
	mutex_lock(&g->r->lock);
	g->r->session_rsa = better;
	mutex_unlock(&g->r->lock);
}

static void group_run(struct group *g, struct remote_item *const *items, size_t n)
{
	enum outcome o = g->out ? OUTCOME_OUT : group_once(g, items, n);

	if (o == OUTCOME_RSA) {
		group_rsa(g, items, n);
	} else if (o == OUTCOME_SPOILT && ++g->splits <= SPLITS_MAX) {
		group_run(g, items, n / 2);
		group_run(g, items + n / 2, n - n / 2);
	} else if (o == OUTCOME_SPOILT) {
		for (size_t i = 0; i < n; i++)
			item_fail(items[i], VERDICT_UNDECIDED, "too many bad files in one request");
	} else if (o == OUTCOME_OUT) {
		all_out(g, items, n);
	}
}

/* How many from @items on fit into one request. */
static size_t chunk(struct remote_item *const *items, size_t n)
{
	size_t bytes = 0, i;

	for (i = 0; i < n && i < REMOTE_BULK_MAX; i++) {
		bytes += strlen(items[i]->policy) + 2 * items[i]->ka->wrapped_len + strlen(items[i]->ka->ephemeral_pem) + 512;
		if (i && bytes > BODY_MAX)
			break;
	}
	return i;
}

static void kind_run(struct remote *r, struct remote_item *const *items, size_t n, bool alone, int64_t deadline)
{
	struct group g = {.r = r, .deadline = deadline, .alone = alone};

	for (size_t done = 0, some; done < n; done += some) {
		some = alone ? 1 : chunk(items + done, n - done);
		group_run(&g, items + done, some);
	}
}

int remote_rewrap(struct remote *r, struct remote_item *items, size_t n, unsigned ms)
{
	int64_t deadline = http_now() + (ms ? MIN(ms, r->total_ms) : r->total_ms);
	CLEANUP_FREE struct remote_item **list = calloc(n + 1, sizeof(*list));
	CLEANUP_FREE unsigned char *kinds = calloc(n + 1, 1);
	const struct remote_item *like = NULL; /* mostly all files have one policy */

	if (!list || !kinds)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		items[i].share = NULL;
		items[i].err = -EIO;
		items[i].text[0] = 0;
		kinds[i] = (unsigned char)item_kind(r, &items[i], like, like ? kinds[like - items] : ITEM_BAD);
		if (!r->oidc && kinds[i] != ITEM_BAD) {
			kinds[i] = ITEM_BAD;
			items[i].err = -EACCES;
			snprintf(items[i].text, sizeof(items[i].text), "there is no login for %.150s", r->name);
		}
		if (kinds[i] != ITEM_BAD)
			like = &items[i];
	}
	/* files without attributes open even when the platform's decisions are down, so they go first and apart */
	for (enum item_kind k = ITEM_PLAIN; k <= ITEM_ALONE; k++) {
		size_t some = 0;

		for (size_t i = 0; i < n; i++)
			if (kinds[i] == k)
				list[some++] = &items[i];
		kind_run(r, list, some, k == ITEM_ALONE, deadline);
	}
	return 0;
}
