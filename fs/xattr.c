/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/xattr.h>

#include "attr.h"
#include "encode.h"
#include "plain.h"
#include "record.h"

#define OURS HINT_XATTR /* "user.tdfs" */
#define ORIGIN OURS ".origin"
#define POLICY OURS ".policy"
#define LIST_MAX ((size_t)65536) /* XATTR_LIST_MAX */

static bool is_ours(const char *name)
{
	size_t n = sizeof(OURS) - 1;

	return !strncmp(name, OURS, n) && (!name[n] || name[n] == '.');
}

/* The object as a path that every xattr call takes; the reference or descriptor behind it in @ret_f or @ret_fd */
static int xattr_path(const struct tree *t, struct node *n, struct inode **ret_f, int *ret_fd, char path[static 40])
{
	struct inode *f = S_ISREG(n->fmt) ? inode_find(t->store, t->nodes->dev, n->ino) : NULL;
	int fd = -1;

	if (!f) {
		fd = node_open(t->nodes, n, O_PATH);
		if (fd < 0)
			return fd;
	}
	snprintf(path, 40, "/proc/self/fd/%d", f ? inode_fd(f) : fd);
	*ret_f = f;
	*ret_fd = fd;
	return 0;
}

/* "native", "foreign" or "plain" without loading the file: whose record is in the first sector? */
static int origin_of(const struct tree *t, struct node *n, const char **ret)
{
	struct inode *f = inode_find(t->store, t->nodes->dev, n->ino);
	uint8_t sector[SECTOR];
	struct record r;
	int fd CLEANUP_FD = -1;
	ssize_t got;
	int err;

	if (f) {
		*ret = inode_origin(f);
		inode_put(f);
		return 0;
	}
	if (n->plain) {
		*ret = "plain";
		return 0;
	}
	fd = node_open(t->nodes, n, O_RDONLY | O_NONBLOCK);
	if (fd < 0)
		return fd;
	got = pread(fd, sector, sizeof(sector), 0);
	if (got < 0)
		return -errno;
	err = got < (ssize_t)sizeof(sector) ? -ENOENT : record_parse(sector, t->store->keys.k_rec, &r, NULL);
	if (!got || (!err && (r.state == RECORD_VOID || !memcmp(r.volume_id, t->store->keys.volume_id, ID_LEN))))
		*ret = "native";
	else if (!err || err == -ENOENT)
		*ret = "foreign";
	else
		return -EIO; /* damaged: neither can be said */
	return 0;
}

static ssize_t copy_out(const void *val, size_t n, void *buf, size_t len)
{
	if (len && n > len)
		return -ERANGE;
	if (len)
		memcpy(buf, val, n);
	return (ssize_t)n;
}

/* What the file's policy says, as JSON */
static ssize_t policy_text(const struct tree *t, struct node *n, char **ret)
{
	struct inode *f = inode_find(t->store, t->nodes->dev, n->ino);
	char *b64 CLEANUP_FREE = NULL;
	char *text CLEANUP_FREE = NULL;
	int fd CLEANUP_FD = -1;
	size_t len, got;
	int err;

	if (f) {
		err = inode_policy(f, &b64);
		inode_put(f);
	} else {
		fd = n->plain ? -ENODATA : node_open(t->nodes, n, O_RDONLY | O_NONBLOCK);
		err = fd < 0 ? fd : inode_peek_policy(t->store, fd, &b64);
	}
	if (err)
		return err;
	len = strlen(b64);
	text = malloc(len + 1);
	err = text ? base64_decode(b64, len, true, text, len, &got) : -ENOMEM;
	if (err)
		return err;
	*ret = STEAL(text);
	return (ssize_t)got;
}

static ssize_t get_policy(const struct tree *t, struct node *n, void *buf, size_t len)
{
	char *text CLEANUP_FREE = NULL;
	ssize_t got = policy_text(t, n, &text);

	return got < 0 ? got : copy_out(text, (size_t)got, buf, len);
}

ssize_t xattr_get(const struct tree *t, struct node *n, const char *name, void *buf, size_t len)
{
	struct inode *f;
	char path[40];
	const char *origin;
	ssize_t got;
	int fd, err;

	if (!strcmp(name, ORIGIN)) {
		if (!S_ISREG(n->fmt))
			return -ENODATA;
		err = origin_of(t, n, &origin);
		return err ? err : copy_out(origin, strlen(origin), buf, len);
	}
	if (!strcmp(name, POLICY))
		return S_ISREG(n->fmt) ? get_policy(t, n, buf, len) : -ENODATA;
	err = xattr_path(t, n, &f, &fd, path);
	if (err)
		return err;
	got = getxattr(path, name, buf, len);
	if (got < 0)
		got = -errno;
	content_put(f);
	close_fd(&fd);
	return got;
}

ssize_t xattr_list(const struct tree *t, struct node *n, char *buf, size_t len)
{
	char *all CLEANUP_FREE = malloc(LIST_MAX);
	struct inode *f;
	char path[40];
	ssize_t got;
	size_t kept = 0;
	int fd, err;

	if (!all)
		return -ENOMEM;
	err = xattr_path(t, n, &f, &fd, path);
	if (err)
		return err;
	got = listxattr(path, all, LIST_MAX);
	if (got < 0)
		got = -errno;
	content_put(f);
	close_fd(&fd);
	if (got < 0)
		return got;
	for (size_t at = 0; at < (size_t)got;) {
		size_t l = strnlen(all + at, (size_t)got - at) + 1;

		if (at + l > (size_t)got)
			break; /* no NUL: not a list */
		if (!is_ours(all + at)) {
			memmove(all + kept, all + at, l);
			kept += l;
		}
		at += l;
	}
	return copy_out(all, kept, buf, len);
}

static void xattr_changed(struct inode *f, int fd, int err)
{
	if (!err && f)
		inode_changed(f, NULL);
	content_put(f);
	close_fd(&fd);
}

int xattr_set(const struct tree *t, struct node *n, const char *name, const void *val, size_t len, int flags)
{
	struct inode *f;
	char path[40];
	ino_t used;
	int fd, err;

	if (is_ours(name))
		return -EPERM;
	err = plain_begin(t, n, &used);
	if (err)
		return err;
	err = xattr_path(t, n, &f, &fd, path);
	if (!err) {
		err = setxattr(path, name, val, len, flags) ? -errno : 0;
		xattr_changed(f, fd, err);
	}
	plain_unuse(t, used);
	return err;
}

int xattr_remove(const struct tree *t, struct node *n, const char *name)
{
	struct inode *f;
	char path[40];
	ino_t used;
	int fd, err;

	if (is_ours(name))
		return -EPERM;
	err = plain_begin(t, n, &used);
	if (err)
		return err;
	err = xattr_path(t, n, &f, &fd, path);
	if (!err) {
		err = removexattr(path, name) ? -errno : 0;
		xattr_changed(f, fd, err);
	}
	plain_unuse(t, used);
	return err;
}
