/* SPDX-License-Identifier: Apache-2.0 */
#include "slot_kas.h"

#include <jansson.h>

#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "report.h"
#include "url.h"
#include "volume_file.h"

int volume_check(const struct secret *vk, uint8_t ret[static VOLUME_CHECK_LEN])
{
	CLEANUP_SECRET struct secret *s = derive(vk, "check");

	if (!s)
		return -ENOMEM;
	memcpy(ret, s->b, VOLUME_CHECK_LEN);
	return 0;
}

/* The key that wraps VK. */
static int share_kek(const struct slot *s, const struct secret *share, struct secret *kek)
{
	return hkdf((struct part){share->b, SECRET_LEN}, (struct part){s->salt, sizeof(s->salt)}, (struct part){"tdfs slot kas", 13},
		    kek->b, SECRET_LEN);
}

/* @share as a key access object for @to alone */
static int share_wrap(const struct volume_remote *to, const char *policy, const struct secret *share, struct manifest **ret)
{
	CLEANUP_FREE char *access = NULL;
	struct kas *k = kas_new();
	EVP_PKEY *key = NULL;
	int err = k ? pubkey_public(to->pem, strlen(to->pem), &key) : -ENOMEM;

	if (!err)
		err = kas_add_writer(k, to->kid, to->url, key, 0);
	if (!err)
		err = kas_wrap(k, share, policy, &access);
	if (!err && strlen(access) > SLOT_ACCESS_MAX)
		err = fail(-EPROTO, "the key of %s is too long for a key slot", to->url);
	if (!err)
		err = manifest_of_keys(access, policy, ret);
	kas_free(k);
	return err;
}

int slot_kas_make(struct slot *s, const struct volume_remote *to, const char *policy, const struct secret *vk)
{
	CLEANUP_SECRET struct secret *share = secret_random();
	CLEANUP_SECRET struct secret *kek = secret_new();
	CLEANUP(slot_clear) struct slot made = {.id = s->id, .kind = SLOT_KAS, .created = time(NULL)};
	int err = share && kek ? share_wrap(to, policy, share, &made.kas) : -ENOMEM;

	if (!err)
		err = random_bytes(made.salt, sizeof(made.salt));
	if (!err)
		err = share_kek(&made, share, kek);
	if (!err)
		err = aead_seal(kek, vk->b, SECRET_LEN, made.wrapped);
	if (err)
		return err;
	*s = made;
	made.kas = NULL;
	return 0;
}

int slot_kas_parse(const json_t *o, struct slot *s)
{
	const char *access = json_string_value(json_object_get(o, "access")), *policy = json_string_value(json_object_get(o, "policy"));
	int err;

	if (!access || !policy || json_object_size(o) != 2 || strlen(access) > SLOT_ACCESS_MAX || strlen(policy) > VOLUME_POLICY_MAX)
		return fail(-EPROTO, "\"kas\" of key slot %u is not {\"access\",\"policy\"} of at most %zu and %zu bytes", s->id,
			    SLOT_ACCESS_MAX, VOLUME_POLICY_MAX);
	err = manifest_of_keys(access, policy, &s->kas);
	if (!err && s->kas->n_ka != 1)
		err = fail(-EPROTO, "key slot %u has %zu key access objects: one is right", s->id, s->kas->n_ka);
	return err;
}

/* Is the slot for this KAS?  The origin counts, as the user has it. */
static bool slot_matches(const struct slot *s, const struct kas_trust *t)
{
	struct url ours, theirs;

	return s->kind == SLOT_KAS && !url_parse(t->kas.url, false, &ours) && !url_parse(s->kas->ka[0].url, false, &theirs) &&
	       url_same_origin(&ours, &theirs);
}

bool slot_kas_any(const struct volume *v, const struct kas_trusts *t)
{
	for (size_t i = 0; i < v->n_slots; i++)
		for (size_t j = 0; j < t->n; j++)
			if (slot_matches(&v->slots[i], &t->list[j]))
				return true;
	return false;
}

struct attempt {
	int err;
	char text[300];
};

/* Of several failures the one that tells most: who is away might have said yes. */
static void note(struct attempt *a, const struct kas_trust *t, int err, const char *text)
{
	static const int order[] = {-ENOMEM, -ETIMEDOUT, -EACCES, -EKEYREJECTED, -ENOKEY};
	size_t old = 0, new = 0;

	err = err == -EIO ? -ETIMEDOUT : err; /* both: it could not be asked, or not decide */
	while (new < ARRAY_SIZE(order) - 1 && order[new] != err)
		new ++;
	while (old < ARRAY_SIZE(order) - 1 && order[old] != a->err)
		old++;
	if (a->err && old < new)
		return;
	a->err = order[new];
	snprintf(a->text, sizeof(a->text), "%.100s: %.190s", t->kas.url, *text ? text : strerror(-err));
}

/* The share is there: is what comes out the volume that the user means? */
static int slot_finish(const struct slot *s, const struct secret *share, const struct kas_trust *t, struct secret **ret)
{
	CLEANUP_SECRET struct secret *kek = secret_new();
	CLEANUP_SECRET struct secret *vk = secret_new();
	uint8_t check[VOLUME_CHECK_LEN];
	int err = kek && vk ? share_kek(s, share, kek) : -ENOMEM;

	if (!err)
		err = aead_open(kek, s->wrapped, sizeof(s->wrapped), NULL, vk->b);
	if (err == -EBADMSG)
		return fail(-ENOKEY, "key slot %u is damaged: what the KAS gives does not open it", s->id);
	if (!err)
		err = volume_check(vk, check);
	if (!err && !equal_ct(check, t->check, sizeof(check)))
		err = fail(-EKEYREJECTED,
			   "key slot %u leads to another volume than the one that is trusted at %s: was the store exchanged? (`tdfs kas "
			   "trust` says so if it was you)",
			   s->id, t->store);
	if (!err)
		*ret = STEAL(vk);
	return err;
}

/* All slots for one KAS, by one rewrap. */
static void ask(const struct volume *v, const struct kas_trust *t, struct attempt *a, struct secret **ret)
{
	struct remote_item items[SLOT_MAX] = {0};
	const struct slot *from[SLOT_MAX];
	struct remote *r = NULL;
	size_t n = 0;
	int err;

	for (size_t i = 0; i < v->n_slots && n < SLOT_MAX; i++)
		if (slot_matches(&v->slots[i], t)) {
			items[n] = (struct remote_item){.ka = &v->slots[i].kas->ka[0], .policy = v->slots[i].kas->policy};
			from[n++] = &v->slots[i];
		}
	if (!n)
		return;
	err = volume_remote_new(&t->kas, &r);
	if (!err)
		err = remote_rewrap(r, items, n, 0);
	if (err) /* -ENOMEM, or a login that is not there */
		note(a, t, err == -ENOMEM ? err : -ENOKEY, fail_text());
	for (size_t i = 0; i < n && !err && !*ret; i++) {
		int each = items[i].err ? items[i].err : slot_finish(from[i], items[i].share, t, ret);

		if (each)
			note(a, t, each, items[i].err ? items[i].text : fail_text());
	}
	for (size_t i = 0; i < n; i++)
		secret_free(items[i].share);
	remote_free(r);
}

int slot_kas_open(const struct volume *v, const struct kas_trusts *t, struct secret **ret)
{
	struct attempt a = {0};
	struct secret *vk = NULL;

	for (size_t i = 0; i < t->n && !vk; i++)
		ask(v, &t->list[i], &a, &vk);
	if (!vk)
		return a.err ? fail(a.err, "%s", a.text) : fail(-ENOKEY, "%s has no key slot of a KAS that is trusted for it", v->path);
	*ret = vk;
	return 0;
}
