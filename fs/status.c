/* SPDX-License-Identifier: Apache-2.0 */
#include "status.h"

#include <time.h>

#include "kernel_sync.h"
#include "plain.h"
#include "volume_remote.h"
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

/* Each remote KAS and the keys that came from it; NULL: there is none */
static json_t *kas_json(const struct opened *o)
{
	static const char *const states[] = {[REMOTE_CLOSED] = "ok", [REMOTE_OPEN] = "away", [REMOTE_HALF_OPEN] = "trying"};
	const struct volume *v = o->volume;
	json_t *list = json_array();
	struct kas_stats s;

	for (size_t i = 0; i < v->n_remotes; i++) {
		struct remote_stats r = {0};
		bool used = volume_remote_stats(&v->remotes[i], &r);
		json_t *j = json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:i, s:i, s:i, s:i}", "url", v->remotes[i].url, "state",
				      used ? states[r.state] : "not asked yet", "requests", (json_int_t)r.requests, "token_requests",
				      (json_int_t)r.token_requests, "keys", (json_int_t)r.keys, "denied", (json_int_t)r.denied, "failures",
				      (json_int_t)r.failures, "fast_failures", (json_int_t)r.fast_failures, "mean_us", (int)r.mean_us, "max_us",
				      (int)r.max_us, "last_us", (int)r.last_us, "retry_in_ms", (int)r.retry_in_ms);

		if (*r.last_error)
			json_object_set_new(j, "last_error", json_string(r.last_error));
		json_array_append_new(list, j);
	}
	kas_stats(v->kas, &s);
	return json_pack("{s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "remotes", list, "keys", (json_int_t)s.keys, "hits", (json_int_t)s.hits,
			 "asked", (json_int_t)s.asked, "waits", (json_int_t)s.waits, "refused", (json_int_t)s.refused, "bridged",
			 (json_int_t)s.bridged, "revoked", (json_int_t)o->store->n_revoked, "lapsed", (json_int_t)o->store->n_lapsed);
}

json_t *mount_status(struct mount *m, const struct opened *o, time_t started)
{
	struct store *st = o->store;
	uint64_t flushes = 0, bytes = 0;
	struct timespec now;
	size_t live;
	json_t *j;

	clock_gettime(CLOCK_MONOTONIC, &now);
	mutex_lock(&st->list_lock);
	live = st->n_inodes;
	mutex_unlock(&st->list_lock);
	if (st->redo)
		redo_stats(st->redo, &flushes, &bytes);
	j = json_pack(
	    "{s:i, s:b, s:i, s:o, s:o, s:I, s:b, s:b, s:{s:I, s:I}, s:I, s:{s:i, s:I, s:I}, s:{s:I, s:I, s:I, s:I}, s:I, s:I, s:s, s:i, "
	    "s:b}",
	    "v", 1, "ok", 1, "pid", (int)getpid(), "mountpoint", path_json(m->cfg->mountpoint), "store", path_json(o->volume->path),
	    "uptime", (json_int_t)(now.tv_sec - started), "read_only", (int)o->read_only, "failed", (int)st->failed, "files", "live",
	    (json_int_t)live, "dirty", (json_int_t)store_dirty(st), "dirty_bytes", (json_int_t)st->dirty, "log", "half_used",
	    st->redo ? (int)redo_half_used(st->redo) : 0, "flushes", (json_int_t)flushes, "bytes", (json_int_t)bytes, "counters", "commits",
	    (json_int_t)st->n_commits, "seals", (json_int_t)st->n_seals, "fsyncs", (json_int_t)st->n_fsyncs, "bad_segments",
	    (json_int_t)st->n_bad_segments, "inodes", (json_int_t)live, "nodes", (json_int_t)nodes_count(m->tree.nodes), "state",
	    plain_on(&m->tree) ? "converting" : "strict", "quiesced", (int)gate_left(&m->gate), "detached", !mount_is_there(m));
	if (j && o->volume->n_remotes)
		json_object_set_new(j, "kas", kas_json(o));
	return j;
}
