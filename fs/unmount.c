/* SPDX-License-Identifier: Apache-2.0 */
#include "unmount.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include "report.h"

/* What it says, one line */
static void read_line(int fd, char *buf, size_t size)
{
	size_t len = 0;
	ssize_t n;

	while (len < size - 1 && ((n = read(fd, buf + len, size - 1 - len)) > 0 || (n < 0 && errno == EINTR)))
		len += n > 0 ? (size_t)n : 0;
	buf[len] = 0;
	buf[strcspn(buf, "\n")] = 0;
}

static int run_fusermount(const char *flag, const char *mountpoint)
{
	char *argv[] = {(char *)"fusermount3", (char *)flag, (char *)"--", (char *)mountpoint, NULL}, said[512];
	extern char **environ;
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attr;
	int status = -1, fds[2], err;
	sigset_t none;
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC))
		return fail(-errno, "fusermount3 could not be run: %s", strerror(errno));
	sigemptyset(&none);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
	posix_spawn_file_actions_init(&files);
	posix_spawn_file_actions_adddup2(&files, fds[1], STDERR_FILENO);
	err = posix_spawnp(&pid, argv[0], &files, &attr, argv, environ);
	posix_spawn_file_actions_destroy(&files);
	posix_spawnattr_destroy(&attr);
	close(fds[1]);
	read_line(fds[0], said, sizeof(said));
	close(fds[0]);
	if (err)
		return fail(-err, "fusermount3 could not be run: %s", strerror(err));
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFEXITED(status) && !WEXITSTATUS(status))
		return 0;
	return strstr(said, ": Device or resource busy") ? -EBUSY : fail(-EIO, "%s", *said ? said : "fusermount3 failed");
}

/* A proper unmount: the kernel hands everything over through the session, which still runs, and refuses while something is open. */
int unmount(const char *mnt)
{
	int err;

	if (geteuid())
		err = run_fusermount("-u", mnt);
	else
		err = umount2(mnt, UMOUNT_NOFOLLOW) ? -errno : 0;
	if (err == -EBUSY)
		return fail(err, "%s: is in use: a program has a file or its working directory there; see: fuser -vm %s", mnt, mnt);
	return err ? fail(err, "%s: could not be unmounted: %s", mnt, *fail_text() ? fail_text() : strerror(-err)) : 0;
}

int unmount_dead(const char *mnt)
{
	int err = geteuid() ? run_fusermount("-uz", mnt) : umount2(mnt, MNT_DETACH | UMOUNT_NOFOLLOW) ? -errno : 0;

	return err ? fail(err, "%s: a mount whose daemon is gone could not be removed: %s", mnt,
			  *fail_text() ? fail_text() : strerror(-err))
		   : 0;
}
