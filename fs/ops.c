/* SPDX-License-Identifier: Apache-2.0 */
/* Session set-up, attributes, extended attributes, statfs, and what all operations share. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fuse.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "kernel_sync.h"
#include "ops_i.h"
#include "report.h"

#define MAX_WRITE (1u << 20)
#define SPIN_NS 40000

/* --- shared --- */

struct who req_who(fuse_req_t req)
{
	const struct fuse_ctx *c = fuse_req_ctx(req);

	return (struct who){.uid = c->uid, .gid = c->gid, .umask = c->umask};
}

struct node *req_node(fuse_req_t req, fuse_ino_t ino)
{
	const struct mount *m = req_mount(req);
	struct node *n;

	fail_clear();
	/* a private mount of root's has no permission checks, and the kernel lets processes of root's in whatever their fsuid is */
	if (!m->shared && fuse_req_ctx(req)->uid) {
		fuse_reply_err(req, EACCES);
		return NULL;
	}
	n = node_get(m->tree.nodes, ino);
	if (!n)
		fuse_reply_err(req, ESTALE);
	return n;
}

/* Failures of the content that somebody should read about; the rest is everyday. */
static bool worth_a_line(int err)
{
	return err == -EBADMSG || err == -EPROTO || err == -ENOEXEC || err == -EIO || err == -ENOKEY || err == -ETIMEDOUT ||
	       (err == -EACCES && *fail_text()); /* the KAS's, not the everyday one */
}

void log_failure(struct mount *m, struct node *n, const char *what, int err)
{
	char path[PATH_MAX] = "";
	struct at at;

	if (!node_at(m->tree.nodes, n, &at)) {
		node_path(m->tree.nodes, at.dir ? at.dir : n, at.name, path, sizeof(path));
		at_put(m->tree.nodes, &at);
	}
	report(REPORT_WARN, "%s: %s: %s", *path ? path : "(removed file)", what, *fail_text() ? fail_text() : strerror(-err));
}

/* The errno map (fs/DESIGN.md): damage in any form is EIO to an application, the rest speaks for itself. */
static int app_errno(int err)
{
	switch (err) {
	case -EBADMSG:
	case -EPROTO:
	case -ENOEXEC: /* not a TDF at all */
	case -EUCLEAN:
		return EIO;
	default:
		return -err;
	}
}

void reply_err(fuse_req_t req, int err, struct node *n, const char *what)
{
	if (n && worth_a_line(err))
		log_failure(req_mount(req), n, what, err);
	fuse_reply_err(req, app_errno(err));
}

struct fuse_entry_param entry_param(const struct mount *m, const struct entry *e)
{
	return (struct fuse_entry_param){
	    .ino = e->node->id,
	    .attr = e->st,
	    .attr_timeout = m->timeout,
	    .entry_timeout = m->timeout,
	};
}

void reply_entry(fuse_req_t req, struct entry *e)
{
	struct mount *m = req_mount(req);
	struct fuse_entry_param p = entry_param(m, e);

	if (fuse_reply_entry(req, &p) == -ENOENT)
		node_forget(m->tree.nodes, e->node->id, 1);
	node_put(m->tree.nodes, e->node);
}

#define GROUPS_MAX 1024
bool req_in_group(void *req, gid_t gid)
{
	gid_t groups[GROUPS_MAX];
	int n;

	if (fuse_req_ctx(req)->gid == gid)
		return true;
	n = fuse_req_getgroups(req, GROUPS_MAX, groups); /* of all that he is in; an error if he is gone or in another PID namespace */
	for (int i = 0; i < MIN(n, GROUPS_MAX); i++)
		if (groups[i] == gid)
			return true;
	return false;
}

int drop_priv(fuse_req_t req, struct node *n, struct inode *f)
{
	return fuse_req_ctx(req)->uid ? attr_drop_priv(&req_mount(req)->tree, n, f, req_in_group, req) : 0;
}

void priv_dropped(struct mount *m, uint64_t id, int dropped)
{
	if (dropped > 0 && fuse_lowlevel_notify_inval_inode(m->se, id, -1, 0))
		report(REPORT_DEBUG, "the kernel shows the old mode for another second");
}

static pthread_key_t buffer_key;
static pthread_once_t buffer_once = PTHREAD_ONCE_INIT;

struct buffer {
	size_t len;
	char data[];
};

static void buffer_key_make(void)
{
	lock_check(pthread_key_create(&buffer_key, free));
}

/* A fresh megabyte for each read would be mapped, cleared page by page and unmapped again. */
void *ops_buffer(size_t len)
{
	struct buffer *b;

	pthread_once(&buffer_once, buffer_key_make);
	b = pthread_getspecific(buffer_key);
	if (!b || b->len < len) {
		free(b);
		b = malloc(sizeof(*b) + len);
		pthread_setspecific(buffer_key, b);
		if (!b)
			return NULL;
		b->len = len;
	}
	return b->data;
}

/* --- session --- */

static void ops_init(void *arg, struct fuse_conn_info *conn)
{
	struct mount *m = arg;
	unsigned want = FUSE_CAP_ASYNC_READ | FUSE_CAP_ASYNC_DIO | FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_PARALLEL_DIROPS |
			FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO;

	if (m->writeback)
		want |= FUSE_CAP_WRITEBACK_CACHE;
	if (m->acl) /* default ACLs replace the umask, and they are the store's to apply */
		want |= FUSE_CAP_DONT_MASK;
	if (m->acl && m->shared) /* turns default_permissions on as well */
		want |= FUSE_CAP_POSIX_ACL;
	conn->want = want & conn->capable;
	if (m->writeback && !(conn->want & FUSE_CAP_WRITEBACK_CACHE))
		m->writeback = false;
	m->tree.store->kernel_times = m->writeback;
	m->tree.who.umask = conn->want & FUSE_CAP_DONT_MASK;
	conn->max_write = MAX_WRITE;
	conn->max_background = 64;
	conn->congestion_threshold = 48;
	conn->time_gran = 1;
}

/* Offsets of the kernel's <linux/fuse.h>: fuse_in_header 40 bytes, fuse_out_header 16; flags are the fourth word of both INIT bodies. */
#define IN_OPCODE 4
#define IN_UNIQUE 8
#define IN_FLAGS (40 + 12)
#define OUT_LEN 16
#define OUT_UNIQUE 8
#define OUT_FLAGS 12
#define KILLPRIV_V2 (1u << 28)

/*
 * The caller of the request just answered often sends the next one at once, and waking a sleeping thread costs more than most requests do.
 * So one thread looks for a moment before it sleeps.  Never two, and not on a single processor, where the caller could not run meanwhile.
 */
static void look_before_sleeping(struct mount *m, int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	struct timespec from, now;

	if (!m->spin || atomic_exchange(&m->spinning, true))
		return;
	clock_gettime(CLOCK_MONOTONIC, &from);
	do {
		if (poll(&p, 1, 0))
			break;
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while ((now.tv_sec - from.tv_sec) * 1000000000L + now.tv_nsec - from.tv_nsec < SPIN_NS);
	atomic_store(&m->spinning, false);
}

static ssize_t session_read(int fd, void *buf, size_t len, void *arg)
{
	struct mount *m = arg;
	ssize_t n;
	uint32_t opcode, flags;
	uint64_t unique;

	look_before_sleeping(m, fd);
	n = gate_read(&m->gate, fd, buf, len);
	if (!m->tree.store->changed && gate_changes(buf, n))
		m->tree.store->changed = true;
	if (m->init_done || n < IN_FLAGS + 4)
		return n;
	memcpy(&opcode, (char *)buf + IN_OPCODE, 4);
	memcpy(&flags, (char *)buf + IN_FLAGS, 4);
	memcpy(&unique, (char *)buf + IN_UNIQUE, 8);
	if (opcode == FUSE_INIT && flags & KILLPRIV_V2)
		m->init_unique = unique;
	else
		m->init_done = true;
	return n;
}

/* The reply to INIT is the first thing written and nothing is read by another thread before it. */
static ssize_t session_writev(int fd, struct iovec *iov, int count, void *arg)
{
	struct mount *m = arg;
	uint64_t unique;
	uint32_t flags;
	ssize_t n;

	if (!m->init_done && m->init_unique && count == 2 && iov[0].iov_len == OUT_LEN && iov[1].iov_len >= OUT_FLAGS + 4) {
		memcpy(&unique, (char *)iov[0].iov_base + OUT_UNIQUE, 8);
		if (unique == m->init_unique) {
			memcpy(&flags, (char *)iov[1].iov_base + OUT_FLAGS, 4);
			flags |= KILLPRIV_V2;
			memcpy((char *)iov[1].iov_base + OUT_FLAGS, &flags, 4);
			m->init_done = true;
			n = writev(fd, iov, count);
			kernel_read_ahead(m); /* the reply sets what the kernel has by default */
			return n;
		}
	}
	return writev(fd, iov, count);
}

#if FUSE_VERSION >= 317
/* From 3.17 on a session with I/O of its own has to clone descriptors itself: without them all threads read from one. */
static int session_clone_fd(int master)
{
	uint32_t from = (uint32_t)master;
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC), err;

	if (fd >= 0 && ioctl(fd, _IOR(229, 0, uint32_t), &from) == 0) /* FUSE_DEV_IOC_CLONE */
		return fd;
	err = -errno;
	if (fd >= 0)
		close(fd);
	return err;
}
#endif

int ops_custom_io(struct fuse_session *se)
{
	static const struct fuse_custom_io io = {
	    .read = session_read,
	    .writev = session_writev,
#if FUSE_VERSION >= 317
	    .clone_fd = session_clone_fd,
#endif
	};

#if FUSE_VERSION >= 317
	return fuse_session_custom_io_317(se, &io, sizeof(io), fuse_session_fd(se));
#else
	return fuse_session_custom_io(se, &io, fuse_session_fd(se));
#endif
}

static void ops_forget(fuse_req_t req, fuse_ino_t ino, uint64_t n)
{
	node_forget(req_mount(req)->tree.nodes, ino, n);
	fuse_reply_none(req);
}

static void ops_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *f)
{
	for (size_t i = 0; i < count; i++)
		node_forget(req_mount(req)->tree.nodes, f[i].ino, f[i].nlookup);
	fuse_reply_none(req);
}

/* Not here: lseek (the kernel answers from its own size, which is the true one while it holds dirty pages;
 * ours would make copies lose data), copy_file_range (the kernel splices), getlk, setlk and flock (the kernel keeps them). */
const struct fuse_lowlevel_ops *ops_table(size_t *ret_size)
{
	static const struct fuse_lowlevel_ops table = {
	    .init = ops_init,
	    .lookup = ops_lookup,
	    .forget = ops_forget,
	    .forget_multi = ops_forget_multi,
	    .access = ops_access,
	    .getattr = ops_getattr,
	    .setattr = ops_setattr,
	    .readlink = ops_readlink,
	    .mknod = ops_mknod,
	    .mkdir = ops_mkdir,
	    .unlink = ops_unlink,
	    .rmdir = ops_rmdir,
	    .symlink = ops_symlink,
	    .rename = ops_rename,
	    .link = ops_link,
	    .create = ops_create,
	    .open = ops_open,
	    .read = ops_read,
	    .write = ops_write,
	    .flush = ops_flush,
	    .release = ops_release,
	    .fsync = ops_fsync,
	    .fallocate = ops_fallocate,
	    .opendir = ops_opendir,
	    .readdir = ops_readdir,
	    .readdirplus = ops_readdirplus,
	    .releasedir = ops_releasedir,
	    .fsyncdir = ops_fsyncdir,
	    .statfs = ops_statfs,
	    .setxattr = ops_setxattr,
	    .getxattr = ops_getxattr,
	    .listxattr = ops_listxattr,
	    .removexattr = ops_removexattr,
	};

	*ret_size = sizeof(table);
	return &table;
}
