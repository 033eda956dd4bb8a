/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sizes of other clients' files.  Until one is opened its size is a cheap guess (crypto/peek.h), nearly always the right one.  Where it was
 * not, open(2) finds out, remembers the size here and has the kernel look the file up again.
 */
#include "inode_i.h"
#include "peek.h"

static struct foreign_size key_of(const struct stat *s)
{
	return (struct foreign_size){.ino = s->st_ino, .ctime = s->st_ctim, .stored = s->st_size};
}

static bool is_key(const struct foreign_size *a, const struct foreign_size *b)
{
	return a->ino == b->ino && a->stored == b->stored && a->ctime.tv_sec == b->ctime.tv_sec && a->ctime.tv_nsec == b->ctime.tv_nsec;
}

void foreign_size_learn(struct store *st, const struct stat *s, uint64_t size)
{
	struct foreign_size k = key_of(s);

	k.size = size;
	mutex_lock(&st->list_lock);
	st->foreign_sizes[k.ino % FOREIGN_SIZES] = k;
	mutex_unlock(&st->list_lock);
}

void foreign_size_peek(struct store *st, int fd, struct stat *s)
{
	struct foreign_size k = key_of(s), known;
	uint64_t size = 0;

	mutex_lock(&st->list_lock);
	known = st->foreign_sizes[k.ino % FOREIGN_SIZES];
	mutex_unlock(&st->list_lock);
	if (is_key(&known, &k))
		size = known.size;
	else if (peek_size(&st->io, fd, (uint64_t)s->st_size, &size))
		size = 0;
	s->st_size = (off_t)size;
}
