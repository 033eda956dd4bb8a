/* SPDX-License-Identifier: Apache-2.0 */
/* tdfs key: the ways into a volume, and copies of what must not be lost. */
#include <errno.h>
#include <stdio.h>

#include "cmd_key.h"
#include "commands.h"
#include "say.h"
#include "target.h"

static const char *const kind_names[] = {"passphrase", "recovery key", "key file", "KAS"};

struct list_args {
	bool json;
};

static int list_json(const struct volume *v)
{
	json_t *list = json_array(), *old = json_array();

	for (size_t i = 0; i < v->n_kas_old; i++)
		json_array_append_new(old, json_string(v->kas_old[i]));
	for (size_t i = 0; i < v->n_slots; i++) {
		const struct slot *s = &v->slots[i];
		json_t *j = json_pack("{s:i, s:s, s:o, s:I}", "id", s->id, "kind", kind_names[s->kind], "label", json_path(s->label),
				      "created", (json_int_t)s->created);

		if (j && s->kind == SLOT_PASSPHRASE)
			json_object_set_new(j, "scrypt_logn", json_integer(s->log_n));
		if (j && s->kind == SLOT_KAS)
			json_object_set_new(j, "kas", json_pack("{s:o, s:o, s:o}", "url", json_path(s->kas->ka[0].url), "kid",
								json_path(s->kas->ka[0].kid), "policy", json_path(s->kas->policy)));
		json_array_append_new(list, j);
	}
	return json_say(json_pack("{s:i, s:o, s:s, s:o}", "v", 1, "slots", list, "kas_key", v->kas_kid, "kas_keys_retired", old));
}

static int list_main(const void *args, int n, char **pos)
{
	const struct list_args *a = args;
	CLEANUP(volume_cleanup) struct volume *v = NULL;
	int err;

	fail_clear();
	err = volume_peek(pos[0], &v);
	if (err)
		return volume_complain(err, pos[0]);
	if (a->json)
		return list_json(v);
	for (size_t i = 0; i < v->n_slots; i++) {
		const struct slot *s = &v->slots[i];
		CLEANUP_FREE char *label = strcmp(s->label, kind_names[s->kind]) == 0 ? NULL : path_text(s->label);
		CLEANUP_FREE char *url = s->kind == SLOT_KAS ? path_text(s->kas->ka[0].url) : NULL;
		char when[SAY_TEXT], cost[SAY_TEXT] = "";

		time_text(s->created, when);
		if (s->kind == SLOT_PASSPHRASE)
			snprintf(cost, sizeof(cost), ", scrypt 2^%u", s->log_n);
		printf("%2d  %-12s  %s%s%s%s%s%s\n", s->id, kind_names[s->kind], when, cost, url ? "  " : "", url ? url : "",
		       label && *label ? "  " : "", label ? label : "");
	}
	printf("KAS key %s\n", v->kas_kid);
	for (size_t i = 0; i < v->n_kas_old; i++)
		printf("  retired %s\n", v->kas_old[i]);
	return EXIT_TDFS_OK;
}

static const struct option_row list_rows[] = {
    {OPTION_FLAG, 0, "json", NULL, offsetof(struct list_args, json), "answer in JSON"},
    {0},
};

static const struct command key_list = {
    .name = "list",
    .summary = "the key slots (needs no secret)",
    .usage = "STORE",
    .options = list_rows,
    .args_size = sizeof(struct list_args),
    .min_args = 1,
    .max_args = 1,
    .run = list_main,
};

int slot_complain(int err, const char *store)
{
	switch (-err) {
	case ENOSPC:
		return complain(err, store, "`tdfs key remove` frees a slot");
	case ENOENT:
		return complain(err, store, "`tdfs key list %s` shows the slots", store);
	case EBUSY:
		return complain(err, store, NULL);
	default:
		return complain(err, store, NULL);
	}
}

int fresh_get(const struct change_args *a, const char *store, struct credential *ret)
{
	int err;

	if (a->log_n && (a->log_n < SCRYPT_LOGN_MIN || a->log_n > SCRYPT_LOGN_MAX)) {
		report(REPORT_ERROR, "--scrypt-logn: from %d to %d", SCRYPT_LOGN_MIN, SCRYPT_LOGN_MAX);
		return EXIT_TDFS_USAGE;
	}
	err = credential_get(&a->fresh, store, true, ret);
	if (err) {
		report(REPORT_ERROR, "the new secret: %s", cause_text(err));
		return err == -EINTR ? EXIT_TDFS_INTERRUPTED : EXIT_TDFS_USAGE;
	}
	return EXIT_TDFS_OK;
}

static int slot_number(const char *text, uint8_t *ret)
{
	uint64_t id;

	if (number_parse(text, &id) || id > UINT8_MAX) {
		report(REPORT_ERROR, "'%s' is not the number of a slot; `tdfs key list` shows them", text);
		return EXIT_TDFS_USAGE;
	}
	*ret = (uint8_t)id;
	return EXIT_TDFS_OK;
}

static void tell_kas_only(const struct volume *v)
{
	for (size_t i = 0; i < v->n_slots; i++)
		if (v->slots[i].kind != SLOT_KAS)
			return;
	report(REPORT_WARN, "%s: only KAS slots are left: whoever loses the KAS, or its key, loses the data", v->path);
}

static int remove_main(const void *args, int n, char **pos)
{
	const struct change_args *a = args;
	CLEANUP(volume_cleanup) struct volume *v = NULL;
	uint8_t id = 0;
	int code = slot_number(pos[1], &id), err;

	if (!code)
		code = volume_get(pos[0], &a->cred, &v);
	if (code)
		return code;
	fail_clear();
	err = volume_slot_remove(v, id, a->force);
	if (err)
		return slot_complain(err, pos[0]);
	printf("slot %d removed; backups of the volume's keys made before still open with it\n", id);
	tell_kas_only(v);
	return EXIT_TDFS_OK;
}

static const struct option_row remove_rows[] = {
    {OPTION_FLAG, 0, "force", NULL, offsetof(struct change_args, force), "also the last but KASes and recovery keys"},
    CREDENTIAL_ROWS(struct change_args, cred),
    {0},
};

static const struct command key_remove = {
    .name = "remove",
    .summary = "take a slot away",
    .usage = "STORE SLOT",
    .options = remove_rows,
    .args_size = sizeof(struct change_args),
    .min_args = 2,
    .max_args = 2,
    .run = remove_main,
};

/* The slot meant when none is named: the only one with a passphrase. */
static int only_passphrase(const struct volume *v, uint8_t *ret)
{
	size_t n = 0;

	for (size_t i = 0; i < v->n_slots; i++)
		if (v->slots[i].kind == SLOT_PASSPHRASE) {
			*ret = v->slots[i].id;
			n++;
		}
	if (n == 1)
		return EXIT_TDFS_OK;
	report(REPORT_ERROR, "%s: it has %zu passphrase slots; name one (`tdfs key list` shows them)", v->path, n);
	return EXIT_TDFS_USAGE;
}

static int change_main(const void *args, int n, char **pos)
{
	const struct change_args *a = args;
	CLEANUP(volume_cleanup) struct volume *v = NULL;
	struct credential c = {0};
	uint8_t id = 0;
	int code = n > 1 ? slot_number(pos[1], &id) : EXIT_TDFS_OK, err;

	if (!code)
		code = volume_get(pos[0], &a->cred, &v);
	if (!code && n == 1)
		code = only_passphrase(v, &id);
	if (!code)
		code = fresh_get(a, pos[0], &c);
	if (code)
		return code;
	fail_clear();
	err = volume_slot_change(v, id, &c, (unsigned)a->log_n);
	credential_free(&c);
	if (err)
		return slot_complain(err, pos[0]);
	printf("slot %d changed; backups of the volume's keys made before still open with the old secret\n", id);
	return EXIT_TDFS_OK;
}

static const struct option_row change_rows[] = {
    FRESH_ROWS,
    CREDENTIAL_ROWS(struct change_args, cred),
    {0},
};

static const struct command key_change = {
    .name = "change",
    .summary = "a new secret for a slot (the only passphrase, if none is named)",
    .usage = "STORE [SLOT]",
    .options = change_rows,
    .args_size = sizeof(struct change_args),
    .min_args = 1,
    .max_args = 2,
    .run = change_main,
};

static int recovery_main(const void *args, int n, char **pos)
{
	const struct change_args *a = args;
	CLEANUP(volume_cleanup) struct volume *v = NULL;
	char text[RECOVERY_TEXT];
	struct credential c = {.kind = SLOT_RECOVERY};
	uint8_t id = 0;
	int code = volume_get(pos[0], &a->cred, &v), err;

	if (code)
		return code;
	fail_clear();
	err = recovery_new(text);
	if (!err) {
		c.len = strlen(text);
		c.bytes = (uint8_t *)strdup(text);
		err = c.bytes ? volume_slot_add(v, &c, a->label ? a->label : "", 0, &id) : -ENOMEM;
		credential_free(&c);
	}
	if (!err)
		printf("RECOVERY KEY, slot %d; shown this once, write it down:\n\n  %s\n\n"
		       "Older recovery keys still work; `tdfs key remove %s SLOT` ends them.\n",
		       id, text, pos[0]);
	wipe(text, sizeof(text));
	return err ? slot_complain(err, pos[0]) : EXIT_TDFS_OK;
}

static const struct option_row recovery_rows[] = {
    {OPTION_TEXT, 0, "label", "TEXT", offsetof(struct change_args, label), "shown by `tdfs key list`"},
    CREDENTIAL_ROWS(struct change_args, cred),
    {0},
};

static const struct command key_recovery = {
    .name = "recovery",
    .summary = "make a new recovery key and print it",
    .usage = "STORE",
    .options = recovery_rows,
    .args_size = sizeof(struct change_args),
    .min_args = 1,
    .max_args = 1,
    .run = recovery_main,
};

struct copy_args { /* backup and restore */
	struct credential_source cred;
	bool force;
};

static int backup_main(const void *args, int n, char **pos)
{
	const struct copy_args *a = args;
	CLEANUP(volume_cleanup) struct volume *v = NULL;
	int code = volume_get(pos[0], &a->cred, &v), err;

	if (code)
		return code;
	fail_clear();
	err = volume_backup(v, pos[1]);
	if (err)
		return complain(err, pos[1], NULL);
	printf("%s holds the keys of %s, still locked by its secrets; keep it apart from the store\n", pos[1], pos[0]);
	return EXIT_TDFS_OK;
}

static const struct option_row backup_rows[] = {
    CREDENTIAL_ROWS(struct copy_args, cred),
    {0},
};

static const struct command key_backup = {
    .name = "backup",
    .summary = "save the volume's keys (locked by its secrets) in a file",
    .usage = "STORE FILE",
    .options = backup_rows,
    .args_size = sizeof(struct copy_args),
    .min_args = 2,
    .max_args = 2,
    .run = backup_main,
};

static int restore_main(const void *args, int n, char **pos)
{
	const struct copy_args *a = args;
	struct credential c = {0};
	int err;

	err = credential_get(&a->cred, pos[1], false, &c);
	if (err)
		return credential_complain(err);
	fail_clear();
	err = volume_restore(pos[0], pos[1], &c, a->force);
	credential_free(&c);
	if (err)
		return complain(err, pos[0], err == -EEXIST ? "--force puts the backup's volume in its place" : NULL);
	printf("%s has its keys back; `tdfs check %s` looks at the rest\n", pos[0], pos[0]);
	return EXIT_TDFS_OK;
}

static const struct option_row restore_rows[] = {
    {OPTION_FLAG, 0, "force", NULL, offsetof(struct copy_args, force), "replace the keys of another volume"},
    CREDENTIAL_ROWS(struct copy_args, cred),
    {0},
};

static const struct command key_restore = {
    .name = "restore",
    .summary = "put saved keys back into a store",
    .usage = "STORE FILE",
    .options = restore_rows,
    .args_size = sizeof(struct copy_args),
    .min_args = 2,
    .max_args = 2,
    .run = restore_main,
};

static const struct command *const subs[] = {
    &key_list, &key_add, &key_remove, &key_change, &key_recovery, &key_backup, &key_restore, &key_rotate, &key_rsa, &key_forget, NULL,
};

const struct command command_key = {
    .name = "key",
    .summary = "passphrases, key files, recovery keys; backup of the volume's keys",
    .sub = subs,
};
