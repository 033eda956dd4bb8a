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
#include "lease.h"
#include "ops.h"
#include "plain.h"
#include "plain_talk.h"
#include "preflight.h"
#include "quiesce.h"
#include "report.h"
#include "start.h"
#include "status.h"
#include "unmount.h"
#include "volume_state.h"

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
	struct plain_talk_calls talk;
	struct timespec started;
	int leaver; /* who asked for unmounting: control_leave() */
};

/* --- control socket --- */

static json_t *on_status(void *arg)
{
	struct running *r = arg;

	return mount_status(&r->mount, &r->opened, r->started.tv_sec);
}

static int on_sync(void *arg)
{
	struct running *r = arg;
	int err = kernel_sync_now(&r->mount);

	if (!err)
		err = store_sync(r->opened.store);
	return err || !plain_on(&r->mount.tree) ? err : plain_sync(&r->mount.tree);
}

static int on_strict(void *arg)
{
	const struct volume *v = ((struct running *)arg)->opened.volume;
	int err = volume_state_write(v, VOLUME_STRICT);

	if (!err)
		report(REPORT_NOTE, "%s: the conversion is finished: a plain file in the store is none of its files from now on", v->path);
	return err;
}

static int on_open(void *arg)
{
	struct running *r = arg;

	return quiesce_take_plain(&r->mount, r->opened.volume);
}

static int on_talk(void *arg, void **ret)
{
	struct running *r = arg;
	struct plain_talk *c;
	int err = gate_left(&r->mount.gate) ? fail(-EBUSY, "the mount is quiesced") : plain_talk_begin(&r->talk, &c);

	*ret = err ? NULL : c;
	return err;
}

static json_t *on_request(void *talk, const json_t *request)
{
	return plain_talk_answer(talk, request);
}

static void on_talk_end(void *talk)
{
	plain_talk_end(talk);
}

static int on_quiesce(void *arg, unsigned seconds)
{
	struct running *r = arg;

	return seconds ? quiesce_begin(&r->mount, seconds) : quiesce_end(&r->mount);
}

static int on_unmount(void *arg)
{
	struct running *r = arg;
	const char *mnt = r->mount.cfg->mountpoint;

	if (!mount_is_there(&r->mount))
		return fail(-EBUSY, "%s: was taken away already (umount -l), and ends with the last close of a file there; or something is mounted over it", mnt);
	if (gate_left(&r->mount.gate))
		return fail(-EBUSY, "%s: is quiesced; first: tdfs quiesce --thaw %s", mnt, mnt);
	return unmount(mnt);
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
	int err;

	/* an arena per thread keeps what it once held: with many threads that is most of the daemon's memory */
	mallopt(M_ARENA_MAX, 2);
	mallopt(M_TRIM_THRESHOLD, 4 << 20);
	mallopt(M_MMAP_THRESHOLD, 2 << 20);
	getrlimit(RLIMIT_NOFILE, &files);
	mutex_init(&m->lock);
	cond_init(&m->given);
	err = gate_init(&m->gate);
	if (err)
		return err;
	m->cfg = c;
	m->timeout = c->exclusive ? TIMEOUT_EXCLUSIVE_S : TIMEOUT_S;
	m->flush = !r->opened.read_only && fallocate(r->opened.volume->lock_fd, FALLOC_FL_KEEP_SIZE, 0, 1) && errno == EOPNOTSUPP;
	m->spin = sysconf(_SC_NPROCESSORS_ONLN) > 1;
	m->writeback = !c->strict && !c->shared_storage && !r->opened.read_only;
	m->shared = c->allow_other || c->allow_root || !root;
	m->acl = root && store_has_acls(r->opened.volume->store_fd);
	m->tree.store = r->opened.store;
	m->tree.who.root = root;
	m->tree.who.owner = geteuid();
	m->tree.foreign_deny = c->foreign == FOREIGN_DENY;
	m->tree.store->keys.lost_arg = m;
	m->tree.store->keys.lost = mount_key_lost;
	err = plain_new(r->opened.store, r->opened.converting, &m->tree.plain);
	if (err)
		return err;
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

/* Every few seconds */
static void tick(struct mount *m)
{
	struct running *r = (struct running *)((char *)m - offsetof(struct running, mount));

	trim_nodes(m);
	if (!m->cfg->idle_s || idle_for(m) < m->cfg->idle_s)
		return;
	m->used = 0; /* where it is in use after all (a working directory), once more after that time */
	report(REPORT_NOTE, "%s: not used for %u s, unmounting", m->cfg->mountpoint, m->cfg->idle_s);
	if (on_unmount(r))
		report(REPORT_NOTE, "%s", fail_text());
}

/* Mounted, but nothing served yet: the helpers around the session */
static int helpers_start(struct running *r)
{
	static const struct control_calls calls = {.status = on_status,
						   .sync = on_sync,
						   .quiesce = on_quiesce,
						   .unmount = on_unmount,
						   .open = on_open,
						   .talk_begin = on_talk,
						   .talk = on_request,
						   .talk_end = on_talk_end};
	struct control_calls mine = calls;
	static const struct kernel_calls sync_calls = {.leave = leave, .tick = tick};
	int err = kernel_sync_start(&r->mount, &sync_calls, &r->sync);

	if (!err)
		err = closer_start(&r->mount);
	if (err)
		return fail(err, "no thread: %s", strerror(-err));
	mine.arg = r;
	r->talk = (struct plain_talk_calls){&r->mount.tree, on_strict, r};
	err = control_start(r->opened.volume->dir_fd, &mine, &r->control);
	if (err && r->opened.read_only) {
		report(REPORT_NOTE, "no control socket in a store that cannot be written: tdfs status and tdfs umount will not find this "
				    "mount, fusermount3 -u does");
		err = 0;
	}
	return err;
}

static int session_loop(const struct config *c, const struct kas *kas, struct fuse_session *se)
{
	struct fuse_loop_config *loop = fuse_loop_cfg_create();
	int res;

	if (!loop)
		return -ENOMEM;
	fuse_loop_cfg_set_clone_fd(loop, 1);
	/* an open that waits for a KAS keeps its thread: there are more for that, which end afterwards */
	fuse_loop_cfg_set_max_threads(loop, kas_is_remote(kas) ? c->max_threads + STORE_ASKING_MAX : c->max_threads);
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
	clock_gettime(CLOCK_MONOTONIC, &r->started); /* before somebody can ask for it */
	if (!err)
		err = helpers_start(r);
	if (!err) {
		if (c->quiet)
			start_report(report_fd, EXIT_TDFS_OK);
		report(REPORT_NOTE, "%s: mounted on %s%s", r->opened.volume->path, c->mountpoint, r->opened.read_only ? ", read-only" : "");
		if (!c->quiet)
			start_report(report_fd, EXIT_TDFS_OK);
		if (report_fd >= 0 && chdir("/"))
			report(REPORT_DEBUG, "chdir: %s", strerror(errno));
		err = session_loop(c, r->opened.volume->kas, se);
	}
	/* the answer to a request for unmounting is finished before this returns */
	r->leaver = control_stop(r->control, r->opened.volume->dir_fd);
	kernel_sync_stop(r->sync);
	fuse_session_unmount(se);
	return err;
}

/* Returns an exit code; @ret_served: the parent has been told */
static enum exit_code serve(const struct config *c, int (*get)(void *arg, struct credential *ret), void *arg, int report_fd,
			    bool *ret_served)
{
	struct running r = {.leaver = -1};
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
		leases_stop_ending(r.opened.store); /* it tells the kernel through the session and the nodes */
		fuse_session_destroy(r.mount.se);
		gate_destroy(&r.mount.gate);
	}
	if (err)
		report(REPORT_ERROR, "%s", *fail_text() ? fail_text() : strerror(-err));
	nodes_free(r.mount.tree.nodes);
	plain_free(r.mount.tree.plain);
	closed = start_close(&r.opened, r.leaver);
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
	if (cfg->fake)
		return EXIT_TDFS_OK;
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
