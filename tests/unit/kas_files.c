/* SPDX-License-Identifier: Apache-2.0 */
/* kas.c and local.c: keys in files, and files of other clients. */
#include "kas_setup.h"

#include <dirent.h>
#include <fcntl.h>

#include "temp_dir.h"
#include "zip.h"

static void write_file(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

static void test_key_files(void **state)
{
	char dir[PATH_MAX], path[PATH_MAX + 16];
	static const struct {
		const char *name, *text;
		int err;
	} bad[] = {
	    {"empty", "", -EPROTO},
	    {"text", "hello", -EPROTO},
	    {"object", "{}", -EPROTO},
	    {"no key", "[{\"kid\":\"a\"}]", -EPROTO},
	    {"number", "[1]", -EPROTO},
	    {"bad key", "[{\"kid\":\"a\",\"privateKey\":\"x\"}]", -EPROTO},
	    {"no keys", "[]", -ENOTSUP},
	    {"public", rsa_public, -EPROTO},
	    {"Ed25519", ed25519_private, -ENOTSUP},
	};
	struct kas *k = kas_with("k1", NULL, ec_vectors[0].pkcs8), *from_file;
	struct secret *dek = secret_random();
	char *text;

	assert_true(temp_dir_make(dir));
	snprintf(path, sizeof(path), "%s/key", dir);
	assert_int_equal(kas_wrap(k, dek, POLICY, &text), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		from_file = kas_new();
		print_message("%s\n", bad[i].name);
		write_file(path, bad[i].text);
		fail_clear();
		assert_int_equal(kas_add_key_file(from_file, path), bad[i].err);
		assert_non_null(strstr(fail_text(), path)); /* names the file */
		assert_int_equal(try_unwrap(from_file, text, POLICY, NULL), -ENOKEY);
		kas_free(from_file);
	}
	from_file = kas_new();
	write_file(path, ec_vectors[0].traditional);
	assert_int_equal(kas_add_key_file(from_file, path), 0);
	assert_int_equal(try_unwrap(from_file, text, POLICY, dek), 0);
	kas_free(from_file);
	from_file = kas_new();
	unlink(path);
	assert_int_equal(kas_add_key_file(from_file, path), -ENOENT);
	assert_int_equal(kas_add_key_file(from_file, dir), -EISDIR);
	kas_free(from_file);
	assert_true(temp_dir_remove(dir));
	free(text);
	secret_free(dek);
	kas_free(k);
}

/* Files that other clients wrote. */
static void test_golden(void **state)
{
	const char *dir = getenv("TDFS_GOLDEN");
	char path[4096];
	struct kas *k = kas_new();
	struct dirent *e;
	size_t n = 0;
	DIR *d = dir && *dir ? opendir(dir) : NULL;

	snprintf(path, sizeof(path), "%s/extra-keys.json", dir ? dir : "");
	if (!d || access(path, R_OK)) {
		print_message("no golden files: set TDFS_GOLDEN\n");
		if (d)
			closedir(d);
		kas_free(k);
		skip();
	}
	assert_int_equal(kas_add_key_file(k, path), 0);
	while ((e = readdir(d))) {
		struct manifest *m = NULL;
		struct secret *dek = NULL;
		struct stat st;
		struct zip z;
		struct io io;
		char *text;
		size_t len;
		int fd;

		if (strlen(e->d_name) < 4 || strcmp(e->d_name + strlen(e->d_name) - 4, ".tdf"))
			continue;
		print_message("%s\n", e->d_name);
		fd = openat(dirfd(d), e->d_name, O_RDONLY);
		assert_true(fd >= 0);
		assert_int_equal(fstat(fd, &st), 0);
		io = io_posix(fd);
		assert_int_equal(zip_find(&io, fd, (uint64_t)st.st_size, &z), 0);
		assert_int_equal(zip_manifest(&io, fd, &z, &text, &len), 0);
		assert_int_equal(manifest_parse(text, len, false, &m), 0);
		assert_int_equal(kas_unwrap(k, m, &dek), 0);
		assert_int_equal(manifest_root(m, dek), 0); /* it is the right key */
		secret_free(dek);
		manifest_free(m);
		free(text);
		close(fd);
		n++;
	}
	closedir(d);
	assert_true(n >= 4);
	kas_free(k);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_key_files),
	    cmocka_unit_test(test_golden),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
