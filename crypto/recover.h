/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Recovery: bring every file to its last committed state from the volume log.  Needs the volume key, never a data key or a KAS; may be
 * interrupted anywhere and run again.
 */
#ifndef TDFS_RECOVER_H
#define TDFS_RECOVER_H

#include "redo.h"

struct recover_keys {
	const uint8_t *volume_id;
	const struct secret *k_log, *k_rec, *k_hint;
};

struct recovered {
	uint64_t next_lsn, next_epoch;
	int half;           /* the half to start in */
	uint64_t other_end; /* where the other half goes on, 0: nothing is in it */
	/* what was found */
	uint64_t groups, files, sealed, committed, cut, stale, missing, damaged;
};

struct recover_damage {
	char *path; /* as stored, or "" */
	uint8_t file_id[ID_LEN];
};

/** recover() - scan, decide, apply, sync
 * @log_dir: `.tdfs`; @store_fd: root of the store (the walk for files whose hint is stale goes over all directories below it but .tdfs,
 * never through a symlink or mount point)
 * @apply: false = only report (tdfs check without changes); files with changes that only the log has are in @ret_damaged then: what is in
 * place is not their last state
 * @event: told each thing worth telling (path or "", text), may be NULL; with @apply no file that just got its last state
 * Blocks: disk.  Return: 0; 1 = damage inside the log, or a file that could not be recovered: the files that lost records may concern were
 * left alone and are in
 * @ret_damaged (malloc'd array, caller frees each path and the array), everything else is recovered, the log is kept as it is, the volume
 * must be mounted read-only; -ENOENT no log; -EBADMSG both halves unreadable, or the log of another volume; -errno */
int recover(const struct io *io, int log_dir, int store_fd, const struct recover_keys *keys, bool apply,
	    void (*event)(void *arg, const char *path, const char *text), void *arg, struct recovered *ret,
	    struct recover_damage **ret_damaged, size_t *ret_n_damaged) MUST_CHECK;

#endif
