/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys that a remote KAS gave, for as long as they may be used without asking it again.  Private to kas/.
 *
 * What is kept is one share per key access object, under a hash of all that the KAS judged (its URL, kid, wrapped key, binding, policy).
 * Three things can be known of one: the share, until the end of its time; a refusal, for a short time; nothing.  Whoever finds nothing is
 * told to ask, and everybody else who wants it meanwhile waits for that answer (single flight).  An outage is never kept: it is handed to
 * those who wait, and a share whose time is over may bridge it for as long as set at the start (grace).
 *
 * Bounded in number; shares are wiped when their time is over, when they are refused and when there is no room.  Thread-safe; one leaf
 * lock, no I/O under it.
 */
#ifndef TDFS_KEYCACHE_H
#define TDFS_KEYCACHE_H

#include "secret.h"

#define KEYCACHE_ID 32
#define KEYCACHE_MAX 131072u          /* shares; about 150 bytes each */
#define KEYCACHE_AGAIN_NS 2000000000u /* a share that bridges an outage is given out for this long at a time */

struct keycache;

struct keycache_times {  /* ns */
	uint64_t ttl;    /* a share is used for this long after the KAS was asked for it: the time a revocation takes */
	uint64_t grace;  /* ... and this much longer while the KAS cannot be asked */
	uint64_t denied; /* a refusal is believed for this long */
};

struct keycache_answer {
	int err;              /* 0; -EACCES, -EBADMSG refused; else an outage */
	struct secret *share; /* a copy, owned by the caller; NULL unless err is 0 */
	uint64_t until;       /* CLOCK_MONOTONIC ns: the share must not be used from then on */
	bool bridged;         /* only because the KAS cannot be asked */
};

enum keycache_look {
	KEYCACHE_KNOWN, /* the answer is there: a share or a refusal */
	KEYCACHE_ASK,   /* nobody knows: the caller has to ask the KAS now, then call keycache_fill(), whatever happens */
	KEYCACHE_BUSY,  /* somebody is asking: keycache_wait() */
};

/** keycache_new() - NULL if out of memory */
struct keycache *keycache_new(const struct keycache_times *t) MUST_CHECK;
void keycache_free(struct keycache *c);
/** keycache_set() - other times, before threads start */
void keycache_set(struct keycache *c, const struct keycache_times *t);

/** keycache_look() - what is known of @id
 * @after: a share counts only if it may be used beyond this moment: now, or later to have it renewed
 * @ret: filled for KEYCACHE_KNOWN; @ret_ticket: for KEYCACHE_BUSY.  Without memory KEYCACHE_KNOWN with -ENOMEM.  Never blocks.
 * Who has been told to ask must not wait for another id before he has filled his. */
enum keycache_look keycache_look(struct keycache *c, const uint8_t id[static KEYCACHE_ID], uint64_t now, uint64_t after,
				 struct keycache_answer *ret, uint64_t *ret_ticket);
/** keycache_has() - would keycache_look() give a share or a refusal? */
bool keycache_has(struct keycache *c, const uint8_t id[static KEYCACHE_ID], uint64_t now);
/** keycache_wait() - the answer that the one who asks gets; @until: CLOCK_MONOTONIC ns, -ETIMEDOUT after it */
void keycache_wait(struct keycache *c, const uint8_t id[static KEYCACHE_ID], uint64_t ticket, uint64_t until, struct keycache_answer *ret);
/** keycache_fill() - what the KAS said, or why it could not be asked
 * @asked: when it was asked, which is where the share's time starts; @share: copied; @ret: the answer for the caller: an outage may be
 * bridged */
void keycache_fill(struct keycache *c, const uint8_t id[static KEYCACHE_ID], uint64_t asked, uint64_t now, int err,
		   const struct secret *share, struct keycache_answer *ret);
/** keycache_expire() - wipe what is over; to be called every second or so.  Returns how many entries are left */
size_t keycache_expire(struct keycache *c, uint64_t now);

struct keycache_stats {
	uint64_t hits, misses, waits, refusals, bridged;
	size_t entries;
};
void keycache_stats(struct keycache *c, struct keycache_stats *ret);

#endif
