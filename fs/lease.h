/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys that a remote KAS gave are lent: they may be used until a moment, and are renewed before it.
 *
 * One thread renews: every open file whose key has used three quarters of its time, many with one request.  Another sees to the end: a key
 * that the KAS refused, or whose time is over, is not used for reading any more; what was decrypted is dropped from our cache and
 * (store_keys.lost) from the kernel's; only then is writing refused as well, so that what the kernel had accepted before still arrives.
 * Sealing goes on whatever happens: it needs no KAS, and data that was accepted must not be lost.
 *
 * A file made here is not ended by an outage, only by a refusal: making files needs no KAS.
 */
#ifndef TDFS_LEASE_H
#define TDFS_LEASE_H

#include "store.h"

struct leases;

/** leases_start() - the two threads; nothing for a store without a remote KAS, and with no_threads */
int leases_start(struct store *st) MUST_CHECK;
/** leases_stop_ending() - store_keys.lost is under way no more and not called again: before what it needs goes.  Waits for the call under
 * way, never for a KAS; nothing is read any more afterwards but by the store itself */
void leases_stop_ending(struct store *st);
/** leases_stop() - both; waits for a KAS that is being asked */
void leases_stop(struct store *st);

/** leases_renew() - what the first thread does: renew what is due; blocks on the KAS */
void leases_renew(struct store *st);
/** leases_end() - what the second does: drop what may not be shown any more */
void leases_end(struct store *st);

#endif
