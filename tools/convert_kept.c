/* SPDX-License-Identifier: Apache-2.0 */
/* Sources that a worker has open from their staging to their end: a hash table with open addressing, by inode number. */
#include <errno.h>
#include <sys/resource.h>

#include "convert_one.h"

#define KEPT_ROOM 8192u /* a power of two, at most half of it in use */

int one_kept_init(struct one *w)
{
	struct rlimit limit;

	w->kept = malloc(KEPT_ROOM * sizeof(*w->kept));
	if (!w->kept)
		return -ENOMEM;
	for (size_t i = 0; i < KEPT_ROOM; i++)
		w->kept[i].fd = w->kept[i].out_fd = -1;
	if (getrlimit(RLIMIT_NOFILE, &limit))
		return -errno;
	limit.rlim_cur = MIN(limit.rlim_max, KEPT_ROOM);
	(void)setrlimit(RLIMIT_NOFILE, &limit);
	/* besides what waits for convert_close.c */
	w->max_kept = getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur < 512 ? 0 : (size_t)limit.rlim_cur - 320;
	if (w->run->verb == CONVERT_OUT) /* each with what was made of it */
		w->max_kept /= 2;
	w->max_kept = MIN(w->max_kept, KEPT_ROOM / 2);
	return 0;
}

static size_t kept_place(const struct one *w, uint64_t ino)
{
	size_t i = (size_t)(ino * 0x9e3779b97f4a7c15u >> 40) % KEPT_ROOM;

	while (w->kept[i].fd >= 0 && w->kept[i].ino != ino)
		i = (i + 1) % KEPT_ROOM;
	return i;
}

void one_keep(struct one *w, int *fd, int *out_fd, const struct item_answer *a)
{
	size_t i;

	if (a->result != ITEM_STAGED || !w->run->in_place || w->n_kept >= w->max_kept)
		return;
	i = kept_place(w, a->stamp.ino);
	if (w->kept[i].fd >= 0) { /* of a file that was there before */
		close(w->kept[i].fd);
		close_fd(&w->kept[i].out_fd);
	} else {
		w->n_kept++;
	}
	w->kept[i] = (struct kept){a->stamp.ino, a->out_ino, *fd, out_fd ? *out_fd : -1};
	*fd = -1;
	if (out_fd)
		*out_fd = -1;
}

int one_kept_out(struct one *w, const struct item_order *o)
{
	struct kept *k = &w->kept[kept_place(w, o->stamp.ino)];
	int fd = k->fd >= 0 && k->out_ino == o->out_ino ? k->out_fd : -1;

	if (fd >= 0)
		k->out_fd = -1;
	return fd;
}

int one_kept_take(struct one *w, uint64_t ino)
{
	size_t i = kept_place(w, ino), hole;
	int fd = w->kept[i].fd;

	if (fd < 0)
		return -1;
	w->kept[i].fd = -1;
	close_fd(&w->kept[i].out_fd);
	w->kept[i].out_fd = -1;
	w->n_kept--;
	/* what was put behind it because this place was taken moves up */
	for (hole = (i + 1) % KEPT_ROOM; w->kept[hole].fd >= 0; hole = (hole + 1) % KEPT_ROOM) {
		struct kept k = w->kept[hole];

		w->kept[hole].fd = w->kept[hole].out_fd = -1;
		w->kept[kept_place(w, k.ino)] = k;
	}
	return fd;
}
