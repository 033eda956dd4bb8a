/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changing key slots.  What is changed is what stands on disk now, under a lock of its own (flock on .tdfs itself): a mounted daemon and
 * two commands at a time do not lose each other's slots.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/file.h>

#include "report.h"
#include "volume_file.h"

void volume_change_end(struct volume **v)
{
	if (*v)
		(void)flock((*v)->dir_fd, LOCK_UN);
}

/* What may have been changed since, as it stands on disk, authenticated with the key we have. */
static int read_now(struct volume *v, const char *name)
{
	struct io io = io_posix(v->store_fd);
	CLEANUP(volume_cleanup) struct volume *now = volume_new();
	CLEANUP_FREE char *text = NULL;
	size_t len;
	int err;

	if (!now)
		return -ENOMEM;
	err = io_read_file(&io, v->dir_fd, name, VOLUME_TEXT_MAX, &text, &len);
	if (!err)
		err = volume_text_check(text, len, v->k_conf);
	if (!err)
		err = volume_text_parse(text, len, now);
	if (err)
		return err;
		/* two volumes swap what differs: the one read takes the old state with it */
#define SWAP(a, b)                \
	do {                      \
		typeof(a) c_ = a; \
		a = b;            \
		b = c_;           \
	} while (0)
	SWAP(v->slots, now->slots);
	SWAP(v->n_slots, now->n_slots);
	SWAP(v->kas_kid, now->kas_kid);
	SWAP(v->kas_old, now->kas_old);
	SWAP(v->n_kas_old, now->n_kas_old);
	SWAP(v->policy, now->policy);
	SWAP(v->policies, now->policies);
	SWAP(v->n_policies, now->n_policies);
	SWAP(v->kas_split, now->kas_split);
	SWAP(v->remotes, now->remotes);
	SWAP(v->n_remotes, now->n_remotes);
	SWAP(v->plans, now->plans);
	SWAP(v->n_plans, now->n_plans);
#undef SWAP
	return 0;
}

int volume_change_begin(struct volume *v, struct volume **ret)
{
	CLEANUP_FREE char *what = NULL;
	int err;

	if (!v->k_conf)
		return fail(-ENOKEY, "the volume is not unlocked");
	if (asprintf(&what, "%s/" TDFS_DIR "/" VOLUME_JSON, v->path) < 0) {
		what = NULL;
		return -ENOMEM;
	}
	err = dir_lock(v->dir_fd, what);
	if (err)
		return err;
	*ret = v;
	if (read_now(v, VOLUME_JSON) == 0 || read_now(v, VOLUME_BAK) == 0)
		return 0;
	return fail(-EBADMSG, "%s/%s: %s and %s are both damaged: restore them from a backup (tdfs key restore)", v->path, TDFS_DIR,
		    VOLUME_JSON, VOLUME_BAK);
}

/* Put @n slots in the place of the present ones, on disk and here; here only if the disk has them. */
static int replace_slots(struct volume *v, struct slot *slots, size_t n)
{
	struct slot *old = v->slots;
	size_t n_old = v->n_slots;
	int err;

	v->slots = slots;
	v->n_slots = n;
	err = volume_text_write(v);
	if (err) {
		v->slots = old;
		v->n_slots = n_old;
		return fail(err, "%s/%s: %s", v->path, TDFS_DIR, fail_text());
	}
	free(old);
	v->from_backup = false; /* both copies are whole again */
	return 0;
}

static struct slot *slot_of(struct volume *v, uint8_t id)
{
	for (size_t i = 0; i < v->n_slots; i++)
		if (v->slots[i].id == id)
			return &v->slots[i];
	return NULL;
}

static int no_slot(const struct volume *v, uint8_t id)
{
	return fail(-ENOENT, "%s has no key slot %u", v->path, id);
}

static int check_label(const char *label)
{
	return strlen(label) <= SLOT_LABEL_MAX ? 0 : fail(-EINVAL, "a label may have %d bytes", SLOT_LABEL_MAX);
}

/* Takes what @made holds over, also on failure. */
static int add_made(struct volume *v, struct slot *made, uint8_t *ret_id)
{
	CLEANUP(slot_clear) struct slot s = *made;
	CLEANUP_CHANGE struct volume *locked = NULL;
	CLEANUP_FREE struct slot *slots = NULL;
	int err = volume_change_begin(v, &locked);

	made->kas = NULL;
	if (err)
		return err;
	while (s.id < SLOT_MAX && slot_of(v, s.id))
		s.id++;
	if (s.id == SLOT_MAX || v->n_slots >= SLOT_MAX)
		return fail(-ENOSPC, "all %d key slots of %s are in use: remove one first", SLOT_MAX, v->path);
	slots = calloc(v->n_slots + 1, sizeof(*slots));
	if (!slots)
		return -ENOMEM;
	memcpy(slots, v->slots, v->n_slots * sizeof(*slots));
	slots[v->n_slots] = s;
	err = replace_slots(v, slots, v->n_slots + 1);
	if (err)
		return err;
	slots = NULL; /* the volume has it */
	*ret_id = s.id;
	s.kas = NULL;
	return 0;
}

int volume_slot_add(struct volume *v, const struct credential *c, const char *label, unsigned log_n, uint8_t *ret_id)
{
	static const char *const names[] = {
	    [SLOT_PASSPHRASE] = "passphrase", [SLOT_RECOVERY] = "recovery key", [SLOT_KEYFILE] = "key file"};
	struct slot made = {.id = 0};
	int err;

	if (!label || !*label)
		label = names[c->kind];
	err = check_label(label);
	if (err)
		return err;
	snprintf(made.label, sizeof(made.label), "%s", label);
	/* the KDF before the lock */
	err = v->vk ? slot_make(&made, c, v->vk, log_n) : fail(-ENOKEY, "the volume is not unlocked");
	return err ? err : add_made(v, &made, ret_id);
}

int volume_slot_add_kas(struct volume *v, struct slot *s, const char *label, uint8_t *ret_id)
{
	int err = check_label(label && *label ? label : "KAS");

	if (err) {
		slot_clear(s);
		return err;
	}
	snprintf(s->label, sizeof(s->label), "%s", label && *label ? label : "KAS");
	return add_made(v, s, ret_id);
}

/* May @gone go?  Somebody has to be able to get in afterwards, and not by the grace of a KAS alone. */
static int check_last(const struct volume *v, const struct slot *gone, bool force)
{
	size_t own = 0, kas = 0;

	if (v->n_slots == 1)
		return fail(-EBUSY, "key slot %u is the only one: without it the data is lost. Add another first", gone->id);
	for (size_t i = 0; i < v->n_slots; i++) {
		own += &v->slots[i] != gone && (v->slots[i].kind == SLOT_PASSPHRASE || v->slots[i].kind == SLOT_KEYFILE);
		kas += &v->slots[i] != gone && v->slots[i].kind == SLOT_KAS;
	}
	if (own || force || (kas && gone->kind == SLOT_KAS))
		return 0;
	if (kas)
		return fail(-EBUSY,
			    "key slot %u is the last that needs no KAS, but for recovery keys: whoever loses the KAS loses the data. Add another "
			    "first, or use --force",
			    gone->id);
	return fail(-EBUSY, "key slot %u is the last one but for recovery keys: add another first, or use --force", gone->id);
}

int volume_slot_remove(struct volume *v, uint8_t id, bool force)
{
	CLEANUP_CHANGE struct volume *locked = NULL;
	CLEANUP_FREE struct slot *slots = NULL;
	struct slot *gone, was;
	size_t n = 0;
	int err = volume_change_begin(v, &locked);

	if (err)
		return err;
	gone = slot_of(v, id);
	if (!gone)
		return no_slot(v, id);
	err = check_last(v, gone, force);
	if (err)
		return err;
	slots = calloc(v->n_slots, sizeof(*slots));
	if (!slots)
		return -ENOMEM;
	for (size_t i = 0; i < v->n_slots; i++)
		if (&v->slots[i] != gone)
			slots[n++] = v->slots[i];
	was = *gone;
	err = replace_slots(v, slots, n);
	if (!err) {
		slots = NULL;
		slot_clear(&was);
	}
	return err;
}

int volume_slot_change(struct volume *v, uint8_t id, const struct credential *c, unsigned log_n)
{
	CLEANUP_CHANGE struct volume *locked = NULL;
	CLEANUP_FREE struct slot *slots = NULL;
	struct slot made = {.id = id}, was, *old;
	int err = v->vk ? slot_make(&made, c, v->vk, log_n) : fail(-ENOKEY, "the volume is not unlocked");

	if (!err)
		err = volume_change_begin(v, &locked);
	if (err)
		return err;
	old = slot_of(v, id);
	if (!old)
		return no_slot(v, id);
	memcpy(made.label, old->label, sizeof(made.label));
	slots = calloc(v->n_slots, sizeof(*slots));
	if (!slots)
		return -ENOMEM;
	memcpy(slots, v->slots, v->n_slots * sizeof(*slots));
	slots[old - v->slots] = made;
	was = *old;
	err = replace_slots(v, slots, v->n_slots);
	if (!err) {
		slots = NULL;
		slot_clear(&was);
	}
	return err;
}
