/* SPDX-License-Identifier: Apache-2.0 */
#include "reader.h"

#include <errno.h>
#include <fcntl.h>

#include "say.h"

#define CHUNK ((size_t)1 << 20)

static int reader_complain(int err, const char *path)
{
	switch (-err) {
	case ENOEXEC:
		return complain_file(err, path, "`tdfs encrypt` makes a TDF of a plain file");
	case ENOKEY:
		return complain(err, path, "`tdfs info` tells which keys open it; --kas-key FILE gives another");
	case ENODATA:
		return complain_file(err, path, "nothing was lost that had been completed; delete it if it is not wanted");
	case EBADMSG:
	case EPROTO:
		complain(err, path, "take it from a backup; `tdfs info` tells more");
		return EXIT_TDFS_SOME;
	case EINVAL:
		return complain_file(err, path, NULL);
	default:
		return complain(err, path, NULL);
	}
}

int reader_take(const struct target *t, int fd, const char *path, struct reader *ret)
{
	struct reader r = {.fd = fd, .io = io_posix(fd)};
	int err = 0;

	fail_clear();
	if (fstat(fd, &r.st))
		err = -errno;
	else if (!S_ISREG(r.st.st_mode))
		err = fail(-EINVAL, S_ISDIR(r.st.st_mode) ? "is a directory" : "not a regular file");
	if (!err)
		err = target_container(t, &r.io, fd, &r.c);
	if (err) {
		close(fd);
		return reader_complain(err, path);
	}
	if (r.c->native && r.c->rec.state == RECORD_LIVE)
		report(REPORT_WARN,
		       "%s: newer changes are in the volume's log; this is the last sealed state (generation %llu). `tdfs sync` or `tdfs "
		       "recover` brings it up to date",
		       path, (unsigned long long)r.c->rec.generation);
	*ret = r;
	return EXIT_TDFS_OK;
}

int reader_open(const struct target *t, const char *path, struct reader *ret)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

	fail_clear();
	if (fd < 0)
		return complain_file(-errno, path, errno == EISDIR ? "give a file" : NULL);
	return reader_take(t, fd, path, ret);
}

void reader_close(struct reader *r)
{
	container_free(r->c);
	if (r->fd >= 0)
		close(r->fd);
	r->c = NULL;
	r->fd = -1;
}

static int write_all(int fd, const uint8_t *p, size_t len)
{
	while (len) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno == EINTR && !interrupted())
			continue;
		if (n < 0)
			return -errno;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

int reader_copy(const struct reader *r, uint64_t off, uint64_t len, int out, struct progress *p, bool *ret_output)
{
	uint64_t s = r->c->m->seg_default ? r->c->m->seg_default : CHUNK;
	/* whole segments are decrypted straight into the buffer */
	size_t room = s < CHUNK ? CHUNK / s * s : (size_t)MIN(s, 16 * CHUNK);
	uint64_t end = off >= r->c->m->size ? off : off + MIN(len, r->c->m->size - off);
	uint8_t *buf = malloc(room);
	int err = buf ? 0 : -ENOMEM;

	while (!err && off < end) {
		size_t want = (size_t)MIN(end - off, room - off % s % room);
		ssize_t n = container_read(&r->io, r->fd, r->c, buf, want, off);

		if (interrupted())
			err = -EINTR;
		else if (n <= 0)
			err = n < 0 ? (int)n : -EIO;
		if (err)
			break;
		err = write_all(out, buf, (size_t)n);
		if (err) {
			*ret_output = true;
			break;
		}
		off += (uint64_t)n;
		progress_add(p, (uint64_t)n, 0);
	}
	if (buf)
		wipe(buf, room);
	free(buf);
	return err;
}
