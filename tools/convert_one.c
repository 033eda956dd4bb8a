/* SPDX-License-Identifier: Apache-2.0 */
/* The steps that both directions share. */
#include "convert_one.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/xattr.h>

#include "report.h"
#include "tree.h"

#define YOUNG_NS 20000000 /* ctime has a grain of up to 10 ms: a change within it would not show */
#define SECOND_NS 1000000000
#define LARGE ((off_t)16 << 20) /* worth asking whether it is in use before the work is done */

void one_leave(struct one *w)
{
	if (w->to_dir != w->from_dir)
		close_fd(&w->to_dir);
	close_fd(&w->from_dir);
	w->from_dir = w->to_dir = -1;
	free(w->dir);
	free(w->to_path);
	w->dir = w->to_path = NULL;
}

int one_policy(const struct one *w, const char *target, const char **ret)
{
	CLEANUP_FREE char *path = NULL;
	const char *dir = w->to_path ? w->to_path : w->dir;

	if (asprintf(&path, "%s%s%s", dir, *dir ? "/" : "", target) < 0) {
		path = NULL;
		return -ENOMEM;
	}
	*ret = volume_policy_at(w->run->v, path);
	return 0;
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
	int err = 0;

	*ret_name = slash ? slash + 1 : path;
	if (w->dir && strlen(w->dir) == len && memcmp(w->dir, path, len) == 0)
		return 0;
	one_leave(w);
	w->dir = strndup(path, len);
	w->from_dir = w->to_dir = w->dir ? beneath_open(w->run->from_fd, w->dir, w->run->one_fs) : -ENOMEM;
	if (w->from_dir >= 0 && !w->run->in_place) {
		err = dir_translate(w->run, w->dir, &w->to_path);
		w->to_dir = err ? err : beneath_open(w->run->to_fd, w->to_path, true);
	}
	err = w->from_dir < 0 ? w->from_dir : w->to_dir < 0 ? w->to_dir : 0;
	if (err) {
		w->to_dir = w->from_dir;
		one_leave(w);
		return fail(err, "its directory: %s", strerror(-err));
	}
	w->acl_dir = fgetxattr(w->to_dir, "system.posix_acl_default", NULL, 0) > 0;
	w->inherits = meta_inherits(w->to_dir, &w->append_dir);
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

/*
 * A change in the same tick of the clock as the one before it cannot be told from no change: let the tick pass.  Some file systems keep
 * seconds alone (ext4 with inodes of 128 bytes).
 */
static bool wait_young(const struct stat *st)
{
	const int64_t grain = YOUNG_NS + (st->st_ctim.tv_nsec ? 0 : SECOND_NS);
	struct timespec now, nap = {0};
	int64_t age;

	clock_gettime(CLOCK_REALTIME, &now);
	if (now.tv_sec - st->st_ctim.tv_sec > 1)
		return false;
	age = (now.tv_sec - st->st_ctim.tv_sec) * SECOND_NS + now.tv_nsec - st->st_ctim.tv_nsec;
	if (age < 0 || age >= grain)
		return false;
	nap.tv_sec = (grain - age) / SECOND_NS;
	nap.tv_nsec = (long)((grain - age) % SECOND_NS);
	(void)nanosleep(&nap, NULL);
	return true;
}

static bool is_clean(const struct convert_run *run, const struct stat *st)
{
	return st->st_ctim.tv_sec < run->clean_before.tv_sec ||
	       (st->st_ctim.tv_sec == run->clean_before.tv_sec && st->st_ctim.tv_nsec < run->clean_before.tv_nsec);
}

static bool answer(struct item_answer *a, enum item_result r)
{
	a->result = (uint8_t)r;
	return false;
}

bool one_look(struct one *w, const char *name, int *ret_fd, struct stat *ret_st, struct item_answer *a)
{
	CLEANUP_FD int fd = content_open(w->from_dir, name);

	/* gone, or became a symlink or a socket meanwhile */
	if (fd < 0 && (errno == ENOENT || errno == ELOOP || errno == ENXIO))
		return answer(a, ITEM_GONE);
	if (fd < 0 && errno == EWOULDBLOCK) { /* a lease, as file servers take it: its holder has been told now */
		fail(-EBUSY, "is open in another program");
		return answer(a, ITEM_BUSY);
	}
	if (fd < 0 || fstat(fd, ret_st))
		return answer(a, one_fail(fail(-errno, "opening it: %s", strerror(errno))));
	if (!S_ISREG(ret_st->st_mode))
		return answer(a, ITEM_GONE);
	if (w->run->one_fs && ret_st->st_dev != w->run->dev) {
		fail(-EXDEV, "lies on another file system");
		return answer(a, ITEM_SKIPPED);
	}
	a->bytes = (uint64_t)ret_st->st_size;
	a->stamp = stamp_of(ret_st);
	*ret_fd = fd;
	fd = -1;
	return true;
}

bool one_ready(struct one *w, int fd, unsigned links, struct stat *st, struct item_answer *a)
{
	const char *flag;

	if (w->run->in_place ? st->st_nlink != links : st->st_nlink > 1 && links == 1) {
		fail(-EMLINK, "has %lu names, and not all of them are in the tree", (unsigned long)st->st_nlink);
		return answer(a, ITEM_LINKED);
	}
	w->flags = true;
	if (!w->run->in_place)
		return true;
	if (w->append_dir) { /* the original could not go, nor what was made of it */
		fail(-EPERM, "its folder is append-only (chattr)");
		return answer(a, ITEM_SKIPPED);
	}
	flag = meta_flags(fd, &w->flags);
	if (flag) {
		fail(-EPERM, "is %s (chattr)", flag);
		return answer(a, ITEM_SKIPPED);
	}
	if (wait_young(st)) {
		if (fstat(fd, st))
			return answer(a, one_fail(-errno));
		a->stamp = stamp_of(st);
		if (w->run->verb == CONVERT_IN)
			a->bytes = (uint64_t)st->st_size;
	}
	/* after the stamp and before the first byte is read: who has it mapped now may write to a page that is dirty already without a
	 * trace in its times, and be gone before the end; who maps it later leaves one */
	if (((w->run->verb == CONVERT_IN && !is_clean(w->run, st)) || st->st_size >= LARGE) && one_is_busy(fd)) {
		fail(-EBUSY, "is open in another program");
		return answer(a, ITEM_BUSY);
	}
	return true;
}

int one_compare(struct one *w, int fd, uint64_t len, const uint8_t hash[static HASH_LEN], const char *what)
{
	uint8_t got[HASH_LEN];
	int err = sealed_hash(&w->sealer, &w->io, fd, len, got);

	if (!err && memcmp(got, hash, HASH_LEN) != 0)
		err = fail(-EBADMSG, "%s does not decrypt to what was read", what);
	return err;
}

void one_drop_target(struct one *w, const char *target, uint64_t ino)
{
	struct stat st;

	if (fstatat(w->to_dir, target, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_ino == ino && S_ISREG(st.st_mode))
		(void)unlinkat(w->to_dir, target, 0);
}

bool one_is_touched(const struct item_order *o, int fd, const struct stat *st)
{
	return st->st_mtim.tv_sec != o->stamp.mtime || (st->st_mtim.tv_nsec != o->stamp.mtime_ns && st->st_mtim.tv_nsec) || one_is_busy(fd);
}

void one_take_back(struct one *w, const struct item_order *o, const char *target)
{
	CLEANUP_FD int fd = w->run->verb == CONVERT_OUT ? content_open(w->to_dir, target) : -1;
	struct stat st;

	if (fd >= 0 && fstat(fd, &st) == 0 && one_is_touched(o, fd, &st))
		return;
	one_drop_target(w, target, o->out_ino);
}

/* Metadata, name.  0; -EEXIST; -ESTALE the original has changed; -errno */
static int one_put(struct one *w, int from, const struct stat *st, int temp, const char *temp_name, const char *target,
		   struct item_answer *a)
{
	const char *what = "";
	struct stat now, made;
	bool flags = w->flags && !w->inherits;
	int err = fstat(temp, &made) ? -errno : meta_copy(from, st, temp, &made, w->run->in_place, flags, w->acl_dir, &what);

	if (err)
		return fail(err, "its %s cannot be kept: %s", what, strerror(-err));
	/* in place this is looked at once more before the original goes, when nobody can change it any more */
	if (!w->run->in_place && fstat(from, &now))
		return -errno;
	if (w->run->in_place)
		now = *st;
	if (now.st_size != st->st_size || now.st_mtim.tv_sec != st->st_mtim.tv_sec || now.st_mtim.tv_nsec != st->st_mtim.tv_nsec ||
	    (w->run->in_place && (now.st_ctim.tv_sec != st->st_ctim.tv_sec || now.st_ctim.tv_nsec != st->st_ctim.tv_nsec)))
		return fail(-ESTALE, "changed while it was read");
	err = temp_link(temp, w->run->temp_dir, temp_name, w->to_dir, target);
	if (err)
		return err == -EEXIST ? err : fail(err, "giving it the name %s: %s", target, strerror(-err));
	err = w->inherits ? meta_flags_copy(from, temp, w->run->in_place) : 0;
	if (err) {
		one_drop_target(w, target, made.st_ino);
		return fail(err, "its flags or project id cannot be kept: %s", strerror(-err));
	}
	a->out_ino = made.st_ino;
	a->result = ITEM_STAGED;
	return 0;
}

int one_place(struct one *w, const struct source *src, int temp, const char *temp_name, const char *target, existing_fn *existing,
	      struct item_answer *a)
{
	int err = one_put(w, src->fd, &src->st, temp, temp_name, target, a);

	while (err == -EEXIST) {
		err = existing(w, src, target, a);
		if (err)
			break;
		err = one_put(w, src->fd, &src->st, temp, temp_name, target, a);
	}
	if (err)
		temp_drop(w->run->temp_dir, temp_name);
	return MIN(err, 0);
}

int one_still(struct one *w, const struct item_order *o, const char *name, unsigned links, int *ret_fd, struct item_answer *a)
{
	CLEANUP_FD int fd = links == 1 ? one_kept_take(w, o->stamp.ino) : -1;
	bool kept = fd >= 0;
	enum item_result r = ITEM_BUSY;
	struct stat st, named;
	struct stamp now;

	if (!kept)
		fd = content_open(w->from_dir, name);
	if (fd < 0 && errno == ENOENT)
		return 0;
	if (fd < 0 && errno == EWOULDBLOCK) {
		fail(-EBUSY, "is open in another program");
	} else if (fd < 0 || (!kept && fstat(fd, &st))) {
		r = one_fail(fail(-errno, "opening it again: %s", strerror(errno)));
	} else if (a->unasked = fcntl(fd, F_SETLEASE, F_WRLCK) != 0, a->unasked && errno == EAGAIN) {
		fail(-EBUSY, "is open in another program");
		/* from here on an opener waits until the descriptor is closed */
	} else if (fstatat(w->from_dir, name, &named, AT_SYMLINK_NOFOLLOW)) {
		if (errno == ENOENT)
			return 0;
		r = one_fail(fail(-errno, "looking at it again: %s", strerror(errno)));
	} else if (named.st_ino != o->stamp.ino || (!kept && st.st_ino != named.st_ino)) {
		fail(-ESTALE, "was replaced after it had been read");
	} else if (now = stamp_of(&named), !stamp_same(&now, &o->stamp) || named.st_nlink != links) {
		fail(-ESTALE, "was changed after it had been read");
	} else {
		*ret_fd = fd;
		fd = -1;
		return 1;
	}
	a->result = (uint8_t)r;
	return -EBUSY;
}

/* The end of the original: only if it is still what was read and nobody has it open.  With several names the caller removes them. */
static void unlink_source(struct one *w, const struct item_order *o, const char *name, unsigned links, const char *target,
			  struct item_answer *a)
{
	CLEANUP_FD int fd = -1;
	int still = one_still(w, o, name, links, &fd, a);

	if (still > 0 && links == 1 && unlinkat(w->from_dir, name, 0)) {
		a->result = (uint8_t)one_fail(fail(-errno, "removing the original: %s", strerror(errno)));
		still = -EIO;
	} else if (still > 0 && links == 1) {
		one_close_later(w, &fd, o->stamp.size);
	}
	if (still < 0) {
		one_take_back(w, o, target);
		return;
	}
	if (!still && !o->retry)
		fail(-ENOENT, "was removed by somebody else after it had been converted: %s is kept", target);
	a->result = ITEM_DONE;
}

void one_commit(struct one *w, const struct item_order *o, const char *name, unsigned links, check_fn *check, struct item_answer *a)
{
	char target[NAME_ROOM];
	int err = one_target(w->run, name, target);

	if (!err)
		err = check(w, o, target);
	if (err) {
		one_take_back(w, o, target);
		a->result = (uint8_t)one_fail(err);
	} else if (w->run->in_place) {
		unlink_source(w, o, name, links, target, a);
	} else {
		a->result = ITEM_DONE;
	}
}
