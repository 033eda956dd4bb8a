/* SPDX-License-Identifier: Apache-2.0 */
/* What stat needs of a file that is not live: the size hint, else its first sector; and what else can be told of one. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

#include "inode_i.h"

/* The ctime to show is that of the user's last change, unless somebody (chmod, link, a backup tool) changed the store file after it was
 * sealed. */
void inode_show_ctime(struct stat *s, const struct timespec *user, uint32_t made)
{
	uint32_t after = (uint32_t)s->st_ctim.tv_sec - made + 2;

	if (after <= 4)
		s->st_ctim = *user;
}

static int peek_sector(struct store *st, int dirfd, const char *name, struct stat *s)
{
	uint8_t sector[SECTOR] = {0};
	struct record rec;
	struct stat now;
	int fd, err;
	ssize_t n;

	fd = open_store_file(st, dirfd, name, false);
	if (fd < 0)
		return fd;
	err = st->io.stat(st->io.ctx, fd, &now);
	if (!err && now.st_ino != s->st_ino) {
		st->io.close(st->io.ctx, fd);
		return -ESTALE;
	}
	n = err ? err : st->io.pread(st->io.ctx, fd, sector, SECTOR, 0);
	err = n < 0 ? (int)n : record_own(sector, st->keys.k_rec, st->keys.volume_id, &rec, NULL);
	if (err == -ENOENT) {
		foreign_size_peek(st, fd, s);
		err = 0;
	} else if (err || rec.state <= RECORD_NEW) {
		s->st_size = 0;
		err = err ? err : -ENODATA;
	} else {
		s->st_size = (off_t)rec.size;
		inode_show_ctime(s, &rec.ctime, (uint32_t)rec.made.tv_sec);
	}
	st->io.close(st->io.ctx, fd);
	return err;
}

#ifndef SYS_getxattrat /* the same on every architecture but one */
#define SYS_getxattrat 464
#endif
#if defined(__alpha__)
#undef SYS_getxattrat
#define SYS_getxattrat 574
#endif

/* Linux 6.13; a third of the price of the way through /proc, which is most of what a stat costs here. */
static ssize_t get_at(int dirfd, const char *name, uint8_t *raw, size_t room)
{
	struct {
		uint64_t value;
		uint32_t size, flags;
	} args = {(uintptr_t)raw, (uint32_t)room, 0};

	return syscall(SYS_getxattrat, dirfd, name, AT_SYMLINK_NOFOLLOW, HINT_XATTR, &args, sizeof(args));
}

ssize_t hint_get(struct store *st, int dirfd, const char *name, uint8_t raw[static HINT_LEN + 1])
{
	char path[32 + NAME_MAX + 1];
	ssize_t n;

	if (*name && !st->no_getxattrat) {
		n = get_at(dirfd, name, raw, HINT_LEN + 1);
		if (n >= 0 || (errno != ENOSYS && errno != EPERM)) /* EPERM: a filter of system calls that does not know it */
			return n;
		st->no_getxattrat = true;
	}
	snprintf(path, sizeof(path), "/proc/self/fd/%d%s%s", dirfd, *name ? "/" : "", name);
	return *name ? lgetxattr(path, HINT_XATTR, raw, HINT_LEN + 1) : getxattr(path, HINT_XATTR, raw, HINT_LEN + 1);
}

int inode_peek(struct store *st, int dirfd, const char *name, struct stat *s)
{
	uint8_t raw[HINT_LEN + 1];
	struct hint h;
	ssize_t n;

	if (!s->st_size)
		return -ENODATA;
	n = hint_get(st, dirfd, name, raw);
	if (n > 0 && !hint_parse(raw, (size_t)n, (uint64_t)s->st_size, st->keys.k_hint, &h)) {
		s->st_size = (off_t)h.size;
		inode_show_ctime(s, &h.ctime, h.made);
		return 0;
	}
	return peek_sector(st, dirfd, name, s);
}

int inode_policy(struct inode *f, char **ret)
{
	const char *policy;
	char *copy = NULL;

	rwlock_read(&f->lock);
	policy = f->foreign ? f->foreign->m->policy : f->tmpl ? f->tmpl->policy : NULL;
	if (policy)
		copy = strdup(policy);
	rwlock_unlock(&f->lock);
	if (!copy)
		return policy ? -ENOMEM : -ENODATA;
	*ret = copy;
	return 0;
}

int inode_peek_policy(struct store *st, int fd, char **ret)
{
	CLEANUP(container_cleanup) struct container *c = NULL;
	struct container_keys keys = inode_keys(st);
	int err = container_open(&st->io, fd, &keys, &c);

	if (!err)
		*ret = STEAL(c->m->policy);
	return err;
}

const char *inode_origin(const struct inode *f)
{
	return f->plain ? "plain" : f->content == CONTENT_FOREIGN ? "foreign" : "native";
}

uint64_t inode_id(const struct inode *f)
{
	return f->id;
}

ino_t inode_ino(const struct inode *f)
{
	return f->ino;
}
