/* SPDX-License-Identifier: Apache-2.0 */
/* kas/volume*.c in use: key slots, the order of writes, the lock, finding, backups. */
#include <sys/file.h>
#include <time.h>

#include "volume_setup.h"

static void test_slots(void **state)
{
	char *store = copy_of("slots");
	struct volume *v = must_open(store, &key_file);
	struct credential pass = cred(SLOT_PASSPHRASE, "one"), pass2 = cred(SLOT_PASSPHRASE, "two"), rec = cred(SLOT_RECOVERY, recovery);
	struct credential empty = cred(SLOT_PASSPHRASE, "");
	uint8_t id = 99;

	assert_int_equal(volume_slot_add(v, &empty, "", QUICK, &id), -EINVAL);
	assert_int_equal(id, 99);
	assert_int_equal(volume_slot_add(v, &pass, "", QUICK, &id), 0);
	assert_int_equal(id, 2);
	assert_int_equal(v->n_slots, 3);
	assert_string_equal(v->slots[2].label, "passphrase");
	assert_int_equal(can_open(store, &pass), 0);
	assert_int_equal(can_open(store, &pass2), -EKEYREJECTED);
	assert_int_equal(can_open(store, &key_file), 0);

	assert_int_equal(volume_slot_change(v, 2, &pass2, QUICK), 0);
	assert_int_equal(can_open(store, &pass2), 0);
	assert_int_equal(can_open(store, &pass), -EKEYREJECTED); /* from neither copy */
	assert_string_equal(v->slots[2].label, "passphrase");
	assert_int_equal(volume_slot_change(v, 9, &pass2, QUICK), -ENOENT);

	assert_int_equal(volume_slot_remove(v, 9, false), -ENOENT);
	assert_int_equal(volume_slot_remove(v, 0, false), 0);
	assert_int_equal(can_open(store, &key_file), -EKEYREJECTED);
	assert_int_equal(volume_slot_remove(v, 2, false), -EBUSY); /* only the recovery key would be left */
	assert_int_equal(can_open(store, &pass2), 0);
	assert_int_equal(volume_slot_remove(v, 2, true), 0);
	assert_int_equal(can_open(store, &pass2), -EKEYREJECTED);
	assert_int_equal(can_open(store, &rec), 0);
	assert_int_equal(volume_slot_remove(v, 1, true), -EBUSY); /* the very last */
	assert_int_equal(can_open(store, &rec), 0);

	assert_int_equal(volume_slot_add(v, &key_file, "t\303\244st \"q\\", 0, &id), 0);
	assert_int_equal(id, 0); /* the lowest free number */
	volume_free(v);
	v = must_open(store, &key_file);
	assert_string_equal(v->slots[1].label, "t\303\244st \"q\\");
	assert_int_equal(volume_slot_add(v, &wrong_key, "\377", 0, &id), -EINVAL);
	assert_int_equal(v->n_slots, 2);
	while (v->n_slots < SLOT_MAX)
		assert_int_equal(volume_slot_add(v, &wrong_key, "more", 0, &id), 0);
	assert_int_equal(volume_slot_add(v, &wrong_key, "more", 0, &id), -ENOSPC);
	assert_int_equal(can_open(store, &key_file), 0);
	assert_int_equal(can_open(store, &wrong_key), 0); /* it is right now */
	volume_free(v);
	free(store);
}

/* Somebody else holds the lock and does not let go: no change, and no wait for ever. */
static void test_slots_held(void **state)
{
	char *store = copy_of("held"), *dir;
	struct volume *v = must_open(store, &key_file);
	struct timespec then, now;
	uint8_t id = 99;
	int fd;

	assert_true(asprintf(&dir, "%s/" TDFS_DIR, store) > 0);
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(fd >= 0 && flock(fd, LOCK_EX) == 0);
	(void)clock_gettime(CLOCK_MONOTONIC, &then);
	alarm(60);
	assert_int_equal(volume_slot_add(v, &wrong_key, "more", 0, &id), -EBUSY);
	alarm(0);
	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	assert_in_range(now.tv_sec - then.tv_sec, 5, 40);
	assert_int_equal(id, 99);
	close(fd);
	assert_int_equal(can_open(store, &wrong_key), -EKEYREJECTED);
	assert_int_equal(volume_slot_add(v, &wrong_key, "more", 0, &id), 0);
	assert_int_equal(can_open(store, &wrong_key), 0);
	volume_free(v);
	free(dir);
	free(store);
}

/* Two processes change slots; neither loses the other's. */
static void test_slots_together(void **state)
{
	char *store = copy_of("together");
	struct volume *a = must_open(store, &key_file), *b = must_open(store, &key_file);
	struct credential rec = cred(SLOT_RECOVERY, recovery);
	uint8_t ia, ib;

	assert_int_equal(volume_slot_add(a, &wrong_key, "a", 0, &ia), 0);
	assert_int_equal(volume_slot_remove(b, 0, false), 0);
	assert_int_equal(b->n_slots, 2);
	assert_int_equal(volume_slot_add(b, &key_file, "b", 0, &ib), 0);
	assert_int_not_equal(ia, ib);
	assert_int_equal(volume_slot_remove(a, ib, false), 0);
	assert_int_equal(can_open(store, &key_file), -EKEYREJECTED);
	assert_int_equal(can_open(store, &wrong_key), 0);
	assert_int_equal(can_open(store, &rec), 0);
	volume_free(a);
	volume_free(b);
	free(store);
}

/* A write that fails between the two copies, and one that fails before the first. */
static void test_write_order(void **state)
{
	char *store = copy_of("order");
	struct volume *v = must_open(store, &key_file);
	char json[PATH_MAX], bak[PATH_MAX];
	size_t n_old, n_json, n_bak;
	char *old, *now_json, *now_bak;
	uint8_t id;

	strcpy(json, in_dir(store, ".tdfs/volume.json"));
	strcpy(bak, in_dir(store, ".tdfs/volume.json.bak"));
	old = read_all(json, &n_old);

	/* a directory where io_replace() wants its temporary file */
	assert_int_equal(mkdir(in_dir(store, ".tdfs/volume.json.new"), 0700), 0);
	assert_true(volume_slot_add(v, &wrong_key, "x", 0, &id) < 0);
	assert_int_equal(v->n_slots, 2);
	now_json = read_all(json, &n_json);
	now_bak = read_all(bak, &n_bak);
	assert_int_equal(n_json, n_old);
	assert_memory_equal(now_json, old, n_old); /* the old state, whole */
	assert_true(n_bak > n_old);                /* .bak is written first: the new state, whole */
	assert_int_equal(can_open(store, &key_file), 0);
	assert_int_equal(can_open(store, &wrong_key), 0); /* by the copy that has it */
	free(now_json);
	free(now_bak);

	/* done again it comes to an end */
	assert_int_equal(rmdir(in_dir(store, ".tdfs/volume.json.new")), 0);
	assert_int_equal(volume_slot_add(v, &wrong_key, "x", 0, &id), 0);
	now_json = read_all(json, &n_json);
	now_bak = read_all(bak, &n_bak);
	assert_int_equal(n_json, n_bak);
	assert_memory_equal(now_json, now_bak, n_bak);
	free(now_bak);

	/* before the first */
	assert_int_equal(mkdir(in_dir(store, ".tdfs/volume.json.bak.new"), 0700), 0);
	assert_true(volume_slot_remove(v, id, false) < 0);
	assert_int_equal(v->n_slots, 3);
	now_bak = read_all(bak, &n_bak);
	assert_int_equal(n_json, n_bak);
	assert_memory_equal(now_json, now_bak, n_bak);
	assert_int_equal(rmdir(in_dir(store, ".tdfs/volume.json.bak.new")), 0);
	free(now_json);
	free(now_bak);

	/* changing a volume whose first copy is damaged makes both whole */
	volume_free(v);
	write_all(json, "x", 1);
	v = must_open(store, &key_file);
	assert_true(v->from_backup);
	assert_int_equal(volume_slot_remove(v, id, false), 0);
	assert_false(v->from_backup);
	volume_free(v);
	v = must_open(store, &key_file);
	assert_false(v->from_backup);
	assert_int_equal(v->n_slots, 2);

	/* with both damaged nothing is changed */
	write_all(json, "x", 1);
	write_all(bak, "x", 1);
	assert_int_equal(volume_slot_remove(v, 0, true), -EBADMSG);
	volume_free(v);
	free(old);
	free(store);
}

static void test_lock(void **state)
{
	char *store = copy_of("lock");
	struct volume *a = must_open(store, &key_file), *b = must_open(store, &key_file);
	struct timespec t0, t1;
	int status;
	pid_t pid = 0, child;

	assert_int_equal(volume_lock(a, 0, &pid), 0);
	assert_int_equal(volume_lock(a, 0, &pid), 0); /* again is nothing */
	assert_int_equal(volume_lock(b, 0, &pid), -EBUSY);
	assert_int_equal(pid, getpid());
	clock_gettime(CLOCK_MONOTONIC, &t0);
	assert_int_equal(volume_lock(b, 100, &pid), -EBUSY);
	clock_gettime(CLOCK_MONOTONIC, &t1);
	assert_true((t1.tv_sec - t0.tv_sec) * 1000 + (t1.tv_nsec - t0.tv_nsec) / 1000000 >= 90);
	assert_int_equal(b->lock_fd, -1);
	volume_free(a);
	assert_int_equal(volume_lock(b, 0, &pid), 0);
	volume_free(b);

	/* one that dies lets go; one that leaves late is waited for */
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		struct timespec ms = {0, 150 * 1000000};

		a = must_open(store, &key_file);
		if (volume_lock(a, 0, &pid))
			_exit(1);
		nanosleep(&ms, NULL);
		_exit(0);
	}
	b = must_open(store, &key_file);
	for (int i = 0; i < 100; i++) { /* until the child has it */
		struct timespec ms = {0, 1000000};
		struct volume *c = must_open(store, &key_file);
		int err = volume_lock(c, 0, &pid);

		volume_free(c);
		if (err == -EBUSY)
			break;
		nanosleep(&ms, NULL);
	}
	assert_int_equal(volume_lock(b, 5000, &pid), 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	volume_free(b);
	free(store);
}

static void test_find(void **state)
{
	char *store = copy_of("find");
	char deep[PATH_MAX], file[PATH_MAX], *found = NULL;

	strcpy(deep, in_dir(store, "a"));
	assert_int_equal(mkdir(deep, 0700), 0);
	strcpy(file, in_dir(deep, "f"));
	write_all(file, "", 0);
	write_all(in_dir(deep, TDFS_DIR), "", 0); /* a file of that name is no volume */
	assert_int_equal(volume_find(deep, &found), 0);
	assert_string_equal(found, store);
	free(found);
	assert_int_equal(volume_find(file, &found), 0);
	assert_string_equal(found, store);
	free(found);
	assert_int_equal(volume_find(store, &found), 0);
	assert_string_equal(found, store);
	free(found);
	found = NULL;
	assert_int_equal(volume_find(base, &found), -ENOENT);
	assert_int_equal(volume_find("/", &found), -ENOENT);
	assert_int_equal(volume_find(in_dir(base, "nowhere"), &found), -ENOENT);
	assert_null(found);
	free(store);
}

static void test_backup(void **state)
{
	char *store = copy_of("backup");
	const char *other = in_dir(base, "other"), *bare = in_dir(base, "bare");
	char file[PATH_MAX], bare_path[PATH_MAX], other_path[PATH_MAX], json[PATH_MAX];
	struct credential rec = cred(SLOT_RECOVERY, recovery);
	struct volume *v = must_open(store, &key_file);
	size_t len, n;
	char *text, *now;
	pid_t pid;

	strcpy(other_path, other);
	strcpy(bare_path, bare);
	strcpy(file, in_dir(base, "backup.json"));
	strcpy(json, in_dir(store, ".tdfs/volume.json"));
	assert_int_equal(volume_backup(v, in_dir(store, "b")), -EINVAL);
	assert_int_equal(volume_backup(v, in_dir(store, ".tdfs/b")), -EINVAL);
	assert_int_equal(volume_backup(v, file), 0);
	assert_int_equal(volume_backup(v, file), 0); /* a new one replaces it */
	check_mode(file, S_IFREG, 0600, -1);

	/* damaged beyond .bak */
	write_all(json, "x", 1);
	write_all(in_dir(store, ".tdfs/volume.json.bak"), "", 0);
	unlink(in_dir(in_dir(store, ".tdfs/kas"), kas_key));
	assert_int_equal(can_open(store, &key_file), -EBADMSG);
	assert_int_equal(volume_restore(store, file, &wrong_key, false), -EKEYREJECTED);
	now = read_all(json, &n);
	assert_string_equal(now, "x"); /* untouched */
	free(now);

	/* not while it is mounted */
	assert_int_equal(volume_lock(v, 0, &pid), 0);
	assert_int_equal(volume_restore(store, file, &key_file, false), -EBUSY);
	volume_free(v);
	assert_int_equal(volume_restore(store, file, &rec, false), 0);
	assert_int_equal(can_open(store, &key_file), 0);

	/* .tdfs lost altogether */
	assert_int_equal(mkdir(bare_path, 0700), 0);
	assert_int_equal(volume_restore(bare_path, file, &key_file, false), 0);
	assert_int_equal(can_open(bare_path, &key_file), 0);
	check_mode(in_dir(bare_path, ".tdfs"), S_IFDIR, 0700, -1);
	check_mode(in_dir(bare_path, ".tdfs/log.1"), S_IFREG, 0600, REDO_HALF_MIN);

	/* another volume's keys are not overwritten */
	assert_int_equal(create(other_path), 0);
	assert_int_equal(volume_restore(other_path, file, &key_file, false), -EEXIST);
	assert_int_equal(volume_restore(other_path, file, &key_file, true), 0);
	assert_int_equal(can_open(other_path, &rec), 0);

	/* bad backups */
	text = read_all(file, &len);
	for (size_t i = 0; i < len; i += 7) {
		write_all(file, text, i);
		assert_int_equal(volume_restore(store, file, &key_file, false), -EPROTO);
		text[i] ^= 1;
		write_all(file, text, len);
		n = 0;
		if (volume_restore(store, file, &key_file, false) == 0)
			assert_int_equal(can_open(store, &key_file), 0); /* white space or a name that nobody reads */
		text[i] ^= 1;
	}
	assert_int_equal(can_open(store, &key_file), 0); /* whatever was tried */
	assert_int_equal(volume_restore(store, in_dir(base, "nowhere"), &key_file, false), -ENOENT);
	write_all(file, "{\"tdfs_backup\":2}", 17);
	assert_int_equal(volume_restore(store, file, &key_file, false), -ENOTSUP);
	free(text);
	free(store);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_slots), cmocka_unit_test(test_slots_held), cmocka_unit_test(test_slots_together), cmocka_unit_test(test_write_order),
	    cmocka_unit_test(test_lock),  cmocka_unit_test(test_find),           cmocka_unit_test(test_backup),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
