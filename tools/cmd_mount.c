/* SPDX-License-Identifier: Apache-2.0 */
/* tdfs mount: from arguments to mount_run(). */
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "commands.h"
#include "convert_live.h"
#include "mount.h"
#include "mounts.h"
#include "say.h"
#include "target.h"
#include "unmount.h"

struct mount_args {
	struct credential_source cred;
	char *o;
	const char *kas_key;
	bool foreground, debug, read_only;
};

/* Where the secret comes from, said in -o.  All texts live as long as the list. */
struct secrets {
	struct credential_source *cred;
	char *room; /* for the values: as long as the list */
};

static int secret_option(void *arg, const char *name, const char *value)
{
	struct secrets *s = arg;
	struct {
		const char *name, **to;
	} known[] = {{"passfile", &s->cred->passfile}, {"passfd", &s->cred->passfd},       {"extpass", &s->cred->extpass},
		     {"keyfile", &s->cred->keyfile},   {"kas_trust", &s->cred->kas_trust}, {"kas_socket", &s->cred->kas_socket}};

	if (strcmp(name, "recovery") == 0)
		s->cred->recovery = true;
	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		if (strcmp(name, known[i].name) != 0)
			continue;
		*known[i].to = memcpy(s->room, value, strlen(value) + 1);
		s->room += strlen(value) + 1;
	}
	return 0;
}

/* What mount_run() calls in the process that serves. */
struct asked {
	const struct credential_source *cred;
	const char *store;
};

static int ask(void *arg, struct credential *ret)
{
	struct asked *a = arg;

	return credential_get(a->cred, a->store, false, ret);
}

static int store_missing(int err, const char *path)
{
	if (err == -EACCES || err == -EPERM)
		return complain_file(err, path, "only the store's owner, or root, can mount it");
	return complain_file(err, path, "the first argument is the store; `tdfs init STORE` makes one");
}

/* The process that serves stands in another directory. */
static int kas_key_get(struct config *cfg)
{
	char *real = cfg->kas_key ? realpath(cfg->kas_key, NULL) : NULL;

	if (cfg->kas_key && !real)
		return complain_file(-errno, cfg->kas_key, "it is to hold the keys of TDFs made elsewhere");
	free(cfg->kas_key);
	cfg->kas_key = real;
	return EXIT_TDFS_OK;
}

/* A daemon that was killed leaves a mount that nothing can be done with: no reason not to begin again (a service manager does). */
static void dead_remove(const char *arg)
{
	CLEANUP_FREE char *path = path_absolute(arg);
	struct mount_place *list = NULL;
	struct statvfs s; /* not stat(2): attributes of the root are kept for a second, and a service begins again sooner */
	size_t n = 0;
	bool ours = false;

	if (!path || mounts_list(&list, &n))
		return;
	for (size_t i = 0; i < n && !ours; i++)
		ours = strcmp(list[i].mountpoint, path) == 0;
	mounts_free(list, n);
	if (ours && statvfs(path, &s) && errno == ENOTCONN && !unmount_dead(path))
		report(REPORT_NOTE, "%s: removed a mount whose daemon is gone", path);
}

static int paths_get(struct config *cfg, char **pos)
{
	CLEANUP_FREE char *tdfs = NULL;

	fail_clear();
	cfg->store = realpath(pos[0], NULL);
	if (!cfg->store)
		return store_missing(-errno, pos[0]);
	dead_remove(pos[1]);
	cfg->mountpoint = realpath(pos[1], NULL);
	if (!cfg->mountpoint)
		return complain_file(-errno, pos[1],
				     errno == ENOTCONN ? "a dead mount is in the way: `tdfs umount` it"
						       : "make the folder first: `mkdir -p`");
	tdfs = tdfs_dir(cfg->store);
	if (tdfs && access(tdfs, R_OK | X_OK) && errno != ENOENT && errno != ENOTDIR)
		return store_missing(-errno, pos[0]);
	if (!tdfs || access(tdfs, F_OK))
		return complain(fail(-ENOENT, "not a volume"), pos[0], "`tdfs init STORE` makes one; the order is STORE MOUNTPOINT");
	return EXIT_TDFS_OK;
}

/* A secret that lies beside what it protects protects nothing: it goes wherever the store is copied to. */
static int secret_place(const struct config *cfg, const struct credential_source *cred)
{
	const char *files[] = {cred->passfile, cred->keyfile, cred->kas_trust, cfg->kas_key};

	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		if (!files[i] || (!path_below(files[i], cfg->store) && !path_below(files[i], cfg->mountpoint)))
			continue;
		report(REPORT_ERROR, "%s: the secret lies inside the store or the mount point; keep it somewhere else", files[i]);
		return EXIT_TDFS_USAGE;
	}
	return EXIT_TDFS_OK;
}

/* A copy of a whole store is the same volume: both work, but what is changed in one is not in the other. */
static void tell_twin(const struct config *cfg)
{
	CLEANUP(volume_cleanup) struct volume *mine = NULL;
	struct mount_place *list = NULL;
	size_t n = 0;

	if (volume_peek(cfg->store, &mine) || mounts_list(&list, &n))
		return;
	for (size_t i = 0; i < n; i++) {
		CLEANUP(volume_cleanup) struct volume *other = NULL;
		CLEANUP_FREE char *at = path_text(list[i].store);

		if (strcmp(list[i].store, cfg->store) == 0 || volume_peek(list[i].store, &other) ||
		    memcmp(mine->id, other->id, ID_LEN) != 0)
			continue;
		report(REPORT_WARN, "%s: a copy of the same volume is mounted from %s; changes in one are not seen in the other",
		       cfg->store, at ? at : "elsewhere");
	}
	mounts_free(list, n);
}

static int options_get(struct config *cfg, const struct mount_args *a, struct credential_source *cred, char *room)
{
	struct secrets secrets = {cred, room};
	int err = a->o ? config_option_string(cfg, a->o, secret_option, &secrets) : 0;

	if (!err && a->kas_key) {
		free(cfg->kas_key);
		cfg->kas_key = strdup(a->kas_key);
		err = cfg->kas_key ? 0 : -ENOMEM;
	}
	if (a->foreground)
		cfg->foreground = true;
	if (a->debug)
		cfg->debug = true;
	if (cfg->debug)
		cfg->foreground = true;
	if (a->read_only)
		cfg->read_only = true;
	cfg->prepare = live_prepare;
	if (!err)
		err = config_check(cfg);
	return err ? err : credential_check(cred);
}

static int mount_with(struct config *cfg, const struct mount_args *a, char **pos)
{
	struct credential_source cred = a->cred;
	CLEANUP_FREE char *room = calloc(1, a->o ? 2 * strlen(a->o) + 2 : 1);
	struct asked asked = {&cred, pos[0]};
	int code, err;

	if (!room)
		return complain(-ENOMEM, NULL, NULL);
	fail_clear();
	err = options_get(cfg, a, &cred, room);
	if (err) {
		const char *text = cause_text(err);

		report(REPORT_ERROR, "%s%s: tdfs help options", text, strchr(text, '?') ? " See" : "; see");
		return err == -ENOMEM ? EXIT_TDFS_FAILED : EXIT_TDFS_USAGE;
	}
	code = paths_get(cfg, pos);
	if (!code)
		code = kas_key_get(cfg);
	if (!code)
		code = secret_place(cfg, &cred);
	if (code)
		return code;
	tell_twin(cfg);
	return mount_run(cfg, ask, &asked);
}

static int mount_main(const void *args, int n, char **pos)
{
	struct config cfg;
	int code;

	config_init(&cfg);
	code = mount_with(&cfg, args, pos);
	config_free(&cfg);
	return code;
}

static const struct option_row mount_rows[] = {
    {OPTION_LIST, 'o', "options", "LIST", offsetof(struct mount_args, o), "mount options, comma separated (below)"},
    {OPTION_FLAG, 'f', "foreground", NULL, offsetof(struct mount_args, foreground), "stay in the foreground"},
    {OPTION_FLAG, 'd', "debug", NULL, offsetof(struct mount_args, debug), "foreground, and log every operation"},
    {OPTION_TEXT, 0, "kas-key", "FILE", offsetof(struct mount_args, kas_key), "private keys for TDFs made elsewhere (PEM, JSON list)"},
    {OPTION_FLAG, 0, "ro", NULL, offsetof(struct mount_args, read_only), "read only; nothing in the store is changed"},
    CREDENTIAL_ROWS(struct mount_args, cred),
    {0},
};

const struct command command_mount = {
    .name = "mount",
    .summary = "show a volume's files as plain ones in a folder",
    .usage = "STORE MOUNTPOINT",
    .more = mount_options_names,
    .options = mount_rows,
    .args_size = sizeof(struct mount_args),
    .min_args = 2,
    .max_args = 2,
    .run = mount_main,
};
