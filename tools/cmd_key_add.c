/* SPDX-License-Identifier: Apache-2.0 */
/* tdfs key add: one more way into a volume; a passphrase, a key file, or a KAS. */
#include <errno.h>
#include <stdio.h>

#include "cmd_key.h"
#include "encode.h"
#include "say.h"
#include "slot_kas.h"

/* Whom the slot is for: a KAS that the volume has, unless it is said anew, else as the options have it; an exit code */
static int kas_of(const struct change_args *a, const struct volume *v, struct volume_remote *ret)
{
	const struct volume_remote *has = volume_remote_find(v, a->kas_url);
	int err;

	if (!has || !has->pem || a->kas.client_id || a->kas.token_file || a->kas.key_file || a->kas.alg)
		return kas_source_get(&a->kas, a->kas_url, v->path, ret);
	err = volume_remote_copy(has, ret);
	return err ? complain(err, a->kas_url, NULL) : EXIT_TDFS_OK;
}

/* Does it open?  Who makes a slot need not be whom it is for, so a refusal is told and no more. */
static void try_slot(const struct volume *v, struct slot *s, struct kas_trust *t)
{
	const struct volume one = {.path = v->path, .slots = s, .n_slots = 1};
	CLEANUP_SECRET struct secret *vk = NULL;
	int err;

	fail_clear();
	err = slot_kas_open(&one, &(struct kas_trusts){t, 1}, &vk);
	if (err)
		report(REPORT_WARN, "the new slot was tried and does not open with this login: %s", cause_text(err));
}

static void tell_elsewhere(const char *store, const struct kas_trust *t, const char *file)
{
	char hex[2 * VOLUME_CHECK_LEN + 1];

	hex_encode(t->check, VOLUME_CHECK_LEN, hex);
	printf("%s says so on this machine: without another secret %s is asked.\n"
	       "On others:  tdfs kas trust %s %s --volume-check %s --client-id ...\n",
	       file, t->kas.url, store, t->kas.url, hex);
}

static int add_kas(const struct change_args *a, const char *store, struct volume *v)
{
	CLEANUP(volume_remote_clear) struct volume_remote kas = {0};
	CLEANUP(slot_clear) struct slot s = {0};
	CLEANUP_FREE char *policy = NULL;
	CLEANUP_FREE char *file = a->trust_file ? strdup(a->trust_file) : NULL;
	struct kas_trust t = {.store = v->path};
	char hash[17] = "?";
	uint8_t id = 0;
	int code = kas_of(a, v, &kas), err;

	if (code)
		return code;
	fail_clear();
	t.kas = kas; /* borrowed */
	err = file ? 0 : kas_trust_path(&file);
	if (!err)
		err = policy_make_base64(&a->policy, &policy);
	if (!err)
		err = volume_remote_check(v, &kas);
	if (!err)
		err = slot_kas_make(&s, &kas, policy, v->vk);
	if (!err)
		err = volume_check(v->vk, t.check);
	if (!err)
		err = kas_key_hash(kas.pem, hash);
	if (err)
		return complain(err, store, NULL);
	if (!a->kas.no_probe)
		try_slot(v, &s, &t);
	fail_clear();
	err = kas_trust_save(file, &t);
	if (err)
		return err == -EBUSY ? complain(err, file, NULL) : complain_file(err, file, "--trust-file names another place");
	err = volume_slot_add_kas(v, &s, a->label, &id);
	if (err)
		return slot_complain(err, store);
	printf("slot %d added: whom %s lets in opens the volume.\n"
	       "  key %s, SHA-256 %s...: compare it with what the KAS's keeper says\n",
	       id, kas.url, kas.kid, hash);
	tell_elsewhere(store, &t, file);
	return output_flush(EXIT_TDFS_OK);
}

static int check_args(const struct change_args *a)
{
	bool policy = a->policy.attributes || a->policy.dissem || a->policy.expiry,
	     secret = a->fresh.passfile || a->fresh.passfd || a->fresh.extpass || a->fresh.keyfile;

	if (a->kas_url ? !secret && !a->log_n : !policy && !a->trust_file)
		return EXIT_TDFS_OK;
	report(REPORT_ERROR,
	       a->kas_url ? "--kas: the slot is the KAS's, no new secret goes with it" : "a policy and --trust-file go with --kas URL");
	return EXIT_TDFS_USAGE;
}

static int add_main(const void *args, int n, char **pos)
{
	const struct change_args *a = args;
	CLEANUP(volume_cleanup) struct volume *v = NULL;
	struct credential c = {0};
	uint8_t id = 0;
	int code = check_args(a), err;

	if (!code)
		code = volume_get(pos[0], &a->cred, &v);
	if (!code && a->kas_url)
		return add_kas(a, pos[0], v);
	if (!code)
		code = fresh_get(a, pos[0], &c);
	if (code)
		return code;
	fail_clear();
	err = volume_slot_add(v, &c, a->label ? a->label : "", (unsigned)a->log_n, &id);
	credential_free(&c);
	if (err)
		return slot_complain(err, pos[0]);
	printf("slot %d added\n", id);
	return EXIT_TDFS_OK;
}

static const struct option_row add_rows[] = {
    FRESH_ROWS,
    {OPTION_TEXT, 0, "label", "TEXT", offsetof(struct change_args, label), "shown by `tdfs key list`"},
    {OPTION_TEXT, 0, "kas", "URL", offsetof(struct change_args, kas_url), "whom this KAS lets in opens the volume"},
    {OPTION_LIST, 0, "attribute", "FQN", offsetof(struct change_args, policy.attributes), "... who has this; several: all"},
    {OPTION_LIST, 0, "dissem", "WHO", offsetof(struct change_args, policy.dissem), "... these alone"},
    {OPTION_TEXT, 0, "expiry", "TIME", offsetof(struct change_args, policy.expiry), "... until then"},
    {OPTION_TEXT, 0, "trust-file", "FILE", offsetof(struct change_args, trust_file), "where that is noted"},
    KAS_ROWS(struct change_args, kas),
    CREDENTIAL_ROWS(struct change_args, cred),
    {0},
};

const struct command key_add = {
    .name = "add",
    .summary = "one more passphrase, key file, or a KAS",
    .usage = "STORE",
    .options = add_rows,
    .args_size = sizeof(struct change_args),
    .min_args = 1,
    .max_args = 1,
    .run = add_main,
};
