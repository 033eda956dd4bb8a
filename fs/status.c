/* SPDX-License-Identifier: Apache-2.0 */
#include "status.h"

#include <time.h>

#include "kernel_sync.h"
#include "plain.h"
#include "writeback.h"

/* jansson takes UTF-8 only; a path may be anything */
static json_t *path_json(const char *path)
{
	char *copy CLEANUP_FREE = NULL;
	json_t *j = json_string(path);

	if (j)
		return j;
	copy = strdup(path);
	for (char *p = copy; p && *p; p++)
		if ((unsigned char)*p >= 0x80)
			*p = '?';
	return json_string(copy ? copy : "?");
}

static bool any_file(struct inode *f, void *arg)
{
	return true;
}

size_t store_dirty(struct store *st)
{
	struct inode **files;
	size_t n;

	if (writeback_collect(st, any_file, NULL, &files, &n))
		return 0;
	for (size_t i = 0; i < n; i++)
		inode_put(files[i]);
	free(files);
	return n;
}

json_t *mount_status(struct mount *m, const struct opened *o, time_t started)
{
	struct store *st = o->store;
	uint64_t flushes = 0, bytes = 0;
	struct timespec now;
	size_t live;

	clock_gettime(CLOCK_MONOTONIC, &now);
	mutex_lock(&st->list_lock);
	live = st->n_inodes;
	mutex_unlock(&st->list_lock);
	if (st->redo)
		redo_stats(st->redo, &flushes, &bytes);
	return json_pack(
	    "{s:i, s:b, s:i, s:o, s:o, s:I, s:b, s:b, s:{s:I, s:I}, s:I, s:{s:i, s:I, s:I}, s:{s:I, s:I, s:I, s:I}, s:I, s:I, s:s, s:i, "
	    "s:b}",
	    "v", 1, "ok", 1, "pid", (int)getpid(), "mountpoint", path_json(m->cfg->mountpoint), "store", path_json(o->volume->path),
	    "uptime", (json_int_t)(now.tv_sec - started), "read_only", (int)o->read_only, "failed", (int)st->failed, "files", "live",
	    (json_int_t)live, "dirty", (json_int_t)store_dirty(st), "dirty_bytes", (json_int_t)st->dirty, "log", "half_used",
	    st->redo ? (int)redo_half_used(st->redo) : 0, "flushes", (json_int_t)flushes, "bytes", (json_int_t)bytes, "counters", "commits",
	    (json_int_t)st->n_commits, "seals", (json_int_t)st->n_seals, "fsyncs", (json_int_t)st->n_fsyncs, "bad_segments",
	    (json_int_t)st->n_bad_segments, "inodes", (json_int_t)live, "nodes", (json_int_t)nodes_count(m->tree.nodes), "state",
	    plain_on(&m->tree) ? "converting" : "strict", "quiesced", (int)gate_left(&m->gate), "detached", !mount_is_there(m));
}
