/* SPDX-License-Identifier: Apache-2.0 */
/* Recovery: from the records of the log to files in their last committed state. */
#include <errno.h>
#include <stdio.h>

#include "recover_int.h"
#include "redo_int.h"
#include "report.h"

#define BATCH_FILES 64
#define BATCH_BYTES ((size_t)1 << 20)
#define UNFINISHED "was being replaced: its old content was given up, the new one was never committed"

struct recovery {
	const struct io *io;
	int log_dir, store_fd;
	const struct recover_keys *keys;
	bool apply;
	void (*event)(void *arg, const char *path, const char *text);
	void *arg;
	struct log log;
	struct log_out out;
	struct log_rec *recs; /* by file, in log order inside */
	struct file *files;
	size_t n_files;
	struct plan plans[BATCH_FILES]; /* one batch: logged together, then put in place */
	size_t n_plans;
	struct recovered found;
	struct recover_damage *damage;
	size_t n_damage;
	bool failed; /* a file could not be recovered: the log must stay */
};

static void tell(struct recovery *rc, const char *path, const char *text)
{
	if (rc->event)
		rc->event(rc->arg, path, text);
}

/* What recovery is there for: told where it only looks (@waits); done, there may be thousands of them, and what it returns counts them. */
static void tell_routine(struct recovery *rc, const char *path, const char *waits, const char *done)
{
	if (!rc->apply)
		tell(rc, path, waits);
	else
		report(REPORT_DEBUG, "recovery: %s: %s", path, done);
}

static int leave_alone(struct recovery *rc, const struct file *f, const char *path)
{
	struct recover_damage *d = reallocarray(rc->damage, rc->n_damage + 1, sizeof(*d));

	if (!d)
		return -ENOMEM;
	rc->damage = d;
	d[rc->n_damage].path = strdup(path);
	if (!d[rc->n_damage].path)
		return -ENOMEM;
	memcpy(d[rc->n_damage].file_id, f->id, ID_LEN);
	rc->n_damage++;
	return 0;
}

/*
 * One file could not be recovered; the others can.  A base that is damaged in place is beyond what the log could help (a new file of which
 * only a part was written when the power went looks like that); everything else may be better next time, so the log is kept.
 */
static int file_failed(struct recovery *rc, const struct file *f, const char *path, int err)
{
	char text[700];

	if (err == -ENOMEM)
		return err;
	snprintf(text, sizeof(text), "cannot be recovered: %s%s%s%s", strerror(-err), *fail_text() ? ": " : "", fail_text(),
		 err == -EUCLEAN ? "; it is damaged: changed from outside, or never wholly written before a crash"
				 : "; the volume stays read-only and its log is kept");
	tell(rc, path, text);
	rc->failed |= err != -EUCLEAN;
	rc->found.damaged++;
	return leave_alone(rc, f, path);
}

static int rec_cmp(const void *a, const void *b)
{
	const struct log_rec *x = a, *y = b;
	int c = memcmp(x->rec.base.file_id, y->rec.base.file_id, ID_LEN);

	return c ? c : (x->order > y->order) - (x->order < y->order);
}

/* Sort the records by file. */
static int group_files(struct recovery *rc)
{
	struct log *l = &rc->log;

	rc->recs = calloc(l->n_recs + 1, sizeof(*rc->recs));
	rc->files = calloc(l->n_recs + 1, sizeof(*rc->files));
	if (!rc->recs || !rc->files)
		return -ENOMEM;
	if (l->n_recs)
		memcpy(rc->recs, l->recs, l->n_recs * sizeof(*rc->recs));
	qsort(rc->recs, l->n_recs, sizeof(*rc->recs), rec_cmp);
	for (size_t i = 0; i < l->n_recs; i++) {
		struct file *f = &rc->files[rc->n_files];

		if (!i || memcmp(rc->recs[i].rec.base.file_id, f[-1].id, ID_LEN)) {
			memcpy(f->id, rc->recs[i].rec.base.file_id, ID_LEN);
			f->recs = &rc->recs[i];
			f->n = 1;
			rc->n_files++;
		} else {
			f[-1].n++;
		}
	}
	return 0;
}

/*
 * With something durable missing from the log, a file is touched only if nothing that was lost can concern it: it has no record known
 * behind the damage, no COMMIT without its SEAL (a later one may be lost), no LIVE mark that nothing explains, and nothing would be cut
 * off.
 */
static bool unsafe(const struct recovery *rc, const struct plan *p)
{
	const struct log *l = &rc->log;
	const struct redo_rec *last = p->n_steps ? p->steps[p->n_steps - 1].seal : NULL;

	if (!l->damaged)
		return false;
	for (size_t i = 0; i < l->n_lost; i++)
		if (!memcmp(l->lost[i], p->file->id, ID_LEN))
			return true;
	if (l->lost_front || p->commit || p->cut || p->unmark)
		return true;
	if (p->rec.state == RECORD_LIVE && last && p->rec.generation == last->seal.generation)
		return true;
	return last && p->len > last->seal.final_len;
}

static void count(struct recovery *rc, const struct plan *p)
{
	rc->found.sealed += p->logged;
	rc->found.committed += p->commit != NULL;
	rc->found.cut += p->cut;
	if (p->commit)
		tell_routine(rc, p->target->path, "its last committed state is in the log; a mount puts it in place",
			     "brought to its last committed state");
	else if (p->n_steps)
		tell_routine(rc, p->target->path, "its sealed state is in the log; a mount puts it in place", "sealed state put in place");
	else if (p->give_up)
		tell(rc, p->target->path, UNFINISHED);
	else if (p->cut)
		tell_routine(rc, p->target->path, "growth that was never committed; a mount cuts it off",
			     "growth that was never committed was cut off");
}

/* Log what the batch needs, then put it in place. */
static int run_batch(struct recovery *rc)
{
	int err = 0;

#ifndef TEST_NO_REC_EARLY
	err = out_flush(&rc->out, false);
#endif
	for (size_t i = 0; i < rc->n_plans && !err; i++) {
		struct plan *p = &rc->plans[i];
		struct stat s;
		int fd = find_open(rc->io, rc->store_fd, p->target->path, true, &s), one = fd;

		fail_clear();
		if (fd >= 0) {
			one = s.st_ino == p->target->ino ? apply_plan(&rc->log, rc->log_dir, fd, p) : -ESTALE;
			rc->io->close(rc->io->ctx, fd);
		}
		if (one < 0)
			err = file_failed(rc, p->file, p->target->path, one);
		else
			count(rc, p);
	}
	for (size_t i = 0; i < rc->n_plans; i++)
		plan_free(&rc->plans[i]);
	rc->n_plans = 0;
	return err;
}

static int add_plan(struct recovery *rc, const struct file *f, const struct target *t)
{
	struct plan *p = &rc->plans[rc->n_plans];
	struct stat s;
	int fd = find_open(rc->io, rc->store_fd, t->path, false, &s), err;

	fail_clear();
	if (fd < 0)
		return file_failed(rc, f, t->path, fd);
	err = plan_make(rc->io, fd, rc->keys, f, t, p);
	rc->found.stale += err ? 0 : p->stale;
	if (!err && plan_idle(p)) {
		plan_free(p);
	} else if (!err && unsafe(rc, p)) {
		tell(rc, t->path, "left alone: the log is damaged and may have held later changes of it");
		rc->found.damaged++;
		err = leave_alone(rc, f, t->path);
		plan_free(p);
	} else if (!err && !rc->apply) {
		count(rc, p);
		err = leave_alone(rc, f, t->path);
		plan_free(p);
	} else if (!err) {
		if (p->commit)
			err = plan_build(rc->io, rc->log_dir, fd, rc->keys, p);
		if (!err && p->commit)
			err = out_seal(&rc->out, p);
		if (!err)
			rc->n_plans++;
	}
	rc->io->close(rc->io->ctx, fd);
	if (err) {
		plan_free(p);
		return file_failed(rc, f, t->path, err);
	}
	if (rc->n_plans == BATCH_FILES || rc->out.len > BATCH_BYTES)
		return run_batch(rc);
	return 0;
}

/* VOID stands in the log, and what has the name now was never committed. */
static bool is_unfinished(const struct recovery *rc, const struct file *f)
{
	uint8_t sector[SECTOR];
	bool given_up = false;
	struct record rec;
	struct stat s;
	ssize_t n;
	int fd;

	for (size_t i = 0; i < f->n; i++)
		given_up |= f->recs[i].rec.type == REDO_VOID;
	fd = given_up ? find_open(rc->io, rc->store_fd, find_hint(f), false, &s) : -ENOENT;
	fail_clear();
	if (fd < 0)
		return false;
	n = rc->io->pread(rc->io->ctx, fd, sector, SECTOR, 0);
	rc->io->close(rc->io->ctx, fd);
	if (n < 0 || (n == SECTOR && record_parse(sector, rc->keys->k_rec, &rec, NULL)))
		return false;
	return n < SECTOR || rec.state == RECORD_NEW || rec.state == RECORD_VOID;
}

static void tell_missing(struct recovery *rc, const struct file *f)
{
	const char *path = find_hint(f);

	if (is_unfinished(rc, f))
		tell(rc, path, UNFINISHED);
	else if (*path) /* else it had no name any more */
		tell_routine(rc, path, "is gone, most likely removed: what the log holds of it is of no use",
			     "is gone: what the log holds of it is dropped");
}

static int run_files(struct recovery *rc)
{
	int err = find_files(rc->io, rc->store_fd, rc->keys->k_rec, rc->files, rc->n_files);

	for (size_t i = 0; i < rc->n_files && !err; i++) {
		const struct file *f = &rc->files[i];

		rc->found.files++;
		if (!f->n_targets) {
			rc->found.missing++;
			tell_missing(rc, f);
		}
		for (size_t k = 0; k < f->n_targets && !err; k++)
			err = add_plan(rc, f, &f->targets[k]);
	}
	return err ? err : run_batch(rc);
}

/* Files whose only known records are behind the damage. */
static int report_lost(struct recovery *rc)
{
	int err = 0;

	for (size_t i = 0; i < rc->log.n_lost && !err; i++) {
		struct file f = {.n = 0};
		bool known = false;

		memcpy(f.id, rc->log.lost[i], ID_LEN);
		for (size_t k = 0; k < rc->n_damage && !known; k++)
			known = !memcmp(rc->damage[k].file_id, f.id, ID_LEN);
		if (!known)
			err = leave_alone(rc, &f, "");
		rc->found.damaged += !known;
	}
	return err;
}

/* Make everything durable and say so in the log, so that nothing of it is ever done again. */
static int finish(struct recovery *rc)
{
	int err;

	if (!rc->apply || rc->failed || rc->log.damaged || !rc->log.n_groups || rc->log.retired >= rc->log.last_lsn)
		return 0;
	/* unlinks and renames of before, too: the log will not bring back what they took away.  Once more after an error: see
	 * redo_sync_names() */
	err = rc->io->syncfs(rc->io->ctx, rc->store_fd);
	if (err)
		err = rc->io->syncfs(rc->io->ctx, rc->store_fd);
	if (err)
		return fail(err, "recovery cannot sync the store: %s", strerror(-err));
	err = out_flush(&rc->out, true);
	if (!err)
		redo_sides_drop(rc->io, rc->log_dir);
	return err;
}

static int run(struct recovery *rc)
{
	int err = log_open(rc->io, rc->log_dir, rc->keys, rc->apply, &rc->log);

	if (!err)
		err = group_files(rc);
	if (!err)
		err = run_files(rc);
	if (!err)
		err = report_lost(rc);
	if (!err)
		err = finish(rc);
	rc->found.groups = rc->log.n_groups;
	rc->found.next_lsn = rc->log.last_lsn + 1;
	rc->found.next_epoch = rc->log.last_epoch + 1;
	rc->found.half = 1 - rc->log.half;
	rc->found.other_end = rc->log.n_groups ? rc->log.end : 0;
	return err;
}

static void recovery_free(struct recovery *rc)
{
	for (size_t i = 0; i < rc->n_plans; i++)
		plan_free(&rc->plans[i]);
	for (size_t i = 0; i < rc->n_files; i++) {
		for (size_t k = 0; k < rc->files[i].n_targets; k++)
			free(rc->files[i].targets[k].path);
		free(rc->files[i].targets);
	}
	for (size_t i = 0; i < rc->n_damage; i++)
		free(rc->damage[i].path);
	free(rc->damage);
	free(rc->files);
	free(rc->recs);
	free(rc->out.p);
	log_close(&rc->log);
	free(rc);
}

int recover(const struct io *io, int log_dir, int store_fd, const struct recover_keys *keys, bool apply,
	    void (*event)(void *arg, const char *path, const char *text), void *arg, struct recovered *ret,
	    struct recover_damage **ret_damaged, size_t *ret_n_damaged)
{
	struct recovery *rc = calloc(1, sizeof(*rc));
	int err;

	if (!rc)
		return -ENOMEM;
	rc->io = io;
	rc->log_dir = log_dir;
	rc->store_fd = store_fd;
	rc->keys = keys;
	rc->apply = apply;
	rc->event = event;
	rc->arg = arg;
	rc->log.fd[0] = rc->log.fd[1] = -1;
	rc->out.l = &rc->log;
	rc->out.log_dir = log_dir;
	err = run(rc);
	if (!err) {
		if (rc->log.damaged)
			tell(rc, "", "the log is damaged: something that was durable is missing from it; the volume stays read-only");
		err = rc->log.damaged || rc->failed;
		*ret = rc->found;
		*ret_damaged = STEAL(rc->damage);
		*ret_n_damaged = rc->n_damage;
		rc->n_damage = 0;
	}
	recovery_free(rc);
	return err;
}
