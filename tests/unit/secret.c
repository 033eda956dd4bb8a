/* SPDX-License-Identifier: Apache-2.0 */
/* random.c, secret.c, report.c: what they promise. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#undef fail /* ours is another */

#include <errno.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <sys/wait.h>

#include "aead.h"
#include "random.h"
#include "report.h"

static void test_random_after_fork(void **state)
{
	enum { N = 64 };
	uint8_t mine[2][N][16], theirs[2][N][16];
	int fds[2], status;
	pid_t pid;

	for (int i = 0; i < N; i++) { /* both generators are in use before */
		assert_int_equal(random_bytes(mine[0][i], 16), 0);
		assert_int_equal(random_private(mine[1][i], 16), 0);
	}
	assert_int_equal(pipe(fds), 0);
	pid = fork();
	assert_true(pid >= 0);
	for (int i = 0; i < N; i++)
		if (random_bytes(mine[0][i], 16) || random_private(mine[1][i], 16))
			_exit(1);
	if (pid == 0)
		_exit(write(fds[1], mine, sizeof(mine)) == (ssize_t)sizeof(mine) ? 0 : 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(read(fds[0], theirs, sizeof(theirs)), (ssize_t)sizeof(theirs));
	close(fds[0]);
	close(fds[1]);
	for (int i = 0; i < N; i++)
		for (int j = 0; j < N; j++) {
			assert_memory_not_equal(mine[0][i], theirs[0][j], 16);
			assert_memory_not_equal(mine[1][i], theirs[1][j], 16);
		}
}

/* What the test runs itself as: a process whose generator has no entropy. */
static int without_entropy(void)
{
	uint8_t buf[64], same[64], seg[16 + AEAD_OVERHEAD] = {0}, none[16 + AEAD_OVERHEAD] = {0};
	struct secret *key = secret_new();

	memset(buf, 'x', sizeof(buf));
	memset(same, 'x', sizeof(same));
	if (!key || RAND_set_DRBG_type(NULL, "TEST-RAND", NULL, NULL, NULL) != 1)
		return 1;
	if (random_bytes(buf, sizeof(buf)) != -EIO || random_private(buf, sizeof(buf)) != -EIO || secret_random())
		return 2;
	if (aead_seal(key, buf, 16, seg) != -EIO || memcmp(seg, none, sizeof(seg)) || memcmp(buf, same, sizeof(buf)))
		return 3;
	secret_free(key);
	return strstr(fail_text(), "random generator") ? 42 : 4;
}

static void test_fails_closed(void **state)
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		execl("/proc/self/exe", "unit-aead", "without-entropy", (char *)NULL);
		_exit(127);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 42);
}

static void test_random_long(void **state)
{
	enum { LEN = 200000 }; /* more than one request of the generator */
	uint8_t *p = calloc(1, LEN), count[256] = {0};

	assert_non_null(p);
	assert_int_equal(random_bytes(p, LEN), 0);
	for (size_t i = 0; i + 256 <= LEN; i += 256)
		assert_false(p[i] == 0 && memcmp(p + i, p + i + 1, 255) == 0);
	for (size_t i = 0; i < LEN; i++)
		count[p[i]] = 1;
	for (size_t i = 0; i < 256; i++)
		assert_int_equal(count[i], 1);
	free(p);
}

static void test_secrets(void **state)
{
	enum { N = 5000 }; /* several chunks */
	static struct secret *s[N];
	uint8_t zero[SECRET_LEN] = {0};
	struct secret *c;

	for (int i = 0; i < N; i++) {
		s[i] = secret_new();
		assert_non_null(s[i]);
		assert_memory_equal(s[i]->b, zero, SECRET_LEN);
		memset(s[i]->b, i & 0xff, SECRET_LEN);
	}
	for (int i = 0; i < N; i++)
		for (int b = 0; b < SECRET_LEN; b++)
			assert_int_equal(s[i]->b[b], i & 0xff);
	c = secret_copy(s[7]);
	assert_non_null(c);
	assert_ptr_not_equal(c, s[7]);
	assert_true(equal_ct(c, s[7], SECRET_LEN));
	assert_false(equal_ct(c, s[8], SECRET_LEN));
	secret_free(c);
	for (int i = 0; i < N; i++)
		secret_free(s[i]);
	for (int i = 0; i < N; i++) { /* what was freed comes back clean */
		s[i] = secret_new();
		assert_non_null(s[i]);
		assert_memory_equal(s[i]->b, zero, SECRET_LEN);
	}
	for (int i = 0; i < N; i++)
		secret_free(s[i]);
	secret_free(NULL);
}

static void test_secret_freed_twice(void **state)
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		struct secret *s = secret_random();

		close(STDERR_FILENO);
		secret_free(s);
		secret_free(s);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static char sunk[9000];

static void sink(enum report_level level, const char *line)
{
	snprintf(sunk, sizeof(sunk), "%d:%s", level, line);
}

static void test_report(void **state)
{
	char big[1000];

	assert_int_equal(fail(-EIO, "cause %d", 1), -EIO);
	assert_string_equal(fail_text(), "cause 1");
	assert_int_equal(fail(-EPROTO, "outer: %s", fail_text()), -EPROTO);
	assert_string_equal(fail_text(), "outer: cause 1");
	errno = ENOSPC;
	memset(big, 'a', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	(void)fail(-EIO, "%s", big);
	assert_int_equal(errno, ENOSPC);
	assert_int_equal(strlen(fail_text()), 511);
	fail_clear();
	assert_string_equal(fail_text(), "");

	report_to(sink);
	report(REPORT_ERROR, "%s", "a\033[2J\nb\302\233c \303\244\n");
	assert_string_equal(sunk, "0:a?[2J?b??c \303\244");
	sunk[0] = '\0';
	report(REPORT_DEBUG, "not shown");
	assert_string_equal(sunk, "");
	report_limit(REPORT_DEBUG);
	report(REPORT_DEBUG, "shown");
	assert_string_equal(sunk, "3:shown");
	report_limit(REPORT_NOTE);
	report_to(NULL);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_random_after_fork),  cmocka_unit_test(test_random_long), cmocka_unit_test(test_secrets),
	    cmocka_unit_test(test_secret_freed_twice), cmocka_unit_test(test_report),      cmocka_unit_test(test_fails_closed),
	};

	if (argc > 1)
		return without_entropy();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
