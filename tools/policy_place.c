/* SPDX-License-Identifier: Apache-2.0 */
#include "policy_place.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>

#include "encode.h"
#include "mounts.h"
#include "say.h"
#include "target.h"
#include "tree.h"

void policy_place_free(struct policy_place *p)
{
	free(p->store);
	free(p->path);
	*p = (struct policy_place){0};
}

/* @full is no part of a store: perhaps of what a store shows */
static int complain_place(const char *arg, const char *full)
{
	struct mount_place *m = NULL;
	size_t n = 0, len;
	int code = EXIT_TDFS_FAILED;

	if (mounts_list(&m, &n))
		n = 0;
	for (size_t i = 0; i < n && code == EXIT_TDFS_FAILED; i++) {
		len = strlen(m[i].mountpoint);
		if (strncmp(full, m[i].mountpoint, len) || (full[len] && full[len] != '/'))
			continue;
		report(REPORT_ERROR, "%s: is in a mount, which keeps the files' keys; first: tdfs umount %s; then give its path in %s", arg,
		       m[i].mountpoint, m[i].store);
		code = EXIT_TDFS_BUSY;
	}
	mounts_free(m, n);
	if (code == EXIT_TDFS_FAILED)
		complain_file(-ENOENT, arg, "lies in no store; give a store, or a directory or file in one");
	return code;
}

int policy_place_find(const char *arg, struct policy_place *ret)
{
	CLEANUP_FREE char *sealed = NULL;
	CLEANUP_FREE char *store = NULL;
	char full[PATH_MAX];
	struct stat st;
	size_t len;

	fail_clear();
	if (!realpath(arg, full) && (errno != ENOENT || asprintf(&sealed, "%s.tdf", arg) < 0 || !realpath(sealed, full)))
		return complain_file(-errno, arg, NULL);
	if (stat(full, &st))
		return complain_file(-errno, arg, NULL);
	if (volume_find(full, &store))
		return complain_place(arg, full);
	len = strlen(store);
	if (S_ISREG(st.st_mode) ? !name_is_tdf(full) : !S_ISDIR(st.st_mode)) {
		report(REPORT_ERROR, "%s: is no sealed file (NAME.tdf) and no directory", arg);
		return EXIT_TDFS_USAGE;
	}
	*ret = (struct policy_place){.path = strdup(full[len] ? full + len + 1 : ""), .file = S_ISREG(st.st_mode)};
	if (!ret->path)
		return complain(-ENOMEM, arg, NULL);
	ret->store = STEAL(store);
	return EXIT_TDFS_OK;
}

int policy_place_alone(const struct volume *v, const struct policy_place *at)
{
	struct stat st, other;

	if (!at->file || fstatat(v->store_fd, at->path, &st, AT_SYMLINK_NOFOLLOW) || st.st_nlink < 2)
		return EXIT_TDFS_OK;
	for (size_t i = 0; i < v->n_policies; i++) {
		const char *path = v->policies[i].dir;

		if (strcmp(path, at->path) >= 0 || fstatat(v->store_fd, path, &other, AT_SYMLINK_NOFOLLOW) || other.st_ino != st.st_ino ||
		    other.st_dev != st.st_dev)
			continue;
		report(REPORT_ERROR,
		       "%s: %s is another name of this file, and its own policy counts: set it there, or first `tdfs policy set %s/%s "
		       "--inherit`",
		       at->path, path, at->store, path);
		return EXIT_TDFS_FAILED;
	}
	return EXIT_TDFS_OK;
}

json_t *policy_parse(const char *b64)
{
	size_t len = strlen(b64), got = 0;
	CLEANUP_FREE char *text = malloc(len + 1);

	if (!text || base64_decode(b64, len, true, text, len + 1, &got))
		return NULL;
	return json_loadb(text, got, JSON_REJECT_DUPLICATES, NULL);
}

bool policy_says_same(const struct volume *v, const char *path, const char *text)
{
	const char *own = volume_policy_own(v, path);
	json_t *was = own ? policy_parse(own) : NULL, *is = json_loads(text, 0, NULL);
	bool same = false;

	if (json_is_object(was) && json_is_object(is)) {
		json_object_del(was, "uuid");
		json_object_del(is, "uuid");
		same = json_equal(was, is);
	}
	json_decref(was);
	json_decref(is);
	return same;
}
