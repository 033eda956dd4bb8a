/* SPDX-License-Identifier: Apache-2.0 */
/* tdfs init: a new volume. */
#include <errno.h>
#include <stdio.h>

#include "commands.h"
#include "credential.h"
#include "kas_source.h"
#include "say.h"
#include "volume.h"

struct args {
	struct credential_source cred;
	uint64_t segment_size, log_size, log_n;
	const char *kas_url;
	const char *kas;
	struct kas_source source;
	bool no_recovery, in_place, json;
};

static int args_check(const struct args *a)
{
	if (a->segment_size && (a->segment_size < SEG_MIN || a->segment_size > SEG_MAX)) {
		report(REPORT_ERROR, "--segment-size: from %u to %u bytes", SEG_MIN, SEG_MAX);
		return EXIT_TDFS_USAGE;
	}
	if (a->log_size && (a->log_size < (uint64_t)16 << 20 || a->log_size > (uint64_t)512 << 20)) {
		report(REPORT_ERROR, "--log-size: from 16M to 512M");
		return EXIT_TDFS_USAGE;
	}
	if (a->log_n && (a->log_n < SCRYPT_LOGN_MIN || a->log_n > SCRYPT_LOGN_MAX)) {
		report(REPORT_ERROR, "--scrypt-logn: from %d to %d", SCRYPT_LOGN_MIN, SCRYPT_LOGN_MAX);
		return EXIT_TDFS_USAGE;
	}
	return EXIT_TDFS_OK;
}

static void tell(const char *store, const char *recovery)
{
	printf("%s is a new volume.\n\n", store);
	if (*recovery)
		printf("+------------------------------------------------------------------------------+\n"
		       "| RECOVERY KEY: opens the volume when the passphrase is lost. Write it down    |\n"
		       "| now and keep it elsewhere; it is shown this once and stored nowhere.         |\n"
		       "+------------------------------------------------------------------------------+\n"
		       "  %s\n\n",
		       recovery);
	printf("Everything depends on %s/" TDFS_DIR ": without it no file of the volume can be\n"
	       "read by anybody. Keep a copy of it (it stays locked by your secret):\n\n"
	       "  tdfs key backup %s FILE\n\n"
	       "Next:  tdfs mount %s MOUNTPOINT\n",
	       store, store, store);
}

static int tell_json(const char *store, const char *recovery)
{
	json_t *j = json_pack("{s:i, s:o}", "v", 1, "store", json_path(store));

	if (j && *recovery)
		json_object_set_new(j, "recovery_key", json_string(recovery));
	return json_say(j);
}

static int run(const void *args, int n, char **pos)
{
	const struct args *a = args;
	struct volume_params par = {
	    .segment_size = (uint32_t)a->segment_size,
	    .log_half = a->log_size,
	    .kas_url = a->kas_url,
	    .scrypt_log_n = (unsigned)a->log_n,
	    .no_recovery = a->no_recovery,
	    .in_place = a->in_place,
	};
	CLEANUP(volume_remote_clear) struct volume_remote remote = {0};
	struct credential c = {0};
	CLEANUP_FREE char *inside = NULL;
	int code = args_check(a), err;

	if (code)
		return code;
	if (volume_find(pos[0], &inside) == 0) /* before anybody chooses a passphrase */
		return complain_file(fail(-EEXIST, "is in or is the volume %s", inside), pos[0],
				     "`tdfs status` shows it; a new volume needs another folder");
	code = a->kas ? kas_source_get(&a->source, a->kas, pos[0], &remote) : EXIT_TDFS_OK;
	if (code)
		return code;
	par.remote = a->kas ? &remote : NULL;
	fail_clear();
	err = credential_get(&a->cred, pos[0], true, &c);
	if (err) {
		report(REPORT_ERROR, "%s", cause_text(err));
		return err == -EINTR ? EXIT_TDFS_INTERRUPTED : EXIT_TDFS_USAGE;
	}
	fail_clear();
	err = volume_create(pos[0], &par, &c);
	credential_free(&c);
	if (err)
		return complain_file(
		    err, pos[0],
		    err == -ENOTEMPTY || err == -ENOMEM || err == -EINTR ? NULL : "choose an empty folder, or one that does not exist yet");
	code = EXIT_TDFS_OK;
	if (a->json)
		code = tell_json(pos[0], par.recovery);
	else
		tell(pos[0], par.recovery);
	wipe(par.recovery, sizeof(par.recovery));
	return output_flush(code);
}

static const struct option_row rows[] = {
    {OPTION_SIZE, 0, "segment-size", "SIZE", offsetof(struct args, segment_size), "plain bytes in a segment: 16K to 4194276"},
    {OPTION_SIZE, 0, "log-size", "SIZE", offsetof(struct args, log_size), "each half of the volume log: 16M to 512M"},
    {OPTION_TEXT, 0, "kas-url", "URL", offsetof(struct args, kas_url), "the KAS address written into files"},
    {OPTION_TEXT, 0, "kas", "URL", offsetof(struct args, kas), "a remote KAS that opens new files: tdfs kas add"},
    {OPTION_NUMBER, 0, "scrypt-logn", "N", offsetof(struct args, log_n), "cost of guessing: 15..20; else measured"},
    {OPTION_FLAG, 0, "no-recovery", NULL, offsetof(struct args, no_recovery), "make no recovery key"},
    {OPTION_FLAG, 0, "in-place", NULL, offsetof(struct args, in_place), "in a folder that has files: see tdfs convert"},
    {OPTION_FLAG, 0, "json", NULL, offsetof(struct args, json), "answer in JSON"},
    KAS_ROWS(struct args, source),
    SECRET_ROWS(struct args, cred),
    {0},
};

const struct command command_init = {
    .name = "init",
    .summary = "make a new volume",
    .usage = "STORE",
    .options = rows,
    .args_size = sizeof(struct args),
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
