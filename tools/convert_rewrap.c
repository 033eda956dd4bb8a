/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sealed to sealed: one file under another KAS key or policy, and with them (or when it is asked for) a fresh data key.
 *
 * The new file waits in .tdfs/convert/tmp under the old one's inode number until it is durable and verified, then it is renamed over the
 * old one.  Of a file with several names it keeps a name there until it has all of them: so a run that goes on can tell that they belong
 * together.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>

#include "convert_one.h"
#include "report.h"
#include "tree.h"

void waiting_name(const struct convert_run *run, uint64_t ino, bool set, char ret[static TEMP_ROOM])
{
	snprintf(ret, TEMP_ROOM, "%c%" PRIu64, run->live ? LIVE_WAITS : set ? REWRAP_SET : REWRAP_ONE, ino);
}

/* Nothing to be done? */
static bool is_current(const struct one *w, const struct container *c)
{
	return kas_is_current(w->run->v->kas, c->m) && (!w->policy || strcmp(c->m->policy, w->policy) == 0);
}

/*
 * By its manifest, before a KAS elsewhere is asked: who has just shut himself out can go on with the files that are left, and done ones
 * cost no request.  The manifest is not known to be authentic then; if it is not, the file does not open, whatever is done here.
 */
static bool shows_current(const struct one *w, const struct io *io, int fd, struct item_answer *a)
{
	const struct volume *v = w->run->v;
	const struct container_keys keys = {v->k_rec, v->k_seal, v->id};
	CLEANUP(container_cleanup) struct container *c = NULL;

	if (!kas_is_remote(v->kas) || container_open(io, fd, &keys, &c) || !c->native || !is_current(w, c))
		return false;
	a->bytes = c->m->size;
	a->result = ITEM_ALREADY;
	return true;
}

/* false: @a says why this one is left as it is */
static bool open_source(struct one *w, int fd, const struct stat *st, struct whole *whole, struct io *io, struct container **ret,
			struct item_answer *a)
{
	int err;

	if (!one_is_sealed(w, fd, st, a))
		return false;
	err = whole_read(&w->sealer, &w->io, fd, (uint64_t)st->st_size, whole, io);
	if (!err && shows_current(w, io, fd, a))
		return false;
	if (!err) {
		fail_clear();
		err = sealed_open(w->run->v, io, fd, ret);
	}
	if (err) {
		a->result = (uint8_t)one_fail(err);
		return false;
	}
	a->bytes = (*ret)->m->size;
	if (!is_current(w, *ret))
		return true;
	a->result = ITEM_ALREADY;
	return false;
}

/* A run that was stopped has given some of the names already: is what it has made still this file in its next generation?  0 yes, 1 no,
 * -errno */
static int set_resumed(struct one *w, const struct io *io, int fd, const struct container *c, const char *temp_name, struct item_answer *a)
{
	CLEANUP_FD int had = content_open(w->run->temp_dir, temp_name);
	uint8_t hash[HASH_LEN];
	struct record r = {0};
	enum sibling kind;
	struct stat st;
	int err;

	if (had < 0)
		return errno == ENOENT ? 1 : -errno;
	if (fstat(had, &st))
		return -errno;
	/* the source first: both are read through the same buffer */
	err = sealed_read(&w->sealer, io, fd, c, -1, a->hash);
	if (!err)
		err = sibling_look(&w->sealer, had, (uint64_t)st.st_size, &kind, &r);
	if (err)
		return err;
	if (kind != SIBLING_SEALED || memcmp(r.file_id, c->rec.file_id, ID_LEN) || r.generation != c->rec.generation + 1 ||
	    r.s != c->rec.s || sealed_hash(&w->sealer, &w->io, had, (uint64_t)st.st_size, hash) || memcmp(hash, a->hash, HASH_LEN))
		return 1;
	a->out_ino = st.st_ino;
	a->s = r.s;
	a->verified = 1;
	a->result = ITEM_STAGED;
	return 0;
}

static int write_new(struct one *w, int fd, const struct stat *st, const struct container *c, const struct item_order *o, int temp,
		     struct item_answer *a)
{
	const char *policy = w->policy ? w->policy : c->m->policy, *what = "";
	const struct seal_from from = {fd, &w->io, c, policy}; /* the buffer that was read before is needed to write */
	bool keep = w->run->keep_dek && strcmp(policy, c->m->policy) == 0;
	struct stat made, now;
	uint32_t s = 0;
	int err =
	    keep ? reseal_fd(&w->sealer, &from, temp, a->hash, &s) : seal_fd(&w->sealer, &from, st, temp, o->verify ? a->hash : NULL, &s);

	a->s = s;
	if (!err)
		err = fstat(temp, &made) ? -errno : meta_copy(fd, st, temp, &made, true, w->flags, true, &what);
	if (err)
		return *what ? fail(err, "its %s cannot be kept: %s", what, strerror(-err)) : err;
	if (fstat(fd, &now))
		return -errno;
	if (now.st_ctim.tv_sec != st->st_ctim.tv_sec || now.st_ctim.tv_nsec != st->st_ctim.tv_nsec || now.st_size != st->st_size)
		return fail(-ESTALE, "changed while it was read");
	a->out_ino = made.st_ino;
	a->result = ITEM_STAGED;
	return 0;
}

/* What a run that was stopped has made of this file is half in place: the rest follows.  0 yes, 1 no, -errno */
static int set_go_on(struct one *w, int fd, const struct stat *st, const char *temp_name, struct item_answer *a)
{
	CLEANUP(container_cleanup) struct container *c = NULL;
	struct whole whole;
	struct io io;
	int err;

	if (!w->set || faccessat(w->run->temp_dir, temp_name, F_OK, AT_SYMLINK_NOFOLLOW))
		return 1;
	if (!one_is_sealed(w, fd, st, a))
		return a->result == ITEM_FAILED ? -EBADMSG : 1;
	err = whole_read(&w->sealer, &w->io, fd, (uint64_t)st->st_size, &whole, &io);
	if (!err)
		err = sealed_open(w->run->v, &io, fd, &c);
	if (err)
		return err;
	a->bytes = c->m->size;
	return set_resumed(w, &io, fd, c, temp_name, a);
}

/* The new file, in .tdfs/convert/tmp */
static int make_new(struct one *w, int fd, const struct stat *st, const struct container *c, const struct item_order *o,
		    const char *temp_name, struct item_answer *a)
{
	CLEANUP_FD int temp = -1;
	int err;

	(void)unlinkat(w->run->temp_dir, temp_name, 0); /* of a worker that died, or of names that are no more */
	temp = openat(w->run->temp_dir, temp_name, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (temp < 0)
		return fail(-errno, "making the new file: %s", strerror(errno));
	err = write_new(w, fd, st, c, o, temp, a);
	if (err)
		(void)unlinkat(w->run->temp_dir, temp_name, 0);
	return err;
}

void stage_rewrap(struct one *w, const struct item_order *o, const char *name, unsigned links, struct item_answer *a)
{
	CLEANUP(container_cleanup) struct container *c = NULL;
	CLEANUP_FD int fd = -1;
	char temp_name[TEMP_ROOM];
	struct whole whole;
	struct stat st;
	struct io io;
	int err;

	if (!name_is_tdf(name)) {
		a->result = ITEM_PLAIN;
		return;
	}
	if (!one_look(w, name, &fd, &st, a))
		return;
	waiting_name(w->run, st.st_ino, w->set, temp_name);
	err = set_go_on(w, fd, &st, temp_name, a);
	if (err == 1 && w->run->recover) {
		a->result = ITEM_PLAIN;
		return;
	}
	if (err == 1) {
		*a = (struct item_answer){.stamp = a->stamp};
		if (!open_source(w, fd, &st, &whole, &io, &c, a) || !one_ready(w, fd, links, &st, a))
			return;
		err = make_new(w, fd, &st, c, o, temp_name, a);
	}
	if (err)
		a->result = (uint8_t)one_fail(err);
	if (!w->set)
		one_keep(w, &fd, NULL, a);
}

/* The new file takes over @name. */
static int name_take(struct one *w, const char *temp_name, const char *name)
{
	char link_name[TEMP_ROOM + 2];

	if (!w->set)
		return renameat(w->run->temp_dir, temp_name, w->from_dir, name) ? -errno : 0;
	snprintf(link_name, sizeof(link_name), "%s.n", temp_name);
	if (unlinkat(w->run->temp_dir, link_name, 0) && errno != ENOENT)
		return -errno;
	if (linkat(w->run->temp_dir, temp_name, w->run->temp_dir, link_name, 0))
		return -errno;
	return renameat(w->run->temp_dir, link_name, w->from_dir, name) ? -errno : 0;
}

int waiting_open(struct one *w, const struct item_order *o, bool set)
{
	char temp_name[TEMP_ROOM];

	waiting_name(w->run, o->stamp.ino, set, temp_name);
	return content_open(w->run->temp_dir, temp_name);
}

void waiting_drop(struct one *w, const struct item_order *o, bool set)
{
	char temp_name[TEMP_ROOM];
	struct stat st;

	waiting_name(w->run, o->stamp.ino, set, temp_name);
	/* another file may have got the inode number since, and be waiting in its place */
	if (fstatat(w->run->temp_dir, temp_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_ino == o->out_ino && st.st_nlink == 1)
		(void)unlinkat(w->run->temp_dir, temp_name, 0);
}

int waiting_check(struct one *w, const struct item_order *o, bool set)
{
	CLEANUP_FD int fd = waiting_open(w, o, set);
	struct stat st;

	if (fd < 0 || fstat(fd, &st))
		return fail(-errno, "verifying what was made of it: %s", strerror(errno));
	if (st.st_ino != o->out_ino)
		return fail(-ESTALE, "what was made of it was replaced by somebody else");
	return o->verify ? one_compare(w, fd, (uint64_t)st.st_size, o->hash, "what was made of it") : 0;
}

void commit_rewrap(struct one *w, const struct item_order *o, const char *name, unsigned links, struct item_answer *a)
{
	CLEANUP_FD int fd = -1;
	char temp_name[TEMP_ROOM];
	struct stat now;
	int err, still;

	waiting_name(w->run, o->stamp.ino, w->set, temp_name);
	/* a worker that died here may have come to the end */
	if (o->retry && fstatat(w->from_dir, name, &now, AT_SYMLINK_NOFOLLOW) == 0 && now.st_ino == o->out_ino) {
		a->result = ITEM_DONE;
		return;
	}
	err = waiting_check(w, o, w->set);
	if (err)
		a->result = (uint8_t)one_fail(err);
	else if ((still = one_still(w, o, name, links, &fd, a)) == 0)
		a->result = ITEM_GONE;
	else if (still > 0 && !w->set && (err = name_take(w, temp_name, name)) != 0)
		a->result = (uint8_t)one_fail(fail(err, "putting the new file in its place: %s", strerror(-err)));
	else if (still > 0)
		a->result = ITEM_DONE;
	if (a->result == ITEM_DONE && !w->set)
		one_close_later(w, &fd, o->stamp.size);
	if (a->result != ITEM_DONE)
		waiting_drop(w, o, w->set);
}

int rewrap_name(struct one *w, const struct item_order *o, const char *name)
{
	char temp_name[TEMP_ROOM];
	struct stat st;
	int err;

	waiting_name(w->run, o->stamp.ino, true, temp_name);
	if (fstatat(w->from_dir, name, &st, AT_SYMLINK_NOFOLLOW) || st.st_ino != o->stamp.ino)
		return 0; /* gone, or somebody else's by now */
	err = name_take(w, temp_name, name);
	return err ? fail(err, "putting the new file in the place of %s: %s", name, strerror(-err)) : 0;
}

void rewrap_set_end(struct one *w, const struct item_order *o)
{
	char temp_name[TEMP_ROOM];

	waiting_name(w->run, o->stamp.ino, true, temp_name);
	(void)unlinkat(w->run->temp_dir, temp_name, 0);
}
