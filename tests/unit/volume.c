/* SPDX-License-Identifier: Apache-2.0 */
/* kas/volume*.c: creating, opening, owners and modes. */
#include "volume_setup.h"

static void test_created(void **state)
{
	struct volume *v = must_open(made, &key_file);
	char text[256];
	size_t n;
	struct secret *d;

	check_mode(made, S_IFDIR, 0700, -1);
	check_mode(in_dir(made, ".tdfs"), S_IFDIR, 0700, -1);
	check_mode(in_dir(made, ".tdfs/kas"), S_IFDIR, 0700, -1);
	check_mode(in_dir(made, ".tdfs/volume.json"), S_IFREG, 0600, -1);
	check_mode(in_dir(made, ".tdfs/volume.json.bak"), S_IFREG, 0600, -1);
	check_mode(in_dir(made, ".tdfs/log.0"), S_IFREG, 0600, REDO_HALF_MIN);
	check_mode(in_dir(made, ".tdfs/log.1"), S_IFREG, 0600, REDO_HALF_MIN);
	check_mode(in_dir(in_dir(made, ".tdfs/kas"), kas_key), S_IFREG, 0600, -1);
	assert_int_equal(access(in_dir(made, ".tdfs.new"), F_OK), -1);

	assert_string_equal(v->path, made);
	assert_int_equal(v->segment_size, SEG_DEFAULT);
	assert_int_equal(v->log_half, REDO_HALF_MIN);
	assert_string_equal(v->names, "plain");
	assert_string_equal(v->kas_url, "https://localhost:8443");
	assert_memory_equal(v->kas_kid, "tdfs-", 5);
	assert_int_equal(strlen(v->kas_kid), 21);
	assert_false(v->from_backup);
	assert_true(v->created > 1600000000);
	assert_int_equal(v->n_slots, 2);
	assert_int_equal(v->slots[0].kind, SLOT_KEYFILE);
	assert_int_equal(v->slots[1].kind, SLOT_RECOVERY);
	assert_int_equal(v->slots[1].id, 1);
	assert_int_equal(v->lock_fd, -1);
	assert_int_equal(base64_decode(v->policy, strlen(v->policy), false, text, sizeof(text) - 1, &n), 0);
	text[n] = '\0';
	assert_memory_equal(text, "{\"uuid\":\"", 9);
	assert_string_equal(text + 9 + 36, "\",\"body\":{\"dataAttributes\":[],\"dissem\":[]}}");
	assert_int_equal(text[9 + 14], '4');

	d = derive(v->vk, "seal");
	assert_memory_equal(d->b, v->k_seal->b, SECRET_LEN);
	secret_free(d);
	d = derive(v->vk, "log");
	assert_memory_equal(d->b, v->k_log->b, SECRET_LEN);
	secret_free(d);
	volume_free(v);
}

static void test_credentials(void **state)
{
	struct volume *a = must_open(made, &key_file), *b;
	struct credential rec = cred(SLOT_RECOVERY, recovery), typo, none = cred(SLOT_PASSPHRASE, "x");
	char bad[RECOVERY_TEXT];
	char *text = NULL;

	b = must_open(made, &rec);
	assert_memory_equal(a->vk->b, b->vk->b, SECRET_LEN);
	/* one opener's files are the other's */
	assert_int_equal(kas_wrap(a->kas, a->vk, a->policy, &text), 0);
	assert_non_null(strstr(text, a->kas_kid));
	assert_non_null(strstr(text, "\"ec-wrapped\""));
	free(text);
	volume_free(a);
	volume_free(b);

	assert_int_equal(can_open(made, &wrong_key), -EKEYREJECTED);
	assert_int_equal(can_open(made, &none), -EKEYREJECTED); /* no slot of that kind */
	strcpy(bad, recovery);
	bad[0] = bad[0] == '2' ? '3' : '2';
	typo = cred(SLOT_RECOVERY, bad);
	assert_int_equal(can_open(made, &typo), -EPROTO);
	assert_non_null(strstr(fail_text(), "group 1"));
}

static void test_peek(void **state)
{
	struct volume *v = NULL;

	assert_int_equal(volume_peek(made, &v), 0);
	assert_int_equal(v->n_slots, 2);
	assert_null(v->vk);
	assert_null(v->k_conf);
	assert_null(v->kas);
	volume_free(v);
}

static void test_create_refused(void **state)
{
	struct volume_params par = {.segment_size = SEG_MIN - 1};
	struct credential empty = cred(SLOT_PASSPHRASE, "");
	const char *full = in_dir(base, "full"), *link = in_dir(base, "link"), *absent = in_dir(base, "absent");

	assert_int_equal(create(made), -EEXIST);
	assert_int_equal(create(in_dir(made, "inner")), -ELOOP);
	assert_int_equal(create(in_dir(made, ".tdfs/inner")), -ELOOP);
	assert_int_equal(access(in_dir(made, "inner"), F_OK), -1);

	assert_int_equal(mkdir(full, 0700), 0);
	write_all(in_dir(full, "a"), "a", 1);
	assert_int_equal(create(full), -ENOTEMPTY);
	assert_int_equal(count_entries(full), 1);
	assert_int_equal(create(in_dir(full, "a")), -ENOTDIR);

	unlink(in_dir(full, "a"));
	assert_int_equal(symlink(full, link), 0);
	assert_int_equal(create(link), -ELOOP);
	assert_int_equal(create(in_dir(link, "")), -ELOOP); /* with a slash at the end */
	assert_int_equal(count_entries(full), 0);

	assert_int_equal(chmod(full, 0777), 0);
	assert_int_equal(create(full), -EPERM);
	assert_int_equal(count_entries(full), 0);

	assert_int_equal(create(in_dir(absent, "deep")), -ENOENT);
	assert_int_equal(volume_create(absent, &par, &key_file), -EINVAL);
	par.segment_size = SEG_MAX + 1;
	assert_int_equal(volume_create(absent, &par, &key_file), -EINVAL);
	par.segment_size = 0;
	par.log_half = REDO_HALF_MIN + 1;
	assert_int_equal(volume_create(absent, &par, &key_file), -EINVAL);
	par.log_half = REDO_HALF_MIN;
	assert_int_equal(volume_create(absent, &par, &empty), -EINVAL);
	assert_string_equal(par.recovery, "");
	assert_int_equal(access(absent, F_OK), -1); /* what was made for it is gone */
}

/* The disk says no half-way: nothing is left. */
static void test_create_cleans_up(void **state)
{
	const char *fresh = in_dir(base, "fresh"), *empty = in_dir(base, "empty");
	int status;
	pid_t pid;

	assert_int_equal(mkdir(empty, 0700), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		struct rlimit lim = {1 << 20, 1 << 20};

		signal(SIGXFSZ, SIG_IGN);
		if (setrlimit(RLIMIT_FSIZE, &lim))
			_exit(1);
		if (create(fresh) != -EFBIG || create(empty) != -EFBIG)
			_exit(2);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(access(fresh, F_OK), -1);
	assert_int_equal(count_entries(empty), 0);

	/* a crash left a half-made volume */
	assert_int_equal(mkdir(in_dir(empty, ".tdfs.new"), 0700), 0);
	assert_int_equal(mkdir(in_dir(empty, ".tdfs.new/kas"), 0700), 0);
	assert_int_equal(mkdir(in_dir(empty, "lost+found"), 0700), 0);
	write_all(in_dir(empty, ".tdfs.new/kas/x.key"), "x", 1);
	write_all(in_dir(empty, ".tdfs.new/log.0"), "x", 1);
	assert_int_equal(create(empty), 0);
	assert_int_equal(count_entries(empty), 2);
	assert_int_equal(can_open(empty, &key_file), 0);
}

static void test_owner_and_mode(void **state)
{
	static const struct {
		const char *name;
		mode_t bad, good;
	} v[] = {
	    {"", 0777, 0770},
	    {"/.tdfs", 0702, 0700},
	    {"/.tdfs", 0770, 0700},
	    {"/.tdfs/volume.json", 0602, 0600},
	    {"/.tdfs/volume.json.bak", 0660, 0600},
	    {"/.tdfs/kas", 0777, 0700},
	};
	char *store = copy_of("modes");
	struct volume *p = NULL;
	char path[PATH_MAX], json[PATH_MAX];

	for (size_t i = 0; i < ARRAY_SIZE(v); i++) {
		snprintf(path, sizeof(path), "%s%s", store, v[i].name);
		assert_int_equal(chmod(path, v[i].bad), 0);
		assert_int_equal(can_open(store, &key_file), -EPERM);
		assert_non_null(strstr(fail_text(), *v[i].name ? "chmod go-w" : "chmod o-w"));
		assert_int_equal(volume_peek(store, &p), -EPERM);
		assert_int_equal(chmod(path, v[i].good), 0);
		assert_int_equal(can_open(store, &key_file), 0);
		if (geteuid() == 0 && *v[i].name) {
			assert_int_equal(lchown(path, 12345, 12345), 0);
			assert_int_equal(can_open(store, &key_file), -EPERM);
			assert_int_equal(lchown(path, 0, 0), 0);
		}
	}
	assert_int_equal(chmod(store, 01777), 0); /* the store itself may be anybody's for root: so may the root directory of the mount */
	if (geteuid() == 0)
		assert_int_equal(chown(store, 12345, 12345), 0);
	assert_int_equal(can_open(store, &key_file), 0);

	snprintf(path, sizeof(path), "%s-link", store);
	assert_int_equal(symlink(store, path), 0);
	assert_int_equal(can_open(path, &key_file), -ELOOP);
	strcat(path, "/");
	assert_int_equal(can_open(path, &key_file), -ELOOP);

	/* a link in place of a file */
	strcpy(json, in_dir(store, ".tdfs/volume.json"));
	strcpy(path, in_dir(store, "elsewhere"));
	assert_int_equal(rename(json, path), 0);
	assert_int_equal(symlink(path, json), 0);
	assert_int_equal(can_open(store, &key_file), -EPERM);
	assert_int_equal(rename(path, json), 0);
	/* a link in place of .tdfs */
	strcpy(json, in_dir(store, ".tdfs"));
	assert_int_equal(rename(json, path), 0);
	assert_int_equal(symlink(path, json), 0);
	assert_int_equal(can_open(store, &key_file), -ENOENT);
	assert_int_equal(unlink(json), 0);
	write_all(json, "x", 1);
	assert_int_equal(can_open(store, &key_file), -ENOENT);
	assert_int_equal(unlink(json), 0);
	assert_int_equal(can_open(store, &key_file), -ENOENT);
	assert_int_equal(can_open(in_dir(base, "nowhere"), &key_file), -ENOENT);
	free(store);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_created),        cmocka_unit_test(test_credentials),      cmocka_unit_test(test_peek),
	    cmocka_unit_test(test_create_refused), cmocka_unit_test(test_create_cleans_up), cmocka_unit_test(test_owner_and_mode),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
