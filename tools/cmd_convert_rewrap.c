/* SPDX-License-Identifier: Apache-2.0 */
/* tdfs convert rewrap: sealed files under another KAS key, another policy, fresh data keys. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "cmd_convert.h"
#include "convert_i.h"
#include "encode.h"
#include "io.h"
#include "policy_keys.h"
#include "say.h"
#include "target.h"

#define POLICY_TEXT_MAX ((size_t)48 << 10)

static int policy_take(struct volume *v, const char *path)
{
	struct io io = io_posix(AT_FDCWD);
	CLEANUP_FREE char *text = NULL;
	CLEANUP_FREE char *b64 = NULL;
	size_t len = 0;
	int err = io_read_file(&io, AT_FDCWD, path, POLICY_TEXT_MAX, &text, &len), code;

	while (len && (text[len - 1] == '\n' || text[len - 1] == '\r'))
		len--;
	b64 = err ? NULL : malloc(BASE64_LEN(len) + 1);
	if (!b64)
		return complain_file(err ? err : -ENOMEM, path, NULL);
	base64_encode(text, len, b64);
	code = policy_keys_set(v, b64, strcmp(b64, v->policy) ? POLICY_KEYS_ASK : POLICY_KEYS_KEEP);
	if (code)
		return code;
	fail_clear();
	err = volume_policy_set(v, "", text, len);
	return err ? complain_file(err, path, NULL) : EXIT_TDFS_OK;
}

int rewrap_prepare(struct convert *cv, const struct convert_args *a)
{
	int err, code = EXIT_TDFS_OK;

	fail_clear();
	if (cv->v->kas_split < 0 && (a->kas || a->new_dek)) {
		report(REPORT_ERROR, "%s: %s: its files are not made for the embedded KAS; `tdfs kas wrap` says for whom", cv->v->path,
		       a->kas ? "--kas" : "--new-dek");
		return EXIT_TDFS_USAGE;
	}
	if (a->kas) {
		err = kas_write_key(cv->v->kas, a->kas);
		if (err)
			return complain(err, cv->v->path, "`tdfs key list` shows the KAS keys");
		cv->run.kas_kid = a->kas;
	}
	if (a->policy) {
		code = policy_take(cv->v, a->policy);
		cv->run.policy = cv->v->policy;
	}
	if (a->set && !code)
		code = a->set->set(a->set, cv->v);
	cv->run.rules = a->rules;
	cv->run.new_dek = a->new_dek;
	cv->run.keep_dek = a->keep_dek;
	return code;
}

int rewrap_scope(struct convert *cv, const struct convert_args *a)
{
	CLEANUP_FD int fd = -1;
	struct stat st;

	if (!a->below)
		return EXIT_TDFS_OK;
	/* a link on the way would lead the policy out of where it was set */
	fd = io_open_beneath(cv->v->store_fd, a->below, O_PATH);
	if (fd < 0 || fstat(fd, &st))
		return complain_file(fd < 0 ? fd : -errno, a->below, fd == -ELOOP ? "it, or a directory on the way, is a link by now: give its real path" : NULL);
	/* of a file with several names all are needed, wherever they are */
	if (S_ISREG(st.st_mode) && st.st_nlink > 1)
		cv->run.only = st.st_ino;
	else
		cv->run.below = a->below;
	return EXIT_TDFS_OK;
}

static int rewrap_main(const void *args, int n, char **pos)
{
	struct convert_args a = *(const struct convert_args *)args;

	a.in_place = true;
	if (a.new_dek && (a.keep_dek || a.kas)) {
		report(REPORT_ERROR, "--new-dek goes with neither --keep-dek nor --kas: it makes a KAS key of its own");
		return EXIT_TDFS_USAGE;
	}
	if (a.rules && a.policy) {
		report(REPORT_ERROR, "--rules and --policy exclude each other: `tdfs policy set %s` first, then --rules", pos[0]);
		return EXIT_TDFS_USAGE;
	}
	return convert_main(&a, CONVERT_REWRAP, false, n, pos);
}

static const struct option_row rewrap_rows[] = {
    {OPTION_TEXT, 0, "kas", "KID", offsetof(struct convert_args, kas), "another KAS key of the volume than the newest"},
    {OPTION_TEXT, 0, "policy", "FILE", offsetof(struct convert_args, policy), "policy (JSON) of all files, and of new ones"},
    {OPTION_FLAG, 0, "rules", NULL, offsetof(struct convert_args, rules), "each file: the policy of new ones where it lies"},
    {OPTION_FLAG, 0, "new-dek", NULL, offsetof(struct convert_args, new_dek), "all files: `tdfs key rotate` first"},
    {OPTION_FLAG, 0, "keep-dek", NULL, offsetof(struct convert_args, keep_dek), "only another key access where the policy stays"},
    SHARED_ROWS(struct convert_args, ),
    CREDENTIAL_ROWS(struct convert_args, cred),
    {0},
};

const struct command convert_rewrap = {
    .name = "rewrap",
    .summary = "sealed files get a new KAS key, policy or data key",
    .usage = "STORE",
    .options = rewrap_rows,
    .args_size = sizeof(struct convert_args),
    .min_args = 1,
    .max_args = 1,
    .run = rewrap_main,
};
