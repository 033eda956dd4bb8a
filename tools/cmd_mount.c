/* SPDX-License-Identifier: Apache-2.0 */
/* tdfs mount, umount and sync: the daemon's life seen from outside. */
#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/wait.h>
#include <time.h>

#include "commands.h"
#include "control.h"
#include "mount.h"
#include "mounts.h"
#include "progress.h"
#include "say.h"
#include "target.h"

#define SYNC_TIMEOUT_MS (60 * 60 * 1000) /* sealing takes as long as the disk does */

extern char **environ;

struct mount_args {
	struct credential_source cred;
	char *o;
	bool foreground, debug, read_only;
};

/* The next option of an -o list, `\,` and `\\` taken literally; as it stands (@ret_raw) and its meaning (@ret_text). */
static bool option_next(const char **list, char *ret_raw, char *ret_text)
{
	const char *p = *list;

	if (!p || !*p)
		return false;
	for (; *p && *p != ','; p++) {
		if (*p == '\\' && p[1])
			*ret_raw++ = *p++;
		*ret_raw++ = *p;
		*ret_text++ = *p;
	}
	*ret_raw = *ret_text = 0;
	*list = *p ? p + 1 : p;
	return true;
}

/* Options for mount(8) and fstab alone. */
static bool option_is_fstab(const char *text)
{
	static const char *const names[] = {"defaults", "auto",  "noauto", "user",    "users", "nouser",
					    "owner",    "group", "nofail", "_netdev", "loud",  "silent"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (strcmp(text, names[i]) == 0)
			return true;
	return strncmp(text, "x-", 2) == 0 || strncmp(text, "comment=", 8) == 0;
}

/* Where the secret comes from may stand in -o, for fstab.  @text is kept by the caller. */
static bool option_is_secret(struct credential_source *cred, char *text)
{
	struct {
		const char *name;
		const char **to;
	} known[] = {
	    {"passfile=", &cred->passfile}, {"passfd=", &cred->passfd}, {"extpass=", &cred->extpass}, {"keyfile=", &cred->keyfile}};

	if (strcmp(text, "recovery") == 0)
		return cred->recovery = true;
	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		if (strncmp(text, known[i].name, strlen(known[i].name)) != 0)
			continue;
		*known[i].to = text + strlen(known[i].name);
		return true;
	}
	return false;
}

/* Split @list into ours (secrets, fstab words) and what the mount understands.  @room: text that @cred points into, as long as @list and
 * zeroed */
static int options_split(const char *list, struct credential_source *cred, char *room, struct config *cfg)
{
	CLEANUP_FREE char *raw = malloc(strlen(list) + 1);
	CLEANUP_FREE char *rest = calloc(1, strlen(list) + 2);
	size_t n = 0;

	if (!raw || !rest)
		return -ENOMEM;
	while (option_next(&list, raw, room)) {
		if (!*room || option_is_fstab(room))
			continue;
		if (option_is_secret(cred, room)) {
			room += strlen(room) + 1;
			continue;
		}
		if (n)
			rest[n++] = ',';
		memcpy(rest + n, raw, strlen(raw)); /* all of it together is no longer than the list */
		n += strlen(raw);
	}
	return n ? config_option_string(cfg, rest) : 0;
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

static int paths_get(struct config *cfg, char **pos)
{
	CLEANUP_FREE char *tdfs = NULL;

	fail_clear();
	cfg->store = realpath(pos[0], NULL);
	if (!cfg->store)
		return complain_file(-errno, pos[0], "the first argument is the store; `tdfs init STORE` makes one");
	cfg->mountpoint = realpath(pos[1], NULL);
	if (!cfg->mountpoint)
		return complain_file(-errno, pos[1],
				     errno == ENOTCONN ? "a dead mount is in the way: `tdfs umount` it"
						       : "make the folder first: `mkdir -p`");
	tdfs = tdfs_dir(cfg->store);
	if (!tdfs || access(tdfs, F_OK))
		return complain(fail(-ENOENT, "not a volume"), pos[0], "`tdfs init STORE` makes one; the order is STORE MOUNTPOINT");
	return EXIT_TDFS_OK;
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
	err = a->o ? options_split(a->o, &cred, room, cfg) : 0;
	if (a->foreground)
		cfg->foreground = true;
	if (a->debug)
		cfg->debug = cfg->foreground = true;
	if (a->read_only)
		cfg->read_only = true;
	if (!err)
		err = config_check(cfg);
	if (!err)
		err = credential_check(&cred);
	if (err) {
		report(REPORT_ERROR, "%s; see tdfs mount --help", cause_text(err));
		return err == -ENOMEM ? EXIT_TDFS_FAILED : EXIT_TDFS_USAGE;
	}
	code = paths_get(cfg, pos);
	return code ? code : mount_run(cfg, ask, &asked);
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
    {OPTION_FLAG, 0, "ro", NULL, offsetof(struct mount_args, read_only), "read only; nothing in the store is changed"},
    CREDENTIAL_ROWS(struct mount_args, cred),
    {0},
};

const struct command command_mount = {
    .name = "mount",
    .summary = "show a volume's files as plain ones in a folder",
    .usage = "STORE MOUNTPOINT",
    .notes = "  -o ro  allow_other  allow_root  noatime  noexec  dev  suid  fsname=NAME\n"
	     "  -o cache=strict     a write() that returned survives the daemon's death\n"
	     "  -o cache=exclusive  nobody else touches the store: longer caching\n"
	     "  -o shared_storage   the store is on shared storage: no write-back caching\n"
	     "  -o foreign=ro|deny  TDFs made elsewhere: readable, or refused\n"
	     "  -o segcache=SIZE    memory for plaintext of segments read lately\n",
    .options = mount_rows,
    .args_size = sizeof(struct mount_args),
    .min_args = 2,
    .max_args = 2,
    .run = mount_main,
};

static void sleep_ms(long ms)
{
	struct timespec t = {ms / 1000, ms % 1000 * 1000000};

	nanosleep(&t, NULL);
}

/* The daemon answered; it is gone when it has sealed everything and let go of the lock. */
static int wait_gone(const char *store, bool tty)
{
	for (long waited = 0; store_holder(store); waited += 50) {
		if (interrupted()) {
			report(REPORT_ERROR, "%s: interrupted; the daemon goes on sealing by itself", store);
			return EXIT_TDFS_INTERRUPTED;
		}
		if (waited >= 1000 && waited % 1000 == 0) {
			if (tty)
				fprintf(stderr, "\r\033[Ktdfs: sealing changed files, %ld s", waited / 1000);
			else if (waited % 60000 == 0)
				report(REPORT_NOTE, "%s: still sealing changed files, %ld s", store, waited / 1000);
		}
		sleep_ms(50);
	}
	if (tty)
		fprintf(stderr, "\r\033[K");
	return EXIT_TDFS_OK;
}

static int fusermount(const char *mountpoint)
{
	char name[] = "fusermount3", flag[] = "-u", end[] = "--";
	char *argv[] = {name, flag, end, (char *)mountpoint, NULL};
	int status = 0, err;
	pid_t pid;

	err = posix_spawnp(&pid, name, NULL, NULL, argv, environ);
	if (err)
		return complain(fail(-err, "fusermount3: %s", strerror(err)), mountpoint, "install fuse3, or `umount` it as root");
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return EXIT_TDFS_OK;
	report(REPORT_ERROR, "%s: fusermount3 could not unmount it; only who mounted it, or root, may", mountpoint);
	return EXIT_TDFS_FAILED;
}

/* The same store, or mountpoint, is no longer in the mount table. */
static bool is_mounted(const char *mountpoint)
{
	struct mount_place *list = NULL;
	size_t n = 0;
	bool found = false;

	if (mounts_list(&list, &n))
		return true;
	for (size_t i = 0; i < n; i++)
		found |= strcmp(list[i].mountpoint, mountpoint) == 0;
	mounts_free(list, n);
	return found;
}

static int umount_busy(int err, const char *place)
{
	return complain(err, place,
			*fail_text() ? "close it and try again" : "close what is open there (`fuser -vm %s` lists it) and try again",
			place);
}

static int umount_main(const void *args, int n, char **pos)
{
	CLEANUP_FREE char *store = NULL;
	CLEANUP_FREE char *mountpoint = NULL;
	CLEANUP_FREE char *dir = NULL;
	json_t *answer = NULL;
	int code = EXIT_TDFS_OK, err;

	fail_clear();
	err = store_resolve(pos[0], &store, &mountpoint);
	if (err)
		return complain_file(err, pos[0], "`tdfs status` lists what is mounted");
	interrupt_catch();
	dir = tdfs_dir(store);
	err = dir ? control_call(dir, "unmount", 30000, &answer) : -ENOMEM;
	json_decref(answer);
	if (err == -EBUSY)
		return umount_busy(err, mountpoint ? mountpoint : store);
	if (err && !mountpoint && store_holder(store)) /* it has left its mount and is sealing */
		err = 0;
	if (err && !mountpoint)
		return complain(fail(err == -ENOENT ? -ECONNREFUSED : err, "not mounted"), pos[0], "`tdfs status` lists what is mounted");
	if (err) /* nobody answers: a dead daemon's mount, or another user's */
		code = fusermount(mountpoint);
	if (code)
		return code;
	if (access(dir, F_OK)) { /* -o fsname= hides which store it is */
		report(REPORT_NOTE,
		       "%s: unmounted; which store it was is not known (fsname=), so its daemon may still be sealing: `tdfs umount STORE` "
		       "waits for that",
		       pos[0]);
		return EXIT_TDFS_OK;
	}
	code = wait_gone(store, isatty(STDERR_FILENO));
	if (!code && mountpoint && is_mounted(mountpoint))
		return umount_busy(-EBUSY, mountpoint);
	return code;
}

const struct command command_umount = {
    .name = "umount",
    .summary = "end a mount; returns when everything is sealed in the store",
    .usage = "MOUNTPOINT|STORE",
    .notes = "Where the daemon does not answer, fusermount3 -u is used.\n",
    .min_args = 1,
    .max_args = 1,
    .run = umount_main,
};

static int sync_main(const void *args, int n, char **pos)
{
	CLEANUP_FREE char *store = NULL;
	CLEANUP_FREE char *mountpoint = NULL;
	CLEANUP_FREE char *dir = NULL;
	json_t *answer = NULL;
	int err;

	fail_clear();
	err = store_resolve(pos[0], &store, &mountpoint);
	if (err)
		return complain_file(err, pos[0], "`tdfs status` lists what is mounted");
	dir = tdfs_dir(store);
	err = dir ? control_call(dir, "sync", SYNC_TIMEOUT_MS, &answer) : -ENOMEM;
	json_decref(answer);
	if (err == -ENOENT || err == -ECONNREFUSED)
		return complain(fail(err, "not mounted, so nothing is waiting in memory"), pos[0],
				"if its daemon died, `tdfs recover %s` brings the files up to the log", store);
	return err ? complain(err, pos[0], "some files are not sealed yet; `tdfs status` tells more") : EXIT_TDFS_OK;
}

const struct command command_sync = {
    .name = "sync",
    .summary = "seal all changes of a mounted volume; returns when they are durable",
    .usage = "MOUNTPOINT|STORE",
    .min_args = 1,
    .max_args = 1,
    .run = sync_main,
};
