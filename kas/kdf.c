/* SPDX-License-Identifier: Apache-2.0 */
#include "kdf.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "report.h"

struct job {
	struct part pass, salt;
	unsigned log_n, r, p;
};

struct answer { /* below PIPE_BUF, so it comes whole or not at all */
	int err;
	char why[256];
	uint8_t key[SECRET_LEN];
};

/* Nobody may look into the child or leave a core of it, and it does not outlive who asked. */
static void child_harden(pid_t parent)
{
	static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
	struct sigaction now;

	process_private();
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent) /* it went before that counted */
		_exit(1);
	/* a handler of the parent would only make a note here */
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		if (!sigaction(signals[i], NULL, &now) && now.sa_handler != SIG_IGN)
			signal(signals[i], SIG_DFL);
}

static void __attribute__((noreturn)) child_main(const struct job *j, pid_t parent, int fd)
{
	struct answer a = {0};
	ssize_t n;

	child_harden(parent);
	a.err = scrypt(j->pass, j->salt, j->log_n, j->r, j->p, a.key, sizeof(a.key));
	if (a.err)
		snprintf(a.why, sizeof(a.why), "%s", fail_text());
	do {
		n = write(fd, &a, sizeof(a));
	} while (n < 0 && errno == EINTR);
	wipe(&a, sizeof(a));
	_exit(n != sizeof(a));
}

static bool answer_read(int fd, struct answer *ret)
{
	size_t len = 0;

	while (len < sizeof(*ret)) {
		ssize_t n = read(fd, (char *)ret + len, sizeof(*ret) - len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		len += (size_t)n;
	}
	return true;
}

static int no_memory(const struct job *j, const char *what)
{
	return fail(
	    -ENOMEM,
	    "%s: with N = 2^%u scrypt needs %llu MiB; free some memory or raise the limit of this process (ulimit -v, MemoryMax=), "
	    "choose a smaller --scrypt-logn for a new passphrase, or open the volume with a recovery key or key file, which need none",
	    what, j->log_n, (unsigned long long)((128ull * j->r << j->log_n) >> 20));
}

/* It ended without an answer. */
static int child_failed(const struct job *j, int status)
{
	int sig = WIFSIGNALED(status) ? WTERMSIG(status) : 0;

	if (sig == SIGKILL)
		return no_memory(j, "deriving the key from the passphrase was killed, as happens when memory runs out");
	if (sig == SIGINT || sig == SIGTERM || sig == SIGHUP)
		return fail(-EINTR, "interrupted while the key was derived from the passphrase");
	if (sig)
		return fail(-EIO, "deriving the key from the passphrase was ended by signal %d; try again", sig);
	return fail(-EIO, "deriving the key from the passphrase ended without an answer; try again");
}

int kdf_scrypt(struct part pass, struct part salt, unsigned log_n, unsigned r, unsigned p, struct secret *ret)
{
	struct job j = {pass, salt, log_n, r, p};
	struct answer a = {0};
	int fds[2], status = 0, err = 0;
	pid_t parent = getpid(), pid;
	bool answered;

	if (pipe2(fds, O_CLOEXEC))
		return fail(-errno, "no pipe for deriving the key from the passphrase: %s", strerror(errno));
	pid = fork();
	if (!pid)
		child_main(&j, parent, fds[1]);
	if (pid < 0)
		err = fail(-errno, "no process for deriving the key from the passphrase: %s", strerror(errno));
	close(fds[1]);
	answered = !err && answer_read(fds[0], &a);
	close(fds[0]);
	if (err)
		return err;
	/* with SIGCHLD ignored there is no status, and the answer alone counts */
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (!answered)
		err = child_failed(&j, status);
	else if (a.err == -ENOMEM)
		err = no_memory(&j, "not enough memory for the settings of this passphrase");
	else if (a.err)
		err = fail(a.err, "%s", a.why);
	else
		memcpy(ret->b, a.key, SECRET_LEN);
	wipe(&a, sizeof(a));
	return err;
}
