/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One file below a mount: told to the daemon, then sealed into .tdfs/convert/tmp; after the barrier it is verified, and the daemon is asked
 * to let it take the place of what it was made from.
 *
 * Both by the same worker, over one connection: the daemon watches the file for it in between.  The source must not stay open meanwhile.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "convert_live.h"
#include "convert_one.h"
#include "report.h"
#include "tree.h"

static char *path_of(const struct one *w, const char *name)
{
	char *path;

	return asprintf(&path, "%s%s%s", w->dir, *w->dir ? "/" : "", name) < 0 ? NULL : path;
}

static enum item_result result_of(int err)
{
	switch (-err) {
	case ENOENT: /* gone, or not plain: the daemon made it, or it was converted */
		return ITEM_GONE;
	case EPIPE:
		return ITEM_UNMOUNTED;
	case EBUSY:
	case EAGAIN:
		return ITEM_BUSY;
	case EEXIST: /* by a file that will move itself, perhaps */
		return ITEM_COLLISION;
	case EMLINK:
		return ITEM_LINKED;
	case EPERM:
		return ITEM_SKIPPED;
	default:
		return one_fail(err);
	}
}

/* Of a name that may be a sealed file's: is it one of the volume's?  Those that were made since the run began are not counted. */
static bool is_sealed(struct one *w, const char *name, struct item_answer *a)
{
	CLEANUP_FD int fd = content_open(w->from_dir, name);
	enum sibling kind = SIBLING_OTHER;
	struct record r = {0};
	struct stat st;

	if (fd < 0 || fstat(fd, &st) || !S_ISREG(st.st_mode) || sibling_look(&w->sealer, fd, (uint64_t)st.st_size, &kind, &r) ||
	    kind == SIBLING_OTHER)
		return false; /* the daemon will say */
	fail_clear();
	a->result = time_before(&r.made, &w->run->started) ? ITEM_ALREADY : ITEM_OWN;
	return true;
}

/* The file @from, which is like @st, into the empty @temp */
static int seal(struct one *w, int from, const struct stat *st, bool hash, int temp, struct item_answer *a)
{
	const struct seal_from plain = {.fd = from, .policy = volume_policy_at(w->run->v, w->dir)};
	struct stamp before = stamp_of(st), after;
	const char *what = "";
	struct stat now;
	uint32_t s = 0;
	int err = seal_fd(&w->sealer, &plain, st, temp, hash ? a->hash : NULL, &s);

	a->s = s;
	if (!err && fstat(temp, &now))
		err = -errno;
	if (err)
		return err;
	a->out_ino = now.st_ino;
	err = meta_copy(from, st, temp, &now, true, w->flags, true, &what);
	if (err)
		return fail(err, "its %s cannot be kept: %s", what, strerror(-err));
	if (fstat(from, &now))
		return -errno;
	after = stamp_of(&now);
	return stamp_same(&before, &after) ? 0 : fail(-ESTALE, "changed while it was read");
}

static int seal_to_temp(struct one *w, int from, const struct stat *st, const struct item_order *o, unsigned links, struct item_answer *a)
{
	char temp_name[TEMP_ROOM];
	CLEANUP_FD int temp = -1;
	int err;

	waiting_name(w->run, st->st_ino, links > 1, temp_name);
	(void)unlinkat(w->run->temp_dir, temp_name, 0); /* of a worker that died, or of an earlier try */
	temp = openat(w->run->temp_dir, temp_name, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (temp < 0)
		return fail(-errno, "making the new file: %s", strerror(errno));
	err = seal(w, from, st, o->verify, temp, a);
	if (err)
		(void)unlinkat(w->run->temp_dir, temp_name, 0);
	return err;
}

void stage_live(struct one *w, const struct item_order *o, const char *name, unsigned links, struct item_answer *a)
{
	CLEANUP_FREE char *path = path_of(w, name);
	CLEANUP_FD int fd = -1;
	struct stat st;
	int err = path ? 0 : -ENOMEM;

	if (name_is_tdf(name) && is_sealed(w, name, a))
		return;
	if (!err && !w->talk)
		err = live_talk_open(w->run->v, &w->talk);
	/* before the first look: from then on the daemon knows whether anybody has used the file */
	if (!err)
		err = live_begin(w->talk, path, links);
	if (!err) {
		fail_clear();
		if (!one_look(w, name, &fd, &st, a) || !one_ready(w, fd, links, &st, a))
			return;
		err = seal_to_temp(w, fd, &st, o, links, a);
	}
	a->result = (uint8_t)(err ? result_of(err) : ITEM_STAGED);
}

static int swap(struct one *w, const struct item_order *o, char *const *paths, size_t n)
{
	const struct stamp *s = &o->stamp;
	char temp_name[TEMP_ROOM];
	json_t *list = json_array(), *req;

	waiting_name(w->run, s->ino, n > 1, temp_name);
	for (size_t i = 0; i < n; i++)
		json_array_append_new(list, live_path(paths[i]));
	req = json_pack("{s:o, s:s, s:I, s:I, s:I, s:[I,I], s:[I,I]}", "paths", list, "temp", temp_name, "temp_ino", (json_int_t)o->out_ino,
			"ino", (json_int_t)s->ino, "size", (json_int_t)s->size, "mtime", (json_int_t)s->mtime, (json_int_t)s->mtime_ns,
			"ctime", (json_int_t)s->ctime, (json_int_t)s->ctime_ns);
	return req ? live_ask(w->talk, "swap", req, NULL) : -ENOMEM;
}

/* A worker that died may have asked for it already. */
static bool is_swapped(struct one *w, const struct item_order *o, const char *name)
{
	char target[NAME_ROOM];
	struct stat st;

	return !one_target(w->run, name, target) && fstatat(w->from_dir, target, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_ino == o->out_ino;
}

void live_swap(struct one *w, const struct item_order *o, const char *name, char *const *paths, size_t n, struct item_answer *a)
{
	int err;

	if (o->retry && is_swapped(w, o, name)) {
		a->result = ITEM_DONE;
		return;
	}
	err = waiting_check(w, o, n > 1);
	if (!err && !w->talk)
		err = live_talk_open(w->run->v, &w->talk);
	if (!err)
		err = swap(w, o, paths, n);
	if (err)
		waiting_drop(w, o, n > 1);
	a->result = (uint8_t)(err ? result_of(err) : ITEM_DONE);
}

void commit_live(struct one *w, const struct item_order *o, const char *name, unsigned links, struct item_answer *a)
{
	CLEANUP_FREE char *path = path_of(w, name);

	if (path)
		live_swap(w, o, name, &path, 1, a);
	else
		a->result = (uint8_t)one_fail(-ENOMEM);
}
