/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LD_PRELOADed into the daemon by the negative control: every sync says "done" and does nothing.  A crash test that then finds nothing lost
 * cannot find anything.
 */
#undef _FILE_OFFSET_BITS /* both names of pwritev2 are defined here, one must not be made the other */
#include <fcntl.h>
#include <stddef.h>
#include <sys/uio.h>
#include <unistd.h>

int fsync(int fd)
{
	(void)fd;
	return 0;
}

int fdatasync(int fd)
{
	(void)fd;
	return 0;
}

int syncfs(int fd)
{
	(void)fd;
	return 0;
}

int sync_file_range(int fd, off64_t off, off64_t len, unsigned flags)
{
	(void)fd, (void)off, (void)len, (void)flags;
	return 0;
}

ssize_t pwritev2(int fd, const struct iovec *iov, int n, off_t off, int flags)
{
	(void)flags;
	return pwritev(fd, iov, n, off);
}

ssize_t pwritev64v2(int fd, const struct iovec *iov, int n, off64_t off, int flags)
{
	(void)flags;
	return pwritev64(fd, iov, n, off);
}
