/* SPDX-License-Identifier: Apache-2.0 */
/* tdfs umount, sync and quiesce: the daemon's life seen from outside. */
#include <errno.h>
#include <inttypes.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/wait.h>
#include <time.h>

#include "commands.h"
#include "control.h"
#include "mounts.h"
#include "progress.h"
#include "say.h"
#include "target.h"

#define QUIESCE_LIMIT (10 * 60)
#define UNSEALED                                                                                                                         \
	"unmounted, but not everything is sealed: what fsync acknowledged is in the volume's log and is sealed at the next mount, what " \
	"it "                                                                                                                            \
	"refused is lost"
#define SYNC_TIMEOUT_MS (60 * 60 * 1000) /* sealing takes as long as the disk does */

extern char **environ;

static void sleep_us(long us)
{
	struct timespec t = {us / 1000000, us % 1000000 * 1000};

	nanosleep(&t, NULL);
}

/* The daemon answered; it is gone when it has sealed everything and let go of the lock. */
static int wait_gone(const char *store, bool tty)
{
	long waited = 0, pause = 250, told = 0; /* us; nothing to seal takes a millisecond */

	for (; store_holder(store); waited += pause, pause = MIN(2 * pause, 50000)) {
		if (interrupted()) {
			report(REPORT_ERROR, "%s: interrupted; the daemon goes on sealing by itself", store);
			return EXIT_TDFS_INTERRUPTED;
		}
		if (waited >= told + 1000000) {
			told = waited;
			if (tty)
				fprintf(stderr, "\r\033[Ktdfs: sealing changed files, %ld s", waited / 1000000);
			else if (waited / 1000000 % 60 == 0)
				report(REPORT_NOTE, "%s: still sealing changed files, %ld s", store, waited / 1000000);
		}
		sleep_us(pause);
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
	int code = EXIT_TDFS_OK, leaving = -1, err;

	fail_clear();
	err = store_resolve(pos[0], &store, &mountpoint);
	if (err)
		return complain_file(err, pos[0], "`tdfs status` lists what is mounted");
	interrupt_catch();
	dir = tdfs_dir(store);
	err = dir ? control_unmount(dir, 30000, &leaving) : -ENOMEM;
	if (err == -EBUSY)
		return umount_busy(err, mountpoint ? mountpoint : store);
	if (err == -EAGAIN)
		return complain(err, pos[0], NULL);
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
	err = leaving < 0 ? 0 : control_unmounted(leaving);
	if (!code && mountpoint && is_mounted(mountpoint))
		return umount_busy(-EBUSY, mountpoint);
	return code || !err ? code : complain(err, store, UNSEALED);
}

const struct command command_umount = {
    .name = "umount",
    .summary = "end a mount; returns when everything is sealed in the store",
    .usage = "MOUNTPOINT|STORE",
    .notes = "Where the daemon does not answer, fusermount3 -u is used. Ends with 1 if not\n"
	     "everything could be sealed, as on a full disk: what fsync acknowledged is in\n"
	     "the volume's log and is sealed at the next mount.\n",
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

struct quiesce_args {
	bool thaw;
	const char *limit;
};

static int quiesce_complain(int err, const char *place, const char *store, bool thaw)
{
	if (err == -ENOENT || err == -ECONNREFUSED)
		return complain(fail(err, "not mounted, so nothing changes in it"), place,
				"if its daemon died, `tdfs recover %s` brings the files up to the log", store);
	if (thaw)
		return complain_file(err, place, "make the copy once more");
	return complain(err, place, NULL);
}

static int quiesce_main(const void *args, int n, char **pos)
{
	const struct quiesce_args *a = args;
	CLEANUP_FREE char *store = NULL;
	CLEANUP_FREE char *mountpoint = NULL;
	CLEANUP_FREE char *dir = NULL;
	uint64_t seconds = QUIESCE_LIMIT;
	int err;

	if (a->thaw && a->limit) {
		report(REPORT_ERROR, "--thaw and --limit exclude each other");
		return EXIT_TDFS_USAGE;
	}
	if (a->limit && (seconds_parse(a->limit, &seconds) || !seconds || seconds > CONTROL_QUIESCE_MAX)) {
		report(REPORT_ERROR, "--limit %s: give a time up to 1d, as 90s, 10m or 2h", a->limit);
		return EXIT_TDFS_USAGE;
	}
	fail_clear();
	err = store_resolve(pos[0], &store, &mountpoint);
	if (err)
		return complain_file(err, pos[0], "`tdfs status` lists what is mounted");
	dir = tdfs_dir(store);
	err = dir ? control_quiesce(dir, a->thaw ? 0 : (unsigned)seconds, SYNC_TIMEOUT_MS) : -ENOMEM;
	return err ? quiesce_complain(err, pos[0], store, a->thaw) : EXIT_TDFS_OK;
}

static const struct option_row quiesce_rows[] = {
    {OPTION_FLAG, 0, "thaw", NULL, offsetof(struct quiesce_args, thaw), "let writing go on"},
    {OPTION_TEXT, 0, "limit", "TIME", offsetof(struct quiesce_args, limit), "thaw by itself after that (default 10m)"},
    {0},
};

const struct command command_quiesce = {
    .name = "quiesce",
    .summary = "hold a mounted volume still while its store is copied",
    .usage = "MOUNTPOINT|STORE",
    .notes = "Seals everything, empties the log and lets nothing be written until\n"
	     "--thaw: who writes waits, reading goes on. A snapshot or copy of the store\n"
	     "made meanwhile is like one made after an unmount. If the time ran out\n"
	     "before --thaw, that ends with 1: make the copy once more.\n",
    .options = quiesce_rows,
    .args_size = sizeof(struct quiesce_args),
    .min_args = 1,
    .max_args = 1,
    .run = quiesce_main,
};
