/* SPDX-License-Identifier: Apache-2.0 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <syslog.h>

#include "control.h"
#include "report.h"
#include "service.h"
#include "start.h"
#include "volume_remote.h"
#include "volume_state.h"

#define LEAVING_WAIT_MS 30000 /* for a daemon that is sealing its last files */
#define DIRTY_BYTES ((size_t)64 << 20)

int start_fork(int *ret_fd, int *ret_code)
{
	int p[2], code = EXIT_TDFS_FAILED, status;
	pid_t pid;
	ssize_t n;

	if (pipe2(p, O_CLOEXEC))
		return fail(-errno, "no pipe: %s", strerror(errno));
	fflush(NULL); /* nothing may be printed twice */
	pid = fork();
	if (pid < 0) {
		int err = -errno;

		close(p[0]);
		close(p[1]);
		return fail(err, "no process: %s", strerror(-err));
	}
	if (!pid) {
		close(p[0]);
		*ret_fd = p[1];
		return 0;
	}
	close(p[1]);
	do {
		n = read(p[0], &code, sizeof(code));
	} while (n < 0 && errno == EINTR);
	close(p[0]);
	if (n != sizeof(code)) { /* it ended without a word */
		code = EXIT_TDFS_FAILED;
		if (waitpid(pid, &status, 0) == pid && WIFSIGNALED(status)) {
			code = WTERMSIG(status) == SIGINT ? EXIT_TDFS_INTERRUPTED : EXIT_TDFS_FAILED;
			report(REPORT_ERROR, "the daemon was ended by signal %d before it had mounted anything", WTERMSIG(status));
		} else {
			report(REPORT_ERROR, "the daemon ended before it had mounted anything");
		}
	}
	*ret_code = code;
	return 1;
}

static _Atomic bool detached; /* the terminal is not ours any more: a sink has no argument to keep this in */

static _Atomic bool journal; /* so is this: standard error takes <priority> */

static void sink(enum report_level level, const char *line)
{
	static const int priority[] = {
	    [REPORT_ERROR] = LOG_ERR, [REPORT_WARN] = LOG_WARNING, [REPORT_NOTE] = LOG_NOTICE, [REPORT_DEBUG] = LOG_DEBUG};

	if (detached)
		syslog(LOG_DAEMON | priority[level], "%s", line);
	else if (journal)
		dprintf(STDERR_FILENO, "<%d>%s\n", priority[level], line);
	else
		dprintf(STDERR_FILENO, "tdfs: %s\n", line);
}

void start_report(int fd, enum exit_code code)
{
	int word = (int)code, null;

	if (fd < 0) {
		if (code == EXIT_TDFS_OK)
			service_tell("READY=1");
		return;
	}
	if (code == EXIT_TDFS_OK) {
		setsid();
		openlog("tdfs", LOG_PID | LOG_NDELAY, LOG_DAEMON);
		detached = true;
		null = open("/dev/null", O_RDWR);
		for (int i = 0; null >= 0 && i < 3; i++)
			dup2(null, i);
		if (null > 2)
			close(null);
	}
	if (write(fd, &word, sizeof(word)) != sizeof(word))
		report(REPORT_DEBUG, "nobody waits for the mount any more");
	close(fd);
}

/* With it quotas and blocks kept for root would not stop what users write through us. */
static void drop_resource_capability(void)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];

	if (geteuid() || syscall(SYS_capget, &head, data))
		return;
	data[0].effective &= ~(1u << CAP_SYS_RESOURCE);
	data[0].permitted &= ~(1u << CAP_SYS_RESOURCE);
	data[0].inheritable &= ~(1u << CAP_SYS_RESOURCE);
	if (syscall(SYS_capset, &head, data))
		report(REPORT_WARN, "CAP_SYS_RESOURCE could not be given up: %s; quotas do not count for this mount", strerror(errno));
}

void start_harden(const struct config *c)
{
	struct rlimit files;
	sigset_t set;

	umask(0);
	process_private();
	if (!getrlimit(RLIMIT_NOFILE, &files)) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	drop_resource_capability();
	/* glibc loads it at the first pthread_cancel(), which is libfuse's when the mount ends, and aborts if no descriptor is left by
	 * then; it stays loaded */
	(void)dlopen("libgcc_s.so.1", RTLD_NOW | RTLD_GLOBAL);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGCHLD, SIG_DFL); /* ignored by who started us, it would hide how our children ended */
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	if (c->debug)
		report_limit(REPORT_DEBUG);
	journal = c->foreground && service_has_journal();
	if (!c->foreground || journal)
		report_to(sink);
}

/* From here on the signals that end us wait until the session can deal with them */
static void block_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
}

static enum exit_code failed(const char *what, int err)
{
	report(REPORT_ERROR, "%s", *fail_text() ? fail_text() : what);
	if (!*fail_text())
		report(REPORT_ERROR, "%s", strerror(-err));
	return exit_code_of(err);
}

/* Does the one who holds the lock serve a mount?  Then that has been reported. */
static bool holder_serves(const struct config *c, const struct volume *v, pid_t pid)
{
	json_t *status = NULL;
	const char *at;
	char dir[32];
	int err;

	snprintf(dir, sizeof(dir), "/proc/self/fd/%d", v->dir_fd);
	err = control_call(dir, "status", 5000, &status);
	if (err == -EAGAIN)
		report(REPORT_ERROR, "%s: is mounted already; %s", c->store, fail_text());
	if (err)
		return err == -EAGAIN;
	at = json_string_value(json_object_get(status, "mountpoint"));
	if (json_is_true(json_object_get(status, "detached")))
		report(REPORT_ERROR,
		       "%s: its mount on %s was taken away while files are open there, or another mount namespace has a copy of it; "
		       "process %d ends when "
		       "they are closed",
		       c->store, at ? at : "?", (int)pid);
	else
		report(REPORT_ERROR, "%s: is mounted already, on %s (process %d); unmount it with: tdfs umount %s", c->store, at ? at : "?",
		       (int)pid, at ? at : "?");
	json_decref(status);
	return true;
}

/* Who holds the lock: a daemon that serves, or one that is only sealing its last files? */
static enum exit_code lock(const struct config *c, struct volume *v, bool *ret_read_only)
{
	pid_t pid = 0;
	int err = volume_lock(v, 0, &pid);

	if (err == -EBUSY) {
		if (holder_serves(c, v, pid))
			return EXIT_TDFS_BUSY;
		report(REPORT_NOTE, "%s: process %d still works on it; waiting up to %d seconds", c->store, (int)pid,
		       LEAVING_WAIT_MS / 1000);
		err = volume_lock(v, LEAVING_WAIT_MS, &pid);
		if (err == -EBUSY) {
			report(REPORT_ERROR, "%s: is in use by process %d; wait for it or end it, then mount again", c->store, (int)pid);
			return EXIT_TDFS_BUSY;
		}
	}
	if (err == -EROFS) {
		*ret_read_only = true;
		return EXIT_TDFS_OK;
	}
	return err ? failed("the store cannot be locked", err) : EXIT_TDFS_OK;
}

static void recover_event(void *arg, const char *path, const char *text)
{
	const struct config *c = arg;

	report(REPORT_NOTE, "%s%s%s: %s", c->store, path && *path ? "/" : "", path ? path : "", text);
}

/* As io_posix(), and for the name "" @dirfd itself, an O_PATH descriptor, is opened again: a file whose name went away between the kernel's
 * lookup and its open (attr_content()) */
static int open_entry(void *ctx, int dirfd, const char *name, int flags, mode_t mode)
{
	char path[40];

	if (*name)
		return io_openat(dirfd, name, flags | O_NOFOLLOW, mode);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", dirfd);
	return io_openat(AT_FDCWD, path, flags, mode);
}

static enum exit_code open_store(const struct config *c, struct opened *o)
{
	struct volume *v = o->volume;
	struct io io = io_posix(v->store_fd);
	struct store_keys keys = {.k_seal = v->k_seal,
				  .k_hint = v->k_hint,
				  .k_rec = v->k_rec,
				  .k_log = v->k_log,
				  .kas = v->kas,
				  .policy = v->policy,
				  .policies = v->n_policies ? v : NULL};
	struct store_options opt = {
	    .segment_size = v->segment_size,
	    .read_only = o->read_only,
	    .strict = c->strict,
	    .live_mark = c->live_mark,
	    .noatime = c->noatime,
	    .cache_bytes = c->cache_bytes,
	    .dirty_bytes = DIRTY_BYTES,
	};
	int err;

	io.open = open_entry;
	memcpy(keys.volume_id, v->id, ID_LEN);
	fail_clear();
	err = store_open(&io, v->store_fd, v->dir_fd, &keys, &opt, recover_event, (void *)c, &o->store);
	if (err < 0) {
		report(REPORT_ERROR, "%s: the volume log could not be used: %s; see: tdfs check %s", c->store,
		       *fail_text() ? fail_text() : strerror(-err), c->store);
		return err == -ENOENT ? EXIT_TDFS_NEEDS_LOG : exit_code_of(err);
	}
	if (err)
		report(REPORT_WARN,
		       "%s: mounted read-only: %zu files could not be brought to their last committed state (the reasons stand above); on "
		       "a full disk make "
		       "room and mount again, after damage see: tdfs recover --salvage %s",
		       c->store, o->store->n_damaged, c->store);
	o->read_only = o->store->opt.read_only;
	if (o->store->recovered.files && !o->read_only)
		report(REPORT_NOTE,
		       "%s: was not unmounted cleanly: brought up to the log, which knew %llu changed files (%llu of them are gone)",
		       c->store, (unsigned long long)o->store->recovered.files, (unsigned long long)o->store->recovered.missing);
	return EXIT_TDFS_OK;
}

static enum exit_code prepare(const struct config *c, struct opened *o)
{
	enum volume_state s;

	fail_clear();
	if (volume_state_read(o->volume, &s))
		report(REPORT_WARN, "%s", fail_text());
	o->converting = s == VOLUME_CONVERTING;
	if (o->converting) /* an old state file that somebody has put back is as good as a new one */
		report(REPORT_WARN,
		       "%s: is being converted: plain files in it are shown, and what is written to them stays plain (`tdfs convert in "
		       "--in-place`, then `tdfs convert finish`; was that done already, somebody has put an old state back)",
		       c->store);
	return !o->read_only && c->prepare ? (enum exit_code)c->prepare(o->volume) : EXIT_TDFS_OK;
}

enum exit_code start_open(const struct config *c, int (*get)(void *arg, struct credential *ret), void *arg, struct opened *ret)
{
	struct opened o = {.read_only = c->read_only};
	struct credential cred = {0};
	enum exit_code code;
	int err;

	fail_clear();
	err = get(arg, &cred);
	if (err)
		return failed("no way to unlock the store was given", err);
	err = volume_open(c->store, &cred, &o.volume);
	credential_free(&cred);
	if (err)
		return failed("the store could not be opened", err);
	if (o.volume->from_backup)
		report(REPORT_WARN, "%s: volume.json is damaged, its second copy was used; save both with: tdfs key backup %s FILE",
		       c->store, c->store);
	kas_times(o.volume->kas, c->key_ttl_s, c->grace_s);
	err = c->kas_key ? kas_add_key_file(o.volume->kas, c->kas_key) : 0; /* behind the volume's own, which stay those of new files */
	if (err) {
		volume_free(o.volume);
		return failed("the keys for TDFs made elsewhere could not be used", err);
	}
	if (volume_remotes_check(o.volume))
		report(REPORT_WARN, "%s: %s; until that is mended its keys cannot be had: files made for it can be made, not read",
		       c->store, fail_text());
	block_signals();
	code = lock(c, o.volume, &o.read_only);
	if (code == EXIT_TDFS_OK)
		code = prepare(c, &o);
	if (code == EXIT_TDFS_OK)
		code = open_store(c, &o);
	if (code != EXIT_TDFS_OK)
		volume_free(o.volume);
	else
		*ret = o;
	return code;
}

enum exit_code start_close(struct opened *o, int leaver)
{
	const char *path = o->volume->path;
	enum exit_code code = EXIT_TDFS_OK;
	int err;

	fail_clear();
	service_tell("STOPPING=1\nSTATUS=sealing changed files");
	err = store_close(o->store);
	if (err) {
		report(REPORT_ERROR,
		       "%s: not everything could be brought to its place: %s; what was acknowledged is in the log and is tried again at "
		       "the next mount",
		       path, *fail_text() ? fail_text() : strerror(-err));
		code = exit_code_of(err);
	}
	control_leave(leaver, err);
	volume_free(o->volume);
	return code;
}
