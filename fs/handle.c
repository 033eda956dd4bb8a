/* SPDX-License-Identifier: Apache-2.0 */
/* Open files: making their handles, and closing them. */

#include <errno.h>
#include <fcntl.h>

#include "kernel_sync.h"
#include "ops_i.h"
#include "report.h"

#define CLOSING_MAX 32u
#define CLOSING_PAUSE_NS 1000000

struct handle *handle_new(struct mount *m, struct node *n, struct inode *f, int flags)
{
	struct handle *h = calloc(1, sizeof(*h));
	bool give;

	if (!h)
		return NULL;
	h->node = n;
	h->f = f;
	h->write = (flags & O_ACCMODE) != O_RDONLY || flags & O_TRUNC;
	h->append = flags & O_APPEND && !m->writeback; /* else the kernel knows where the end is, and we do not */
	h->reads = (flags & O_ACCMODE) != O_WRONLY &&
		   !(flags & O_NOATIME); /* through others the kernel reads what it needs to write a part of a page */
	give = give_enter(m, n, !h->write);
	inode_opened(f, h->write);
	if (give)
		give_content(m, n, f, h->reads);
	mutex_lock(&m->lock);
	h->next = m->handles;
	if (h->next)
		h->next->prev = h;
	m->handles = h;
	m->n_handles++;
	m->n_writers += h->write;
	n->writers += h->write;
	m->wrote = m->wrote || h->write;
	mutex_unlock(&m->lock);
	return h;
}

/* m->lock is held */
static void take_out(struct mount *m, struct handle *h)
{
	if (h->prev)
		h->prev->next = h->next;
	else
		m->handles = h->next;
	if (h->next)
		h->next->prev = h->prev;
	h->next = h->prev = NULL;
	m->n_handles--;
	m->n_writers -= h->write;
	h->node->writers -= h->write;
}

static void finish(struct mount *m, struct handle *h)
{
	if (inode_closed(h->f, h->write))
		(void)node_refuse(m->tree.nodes, h->node, -EIO);
	inode_put(h->f);
	node_put(m->tree.nodes, h->node);
	free(h);
}

void handle_close(struct mount *m, struct handle *h)
{
	bool queued;

	give_leave(m, h->node);
	mutex_lock(&m->lock);
	take_out(m, h);
	queued = m->closer_runs && m->n_closing < CLOSING_MAX;
	if (queued) {
		h->next = m->closing;
		m->closing = h;
		if (!m->n_closing++)
			cond_broadcast(&m->closing_some);
	}
	mutex_unlock(&m->lock);
	if (!queued)
		finish(m, h);
}

void mount_drop_handles(struct mount *m)
{
	while (m->handles)
		handle_close(m, m->handles);
}

bool mount_wrote(struct mount *m)
{
	bool wrote;

	mutex_lock(&m->lock);
	wrote = m->wrote;
	m->wrote = m->n_writers > 0;
	mutex_unlock(&m->lock);
	return wrote;
}

/* By a syncfs in a process of its own: whoever asks the kernel to hand over (or drop) a page waits for us and cannot be killed, and would keep
 * the connection of a daemon that is. */
void mount_fetch(struct mount *m, ino_t ino)
{
	struct node *n = node_find(m->tree.nodes, ino);
	bool fetch;

	if (!n)
		return;
	mutex_lock(&m->lock);
	fetch = n->writers && m->n_fetching < m->cfg->max_threads / 2;
	m->n_fetching += fetch;
	mutex_unlock(&m->lock);
	if (fetch && gate_fetch_begin(&m->gate)) {
		if (kernel_sync_now(m))
			report(REPORT_WARN, "%s", fail_text());
		gate_fetch_end(&m->gate);
	}
	mutex_lock(&m->lock);
	m->n_fetching -= fetch;
	mutex_unlock(&m->lock);
	node_put(m->tree.nodes, n);
}

/* m->lock is held, and let go meanwhile */
static void finish_all(struct mount *m)
{
	struct handle *h = m->closing;

	m->closing = NULL;
	m->n_closing = 0;
	mutex_unlock(&m->lock);
	while (h) {
		struct handle *next = h->next;

		finish(m, h);
		h = next;
	}
	mutex_lock(&m->lock);
}

/*
 * The last close of a new file seals it, which takes longer than most answers, and its caller's next request is there at once: a thread
 * that closes must not be the one that would have taken it.  After the first of a burst it waits for more instead of being woken for each.
 */
static void *closer_main(void *arg)
{
	const struct timespec pause = {.tv_nsec = CLOSING_PAUSE_NS};
	struct mount *m = arg;

	mutex_lock(&m->lock);
	while (m->closer_runs || m->closing) {
		if (m->closing) {
			finish_all(m);
			mutex_unlock(&m->lock);
			nanosleep(&pause, NULL);
			mutex_lock(&m->lock);
		} else {
			cond_wait(&m->closing_some, &m->lock);
		}
	}
	mutex_unlock(&m->lock);
	return NULL;
}

int closer_start(struct mount *m)
{
	int err;

	cond_init(&m->closing_some);
	m->closer_runs = true;
	err = -pthread_create(&m->closer, NULL, closer_main, m);
	if (err)
		m->closer_runs = false;
	return err;
}

void closer_stop(struct mount *m)
{
	bool ran;

	mutex_lock(&m->lock);
	ran = m->closer_runs;
	m->closer_runs = false;
	if (ran)
		cond_broadcast(&m->closing_some);
	mutex_unlock(&m->lock);
	if (ran) {
		pthread_join(m->closer, NULL);
		cond_destroy(&m->closing_some);
	}
}
