/* SPDX-License-Identifier: Apache-2.0 */
/* One item, and files with several names: all of them, or none. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "encode.h"
#include "plain_talk.h"
#include "report.h"
#include "worker_i.h"

const char *rewrap_policy(const struct convert_run *run, const struct job *jobs, size_t n)
{
	const char *first = jobs[0].path, *own = NULL;

	if (!run->rules)
		return run->policy;
	for (size_t i = 0; i < n; i++) {
		if (strcmp(jobs[i].path, first) < 0)
			first = jobs[i].path;
		if (volume_policy_own(run->v, jobs[i].path) && (!own || strcmp(jobs[i].path, own) < 0))
			own = jobs[i].path;
	}
	return volume_policy_at(run->v, own ? own : first);
}

void one_do(struct one *w, enum chunk_op op, const struct job *j, unsigned links, struct item_answer *a)
{
	static one_fn *const steps[][2] = {[CONVERT_IN] = {stage_in, commit_in},
					   [CONVERT_OUT] = {stage_out, commit_out},
					   [CONVERT_REWRAP] = {stage_rewrap, commit_rewrap}},
			     *const live[2] = {stage_live, commit_live};
	one_fn *const *step = w->run->live ? live : steps[w->run->verb];
	const char *name;
	int err;

	fail_clear();
	if (!w->set)
		w->policy = rewrap_policy(w->run, j, 1);
	err = one_enter(w, j->path, &name);
	if (err) {
		a->result = (uint8_t)(err == -ENOENT || err == -ENOTDIR ? ITEM_GONE : one_fail(err));
		return;
	}
	step[op == CHUNK_COMMIT](w, &j->order, name, links, a);
}

/* Was this made by a run that did not get to its end, from the very file that is here still?  Then it can go. */
static bool set_is_stale(struct one *w, const char *target, const struct stat *source)
{
	CLEANUP_FD int fd = content_open(w->to_dir, target);
	struct record r = {0};
	enum sibling kind;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) || !S_ISREG(st.st_mode))
		return false;
	if (w->run->verb == CONVERT_OUT)
		return stage_marked(w->run->v, fd, &st, &source->st_mtim) && !one_is_busy(fd);
	return sibling_look(&w->sealer, fd, (uint64_t)st.st_size, &kind, &r) == 0 &&
	       (kind == SIBLING_TORN || (kind == SIBLING_SEALED && r.state == RECORD_SEALED && r.generation == 1)) &&
	       stamp_fits(&r, source);
}

/* Is what has the name going to be converted itself, so that the name becomes free? */
static bool set_waits_for(struct one *w, const char *target)
{
	CLEANUP_FD int fd = w->run->in_place ? content_open(w->to_dir, target) : -1;
	struct record r = {0};
	enum sibling kind;
	struct stat st;

	return fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && sibling_look(&w->sealer, fd, (uint64_t)st.st_size, &kind, &r) == 0 &&
	       kind == (w->run->verb == CONVERT_IN ? SIBLING_OTHER : SIBLING_SEALED);
}

/* Give the converted file its name beside @path too.  0; -EEXIST a file has it; -EBUSY one that will move; -errno */
static int set_link(struct one *w, const struct job *j, uint64_t from_ino, int first_dir, const char *first, uint64_t out_ino)
{
	char target[NAME_ROOM];
	const char *name;
	struct stat st, there;
	int err = one_enter(w, j->path, &name);

	if (!err)
		err = one_target(w->run, name, target);
	if (err)
		return err;
	if (fstatat(w->from_dir, name, &st, AT_SYMLINK_NOFOLLOW))
		return fail(-errno, "its other name %s: %s", name, strerror(errno));
	if (st.st_ino != from_ino)
		return fail(-ESTALE, "its other name %s was replaced", name);
	if (linkat(first_dir, first, w->to_dir, target, 0) == 0)
		return 0;
	if (errno != EEXIST)
		return fail(-errno, "linking %s: %s", target, strerror(errno));
	if (fstatat(w->to_dir, target, &there, AT_SYMLINK_NOFOLLOW) == 0 && there.st_ino == out_ino)
		return 0;
	if (!set_is_stale(w, target, &st))
		return fail(set_waits_for(w, target) ? -EBUSY : -EEXIST, "the name %s is taken by another file", target);
	if (unlinkat(w->to_dir, target, 0) || linkat(first_dir, first, w->to_dir, target, 0))
		return fail(-errno, "linking %s: %s", target, strerror(errno));
	return 0;
}

static void set_take_back(struct one *w, const struct job *jobs, size_t n, const struct item_order *o)
{
	char target[NAME_ROOM];
	const char *name;

	for (size_t i = 0; i < n; i++)
		if (one_enter(w, jobs[i].path, &name) == 0 && one_target(w->run, name, target) == 0)
			one_take_back(w, o, target);
}

/* Below a mount: do all names of it fit into the request for the swap? */
static bool set_fits(const struct job *jobs, size_t n)
{
	size_t len = 4096; /* all but the names */

	for (size_t i = 0; i < n; i++)
		len += BASE64_LEN(strlen(jobs[i].path)) + 3;
	return n <= PLAIN_NAMES_MAX && len < CONTROL_TALK_MAX;
}

void set_stage(struct one *w, const struct job *jobs, size_t n, struct item_answer *a)
{
	CLEANUP_FD int dir = -1;
	char first[NAME_ROOM], why[512];
	const char *name;
	int err;

	if (w->run->live && !set_fits(jobs, n)) {
		fail(-EMLINK, "has %zu names; under a mount at most %d: convert it without one", n, PLAIN_NAMES_MAX);
		a->result = ITEM_LINKED;
		return;
	}
	w->policy = rewrap_policy(w->run, jobs, n);
	/* copying may take a part of the names; in place it must be all */
	one_do(w, CHUNK_STAGE, &jobs[0], w->run->in_place ? (unsigned)n : (unsigned)MAX(n, 2), a);
	if (a->result != ITEM_STAGED && (a->result != ITEM_ALREADY || w->run->in_place))
		return;
	if (one_waits(w)) /* the names come with the commit */
		return;
	err = one_enter(w, jobs[0].path, &name);
	if (!err)
		err = one_target(w->run, name, first);
	if (!err) {
		dir = fcntl(w->to_dir, F_DUPFD_CLOEXEC, 0);
		err = dir < 0 ? -errno : 0;
	}
	for (size_t i = 1; !err && i < n; i++)
		err = set_link(w, &jobs[i], a->stamp.ino, dir, first, a->out_ino);
	if (!err)
		return;
	snprintf(why, sizeof(why), "%s", fail_text());
	if (a->result == ITEM_STAGED && !a->verified)
		set_take_back(w, jobs, n, &(struct item_order){.stamp = a->stamp, .out_ino = a->out_ino});
	fail(err, "%s", why);
	a->result = (uint8_t)(err == -EBUSY ? ITEM_COLLISION : one_fail(err));
}

static void set_rewrap(struct one *w, const struct job *jobs, size_t n, struct item_answer *a)
{
	const char *name;

	for (size_t i = 0; i < n; i++) {
		int err = one_enter(w, jobs[i].path, &name);

		if (!err)
			err = rewrap_name(w, &jobs[i].order, name);
		if (err)
			a->result = (uint8_t)one_fail(err);
	}
	if (a->result == ITEM_DONE)
		rewrap_set_end(w, &jobs[0].order);
}

/* All names in one request to the daemon. */
static void set_live(struct one *w, const struct job *jobs, size_t n, struct item_answer *a)
{
	CLEANUP_FREE char **paths = calloc(n, sizeof(*paths));
	const char *name;
	int err = paths ? one_enter(w, jobs[0].path, &name) : -ENOMEM;

	for (size_t i = 0; paths && i < n; i++)
		paths[i] = (char *)jobs[i].path;
	if (err)
		a->result = (uint8_t)(err == -ENOENT ? ITEM_GONE : one_fail(err));
	else
		live_swap(w, &jobs[0].order, name, paths, n, a);
}

/*
 * Before the names go: what they lead to is what was read, and nobody has it open until @ret_fd is closed.  The first name may be gone
 * (one_still() leaves that to us): removed by somebody, who may have changed the file too, or by a worker that died; then its ctime is
 * another one.  -EBUSY, fail() tells; @ret_begun: a worker has removed names already
 */
static int set_hold(struct one *w, const struct job *jobs, size_t n, int *ret_fd, bool *ret_begun)
{
	const struct item_order *o = &jobs[0].order;

	*ret_begun = false;
	for (size_t i = 0; i < n; i++) {
		CLEANUP_FD int fd = -1;
		struct stamp now;
		const char *name;
		struct stat st;

		if (one_enter(w, jobs[i].path, &name) == 0)
			fd = content_open(w->from_dir, name);
		if (fd < 0 || fstat(fd, &st) || st.st_ino != o->stamp.ino) {
			if (!o->retry)
				return fail(-EBUSY, "one of its names was removed or replaced after it had been read");
			*ret_begun = true;
			continue;
		}
		if (fcntl(fd, F_SETLEASE, F_WRLCK) && errno == EAGAIN)
			return fail(-EBUSY, "is open in another program");
		if (fstat(fd, &st))
			return fail(-EBUSY, "looking at it again: %s", strerror(errno));
		now = stamp_of(&st);
		if (*ret_begun) {
			now.ctime = o->stamp.ctime;
			now.ctime_ns = o->stamp.ctime_ns;
		}
		if (!stamp_same(&now, &o->stamp))
			return fail(-EBUSY, "was changed after it had been read");
		*ret_fd = fd;
		fd = -1;
		return 0;
	}
	return 0; /* all are gone: a worker came to the end and died before it said so */
}

static void set_unlink(struct one *w, const struct job *jobs, size_t n, struct item_answer *a)
{
	CLEANUP_FD int held = -1;
	const char *name;
	char why[512];
	bool begun;

	if (set_hold(w, jobs, n, &held, &begun)) {
		snprintf(why, sizeof(why), "%s", fail_text());
		if (begun) { /* what took the place of names that are gone must stay */
			fail(-EBUSY, "%s; its sealed form holds what was read, and both stay", why);
			a->result = ITEM_FAILED;
			return;
		}
		set_take_back(w, jobs, n, &jobs[0].order);
		fail(-EBUSY, "%s", why);
		a->result = ITEM_BUSY;
		return;
	}
	fail_clear();
	for (size_t i = 0; i < n; i++) {
		struct stat st;

		if (one_enter(w, jobs[i].path, &name))
			continue;
		if (fstatat(w->from_dir, name, &st, AT_SYMLINK_NOFOLLOW) || st.st_ino != jobs[0].order.stamp.ino)
			continue; /* gone, or somebody else's by now */
		if (unlinkat(w->from_dir, name, 0)) {
			fail(-errno, "removing %s: %s", name, strerror(errno));
			a->result = ITEM_FAILED;
		}
	}
}

void set_commit(struct one *w, const struct job *jobs, size_t n, struct item_answer *a)
{
	char why[512];

	if (w->run->live) {
		set_live(w, jobs, n, a);
		return;
	}
	one_do(w, CHUNK_COMMIT, &jobs[0], (unsigned)n, a);
	if (w->run->verb == CONVERT_REWRAP) {
		if (a->result == ITEM_DONE)
			set_rewrap(w, jobs, n, a);
		return;
	}
	if (a->result != ITEM_DONE) {
		snprintf(why, sizeof(why), "%s", fail_text());
		set_take_back(w, jobs + 1, n - 1, &jobs[0].order);
		fail(-EBUSY, "%s", why);
		return;
	}
	if (w->run->in_place)
		set_unlink(w, jobs, n, a);
}
