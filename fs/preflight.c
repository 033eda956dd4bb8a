/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <mntent.h>
#include <stdio.h>
#include <sys/stat.h>

#include "preflight.h"
#include "report.h"

/* The type of the file system mounted exactly at @path, "" if none: from the mount table, so that a dead mount is not touched */
static void mounted_type(const char *path, char *ret, size_t len)
{
	FILE *f = setmntent("/proc/self/mounts", "re");
	struct mntent *e;

	ret[0] = 0;
	if (!f)
		return;
	while ((e = getmntent(f)))
		if (!strcmp(e->mnt_dir, path))
			snprintf(ret, len, "%s", e->mnt_type); /* the last one is on top */
	endmntent(f);
}

static bool is_inside(const char *path, const char *dir)
{
	size_t n = strlen(dir);

	return !strncmp(path, dir, n) && (!path[n] || path[n] == '/' || n == 1);
}

static int check_mountpoint(const struct config *c)
{
	const char *mnt = c->mountpoint;
	char type[64];
	struct stat st;

	mounted_type(mnt, type, sizeof(type));
	if (stat(mnt, &st)) {
		if (errno == ENOTCONN)
			return fail(-EBUSY, "%s: a mount whose daemon is gone still lies here; remove it with: fusermount3 -u %s", mnt,
				    mnt);
		if (errno == ENOENT)
			return fail(-ENOENT, "%s: no such mount point; make it with: mkdir %s", mnt, mnt);
		return fail(-errno, "%s: the mount point cannot be used: %s", mnt, strerror(errno));
	}
	if (!strcmp(type, "fuse.tdfs"))
		return fail(-EBUSY, "%s: a tdfs store is mounted here already; see: tdfs status %s", mnt, mnt);
	if (!S_ISDIR(st.st_mode))
		return fail(-ENOTDIR, "%s: is not a directory; a mount point has to be one", mnt);
	if (geteuid() && st.st_uid != geteuid() && access(mnt, W_OK))
		return fail(-EACCES,
			    "%s: you may not write to the mount point, so FUSE does not let you mount there; take a directory of your own",
			    mnt);
	return 0;
}

/* What lies there would be hidden, and might be taken for what the mount shows. */
static int check_empty(const struct config *c)
{
	DIR *d = c->nonempty ? NULL : opendir(c->mountpoint);
	struct dirent *e;
	int err = 0;

	if (!d) /* whoever may mount there but not look: nothing to say */
		return 0;
	do
		e = readdir(d);
	while (e && (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")));
	if (e)
		err = fail(-ENOTEMPTY, "%s: is not empty, '%s' would be hidden; take an empty folder, or -o nonempty", c->mountpoint,
			   e->d_name);
	closedir(d);
	return err;
}

static int check_nesting(const struct config *c)
{
	char store[PATH_MAX], mnt[PATH_MAX];

	if (!realpath(c->store, store))
		return fail(-errno, "%s: the store cannot be opened: %s; make one with: tdfs init %s", c->store, strerror(errno), c->store);
	if (!realpath(c->mountpoint, mnt))
		return fail(-errno, "%s: the mount point cannot be used: %s", c->mountpoint, strerror(errno));
	if (is_inside(mnt, store))
		return fail(-ELOOP, "%s: the mount point lies inside the store %s; take a directory outside of it", mnt, store);
	if (is_inside(store, mnt))
		return fail(-ELOOP, "%s: the store lies inside the mount point %s, which would hide it; mount somewhere else", store, mnt);
	return 0;
}

static bool on_path(const char *prog)
{
	const char *path = getenv("PATH");
	char file[PATH_MAX];

	for (const char *p = path && *path ? path : "/usr/bin:/bin"; *p;) {
		size_t n = strcspn(p, ":");

		if (snprintf(file, sizeof(file), "%.*s/%s", (int)n, p, prog) < (int)sizeof(file) && !access(file, X_OK))
			return true;
		p += n + (p[n] == ':');
	}
	return false;
}

static int check_fuse(void)
{
	int fd;

	if (access("/dev/fuse", F_OK))
		return fail(-ENODEV, "/dev/fuse is missing; load it with: modprobe fuse (in a container: start it with --device /dev/fuse "
				     "--cap-add SYS_ADMIN)");
	if (geteuid()) {
		if (access("/dev/fuse", R_OK | W_OK))
			return fail(-ENODEV, "/dev/fuse: you may not open it; its usual mode is 0666: as root, chmod 666 /dev/fuse");
		if (!on_path("fusermount3"))
			return fail(-ENODEV, "fusermount3 is missing, without which only root can mount; install the package fuse3");
		return 0;
	}
	fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return fail(
		    -ENODEV,
		    "/dev/fuse: %s; load FUSE with: modprobe fuse (in a container: start it with --device /dev/fuse --cap-add SYS_ADMIN)",
		    strerror(errno));
	close(fd);
	return 0;
}

int preflight(const struct config *c)
{
	int err = config_check(c);

	if (!c->store || !c->mountpoint)
		return fail(-EINVAL, "a store and a mount point are needed: tdfs mount STORE MOUNTPOINT");
	if (c->store[0] != '/' || c->mountpoint[0] != '/')
		return fail(-EINVAL, "store and mount point must be absolute paths here");
	if (!err)
		err = check_mountpoint(c);
	if (!err)
		err = check_nesting(c);
	if (!err)
		err = check_empty(c);
	return err ? err : check_fuse();
}
