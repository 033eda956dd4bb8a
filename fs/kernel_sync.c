/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>

#include "kernel_sync.h"
#include "report.h"

#define INTERVAL_S 4
#define READ_AHEAD_KB "512"

#ifndef OPEN_TREE_CLONE
#define OPEN_TREE_CLONE 1
#endif
#ifndef OPEN_TREE_CLOEXEC
#define OPEN_TREE_CLOEXEC O_CLOEXEC
#endif

struct kernel_sync {
	struct mount *m;
	struct kernel_calls calls;
	pthread_t thread, session;
	_Atomic bool stop;
};

/* The device number of what is mounted there, without asking the daemon */
static int device_of(int dirfd, const char *path, dev_t *ret)
{
	struct statx x;

	if (statx(dirfd, path, AT_STATX_DONT_SYNC | AT_EMPTY_PATH, STATX_TYPE, &x))
		return -errno;
	*ret = makedev(x.stx_dev_major, x.stx_dev_minor);
	return 0;
}

bool mount_is_there(const struct mount *m)
{
	dev_t dev;

	return !device_of(AT_FDCWD, m->cfg->mountpoint, &dev) && dev == m->dev;
}

void kernel_read_ahead(const struct mount *m)
{
	CLEANUP_FD int fd = -1;
	char path[64];

	snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb", major(m->dev), minor(m->dev));
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, READ_AHEAD_KB, strlen(READ_AHEAD_KB)) < 0)
		report(REPORT_DEBUG, "%s: %s: sequential reads stay at the kernel's read-ahead", path, strerror(errno));
}

/* A descriptor of the mount's root; -ENOENT: our mount is not there any more.  As root through a private clone of the mount, so that
 * umount(8) does not find it busy. */
static int open_mount(const struct mount *m)
{
	int tree CLEANUP_FD = -1, fd;
	dev_t dev;

#ifdef SYS_open_tree
	if (!geteuid())
		tree = (int)syscall(SYS_open_tree, AT_FDCWD, m->cfg->mountpoint, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
#endif
	if (tree < 0)
		tree = open(m->cfg->mountpoint, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (tree < 0)
		return errno == ENOTCONN ? -ENOENT : -errno;
	if (device_of(tree, "", &dev) || dev != m->dev)
		return -ENOENT;
	fd = openat(tree, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* What the child of kernel_sync_now() does: system calls only.  0; ENOENT the mount is gone; or another errno */
static int fetch(const struct mount *m)
{
	int fd;

	if (syscall(SYS_close_range, 3, ~0u, 0))
		for (int i = 3; i < 65536; i++)
			close(i);
	fd = open_mount(m);
	if (fd == -ENOENT || fd == -ENOTCONN || fd == -ECONNABORTED)
		return ENOENT;
	if (fd < 0)
		return -fd;
	/* EINTR: a killed program's write-back failed some time ago, which is told here once; what there is now has to be fetched all the same */
	for (int i = 0; i < 3; i++) {
		if (!syncfs(fd))
			return 0;
		if (errno != EINTR)
			break;
	}
	return errno == ENOTCONN ? ENOENT : errno;
}

/*
 * In a process of its own, which has given up /dev/fuse: syncfs(2) cannot be killed while it waits for us.  Were it one of our threads, a
 * daemon that is killed meanwhile could not end, its connection would never be aborted, and both would wait for ever.
 */
static int sync_once(const struct mount *m, bool *ret_again)
{
	uint64_t since = now_ns();
	int status = 0;
	pid_t pid;

	pid = fork();
	if (!pid)
		_exit(fetch(m));
	if (pid < 0)
		return fail(-errno, "%s: no process to fetch what the kernel holds: %s", m->cfg->mountpoint, strerror(errno));
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFEXITED(status) && !WEXITSTATUS(status))
		*ret_again = inode_times_all_known(m->tree.store, since);
	if (WIFEXITED(status) && (!WEXITSTATUS(status) || WEXITSTATUS(status) == ENOENT))
		return 0;
	status = WIFEXITED(status) ? WEXITSTATUS(status) : EIO;
	return fail(-status, "%s: the kernel could not hand over all changes: %s", m->cfg->mountpoint, strerror(status));
}

int kernel_sync_now(const struct mount *m)
{
	bool again = false;
	int err = m->writeback ? sync_once(m, &again) : 0;

	return err || !again ? err : sync_once(m, &again); /* the times of what the first one brought */
}

static void end_session(struct kernel_sync *k)
{
	static const struct timespec pause = {.tv_nsec = 20 * 1000000};

	gate_finish(&k->m->gate);
	if (kernel_sync_now(k->m))
		report(REPORT_WARN, "%s", fail_text());
	k->calls.leave(k->m);
	/* more than once: the first may come just before it waits */
	while (!k->stop) {
		pthread_kill(k->session, SIGUSR1);
		nanosleep(&pause, NULL);
	}
}

static void *kernel_sync_main(void *arg)
{
	static const struct timespec interval = {.tv_sec = INTERVAL_S};
	struct kernel_sync *k = arg;
	bool again;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	while (!k->stop) {
		int sig = sigtimedwait(&set, NULL, &interval);

		if (sig > 0 && !k->stop)
			end_session(k);
		if (sig > 0 || errno != EAGAIN || !gate_helper_begin(&k->m->gate))
			continue;
		if (mount_wrote(k->m) && k->m->writeback && sync_once(k->m, &again))
			report(REPORT_WARN, "%s", fail_text());
		k->calls.tick(k->m);
		gate_helper_end(&k->m->gate);
	}
	return NULL;
}

static void nothing(int sig)
{
	(void)sig;
}

int kernel_sync_start(struct mount *m, const struct kernel_calls *calls, struct kernel_sync **ret)
{
	struct kernel_sync *k = calloc(1, sizeof(*k));
	struct sigaction sa = {.sa_handler = nothing}; /* no SA_RESTART: it has to end a wait */
	sigset_t usr1;
	int err;

	if (!k)
		return -ENOMEM;
	k->m = m;
	k->calls = *calls;
	k->session = pthread_self();
	err = device_of(AT_FDCWD, m->cfg->mountpoint, &m->dev);
	if (!err)
		err = -pthread_create(&k->thread, NULL, kernel_sync_main, k);
	if (err) {
		free(k);
		return err;
	}
	sigaction(SIGUSR1, &sa, NULL);
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	pthread_sigmask(SIG_UNBLOCK, &usr1, NULL);
	*ret = k;
	return 0;
}

void kernel_sync_stop(struct kernel_sync *k)
{
	if (!k)
		return;
	k->stop = true;
	pthread_kill(k->thread, SIGTERM); /* to that thread alone, which takes it from its wait */
	pthread_join(k->thread, NULL);
	free(k);
}
