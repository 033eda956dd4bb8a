/* SPDX-License-Identifier: Apache-2.0 */
/* tdfs kas trust: that a KAS may open a store here, and which volume has to be in it. */
#include <errno.h>
#include <stdio.h>

#include "cmd_kas.h"
#include "encode.h"
#include "kas_source.h"
#include "say.h"
#include "slot_kas.h"
#include "target.h"

struct trust_args {
	struct credential_source cred;
	struct kas_source kas;
	const char *check, *file;
};

/* Which volume: as said, else as a secret of it proves; an exit code */
static int check_get(const struct trust_args *a, const char *store, struct volume **ret, uint8_t check[static VOLUME_CHECK_LEN])
{
	int code = EXIT_TDFS_OK, err;

	if (a->check && (strlen(a->check) != 2 * VOLUME_CHECK_LEN || hex_decode(a->check, strlen(a->check), check, VOLUME_CHECK_LEN))) {
		report(REPORT_ERROR, "--volume-check: the 32 hex digits that `tdfs key add --kas` shows");
		return EXIT_TDFS_USAGE;
	}
	fail_clear();
	if (a->check) {
		err = volume_peek(store, ret);
		return err ? volume_complain(err, store) : EXIT_TDFS_OK;
	}
	code = volume_get(store, &a->cred, ret);
	if (code)
		return code;
	err = volume_check((*ret)->vk, check);
	return err ? complain(err, store, NULL) : EXIT_TDFS_OK;
}

static int trust_main(const void *args, int n, char **pos)
{
	const struct trust_args *a = args;
	CLEANUP(volume_cleanup) struct volume *v = NULL;
	CLEANUP(volume_remote_clear) struct volume_remote kas = {0};
	CLEANUP_FREE char *file = a->file ? strdup(a->file) : NULL;
	struct kas_trust t = {0};
	int code = check_get(a, pos[0], &v, t.check), err;

	if (!code)
		code = kas_source_conf(&a->kas, pos[1], v->path, &kas);
	if (code)
		return code;
	fail_clear();
	t.store = v->path;
	t.kas = kas; /* both borrowed */
	err = file ? 0 : kas_trust_path(&file);
	if (!err)
		err = volume_remote_check(v, &kas);
	if (err)
		return complain(err, pos[0], NULL);
	err = kas_trust_save(file, &t);
	if (err)
		return err == -EBUSY ? complain(err, file, NULL) : complain_file(err, file, "--trust-file names another place");
	printf("%s: %s is asked for the key of %s, and no other.\n", file, kas.url, v->path);
	if (!slot_kas_any(v, &(struct kas_trusts){&t, 1}))
		report(REPORT_NOTE, "%s has no key slot for it yet: `tdfs key add --kas %s %s`", v->path, kas.url, v->path);
	return output_flush(EXIT_TDFS_OK);
}

static const struct option_row trust_rows[] = {
    {OPTION_TEXT, 0, "volume-check", "HEX", offsetof(struct trust_args, check), "which volume; else a secret of it is asked for"},
    {OPTION_TEXT, 0, "trust-file", "FILE", offsetof(struct trust_args, file), "instead of ~/.config/tdfs/kas.json"},
    KAS_WHO_ROWS(struct trust_args, kas),
    CREDENTIAL_ROWS(struct trust_args, cred),
    {0},
};

const struct command kas_trust = {
    .name = "trust",
    .summary = "let a KAS open a store on this machine (its KAS key slots)",
    .usage = "STORE URL",
    .notes = "What a store says of itself is no proof: any KAS could be named in it, and any\n"
	     "volume put there. `tdfs key add --kas` notes the same, and shows what to give\n"
	     "here on other machines.\n",
    .options = trust_rows,
    .args_size = sizeof(struct trust_args),
    .min_args = 2,
    .max_args = 2,
    .run = trust_main,
};
