/* SPDX-License-Identifier: Apache-2.0 */
/* tdfs key rotate and forget: which KAS key new files are wrapped for, and which old ones still open files. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "cmd_key.h"
#include "say.h"
#include "target.h"
#include "tree.h"

struct kas_args {
	struct credential_source cred;
	bool force;
};

/* Open and locked: a mounted daemon would go on with the old keys. */
static int open_held(const struct kas_args *a, const char *store, struct volume **ret)
{
	int code = volume_get(store, &a->cred, ret);

	fail_clear();
	return code ? code : volume_hold(*ret);
}

static int rotate_main(const void *args, int n, char **pos)
{
	CLEANUP(volume_cleanup) struct volume *v = NULL;
	int code = open_held(args, pos[0], &v), err;

	if (code)
		return code;
	err = volume_kas_rotate(v);
	if (err)
		return complain(err, pos[0], NULL);
	printf("New files are made for the KAS key %s; %s still opens what is there.\n"
	       "Next:  tdfs key backup %s FILE   an older backup lacks the new key\n"
	       "       tdfs convert rewrap %s   moves the files to it\n",
	       v->kas_kid, v->kas_old[v->n_kas_old - 1], pos[0], pos[0]);
	return output_flush(EXIT_TDFS_OK);
}

static int rsa_main(const void *args, int n, char **pos)
{
	CLEANUP(volume_cleanup) struct volume *v = NULL;
	int code = open_held(args, pos[0], &v), err;

	if (code)
		return code;
	err = volume_kas_add_rsa(v);
	if (err)
		return complain(err, pos[0], NULL);
	printf("`tdfs kas serve` offers the RSA key %s to clients that wrap with RSA alone.\n"
	       "Next:  tdfs key backup %s FILE   an older backup lacks it\n",
	       v->kas_old[v->n_kas_old - 1], pos[0]);
	return output_flush(EXIT_TDFS_OK);
}

struct search {
	const struct volume *v;
	const char *kid;
	uint64_t n_unread;
};

/* 1: it is wrapped for that key */
static int needs_key(void *arg, const struct tree_entry *e)
{
	struct search *s = arg;
	const struct container_keys keys = {s->v->k_rec, s->v->k_seal, s->v->id};
	CLEANUP(container_cleanup) struct container *c = NULL;
	struct io io = io_posix(s->v->store_fd);
	CLEANUP_FD int fd = -1;
	int err;

	if (!S_ISREG(e->st.st_mode) || !name_is_tdf(e->name))
		return 0;
	fd = openat(e->dir_fd, e->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	err = fd < 0 ? -errno : container_open(&io, fd, &keys, &c);
	if (err) {
		s->n_unread += err != -ENODATA; /* else never sealed */
		return 0;
	}
	for (size_t i = 0; i < c->m->n_ka; i++)
		if (strcmp(c->m->ka[i].kid, s->kid) == 0) {
			fail(-EBUSY, "%s is wrapped for it", e->path);
			return 1;
		}
	return 0;
}

static void unread(void *arg, const char *path, int err)
{
	((struct search *)arg)->n_unread++;
}

/* A key that files need must not go by mistake. */
static int check_unused(const struct volume *v, const char *store, const char *kid)
{
	struct search s = {.v = v, .kid = kid};
	const struct tree_calls calls = {&s, needs_key, unread};
	int err = tree_walk(v->path, &calls);

	if (err == 0 && !s.n_unread)
		return EXIT_TDFS_OK;
	if (err < 0)
		return complain(err, store, NULL);
	if (err)
		report(REPORT_ERROR, "%s: %s is still needed: %s; `tdfs convert rewrap %s` first, or --force", store, kid, fail_text(),
		       store);
	else
		report(
		    REPORT_ERROR,
		    "%s: %llu files cannot be read, so whether %s is needed is not known; `tdfs check` names them, --force does it anyway",
		    store, (unsigned long long)s.n_unread, kid);
	return EXIT_TDFS_FAILED;
}

static int forget_main(const void *args, int n, char **pos)
{
	const struct kas_args *a = args;
	CLEANUP(volume_cleanup) struct volume *v = NULL;
	int code = open_held(a, pos[0], &v), err;

	if (!code && !a->force)
		code = check_unused(v, pos[0], pos[1]);
	if (code)
		return code;
	err = volume_kas_forget(v, pos[1]);
	if (err)
		return complain(err, pos[0], err == -ENOENT ? "`tdfs key list` shows them" : NULL);
	printf("%s is gone from %s; copies of it are in older backups.\n", pos[1], pos[0]);
	return output_flush(EXIT_TDFS_OK);
}

static const struct option_row kas_rows[] = {CREDENTIAL_ROWS(struct kas_args, cred), {0}};

const struct command key_rotate = {
    .name = "rotate",
    .summary = "a fresh KAS key for new files; the old one is retired",
    .usage = "STORE",
    .options = kas_rows,
    .args_size = sizeof(struct kas_args),
    .min_args = 1,
    .max_args = 1,
    .run = rotate_main,
};

const struct command key_rsa = {
    .name = "rsa",
    .summary = "an RSA key beside the KAS key, for clients of `tdfs kas serve`",
    .usage = "STORE",
    .notes = "Some OpenTDF clients can wrap with RSA only. Files of this volume are not made\n"
	     "for it; it stands among the retired keys.\n",
    .options = kas_rows,
    .args_size = sizeof(struct kas_args),
    .min_args = 1,
    .max_args = 1,
    .run = rsa_main,
};

static const struct option_row forget_rows[] = {
    {OPTION_FLAG, 0, "force", NULL, offsetof(struct kas_args, force), "even if files are wrapped for it"},
    CREDENTIAL_ROWS(struct kas_args, cred),
    {0},
};

const struct command key_forget = {
    .name = "forget",
    .summary = "destroy a retired KAS key",
    .usage = "STORE KID",
    .notes = "Files wrapped for it could not be opened any more: it looks for them first;\n"
	     "`tdfs convert rewrap` moves them. Copies of such files elsewhere are lost too.\n",
    .options = forget_rows,
    .args_size = sizeof(struct kas_args),
    .min_args = 2,
    .max_args = 2,
    .run = forget_main,
};
