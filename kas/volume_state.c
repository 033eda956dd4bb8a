/* SPDX-License-Identifier: Apache-2.0 */
#include "volume_state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "encode.h"
#include "io.h"
#include "report.h"

#define STATE "state"
#define TEXT "tdfs converting "
#define STATE_LEN (sizeof(TEXT) - 1 + 2 * MAC_LEN + 1)
#define WHERE "%s/" TDFS_DIR "/" VOLUME_CONVERT_DIR "/" STATE

static int make_text(const struct volume *v, char ret[static STATE_LEN + 1])
{
	const struct part parts[] = {{TEXT, sizeof(TEXT) - 1}, {v->id, ID_LEN}};
	char hex[2 * MAC_LEN + 1];
	uint8_t mac[MAC_LEN];
	int err;

	if (!v->k_conf)
		return fail(-ENOKEY, "the volume is not unlocked");
	err = hmac_sha256(v->k_conf->b, SECRET_LEN, parts, ARRAY_SIZE(parts), mac);
	if (err)
		return err;
	hex_encode(mac, MAC_LEN, hex);
	snprintf(ret, STATE_LEN + 1, TEXT "%s\n", hex);
	return 0;
}

static int open_dir(const struct volume *v)
{
	int fd = openat(v->dir_fd, VOLUME_CONVERT_DIR, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

int volume_state_read(const struct volume *v, enum volume_state *ret)
{
	struct io io = io_posix(v->store_fd);
	CLEANUP_FD int dir = open_dir(v);
	CLEANUP_FREE char *text = NULL;
	char want[STATE_LEN + 1];
	size_t len;
	int err;

	*ret = VOLUME_STRICT;
	if (dir == -ENOENT)
		return 0;
	err = dir < 0 ? dir : io_read_file(&io, dir, STATE, STATE_LEN + 1, &text, &len);
	if (err == -ENOENT)
		return 0;
	if (err && err != -EFBIG)
		return fail(err, WHERE ": %s", v->path, strerror(-err));
	if (!err)
		err = make_text(v, want);
	if (err && err != -EFBIG)
		return err;
	if (err || len != STATE_LEN || !equal_ct(text, want, STATE_LEN))
		return fail(-EBADMSG,
			    WHERE ": damaged or not written by this volume, so its plain files are not served; remove it, or write it anew "
				  "with: tdfs convert open %s",
			    v->path, v->path);
	*ret = VOLUME_CONVERTING;
	return 0;
}

int volume_state_write(const struct volume *v, enum volume_state s)
{
	struct io io = io_posix(v->store_fd);
	CLEANUP_FD int dir = -1;
	char text[STATE_LEN + 1];
	int err = make_text(v, text);

	if (err)
		return err;
	if (mkdirat(v->dir_fd, VOLUME_CONVERT_DIR, 0700) && errno != EEXIST)
		return fail(-errno, WHERE ": %s", v->path, strerror(errno));
	dir = open_dir(v);
	if (dir < 0)
		return fail(dir, WHERE ": %s", v->path, strerror(-dir));
	if (s == VOLUME_CONVERTING)
		err = io_replace(&io, dir, STATE, text, STATE_LEN, 0600);
	else if ((unlinkat(dir, STATE, 0) && errno != ENOENT) || fsync(dir))
		err = -errno;
	return err ? fail(err, WHERE ": %s", v->path, strerror(-err)) : 0;
}
