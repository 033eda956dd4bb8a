/* SPDX-License-Identifier: Apache-2.0 */
/* tdfs status: what is mounted, and how a volume is. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "commands.h"
#include "control.h"
#include "encode.h"
#include "mounts.h"
#include "say.h"
#include "target.h"

struct args {
	bool json;
};

static json_int_t number(const json_t *j, const char *group, const char *name)
{
	return json_integer_value(json_object_get(group ? json_object_get(j, group) : j, name));
}

/* What can be told without a secret: {"store", "volume_id", "state", "mountpoint", "daemon"} */
static int collect(const char *store, const char *mountpoint, json_t **ret)
{
	CLEANUP(volume_cleanup) struct volume *v = NULL;
	CLEANUP_FREE char *dir = tdfs_dir(store);
	json_t *answer = NULL, *j;
	char id[37];
	pid_t holder;
	int err = volume_peek(store, &v);

	if (err)
		return err;
	uuid_format(v->id, id);
	err = dir ? control_call(dir, "status", 10000, &answer) : -ENOMEM;
	holder = err ? store_holder(store) : 0;
	j = json_pack("{s:o, s:s, s:i, s:i, s:s}", "store", json_path(store), "volume_id", id, "segment_size", (int)v->segment_size,
		      "key_slots", (int)v->n_slots, "state",
		      !err && json_is_true(json_object_get(answer, "detached")) ? "taken away (umount -l), files are open"
		      : !err ? "mounted"
		      : err == -EAGAIN ? "stopped"
		      : holder     ? "in use"
		      : mountpoint ? "dead mount"
				   : "not mounted");
	if (j && mountpoint)
		json_object_set_new(j, "mountpoint", json_path(mountpoint));
	if (j && holder > 0)
		json_object_set_new(j, "pid", json_integer(holder));
	if (j && !err)
		json_object_set(j, "daemon", answer);
	json_decref(answer);
	if (!j)
		return -ENOMEM;
	*ret = j;
	return 0;
}

/* Remote KASes: what is asked of them, and how they are */
static void print_kas(const json_t *k)
{
	const json_t *list = json_object_get(k, "remotes"), *r;
	size_t i;

	json_array_foreach(list, i, r)
	{
		CLEANUP_FREE char *url = path_text(json_string_value(json_object_get(r, "url")));
		const char *error = json_string_value(json_object_get(r, "last_error"));
		CLEANUP_FREE char *last = error ? path_text(error) : NULL;

		printf("  kas         %s: %s, %" JSON_INTEGER_FORMAT " requests, %" JSON_INTEGER_FORMAT " keys, %" JSON_INTEGER_FORMAT
		       " refused, %" JSON_INTEGER_FORMAT " failures, %.1f ms\n",
		       url ? url : "?", json_string_value(json_object_get(r, "state")), number(r, NULL, "requests"), number(r, NULL, "keys"),
		       number(r, NULL, "denied"), number(r, NULL, "failures"), (double)number(r, NULL, "mean_us") / 1000);
		if (last)
			printf("              last failure: %s\n", last);
	}
	printf("  keys        %" JSON_INTEGER_FORMAT " in memory, %" JSON_INTEGER_FORMAT " found there, %" JSON_INTEGER_FORMAT
	       " asked for; open files: %" JSON_INTEGER_FORMAT " refused, %" JSON_INTEGER_FORMAT " ran out of time\n",
	       number(k, NULL, "keys"), number(k, NULL, "hits"), number(k, NULL, "asked"), number(k, NULL, "revoked"), number(k, NULL, "lapsed"));
}

static void print_daemon(const json_t *d)
{
	char dirty[SAY_TEXT];
	const char *state = json_string_value(json_object_get(d, "state"));
	json_int_t up = number(d, NULL, "uptime"), half = number(d, "log", "half_used");

	size_text((uint64_t)number(d, NULL, "dirty_bytes"), dirty);
	printf("  daemon      pid %" JSON_INTEGER_FORMAT ", up %" JSON_INTEGER_FORMAT ":%02d:%02d%s\n", number(d, NULL, "pid"), up / 3600,
	       (int)(up / 60 % 60), (int)(up % 60), json_is_true(json_object_get(d, "read_only")) ? ", READ ONLY" : "");
	if (state && strcmp(state, "converting") == 0)
		printf("  converting  plain files in the store are served too; `tdfs convert finish` ends that\n");
	printf("  files       %" JSON_INTEGER_FORMAT " in use, %" JSON_INTEGER_FORMAT " with changes not sealed yet (%s in memory)\n",
	       number(d, "files", "live"), number(d, "files", "dirty"), dirty);
	printf("  log         %d.%d %% of the current half used, %" JSON_INTEGER_FORMAT " flushes\n", (int)(half / 10), (int)(half % 10),
	       number(d, "log", "flushes"));
	printf("  since mount %" JSON_INTEGER_FORMAT " commits, %" JSON_INTEGER_FORMAT " seals, %" JSON_INTEGER_FORMAT " fsyncs\n",
	       number(d, "counters", "commits"), number(d, "counters", "seals"), number(d, "counters", "fsyncs"));
	if (json_object_get(d, "kas"))
		print_kas(json_object_get(d, "kas"));
	if (number(d, NULL, "quiesced"))
		printf("  QUIESCED    for at most another %" JSON_INTEGER_FORMAT " s: what writes waits\n", number(d, NULL, "quiesced"));
	if (json_is_true(json_object_get(d, "failed")))
		printf("  FAILED      the log cannot be written: nothing new is accepted. Look at the disk, then umount and mount\n");
	if (number(d, "counters", "bad_segments"))
		printf("  DAMAGE      %" JSON_INTEGER_FORMAT " segments did not verify; `tdfs verify` lists the files\n",
		       number(d, "counters", "bad_segments"));
}

static void print_one(const json_t *j)
{
	CLEANUP_FREE char *store = path_text(json_string_value(json_object_get(j, "store")));
	const char *state = json_string_value(json_object_get(j, "state"));
	const json_t *mountpoint = json_object_get(j, "mountpoint"), *daemon = json_object_get(j, "daemon");
	CLEANUP_FREE char *at = mountpoint ? path_text(json_string_value(mountpoint)) : NULL;

	printf("%s\n  state       %s%s%s\n", store ? store : "?", state, at ? " at " : "", at ? at : "");
	if (strcmp(state, "of another user") == 0)
		return;
	printf("  volume      %s, %d key slots, segments of %d bytes\n", json_string_value(json_object_get(j, "volume_id")),
	       (int)number(j, NULL, "key_slots"), (int)number(j, NULL, "segment_size"));
	if (daemon)
		print_daemon(daemon);
	else if (strcmp(state, "stopped") == 0)
		printf("  next        kill -CONT %d\n", (int)number(j, NULL, "pid"));
	else if (strcmp(state, "in use") == 0)
		printf("  in use by   process %d\n", (int)number(j, NULL, "pid"));
	else if (strcmp(state, "dead mount") == 0)
		printf("  next        tdfs umount %s\n", at ? at : "MOUNTPOINT");
}

/* Without arguments: everything mounted. */
static int collect_all(json_t *list)
{
	struct mount_place *m = NULL;
	size_t n = 0;
	int code = EXIT_TDFS_OK, err = mounts_list(&m, &n);

	if (err)
		return complain(err, "/proc/self/mountinfo", NULL);
	for (size_t i = 0; i < n; i++) {
		json_t *j = NULL;

		fail_clear();
		err = collect(m[i].store, m[i].mountpoint, &j);
		if (err == -EACCES || err == -EPERM) { /* somebody else's */
			json_array_append_new(list, json_pack("{s:o, s:o, s:s}", "store", json_path(m[i].store), "mountpoint",
							      json_path(m[i].mountpoint), "state", "of another user"));
		} else if (err) {
			complain(err, m[i].store, "its store cannot be looked at");
			code = EXIT_TDFS_SOME;
		} else {
			json_array_append_new(list, j);
		}
	}
	mounts_free(m, n);
	return code;
}

static int collect_arg(const char *arg, json_t *list)
{
	CLEANUP_FREE char *store = NULL;
	CLEANUP_FREE char *mountpoint = NULL;
	json_t *j = NULL;
	int err;

	fail_clear();
	err = store_resolve(arg, &store, &mountpoint);
	if (err)
		return complain_file(err, arg, "give a store made by `tdfs init`, or a mount point");
	err = collect(store, mountpoint, &j);
	if (err)
		return volume_complain(err, store);
	json_array_append_new(list, j);
	return EXIT_TDFS_OK;
}

static int run(const void *args, int n, char **pos)
{
	const struct args *a = args;
	json_t *list = json_array(), *each;
	int code = n ? collect_arg(pos[0], list) : collect_all(list);
	size_t i;

	if (a->json) {
		int said = json_say(json_pack("{s:i, s:O}", "v", 1, "volumes", list));

		code = code ? code : said;
	} else {
		json_array_foreach(list, i, each) print_one(each);
		if (!n && !code && !json_array_size(list))
			printf("no tdfs volume is mounted\n");
	}
	json_decref(list);
	return code;
}

static const struct option_row rows[] = {
    {OPTION_FLAG, 0, "json", NULL, offsetof(struct args, json), "answer in JSON"},
    {0},
};

const struct command command_status = {
    .name = "status",
    .summary = "what is mounted, what waits to be sealed",
    .usage = "[MOUNTPOINT|STORE]",
    .notes = "Needs no secret.\n",
    .options = rows,
    .args_size = sizeof(struct args),
    .max_args = 1,
    .run = run,
};
