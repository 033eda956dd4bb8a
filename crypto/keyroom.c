/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Slots of locked memory, one for each thread's contexts, in one reserved range: what lies in the range is known from its address,
 * whichever thread frees it.  OpenSSL's allocator can be replaced for the whole process only; outside of keyroom_begin() and keyroom_end()
 * it is libc's.
 */
#include "keyroom.h"

#include <openssl/crypto.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "lock.h"
#include "secret.h"

#define SLOT ((size_t)8 << 10)
#define SLOTS 4096u

struct keyroom {
	uint8_t *p; /* NULL: no room, contexts lie where everything else does */
	size_t used;
	_Atomic unsigned live; /* allocations not freed */
	struct keyroom *next;
};

/* OpenSSL's hooks take no argument, so these are the process's */
static uint8_t *range;                      /* set once, before main() */
static struct mutex free_lock = MUTEX_INIT; /* a leaf */
static struct keyroom *free_rooms;          /* guarded by free_lock */
static size_t n_slots;                      /* likewise: taken from the range so far */
static _Thread_local struct keyroom *open_room;

#ifndef ADDRESS_SANITIZER /* which watches malloc itself */
static struct keyroom *room_of(const void *p)
{
	size_t off = (size_t)((uintptr_t)p - (uintptr_t)range);
	struct keyroom *room;

	if (!range || (uintptr_t)p < (uintptr_t)range || off >= SLOTS * SLOT)
		return NULL;
	memcpy(&room, range + off / SLOT * SLOT, sizeof(room)); /* a slot begins with whose it is */
	return room;
}

static void *hook_malloc(size_t n, const char *file, int line)
{
	struct keyroom *room = open_room;
	uint8_t *p;

	if (!n)
		return NULL;
	if (!room || n > SLOT - room->used)
		return malloc(n);
	p = room->p + room->used;
	room->used += (n + 15) / 16 * 16;
	room->used = MIN(room->used, SLOT);
	room->live++;
	return p;
}

static void hook_free(void *p, const char *file, int line)
{
	struct keyroom *room = room_of(p);

	if (room)
		room->live--;
	else
		free(p);
}

static void *hook_realloc(void *p, size_t n, const char *file, int line)
{
	struct keyroom *room = room_of(p);
	void *q;

	if (!room)
		return p ? realloc(p, n) : hook_malloc(n, file, line);
	q = n ? malloc(n) : NULL;
	if (q)
		memcpy(q, p, MIN(n, (size_t)(room->p + SLOT - (uint8_t *)p)));
	if (q || !n)
		hook_free(p, file, line);
	return q;
}

/* Before anything is allocated, else OpenSSL refuses. */
__attribute__((constructor)) static void hooks_set(void)
{
	void *p = mmap(NULL, SLOTS * SLOT, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p != MAP_FAILED && CRYPTO_set_mem_functions(hook_malloc, hook_realloc, hook_free) == 1)
		range = p;
	else if (p != MAP_FAILED)
		munmap(p, SLOTS * SLOT);
}
#endif

static bool room_lock(struct keyroom *room)
{
	if (!range || n_slots == SLOTS || mprotect(range + n_slots * SLOT, SLOT, PROT_READ | PROT_WRITE))
		return false;
	room->p = range + n_slots++ * SLOT;
	(void)mlock(room->p, SLOT); /* best effort, as in secret.c */
	(void)madvise(room->p, SLOT, MADV_DONTDUMP);
	return true;
}

struct keyroom *keyroom_begin(void)
{
	struct keyroom *room;

	mutex_lock(&free_lock);
	room = free_rooms;
	if (room) {
		free_rooms = room->next;
	} else {
		room = calloc(1, sizeof(*room));
		if (room && !room_lock(room)) {
			free(room);
			room = NULL;
		}
	}
	mutex_unlock(&free_lock);
	if (!room)
		return NULL;
	memcpy(room->p, &room, sizeof(room));
	room->used = 16;
	open_room = room;
	return room;
}

void keyroom_end(void)
{
	open_room = NULL;
}

void keyroom_free(struct keyroom *room)
{
	if (!room || room->live) /* something of it lives on: the slot is not used again */
		return;
	wipe(room->p + 16, SLOT - 16);
	mutex_lock(&free_lock);
	room->next = free_rooms;
	free_rooms = room;
	mutex_unlock(&free_lock);
}
