/* SPDX-License-Identifier: Apache-2.0 */
#include "audit.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>

#include "lock.h"
#include "report.h"

#define REPORT_EVERY 60 /* seconds */

struct audit {
	char *path; /* NULL: standard output */

	struct mutex lock; /* a leaf; held over the write, so that lines stay whole */
	/* guarded by lock */
	int fd;
	bool torn; /* the last line is there in part */
	time_t reported;
};

static int open_file(const char *path)
{
	int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NOFOLLOW, 0600);
	struct stat st;

	if (fd < 0)
		return fail(-errno, "%s: %s", path, strerror(errno));
	/* a pipe nobody reads would stop the server: for that there is standard output */
	if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
		close(fd);
		return fail(-EINVAL, "%s is not a regular file", path);
	}
	return fd;
}

int audit_open(const char *path, struct audit **ret)
{
	struct audit *a = calloc(1, sizeof(*a));
	bool to_stdout = strcmp(path, "-") == 0;

	if (!a)
		return -ENOMEM;
	mutex_init(&a->lock);
	a->fd = to_stdout ? STDOUT_FILENO : open_file(path);
	a->path = to_stdout ? NULL : strdup(path);
	if (a->fd < 0 || (!to_stdout && !a->path)) {
		int err = a->fd < 0 ? a->fd : -ENOMEM;

		audit_free(a);
		return err;
	}
	*ret = a;
	return 0;
}

void audit_free(struct audit *a)
{
	if (!a)
		return;
	if (a->fd >= 0 && a->fd != STDOUT_FILENO)
		close(a->fd);
	mutex_destroy(&a->lock);
	free(a->path);
	free(a);
}

int audit_reopen(struct audit *a)
{
	int fd = a->path ? open_file(a->path) : -1;

	if (!a->path || fd < 0)
		return a->path ? fd : 0;
	mutex_lock(&a->lock);
	close(a->fd);
	a->fd = fd;
	mutex_unlock(&a->lock);
	return 0;
}

void audit_begin(struct buffer *b, const char *event)
{
	struct timespec now;
	struct tm tm;
	char text[32];

	if (clock_gettime(CLOCK_REALTIME, &now) || !gmtime_r(&now.tv_sec, &tm) || !strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm))
		text[0] = '\0';
	buffer_printf(b, "{\"time\":\"%s.%03ldZ\",\"event\":\"%s\"", text, now.tv_nsec / 1000000, event);
}

void audit_member(struct buffer *b, const char *name, const char *value)
{
	if (!value)
		return;
	buffer_printf(b, ",\"%s\":", name);
	buffer_json(b, value, AUDIT_TEXT);
}

void audit_end(struct buffer *b)
{
	buffer_text(b, "}\n");
}

static int write_all(int fd, const char *p, size_t len, bool *torn)
{
	while (len) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		p += n;
		len -= (size_t)n;
		*torn = len > 0;
	}
	return 0;
}

int audit_write(struct audit *a, const struct buffer *b)
{
	int err = buffer_error(b);
	struct timespec now = {0};
	bool tell;

	if (err || !b->len)
		return err;
	mutex_lock(&a->lock);
	if (a->torn)
		err = write_all(a->fd, "\n", 1, &a->torn);
	if (!err)
		err = write_all(a->fd, b->p, b->len, &a->torn);
	if (err)
		(void)clock_gettime(CLOCK_MONOTONIC, &now);
	tell = err && (!a->reported || now.tv_sec - a->reported >= REPORT_EVERY);
	if (tell)
		a->reported = now.tv_sec;
	mutex_unlock(&a->lock);
	if (tell)
		report(REPORT_ERROR, "%s: %s: no key is given out until the audit log can be written",
		       a->path ? a->path : "standard output", strerror(-err));
	return err;
}
