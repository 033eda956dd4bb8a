/* SPDX-License-Identifier: Apache-2.0 */
#include "mounts.h"

#include <errno.h>
#include <stdio.h>

/* mountinfo writes space, tab, newline and backslash as \ooo */
static void unescape(char *s)
{
	char *to = s;

	for (; *s; s++) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' && s[3] >= '0' && s[3] <= '7') {
			*to++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
			s += 3;
		} else {
			*to++ = *s;
		}
	}
	*to = 0;
}

bool mountinfo_parse(char *line, struct mountinfo *ret)
{
	char *save = NULL, *word = strtok_r(line, " \n", &save);
	struct mountinfo m = {0};

	for (int i = 0; word && strcmp(word, "-") != 0; i++) {
		if (i == 2)
			m.device = word;
		else if (i == 4)
			m.mountpoint = word;
		else if (i == 5)
			m.options = word;
		word = strtok_r(NULL, " \n", &save);
	}
	m.type = strtok_r(NULL, " \n", &save);
	m.source = strtok_r(NULL, " \n", &save);
	m.super_options = strtok_r(NULL, " \n", &save);
	if (!m.options || !m.super_options)
		return false;
	unescape(m.mountpoint);
	unescape(m.source);
	*ret = m;
	return true;
}

int mounts_list(struct mount_place **ret, size_t *ret_n)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	CLEANUP_FREE char *line = NULL;
	struct mount_place *list = NULL;
	size_t n = 0, size = 0;
	int err = 0;

	if (!f)
		return -errno;
	while (!err && getline(&line, &size, f) > 0) {
		struct mountinfo m;
		struct mount_place *more;

		if (!mountinfo_parse(line, &m) || strcmp(m.type, "fuse.tdfs") != 0)
			continue;
		more = realloc(list, (n + 1) * sizeof(*list));
		if (!more) {
			err = -ENOMEM;
			break;
		}
		list = more;
		list[n] = (struct mount_place){strdup(m.source), strdup(m.mountpoint)};
		err = list[n].store && list[n].mountpoint ? 0 : -ENOMEM;
		n++;
	}
	fclose(f);
	if (err) {
		mounts_free(list, n);
		return err;
	}
	*ret = list;
	*ret_n = n;
	return 0;
}

void mounts_free(struct mount_place *m, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free(m[i].store);
		free(m[i].mountpoint);
	}
	free(m);
}
