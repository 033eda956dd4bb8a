/* SPDX-License-Identifier: Apache-2.0 */
/* The commands of `tdfs convert`. */
#ifndef TDFS_CMD_CONVERT_H
#define TDFS_CMD_CONVERT_H

#include "convert.h"
#include "credential.h"
#include "options.h"

/* What the commands that begin or go on with a conversion have in common. */
struct convert_args {
	struct credential_source cred;
	bool in_place, cross, dry_run, json, daemon, idle, quiet;
	uint64_t workers, batch, max_rate;
	const char *verify, *busy, *max_duration, *files_from, *pressure;
	/* rewrap */
	bool new_dek, keep_dek, rules;
	const char *kas, *policy;
	const char *below;            /* the path of a directory or file in the store; NULL: all */
	const struct policy_job *set; /* what `tdfs policy set` changes before; NULL: nothing */
	/* plan, run */
	const char *out, *plan, *shard;
	uint64_t max_files, max_bytes;
};

#define SHARED_ROWS(st, m)                                                                                                          \
	{OPTION_NUMBER, 0, "workers", "N", offsetof(st, m workers), "processes (default: the cores, at most 16)"},                  \
	    {OPTION_NUMBER, 0, "batch", "N", offsetof(st, m batch), "files per sync of the disk (1024)"},                            \
	    {OPTION_TEXT, 0, "verify", "HOW", offsetof(st, m verify), "reread: none, sample or full"},                              \
	    {OPTION_TEXT, 0, "busy", "HOW", offsetof(st, m busy), "files in use: skip, wait or fail"},                              \
	    {OPTION_SIZE, 0, "max-rate", "SIZE", offsetof(st, m max_rate), "bytes a second at most"},                               \
	    {OPTION_TEXT, 0, "max-duration", "TIME", offsetof(st, m max_duration), "stop cleanly after 90s, 15m, 2h"},              \
	    {OPTION_TEXT, 0, "max-pressure", "WHAT:N", offsetof(st, m pressure), "wait while io, cpu or memory stalls exceed N %"}, \
	    {OPTION_FLAG, 0, "idle", NULL, offsetof(st, m idle), "only when nobody else wants CPU or disk"},                        \
	    {OPTION_FLAG, 0, "cross", NULL, offsetof(st, m cross), "go into other file systems mounted below"},                     \
	    {OPTION_TEXT, 0, "files-from", "FILE", offsetof(st, m files_from), "only these: NUL-separated paths"},                  \
	    {OPTION_FLAG, 0, "dry-run", NULL, offsetof(st, m dry_run), "only count, and tell the space needed"},                    \
	    {OPTION_FLAG, 0, "daemon", NULL, offsetof(st, m daemon), "go on in the background"},                                    \
	    {OPTION_FLAG, 'q', "quiet", NULL, offsetof(st, m quiet), "no progress, no summary"},                                    \
	{                                                                                                                           \
		OPTION_FLAG, 0, "json", NULL, offsetof(st, m json), "progress and events as JSON lines"                             \
	}

/** convert_args_use() - options to a run; an exit code, reported */
int convert_args_use(const struct convert_args *a, enum convert_verb verb, struct convert_run *r);
struct convert;
/* A volume and the other tree, opened for a conversion. */
struct session {
	struct convert *cv;
	struct volume *v;
	int other_fd;
	bool shared; /* with others that work off the same plan */
	bool live;   /* with the daemon that has it mounted */
};
#define SESSION_NEW                                                       \
	{                                                                 \
		calloc(1, sizeof(struct convert)), NULL, -1, false, false \
	}
void session_close(struct session *s);
/** session_trees() - which of the arguments is the store; session_open(): @s->shared and live are set before; session_prepare(): what
 * is checked and made before the first file; session_run(): all the rest.  All: an exit code, reported */
int session_trees(const struct convert_args *a, enum convert_verb verb, int n, char **pos, const char **ret_store, const char **ret_other);
int session_open(struct session *s, const struct convert_args *a, enum convert_verb verb, const char *store, const char *other);
int session_prepare(struct session *s, const struct convert_args *a);
int session_run(struct session *s, const struct convert_args *a);
/** convert_main() - begin or go on; an exit code, reported */
int convert_main(const struct convert_args *a, enum convert_verb verb, bool only_recover, int n, char **pos);

/* cmd_convert_plan.c */
extern const struct command convert_plan, convert_run_plan, convert_start;
/* cmd_convert_rewrap.c */
extern const struct command convert_rewrap;
/** rewrap_prepare() - which key and policy the files are moved to; sets the volume's policy; an exit code, reported */
int rewrap_prepare(struct convert *cv, const struct convert_args *a);
/** rewrap_scope() - which files, of those that are there now; an exit code, reported */
int rewrap_scope(struct convert *cv, const struct convert_args *a);

struct policy_job {
	/* the volume is open and locked; an exit code, reported */
	int (*set)(const struct policy_job *j, struct volume *v);
};

#endif
