/* SPDX-License-Identifier: Apache-2.0 */
/* kas/kdf.c: what the child gives back, what it leaves behind, and every way in which it can end without an answer. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#undef fail /* ours is another */

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>

#include "kdf.h"
#include "report.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

static const struct part pass = {"pleaseletmein", 13}, salt = {"SodiumChloride", 14};

static size_t count_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	size_t n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void test_same_as_scrypt(void **state)
{
	struct secret *got = secret_new();
	uint8_t want[SECRET_LEN];
	size_t fds = count_fds();

	assert_int_equal(scrypt(pass, salt, 14, 8, 1, want, sizeof(want)), 0);
	assert_int_equal(kdf_scrypt(pass, salt, 14, 8, 1, got), 0);
	assert_memory_equal(got->b, want, SECRET_LEN);
	/* RFC 7914, section 12 */
	assert_memory_equal(got->b, "\x70\x23\xbd\xcb\x3a\xfd\x73\x48\x46\x1c\x06\xcd\x81\xfd\x38\xeb", 16);
	assert_int_equal(count_fds(), fds);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* no zombie */
	assert_int_equal(errno, ECHILD);
	secret_free(got);
}

static void test_refusal_comes_back(void **state)
{
	static const uint8_t zero[SECRET_LEN];
	struct secret *got = secret_new();

	assert_int_equal(kdf_scrypt(pass, salt, 21, 8, 1, got), -EINVAL);
	assert_non_null(strstr(fail_text(), "N = 2^21"));
	assert_memory_equal(got->b, zero, SECRET_LEN);
	secret_free(got);
}

/* Run @f in a process of its own, where limits and handlers may be set; @f reports with its exit code. */
static void apart(int (*f)(void))
{
	int status;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid)
		_exit(f());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* 0: this error with this in its text, and nothing handed out */
static int expect(int err, const char *text, unsigned log_n)
{
	static const uint8_t zero[SECRET_LEN];
	struct secret *got = secret_new();
	int res = got ? kdf_scrypt(pass, salt, log_n, 8, 1, got) : 1;

	if (res == err && (!err || (strstr(fail_text(), text) && memcmp(got->b, zero, SECRET_LEN) == 0))) {
		secret_free(got);
		return 0;
	}
	fprintf(stderr, "got %d: %s\n", res, fail_text());
	return 1;
}

static int memory_apart(void)
{
	struct rusage self, child;

	if (expect(0, "", 17) || getrusage(RUSAGE_SELF, &self) || getrusage(RUSAGE_CHILDREN, &child))
		return 1;
	fprintf(stderr, "KiB: %ld here, %ld in the child\n", self.ru_maxrss, child.ru_maxrss);
	return !(child.ru_maxrss > 128 << 10 && self.ru_maxrss < 40 << 10);
}

static void test_memory_is_the_childs(void **state)
{
	if (SANITIZED)
		skip();
	apart(memory_apart);
}

static int limit_of_memory(void)
{
	struct rlimit r = {100 << 20, 100 << 20};

	return setrlimit(RLIMIT_AS, &r) ||
	       expect(-ENOMEM, "not enough memory for the settings of this passphrase: with N = 2^18 scrypt needs 256 MiB", 18);
}

static void test_limit_of_memory(void **state)
{
	if (SANITIZED)
		skip();
	apart(limit_of_memory);
}

/* The kernel kills at the hard limit of processor time, just as it does when memory runs out. */
static int killed(void)
{
	struct rlimit r = {1, 1};

	return setrlimit(RLIMIT_CPU, &r) || expect(-ENOMEM, "was killed, as happens when memory runs out", 20);
}

static int ended_by_signal(void)
{
	struct rlimit r = {1, 100};

	return setrlimit(RLIMIT_CPU, &r) || expect(-EIO, "ended by signal 24", 20);
}

static void test_killed(void **state)
{
	apart(killed);
	apart(ended_by_signal);
}

static void on_signal(int sig)
{
}

/* Signals that interrupt read() and waitpid() all the time */
static int interrupted(void)
{
	struct sigaction act = {.sa_handler = on_signal};
	struct itimerval often = {{0, 2000}, {0, 2000}};

	return sigaction(SIGALRM, &act, NULL) || setitimer(ITIMER_REAL, &often, NULL) || expect(0, "", 16);
}

/* ^C reaches both; whoever handles it in the parent learns of it by the child's end */
static int control_c(void)
{
	struct sigaction act = {.sa_handler = on_signal};
	struct timespec wait = {0, 300000000};
	pid_t pid;
	int res;

	if (setpgid(0, 0) || sigaction(SIGINT, &act, NULL))
		return 1;
	pid = fork();
	if (!pid) {
		signal(SIGINT, SIG_IGN);
		nanosleep(&wait, NULL);
		_exit(kill(0, SIGINT) != 0);
	}
	res = expect(-EINTR, "interrupted", 20);
	return waitpid(pid, NULL, 0) != pid || res;
}

/* nohup and the like: what is ignored here is ignored there */
static int control_c_ignored(void)
{
	struct timespec wait = {0, 100000000};
	pid_t pid;
	int res;

	if (setpgid(0, 0) || signal(SIGINT, SIG_IGN) == SIG_ERR)
		return 1;
	pid = fork();
	if (!pid) {
		nanosleep(&wait, NULL);
		_exit(kill(0, SIGINT) != 0);
	}
	res = expect(0, "", 17);
	return waitpid(pid, NULL, 0) != pid || res;
}

/* Nobody is left to tell how the child ended */
static int children_ignored(void)
{
	return signal(SIGCHLD, SIG_IGN) == SIG_ERR || expect(0, "", 15);
}

static void test_signals(void **state)
{
	apart(interrupted);
	apart(control_c);
	apart(control_c_ignored);
	apart(children_ignored);
}

static int no_process(void)
{
	struct rlimit none = {0, 0};

	/* root is not held back by the limit */
	if (setrlimit(RLIMIT_NPROC, &none) || (!getuid() && (setgid(65534) || setuid(65534))))
		return 1;
	return expect(-EAGAIN, "no process for deriving the key", 15);
}

static int no_pipe(void)
{
	struct rlimit none = {0, 0};

	return setrlimit(RLIMIT_NOFILE, &none) || expect(-EMFILE, "no pipe for deriving the key", 15);
}

static void test_no_start(void **state)
{
	apart(no_process);
	apart(no_pipe);
}

/* The child ends with whoever asked: started by a process that is killed, it would be ours (a subreaper's) to find. */
static void test_dies_with_parent(void **state)
{
	struct timespec wait = {0, 300000000};
	pid_t pid, orphan;
	int status;

	assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
	fflush(NULL);
	pid = fork();
	if (!pid)
		_exit(expect(0, "", 20));
	nanosleep(&wait, NULL);
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status)); /* it was still at work */
	orphan = waitpid(-1, &status, 0);
	assert_true(orphan > 0);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGKILL);
	assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 0), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_same_as_scrypt),
	    cmocka_unit_test(test_refusal_comes_back),
	    cmocka_unit_test(test_memory_is_the_childs),
	    cmocka_unit_test(test_limit_of_memory),
	    cmocka_unit_test(test_killed),
	    cmocka_unit_test(test_signals),
	    cmocka_unit_test(test_no_start),
	    cmocka_unit_test(test_dies_with_parent),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
