/* SPDX-License-Identifier: Apache-2.0 */
/* The sub-commands of `tdfs key`. */
#ifndef TDFS_CMD_KEY_H
#define TDFS_CMD_KEY_H

#include "kas_source.h"
#include "options.h"
#include "policy_make.h"
#include "target.h"

extern const struct command key_add;                        /* cmd_key_add.c */
extern const struct command key_rotate, key_rsa, key_forget; /* cmd_key_kas.c */

struct change_args { /* add, change, remove, recovery */
	struct credential_source cred, fresh;
	const char *label;
	uint64_t log_n;
	bool force;
	struct kas_source kas;
	struct policy_words policy;
	const char *kas_url, *trust_file;
};

#define FRESH_ROWS                                                                                                                        \
	{OPTION_TEXT, 0, "new-passfile", "FILE", offsetof(struct change_args, fresh.passfile), "the new passphrase: first line of FILE"}, \
	    {OPTION_TEXT, 0, "new-passfd", "N", offsetof(struct change_args, fresh.passfd), "... of descriptor N"},                       \
	    {OPTION_TEXT, 0, "new-extpass", "CMD", offsetof(struct change_args, fresh.extpass), "... of what CMD prints"},                \
	    {OPTION_TEXT, 0, "new-keyfile", "FILE", offsetof(struct change_args, fresh.keyfile), "a key file instead of a passphrase"},   \
	{                                                                                                                                 \
		OPTION_NUMBER, 0, "scrypt-logn", "N", offsetof(struct change_args, log_n), "cost of guessing: 15..20; else measured"      \
	}

/** fresh_get() - the new secret; slot_complain() - why a slot could not be changed.  Both: an exit code, reported */
int fresh_get(const struct change_args *a, const char *store, struct credential *ret) MUST_CHECK;
int slot_complain(int err, const char *store);

#endif
