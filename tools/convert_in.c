/* SPDX-License-Identifier: Apache-2.0 */
/* Plain to sealed: one file. */
#include <errno.h>
#include <fcntl.h>

#include "convert_one.h"
#include "report.h"

/* Is the content of the sealed file @fd what @hash says (in units of the file's own segments)?  0, 1 no, -errno */
static int sealed_compare(struct one *w, int fd, uint64_t len, const uint8_t hash[static HASH_LEN])
{
	uint8_t got[HASH_LEN];
	int err = sealed_hash(&w->sealer, &w->io, fd, len, got);

	return err ? err : memcmp(got, hash, HASH_LEN) != 0;
}

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
static int existing_sealed(struct one *w, int from, const struct stat *st, int sib, const char *target, const struct record *r,
			   struct item_answer *a)
{
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
	err = plain_hash(&w->sealer, from, (uint64_t)st->st_size, r->s, a->hash);
	if (err)
		return err;
	differs = sealed_compare(w, sib, (uint64_t)sib_st.st_size, a->hash);
	if (differs && fits) /* torn, and made from what is still here */
		return debris_drop(w, sib, target);
	if (differs)
		return fail(-EEXIST, "there is a sealed file %s with other content: remove the one that is not wanted", target);
	err = meta_copy(from, st, sib, &sib_st, w->run->in_place, true, w->acl_dir, &what);
	if (err)
		return fail(err, "its %s cannot be kept: %s", what, strerror(-err));
	a->s = r->s;
	a->verified = 1;
	a->result = ITEM_STAGED;
	return 1;
}

/* The name that is needed is taken.  As existing_sealed() */
static int existing_in(struct one *w, int from, const struct stat *st, const char *target, struct item_answer *a)
{
	CLEANUP_FD int sib = openat(w->to_dir, target, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
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
		return existing_sealed(w, from, st, sib, target, &r, a);
	case SIBLING_TORN:
		if (stamp_fits(&r, st))
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

bool already_in(struct one *w, int fd, const struct stat *st, const char *name, struct item_answer *a)
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

static int seal_to(struct one *w, int from, const struct stat *st, const struct item_order *o, const char *target, struct item_answer *a)
{
	char temp_name[TEMP_ROOM];
	CLEANUP_FD int temp = temp_open(w->to_dir, w->run->temp_dir, st->st_mode, temp_name);
	uint32_t s = 0;
	int err;

	if (temp < 0)
		return fail(temp, "making the new file: %s", strerror(-temp));
	err = seal_fd(&w->sealer, from, st, temp, o->verify ? a->hash : NULL, &s);
	a->s = s;
	if (!err)
		err = one_put(w, from, st, temp, temp_name, target, a);
	while (err == -EEXIST) {
		err = existing_in(w, from, st, target, a);
		if (err == 0)
			err = one_put(w, from, st, temp, temp_name, target, a);
		else if (err == -EEXIST)
			break;
	}
	if (err || a->verified)
		temp_drop(w->run->temp_dir, temp_name);
	return err < 0 ? err : 0;
}

void stage_in(struct one *w, const struct item_order *o, const char *name, unsigned links, struct item_answer *a)
{
	CLEANUP_FD int fd = -1;
	char target[NAME_ROOM];
	struct stat st;
	int err;

	if (!one_source(w, name, links, &fd, &st, a))
		return;
	err = one_target(w->run, name, target);
	if (!err && (!w->run->in_place || w->run->recover)) {
		struct stat there;

		if (fstatat(w->to_dir, target, &there, AT_SYMLINK_NOFOLLOW) == 0)
			err = existing_in(w, fd, &st, target, a);
		if (err == 0 && w->run->recover) {
			a->result = ITEM_PLAIN;
			return;
		}
	}
	if (err == 0)
		err = seal_to(w, fd, &st, o, target, a);
	if (err < 0 && !a->result)
		a->result = (uint8_t)one_fail(err);
}

/* Reread the sealed file from the disk, with the key as it stands in it. */
static int verify_in(struct one *w, const struct item_order *o, const char *target)
{
	CLEANUP_FD int fd = openat(w->to_dir, target, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	struct stat st;
	int err;

	if (fd < 0 || fstat(fd, &st))
		return fail(-errno, "verifying %s: %s", target, strerror(errno));
	if (st.st_ino != o->out_ino)
		return fail(-ESTALE, "%s was replaced by somebody else", target);
	err = sealed_compare(w, fd, (uint64_t)st.st_size, o->hash);
	return err == 1 ? fail(-EBADMSG, "%s does not decrypt to what was read", target) : err;
}

void commit_in(struct one *w, const struct item_order *o, const char *name, unsigned links, struct item_answer *a)
{
	char target[NAME_ROOM];
	int err = one_target(w->run, name, target);

	if (!err && o->verify)
		err = verify_in(w, o, target);
	if (err) {
		one_drop_target(w, target, o->out_ino);
		a->result = (uint8_t)one_fail(err);
		return;
	}
	if (w->run->in_place)
		one_unlink_source(w, o, name, links, target, a);
	else
		a->result = ITEM_DONE;
}
