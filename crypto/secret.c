/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Slots of 32 bytes in chunks of locked pages.  A chunk is never given back, so a process holds as much as it had secrets at its busiest:
 * 320 KiB for 10,000 open files.
 *
 * Under AddressSanitizer every secret is its own allocation instead, so that leaks and overruns are found.
 */
#include "secret.h"

#include <openssl/crypto.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "lock.h"

void wipe(void *p, size_t len)
{
	if (p)
		OPENSSL_cleanse(p, len);
}

void process_private(void)
{
	const struct rlimit no = {0, 0};

#ifndef ADDRESS_SANITIZER /* LeakSanitizer traces us at the end */
	(void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
#endif
	(void)setrlimit(RLIMIT_CORE, &no);
}

bool equal_ct(const void *a, const void *b, size_t len)
{
	return CRYPTO_memcmp(a, b, len) == 0;
}

#ifdef ADDRESS_SANITIZER

struct secret *secret_new(void)
{
	return calloc(1, sizeof(struct secret));
}

void secret_free(struct secret *s)
{
	if (s)
		wipe(s, sizeof(*s));
	free(s);
}

#else

#define CHUNK ((size_t)64 << 10)

/* What stands in a free slot.  The mark makes freeing twice an abort instead of one key handed to two owners. */
struct free_slot {
	struct free_slot *next;
	uint8_t mark[SECRET_LEN - sizeof(struct free_slot *)];
};
_Static_assert(sizeof(struct free_slot) == sizeof(struct secret), "a free slot is as large as a secret");

static const uint8_t free_mark[sizeof(((struct free_slot *)0)->mark)] = "tdfs: free secret slot";

static struct mutex pool_lock = MUTEX_INIT; /* a leaf */
static struct free_slot *pool_free;         /* guarded by pool_lock */

/* Caller holds pool_lock. */
static bool pool_grow(void)
{
	uint8_t *p = mmap(NULL, CHUNK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return false;
	(void)mlock(p, CHUNK); /* best effort: RLIMIT_MEMLOCK may be small, and a key in swap is better than no access to the data */
	(void)madvise(p, CHUNK, MADV_DONTDUMP);
	for (size_t off = CHUNK; off; off -= sizeof(struct secret)) {
		struct free_slot *f = (void *)(p + off - sizeof(struct secret));

		memcpy(f->mark, free_mark, sizeof(free_mark));
		f->next = pool_free;
		pool_free = f;
	}
	return true;
}

struct secret *secret_new(void)
{
	struct free_slot *f;

	mutex_lock(&pool_lock);
	if (!pool_free && !pool_grow()) {
		mutex_unlock(&pool_lock);
		return NULL;
	}
	f = pool_free;
	pool_free = f->next;
	mutex_unlock(&pool_lock);
	return memset(f, 0, sizeof(*f));
}

void secret_free(struct secret *s)
{
	struct free_slot *f = (void *)s;

	if (!s)
		return;
	if (memcmp(f->mark, free_mark, sizeof(free_mark)) == 0)
		abort();
	wipe(s, sizeof(*s));
	memcpy(f->mark, free_mark, sizeof(free_mark));
	mutex_lock(&pool_lock);
	f->next = pool_free;
	pool_free = f;
	mutex_unlock(&pool_lock);
}

#endif

struct secret *secret_copy(const struct secret *s)
{
	struct secret *c = secret_new();

	if (c)
		memcpy(c->b, s->b, SECRET_LEN);
	return c;
}
