/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Progress of a long command on standard error, and interruption.
 *
 * On a terminal one line is redrawn with rate and time left; elsewhere a plain line a minute; as JSON one object a second.  A thread of its
 * own prints.
 */
#ifndef TDFS_PROGRESS_H
#define TDFS_PROGRESS_H

#include "defs.h"

enum progress_form { PROGRESS_AUTO, PROGRESS_NONE, PROGRESS_JSON };

struct progress; /* opaque */

/** progress_start() - @verb: "verified"; @total: bytes, 0 = not known; NULL if out of memory, which every function here takes and ignores
 */
struct progress *progress_start(enum progress_form form, const char *verb, uint64_t total);
/** progress_add() - thread-safe */
void progress_add(struct progress *p, uint64_t bytes, uint64_t files);
/** progress_hush() - wipe the line on the terminal, so that another message can be printed; it comes back by itself */
void progress_hush(struct progress *p);
/** progress_stop() - print the last state and free */
void progress_stop(struct progress *p);

/** interrupt_catch() - from now on SIGINT, SIGTERM and SIGHUP only set a flag; a second one kills */
void interrupt_catch(void);
/** interrupted() - has one come? */
bool interrupted(void);

#endif
