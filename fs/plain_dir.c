/* SPDX-License-Identifier: Apache-2.0 */
/* Names while plain files lie beside sealed ones: which form of a visible name is there, and which counts if a crash has left both. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>

#include "dir.h"
#include "plain.h"
#include "plain_file.h"
#include "record.h"
#include "report.h"

int plain_is(const struct tree *t, int dirfd, const char *stored, const struct stat *st)
{
	char name[NAME_ROOM];
	int ours;

	if (name_show(stored, true, name))
		return 1; /* a sealed file cannot have this name */
	ours = plain_file_ours(t->store, dirfd, stored, st);
	return ours < 0 ? ours : !ours;
}

/* 1: a regular file of the store's file system, 0, -errno */
static int look(const struct tree *t, int fd, const char *stored, struct stat *ret)
{
	if (fstatat(fd, stored, ret, AT_SYMLINK_NOFOLLOW))
		return errno == ENOENT || errno == ENAMETOOLONG ? 0 : -errno;
	return S_ISREG(ret->st_mode) && ret->st_dev == t->nodes->dev;
}

static int look_sealed(const struct tree *t, int fd, const char *name, char file[static NAME_ROOM], struct stat *ret)
{
	int there = name_store(name, true, file) ? 0 : look(t, fd, file, ret);

	return there <= 0 ? there : plain_file_ours(t->store, fd, file, ret);
}

static int look_plain(const struct tree *t, int fd, const char *name, struct stat *ret)
{
	int there = look(t, fd, name, ret);

	return there <= 0 ? there : plain_is(t, fd, name, ret);
}

/* Was the sealed file made from the plain one as it is now, and not changed since?  That is what a swap cut short leaves. */
static bool made_from(const struct tree *t, int fd, const char *file, const struct stat *plain)
{
	int tdf CLEANUP_FD = openat(fd, file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	const struct store_keys *k = &t->store->keys;
	uint8_t sector[SECTOR];
	struct record r;
	bool fits;

	fits = tdf >= 0 && pread(tdf, sector, sizeof(sector), 0) == SECTOR && !record_own(sector, k->k_rec, k->volume_id, &r, NULL) &&
	       r.state == RECORD_SEALED && r.generation == 1 && r.size == (uint64_t)plain->st_size &&
	       r.ctime.tv_sec == plain->st_ctim.tv_sec && r.ctime.tv_nsec == plain->st_ctim.tv_nsec;
	fail_clear();
	return fits;
}

static void tell(const struct tree *t, struct node *dir, const char *name, const char *file, ino_t ino)
{
	char path[PATH_MAX];

	if (atomic_exchange(&t->plain->told, ino) == ino)
		return;
	node_path(t->nodes, dir, name, path, sizeof(path));
	report(REPORT_WARN,
	       "%s: a plain file lies beside the sealed %s and has other content: the sealed one is shown; remove the one that is not "
	       "wanted from the store",
	       path, file);
}

enum form { FORM_NONE, FORM_SEALED, FORM_PLAIN };

/* Both are there: one step of a swap or rename was done and the other was not.  The name lock is held. */
static enum form settle(const struct tree *t, struct node *dir, int fd, const char *name, const char *file, const struct stat *plain,
			const struct stat *sealed)
{
	int x CLEANUP_FD = plain_file_open(t->store, fd, name);
	enum plain_mark mark = x < 0 ? PLAIN_NO_MARK : plain_mark_get(t->store, x);
	struct inode *live = inode_find(t->store, sealed->st_dev, sealed->st_ino);
	enum form wins = mark == PLAIN_WINS || (mark == PLAIN_NO_MARK && !live && made_from(t, fd, file, plain)) ? FORM_PLAIN : FORM_SEALED;
	const struct stat *st = wins == FORM_PLAIN ? sealed : plain;
	const char *loser = wins == FORM_PLAIN ? file : name;

	content_put(live);
	if (wins == FORM_SEALED && mark != PLAIN_GONE) {
		tell(t, dir, name, file, plain->st_ino);
		return wins;
	}
	if (t->store->opt.read_only)
		return wins;
	dir_keep(t, st);
	if (!unlinkat(fd, loser, 0))
		dir_gone(t, dir, loser, st);
	return wins;
}

struct both { /* what lies there under the two stored forms of a name */
	char file[NAME_ROOM];
	struct stat sealed_st, plain_st;
	bool sealed, plain;
};

static int look_both(const struct tree *t, int fd, const char *name, struct both *ret)
{
	int sealed = look_sealed(t, fd, name, ret->file, &ret->sealed_st), plain = sealed < 0 ? 0 : look_plain(t, fd, name, &ret->plain_st);

	if (sealed < 0 || plain < 0)
		return MIN(sealed, plain);
	ret->sealed = sealed;
	ret->plain = plain;
	return 0;
}

int plain_lookup(const struct tree *t, struct node *dir, int fd, const char *name, char ret[static NAME_ROOM])
{
	enum form form = FORM_NONE;
	struct both b = {0};
	int err = look_both(t, fd, name, &b);

	/* both or none: a swap, or a rename from one form to the other, may be between its two steps, or has come between our two looks */
	if (err == -ENOENT || err == -ESTALE || (!err && b.sealed == b.plain)) {
		mutex_lock(&dir->dir->names);
		err = look_both(t, fd, name, &b);
		if (!err && b.sealed && b.plain)
			form = settle(t, dir, fd, name, b.file, &b.plain_st, &b.sealed_st);
		mutex_unlock(&dir->dir->names);
	}
	if (err)
		return err;
	if (!form)
		form = b.sealed ? FORM_SEALED : b.plain ? FORM_PLAIN : FORM_NONE;
	if (!form)
		return -ENOENT;
	snprintf(ret, NAME_ROOM, "%s", form == FORM_SEALED ? b.file : name);
	return 0;
}

int plain_probe(const struct tree *t, struct node *dir, int fd, const char *name, struct probe *p)
{
	struct stat st;
	int ours = p->has_file ? plain_file_ours(t->store, fd, p->file, &p->file_st) : 0, plain;

	if (ours < 0)
		return ours;
	if (p->has_file && !ours) { /* a plain file of the user that has such a name */
		p->has_file = false;
		p->bad_file = p->taken = true;
	}
	plain = look_plain(t, fd, name, &st);
	if (plain > 0 && p->has_file && settle(t, dir, fd, name, p->file, &st, &p->file_st) == FORM_SEALED)
		return 0;
	if (plain <= 0)
		return plain;
	p->has_file = p->is_plain = true;
	p->file_st = st;
	snprintf(p->plain, sizeof(p->plain), "%s", name);
	if (!strcmp(p->other, name))
		p->bad_other = false;
	return 0;
}

bool plain_listed(const struct tree *t, struct node *dir, int fd, const char *stored, char ret[static NAME_ROOM])
{
	char other[NAME_ROOM];
	struct stat st;
	bool plain = look_plain(t, fd, stored, &st) == 1, both;

	if (plain)
		snprintf(ret, NAME_ROOM, "%s", stored);
	else if (name_show(stored, true, ret))
		return false;
	both = plain ? look_sealed(t, fd, ret, other, &st) == 1 : look_plain(t, fd, ret, &st) == 1;
	return !both || (!plain_lookup(t, dir, fd, ret, other) && !strcmp(other, stored));
}

bool plain_there(const struct tree *t, int fd, const char *name)
{
	char file[NAME_ROOM];
	struct stat st;

	return look_sealed(t, fd, name, file, &st) == 1 || look_plain(t, fd, name, &st) == 1;
}

int plain_replaced(const struct tree *t, int dirfd, const char *stored, bool wins)
{
	int fd CLEANUP_FD = plain_file_open(t->store, dirfd, stored);
	int err = fd < 0 ? fd : plain_mark_set(t->store, fd, wins ? PLAIN_WINS : PLAIN_GONE);

	if (!err && fsync(fd))
		err = -errno;
	return err;
}

void plain_reading(const struct tree *t, struct node *dir, bool begin)
{
	mutex_lock(&dir->dir->names);
	dir->dir->reading += begin ? 1u : -1u;
	mutex_unlock(&dir->dir->names);
}
