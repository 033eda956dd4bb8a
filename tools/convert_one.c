/* SPDX-License-Identifier: Apache-2.0 */
/* The steps that both directions share. */
#include "convert_one.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/xattr.h>

#include "report.h"
#include "tree.h"

#define YOUNG_NS 20000000       /* ctime has a grain of up to 10 ms: a change within it would not show */
#define LARGE ((off_t)16 << 20) /* worth asking whether it is in use before the work is done */

void one_leave(struct one *w)
{
	if (w->to_dir != w->from_dir)
		close_fd(&w->to_dir);
	close_fd(&w->from_dir);
	w->from_dir = w->to_dir = -1;
	free(w->dir);
	w->dir = NULL;
}

/* The directory's path in the tree written: names of directories may be spelled otherwise there. */
static int dir_translate(const struct convert_run *run, const char *path, char **ret)
{
	CLEANUP_FREE char *out = malloc(2 * strlen(path) + 2);
	char comp[NAME_ROOM], name[NAME_ROOM];
	size_t n = 0;

	if (!out)
		return -ENOMEM;
	while (*path) {
		size_t len = strcspn(path, "/");
		int err;

		if (len >= sizeof(comp))
			return -ENAMETOOLONG;
		memcpy(comp, path, len);
		comp[len] = 0;
		err = run->verb == CONVERT_IN ? name_store(comp, false, name) : name_show(comp, false, name);
		if (err)
			return err;
		if (n)
			out[n++] = '/';
		memcpy(out + n, name, strlen(name));
		n += strlen(name);
		path += len + (path[len] == '/');
	}
	out[n] = 0;
	*ret = STEAL(out);
	return 0;
}

int one_enter(struct one *w, const char *path, const char **ret_name)
{
	const char *slash = strrchr(path, '/');
	size_t len = slash ? (size_t)(slash - path) : 0;
	CLEANUP_FREE char *translated = NULL;
	int err = 0;

	*ret_name = slash ? slash + 1 : path;
	if (w->dir && strlen(w->dir) == len && memcmp(w->dir, path, len) == 0)
		return 0;
	one_leave(w);
	w->dir = strndup(path, len);
	w->from_dir = w->to_dir = w->dir ? beneath_open(w->run->from_fd, w->dir, w->run->one_fs) : -ENOMEM;
	if (w->from_dir >= 0 && !w->run->in_place) {
		err = dir_translate(w->run, w->dir, &translated);
		w->to_dir = err ? err : beneath_open(w->run->to_fd, translated, true);
	}
	err = w->from_dir < 0 ? w->from_dir : w->to_dir < 0 ? w->to_dir : 0;
	if (err) {
		w->to_dir = w->from_dir;
		one_leave(w);
		return fail(err, "its directory: %s", strerror(-err));
	}
	w->acl_dir = fgetxattr(w->to_dir, "system.posix_acl_default", NULL, 0) > 0;
	return 0;
}

int one_target(const struct convert_run *run, const char *name, char ret[static NAME_ROOM])
{
	int err = run->verb == CONVERT_IN ? name_store(name, true, ret) : name_show(name, true, ret);

	return err == -ENAMETOOLONG ? fail(err, "its name is longer than %d bytes: .tdf would not fit behind it", NAME_VISIBLE_MAX) : err;
}

enum item_result one_fail(int err)
{
	switch (-err) {
	case ENOSPC:
	case EDQUOT:
		return ITEM_NO_SPACE;
	case ESTALE:
		return ITEM_BUSY;
	default:
		if (!*fail_text())
			fail(err, "%s", strerror(-err));
		return ITEM_FAILED;
	}
}

bool one_is_busy(int fd)
{
	if (fcntl(fd, F_SETLEASE, F_WRLCK) == 0)
		return fcntl(fd, F_SETLEASE, F_UNLCK) != 0;
	return errno == EAGAIN;
}

/* A change in the same tick of the clock as the one before it cannot be told from no change: let the tick pass. */
static bool wait_young(const struct stat *st)
{
	struct timespec now, nap = {0};
	int64_t age;

	clock_gettime(CLOCK_REALTIME, &now);
	if (now.tv_sec - st->st_ctim.tv_sec > 1)
		return false;
	age = (now.tv_sec - st->st_ctim.tv_sec) * 1000000000 + now.tv_nsec - st->st_ctim.tv_nsec;
	if (age < 0 || age >= YOUNG_NS)
		return false;
	nap.tv_nsec = (long)(YOUNG_NS - age);
	(void)nanosleep(&nap, NULL);
	return true;
}

static bool answer(struct item_answer *a, enum item_result r)
{
	a->result = (uint8_t)r;
	return false;
}

bool one_source(struct one *w, const char *name, unsigned links, int *ret_fd, struct stat *ret_st, struct item_answer *a)
{
	CLEANUP_FD int fd = openat(w->from_dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	const char *flag;
	struct stat st;

	if (fd < 0 && errno == ENOENT)
		return answer(a, ITEM_GONE);
	if (fd < 0 && (errno == ELOOP || errno == ENXIO)) /* became a symlink or a socket meanwhile */
		return answer(a, ITEM_GONE);
	if (fd < 0 || fstat(fd, &st))
		return answer(a, one_fail(fail(-errno, "opening it: %s", strerror(errno))));
	if (!S_ISREG(st.st_mode))
		return answer(a, ITEM_GONE);
	if (w->run->one_fs && st.st_dev != w->run->dev) {
		fail(-EXDEV, "lies on another file system");
		return answer(a, ITEM_SKIPPED);
	}
	a->bytes = (uint64_t)st.st_size;
	a->stamp = stamp_of(&st);
	*ret_st = st;
	if (w->run->in_place && w->run->verb == CONVERT_IN && name_is_tdf(name) && already_in(w, fd, &st, name, a))
		return false;
	if (w->run->in_place ? st.st_nlink != links : st.st_nlink > 1 && links == 1) {
		fail(-EMLINK, "has %lu names, and not all of them are in the tree", (unsigned long)st.st_nlink);
		return answer(a, ITEM_LINKED);
	}
	w->flags = true;
	if (w->run->in_place) {
		flag = meta_flags(fd, &w->flags);
		if (flag) {
			fail(-EPERM, "is %s (chattr)", flag);
			return answer(a, ITEM_SKIPPED);
		}
		if (wait_young(&st) && fstat(fd, &st))
			return answer(a, one_fail(-errno));
	}
	if (w->run->in_place && st.st_size >= LARGE && one_is_busy(fd)) {
		fail(-EBUSY, "is open in another program");
		return answer(a, ITEM_BUSY);
	}
	a->bytes = (uint64_t)st.st_size; /* it may have waited */
	a->stamp = stamp_of(&st);
	*ret_st = st;
	*ret_fd = fd;
	fd = -1;
	return true;
}

void one_drop_target(struct one *w, const char *target, uint64_t ino)
{
	struct stat st;

	if (fstatat(w->to_dir, target, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_ino == ino && S_ISREG(st.st_mode))
		(void)unlinkat(w->to_dir, target, 0);
}

int one_put(struct one *w, int from, const struct stat *st, int temp, const char *temp_name, const char *target, struct item_answer *a)
{
	const char *what = "";
	struct stat now, made;
	int err = fstat(temp, &made) ? -errno : meta_copy(from, st, temp, &made, w->run->in_place, w->flags, w->acl_dir, &what);

	if (err)
		return fail(err, "its %s cannot be kept: %s", what, strerror(-err));
	if (fstat(from, &now))
		return -errno;
	if (now.st_size != st->st_size || now.st_mtim.tv_sec != st->st_mtim.tv_sec || now.st_mtim.tv_nsec != st->st_mtim.tv_nsec ||
	    (w->run->in_place && (now.st_ctim.tv_sec != st->st_ctim.tv_sec || now.st_ctim.tv_nsec != st->st_ctim.tv_nsec)))
		return fail(-ESTALE, "changed while it was read");
	err = temp_link(temp, w->run->temp_dir, temp_name, w->to_dir, target);
	if (err)
		return err == -EEXIST ? err : fail(err, "giving it the name %s: %s", target, strerror(-err));
	a->out_ino = made.st_ino;
	a->result = ITEM_STAGED;
	return 0;
}

static bool unlink_refused(struct one *w, const struct item_order *o, const char *target, struct item_answer *a, enum item_result r)
{
	one_drop_target(w, target, o->out_ino);
	return answer(a, r);
}

void one_unlink_source(struct one *w, const struct item_order *o, const char *name, unsigned links, const char *target,
		       struct item_answer *a)
{
	CLEANUP_FD int fd = openat(w->from_dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	struct stat st, named;
	struct stamp now;

	a->result = ITEM_DONE;
	if (fd < 0 && errno == ENOENT) {
		if (!o->retry)
			fail(-ENOENT, "was removed by somebody else after it had been converted: %s is kept", target);
		return;
	}
	if (fd < 0 || fstat(fd, &st)) {
		unlink_refused(w, o, target, a, one_fail(fail(-errno, "opening it again: %s", strerror(errno))));
		return;
	}
	now = stamp_of(&st);
	if (!stamp_same(&now, &o->stamp) || st.st_nlink != links) {
		fail(-ESTALE, "was changed after it had been read");
		unlink_refused(w, o, target, a, ITEM_BUSY);
		return;
	}
	if (fcntl(fd, F_SETLEASE, F_WRLCK) && errno == EAGAIN) {
		fail(-EBUSY, "is open in another program");
		unlink_refused(w, o, target, a, ITEM_BUSY);
		return;
	}
	/* from here on an opener waits until the descriptor is closed */
	if (fstatat(w->from_dir, name, &named, AT_SYMLINK_NOFOLLOW) || named.st_ino != st.st_ino ||
	    named.st_ctim.tv_nsec != st.st_ctim.tv_nsec) {
		fail(-ESTALE, "was replaced after it had been read");
		unlink_refused(w, o, target, a, ITEM_BUSY);
		return;
	}
	if (links == 1 && unlinkat(w->from_dir, name, 0))
		unlink_refused(w, o, target, a, one_fail(fail(-errno, "removing the original: %s", strerror(errno))));
}
