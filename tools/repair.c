/* SPDX-License-Identifier: Apache-2.0 */
#include "repair.h"

#include <errno.h>
#include <fcntl.h>

#include "report.h"

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
