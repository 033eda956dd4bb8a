/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file that remembers in which order it was written: blocklog IMAGE LOG MOUNTPOINT
 *
 * MOUNTPOINT/disk is IMAGE; a loop device on it turns a file system's writes and flushes into records of LOG:
 * offset 8, length 8 (0: a flush), the bytes.  What a disk may hold after a power cut is made of that (power-log).
 */
#define FUSE_USE_VERSION 314

#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct {
	int image, log;
} files;

static int is_disk(const char *path)
{
	return strcmp(path, "/disk") == 0;
}

static int op_getattr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
	if (is_disk(path))
		return fstat(files.image, st) ? -errno : 0;
	*st = (struct stat){.st_mode = S_IFDIR | 0755, .st_nlink = 2};
	return strcmp(path, "/") ? -ENOENT : 0;
}

static int op_open(const char *path, struct fuse_file_info *fi)
{
	return is_disk(path) ? 0 : -ENOENT;
}

static int op_read(const char *path, char *buf, size_t len, off_t off, struct fuse_file_info *fi)
{
	ssize_t n = pread(files.image, buf, len, off);

	return n < 0 ? -errno : (int)n;
}

static int record(uint64_t off, const char *buf, uint64_t len)
{
	const uint64_t head[2] = {off, len};

	/* one process, one thread: records do not mix */
	if (write(files.log, head, sizeof(head)) != sizeof(head) || (len && write(files.log, buf, len) != (ssize_t)len))
		return -EIO;
	return 0;
}

static int op_write(const char *path, const char *buf, size_t len, off_t off, struct fuse_file_info *fi)
{
	int err = record((uint64_t)off, buf, len);

	if (err)
		return err;
	return pwrite(files.image, buf, len, off) == (ssize_t)len ? (int)len : -EIO;
}

static int op_fsync(const char *path, int data, struct fuse_file_info *fi)
{
	return record(0, NULL, 0);
}

int main(int argc, char **argv)
{
	static const struct fuse_operations ops = {
	    .getattr = op_getattr, .open = op_open, .read = op_read, .write = op_write, .fsync = op_fsync};
	char foreground[] = "-f", single[] = "-s";
	char *args[] = {argv[0], foreground, single, argc == 4 ? argv[3] : NULL, NULL};

	if (argc != 4) {
		fprintf(stderr, "usage: blocklog IMAGE LOG MOUNTPOINT\n");
		return 2;
	}
	files.image = open(argv[1], O_RDWR | O_CLOEXEC);
	files.log = open(argv[2], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (files.image < 0 || files.log < 0) {
		perror("blocklog");
		return 1;
	}
	return fuse_main(4, args, &ops, NULL);
}
