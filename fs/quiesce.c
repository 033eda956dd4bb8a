/* SPDX-License-Identifier: Apache-2.0 */
#include "quiesce.h"

#include <errno.h>
#include <poll.h>
#include <time.h>

#include "kernel_sync.h"
#include "plain.h"
#include "report.h"
#include "reseg.h"
#include "status.h"
#include "volume_state.h"

#define TAKE_PLAIN_S 600  /* it goes on by itself after that */
#define PATIENCE_MS 60000 /* for one request: truncate(2) to a length far away writes as long as that takes */

int quiesce_begin(struct mount *m, unsigned seconds)
{
	struct store *st = m->tree.store;
	int err;

	if (plain_on(&m->tree))
		return fail(-EBUSY, "it is being converted; wait for that, or pause it and unmount");
	err = kernel_sync_now(m);
	if (!err)
		err = store_sync(st); /* most of it, while writing goes on */
	reseg_hold(st, seconds + PATIENCE_MS / 1000);
	if (!err)
		err = gate_close(&m->gate, seconds, PATIENCE_MS);
	if (err) {
		reseg_hold(st, 0);
		return err;
	}
	err = store_sync(st);
	if (!err && st->redo)
		err = redo_retire(st->redo);
	if (err == -EBUSY) /* the log holds something of files that were removed while open: nobody will ask for it */
		err = 0;
	if (err) {
		reseg_hold(st, 0);
		gate_open(&m->gate);
	} else {
		report(REPORT_NOTE, "%s: quiesced for at most %u s", m->cfg->mountpoint, seconds);
	}
	return err;
}

int quiesce_end(struct mount *m)
{
	if (!gate_left(&m->gate) || !gate_open(&m->gate))
		return fail(-EALREADY,
			    "it is not quiesced, or not any more: the time that was asked for is over, and a copy made meanwhile "
			    "may not be consistent");
	reseg_hold(m->tree.store, 0);
	report(REPORT_NOTE, "%s: quiesced no more", m->cfg->mountpoint);
	return 0;
}

int quiesce_take_plain(struct mount *m, struct volume *v)
{
	int err, end;

	if (plain_on(&m->tree))
		return 0;
	if (m->cfg->exclusive)
		return fail(-EBUSY,
			    "it is mounted with -o cache=exclusive, which trusts that nobody puts anything into the store; unmount it first");
	if (m->tree.store->opt.read_only)
		return fail(-EROFS, "it is mounted read-only");
	err = quiesce_begin(m, TAKE_PLAIN_S);
	if (err)
		return err;
	err = volume_state_write(v, VOLUME_CONVERTING);
	if (!err) {
		plain_start(&m->tree);
		(void)poll(NULL, 0, (int)(m->timeout * 1000) + 100);
		report(REPORT_NOTE, "%s: is being converted from now on: plain files in the store are shown", v->path);
	}
	end = quiesce_end(m);
	return err ? err : end == -EALREADY ? 0 : end;
}

unsigned idle_for(struct mount *m)
{
	struct timespec now;
	bool open;

	clock_gettime(CLOCK_MONOTONIC, &now);
	mutex_lock(&m->lock);
	open = m->n_handles || m->closing;
	mutex_unlock(&m->lock);
	if (gate_was_active(&m->gate) || open || store_dirty(m->tree.store) || !m->used)
		m->used = now.tv_sec;
	return (unsigned)(now.tv_sec - m->used);
}
