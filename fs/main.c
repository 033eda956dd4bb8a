/* SPDX-License-Identifier: Apache-2.0 */
/* mount_run(): the session's life. */
#define FUSE_USE_VERSION 314
#include <fuse_lowlevel.h>

#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/xattr.h>
#include <time.h>

#include "control.h"
#include "kernel_sync.h"
#include "ops.h"
#include "preflight.h"
#include "report.h"
#include "start.h"
#include "unmount.h"
#include "writeback.h"

#define TIMEOUT_S 1.0
#define TIMEOUT_EXCLUSIVE_S 60.0
#define DIR_FDS_MAX 4096
#ifndef NODES_MAX
#define NODES_MAX ((size_t)1 << 18)
#endif
#define TRIM_BATCH 256

struct running {
	struct opened opened;
	struct mount mount;
	struct kernel_sync *sync;
	struct control *control;
	struct timespec started;
};

/* --- control socket --- */

/* jansson takes UTF-8 only; a path may be anything */
static json_t *path_json(const char *path)
{
	char *copy CLEANUP_FREE = NULL;
	json_t *j = json_string(path);

	if (j)
		return j;
	copy = strdup(path);
	for (char *p = copy; p && *p; p++)
		if ((unsigned char)*p >= 0x80)
			*p = '?';
	return json_string(copy ? copy : "?");
}

static bool any_file(struct inode *f, void *arg)
{
	return true;
}

static size_t count_dirty(struct store *st)
{
	struct inode **files;
	size_t n;

	if (writeback_collect(st, any_file, NULL, &files, &n))
		return 0;
	for (size_t i = 0; i < n; i++)
		inode_put(files[i]);
	free(files);
	return n;
}

static json_t *on_status(void *arg)
{
	struct running *r = arg;
	struct store *st = r->opened.store;
	uint64_t flushes = 0, bytes = 0;
	struct timespec now;
	size_t live;

	clock_gettime(CLOCK_MONOTONIC, &now);
	mutex_lock(&st->list_lock);
	live = st->n_inodes;
	mutex_unlock(&st->list_lock);
	if (st->redo)
		redo_stats(st->redo, &flushes, &bytes);
	return json_pack("{s:i, s:b, s:i, s:o, s:o, s:I, s:b, s:b, s:{s:I, s:I}, s:I, s:{s:i, s:I, s:I}, s:{s:I, s:I, s:I, s:I}, s:I, s:I}",
			 "v", 1, "ok", 1, "pid", (int)getpid(), "mountpoint", path_json(r->mount.cfg->mountpoint), "store",
			 path_json(r->opened.volume->path), "uptime", (json_int_t)(now.tv_sec - r->started.tv_sec), "read_only",
			 (int)r->opened.read_only, "failed", (int)st->failed, "files", "live", (json_int_t)live, "dirty",
			 (json_int_t)count_dirty(st), "dirty_bytes", (json_int_t)st->dirty, "log", "half_used",
			 st->redo ? (int)redo_half_used(st->redo) : 0, "flushes", (json_int_t)flushes, "bytes", (json_int_t)bytes,
			 "counters", "commits", (json_int_t)st->n_commits, "seals", (json_int_t)st->n_seals, "fsyncs",
			 (json_int_t)st->n_fsyncs, "bad_segments", (json_int_t)st->n_bad_segments, "inodes", (json_int_t)live, "nodes",
			 (json_int_t)nodes_count(r->mount.tree.nodes));
}

static int on_sync(void *arg)
{
	struct running *r = arg;
	int err = kernel_sync_now(&r->mount);

	return err ? err : store_sync(r->opened.store);
}

static int on_unmount(void *arg)
{
	struct running *r = arg;

	return unmount(r->mount.cfg->mountpoint);
}

/* --- session --- */

static int add_option(char **opts, const char *name, const char *val)
{
	char *text CLEANUP_FREE = NULL;

	if (asprintf(&text, val ? "%s=%s" : "%s", name, val) < 0) {
		text = NULL;
		return -ENOMEM;
	}
	return fuse_opt_add_opt_escaped(opts, text) ? -ENOMEM : 0;
}

static int session_options(const struct config *c, const struct opened *o, bool shared, char **ret)
{
	const struct {
		bool wanted;
		const char *name;
	} each[] = {
	    {shared, "default_permissions"},
	    {o->read_only, "ro"},
	    {c->allow_other, "allow_other"},
	    {c->allow_root, "allow_root"},
	    {true, c->dev ? "dev" : "nodev"},
	    {true, c->suid ? "suid" : "nosuid"},
	    {!c->exec, "noexec"},
	    {c->noatime, "noatime"},
	};
	char *opts = NULL;
	int err = add_option(&opts, "fsname", c->fsname ? c->fsname : o->volume->path);

	if (!err)
		err = add_option(&opts, "subtype", "tdfs");
	for (size_t i = 0; i < ARRAY_SIZE(each) && !err; i++)
		if (each[i].wanted)
			err = add_option(&opts, each[i].name, NULL);
	if (!err && c->extra && *c->extra)
		err = fuse_opt_add_opt(&opts, c->extra) ? -ENOMEM : 0;
	if (err)
		free(opts);
	else
		*ret = opts;
	return err;
}

static int session_new(const struct config *c, struct running *r)
{
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	char *opts CLEANUP_FREE = NULL;
	const struct fuse_lowlevel_ops *ops;
	size_t size;
	int err = session_options(c, &r->opened, r->mount.shared, &opts);

	if (err)
		return err;
	ops = ops_table(&size);
	if (fuse_opt_add_arg(&args, "tdfs") || fuse_opt_add_arg(&args, "-o") || fuse_opt_add_arg(&args, opts)) {
		fuse_opt_free_args(&args);
		return -ENOMEM;
	}
	if (c->debug && c->foreground && fuse_opt_add_arg(&args, "-d")) {
		fuse_opt_free_args(&args);
		return -ENOMEM;
	}
	r->mount.se = fuse_session_new(&args, ops, size, &r->mount);
	fuse_opt_free_args(&args);
	return r->mount.se ? 0 : -EINVAL;
}

/* Does the store keep POSIX ACLs?  Only then is the kernel asked to check them. */
static bool store_has_acls(int fd)
{
	char path[40];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return getxattr(path, "system.posix_acl_access", NULL, 0) >= 0 || errno == ENODATA;
}

static int mount_prepare(const struct config *c, struct running *r)
{
	struct mount *m = &r->mount;
	struct rlimit files = {.rlim_cur = 1024};
	bool root = !geteuid();

	/* an arena per thread keeps what it once held: with many threads that is most of the daemon's memory */
	mallopt(M_ARENA_MAX, 2);
	mallopt(M_TRIM_THRESHOLD, 4 << 20);
	mallopt(M_MMAP_THRESHOLD, 2 << 20);
	getrlimit(RLIMIT_NOFILE, &files);
	mutex_init(&m->lock);
	cond_init(&m->given);
	m->cfg = c;
	m->timeout = c->exclusive ? TIMEOUT_EXCLUSIVE_S : TIMEOUT_S;
	m->give_max = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE) / 4;
	m->spin = sysconf(_SC_NPROCESSORS_ONLN) > 1;
	m->writeback = !c->strict && !c->shared_storage && !r->opened.read_only;
	m->shared = c->allow_other || c->allow_root || !root;
	m->acl = root && store_has_acls(r->opened.volume->store_fd);
	m->tree.store = r->opened.store;
	m->tree.who.root = root;
	m->tree.who.owner = geteuid();
	m->tree.foreign_deny = c->foreign == FOREIGN_DENY;
	return nodes_new(r->opened.volume->store_fd, MIN((size_t)files.rlim_cur / 4, DIR_FDS_MAX), &m->tree.nodes);
}

static void leave(struct mount *m)
{
	fuse_session_exit(m->se);
}

/* The kernel keeps every inode it has room for, and each costs us a node: above the limit it is asked to forget files, so that FORGET
 * comes. */
static void trim_nodes(struct mount *m)
{
	struct node_name *names;
	size_t n, cursor = 0, left = nodes_count(m->tree.nodes);

	if (left <= NODES_MAX)
		return;
	names = malloc(TRIM_BATCH * sizeof(*names));
	while (names && left > NODES_MAX / 4 * 3 && (n = nodes_idle(m->tree.nodes, &cursor, names, TRIM_BATCH))) {
		for (size_t i = 0; i < n; i++)
			fuse_lowlevel_notify_inval_entry(m->se, names[i].dir, names[i].name, strlen(names[i].name));
		left -= MIN(n, left);
	}
	free(names);
}

/* Mounted, but nothing served yet: the helpers around the session */
static int helpers_start(struct running *r)
{
	static const struct control_calls calls = {.status = on_status, .sync = on_sync, .unmount = on_unmount};
	struct control_calls mine = calls;
	static const struct kernel_calls sync_calls = {.leave = leave, .tick = trim_nodes};
	int err = kernel_sync_start(&r->mount, &sync_calls, &r->sync);

	if (!err)
		err = closer_start(&r->mount);
	if (err)
		return fail(err, "no thread: %s", strerror(-err));
	mine.arg = r;
	err = control_start(r->opened.volume->dir_fd, &mine, &r->control);
	if (err && r->opened.read_only) {
		report(REPORT_NOTE, "no control socket in a store that cannot be written: tdfs status and tdfs umount will not find this "
				    "mount, fusermount3 -u does");
		err = 0;
	}
	return err;
}

static int session_loop(const struct config *c, struct fuse_session *se)
{
	struct fuse_loop_config *loop = fuse_loop_cfg_create();
	int res;

	if (!loop)
		return -ENOMEM;
	fuse_loop_cfg_set_clone_fd(loop, 1);
	fuse_loop_cfg_set_max_threads(loop, c->max_threads);
	fuse_loop_cfg_set_idle_threads(loop, c->max_threads); /* threads are cheap to keep and dear to make */
	res = fuse_session_loop_mt(se, loop);
	fuse_loop_cfg_destroy(loop);
	return res < 0 ? fail(res, "the FUSE session ended with an error: %s", strerror(-res)) : 0; /* positive: a signal */
}

static int session_run(const struct config *c, struct running *r, int report_fd)
{
	struct fuse_session *se = r->mount.se;
	int err;

	if (fuse_session_mount(se, c->mountpoint))
		return fail(-EIO, "%s: FUSE could not mount there (the reason stands above); see: tdfs doctor", c->mountpoint);
	err = ops_custom_io(se);
	if (err)
		err = fail(err, "the FUSE session could not be set up: %s", strerror(-err));
	if (!err)
		err = helpers_start(r);
	if (!err) {
		clock_gettime(CLOCK_MONOTONIC, &r->started);
		report(REPORT_NOTE, "%s: mounted on %s%s", r->opened.volume->path, c->mountpoint, r->opened.read_only ? ", read-only" : "");
		start_report(report_fd, EXIT_TDFS_OK);
		if (report_fd >= 0 && chdir("/"))
			report(REPORT_DEBUG, "chdir: %s", strerror(errno));
		err = session_loop(c, se);
	}
	/* the answer to a request for unmounting is finished before this returns */
	control_stop(r->control, r->opened.volume->dir_fd);
	kernel_sync_stop(r->sync);
	fuse_session_unmount(se);
	return err;
}

/* Returns an exit code; @ret_served: the parent has been told */
static enum exit_code serve(const struct config *c, int (*get)(void *arg, struct credential *ret), void *arg, int report_fd,
			    bool *ret_served)
{
	struct running r = {0};
	enum exit_code code, closed;
	int err;

	start_harden(c);
	code = start_open(c, get, arg, &r.opened);
	if (code != EXIT_TDFS_OK)
		return code;
	fail_clear();
	err = mount_prepare(c, &r);
	if (!err)
		err = session_new(c, &r);
	if (!err) {
		err = session_run(c, &r, report_fd);
		*ret_served = r.control || r.sync;
		closer_stop(&r.mount);
		mount_drop_handles(&r.mount);
		fuse_session_destroy(r.mount.se);
	}
	if (err)
		report(REPORT_ERROR, "%s", *fail_text() ? fail_text() : strerror(-err));
	nodes_free(r.mount.tree.nodes);
	closed = start_close(&r.opened);
	return err ? EXIT_TDFS_FAILED : closed;
}

int mount_run(const struct config *cfg, int (*get)(void *arg, struct credential *ret), void *arg)
{
	int err = preflight(cfg), fd = -1, code;
	bool served = false;

	if (err) {
		report(REPORT_ERROR, "%s", *fail_text() ? fail_text() : strerror(-err));
		return exit_code_of(err);
	}
	if (!cfg->foreground) {
		err = start_fork(&fd, &code);
		if (err > 0)
			return code;
		if (err < 0) {
			report(REPORT_ERROR, "%s", fail_text());
			return EXIT_TDFS_FAILED;
		}
	}
	code = serve(cfg, get, arg, fd, &served);
	if (!served)
		start_report(fd, code == EXIT_TDFS_OK ? EXIT_TDFS_FAILED : code);
	return code;
}
