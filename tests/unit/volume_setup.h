/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of kas/volume*.c share.  One volume is made; tests work on copies of its .tdfs (without the log), opened with a key file,
 * which costs no KDF.
 */
#ifndef TDFS_TEST_VOLUME_SETUP_H
#define TDFS_TEST_VOLUME_SETUP_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#undef fail /* ours is another */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "encode.h"
#include "redo.h"
#include "report.h"
#include "temp_dir.h"
#include "volume.h"

#define QUICK SCRYPT_LOGN_MIN

static char base[PATH_MAX]; /* everything of this run is in here */
static char made[PATH_MAX]; /* the volume that was made */
static char recovery[RECOVERY_TEXT];
static uint8_t key_bytes[] = "0123456789abcdef0123456789abcdef", wrong_bytes[] = "0123456789abcdef0123456789abcdeF";
static const struct credential key_file = {SLOT_KEYFILE, key_bytes, 32}, wrong_key = {SLOT_KEYFILE, wrong_bytes, 32};

static inline struct credential cred(enum slot_kind kind, const char *text)
{
	return (struct credential){.kind = kind, .bytes = (uint8_t *)text, .len = strlen(text)};
}

/* Valid for the next 64 calls. */
static inline const char *in_dir(const char *dir, const char *name)
{
	static char *ring[64];
	static unsigned at;
	char *path;

	assert_true(asprintf(&path, "%s/%s", dir, name) > 0);
	free(ring[at % 64]);
	return ring[at++ % 64] = path;
}

static inline char *read_all(const char *path, size_t *len)
{
	struct io io = io_posix(AT_FDCWD);
	char *text = NULL;

	assert_int_equal(io_read_file(&io, AT_FDCWD, path, 1 << 20, &text, len), 0);
	return text;
}

static inline void write_all(const char *path, const void *p, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	/* not O_TRUNC: ext4 would sync at close, thousands of times */
	assert_int_equal(write(fd, p, len), (ssize_t)len);
	assert_int_equal(ftruncate(fd, (off_t)len), 0);
	close(fd);
}

static inline void copy_file(const char *from, const char *to)
{
	size_t len;
	char *text = read_all(from, &len);

	write_all(to, text, len);
	free(text);
}

static char kas_key[NAME_MAX + 1]; /* name in kas/ */

/* A store of its own with the same volume in it. */
static inline char *copy_of(const char *name)
{
	const char *store = in_dir(base, name), *tdfs = in_dir(store, TDFS_DIR);
	char *path = strdup(store);

	assert_int_equal(mkdir(store, 0700), 0);
	assert_int_equal(mkdir(tdfs, 0700), 0);
	assert_int_equal(mkdir(in_dir(tdfs, "kas"), 0700), 0);
	copy_file(in_dir(made, ".tdfs/volume.json"), in_dir(tdfs, "volume.json"));
	copy_file(in_dir(made, ".tdfs/volume.json.bak"), in_dir(tdfs, "volume.json.bak"));
	copy_file(in_dir(in_dir(made, ".tdfs/kas"), kas_key), in_dir(in_dir(tdfs, "kas"), kas_key));
	if (!path)
		abort();
	return path;
}

static inline int open_with(const char *store, const struct credential *c, struct volume **ret)
{
	int err;

	fail_clear();
	*ret = NULL;
	err = volume_open(store, c, ret);
	assert_int_equal(!!*ret, !err);
	if (err)
		assert_string_not_equal(fail_text(), "");
	return err;
}

static inline int can_open(const char *store, const struct credential *c)
{
	struct volume *v;
	int err = open_with(store, c, &v);

	volume_free(v);
	return err;
}

static inline struct volume *must_open(const char *store, const struct credential *c)
{
	struct volume *v;

	if (open_with(store, c, &v))
		print_message("%s\n", fail_text());
	assert_non_null(v);
	return v;
}

static inline void check_mode(const char *path, mode_t type, mode_t mode, off_t size)
{
	struct stat st;

	assert_int_equal(lstat(path, &st), 0);
	assert_int_equal(st.st_mode & S_IFMT, type);
	assert_int_equal(st.st_mode & 07777, mode);
	if (size >= 0)
		assert_int_equal(st.st_size, size);
}

static inline int create(const char *store)
{
	struct volume_params par = {.log_half = REDO_HALF_MIN, .no_recovery = true};
	int err;

	fail_clear();
	err = volume_create(store, &par, &key_file);
	if (err)
		assert_string_not_equal(fail_text(), "");
	return err;
}

static inline int count_entries(const char *dir)
{
	DIR *d = opendir(dir);
	int n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n - 2;
}

static inline int setup(void **state)
{
	struct volume_params par = {.log_half = REDO_HALF_MIN};
	char temp[PATH_MAX];
	struct volume *v;

	if (!temp_dir_make(temp) || !realpath(temp, base))
		return -1;
	umask(0); /* modes must not depend on it */
	strcpy(made, in_dir(base, "made"));
	if (volume_create(made, &par, &key_file)) {
		print_message("%s\n", fail_text());
		return -1;
	}
	strcpy(recovery, par.recovery);
	v = must_open(made, &key_file);
	snprintf(kas_key, sizeof(kas_key), "%.60s.key", v->kas_kid);
	volume_free(v);
	return 0;
}

static inline int teardown(void **state)
{
	return temp_dir_remove(base) ? 0 : -1;
}

#endif
