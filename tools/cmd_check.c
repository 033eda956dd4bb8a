/* SPDX-License-Identifier: Apache-2.0 */
/* tdfs check: is the volume's structure right?  Reads headers, manifests and the log, no payload; changes nothing. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>

#include "check.h"
#include "commands.h"
#include "name.h"
#include "recover.h"
#include "say.h"
#include "tree.h"

#define MANIFEST_OTHERS ((uint64_t)10 << 20) /* what clients other than tdfs read */

struct args {
	struct credential_source cred;
	bool json;
};

void check_tell(struct check *c, enum check_level level, const char *path, const char *fmt, ...)
{
	static const char *const names[] = {"note", "problem", "DAMAGE"};
	CLEANUP_FREE char *text = NULL;
	CLEANUP_FREE char *shown = path_text(path);
	CLEANUP_FREE char *safe = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		text = NULL;
	va_end(ap);
	c->n[level]++;
	safe = text ? path_text(text) : NULL;
	if (c->findings)
		json_array_append_new(c->findings, json_pack("{s:s, s:o, s:o}", "level", names[level], "path", json_path(path), "text",
							     json_path(text ? text : "?")));
	else
		printf("%-7s %s: %s\n", names[level], shown ? shown : path, safe ? safe : "?");
}

/* The other stored form of the visible name of @e, if there is such an entry as well. */
static void siblings(struct check *c, const struct tree_entry *e, const char *visible)
{
	char other[NAME_ROOM];
	struct stat st;

	/* told once, at the file */
	if (!S_ISREG(e->st.st_mode) || name_store(visible, false, other))
		return;
	if (fstatat(e->dir_fd, other, &st, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISREG(st.st_mode))
		check_tell(c, CHECK_PROBLEM, e->path,
			   "and '%s' are both there for the name '%s': the file is shown, the other is not; rename one", other, visible);
}

static void name_look(struct check *c, const struct tree_entry *e)
{
	bool regular = S_ISREG(e->st.st_mode);
	char visible[NAME_ROOM];
	size_t len = strlen(e->name);

	if (name_show(e->name, regular, visible) == 0) {
		siblings(c, e, visible);
		return;
	}
	if (regular && len > 10 && strncmp(e->name, ".tdfs-", 6) == 0 && strcmp(e->name + len - 4, ".tmp") == 0)
		check_tell(c, CHECK_NOTE, e->path, "left over by a command that was killed; delete it");
	else if (regular && !name_is_tdf(e->name))
		check_tell(c, CHECK_PROBLEM, e->path,
			   "not a TDF by its name: if it is plain it lies here plain, and the mount shows it only while the volume is being converted");
	else if (!regular && name_is_tdf(e->name))
		check_tell(c, CHECK_PROBLEM, e->path, "ends in .tdf and is no file: it is not shown; rename it to '%s_'", e->name);
	else
		check_tell(c, CHECK_PROBLEM, e->path, "is a name that cannot be shown in the mount");
}

static void native_look(struct check *c, const struct tree_entry *e, const struct container *t)
{
	uint64_t tail = t->file_len - t->rec.tail_off;

	if (t->rec.state == RECORD_LIVE) {
		c->n_live++;
		if (!c->in_use)
			check_tell(c, CHECK_PROBLEM, e->path, "waits for changes in the log; a mount or `tdfs recover` applies them");
	}
	if (tail > MANIFEST_OTHERS)
		check_tell(c, CHECK_NOTE, e->path, "its manifest is %" PRIu64 " MiB: tdfs reads it, other OpenTDF clients stop at 10 MiB",
			   tail >> 20);
}

static void file_look(struct check *c, const struct tree_entry *e)
{
	CLEANUP_FD int fd = openat(e->dir_fd, e->name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	struct io io = io_posix(fd);
	CLEANUP(container_cleanup) struct container *t = NULL;
	int err;

	fail_clear();
	if (fd < 0) {
		check_tell(c, CHECK_PROBLEM, e->path, "%s", strerror(errno));
		return;
	}
	c->n_files++;
	err = target_container(&c->target, &io, fd, &t);
	/* in a mounted store it may be the moment of its seal: look again */
	for (int i = 0; i < 3 && c->in_use && (err == -EBADMSG || err == -EPROTO) && !interrupted(); i++) {
		nanosleep(&(struct timespec){0, 500000000}, NULL);
		fail_clear();
		err = target_container(&c->target, &io, fd, &t);
	}
	if (!err && t->native) {
		native_look(c, e, t);
	} else if (!err || err == -ENOKEY) {
		c->n_foreign++;
		check_tell(c, CHECK_NOTE, e->path, "not made by this volume: %s", err ? "none of its keys opens it" : "shown read-only");
	} else if (err == -ENODATA) {
		check_tell(c, CHECK_NOTE, e->path, "created but never completed: shown as empty; delete it if it is not wanted");
	} else {
		check_tell(c, c->in_use ? CHECK_PROBLEM : CHECK_DAMAGE, e->path, "%s%s", cause_text(err),
			   c->in_use ? " (or it is being sealed just now: check again)" : "; take it from a backup");
	}
}

static int on_entry(void *arg, const struct tree_entry *e)
{
	struct check *c = arg;

	if (interrupted())
		return -EINTR;
	name_look(c, e);
	if (S_ISREG(e->st.st_mode) && name_is_tdf(e->name))
		file_look(c, e);
	return 0;
}

static void on_unreadable(void *arg, const char *path, int err)
{
	check_tell(arg, CHECK_PROBLEM, path, "%s", strerror(-err));
}

static void on_event(void *arg, const char *path, const char *text)
{
	check_tell(arg, CHECK_NOTE, path && *path ? path : "log", "%s", text);
}

static void log_look(struct check *c)
{
	struct volume *v = c->target.vol;
	struct io io = io_posix(v->store_fd);
	struct recover_keys keys = {v->id, v->k_log, v->k_rec, v->k_hint};
	struct recovered r = {0};
	struct recover_damage *damage = NULL;
	size_t n = 0;
	pid_t pid = 0;
	int err = volume_lock(v, 0, &pid);

	if (err == -EBUSY) {
		c->in_use = true;
		check_tell(c, CHECK_NOTE, "log", "in use by process %ld; `tdfs umount` first to have it checked as well", (long)pid);
		return;
	}
	if (err && err != -EROFS) {
		check_tell(c, CHECK_PROBLEM, TDFS_DIR "/lock", "%s", cause_text(err));
		return;
	}
	fail_clear();
	err = recover(&io, v->dir_fd, v->store_fd, &keys, false, on_event, c, &r, &damage, &n);
	if (err < 0)
		check_tell(c, CHECK_DAMAGE, "log", "%s",
			   err == -ENOENT ? "it is gone; restore .tdfs/log.0 and .tdfs/log.1 from a backup" : cause_text(err));
	if (err == 1)
		check_tell(c, CHECK_DAMAGE, "log",
			   "some files cannot be brought up to date from it; `tdfs recover --salvage` keeps what can be kept");
	for (size_t i = 0; i < n; i++) { /* with a whole log they only wait for it */
		if (err == 1)
			check_tell(c, CHECK_DAMAGE, *damage[i].path ? damage[i].path : "(a file not found)",
				   "needs its log, which cannot give it all");
		free(damage[i].path);
	}
	free(damage);
	if (r.sealed + r.committed + r.cut)
		check_tell(c, CHECK_NOTE, "log", "%" PRIu64 " files wait for it; a mount or `tdfs recover` applies it", r.files);
	c->log_pending = err < 0 || r.sealed + r.committed + r.cut + r.damaged > 0;
}

static int summary(const struct check *c, const char *store)
{
	int code = c->n[CHECK_DAMAGE] ? EXIT_TDFS_SOME : c->n[CHECK_PROBLEM] ? EXIT_TDFS_SOME : EXIT_TDFS_OK;

	if (c->volume_damaged)
		code = EXIT_TDFS_DAMAGED;
	if (c->findings) {
		int said =
		    json_say(json_pack("{s:i, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:O}", "v", 1, "store", json_path(store), "files",
				       (json_int_t)c->n_files, "foreign", (json_int_t)c->n_foreign, "live", (json_int_t)c->n_live, "notes",
				       (json_int_t)c->n[CHECK_NOTE], "problems", (json_int_t)c->n[CHECK_PROBLEM], "damaged",
				       (json_int_t)c->n[CHECK_DAMAGE], "in_use", c->in_use, "findings", c->findings));

		return code ? code : said;
	}
	printf("%" PRIu64 " files looked at (%" PRIu64 " foreign, %" PRIu64 " with changes in the log): %" PRIu64 " damaged, %" PRIu64
	       " problems, %" PRIu64 " notes\n",
	       c->n_files, c->n_foreign, c->n_live, c->n[CHECK_DAMAGE], c->n[CHECK_PROBLEM], c->n[CHECK_NOTE]);
	if (!code)
		printf("structure is sound; `tdfs verify` reads the contents as well\n");
	return code;
}

static int run(const void *args, int n, char **pos)
{
	const struct args *a = args;
	struct tree_calls calls = {.each = on_entry, .bad = on_unreadable};
	struct check c = {0};
	int code = volume_get(pos[0], &a->cred, &c.target.vol), err;

	if (code)
		return code;
	c.target.kas = c.target.vol->kas;
	c.findings = a->json ? json_array() : NULL;
	calls.arg = &c;
	interrupt_catch();
	log_look(&c);
	check_volume(&c);
	err = tree_walk(c.target.vol->path, &calls);
	if (err == -EINTR) {
		report(REPORT_ERROR, "interrupted");
		code = EXIT_TDFS_INTERRUPTED;
	} else {
		code = err ? complain(err, pos[0], NULL) : summary(&c, pos[0]);
	}
	json_decref(c.findings);
	target_close(&c.target);
	return code;
}

static const struct option_row rows[] = {
    {OPTION_FLAG, 0, "json", NULL, offsetof(struct args, json), "answer in JSON"},
    CREDENTIAL_ROWS(struct args, cred),
    {0},
};

const struct command command_check = {
    .name = "check",
    .summary = "look at a volume's structure: keys, log, names, headers, signatures",
    .usage = "STORE",
    .notes = "Reads no payload (`tdfs verify` does) and changes nothing.\n"
	     "Exit code 3: problems in files; 5: in the volume itself.\n",
    .options = rows,
    .args_size = sizeof(struct args),
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
