/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who works on which chunk.  A chunk is claimed by locking it and then renaming it: of several that try one wins, and it is locked from
 * the first moment that it can be seen in work/.
 *
 * Whether an owner lives is told by its lock; of an owner on another machine, where locks may not reach, also by the time of its last beat.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/file.h>

#include "options.h"
#include "plan_i.h"
#include "report.h"

#define DEAD_SECONDS 300 /* of silence of another machine */

int treeplan_join(struct plan *p)
{
	char host[64] = "", path[100];

	if (gethostname(host, sizeof(host) - 1))
		snprintf(host, sizeof(host), "host");
	for (char *c = host; *c; c++)
		if (*c == '.' || *c == '/')
			*c = '-';
	snprintf(p->me, sizeof(p->me), "%s.%ld", host, (long)getpid());
	snprintf(path, sizeof(path), "run/%s", p->me);
	if (mkdirat(p->dir, path, 0700) && errno != EEXIST)
		return -errno;
	p->run_dir = openat(p->dir, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return p->run_dir < 0 ? -errno : 0;
}

/* "000042" or "000042.HOST.PID" */
static bool name_index(const char *name, uint64_t *ret)
{
	char digits[24];
	size_t n = strcspn(name, ".");

	if (!n || n >= sizeof(digits))
		return false;
	memcpy(digits, name, n);
	digits[n] = 0;
	return number_parse(digits, ret) == 0;
}

static bool is_mine(const struct plan *p, uint64_t index)
{
	return !p->n_shards || index % p->n_shards == p->shard;
}

static bool same_host(const struct plan *p, const char *name)
{
	const char *host = strchr(name, '.');
	size_t n = strcspn(p->me, ".");

	return host && strncmp(host + 1, p->me, n) == 0 && host[1 + n] == '.';
}

/* By the clock of the machine that has the file system. */
static bool is_silent(struct plan *p, int fd)
{
	struct stat mine, theirs;

	return futimens(p->run_dir, NULL) == 0 && fstat(p->run_dir, &mine) == 0 && fstat(fd, &theirs) == 0 &&
	       mine.st_mtim.tv_sec - theirs.st_mtim.tv_sec > DEAD_SECONDS;
}

/* Make @name in @from ours.  1 it is; 0 somebody else was faster or has it; -errno */
static int claim_take(struct plan *p, const char *from, const char *name, uint64_t index, struct plan_claim **ret)
{
	char path[400], mine[200];
	CLEANUP_FD int fd = -1;
	struct plan_claim *c;

	snprintf(path, sizeof(path), "%s/%s", from, name);
	snprintf(mine, sizeof(mine), "work/%06" PRIu64 ".%s", index, p->me);
	fd = openat(p->dir, path, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	if (flock(fd, LOCK_EX | LOCK_NB) && (errno == EWOULDBLOCK || errno == EINTR))
		return 0;
	if (*from == 'w' && !same_host(p, name) && !is_silent(p, fd))
		return 0;
	if (renameat(p->dir, path, p->dir, mine))
		return errno == ENOENT ? 0 : -errno;
	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	(void)futimens(fd, NULL);
	c->index = index;
	c->fd = fd;
	fd = -1;
	c->next = p->claims;
	p->claims = c;
	*ret = c;
	return 1;
}

static bool is_ours(const struct plan *p, uint64_t index)
{
	for (const struct plan_claim *c = p->claims; c; c = c->next)
		if (c->index == index)
			return true;
	return false;
}

/* Any chunk in @from that can be had: of our shard, or (not @mine) of the others. */
static int claim_any(struct plan *p, const char *from, bool mine, struct plan_claim **ret)
{
	int got = 0, fd = openat(p->dir, from, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;
	uint64_t index;

	if (!d) {
		int err = -errno;

		close_fd(&fd);
		return err;
	}
	while (!got && (e = readdir(d)) != NULL)
		if (name_index(e->d_name, &index) && is_mine(p, index) == mine && !is_ours(p, index))
			got = claim_take(p, from, e->d_name, index, ret);
	closedir(d);
	return got;
}

int plan_claim_next(struct plan *p, char **ret_text, size_t *ret_len, struct plan_claim **ret)
{
	static const char *const from[] = {"queue", "work"};
	struct plan_claim *c = NULL;
	int got = 0, err;

	for (unsigned i = 0; !got && i < 4; i++)
		got = claim_any(p, from[i % 2], i < 2, &c);
	if (got <= 0)
		return got;
	err = plan_list_read(p, c->fd, c->index, ret_text, ret_len);
	if (err) {
		c->again = true;
		plan_claim_end(p, c);
		return err;
	}
	*ret = c;
	return 1;
}

int plan_claim_end(struct plan *p, struct plan_claim *c)
{
	char mine[200], to[64];
	int err;

	for (struct plan_claim **q = &p->claims; *q; q = &(*q)->next)
		if (*q == c) {
			*q = c->next;
			break;
		}
	snprintf(mine, sizeof(mine), "work/%06" PRIu64 ".%s", c->index, p->me);
	snprintf(to, sizeof(to), "%s/%06" PRIu64, c->again ? "queue" : "done", c->index);
	err = renameat(p->dir, mine, p->dir, to) ? -errno : 0;
	close_fd(&c->fd);
	free(c);
	return err == -ENOENT ? 0 : err; /* taken over by somebody who thought that we were dead: he ends it */
}

void plan_claims_end(struct plan *p)
{
	while (p->claims) {
		p->claims->again = true;
		(void)plan_claim_end(p, p->claims);
	}
}

void treeplan_beat(struct plan *p)
{
	for (struct plan_claim *c = p->claims; c; c = c->next)
		(void)futimens(c->fd, NULL);
}

static int count_one(void *arg, const char *name, unsigned char d_type, ino_t ino)
{
	uint64_t index;

	*(uint64_t *)arg += name_index(name, &index);
	return 0;
}

int treeplan_count(const struct plan *p, struct plan_counts *ret)
{
	static const char *const names[] = {"queue", "work", "done"};
	uint64_t n[3] = {0};
	struct io io = io_posix(p->dir);

	for (size_t i = 0; i < 3; i++) {
		CLEANUP_FD int fd = openat(p->dir, names[i], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		int err = fd < 0 ? -errno : io.list(io.ctx, fd, count_one, &n[i]);

		if (err)
			return err;
	}
	*ret = (struct plan_counts){n[0], n[1], n[2]};
	return 0;
}
