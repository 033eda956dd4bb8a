/* SPDX-License-Identifier: Apache-2.0 */
/* tdfs policy show and set: who may open a file, and which policy new files get. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "commands.h"
#include "cmd_convert.h"
#include "encode.h"
#include "policy_keys.h"
#include "policy_make.h"
#include "policy_place.h"
#include "say.h"
#include "target.h"

#define POLICY_XATTR "user.tdfs.policy"

struct set_args {
	struct credential_source cred;
	struct policy_words words;
	const char *file, *busy;
	uint64_t workers;
	bool inherit, unchecked, existing, daemon, quiet;
};

struct show_args {
	bool json;
};

/* --- what a policy says --- */

static void print_list(const char *what, const json_t *list, const char *member)
{
	const json_t *each;
	size_t i;

	json_array_foreach(list, i, each)
	{
		CLEANUP_FREE char *text = path_text(json_string_value(member ? json_object_get(each, member) : each));

		printf("  %-10s %s\n", what, text ? text : "?");
	}
}

static void print_text(const char *what, const json_t *j)
{
	CLEANUP_FREE char *text = json_is_string(j) ? path_text(json_string_value(j)) : NULL;

	if (text)
		printf("  %-10s %s\n", what, text);
}

static int tell(const char *path, json_t *policy, const char *from, bool as_json)
{
	const json_t *body = json_object_get(policy, "body");

	if (!json_is_object(policy))
		return complain(fail(-EPROTO, "its policy is no JSON object"), path, NULL);
	if (as_json)
		return json_say(json_pack("{s:i, s:o, s:s, s:O}", "v", 1, "path", json_path(path), "of", from, "policy", policy));
	printf("%s (%s)\n", path, from);
	print_list("attribute", json_object_get(body, "dataAttributes"), "attribute");
	print_list("for", json_object_get(body, "dissem"), NULL);
	print_text("owner", json_object_get(policy, POLICY_OWNER));
	print_text("until", json_object_get(policy, POLICY_EXPIRY));
	if (!json_array_size(json_object_get(body, "dataAttributes")))
		printf("  no attributes: whoever the KAS knows, it gives the key to\n");
	return output_flush(EXIT_TDFS_OK);
}

/* --- show --- */

/* Of a sealed file, without any key. */
static int policy_of_tdf(const char *path, json_t **ret)
{
	CLEANUP(container_cleanup) struct container *c = NULL;
	const struct container_keys none = {0};
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct io io = io_posix(AT_FDCWD);
	int err = fd < 0 ? fail(-errno, "%s", strerror(errno)) : container_open(&io, fd, &none, &c);

	if (!err)
		*ret = policy_parse(c->m->policy);
	return err;
}

/* As a mount has it; 0 or -errno */
static int policy_of_mounted(const char *path, json_t **ret)
{
	ssize_t len = getxattr(path, POLICY_XATTR, NULL, 0);
	CLEANUP_FREE char *text = len > 0 ? malloc((size_t)len) : NULL;

	if (len > 0 && text)
		len = getxattr(path, POLICY_XATTR, text, (size_t)len);
	if (len <= 0)
		return len < 0 ? -errno : -ENODATA;
	*ret = json_loadb(text, (size_t)len, JSON_REJECT_DUPLICATES, NULL);
	return 0;
}

static int show_dir(const char *path, bool as_json)
{
	CLEANUP(volume_cleanup) struct volume *v = NULL;
	CLEANUP(policy_place_free) struct policy_place at = {0};
	json_t *policy;
	int code = policy_place_find(path, &at), err;

	if (code)
		return code;
	err = volume_peek(at.store, &v);
	if (err)
		return volume_complain(err, at.store);
	policy = policy_parse(volume_policy_at(v, at.path));
	code = tell(path, policy, "of new files here", as_json);
	if (!code && !as_json)
		policy_keys_tell(v, volume_policy_at(v, at.path));
	json_decref(policy);
	return code;
}

static int show_main(const void *args, int n, char **pos)
{
	const struct show_args *a = args;
	json_t *policy = NULL;
	struct stat st;
	int err, code;

	fail_clear();
	if (stat(pos[0], &st))
		return complain_file(-errno, pos[0], NULL);
	if (S_ISDIR(st.st_mode))
		return show_dir(pos[0], a->json);
	err = policy_of_mounted(pos[0], &policy);
	if (err)
		err = policy_of_tdf(pos[0], &policy);
	if (err)
		return complain_file(err, pos[0], "give a file of a mount, or a .tdf file");
	code = tell(pos[0], policy, "of this file", a->json);
	json_decref(policy);
	return code;
}

/* --- set --- */

static bool any_words(const struct set_args *a)
{
	return a->words.attributes || a->words.dissem || a->words.owner || a->words.expiry;
}

static int set_args_check(const struct set_args *a)
{
	bool any = any_words(a);

	if (a->file ? any || a->inherit : a->inherit ? any : !any && !a->existing) {
		report(REPORT_ERROR,
		       "give what the policy says (--attribute, --dissem, --owner, --expiry), or --policy FILE, or --inherit; or "
		       "--existing alone: what was set already");
		return EXIT_TDFS_USAGE;
	}
	return EXIT_TDFS_OK;
}

/* The text of the policy; NULL in @ret: again that of the directory above */
static int policy_text(const struct set_args *a, char **ret, size_t *ret_len)
{
	struct io io = io_posix(AT_FDCWD);
	json_t *j = NULL;
	int err;

	*ret = NULL;
	*ret_len = 0;
	if (a->inherit || (!a->file && !any_words(a)))
		return 0;
	if (a->file)
		return io_read_file(&io, AT_FDCWD, a->file, (size_t)64 << 10, ret, ret_len);
	err = policy_make(&a->words, &j);
	if (err)
		return err;
	*ret = json_dumps(j, JSON_COMPACT);
	json_decref(j);
	*ret_len = *ret ? strlen(*ret) : 0;
	return *ret ? 0 : -ENOMEM;
}

/* What is to be set, and where. */
struct set_job {
	struct policy_job job; /* first */
	const struct set_args *a;
	const struct policy_place *at;
	const char *shown, *text;
	size_t len;
};

static int set_in(const struct policy_job *job, struct volume *v)
{
	const struct set_job *j = (const struct set_job *)job;
	/* the same words again: what a run that was cut short has given to files stays */
	bool same = j->text && !j->a->file && policy_says_same(v, j->at->path, j->text);
	CLEANUP_FREE char *b64 = j->text ? malloc(BASE64_LEN(j->len) + 1) : NULL;
	int code = EXIT_TDFS_OK, err;

	if (!j->text && !j->a->inherit)
		return code;
	if (j->text && !b64)
		return complain(-ENOMEM, j->shown, NULL);
	if (j->text) {
		base64_encode(j->text, j->len, b64);
		code = policy_place_alone(v, j->at);
	}
	if (j->text && !code)
		code = policy_keys_set(v, same ? volume_policy_at(v, j->at->path) : b64,
				       j->a->unchecked ? POLICY_KEYS_UNASKED
				       : same          ? POLICY_KEYS_KEEP
						       : POLICY_KEYS_ASK);
	if (code || same)
		return code;
	fail_clear();
	err = volume_policy_set(v, j->at->path, j->text, j->len);
	return err ? complain(err, j->shown, NULL) : EXIT_TDFS_OK;
}

/* The files that are there: a rewrap, which sets what new ones get before. */
static int set_existing(const struct set_job *j)
{
	const struct set_args *a = j->a;
	const struct convert_args ca = {.cred = a->cred,
					.in_place = true,
					.rules = true,
					.below = *j->at->path ? j->at->path : NULL,
					.set = &j->job,
					.workers = a->workers,
					.busy = a->busy,
					.daemon = a->daemon,
					.quiet = a->quiet};

	return convert_main(&ca, CONVERT_REWRAP, false, 1, (char **)&j->at->store);
}

static int set_new(const struct set_job *j)
{
	CLEANUP(volume_cleanup) struct volume *v = NULL;
	int code = volume_get(j->at->store, &j->a->cred, &v);

	if (!code)
		code = volume_hold(v);
	if (!code)
		code = set_in(&j->job, v);
	if (code)
		return code;
	printf("New files below %s get this policy; those that are there keep theirs.\n"
	       "`tdfs policy set %s --existing` brings them in line.\n",
	       j->shown, j->shown);
	return output_flush(EXIT_TDFS_OK);
}

static int set_main(const void *args, int n, char **pos)
{
	const struct set_args *a = args;
	CLEANUP(policy_place_free) struct policy_place at = {0};
	struct set_job j = {.job.set = set_in, .a = a, .at = &at, .shown = pos[0]};
	CLEANUP_FREE char *text = NULL;
	int code = set_args_check(a), err;

	if (code)
		return code;
	fail_clear();
	err = policy_text(a, &text, &j.len);
	if (err)
		return complain(err, a->file, NULL);
	j.text = text;
	code = policy_place_find(pos[0], &at);
	if (code)
		return code;
	if (a->inherit && !*at.path) {
		report(REPORT_ERROR, "%s: is the store itself: there is nothing above it", pos[0]);
		return EXIT_TDFS_USAGE;
	}
	return at.file || a->existing ? set_existing(&j) : set_new(&j);
}

static const struct option_row show_rows[] = {
    {OPTION_FLAG, 0, "json", NULL, offsetof(struct show_args, json), "answer in JSON"},
    {0},
};

static const struct option_row set_rows[] = {
    {OPTION_LIST, 0, "attribute", "FQN", offsetof(struct set_args, words.attributes), "who opens it must have this; several: all"},
    {OPTION_LIST, 0, "dissem", "WHO", offsetof(struct set_args, words.dissem), "for these alone, where the KAS looks at it"},
    {OPTION_TEXT, 0, "owner", "WHO", offsetof(struct set_args, words.owner), "whose it is: told, not enforced"},
    {OPTION_TEXT, 0, "expiry", "TIME", offsetof(struct set_args, words.expiry), "until then, where the KAS looks at it"},
    {OPTION_TEXT, 0, "policy", "FILE", offsetof(struct set_args, file), "a whole policy (JSON) instead"},
    {OPTION_FLAG, 0, "inherit", NULL, offsetof(struct set_args, inherit), "again that of the directory above"},
    {OPTION_FLAG, 0, "existing", NULL, offsetof(struct set_args, existing), "of a directory: and the files that are there"},
    {OPTION_NUMBER, 0, "workers", "N", offsetof(struct set_args, workers), "with existing files, as `tdfs convert rewrap`"},
    {OPTION_TEXT, 0, "busy", "HOW", offsetof(struct set_args, busy), "files in use: skip, wait or fail"},
    {OPTION_FLAG, 0, "daemon", NULL, offsetof(struct set_args, daemon), "go on in the background"},
    {OPTION_FLAG, 'q', "quiet", NULL, offsetof(struct set_args, quiet), "no progress, no summary"},
    {OPTION_FLAG, 0, "unchecked", NULL, offsetof(struct set_args, unchecked), UNCHECKED_HELP},
    CREDENTIAL_ROWS(struct set_args, cred),
    {0},
};

static const struct command policy_show = {
    .name = "show",
    .summary = "of a file; of a directory: what new files get",
    .usage = "PATH",
    .notes = "Needs no secret.\n",
    .options = show_rows,
    .args_size = sizeof(struct show_args),
    .min_args = 1,
    .max_args = 1,
    .run = show_main,
};

static const struct command policy_set = {
    .name = "set",
    .summary = "what new files below a directory get, or a file",
    .usage = "STORE[/DIR|/FILE]",
    .notes = "The nearest directory that has one counts, before it the file's own. Neither is\n"
	     "taken along by a rename. Existing files are encrypted anew (convert status).\n",
    .options = set_rows,
    .args_size = sizeof(struct set_args),
    .min_args = 1,
    .max_args = 1,
    .run = set_main,
};

static const struct command *const subs[] = {&policy_show, &policy_set, NULL};

const struct command command_policy = {
    .name = "policy",
    .summary = "who may open files: show it, set it",
    .sub = subs,
};
