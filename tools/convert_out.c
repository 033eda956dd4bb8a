/* SPDX-License-Identifier: Apache-2.0 */
/* Sealed to plain: one file. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/xattr.h>

#include "convert_one.h"
#include "report.h"
#include "tree.h"

/* The same content: is it the same otherwise too?  A run that was killed while it took the mark away may have left another mode. */
static int existing_same(struct one *w, const struct source *src, int fd, const struct stat *st, struct item_answer *a)
{
	const char *what = "";
	int err = w->run->in_place ? meta_copy(src->fd, &src->st, fd, st, true, true, w->acl_dir, &what) : 0;

	if (err)
		return fail(err, "its %s cannot be kept: %s", what, strerror(-err));
	a->verified = 1;
	a->result = w->run->in_place ? ITEM_STAGED : ITEM_ALREADY;
	return 1;
}

static int existing_out(struct one *w, const struct source *src, const char *target, struct item_answer *a)
{
	const struct manifest *m = src->c->m;
	CLEANUP_FD int fd = content_open(w->to_dir, target);
	uint8_t got[HASH_LEN];
	enum sibling kind;
	struct record r;
	struct stat s;
	int err;

	if (fd < 0 && errno == ENOENT)
		return 0;
	if (fd < 0 || fstat(fd, &s))
		return fail(-errno, "%s, which is in the way: %s", target, strerror(errno));
	if (!S_ISREG(s.st_mode))
		return fail(-EEXIST, "there is something else with the name %s", target);
	a->out_ino = s.st_ino;
	if (stage_marked(w->run->v, fd, &s, &src->st.st_mtim)) {
		if (one_is_busy(fd))
			return fail(-ESTALE, "%s, which an interrupted run has made, is open in another program", target);
		one_drop_target(w, target, s.st_ino);
		return 0;
	}
	if (w->run->in_place && name_is_tdf(target)) {
		err = sibling_look(&w->sealer, fd, (uint64_t)s.st_size, &kind, &r);
		if (!err && kind == SIBLING_SEALED) {
			a->result = ITEM_COLLISION; /* it is going to move itself */
			return fail(-EEXIST, "the name %s is taken by another sealed file", target);
		}
	}
	fail_clear();
	/* after a run without an end a file may be there whose bytes never reached the disk (where it could not be marked) */
	if (!w->run->in_place && !w->run->suspect_from.tv_sec && (uint64_t)s.st_size == m->size &&
	    s.st_mtim.tv_sec == src->st.st_mtim.tv_sec && s.st_mtim.tv_nsec == src->st.st_mtim.tv_nsec) {
		a->result = ITEM_ALREADY;
		return 1;
	}
	if ((uint64_t)s.st_size != m->size)
		return fail(-EEXIST, "there is a file %s with other content: remove the one that is not wanted", target);
	err = sealed_read(&w->sealer, src->io, src->fd, src->c, -1, a->hash);
	if (!err)
		err = plain_hash(&w->sealer, fd, m->size, m->seg_default, got);
	if (!err && memcmp(got, a->hash, HASH_LEN) != 0)
		err = fail(-EEXIST, "there is a file %s with other content: remove the one that is not wanted", target);
	return err ? err : existing_same(w, src, fd, &s, a);
}

static int open_to(struct one *w, const struct source *src, bool hash, const char *target, int *ret_fd, struct item_answer *a)
{
	char temp_name[TEMP_ROOM];
	CLEANUP_FD int temp = temp_open(w->to_dir, w->run->temp_dir, src->st.st_mode, temp_name);
	uint64_t size = src->c->m->size;
	int err;

	if (temp < 0)
		return fail(temp, "making the new file: %s", strerror(-temp));
	if (size > SEG_MAX && fallocate(temp, 0, 0, (off_t)size) && (errno == ENOSPC || errno == EDQUOT || errno == EFBIG))
		err = fail(-errno, "room for %llu bytes: %s", (unsigned long long)size, strerror(errno));
	else
		err = sealed_read(&w->sealer, src->io, src->fd, src->c, temp, hash ? a->hash : NULL);
	if (!err)
		err = stage_mark(w->run->v, temp, &src->c->rec);
	if (err == -ENOTSUP && !w->run->in_place)
		err = 0; /* a file system without attributes: size, time and, after a crash, content tell */
	if (err) {
		temp_drop(w->run->temp_dir, temp_name);
		return err;
	}
	err = one_place(w, src, temp, temp_name, target, existing_out, a);
	if (!err && !a->verified) { /* else it is one that was there */
		*ret_fd = temp;
		temp = -1;
	}
	return err;
}

/* Open and unlock what is to be decrypted.  false: @a says why not */
static bool open_sealed(struct one *w, struct source *src, int fd, struct whole *whole, struct io *io, struct container **ret,
			struct item_answer *a)
{
	char why[512];
	int err = whole_read(&w->sealer, &w->io, fd, (uint64_t)src->st.st_size, whole, io);

	if (!err)
		err = sealed_open(w->run->v, io, fd, ret);
	if (err || (*ret)->rec.state != RECORD_SEALED) { /* it is none of ours, or is it damaged, or unfinished? */
		snprintf(why, sizeof(why), "%s", fail_text());
		if (!one_is_sealed(w, fd, &src->st, a))
			return false;
		a->result = (uint8_t)one_fail(fail(err ? err : -EAGAIN, "%s", why));
		return false;
	}
	a->bytes = (*ret)->m->size;
	a->s = (*ret)->m->seg_default;
	src->fd = fd;
	src->io = io;
	src->c = *ret;
	return true;
}

bool one_is_sealed(struct one *w, int fd, const struct stat *st, struct item_answer *a)
{
	struct record r = {0};
	enum sibling kind;
	int err = sibling_look(&w->sealer, fd, (uint64_t)st->st_size, &kind, &r);

	if (err) {
		a->result = (uint8_t)one_fail(err);
		return false;
	}
	if (kind == SIBLING_SEALED && r.state == RECORD_SEALED)
		return true;
	fail_clear();
	a->result = ITEM_FAILED;
	if (kind == SIBLING_SEALED)
		fail(-EAGAIN, "has changes in the volume's log: `tdfs recover` first");
	else if (kind == SIBLING_OTHER) {
		fail(-ENOENT, "is no file of this volume");
		a->result = w->run->in_place ? ITEM_PLAIN : ITEM_SKIPPED; /* in place: the user's own, or back already */
	} else if (kind == SIBLING_UNFINISHED) {
		fail(-ENODATA, "was created in a mount and never completed");
		a->result = ITEM_SKIPPED;
	} else {
		fail(-EBADMSG, "is damaged: take it from a backup");
	}
	return false;
}

void stage_out(struct one *w, const struct item_order *o, const char *name, unsigned links, struct item_answer *a)
{
	CLEANUP(container_cleanup) struct container *c = NULL;
	struct source src = {.fd = -1};
	CLEANUP_FD int fd = -1, made = -1;
	char target[NAME_ROOM];
	struct stat there;
	struct whole whole;
	struct io io;
	int err = 0;

	if (!name_is_tdf(name) || one_target(w->run, name, target)) {
		a->result = w->run->in_place ? ITEM_PLAIN : ITEM_SKIPPED;
		fail(-ENOENT, "is no file of this volume");
		return;
	}
	if (!one_look(w, name, &fd, &src.st, a) || !one_ready(w, fd, links, &src.st, a) || !open_sealed(w, &src, fd, &whole, &io, &c, a))
		return;
	if (!w->run->in_place || w->run->recover) {
		if (fstatat(w->to_dir, target, &there, AT_SYMLINK_NOFOLLOW) == 0)
			err = existing_out(w, &src, target, a);
		if (w->run->recover && (err == 0 || a->result == ITEM_COLLISION)) { /* nothing of a run is left here */
			a->result = ITEM_PLAIN;
			return;
		}
	}
	if (err == 0)
		err = open_to(w, &src, o->verify, target, &made, a);
	if (err < 0 && !a->result)
		a->result = (uint8_t)one_fail(err);
	if (links == 1)
		one_keep(w, &fd, o->verify ? NULL : &made, a); /* rereading through it would change the new file's atime */
}

/* An attribute of a file that its owner may not write can be taken away only while he may. */
static int mark_remove(int fd, const struct stat *st)
{
	int err;

	if (fremovexattr(fd, HINT_XATTR) == 0 || errno == ENODATA || errno == ENOTSUP)
		return 0;
	if (errno != EACCES || st->st_mode & 0200)
		return -errno;
	if (fgetxattr(fd, HINT_XATTR, NULL, 0) < 0 && errno == ENODATA)
		return 0;
	if (fchmod(fd, (st->st_mode & 07777) | 0200))
		return -errno;
	err = fremovexattr(fd, HINT_XATTR) && errno != ENODATA ? -errno : 0;
	return fchmod(fd, st->st_mode & 07777) && !err ? -errno : err;
}

/* A worker that died may have taken the mark away and not given the mode back. */
static int mode_restore(struct one *w, int fd, const struct stat *st, const char *target)
{
	char source[NAME_ROOM];
	struct stat of;

	if (name_store(target, true, source) || fstatat(w->from_dir, source, &of, AT_SYMLINK_NOFOLLOW) || of.st_mode & 0200 ||
	    (st->st_mode & 07777) != ((of.st_mode & 07777) | 0200))
		return 0;
	return fchmod(fd, of.st_mode & 07777) ? -errno : 0;
}

/* Reread the plain file and take the mark away that says it may not be durable. */
static int settle_out(struct one *w, const struct item_order *o, const char *target)
{
	CLEANUP_FD int fd = one_kept_out(w, o);
	bool kept = fd >= 0;
	uint8_t got[HASH_LEN];
	struct stat st;
	int err = 0;

	if (!kept)
		fd = content_open(w->to_dir, target);
	if (fd < 0 || (kept ? fstatat(w->to_dir, target, &st, AT_SYMLINK_NOFOLLOW) : fstat(fd, &st)))
		return fail(-errno, "%s: %s", target, strerror(errno));
	if (st.st_ino != o->out_ino)
		return fail(-ESTALE, "%s was replaced by somebody else", target);
	if (o->verify) {
		err = plain_hash(&w->sealer, fd, (uint64_t)st.st_size, o->s, got);
		if (!err && memcmp(got, o->hash, HASH_LEN) != 0)
			err = one_is_touched(o, fd, &st) ? fail(-EEXIST, "somebody has written to %s meanwhile: both stay", target)
							 : fail(-EBADMSG, "%s does not hold what was decrypted", target);
	}
	if (err)
		return err;
	err = mark_remove(fd, &st);
	if (!err && o->retry)
		err = mode_restore(w, fd, &st, target);
	return err ? fail(err, "%s: its mark: %s", target, strerror(-err)) : 0;
}

void commit_out(struct one *w, const struct item_order *o, const char *name, unsigned links, struct item_answer *a)
{
	one_commit(w, o, name, links, settle_out, a);
}
