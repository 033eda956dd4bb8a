/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Content that the kernel has not asked for: what was decrypted anyway goes to its page cache, which saves the request for it.
 *
 * A page that is given replaces what the kernel has there, and a file gets as long as what is given.  So never while somebody may write or
 * truncate: who wants to waits for what is under way (give_stop()), and nothing is given until he has closed it.  The kernel may hold the
 * lock of a page until a request for it is answered; so that a thread is always left for that, only some may give at a time.
 */
#include <stdatomic.h>

#include "ops_i.h"
#include "report.h"

#define WHOLE_MAX ((size_t)64 << 10)

static bool begin(struct mount *m, struct node *n)
{
	bool may;

	mutex_lock(&m->lock);
	may = !n->writers && !n->giving && m->n_giving < m->cfg->max_threads / 2;
	if (may) {
		n->giving = true;
		m->n_giving++;
	}
	mutex_unlock(&m->lock);
	return may;
}

static void end(struct mount *m, struct node *n)
{
	mutex_lock(&m->lock);
	n->giving = false;
	m->n_giving--;
	if (n->writers)
		cond_broadcast(&m->given);
	mutex_unlock(&m->lock);
}

void give_stop(struct mount *m, struct node *n)
{
	mutex_lock(&m->lock);
	n->writers++;
	while (n->giving)
		cond_wait(&m->given, &m->lock);
	mutex_unlock(&m->lock);
}

void give_allow(struct mount *m, struct node *n)
{
	mutex_lock(&m->lock);
	n->writers--;
	mutex_unlock(&m->lock);
}

static void store(struct mount *m, struct node *n, char *buf, size_t len, uint64_t off)
{
	struct fuse_bufvec v = FUSE_BUFVEC_INIT(len);

	v.buf[0].mem = buf;
	if (len && fuse_lowlevel_notify_store(m->se, n->id, (off_t)off, &v, 0))
		report(REPORT_DEBUG, "the kernel did not take content that it has not asked for");
}

/* A failure is told to who reads it. */
void give_whole(struct mount *m, struct node *n, struct inode *f)
{
	uint64_t len = inode_size(f);
	char *buf;

	if (!len || len > WHOLE_MAX || atomic_exchange(&n->cached, true) || !begin(m, n))
		return;
	buf = ops_buffer(WHOLE_MAX + 1);
	if (buf && inode_read(f, buf, WHOLE_MAX + 1, 0) == (ssize_t)len)
		store(m, n, buf, len, 0);
	end(m, n);
}

bool give_begin(struct mount *m, struct node *n, struct inode *f, uint64_t *from, uint64_t *to)
{
	uint64_t first, last;

	if (!inode_around(f, *from, m->give_max, &first, &last) || (*from == first && *to >= last) || *to > last || !begin(m, n))
		return false;
	*from = first;
	*to = last;
	return true;
}

void give_rest(struct mount *m, struct node *n, char *buf, uint64_t from, uint64_t to, uint64_t off, uint64_t past)
{
	if (to > from) {
		store(m, n, buf, off - from, from);
		store(m, n, buf + (past - from), to - past, past);
	}
	end(m, n);
}
