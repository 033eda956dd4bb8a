/* SPDX-License-Identifier: Apache-2.0 */
/* What becomes of files: answers of workers, barriers, the end of each file's way. */
#include <errno.h>

#include "convert_i.h"
#include "report.h"

#define DEFERRED_MAX 100000 /* more than that is left for the next run */
#define BUSY_TRIES 1
#define BUSY_TRIES_LIVE 3 /* programs use files through the mount all the time, for a moment each */

void settle(struct convert *cv, struct item *it, enum item_result r, const char *text)
{
	struct counts *n = &cv->counts;

	if (cv->plan && ((r == ITEM_BUSY && cv->run.busy != BUSY_FAIL) || r == ITEM_NO_SPACE))
		plan_try_again(cv, it);
	switch (r) {
	case ITEM_DONE:
		n->converted++;
		n->bytes += it->size;
		if (*text)
			report_failed(cv, it->path, "note", text);
		break;
	case ITEM_ALREADY:
		n->already++;
		break;
	case ITEM_PLAIN:
		n->plain++;
		break;
	case ITEM_BUSY:
		if (cv->run.busy == BUSY_FAIL)
			n->failed++;
		else
			n->busy++;
		report_failed(cv, it->path, cv->run.busy == BUSY_FAIL ? "failed" : "busy", text);
		break;
	case ITEM_SKIPPED:
	case ITEM_LINKED:
		n->skipped++;
		report_reason(cv, text);
		report_failed(cv, it->path, "skipped", text);
		break;
	case ITEM_COLLISION:
	case ITEM_NO_SPACE:
	case ITEM_FAILED:
		n->failed++;
		report_failed(cv, it->path, "failed", text);
		break;
	default: /* gone, or met what this run has made */
		break;
	}
	convert_item_free(cv, it);
}

int defer(struct convert *cv, struct item *it)
{
	if (cv->n_deferred == cv->room_deferred) {
		size_t room = cv->room_deferred ? 2 * cv->room_deferred : 64;
		struct item *more = room > DEFERRED_MAX ? NULL : realloc(cv->deferred, room * sizeof(*more));

		if (!more) {
			settle(cv, it, ITEM_BUSY, "too many files have to wait: run it again");
			return 0;
		}
		cv->deferred = more;
		cv->room_deferred = room;
	}
	it->tries += it->tries < UINT8_MAX;
	cv->deferred[cv->n_deferred++] = *it;
	return 0;
}

/* Tried again later?  Busy files a few times (or as long as it takes), others as long as something moves. */
static bool is_deferred(const struct convert *cv, unsigned tries, enum item_result r)
{
	if (cv->draining)
		return false;
	if (r == ITEM_BUSY)
		return cv->run.busy == BUSY_WAIT || (cv->run.busy == BUSY_SKIP && tries < (cv->run.live ? BUSY_TRIES_LIVE : BUSY_TRIES));
	return r == ITEM_COLLISION || r == ITEM_NO_SPACE;
}

/* All names of a file share its fate.  true: @c is tried again later, and taken over */
static bool set_deferred(struct convert *cv, struct chunk *c, enum item_result r)
{
	if (!c->set || !is_deferred(cv, c->tries, r))
		return false;
	c->items[0].collided = r == ITEM_COLLISION;
	if (c->op == CHUNK_STAGE)
		cv->counts.read_bytes -= MIN(c->bytes, cv->counts.read_bytes);
	if (r == ITEM_NO_SPACE)
		cv->space_low = true;
	c->tries += c->tries < UINT8_MAX;
	c->op = CHUNK_STAGE;
	c->retry = false;
	c->id = ++cv->next_id;
	for (size_t i = 0; i < c->n; i++)
		c->items[i].kills = 0;
	queue_push(&cv->deferred_sets, c);
	return true;
}

static bool needs_commit(const struct convert *cv, const struct item *it)
{
	return cv->run.in_place || cv->run.verb == CONVERT_OUT || (it->verify && !it->verified);
}

static int answer_use(struct convert *cv, struct chunk *c, struct item *it, const struct item_answer *a, const char *text)
{
	enum item_result r = (enum item_result)a->result;

	/* what is left of its names is for a run that looks for them anew */
	if (c->set && c->op == CHUNK_STAGE && (r == ITEM_GONE || (r == ITEM_LINKED && c->tries))) {
		r = ITEM_BUSY;
		text = "one of its names was removed or replaced meanwhile";
	}

	if (r == ITEM_STAGED && c->op == CHUNK_STAGE) {
		it->stamp = a->stamp;
		it->out_ino = a->out_ino;
		it->s = a->s;
		it->size = a->bytes;
		it->verified = a->verified;
		memcpy(it->hash, a->hash, HASH_LEN);
		return 1;
	}
	if (r == ITEM_DONE && c->op == CHUNK_COMMIT) {
		cv->counts.unasked += a->unasked;
		if (*text)
			report_failed(cv, it->path, "note", text);
		return 1;
	}
	if (c->op == CHUNK_STAGE) /* was not read after all */
		cv->counts.read_bytes -= MIN(it->size, cv->counts.read_bytes);
	if (r == ITEM_NO_SPACE)
		cv->space_low = true; /* until what is under way has given space back */
	if (r == ITEM_UNMOUNTED) {
		cv->unmounted = true;
		r = ITEM_GONE; /* every file is whole; it is looked at again by the next run */
	}
	if (!c->set && is_deferred(cv, it->tries, r)) {
		it->kills = 0;
		it->collided = r == ITEM_COLLISION;
		return defer(cv, it);
	}
	settle(cv, it, r == ITEM_STAGED || r == ITEM_DONE || r == ITEM_NONE ? ITEM_FAILED : r,
	       r == ITEM_NONE ? "the worker said nothing about it" : text);
	return 0;
}

int answers_take(struct convert *cv, struct chunk *c, const uint8_t *p, size_t len)
{
	size_t at = 0, kept = 0, n = c->n;
	int err = 0;

	for (size_t i = 0; i < n && !err; i++) {
		struct item_answer a;
		char text[512];

		if (len - at < sizeof(a))
			return fail(-EPROTO, "a worker's answer is too short");
		memcpy(&a, p + at, sizeof(a));
		at += sizeof(a);
		if (a.text_len > len - at || a.text_len >= sizeof(text))
			return fail(-EPROTO, "a worker's answer is malformed");
		memcpy(text, p + at, a.text_len);
		text[a.text_len] = 0;
		at += a.text_len;
		if (!i && set_deferred(cv, c, a.result))
			return 0;
		err = answer_use(cv, c, &c->items[i], &a, text);
		if (err == 1) {
			c->items[kept++] = c->items[i];
			err = 0;
		}
	}
	c->n = kept;
	c->bytes = 0;
	for (size_t i = 0; i < kept; i++)
		c->bytes += c->items[i].size;
	if (!kept)
		chunk_free(cv, c);
	else
		queue_push(c->op == CHUNK_STAGE ? &cv->staged : &cv->committed, c);
	return err;
}

static void queue_move(struct queue *from, struct queue *to)
{
	struct chunk *c;

	while ((c = queue_pop(from)) != NULL)
		queue_push(to, c);
}

/* The process that syncs is gone: another one, and the same again. */
static int barrier_again(struct convert *cv)
{
	int err = barrier_restart(cv);

	if (!err && cv->barrier_running && write(cv->barrier_fd, "s", 1) != 1)
		err = fail(-EIO, "the process that syncs is gone");
	return err;
}

int barrier_start(struct convert *cv)
{
	queue_move(&cv->staged, &cv->synced_staged);
	queue_move(&cv->committed, &cv->synced_committed);
	clock_gettime(CLOCK_REALTIME, &cv->barrier_when);
	/* a file under way may have a header that is older than this moment */
	for (unsigned i = 0; i < cv->run.workers; i++)
		for (unsigned k = 0; k < cv->workers[i].n_sent; k++)
			if (time_before(&cv->workers[i].sent[k]->sent, &cv->barrier_when))
				cv->barrier_when = cv->workers[i].sent[k]->sent;
	cv->barrier_running = true;
	if (write(cv->barrier_fd, "s", 1) == 1)
		return 0;
	return barrier_again(cv);
}

/* Durable now: what is left to be done with it? */
static int staged_durable(struct convert *cv, struct chunk *c)
{
	size_t kept = 0;

	c->bytes = 0;
	for (size_t i = 0; i < c->n; i++) {
		if (!needs_commit(cv, &c->items[i])) {
			settle(cv, &c->items[i], ITEM_DONE, "");
			continue;
		}
		c->bytes += c->items[i].size;
		c->items[kept++] = c->items[i];
	}
	c->n = kept;
	if (!kept) {
		chunk_free(cv, c);
		return 0;
	}
	c->op = CHUNK_COMMIT;
	c->retry = false;
	c->id = ++cv->next_id;
	queue_push(&cv->to_commit, c);
	return 0;
}

int barrier_done(struct convert *cv)
{
	struct chunk *c;
	int32_t err = 0;
	ssize_t n;

	do
		n = read(cv->barrier_fd, &err, sizeof(err));
	while (n < 0 && errno == EINTR);
	if (n != sizeof(err))
		return barrier_again(cv);
	cv->barrier_running = false;
	cv->n_barriers++;
	if (err)
		return fail(err, "syncing the file system: %s; nothing that was waiting for it was removed", strerror(-err));
	err = job_barrier(cv->log, &cv->barrier_when);
	if (err)
		return err;
	while (!err && (c = queue_pop(&cv->synced_staged)) != NULL)
		err = staged_durable(cv, c);
	while ((c = queue_pop(&cv->synced_committed)) != NULL) {
		for (size_t i = 0; i < c->n; i++)
			settle(cv, &c->items[i], ITEM_DONE, "");
		c->n = 0;
		chunk_free(cv, c);
	}
	return err;
}
