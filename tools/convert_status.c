/* SPDX-License-Identifier: Apache-2.0 */
/* What other processes read and write in .tdfs/convert: how far a run is, and what it is asked to do. */
#include <errno.h>
#include <fcntl.h>

#include "convert_job.h"

#define STATUS "status"
#define REQUEST "request"
#define STATUS_MAX ((size_t)64 << 10)

void status_write(int job_dir, const json_t *j)
{
	CLEANUP_FREE char *text = json_dumps(j, JSON_COMPACT);
	CLEANUP_FD int fd = openat(job_dir, STATUS ".new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);

	/* nothing depends on it: a status that could not be written is an old one */
	if (text && fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text))
		(void)renameat(job_dir, STATUS ".new", job_dir, STATUS);
}

json_t *status_read(int job_dir)
{
	struct io io = io_posix(job_dir);
	CLEANUP_FREE char *text = NULL;
	size_t len;

	return io_read_file(&io, job_dir, STATUS, STATUS_MAX, &text, &len) ? NULL : json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
}

enum job_request request_read(int job_dir)
{
	char text[8] = "";
	CLEANUP_FD int fd = openat(job_dir, REQUEST, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

	if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0)
		return REQUEST_NONE;
	return strncmp(text, "pause", 5) == 0 ? REQUEST_PAUSE : strncmp(text, "cancel", 6) == 0 ? REQUEST_CANCEL : REQUEST_NONE;
}

int request_write(int job_dir, enum job_request r)
{
	const char *text = r == REQUEST_PAUSE ? "pause\n" : "cancel\n";
	struct io io = io_posix(job_dir);

	if (r == REQUEST_NONE)
		return unlinkat(job_dir, REQUEST, 0) && errno != ENOENT ? -errno : 0;
	return io_replace(&io, job_dir, REQUEST, text, strlen(text), 0600);
}
