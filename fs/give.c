/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The content of a small file goes into the kernel's page cache with the answer to its first open: it costs less than the request for it.
 *
 * A page that is given replaces what the kernel has there, and the file gets as long as what is given: nobody may be writing or cutting it.
 * And the kernel keeps a page locked from a request for it until the answer, for which there might be no thread left, or (after kill -9)
 * never one: nobody may be reading it either.  So it is done only while nobody has the file open, and whoever wants to open or cut it
 * meanwhile waits, which is never for another request.
 */
#include "kernel_sync.h"
#include "ops_i.h"
#include "report.h"

#define WHOLE_MAX ((size_t)64 << 10)

bool give_enter(struct mount *m, struct node *n, bool may_give)
{
	bool give;

	mutex_lock(&m->lock);
	m->n_waiting++;
	while (n->giving)
		cond_wait(&m->given, &m->lock);
	m->n_waiting--;
	give = may_give && !n->users && !n->cached;
	n->users++;
	n->giving = give;
	mutex_unlock(&m->lock);
	return give;
}

void give_leave(struct mount *m, struct node *n)
{
	mutex_lock(&m->lock);
	n->users--;
	mutex_unlock(&m->lock);
}

/* A failure is told to who reads it.  @counts: it is a reading, no request for it will come */
void give_content(struct mount *m, struct node *n, struct inode *f, bool counts)
{
	uint64_t len = inode_size(f);
	char *buf = len && len <= WHOLE_MAX ? ops_buffer(WHOLE_MAX + 1) : NULL;

	if (buf && inode_read(f, buf, WHOLE_MAX + 1, 0) == (ssize_t)len) {
		struct fuse_bufvec v = FUSE_BUFVEC_INIT(len);

		v.buf[0].mem = buf;
		if (counts)
			inode_was_read(f);
		if (fuse_lowlevel_notify_store(m->se, n->id, 0, &v, 0))
			report(REPORT_DEBUG, "the kernel did not take content that it has not asked for");
		if (inode_key_ended(f) && fuse_lowlevel_notify_inval_inode(m->se, n->id, 0, 0)) /* just now */
			report(REPORT_DEBUG, "the kernel has none of it any more");
	}
	n->cached = true;
	mutex_lock(&m->lock);
	n->giving = false;
	if (m->n_waiting)
		cond_broadcast(&m->given);
	mutex_unlock(&m->lock);
}

/* A file's key may not be used any more: nor may what the kernel has of its content.  What it has of writes arrives first, while they are
 * still taken: fetched by another process, since the notification would wait for them in a thread that cannot be killed (mount_fetch()).
 * While the mount is quiesced they may be held: then at the thaw. */
void mount_key_lost(void *arg, struct inode *f)
{
	struct mount *m = arg;
	struct node *n = node_find(m->tree.nodes, inode_ino(f));
	bool writers;

	if (!n)
		return;
	mutex_lock(&m->lock);
	writers = n->writers;
	mutex_unlock(&m->lock);
	if (writers && kernel_sync_now(m))
		report(REPORT_WARN, "%s", fail_text());
	n->cached = false;
	if (fuse_lowlevel_notify_inval_inode(m->se, n->id, 0, 0))
		report(REPORT_DEBUG, "the kernel has nothing of a file whose key was lost");
	node_put(m->tree.nodes, n);
}
