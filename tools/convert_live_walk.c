/* SPDX-License-Identifier: Apache-2.0 */
/* Which files a worker of a live conversion takes: its share of the walk, sets of names, busy ones again. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>

#include "convert_live_i.h"
#include "convert_walk.h"
#include "say.h"
#include "tree.h"

#define ROUND_MS 500
#define ASK_MS 120000

static int names_add(struct names *s, const char *path)
{
	char **more = realloc(s->paths, (s->n + 1) * sizeof(*more));
	char *copy = strdup(path);

	if (more)
		s->paths = more;
	if (!more || !copy) {
		free(copy);
		return -ENOMEM;
	}
	s->paths[s->n++] = copy;
	return 0;
}

/* By its first name, wherever that is */
static int one_again(struct live *w, char **paths, size_t n)
{
	const char *slash = strrchr(paths[0], '/');
	CLEANUP_FREE char *dir_path = strndup(paths[0], slash ? (size_t)(slash - paths[0]) : 0);
	CLEANUP_FD int dir = dir_path ? beneath_open(w->run->from_fd, dir_path, true) : -ENOMEM;

	if (dir >= 0)
		return live_one(w, dir, slash ? slash + 1 : paths[0], paths, n);
	live_settle(w, paths, n, -ENOENT);
	return 0;
}

/* A file with several names waits until all are found */
static int one_of_set(struct live *w, const struct stat *st, const char *path)
{
	struct names **p = &w->sets[st->st_ino * 0x9E3779B97F4A7C15u >> 48 & (LIVE_SETS - 1)], *s;
	int err;

	while (*p && (*p)->ino != st->st_ino)
		p = &(*p)->next;
	if (!*p) {
		*p = calloc(1, sizeof(**p));
		if (!*p)
			return -ENOMEM;
		(*p)->ino = st->st_ino;
		(*p)->links = st->st_nlink;
	}
	s = *p;
	err = names_add(s, path);
	if (err || s->n < s->links)
		return err;
	*p = s->next;
	err = one_again(w, s->paths, s->n);
	free(s);
	return err;
}

/* Those whose other names lie elsewhere, or went away meanwhile: the daemon says so */
static int sets_rest(struct live *w)
{
	int err = 0;

	for (size_t i = 0; i < LIVE_SETS; i++)
		while (w->sets[i]) {
			struct names *s = w->sets[i];

			w->sets[i] = s->next;
			if (!err && !w->board->stop && !w->board->gone)
				err = one_again(w, s->paths, s->n);
			else
				names_free(s->paths, s->n);
			free(s);
		}
	return err;
}

/* Of a name that may be a sealed file's: is it one of the volume's?  Those that this run has made are not counted once more. */
static bool is_ours(struct live *w, int dir, const char *name)
{
	CLEANUP_FD int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	enum sibling kind = SIBLING_OTHER;
	struct record r = {0};
	struct stat st;

	if (fd < 0 || fstat(fd, &st) || sibling_look(&w->sealer, fd, (uint64_t)st.st_size, &kind, &r))
		return false; /* the daemon will say */
	fail_clear();
	w->board->already += kind != SIBLING_OTHER && time_before(&r.made, &w->run->started);
	return kind != SIBLING_OTHER;
}

static void bad(void *arg, const char *path, int err)
{
	struct live *w = arg;

	w->board->failed++;
	live_say(*path ? path : ".", "failed", err);
}

static void nothing_done(void *arg, struct cdir *d)
{
}

static int one_single(struct live *w, int dir, const char *name, const char *path)
{
	struct names s = {0};
	int err = names_add(&s, path);

	return err ? err : live_one(w, dir, name, s.paths, s.n);
}

/* What is none of this volume is not gone into.  Each worker walks; one tells */
static void dir_look(struct live *w, struct walk *walk, const struct walk_entry *e, bool tell)
{
	const char *why = walk_foreign(e);
	CLEANUP_FREE char *path = why && tell ? cdir_join(e->dir, e->name) : NULL;

	if (!why)
		return;
	walk_skip(walk);
	if (path) {
		w->board->skipped++;
		fail(-EXDEV, "%s", why);
		live_say(path, "skipped", -EXDEV);
	}
}

static int walk_all(struct live *w, unsigned i)
{
	const struct walk_calls calls = {w, bad, nothing_done};
	struct walk_entry e;
	struct walk *walk;
	int got, err = walk_open(w->run->from_fd, true, true, &calls, &walk);

	while (!err && !w->board->stop && !w->board->gone && (got = walk_next(walk, &e)) != 0) {
		CLEANUP_FREE char *path = NULL;

		if (got < 0 || !S_ISREG(e.st.st_mode) || e.st.st_ino % w->run->workers != i) {
			err = MIN(got, 0);
			if (!err && S_ISDIR(e.st.st_mode))
				dir_look(w, walk, &e, i == 0);
			continue;
		}
		if (name_is_tdf(e.name) && is_ours(w, e.dir_fd, e.name))
			continue;
		path = cdir_join(e.dir, e.name);
		err = !path ? -ENOMEM : e.st.st_nlink > 1 ? one_of_set(w, &e.st, path) : one_single(w, e.dir_fd, e.name, path);
	}
	walk_close(walk);
	return err ? err : sets_rest(w);
}

/* Those that were busy, once more */
static int again(struct live *w)
{
	struct names *list = STEAL(w->busy);
	int err = 0;

	w->n_busy = 0;
	w->round++;
	(void)poll(NULL, 0, ROUND_MS);
	while (list) {
		struct names *s = list;

		list = s->next;
		if (w->board->stop)
			w->board->busy += s->n;
		if (err || w->board->stop || w->board->gone)
			names_free(s->paths, s->n);
		else
			err = one_again(w, s->paths, s->n);
		free(s);
	}
	return err ? err : live_commit(w);
}

static int work(struct live *w, unsigned i)
{
	int err = walk_all(w, i);

	if (!err)
		err = live_commit(w);
	while (!err && w->n_busy && !w->board->gone)
		err = again(w);
	if (err)
		report(REPORT_ERROR, "%s", cause_text(err));
	return err;
}

void live_worker(const struct convert_run *run, unsigned i, struct live_board *board)
{
	static const int quiet[] = {SIGINT, SIGHUP, SIGTERM, SIGIO, SIGPIPE, SIGUSR1, SIGQUIT};
	struct live w = {.run = run, .board = board, .max = run->batch};
	int err;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != run->parent)
		_exit(1);
	for (size_t k = 0; k < ARRAY_SIZE(quiet); k++)
		signal(quiet[k], SIG_IGN);
	umask(0);
	fail_clear();
	w.io = io_posix(run->from_fd);
	w.batch = calloc(w.max, sizeof(*w.batch));
	w.sets = calloc(LIVE_SETS, sizeof(struct names *));
	w.root = openat(run->from_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	err = w.root < 0 ? -errno : w.batch && w.sets ? sealer_init(&w.sealer, run->v) : -ENOMEM;
	if (!err)
		err = control_talk_open(run->v->dir_fd, ASK_MS, &w.talk);
	if (err)
		report(REPORT_ERROR, "%s", cause_text(err));
	else
		err = work(&w, i);
	control_talk_close(w.talk);
	_exit(err ? 1 : 0);
}
