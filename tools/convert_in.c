/* SPDX-License-Identifier: Apache-2.0 */
/* Plain to sealed: one file. */
#include <errno.h>
#include <fcntl.h>

#include "convert_one.h"
#include "report.h"
#include "tree.h"

/* What is in the way was made by us from this very file and is not whole: 0 it is gone now */
static int debris_drop(struct one *w, int sib, const char *target)
{
	struct stat st;

	if (fstat(sib, &st))
		return -errno;
	one_drop_target(w, target, st.st_ino);
	return 0;
}

/* A sealed file of ours stands there.  1: it is this file's, @a is filled in; 0: was debris and is gone; -errno with @a->result set */
static int existing_sealed(struct one *w, const struct source *src, int sib, const char *target, const struct record *r,
			   struct item_answer *a)
{
	const struct stat *st = &src->st;
	bool fits = stamp_fits(r, st), suspect = w->run->suspect_from.tv_sec && !time_before(&r->made, &w->run->suspect_from);
	const char *what = "";
	struct stat sib_st;
	int err, differs;

	if (fstat(sib, &sib_st))
		return -errno;
	a->out_ino = sib_st.st_ino;
	if (!w->run->in_place && fits && !suspect) {
		a->result = ITEM_ALREADY;
		return 1;
	}
	if (r->state != RECORD_SEALED || r->generation != 1 || r->size != (uint64_t)st->st_size || (!w->run->in_place && !fits))
		return fail(-EEXIST, "there is a sealed file %s with other content: remove the one that is not wanted", target);
	err = plain_hash(&w->sealer, src->fd, (uint64_t)st->st_size, r->s, a->hash);
	if (err)
		return err;
	differs = one_compare(w, sib, (uint64_t)sib_st.st_size, a->hash, target);
	if (differs && fits) /* torn, and made from what is still here */
		return debris_drop(w, sib, target);
	if (differs)
		return fail(-EEXIST, "there is a sealed file %s with other content: remove the one that is not wanted", target);
	err = meta_copy(src->fd, st, sib, &sib_st, w->run->in_place, true, w->acl_dir, &what);
	if (err)
		return fail(err, "its %s cannot be kept: %s", what, strerror(-err));
	a->s = r->s;
	a->verified = 1;
	a->result = ITEM_STAGED;
	return 1;
}

static int existing_in(struct one *w, const struct source *src, const char *target, struct item_answer *a)
{
	CLEANUP_FD int sib = content_open(w->to_dir, target);
	struct record r = {0};
	enum sibling kind;
	struct stat s;
	int err;

	if (sib < 0 && errno == ENOENT)
		return 0;
	if (sib < 0 || fstat(sib, &s))
		return fail(-errno, "%s, which is in the way: %s", target, strerror(errno));
	if (!S_ISREG(s.st_mode))
		return fail(-EEXIST, "there is something else with the name %s", target);
	err = sibling_look(&w->sealer, sib, (uint64_t)s.st_size, &kind, &r);
	if (err)
		return err;
	fail_clear();
	switch (kind) {
	case SIBLING_SEALED:
		return existing_sealed(w, src, sib, target, &r, a);
	case SIBLING_TORN:
		if (stamp_fits(&r, &src->st))
			return debris_drop(w, sib, target);
		return fail(-EEXIST, "there is a damaged sealed file %s that was not made from it: remove it if it is not wanted", target);
	case SIBLING_OTHER:
		if (!w->run->in_place)
			return fail(-EEXIST, "there is a file %s in the store that is no file of the volume", target);
		a->result = ITEM_COLLISION; /* it is going to be converted itself, and then the name is free */
		return fail(-EEXIST, "the name %s is taken by another plain file", target);
	default:
		return fail(-EEXIST, "there is a damaged or unfinished file %s of the volume: remove it if it is not wanted", target);
	}
}

/* A name that ends in .tdf, in place: ours already?  true: @a says what it is */
static bool already_in(struct one *w, int fd, const struct stat *st, const char *name, struct item_answer *a)
{
	char plain[NAME_ROOM];
	struct record r = {0};
	enum sibling kind;
	struct stat other;
	int err = sibling_look(&w->sealer, fd, (uint64_t)st->st_size, &kind, &r);

	if (err) {
		a->result = (uint8_t)one_fail(err);
		return true;
	}
	if (kind == SIBLING_OTHER)
		return false;
	fail_clear();
	if (kind == SIBLING_SEALED) {
		a->result = time_before(&r.made, &w->run->started) ? ITEM_ALREADY : ITEM_OWN;
	} else if (kind == SIBLING_UNFINISHED) {
		fail(-ENODATA, "was created in a mount and never completed");
		a->result = ITEM_SKIPPED;
	} else if (kind == SIBLING_TORN && name_show(name, true, plain) == 0 &&
		   fstatat(w->from_dir, plain, &other, AT_SYMLINK_NOFOLLOW) == 0) {
		a->result = ITEM_OWN; /* dealt with when the file it was made from is */
	} else {
		fail(-EBADMSG, "is a damaged file of this volume: take it from a backup");
		a->result = ITEM_FAILED;
	}
	return true;
}

static int seal_to(struct one *w, const struct source *src, const struct item_order *o, const char *target, struct item_answer *a)
{
	char temp_name[TEMP_ROOM];
	CLEANUP_FD int temp = temp_open(w->to_dir, w->run->temp_dir, src->st.st_mode, temp_name);
	struct seal_from plain = {.fd = src->fd};
	uint32_t s = 0;
	int err;

	if (temp < 0)
		return fail(temp, "making the new file: %s", strerror(-temp));
	err = one_policy(w, target, &plain.policy);
	if (!err)
		err = seal_fd(&w->sealer, &plain, &src->st, temp, o->verify ? a->hash : NULL, &s);
	a->s = s;
	if (err) {
		temp_drop(w->run->temp_dir, temp_name);
		return err;
	}
	return one_place(w, src, temp, temp_name, target, existing_in, a);
}

void stage_in(struct one *w, const struct item_order *o, const char *name, unsigned links, struct item_answer *a)
{
	struct source src = {.fd = -1};
	CLEANUP_FD int fd = -1;
	char target[NAME_ROOM];
	int err;

	if (!one_look(w, name, &fd, &src.st, a))
		return;
	if (w->run->in_place && name_is_tdf(name) && already_in(w, fd, &src.st, name, a))
		return;
	if (!one_ready(w, fd, links, &src.st, a))
		return;
	src.fd = fd;
	err = one_target(w->run, name, target);
	if (!err && (!w->run->in_place || w->run->recover)) {
		struct stat there;

		if (fstatat(w->to_dir, target, &there, AT_SYMLINK_NOFOLLOW) == 0)
			err = existing_in(w, &src, target, a);
		if (w->run->recover && (err == 0 || a->result == ITEM_COLLISION)) { /* nothing of a run is left here */
			a->result = ITEM_PLAIN;
			return;
		}
	}
	if (err == 0)
		err = seal_to(w, &src, o, target, a);
	if (err < 0 && !a->result)
		a->result = (uint8_t)one_fail(err);
	if (links == 1)
		one_keep(w, &fd, NULL, a);
}

/* Reread the sealed file from the disk, with the key as it stands in it. */
static int verify_in(struct one *w, const struct item_order *o, const char *target)
{
	CLEANUP_FD int fd = -1;
	struct stat st;

	if (!o->verify)
		return 0;
	fd = content_open(w->to_dir, target);
	if (fd < 0 || fstat(fd, &st))
		return fail(-errno, "verifying %s: %s", target, strerror(errno));
	if (st.st_ino != o->out_ino)
		return fail(-ESTALE, "%s was replaced by somebody else", target);
	return one_compare(w, fd, (uint64_t)st.st_size, o->hash, target);
}

void commit_in(struct one *w, const struct item_order *o, const char *name, unsigned links, struct item_answer *a)
{
	one_commit(w, o, name, links, verify_in, a);
}
