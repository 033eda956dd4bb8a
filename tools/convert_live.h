/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Conversion of a store that is mounted: below the mount files are read and sealed, the daemon puts them in place (CONVERT.md section 7).
 * All the rest of such a run is that of any other.
 */
#ifndef TDFS_CONVERT_LIVE_H
#define TDFS_CONVERT_LIVE_H

#include "control.h"
#include "convert.h"
#include "options.h"
#include "volume.h"

/** live_serves() - has somebody @store mounted, and does it show plain files?  No secret is needed */
bool live_serves(const char *store);
/** live_refuse() - does a mount stand in the way of this verb?  An exit code, reported with what to do; EXIT_TDFS_OK: no mount */
int live_refuse(const char *store, enum convert_verb verb, bool in_place);
/** live_mounted() - is the store mounted and being converted?  1; 0 not mounted; -errno: mounted otherwise, fail() tells */
int live_mounted(const struct volume *v) MUST_CHECK;
/** live_hold() - one converter at a time, mounted or not: a descriptor to be kept; -EBUSY; -errno.  fail() tells */
int live_hold(const struct volume *v) MUST_CHECK;
/** live_prepare() - a volume is about to be mounted, for writing too; an exit code, reported */
int live_prepare(struct volume *v);

/** live_talk_open() - a conversation with the daemon; 0; -EPIPE there is none any more; -errno.  fail() tells */
int live_talk_open(const struct volume *v, struct control_talk **ret) MUST_CHECK;
/** live_ask() - a request with what is in @more, which is taken over; as control_talk() */
int live_ask(struct control_talk *c, const char *op, json_t *more, json_t **ret) MUST_CHECK;
int live_begin(struct control_talk *c, const char *path, uint64_t links) MUST_CHECK;
/** live_path() - as it travels: base64, since it may be any bytes; NULL: no memory */
json_t *live_path(const char *path) MUST_CHECK;

extern const struct command convert_open, convert_finish;

#endif
