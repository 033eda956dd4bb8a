/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "name.h"

#define SUFFIX ".tdf"
#define SUFFIX_LEN (sizeof(SUFFIX) - 1)

static bool ends_in_suffix(const char *name, size_t len)
{
	return len >= SUFFIX_LEN && !memcmp(name + len - SUFFIX_LEN, SUFFIX, SUFFIX_LEN);
}

/* Does it match \.tdf_*$, that is, could it be taken for a file's or for an escaped name? */
static bool needs_escape(const char *name, size_t len)
{
	while (len && name[len - 1] == '_')
		len--;
	return ends_in_suffix(name, len);
}

static bool is_dots(const char *name, size_t len)
{
	return (len == 1 && name[0] == '.') || (len == 2 && name[0] == '.' && name[1] == '.');
}

int name_store(const char *name, bool regular, char ret[static NAME_ROOM])
{
	size_t len = strnlen(name, NAME_ROOM);

	if (len > NAME_VISIBLE_MAX)
		return -ENAMETOOLONG;
	if (!len || is_dots(name, len) || memchr(name, '/', len))
		return -EINVAL;
	memcpy(ret, name, len);
	if (regular) {
		memcpy(ret + len, SUFFIX, SUFFIX_LEN);
		len += SUFFIX_LEN;
	} else if (needs_escape(name, len)) {
		ret[len++] = '_';
	}
	ret[len] = 0;
	return 0;
}

int name_show(const char *stored, bool regular, char ret[static NAME_ROOM])
{
	size_t len = strnlen(stored, NAME_ROOM);

	if (len >= NAME_ROOM || regular != ends_in_suffix(stored, len))
		return -ENOENT;
	if (regular)
		len -= SUFFIX_LEN;
	else if (needs_escape(stored, len))
		len--; /* it ends in '_': a bare suffix was sorted out above */
	if (!len || len > NAME_VISIBLE_MAX || is_dots(stored, len))
		return -ENOENT;
	memcpy(ret, stored, len);
	ret[len] = 0;
	return 0;
}

bool name_reserved(const char *name)
{
	return !strcmp(name, ".tdfs");
}
