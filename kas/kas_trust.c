/* SPDX-License-Identifier: Apache-2.0 */
/* The trust file: whom to ask for a volume's key, and which volume has to come out. */
#include <jansson.h>

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <sys/stat.h>

#include "encode.h"
#include "io.h"
#include "oidc_int.h"
#include "report.h"
#include "slot_kas.h"
#include "volume_file.h"

#define FILE_MAX ((size_t)256 << 10)
#define SYSTEM_FILE "/etc/tdfs/kas.json"
#define VERSION 1

static void json_cleanup(json_t **j)
{
	json_decref(*j);
}
#define CLEANUP_JSON CLEANUP(json_cleanup)

static void trust_clear(struct kas_trust *t)
{
	free(t->store);
	volume_remote_clear(&t->kas);
	*t = (struct kas_trust){0};
}

void kas_trusts_free(struct kas_trusts *t)
{
	for (size_t i = 0; i < t->n; i++)
		trust_clear(&t->list[i]);
	free(t->list);
	*t = (struct kas_trusts){0};
}

int kas_trust_path(char **ret)
{
	const char *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
	char *path;
	int n;

	if (config && *config == '/')
		n = asprintf(&path, "%s/tdfs/kas.json", config);
	else if (home && *home == '/')
		n = asprintf(&path, "%s/.config/tdfs/kas.json", home);
	else
		return fail(-ENOENT, "no home directory to keep a trust file in: --trust-file names one");
	if (n < 0)
		return -ENOMEM;
	*ret = path;
	return 0;
}

/* A group that is there for this user alone, as many systems make them: what it may write he may */
static bool group_is_ours(gid_t gid)
{
	struct passwd pw, *found_pw = NULL;
	struct group gr, *found = NULL;
	char pw_text[4096], text[4096];

	if (getpwuid_r(geteuid(), &pw, pw_text, sizeof(pw_text), &found_pw) || !found_pw || pw.pw_gid != gid ||
	    getgrgid_r(gid, &gr, text, sizeof(text), &found) || !found || strcmp(gr.gr_name, pw.pw_name))
		return false;
	return !gr.gr_mem[0] || (strcmp(gr.gr_mem[0], pw.pw_name) == 0 && !gr.gr_mem[1]);
}

/*
 * Who may write to a directory on the way can put another file there, or another directory.  In one with the sticky bit he cannot take away
 * what is ours; but the file itself might not be there yet.  What is above the home directory is the system's matter, as with ssh (in a
 * user namespace it belongs to nobody).  @full: links resolved
 */
static int way_check(const char *path, const char *full)
{
	const char *home = getenv("HOME");
	CLEANUP_FREE char *at = strdup(full);
	CLEANUP_FREE char *end = home ? realpath(home, NULL) : NULL;
	bool first = true;
	struct stat st;
	char *slash;

	if (!at)
		return -ENOMEM;
	while ((first || !end || strcmp(at, end)) && (slash = strrchr(at, '/'))) {
		*slash = '\0';
		if (stat(*at ? at : "/", &st))
			return fail(-EPERM, "%s: %s: %s", path, *at ? at : "/", strerror(errno));
		if ((st.st_uid != geteuid() && st.st_uid) || (st.st_mode & S_IWOTH && (first || !(st.st_mode & S_ISVTX))) ||
		    (st.st_mode & S_IWGRP && !(st.st_mode & S_ISVTX) && !group_is_ours(st.st_gid)))
			return fail(-EPERM,
				    "%s: says whom to trust, and others could put another one into %s (user %u, mode %04o): chmod go-w it, "
				    "or keep the file elsewhere",
				    path, *at ? at : "/", (unsigned)st.st_uid, (unsigned)st.st_mode & 07777);
		first = false;
	}
	return 0;
}

/* What decides about keys is nothing that somebody else can write. */
static int file_check(const char *path, int fd, const char *store)
{
	char full[PATH_MAX];
	size_t len = strlen(store);
	struct stat st;
	int err;

	if (fstat(fd, &st) || !realpath(path, full))
		return fail(-errno, "%s: %s", path, strerror(errno));
	err = way_check(path, full);
	if (err)
		return err;
	if (!S_ISREG(st.st_mode))
		return fail(-EPERM, "%s: not a file", path);
	if ((st.st_uid != geteuid() && st.st_uid) || st.st_mode & (S_IWGRP | S_IWOTH))
		return fail(-EPERM, "%s: says whom to trust, and others may write it (user %u, mode %04o): chmod go-w it", path,
			    (unsigned)st.st_uid, (unsigned)st.st_mode & 07777);
	if (strncmp(full, store, len) == 0 && full[len] == '/')
		return fail(-EPERM, "%s: lies in the store: who may write there could change who is trusted", path);
	return 0;
}

/* ... nor will be */
static int new_check(const char *path)
{
	const char *slash = strrchr(path, '/');
	CLEANUP_FREE char *dir = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
	CLEANUP_FREE char *in = NULL;
	char full[PATH_MAX];

	if (!dir)
		return -ENOMEM;
	if (!realpath(dir, full))
		return fail(-errno, "%s: %s", dir, strerror(errno));
	if (asprintf(&in, "%s/new", full) < 0) {
		in = NULL;
		return -ENOMEM;
	}
	return way_check(path, in);
}

/* 0 and the list of its entries, owned by the caller; -ENOENT; ... */
static int file_read(const char *path, const char *store, json_t **ret)
{
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	int bad = fd >= 0 || errno == EACCES ? -EPERM : -errno; /* EACCES is what a KAS says */
	CLEANUP_JSON json_t *root = NULL;
	CLEANUP_FREE char *text = NULL;
	const json_t *version;
	json_t *list;
	size_t len = 0;
	json_error_t e;
	ssize_t n = 1;
	int err = fd < 0 ? fail(bad, "%s: %s", path, strerror(errno)) : file_check(path, fd, store);

	if (err)
		return err;
	text = malloc(FILE_MAX + 1);
	while (text && n > 0 && len <= FILE_MAX) {
		n = read(fd, text + len, FILE_MAX + 1 - len);
		len += n > 0 ? (size_t)n : 0;
	}
	if (!text || n < 0)
		return text ? fail(-errno, "%s: %s", path, strerror(errno)) : -ENOMEM;
	root = len <= FILE_MAX ? json_loadb(text, len, JSON_REJECT_DUPLICATES, &e) : NULL;
	if (!root)
		return fail(-EPROTO, "%s: %s", path, len > FILE_MAX ? "too long" : e.text);
	version = json_object_get(root, "version");
	list = json_object_get(root, "volumes");
	if (json_integer_value(version) > VERSION)
		return fail(-ENOTSUP, "%s: of a later version of tdfs", path);
	if (json_integer_value(version) != VERSION || !json_is_array(list) || json_object_size(root) != 2 ||
	    json_array_size(list) > KAS_TRUST_MAX)
		return fail(-EPROTO, "%s: not a trust file of tdfs, or of more than %d entries", path, KAS_TRUST_MAX);
	*ret = json_incref(list);
	return 0;
}

static int entry_parse(json_t *o, struct kas_trust *ret)
{
	const char *store = json_string_value(json_object_get(o, "store")), *hex = json_string_value(json_object_get(o, "check"));
	struct volume at = {.path = (char *)store};
	CLEANUP(trust_clear) struct kas_trust t = {0};
	int err;

	if (!store || *store != '/' || !hex || strlen(hex) != 2 * VOLUME_CHECK_LEN ||
	    hex_decode(hex, strlen(hex), t.check, VOLUME_CHECK_LEN) || json_object_size(o) != 3)
		return fail(-EPROTO, "an entry is not {\"store\":PATH,\"check\":32 hex digits,\"kas\":{...}}");
	err = volume_remote_parse(json_object_get(o, "kas"), &t.kas);
	if (!err)
		err = volume_remote_check(&at, &t.kas);
	if (err)
		return err;
	t.store = strdup(store);
	if (!t.store)
		return -ENOMEM;
	*ret = t;
	t = (struct kas_trust){0};
	return 0;
}

static bool is_for(const json_t *entry, const char *store)
{
	const char *s = json_string_value(json_object_get(entry, "store"));

	return s && strcmp(s, store) == 0;
}

/* Entries for other stores are not looked at: what is wrong there is no matter here. */
static int file_load(const char *path, const char *store, struct kas_trusts *t)
{
	CLEANUP_JSON json_t *list = NULL;
	json_t *each;
	size_t i;
	int err = file_read(path, store, &list);

	json_array_foreach(list, i, each)
	{
		struct kas_trust *grown;

		if (err || !is_for(each, store))
			continue;
		grown = realloc(t->list, (t->n + 1) * sizeof(*t->list));
		if (!grown)
			return -ENOMEM;
		t->list = grown;
		err = entry_parse(each, &t->list[t->n]);
		t->n += !err;
		if (err)
			err = fail(err, "%s: %s", path, fail_text());
	}
	return err;
}

int kas_trusts_load(const char *file, const char *store, struct kas_trusts *ret)
{
	CLEANUP_TRUSTS struct kas_trusts t = {0};
	CLEANUP_FREE char *mine = NULL;
	int err = file ? file_load(file, store, &t) : kas_trust_path(&mine);

	if (!file && !err)
		err = file_load(mine, store, &t);
	if (!file && (!err || err == -ENOENT) && access(SYSTEM_FILE, R_OK) == 0)
		err = file_load(SYSTEM_FILE, store, &t);
	if (err && (file || err != -ENOENT))
		return err;
	*ret = t;
	t = (struct kas_trusts){0};
	return 0;
}

static json_t *entry_json(const struct kas_trust *t)
{
	json_t *kas = volume_remote_json(&t->kas);
	char hex[2 * VOLUME_CHECK_LEN + 1];

	hex_encode(t->check, VOLUME_CHECK_LEN, hex);
	return kas ? json_pack("{s:s, s:s, s:o}", "store", t->store, "check", hex, "kas", kas) : NULL;
}

/* @list with @t in it, as text; malloc'd */
static int list_put(json_t *list, const struct kas_trust *t, char **ret)
{
	CLEANUP_JSON json_t *root = NULL;
	json_t *entry = entry_json(t);
	size_t at = 0;

	if (!entry)
		return fail(-EINVAL, "%s: a path or text that is not UTF-8 cannot stand in a trust file", t->store);
	for (; at < json_array_size(list); at++) {
		const json_t *each = json_array_get(list, at), *url = json_object_get(json_object_get(each, "kas"), "url");

		if (is_for(each, t->store) && json_is_string(url) && strcmp(json_string_value(url), t->kas.url) == 0)
			break;
	}
	if (at == KAS_TRUST_MAX) {
		json_decref(entry);
		return fail(-ENOSPC, "a trust file has at most %d entries", KAS_TRUST_MAX);
	}
	if (at < json_array_size(list) ? json_array_set_new(list, at, entry) : json_array_append_new(list, entry))
		return -ENOMEM;
	root = json_pack("{s:i, s:O}", "version", VERSION, "volumes", list);
	*ret = root ? json_dumps(root, JSON_INDENT(1)) : NULL;
	return *ret ? 0 : -ENOMEM;
}

int kas_trust_save(const char *file, const struct kas_trust *t)
{
	CLEANUP_JSON json_t *list = NULL;
	CLEANUP_FREE char *text = NULL;
	CLEANUP_FD int dir = -1;
	const char *name = NULL;
	struct stat st;
	struct io io;
	int err = secret_parent_open(file, &dir, &name);

	if (err)
		return err;
	err = dir_lock(dir, file);
	if (err)
		return err;
	err = file_read(file, t->store, &list);
	if (err == -ENOENT) {
		list = json_array();
		err = list ? new_check(file) : -ENOMEM;
	}
	if (!err)
		err = list_put(list, t, &text);
	if (err)
		return err;
	io = io_posix(dir);
	/* it holds no secret: one that all may read stays so */
	err = io_replace(&io, dir, name, text, strlen(text), fstatat(dir, name, &st, 0) ? 0600 : (st.st_mode & 0444) | 0600);
	return err ? fail(err, "%s: %s", file, strerror(-err)) : 0;
}
