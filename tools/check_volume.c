/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "check.h"
#include "say.h"

#define VOLUME_FILE_MAX ((size_t)1 << 20)

static int copy_read(const struct check *c, const char *name, char **ret, size_t *ret_len)
{
	struct io io = io_posix(c->target.vol->dir_fd);

	return io_read_file(&io, c->target.vol->dir_fd, name, VOLUME_FILE_MAX, ret, ret_len);
}

/* The volume was opened with one of them, so one is right; they differ after a crash in between, or because one is damaged. */
static void copies_look(struct check *c)
{
	CLEANUP_FREE char *a = NULL;
	CLEANUP_FREE char *b = NULL;
	size_t a_len = 0, b_len = 0;
	int err_a = copy_read(c, "volume.json", &a, &a_len), err_b = copy_read(c, "volume.json.bak", &b, &b_len);

	if (c->target.vol->from_backup || err_a) {
		check_tell(c, CHECK_DAMAGE, TDFS_DIR "/volume.json", "%s; the second copy is used. Any `tdfs key` change writes both anew",
			   err_a ? strerror(-err_a) : "damaged");
		c->volume_damaged = true;
	} else if (err_b || a_len != b_len || memcmp(a, b, a_len) != 0) {
		check_tell(c, CHECK_DAMAGE, TDFS_DIR "/volume.json.bak", "%s. Any `tdfs key` change writes both anew",
			   err_b ? strerror(-err_b) : "is not the same as volume.json");
		c->volume_damaged = true;
	}
}

static void slots_look(struct check *c)
{
	const struct volume *v = c->target.vol;
	size_t n_recovery = 0, n_kas = 0;

	for (size_t i = 0; i < v->n_slots; i++) {
		n_recovery += v->slots[i].kind == SLOT_RECOVERY;
		n_kas += v->slots[i].kind == SLOT_KAS;
	}
	if (!n_recovery)
		check_tell(c, CHECK_NOTE, TDFS_DIR, "there is no recovery key; `tdfs key recovery` makes one");
	if (v->n_slots == n_kas)
		check_tell(c, CHECK_NOTE, TDFS_DIR,
			   "only KASes open it: whoever loses the KAS loses the data; `tdfs key add` adds a passphrase");
	else if (v->n_slots == n_recovery + n_kas)
		check_tell(c, CHECK_NOTE, TDFS_DIR, "there is no passphrase or key file, only recovery keys%s; `tdfs key add` adds one",
			   n_kas ? " and KASes" : "");
}

static bool is_known(const char *name)
{
	static const char *const known[] = {"volume.json", "volume.json.bak", "kas", "log.0", "log.1", "lock", "control", "convert"};

	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (strcmp(name, known[i]) == 0)
			return true;
	return false;
}

static void entry_look(struct check *c, int dir_fd, const char *name, uid_t owner)
{
	char path[300];
	struct stat st;

	snprintf(path, sizeof(path), TDFS_DIR "/%s", name);
	if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW))
		return;
	if (strncmp(name, "whole-", 6) == 0 && strstr(name, ".tdf")) {
		check_tell(c, CHECK_NOTE, path,
			   "kept by `tdfs recover --salvage`: perhaps the content of a file that is damaged; else it can be deleted");
	} else if (strncmp(name, "tail-", 5) == 0 || strncmp(name, "whole-", 6) == 0) {
		if (!c->in_use && !c->log_pending)
			check_tell(c, CHECK_NOTE, path, "side file of a seal that is done; it can be deleted");
	} else if (strcmp(name, "log.0.damaged") == 0 || strcmp(name, "log.1.damaged") == 0) {
		check_tell(c, CHECK_NOTE, path, "put aside by `tdfs recover --salvage`; it can be deleted");
	} else if (!is_known(name)) {
		check_tell(c, CHECK_NOTE, path, "%s",
			   strstr(name, "tmp") || strstr(name, "new") ? "left over by a command that was killed; delete it"
								      : "nothing tdfs knows");
	}
	if (S_ISLNK(st.st_mode))
		check_tell(c, CHECK_PROBLEM, path, "a symbolic link: it is not followed");
	else if (st.st_mode & (S_IRWXG | S_IRWXO))
		check_tell(c, CHECK_PROBLEM, path, "others have access to it (mode %04o): `chmod go= %s/%s`", st.st_mode & 07777,
			   c->target.vol->path, path);
	if (st.st_uid != owner)
		check_tell(c, CHECK_PROBLEM, path, "belongs to user %u, the store to user %u", st.st_uid, owner);
}

void check_volume(struct check *c)
{
	const struct volume *v = c->target.vol;
	int fd = openat(v->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *d;
	struct stat st;

	copies_look(c);
	slots_look(c);
	if (!dir || fstat(fd, &st)) {
		check_tell(c, CHECK_DAMAGE, TDFS_DIR, "%s", strerror(errno));
		c->volume_damaged = true;
		if (fd >= 0 && !dir)
			close(fd);
	} else {
		while ((d = readdir(dir)) != NULL)
			if (strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0)
				entry_look(c, fd, d->d_name, st.st_uid);
	}
	if (dir)
		closedir(dir);
	if (fstat(v->store_fd, &st) == 0 && st.st_mode & (S_IWGRP | S_IWOTH))
		check_tell(c, CHECK_NOTE, v->path,
			   "others can write into the store's first directory (mode %04o), as into that of the mount", st.st_mode & 07777);
}
