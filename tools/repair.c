/* SPDX-License-Identifier: Apache-2.0 */
#include "repair.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "progress.h"
#include "redo.h"
#include "say.h"
#include "tree.h"

#define LEASE ((uint64_t)1 << 20) /* FORMAT.md section 3 */

static int header_write(const struct io *io, int fd, const struct volume *v, struct record *r, uint32_t crc)
{
	uint8_t sector[SECTOR], hint[HINT_LEN];
	struct stat st;
	int err;

	r->state = RECORD_SEALED;
	r->invocations += LEASE; /* what was lost may have used some */
	clock_gettime(CLOCK_REALTIME, &r->made);
	err = record_sector(r, crc, v->k_rec, sector);
	if (!err)
		err = io_pwrite(io, fd, sector, sizeof(sector), 0);
	if (!err)
		err = io->stat(io->ctx, fd, &st);
	if (!err && hint_make(r, (uint64_t)st.st_size, v->k_hint, hint) == 0)
		(void)io->set_xattr(io->ctx, fd, HINT_XATTR, hint, sizeof(hint));
	return err ? err : io->sync(io->ctx, fd, true);
}

int accept_old(const struct volume *v, const char *path, uint64_t *ret_generation)
{
	struct target t = {(struct volume *)v, v->kas};
	struct io io = io_posix(v->store_fd);
	CLEANUP(container_cleanup) struct container *c = NULL;
	CLEANUP_FD int fd = io.open(io.ctx, AT_FDCWD, path, O_RDWR | O_NONBLOCK, 0);
	struct record r;
	struct stat st;
	int err;

	if (fd < 0)
		return fd;
	err = io.stat(io.ctx, fd, &st);
	if (err)
		return err;
	if (!S_ISREG(st.st_mode))
		return fail(-EINVAL, "not a regular file");
	err = target_container(&t, &io, fd, &c);
	if (err)
		return err;
	if (!c->native)
		return fail(-EINVAL, "not a file of this volume");
	if (c->rec.state != RECORD_LIVE)
		return 1;
	r = c->rec;
	err = header_write(&io, fd, v, &r, c->crc);
	if (!err)
		*ret_generation = r.generation;
	return err;
}

struct live {
	const struct volume *v;
	int (*each)(void *arg, const char *path);
	void *arg;
};

static int live_look(void *arg, const struct tree_entry *e)
{
	const struct live *l = arg;
	CLEANUP_FD int fd = -1;
	uint8_t sector[SECTOR];
	struct record r;

	if (interrupted())
		return -EINTR;
	if (!S_ISREG(e->st.st_mode) || !name_is_tdf(e->name) || e->st.st_size < SECTOR)
		return 0;
	fd = openat(e->dir_fd, e->name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0 || pread(fd, sector, sizeof(sector), 0) != sizeof(sector)) {
		report(REPORT_WARN, "%s: cannot be read, so whether it needs the log is not known", e->path);
		return 0;
	}
	/* what is no sound record is not waiting for a log, whatever else is wrong with it */
	if (record_parse(sector, l->v->k_rec, &r, NULL) || r.state != RECORD_LIVE || memcmp(r.volume_id, l->v->id, ID_LEN) != 0)
		return 0;
	return l->each(l->arg, e->path);
}

static void live_bad(void *arg, const char *path, int err)
{
	fail_clear();
	complain_file(err, path, NULL);
}

int live_walk(const struct volume *v, const char *path, int (*each)(void *arg, const char *path), void *arg)
{
	struct live l = {v, each, arg};
	struct tree_calls calls = {&l, live_look, live_bad};

	return tree_walk(path, &calls);
}

int log_renew(const struct volume *v)
{
	struct io io = io_posix(v->store_fd);

	for (int i = 0; i < 2; i++) {
		char name[16], aside[32];

		snprintf(name, sizeof(name), "log.%d", i);
		snprintf(aside, sizeof(aside), "log.%d.damaged", i);
		if (renameat(v->dir_fd, name, v->dir_fd, aside) && errno != ENOENT)
			return fail(-errno, "%s cannot be put aside: %s", name, strerror(errno));
	}
	return redo_create(&io, v->dir_fd, v->log_half);
}
