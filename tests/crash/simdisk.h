/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A backing store in memory that keeps, over a power cut, only what POSIX and the journal promise.
 *
 * A sector (512 bytes) is atomic; unsynced writes, sizes, attributes and names persist in any mixture:
 *   SIM_EXT4   names persist in order (any prefix), a full sync of a file commits all names, new blocks are never visible before their data
 *   SIM_POSIX  names persist in any subset, only a sync of the directory or of everything makes them durable; size and data are independent
 * Pages are shared between a disk and its crash states, so that a state costs little.  One thread only.
 */
#ifndef TDFS_SIMDISK_H
#define TDFS_SIMDISK_H

#include "io.h"

enum sim_mode { SIM_EXT4, SIM_POSIX };
enum sim_call { SIM_SYNC, SIM_SYNCFS, SIM_WRITE, SIM_OTHER };

struct simdisk;

struct simdisk *simdisk_new(enum sim_mode mode);
void simdisk_free(struct simdisk *d);
/** simdisk_copy() - the same disk, pending changes and all, with nothing open */
struct simdisk *simdisk_copy(const struct simdisk *d);
/** simdisk_crash() - one of the states that a power cut now may leave; the same for the same seed */
struct simdisk *simdisk_crash(const struct simdisk *d, uint64_t seed);
/** simdisk_io() - the table to run the engine on */
const struct io *simdisk_io(struct simdisk *d);
/** simdisk_root() - a descriptor of the root directory; close it with the table */
int simdisk_root(struct simdisk *d);
/** simdisk_mkdir() - 0 or -errno */
int simdisk_mkdir(struct simdisk *d, int dirfd, const char *name);
/** simdisk_sync() - everything is durable; no hook */
void simdisk_sync(struct simdisk *d);
/** simdisk_hook() - called before every sync takes effect: until then the set of crash states only grows, so looking there is enough
 * @name: of the file, "" = everything */
void simdisk_hook(struct simdisk *d, void (*hook)(void *arg, const char *name), void *arg);
/** simdisk_fail() - the @nth call of this kind from now (1 = the next) fails with @err; a failed sync loses the pages, as Linux does.
 * @name: only files of that name, "abc*" = names that begin so, NULL = any; @stays: all later ones fail too */
void simdisk_fail(struct simdisk *d, enum sim_call call, unsigned nth, bool stays, int err, const char *name);
/** simdisk_calls() - syncs so far */
unsigned simdisk_syncs(const struct simdisk *d);
/** simdisk_graft() - the file @name of @from's root, as it is durable there, in place of the content of the same name here; 0 or -ENOENT */
int simdisk_graft(struct simdisk *to, struct simdisk *from, const char *name);
/** simdisk_random() - the generator used everywhere here (splitmix64) */
uint64_t simdisk_random(uint64_t *state);
/** simdisk_mix() - hashes @len bytes into @h, eight at a time: most of what these tests do would else be hashing */
uint64_t simdisk_mix(uint64_t h, const void *p, size_t len);
/** simdisk_hash() - over all durable names, sizes and contents below the root but `.tdfs`: do two recoveries agree? */
uint64_t simdisk_hash(struct simdisk *d);

#endif
