/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TDFS_PLAIN_TALK_H
#define TDFS_PLAIN_TALK_H

#include "control.h"
#include "vtree.h"

#define PLAIN_NAMES_MAX 256 /* of one file, in a request */

struct plain_talk; /* opaque: one connection of a converter; used by one thread */
struct plain_talk_calls {
	const struct tree *tree;
	int (*strict)(void *arg); /* write the volume's new state; 0 or -errno */
	void *arg;
};

/** plain_talk_begin() - @calls: kept until the end; 0; -EROFS the volume is strict, or mounted read-only; -errno.  fail() tells */
int plain_talk_begin(const struct plain_talk_calls *calls, struct plain_talk **ret) MUST_CHECK;
/** plain_talk_answer() - a new reference; NULL: no memory */
json_t *plain_talk_answer(struct plain_talk *c, const json_t *req) MUST_CHECK;
void plain_talk_end(struct plain_talk *c);

#endif
