/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asking a remote KAS for the keys of a directory's files with few requests, when they are opened one after the other.
 *
 * Listing alone asks for nothing: the KAS's audit log shows what was opened.  The first open in a directory that was listed asks for the
 * keys of up to 500 files from there on in the directory's own order, together with its own; while these are used two threads ask for the
 * next ones.  In a directory that nobody listed the number grows with the files that are opened.
 *
 * Who opens files in one listed directory after the other, all below one that was listed too, goes through that: what comes behind in the
 * same order, directories below directories, is asked for as if it were one.
 */
#ifndef TDFS_PREFETCH_H
#define TDFS_PREFETCH_H

#include "store.h"

struct prefetch;

/** prefetch_start() - nothing for a store without a remote KAS, and with no_threads */
int prefetch_start(struct store *st) MUST_CHECK;
void prefetch_stop(struct store *st);

/** prefetch_note() - the file @name in @dirfd, with @path from the store's root and @ino, is about to be opened, and @m is what its key
 * stands in.  May block on the KAS, until @end (now_ns()); no lock is held.  0; -ETIMEDOUT: it is late, and was waited for */
int prefetch_note(struct store *st, int dirfd, const char *name, const char *path, ino_t ino, const struct manifest *m, uint64_t end);
/** prefetch_listed() - the directory @dirfd is read from its start */
void prefetch_listed(struct store *st, int dirfd);

#endif
